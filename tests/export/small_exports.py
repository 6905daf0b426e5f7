"""Exports of a tiny model that was tuned for a few steps, written without a data file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.export.manifest import ExportManifest, list_files
from ftkit.export.probes import Probes, measure_base, measure_trained
from ftkit.export.token_contract import make_contract
from ftkit.export.write import Trained, write_export
from ftkit.models.find import find_base
from ftkit.recipe.sections import ExportKind
from tests.contract.cases import Case, train_steps
from tests.tiny import CHATML

# A template with tools that insists on alternating turns.
TOOLED = (
    "{%- if tools %}{{ '<|im_start|>tools\n' + (tools | tojson) + '<|im_end|>\n' }}{% endif %}"
    "{%- for message in messages %}"
    "{%- if message.role == 'user' and not loop.first and messages[loop.index0 - 1].role == 'user' %}"
    "{{- raise_exception('Turns must alternate.') }}{% endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content }}"
    "{%- for call in message.tool_calls or [] %}"
    "{{- '[' + call.function.name + (call.function.arguments | tojson) + ']' }}{% endfor %}"
    "{{- '<|im_end|>\n' }}{% endfor %}"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DATED = "{{ 'Today: ' + strftime_now('%d %b %Y') + '\n' }}" + CHATML
LORA = Case("lora", "lora")
BOTH: dict[ExportKind, str] = {"adapter": "auto", "merged": "auto"}
ADAPTER: dict[ExportKind, str] = {"adapter": "auto"}
MERGED: dict[ExportKind, str] = {"merged": "auto"}


def write_exports(
    folder: Path,
    base: Path,
    tokenizer: Any,
    *,
    case: Case = LORA,
    steps: int = 3,
    exports: dict[ExportKind, str] = BOTH,
) -> Path:
    """Exports of one run, given as kinds with dtypes, below the folder given back."""
    trained = tiny_trained(base, tokenizer, case=case, steps=steps)
    for kind, dtype in exports.items():
        write_export(trained, kind, dtype, folder / kind)
    return folder


def tiny_trained(base: Path, tokenizer: Any, *, case: Case = LORA, steps: int = 3) -> Trained:
    """A live model after a few steps, with all that an export records about it."""
    method, model = case.method(), case.base(base)
    probes = Probes(ids=[[5, 60, 7, 80, 9]], positions=[[1, 2, 3, 4]], prompts=[[5, 60, 7]])
    measure_base(probes, model)
    attached = case.attached(base)
    train_steps(attached, steps)
    measure_trained(probes, attached.eval())
    return Trained(
        model=attached, method=method, base=find_base(str(base)), tokenizer=tokenizer, added_tokens={},
        stop_token_ids=[2], probes=probes, quantization=None,
        origin={
            "recipe": case.recipe, "method": case.as_recipe().method.model_dump(mode="json"), "recipe_digest": "r",
            "data_digest": "d",
        },
        facts={
            "data": {"trained": 3, "supervised_tokens": 13, "validation": 0}, "metrics": {},
            "losses": {"before": None, "after": None},
        },
    )  # fmt: skip


def write_paper_export(folder: Path, tokenizer: Any) -> Path:
    """An export without a model: all that a server's tokens are compared with."""
    folder.mkdir(parents=True)
    tokenizer.save_pretrained(folder)
    contract = make_contract(tokenizer)
    contract.write(folder)
    manifest = ExportManifest(
        kind="merged", recipe="lora", method={}, base={"name": "paper", "revision": None, "sha256": "0" * 64},
        recipe_digest="", data_digest="", tokenizer_digest="",
        chat_template_digest=None, dtype="float32", quantization=None, stop_tokens=[2],
        token_contract_digest=contract.digest, files=list_files(folder),
    )  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest.to_dict()))
    return folder


def change_manifest(folder: Path, **values: Any) -> None:
    """Rewrite keys of an export's manifest, and let it agree with the files as they are now."""
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "files": list_files(folder), **values}))
