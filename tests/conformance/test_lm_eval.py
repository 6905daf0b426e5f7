"""What lm-evaluation-harness measures of an export, by the README's commands, is what ftkit measures of it.

It runs without a network, in the Python that ``FTKIT_LM_EVAL_PYTHON`` names, or in this one where it is installed.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.render import render_chat
from ftkit.data.sample import Turn
from ftkit.evaluate.forgetting import Forgetting
from ftkit.evaluate.general import ChoiceProbe, General
from ftkit.evaluate.loss import mean_loss
from ftkit.models.tokenizer import text_prefix
from ftkit.pipeline.target import Target, open_target
from tests.contract.cases import Case
from tests.export.small_exports import ADAPTER, BOTH, LORA, write_exports
from tests.tiny import tiny_tokenizer

PYTHON = os.environ.get("FTKIT_LM_EVAL_PYTHON") or (sys.executable if importlib.util.find_spec("lm_eval") else None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PYTHON is None, reason="lm-eval is not installed; FTKIT_LM_EVAL_PYTHON names the Python that has it"
    ),
]
CLOSE = 1e-3  # nats of a whole answer; float32 in other batches
TASK = """\
task: probes
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}{after}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{gold}}}}"
target_delimiter: "{delimiter}"
metric_list: [{{metric: acc_norm}}]
"""
PROBES = [
    ChoiceProbe(query="What colour is the sky?", choices=("blue", "green grass", "nine"), gold=0),
    ChoiceProbe(query="What colour is grass?", choices=("blue", "green", "a customer"), gold=1),
    ChoiceProbe(query="how are you today?", choices=("seven eight nine ten", "fox"), gold=0),
    ChoiceProbe(query="where is my order L1234?", choices=("delivery", "over the lazy dog"), gold=0),
    ChoiceProbe(query="one two three four", choices=("five", "brown", "tool"), gold=2),
]


def run_lm_eval(folder: Path, model_args: str, *, chat: bool = False) -> tuple[float, list[list[float]]]:
    """The accuracy that it reports, and the log-likelihood of every choice of every probe."""
    folder.mkdir()
    rows = [{"query": one.query, "choices": one.choices, "gold": one.gold} for one in PROBES]
    (folder / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    after, delimiter = ("", "") if chat else ("\\nAnswer:", " ")
    task = TASK.format(data=folder / "probes.jsonl", after=after, delimiter=delimiter)
    (folder / "probes.yaml").write_text(task)
    command = [
        PYTHON, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"{model_args},dtype=float32",
        "--device", "cpu", "--batch_size", "2", "--include_path", str(folder), "--tasks", "probes", "--log_samples",
        "--output_path", str(folder / "out"), *(["--apply_chat_template"] if chat else []),
    ]  # fmt: skip
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    reported = json.loads(next(folder.glob("out/*/results_*.json")).read_text())["results"]["probes"]
    samples = [json.loads(line) for line in next(folder.glob("out/*/samples_*.jsonl")).read_text().splitlines()]
    samples.sort(key=lambda one: one["doc_id"])
    return reported["acc_norm,none"], [[float(one[0][0]) for one in sample["resps"]] for sample in samples]


def own(target: Target, *, chat: bool = False) -> list[list[float]]:
    """The same log-likelihoods by ftkit's model, tokens and loss."""
    tokenizer = target.tokenizer
    prefix = text_prefix(tokenizer)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def one(query: str, choice: str) -> float:
        if chat:
            # It counts white space at the end of the prompt, here the template's line break, as the answer's.
            asked = render_chat(tokenizer, (Turn(role="user", content=query),), ask=True)
            given = ids(asked.rstrip())
            wanted = ids(asked + choice)[len(given) :]
        else:
            given, wanted = prefix + ids(f"{query}\nAnswer:"), ids(f" {choice}")
        row: Any = TokenizedExample(
            input_ids=[*given, *wanted], labels=[*[IGNORED] * len(given), *wanted], answer_start=len(given),
            stop_id=-1, answer="", place="",
        )  # fmt: skip
        loss = mean_loss(target.model, [row], compute=target.compute)
        return -loss.mean * loss.tokens

    return [[one(probe.query, choice) for choice in probe.choices] for probe in PROBES]


def forgetting_accuracy(target: Target) -> float | None:
    general = General(choices=tuple(PROBES))
    return Forgetting(general, target.tokenizer, target.compute).measure(target.model).choice_accuracy


def assert_same(found: list[list[float]], expected: list[list[float]]) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    for row, wanted in zip(found, expected, strict=True):
        assert row == pytest.approx(wanted, abs=CLOSE)


@pytest.fixture(scope="module")
def exports(tiny_llama, tmp_path_factory):
    """Exports of a method, made when they are first asked for."""
    made: dict[str, Path] = {}

    def make(method: str) -> Path:
        if method not in made:
            case = {"lora": LORA}.get(method) or Case(method, method, {"num_virtual_tokens": 4})
            kinds = ADAPTER if method == "prefix" else BOTH
            folder = tmp_path_factory.mktemp(method)
            made[method] = write_exports(folder, tiny_llama, tiny_tokenizer(), case=case, exports=kinds, steps=20)
        return made[method]

    return make


def args_for(folder: Path, kind: str, base: Path) -> str:
    """As the README has them: an adapter goes onto its base, with the tokenizer of the export."""
    where = folder / kind
    return f"pretrained={where}" if kind == "merged" else f"pretrained={base},peft={where},tokenizer={where}"


@pytest.mark.parametrize(
    ("method", "kind"),
    [("lora", "merged"), ("lora", "adapter"), ("prompt", "merged"), ("prompt", "adapter"), ("prefix", "adapter")],
)
def test_likelihoods_and_accuracy_are_those_of_ftkit(method, kind, exports, tiny_llama, tmp_path):
    target = open_target(str(exports(method) / kind))
    accuracy, found = run_lm_eval(tmp_path / "eval", args_for(exports(method), kind, tiny_llama))

    assert_same(found, own(target))
    assert accuracy == pytest.approx(forgetting_accuracy(target))
    # And it is the tuned model that was measured.
    untouched = own(open_target(str(tiny_llama)))
    pairs = zip(itertools.chain(*found), itertools.chain(*untouched), strict=True)
    assert max(abs(tuned - bare) for tuned, bare in pairs) > 0.1


@pytest.mark.parametrize(("method", "kind"), [("prompt", "merged"), ("lora", "adapter")])
def test_under_the_chat_template_too(method, kind, exports, tiny_llama, tmp_path):
    target = open_target(str(exports(method) / kind))
    arguments = args_for(exports(method), kind, tiny_llama) + ",add_bos_token=False"
    _, found = run_lm_eval(tmp_path / "eval", arguments, chat=True)

    assert_same(found, own(target, chat=True))
