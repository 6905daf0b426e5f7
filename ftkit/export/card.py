"""README.md of an export: what it is, how to load it, and what was measured."""

from __future__ import annotations

from typing import Any

from ftkit.export.manifest import ExportManifest

_LOAD = {
    "adapter": """from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "bottleneck": """import ftkit
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model = ftkit.load_adapter(base, "{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "gguf": """llama-server -m {folder}/model.gguf --jinja
ollama create my-model -f {folder}/Modelfile""",
    "gguf-adapter": """# base.gguf: {base} itself as a GGUF
llama-server -m base.gguf --lora {folder}/adapter.gguf --jinja \\
  --chat-template-file {folder}/chat_template.jinja""",
    "merged": """from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
}


_LIBRARIES = {
    "adapter": "peft",
    "bottleneck": "ftkit",
    "gguf": "llama.cpp",
    "gguf-adapter": "llama.cpp",
    "merged": "transformers",
}


def model_card(manifest: ExportManifest, facts: dict[str, Any]) -> str:
    """Write the card.

    Args:
        manifest: Of the export.
        facts: ``data`` (the data report), ``metrics`` {before, after} and ``losses`` {before, after}.
    """
    form = "bottleneck" if (manifest.kind, manifest.recipe) == ("adapter", "adapter") else manifest.kind
    library = _LIBRARIES[form]
    base = manifest.base["name"]
    data = facts["data"]
    lines = [
        "---", f"base_model: {base}", f"library_name: {library}", "pipeline_tag: text-generation",
        "tags: [ftkit, " + manifest.recipe + "]", "---", "",
        f"# {base}, tuned with {manifest.recipe} ({manifest.kind})", "",
        f"Trained from `{base}` (revision `{manifest.base['revision']}`, weights SHA-256 "
        f"`{manifest.base['sha256'][:16]}…`) on {data['trained']} rows ({data['supervised_tokens']} supervised "
        f"tokens); {data['validation']} rows were held back.", "",
    ]  # fmt: skip
    rows = [("validation loss", facts["losses"])] + [
        (name, {side: facts["metrics"][side][name] for side in ("before", "after")})
        for name in facts["metrics"].get("after", {})
    ]
    known = [(name, both) for name, both in rows if both.get("before") is not None and both.get("after") is not None]
    if known:
        lines += ["| held-back rows | before | after |", "|---|---|---|"]
        lines += [f"| {name} | {both['before']:.4g} | {both['after']:.4g} |" for name, both in known] + [""]
    language = "bash" if library == "llama.cpp" else "python"
    lines += ["## Load it", "", f"```{language}", _LOAD[form].format(folder="this-folder", base=base), "```", ""]
    if manifest.quantization:
        lines += [
            "The adapter was trained on a quantised base. Load the base with",
            f"`BitsAndBytesConfig(**{manifest.quantization})`; on the full-precision base it is another model.", "",
        ]  # fmt: skip
    lines += [
        *_vocabulary_lines(manifest),
        f"Answers end with token ids {manifest.stop_tokens}, as generation_config.json says.", "",
        "## Check it", "", "`ftkit verify .` compares bytes, tokenizer, chat template and logits with what the",
        "trained model gave; the figures of the first check are in verify.json.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _vocabulary_lines(manifest: ExportManifest) -> list[str]:
    lines = []
    if manifest.added_tokens:
        lines += [
            f"The vocabulary has {len(manifest.added_tokens)} tokens more than the base's (ids "
            f"{manifest.added_tokens}); their rows were trained and are part of this export.", "",
        ]  # fmt: skip
    if manifest.chat_template_kwargs:
        lines += [
            f"The chat template renders with {manifest.chat_template_kwargs} unless a request says otherwise.", ""
        ]  # fmt: skip
    return lines
