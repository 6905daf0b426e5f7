"""run.md of a bundle: the three commands of the machine that it is carried to."""

from __future__ import annotations

from ftkit.export.manifest import WHOLE, ExportManifest
from ftkit.methods import ADAPTER_LOADERS

MODEL_FOLDER = "model"

_PYTHON = {
    "adapter": """from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("tuned/base")
model = PeftModel.from_pretrained(base, "tuned/model")
tokenizer = AutoTokenizer.from_pretrained("tuned/model")""",
    "merged": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("tuned/model")
tokenizer = AutoTokenizer.from_pretrained("tuned/model")""",
}


def run_guide(manifest: ExportManifest, *, needs_base: bool, has_base: bool) -> str:
    """Write run.md.

    Args:
        manifest: Of the export.
        needs_base: Whether it works only together with its base model.
        has_base: Whether the archive has that.
    """
    base = " --base FOLDER" if needs_base and not has_base else ""
    lines = [
        f"# {_title(manifest)}", "",
        "On a machine with ftkit and no network (`BUNDLE` is the archive's file):", "", "```sh",
        "ftkit unbundle BUNDLE -o tuned",
        f"ftkit verify tuned/{MODEL_FOLDER}{base}",
        _last_command(manifest.kind, base), "```", "",
    ]  # fmt: skip
    if base:
        lines += [
            f"The base model `{manifest.base['name']}` (weights SHA-256 `{manifest.base['sha256']}`) is not in this",
            "archive; FOLDER is where it stands.", "",
        ]  # fmt: skip
    if code := _python(manifest, has_base=has_base):
        lines += [
            "Without ftkit (`mkdir tuned && tar -xf BUNDLE -C tuned`), in Python:",
            "",
            "```python",
            code,
            "```",
            "",
        ]
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    lines += [
        f"It was written with {versions}. sbom.cdx.json lists all packages that load it, licences/ the terms of base "
        "and data, and BUNDLE.json every file with its SHA-256.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _title(manifest: ExportManifest) -> str:
    if manifest.kind in WHOLE:
        return f"Answers from documents, by {manifest.base['name']}"
    return f"{manifest.base['name']}, tuned with {manifest.recipe} ({manifest.kind})"


def _last_command(kind: str, base: str) -> str:
    """What answers; of kinds that only their own engine runs, where that is told."""
    if kind in WHOLE:
        return f"ftkit rag ask tuned/{MODEL_FOLDER} --question 'What is this about?'"
    if kind in ("gguf-adapter", "onnx"):
        return f"less tuned/{MODEL_FOLDER}/README.md    # its engine's own command"
    return f"ftkit generate tuned/{MODEL_FOLDER}{base} --prompt 'Hello'"


def _python(manifest: ExportManifest, *, has_base: bool) -> str:
    """How libraries load it from where the archive puts it; empty where model/README.md must tell more."""
    special = manifest.recipe in ADAPTER_LOADERS or manifest.quantization is not None or manifest.added_tokens
    if manifest.kind == "adapter" and (special or not has_base):
        return ""
    return _PYTHON.get(manifest.kind, "")
