"""Six methods on SmolLM2, in every engine: the trained model's greedy tokens and log-probabilities, or a refusal.

Each engine runs without a network, in an environment of its own where its pins differ: ``FTKIT_VLLM_PYTHON`` names
the Python of one in which vLLM is installed. ``.ci/conformance`` sets that up and runs this.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import ftkit
from ftkit.errors import FtkitError
from ftkit.export.converter import find_converter
from ftkit.export.engines import not_for_vllm, vllm_rank
from ftkit.export.manifest import read_manifest
from ftkit.recipe import RECIPES
from tests.conformance.conftest import CELLS
from tests.tiny import write_rows

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]
SCRIPTS = Path(__file__).parent / "engines"
ROWS, STEPS = 48, 8
CLOSE = 2e-3  # nats; float32 in other orders of addition
MERGED, ADAPTERS = ("full", "lora", "qlora", "prompt"), ("lora", "qlora", "prefix", "prompt")
# QLoRA's merge is another model than what was trained, within what its own verification allows.
QUANTISED = "qlora"
SETTINGS = {
    "prefix": {"method": {"num_virtual_tokens": 8}},
    "prompt": {"method": {"num_virtual_tokens": 8}},
}


@pytest.fixture(scope="module")
def runs(smollm2, tmp_path_factory):
    """A run of a method, made when it is first asked for, with the live model's answers."""
    made: dict[str, SimpleNamespace] = {}

    def make(method: str) -> SimpleNamespace:
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            exports = [*(["adapter"] if method != "full" else [])]
            if method in MERGED:
                exports.append({"kind": "merged", "dtype": "float32"})
            values = {
                "model": {"path": "smollm2-135m", "dtype": "float32"},
                "data": {"train": str(write_rows(folder / "rows.jsonl", ROWS)), "validation": 0.2},
                "train": {"max_steps": STEPS, "batch_size": 8},
                "evaluate": {"max_examples": 1, "max_new_tokens": 4},
                "export": exports,
                "output": str(folder / "run"),
                **SETTINGS.get(method, {}),
            }
            run = ftkit.run(RECIPES[method].model_validate({"recipe": method, **values}), quiet=True)
            made[method] = _live(run.folder)
        return made[method]

    return make


@torch.no_grad()
def _live(folder: Path) -> SimpleNamespace:
    """Greedy tokens of the live model, with the log-probability of each."""
    probes = json.loads(next(folder.glob("export/*/verification/probes.json")).read_text())
    target = ftkit.open_target(str(folder))
    logprobs = []
    for prompt, greedy in zip(probes["prompts"], probes["greedy"], strict=True):
        logits = target.model(input_ids=torch.tensor([prompt + greedy]), use_cache=False).logits[0].float()
        wanted = torch.tensor(greedy)[:, None]
        logprobs.append(logits[-len(greedy) - 1 : -1].log_softmax(-1).gather(1, wanted)[:, 0].tolist())
    chat = target.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)
    return SimpleNamespace(
        folder=folder, prompts=probes["prompts"], greedy=probes["greedy"], logprobs=logprobs, chat=chat["input_ids"]
    )


def ask(python: str, script: str, live: SimpleNamespace, kind: str, base: Path | None, tmp_path: Path) -> list[dict]:
    """What an engine answers, in a process of its own that can reach nothing but itself."""
    folder = live.folder / "export" / kind
    manifest = read_manifest(folder)
    job = {
        "folder": str(folder), "base": None if base is None else str(base), "tokens": len(live.greedy[0]),
        "prompts": [manifest.prefix_ids + prompt for prompt in live.prompts] if kind == "merged" else live.prompts,
        "quantization": manifest.quantization, "chat": "hi", "out": str(tmp_path / "found.json"),
    }  # fmt: skip
    config = folder / "adapter_config.json"
    if config.is_file() and "r" in (adapter := json.loads(config.read_text())):
        job["rank"] = vllm_rank(adapter)
    (tmp_path / "job.json").write_text(json.dumps(job))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    apart: list[str] = []
    if shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], check=False).returncode == 0:
        apart, environment["FTKIT_IN_NAMESPACE"] = ["unshare", "-rn"], "1"
    command = [*apart, python, str(SCRIPTS / "isolated.py"), str(SCRIPTS / script), str(tmp_path / "job.json")]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((tmp_path / "found.json").read_text())


def agree(method: str, engine: str, live: SimpleNamespace, found: list[dict]) -> None:
    """The same tokens, as likely; the cell of the table says how near."""
    answers = [answer for answer in found if "ids" in answer]
    equal = sum(answer["ids"] == wanted for answer, wanted in zip(answers, live.greedy, strict=True))
    far = max(
        abs(one - other)
        for answer, wanted, ids in zip(answers, live.logprobs, live.greedy, strict=True)
        for one, other, token, expected in zip(answer["logprobs"], wanted, answer["ids"], ids, strict=True)
        if token == expected
    )
    CELLS[method, engine] = f"proven: {equal}/{len(answers)} greedy, Δlog p {far:.1e}"
    assert equal == len(answers)
    assert far < CLOSE


def refused(method: str, engine: str, because: str) -> None:
    CELLS[method, engine] = f"refused: {because}"
    assert because


@pytest.mark.parametrize("method", RECIPES)
def test_plain_transformers_reads_the_merged_export(method, runs, tmp_path):
    if method not in MERGED:
        with pytest.raises(FtkitError) as caught:
            ftkit.open_run(runs(method).folder).export("merged", tmp_path / "merged")
        return refused(method, "transformers (merged)", caught.value.problems[0].what)
    found = ask(sys.executable, "plain_transformers.py", runs(method), "merged", None, tmp_path)
    if method == QUANTISED:
        return near(method, "transformers (merged)", runs(method), found)
    return agree(method, "transformers (merged)", runs(method), found)


def near(method: str, engine: str, live: SimpleNamespace, found: list[dict]) -> None:
    """A merge of QLoRA in an engine is the same merge as in transformers, which verification has measured."""
    answers = [answer for answer in found if "ids" in answer]
    equal = sum(answer["ids"] == wanted for answer, wanted in zip(answers, live.greedy, strict=True))
    notes = read_manifest(live.folder / "export" / "merged").notes
    kl = notes["measured"][notes["merged_into"]]["kl_mean"]
    CELLS[method, engine] = f"proven: {equal}/{len(answers)} greedy, mean KL {kl:.1e} (into {notes['merged_into']})"
    assert kl < 0.05


@pytest.mark.parametrize("method", RECIPES)
def test_plain_peft_reads_the_adapter(method, runs, smollm2, tmp_path):
    if method not in ADAPTERS:
        CELLS[method, "PEFT (adapter)"] = "not applicable: " + (
            "no adapter" if method == "full" else "ftkit's loader reads it"
        )
        pytest.skip(CELLS[method, "PEFT (adapter)"])
    found = ask(sys.executable, "plain_transformers.py", runs(method), "adapter", smollm2.folder, tmp_path)
    agree(method, "PEFT (adapter)", runs(method), found)


@pytest.mark.parametrize("method", RECIPES)
def test_ftkit_loads_what_it_exports(method, runs):
    """Each export in a process of its own: its verification, and what `ftkit generate` opens."""
    kind = "merged" if method == "full" else "adapter"
    live = runs(method)
    target = ftkit.open_target(str(live.folder / "export" / kind))
    logits = target.model(input_ids=torch.tensor([live.prompts[0] + live.greedy[0]]), use_cache=False).logits[0]
    wanted = torch.tensor(live.greedy[0])[:, None]
    chosen = logits[-len(wanted) - 1 : -1].detach().float().log_softmax(-1).gather(1, wanted)[:, 0].tolist()
    first = SimpleNamespace(**{**vars(live), "greedy": live.greedy[:1], "logprobs": live.logprobs[:1]})
    agree(method, "ftkit", first, [{"ids": live.greedy[0], "logprobs": chosen}])


@pytest.fixture(scope="module")
def vllm():
    python = os.environ.get("FTKIT_VLLM_PYTHON")
    if not python:
        pytest.skip("FTKIT_VLLM_PYTHON names no Python of an environment with vLLM; .ci/conformance makes one")
    return python


@pytest.mark.parametrize("method", MERGED)
def test_vllm_serves_the_merged_export(method, runs, vllm, tmp_path):
    live = runs(method)
    found = ask(vllm, "vllm_answers.py", live, "merged", None, tmp_path)

    (near if method == QUANTISED else agree)(method, "vLLM (merged)", live, found)
    assert found[-1]["chat"] == read_manifest(live.folder / "export" / "merged").prefix_ids + live.chat


@pytest.mark.parametrize("method", ["lora", "qlora", "prefix", "prompt", "adapter"])
def test_vllm_serves_a_lora_adapter_and_the_others_are_refused(method, runs, smollm2, vllm, tmp_path):
    live = runs(method)
    folder = live.folder / "export" / "adapter"
    reason = not_for_vllm(json.loads((folder / "adapter_config.json").read_text()), read_manifest(folder))
    if method != "lora":
        return refused(method, "vLLM (adapter)", reason)
    assert reason == ""
    found = ask(vllm, "vllm_answers.py", live, "adapter", smollm2.folder, tmp_path)
    assert found[-1]["chat"] == live.chat
    return agree(method, "vLLM (adapter)", live, found)


def _llama_cpp() -> None:
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; pip install 'ftkit[gguf]'")
    try:
        find_converter()
    except FtkitError as error:
        pytest.skip(str(error))


def _onnx() -> None:
    pytest.importorskip("onnxruntime_genai", reason="pip install 'ftkit[onnx]'")


@pytest.mark.parametrize(
    ("kind", "engine", "require"),
    [
        ("gguf", "llama.cpp (gguf)", _llama_cpp),
        ("gguf-adapter", "llama.cpp (gguf-adapter)", _llama_cpp),
        ("onnx", "ONNX Runtime GenAI", _onnx),
    ],
)
@pytest.mark.parametrize("method", RECIPES)
def test_other_engines_give_the_live_models_answers_or_the_export_is_refused(
    method, kind, engine, require, runs, tmp_path
):
    require()
    run = ftkit.open_run(runs(method).folder)
    if method not in (("lora",) if kind == "gguf-adapter" else MERGED):
        with pytest.raises(FtkitError) as caught:
            run.export(kind, tmp_path / kind, dtype="auto")
        refused(method, engine, caught.value.problems[0].what)
        return
    dtype = "auto" if kind == "gguf-adapter" else "float32"
    run.export(kind, tmp_path / kind, dtype=dtype)  # refused unless its verification in that very engine passes

    checks = {one["name"]: one for one in json.loads((tmp_path / kind / "verify.json").read_text())["checks"]}
    value = checks["logits_match_trained"]["value"]
    text = checks["greedy_text_match"]["value"]
    CELLS[method, engine] = (
        f"proven: {text['equal']}/{text['of']} greedy, Δlogit {value['max_abs_diff']:.1e}, KL {value['kl_mean']:.1e}"
    )
    assert all(one["passed"] for one in checks.values())
