"""Combinations of adapters: exports like every other, held to the formula, and refused where there is none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ftkit.errors import OutputError, UsageError, VerificationError
from ftkit.export.measure import distances
from ftkit.export.probes import Probes
from ftkit.export.verify import verify_export
from ftkit.pipeline import combination_proof, combining
from ftkit.pipeline.combination_sources import open_sources
from ftkit.pipeline.combining import combine
from ftkit.pipeline.target import open_target
from tests.contract.cases import Case
from tests.export.small_exports import ADAPTER, change_manifest, write_exports
from tests.tiny import CHATML, tiny_model_folder, tiny_tokenizer

HALVES = [0.5, 0.5]


def _adapter(base, name, steps=3, *, recipe="lora", tokenizer=None, **settings):
    case = Case(name, recipe, settings if "kind" in settings else {"rank": 4, "alpha": 8, **settings})
    where = base.parent / name
    exports = write_exports(where, base, tokenizer or tiny_tokenizer(), case=case, steps=steps, exports=ADAPTER)
    return exports / "adapter"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("combining") / "base")


@pytest.fixture(scope="module")
def pair(base):
    """Two adapters that differ in steps, rank, scale and where they were trained to go."""
    return [_adapter(base, "one", 3), _adapter(base, "other", 20, rank=6, use_rslora=True)]


@pytest.fixture(scope="module")
def linear(base, pair):
    """A linear combination, as an adapter."""
    return combine(pair, base.parent / "linear", weights=[0.7, 0.3])


@pytest.fixture
def unproven(monkeypatch):
    """Writes without the fresh process, for tests of what is found before it."""
    monkeypatch.setattr(combining, "prove", lambda folder: None)


def _bytes(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_linear_combination_is_an_export_that_verifies_and_answers(linear):
    folder = linear.folder

    assert linear.verification.passed
    assert [check.name for check in verify_export(folder).failures] == []
    assert open_target(str(folder)).generate(["hello"], max_new_tokens=3)[0].tokens > 0


def test_plain_peft_gives_the_base_with_the_weighted_sum_in_its_weights(base, pair, linear):
    ids = torch.tensor([[5, 60, 7, 80, 9]])
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for folder, weight in zip(pair, (0.7, 0.3), strict=True):
            one = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
            for name, value in one.merge_and_unload().state_dict().items():
                before = load_file(base / "model.safetensors").get(name)
                if before is not None:
                    plain.state_dict()[name] += weight * (value - before)
        combined = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), linear.folder)

        torch.testing.assert_close(combined(ids).logits, plain(ids).logits, atol=1e-4, rtol=0)


def test_the_manifest_names_the_sources_and_what_each_lost_on_its_own_probes(pair, linear):
    manifest = json.loads((linear.folder / "manifest.json").read_text())
    facts = manifest["notes"]["combination"]
    probes = [Probes.load(folder / "verification") for folder in pair]
    combined = Probes.load(linear.folder / "verification")

    assert facts == linear.facts
    assert (facts["how"], facts["rank"], facts["truncation"]) == ("linear", 10, None)
    assert [source["weight"] for source in facts["sources"]] == [0.7, 0.3]
    assert combined.ids == probes[0].ids + probes[1].ids
    for index, (source, own, folder) in enumerate(zip(facts["sources"], probes, pair, strict=True)):
        files = json.loads((folder / "manifest.json").read_text())["files"]
        assert source["weights_sha256"] == files["adapter_model.safetensors"]["sha256"]
        found = distances(own, {"logits.0": combined.trained[index], "top.0": combined.top[index]})
        assert source["kl_mean"] == pytest.approx(found["kl_mean"])
        assert source["top1_agreement"] == found["top1_agreement"]
        untouched = distances(own, {"logits.0": own.base[0], "top.0": own.top[0]})
        assert source["base_kl_mean"] == pytest.approx(untouched["kl_mean"], rel=1e-3)
    card = (linear.folder / "README.md").read_text()
    assert "Combined by linear from 2 adapters" in card
    assert str(linear.folder.parent) not in card + json.dumps(manifest)


def test_the_same_combination_twice_gives_the_same_bytes(pair, base, unproven):
    first, second = (
        combine(pair, base.parent / name, weights=HALVES, how="dare_linear", density=0.7, seed=3).folder
        for name in ("first", "second")
    )

    assert _bytes(first) == _bytes(second)


def test_a_merged_combination_has_the_whole_update_and_an_adapter_says_what_it_lost(pair, base):
    merged = combine(pair, base.parent / "ties-merged", weights=HALVES, how="ties", density=0.3, to="merged")
    adapter = combine(pair, base.parent / "ties-adapter", weights=HALVES, how="ties", density=0.3)

    assert merged.facts["truncation"] is None
    truncation = adapter.facts["truncation"]
    assert 0.05 < truncation["lost"] < truncation["worst_lost"] < 1
    assert truncation["worst_lost"] == max(truncation["layers"].values())
    assert truncation["lost"] == pytest.approx(
        _share_that_lacks(base.parent / "ties-merged", base, base.parent / "ties-adapter"), rel=1e-3
    )
    assert "has no room for" not in (merged.folder / "README.md").read_text()
    assert "has no room for" in (adapter.folder / "README.md").read_text()


def _share_that_lacks(merged, base, adapter):
    """How much an adapter's update lacks of a merged model's, as a share of its length."""
    whole, before = load_file(merged / "model.safetensors"), load_file(base / "model.safetensors")
    thin = load_file(adapter / "adapter_model.safetensors")
    away = length = 0.0
    for name in (name for name in thin if ".lora_A." in name):
        layer = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        update = whole[layer] - before[layer]
        away += float((update - thin[name.replace("lora_A", "lora_B")] @ thin[name]).square().sum())
        length += float(update.square().sum())
    return (away / length) ** 0.5


def test_a_rank_with_too_little_room_is_refused_with_advice(pair, base):
    with pytest.raises(VerificationError, match=r"rank 1 lacks room for .*\n.*--to merged"):
        combine(pair, base.parent / "thin", weights=HALVES, how="dare_ties", rank=1)
    assert not (base.parent / "thin").exists()


def test_one_adapter_can_be_subtracted(base, pair, unproven):
    negated = combine(pair[:1], base.parent / "negated", weights=[-1.0])

    one = load_file(pair[0] / "adapter_model.safetensors")
    other = load_file(negated.folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.mlp.up_proj.lora_{}.weight"
    update = 8 / 4 * one[name.format("B")] @ one[name.format("A")]
    torch.testing.assert_close(other[name.format("B")] @ other[name.format("A")], -update)


def test_adapters_of_one_quantised_base_are_combined_on_it(base):
    pair = [_adapter(base, f"nf4-{steps}", steps, recipe="qlora", quantization="nf4") for steps in (3, 12)]
    for folder in pair:
        change_manifest(folder, quantization={"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
                                              "bnb_4bit_use_double_quant": True})  # fmt: skip

    combined = combine(pair, base.parent / "nf4", weights=HALVES)

    assert combined.verification.passed
    assert json.loads((combined.folder / "manifest.json").read_text())["quantization"]["load_in_4bit"]


# Faults


@pytest.mark.parametrize("how", ["linear", "ties", "dare_linear"])
def test_other_weights_in_the_written_adapter_are_caught(base, pair, monkeypatch, unproven, how):
    real = combining.write_combination

    def wrong(model, names, combination, folder, **options):
        options["watch"] = None
        return real(model, names, replace(combination, weights=(0.5, 0.47)), folder, **options)

    monkeypatch.setattr(combining, "write_combination", wrong)
    with pytest.raises(VerificationError, match="is not what the adapters' files give"):
        combine(pair, base.parent / f"wrong-{how}", weights=HALVES, how=how, to="merged")


def test_another_formula_on_the_way_is_caught(base, pair, monkeypatch, unproven):
    monkeypatch.setattr(combination_proof, "MAX_LOST", 2.0)
    real = combining.write_combination

    def wrong(model, names, combination, folder, **options):
        return real(model, names, replace(combination, majority_sign="frequency"), folder, **options)

    monkeypatch.setattr(combining, "write_combination", wrong)
    three = [*pair, _adapter(base, "third", 9)]
    with pytest.raises(VerificationError, match="is not what the adapters' files give"):
        combine(three, base.parent / "wrong-sign", weights=[1, 1, 1], how="ties")


def test_logits_that_are_not_those_of_the_sum_are_caught(base, pair, monkeypatch, unproven):
    monkeypatch.setattr(combining, "require_update", lambda *parts: {"layer": 0.0})
    real = combining.write_combination

    def wrong(model, names, combination, folder, **options):
        return real(model, names, replace(combination, weights=(0.5, 0.4)), folder, **options)

    monkeypatch.setattr(combining, "write_combination", wrong)
    with pytest.raises(VerificationError, match="does not answer as the sum"):
        combine(pair, base.parent / "wrong-logits", weights=HALVES)


def test_a_tensor_that_was_changed_in_a_source_or_in_the_result_is_caught(tmp_path, pair, linear):
    for folder in (pair[0], linear.folder):
        changed = tmp_path / folder.name
        shutil.copytree(folder, changed)
        tensors = load_file(changed / "adapter_model.safetensors")
        next(value for name, value in tensors.items() if "lora_B" in name).mul_(-3)
        save_file(tensors, changed / "adapter_model.safetensors", metadata={"format": "pt"})
        with pytest.raises(VerificationError, match=r"adapter_model.safetensors: has other bytes"):
            combine([changed, pair[1]], tmp_path / "out", weights=HALVES)
    # Even where somebody makes the manifest agree.
    change_manifest(tmp_path / linear.folder.name)
    failed = [check.name for check in verify_export(tmp_path / linear.folder.name).failures]
    assert "logits_match_trained" in failed


# Refusals


def test_what_cannot_be_combined_is_refused_before_any_model_is_loaded(base, pair, tmp_path, monkeypatch):
    monkeypatch.setattr(combining, "load_model", lambda *parts, **options: pytest.fail("loaded a model"))
    elsewhere = tiny_model_folder(tmp_path / "elsewhere", seed=1)
    template = tiny_tokenizer(template=CHATML.replace("assistant", "helper"))
    others = {
        "base weights": _adapter(elsewhere, "foreign"),
        "quantization of the base": _adapter(base, "rounded", recipe="qlora", quantization="nf4"),
        "chat template": _adapter(base, "spoken", tokenizer=template),
        "its method is loha": _adapter(base, "loha", kind="loha", rank=4),
        "its method is prompt": _soft(base),
        "DoRA scales the columns": _adapter(base, "dora", use_dora=True),
        "rows of tokens were trained": _adapter(base, "tokens", trainable_tokens=['"']),
        "is the same adapter as": shutil.copytree(pair[0], tmp_path / "copy"),
        "it is a merged export": _merged(base),
        "is not a complete ftkit export": base,
    }
    change_manifest(others["quantization of the base"], quantization={"load_in_4bit": True})

    for reason, other in others.items():
        with pytest.raises(UsageError, match=reason):
            combine([pair[0], other], tmp_path / "out", weights=HALVES)
    with pytest.raises(UsageError) as refused:
        combine([pair[0], *others.values()], tmp_path / "out", weights=[1.0])
    for reason in (*others, "weights: 1 for 11 adapters"):
        assert reason in str(refused.value), reason
    assert all(problem.fix for problem in refused.value.problems)
    assert not (tmp_path / "out").exists()


def _soft(base):
    case = Case("prompt", "prompt", {"num_virtual_tokens": 4})
    return write_exports(base.parent / "soft", base, tiny_tokenizer(), case=case, exports=ADAPTER) / "adapter"


def _merged(base):
    exports = write_exports(base.parent / "plain", base, tiny_tokenizer(), exports={"merged": "auto"})
    return exports / "merged"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"weights": [1.0]}, "weights: 1 for 2 adapters"),
        ({"weights": [1.0, 0.0]}, "finite number other than 0"),
        ({"weights": [1.0, float("nan")]}, "finite number"),
        ({"weights": [1.0, float("inf")]}, "finite number"),
        ({"weights": [1.0, -1.0], "how": "ties"}, "negative weight has no meaning"),
        ({"weights": [1.0, -1.0], "how": "dare_ties"}, "negative weight has no meaning"),
        ({"how": "tie"}, "Did you mean 'ties'"),
        ({"density": 0.5}, "linear drops nothing"),
        ({"how": "ties", "density": 0.0}, "is not in"),
        ({"how": "ties", "density": 1.5}, "is not in"),
        ({"how": "ties", "density": float("nan")}, "is not in"),
        ({"how": "dare_linear", "majority_sign": "total"}, "elects no signs"),
        ({"how": "ties", "majority_sign": "most"}, "total or frequency"),
        ({"how": "ties", "seed": 1}, "draws nothing"),
        ({"rank": 0}, "below 1"),
        ({"rank": 8, "to": "merged"}, "whole update"),
        ({"to": "onx"}, "has no 'onx' export"),
    ],
)
def test_options_that_make_no_sense_are_refused(pair, tmp_path, asked, reason):
    with pytest.raises(UsageError, match=reason):
        combine(pair, tmp_path / "out", **{"weights": HALVES, **asked})


def test_a_folder_that_is_not_empty_and_a_source_that_failed_are_refused(pair, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("")
    with pytest.raises(OutputError, match="not empty"):
        combine(pair, tmp_path / "out", weights=HALVES)
    failed = shutil.copytree(pair[0], tmp_path / "failed")
    (failed / "verify.json").write_text('{"passed": false, "checks": []}')
    with pytest.raises(VerificationError, match="did not pass its verification"):
        open_sources([failed, pair[1]], [])


def test_a_matrix_with_nan_is_refused(pair, tmp_path):
    broken = shutil.copytree(pair[0], tmp_path / "broken")
    tensors = load_file(broken / "adapter_model.safetensors")
    next(iter(tensors.values()))[0, 0] = float("nan")
    save_file(tensors, broken / "adapter_model.safetensors", metadata={"format": "pt"})
    change_manifest(broken)

    with pytest.raises(VerificationError, match="NaN or infinite"):
        open_sources([broken, pair[1]], [])


def test_sources_of_one_name_are_told_apart(pair):
    assert [source.name for source in open_sources(pair, [])] == ["adapter", "adapter (2)"]
