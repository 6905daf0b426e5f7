"""README.md of an export: what it is, how to load it, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftkit.export.engines import engines_of, not_for_vllm, vllm_rank
from ftkit.export.manifest import ExportManifest
from ftkit.models.known import KNOWN_MODELS

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
    "nf4": """# pip install transformers accelerate bitsandbytes; config.json says how the weights are stored
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{folder}", device_map="auto")
tokenizer = AutoTokenizer.from_pretrained("{folder}")""",
    "onnx": """# pip install onnxruntime-genai
import json
import onnxruntime_genai as og

model = og.Model("{folder}")
tokenizer = og.Tokenizer(model)
messages = [{{"role": "user", "content": "Hello"}}]
prompt = tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
settings = og.GeneratorParams(model)
settings.set_search_options(max_length=512, do_sample=False)
generator = og.Generator(model, settings)
generator.append_tokens(tokenizer.encode(prompt))
stream = tokenizer.create_stream()
while not generator.is_done():
    generator.generate_next_token()
    print(stream.decode(generator.get_next_tokens()[0]), end="", flush=True)""",
}


_LIBRARIES = {
    "adapter": "peft",
    "bottleneck": "ftkit",
    "gguf": "llama.cpp",
    "gguf-adapter": "llama.cpp",
    "merged": "transformers",
    "nf4": "transformers",
    "onnx": "onnxruntime-genai",
}


def model_card(manifest: ExportManifest, facts: dict[str, Any], folder: Path) -> str:
    """Write the card.

    Args:
        manifest: Of the export.
        folder: That holds it.
        facts: ``data`` (the data report), ``metrics`` {before, after} and ``losses`` {before, after}, ``step`` and
            ``steps`` where it is not of the run's end; not read for a
            combination of adapters, whose manifest has it all.
    """
    combination = manifest.notes.get("combination")
    form = "bottleneck" if (manifest.kind, manifest.recipe) == ("adapter", "adapter") else manifest.kind
    library = _LIBRARIES[form]
    base = manifest.base["name"]
    made = _combination_lines(manifest, combination) if combination else _training_lines(manifest, facts)
    lines = [
        "---", *_hub_base(manifest.base), f"library_name: {library}", "pipeline_tag: text-generation",
        "tags: [ftkit, " + manifest.recipe + "]", "---", "",
        f"# {base}, {'a combination of' if combination else 'tuned with'} {manifest.recipe} ({manifest.kind})", "",
        *made,
    ]  # fmt: skip
    language = "bash" if library == "llama.cpp" else "python"
    lines += ["## Load it", "", f"```{language}", _LOAD[form].format(folder="this-folder", base=base), "```", ""]
    if manifest.quantization:
        lines += [
            "The adapter was trained on a quantised base. Load the base with",
            f"`BitsAndBytesConfig(**{manifest.quantization})`; on the full-precision base it is another model.", "",
        ]  # fmt: skip
    lines += [
        *_engine_lines(manifest, folder),
        *_quality_lines(manifest),
        *_vocabulary_lines(manifest),
        f"Answers end with token ids {manifest.stop_tokens}, as generation_config.json says.", "",
        "## Check it", "", "`ftkit verify .` compares bytes, tokenizer, chat template and logits with what the",
        "trained model gave; the figures of the first check are in verify.json.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _engine_lines(manifest: ExportManifest, folder: Path) -> list[str]:
    """Where it runs, and the command for vLLM, whose defaults suit few adapters."""
    path = folder / "adapter_config.json"
    adapter = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    lines = ["## Where it runs", "", "| engine | | why |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.status} | {one.why} |" for one in engines_of(manifest, adapter)] + [""]
    if manifest.kind == "adapter" and adapter is not None and not not_for_vllm(adapter, manifest):
        lines += ["```bash", _vllm_command(manifest, adapter, folder), "```", ""]
    return lines


def _vllm_command(manifest: ExportManifest, adapter: Mapping[str, Any], folder: Path) -> str:
    name = manifest.base["name"]
    base = KNOWN_MODELS[name].hub_id if name in KNOWN_MODELS else name
    template = (
        " --chat-template this-folder/chat_template.jinja" if (folder / "chat_template.jinja").is_file() else ""
    )
    return (
        f"vllm serve {base} --tokenizer this-folder "
        f"--generation-config this-folder{template} \\\n"
        f"  --enable-lora --max-lora-rank {vllm_rank(adapter)} --lora-modules tuned=this-folder"
    )


def _training_lines(manifest: ExportManifest, facts: dict[str, Any]) -> list[str]:
    """What it was trained on, and what that changed."""
    data = facts["data"]
    lines = [
        f"Trained from `{manifest.base['name']}` (revision `{manifest.base['revision']}`, weights SHA-256 "
        f"`{manifest.base['sha256'][:16]}…`) on {data['trained']} rows ({data['supervised_tokens']} supervised "
        f"tokens); {data['validation']} rows were held back.", "",
    ]  # fmt: skip
    if "step" in facts:
        lines += [f"These are the weights after step {facts['step']} of {facts['steps']}.", ""]
    rows = [("validation loss", facts["losses"])] + [
        (name, {side: facts["metrics"][side][name] for side in ("before", "after")})
        for name in facts["metrics"].get("after", {})
    ]
    known = [(name, both) for name, both in rows if both.get("before") is not None and both.get("after") is not None]
    if known:
        lines += ["| held-back rows | before | after |", "|---|---|---|"]
        lines += [f"| {name} | {both['before']:.4g} | {both['after']:.4g} |" for name, both in known] + [""]
    return lines


def _combination_lines(manifest: ExportManifest, combination: dict[str, Any]) -> list[str]:
    """Which adapters it was made of, how, and what each task kept."""
    settings = [f"{key} {combination[key]}" for key in ("density", "majority_sign", "seed") if key in combination]
    how = ", ".join([combination["how"], *settings])
    lines = [
        f"Combined by {how} from {len(combination['sources'])} adapters of `{manifest.base['name']}` (revision "
        f"`{manifest.base['revision']}`, weights SHA-256 `{manifest.base['sha256'][:16]}…`). On the texts that each "
        "adapter's own training recorded:", "",
        "| adapter | weight | SHA-256 | KL from it, nats a token | the base's | same most likely token |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {source['name']} | {source['weight']:g} | `{source['weights_sha256'][:16]}…` | {source['kl_mean']:.3g} | "
        f"{source['base_kl_mean']:.3g} | {100 * source['top1_agreement']:.1f} % |"
        for source in combination["sources"]
    ]
    if truncation := combination["truncation"]:
        lines += [
            "",
            f"Rank {combination['rank']} has no room for {100 * truncation['lost']:.1f} % of the combined update's "
            f"length ({100 * truncation['worst_lost']:.1f} % in `{truncation['worst_layer']}`).",
        ]
    return [*lines, ""]


def _quality_lines(manifest: ExportManifest) -> list[str]:
    """What storing the weights in few bits cost, where it was measured."""
    loss = manifest.notes.get("quality_loss")
    if loss is None:
        return []
    return [
        f"The weights are stored as {manifest.dtype}. Against the trained model, on {loss['positions']} positions of "
        f"the held-back rows: mean KL divergence of the next token {loss['kl_mean']:.2g} nats, the same most likely "
        f"token at {100 * loss['top1_agreement']:.1f} % of all positions, {loss['greedy_equal']} of {loss['greedy']} "
        "greedy answers equal.", "",
    ]  # fmt: skip


def _hub_base(base: dict[str, Any]) -> list[str]:
    """The card's link to the base; none for a folder, as the hub refuses cards that link to no model of its own."""
    if base["name"] in KNOWN_MODELS:
        return [f"base_model: {KNOWN_MODELS[base['name']].hub_id}"]
    is_hub_id = base["revision"] is not None and base["name"].count("/") == 1
    return [f"base_model: {base['name']}"] if is_hub_id else []


def _vocabulary_lines(manifest: ExportManifest) -> list[str]:
    lines = []
    if manifest.prefix_ids:
        front = manifest.prefix_ids
        lines += [
            f"Its soft prompt is {len(front)} tokens of the vocabulary, ids {front[0]} to {front[-1]}. They stand in",
            "front of every text, before any BOS: the chat template writes them, and for plain text the tokenizer",
            "does. An engine must add nothing in front of a rendered chat, and one that does not use the tokenizer's",
            "post-processor must be given them with a plain text. They are never sampled: the output head, which is",
            "not tied to the embedding, has rows of their own for that.", "",
        ]  # fmt: skip
    trained = [token for token in manifest.added_tokens if token not in manifest.prefix_ids]
    if trained:
        lines += [
            f"The vocabulary has {len(trained)} tokens more than the base's (ids {trained}); their rows were trained "
            "and are part of this export.", "",
        ]  # fmt: skip
    if manifest.chat_template_kwargs:
        lines += [
            f"The chat template renders with {manifest.chat_template_kwargs} unless a request says otherwise.", ""
        ]  # fmt: skip
    return lines
