"""Several adapters on one base answer as each does alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ftkit.errors import UsageError
from ftkit.pipeline.adapters import open_targets
from ftkit.pipeline.target import open_target
from ftkit.rag.threshold import generator_sha256
from tests.contract.cases import Case
from tests.export.small_exports import ADAPTER, write_exports
from tests.tiny import tiny_model_folder, tiny_tokenizer

QUESTION = ["hello there"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_model_folder(tmp_path_factory.mktemp("adapters") / "base")


def _adapter(base, name, **settings):
    return str(write_exports(base.parent / name, base, tiny_tokenizer(), exports=ADAPTER, **settings) / "adapter")


def _answer(target):
    return target.generate(QUESTION, max_new_tokens=12)[0].text


@pytest.mark.parametrize("recipe", ["lora", "prefix", "prompt"])
def test_each_answers_as_alone_whatever_answered_before(base, recipe):
    places = {
        f"after {steps}": _adapter(base, f"{recipe}{steps}", case=Case(recipe, recipe), steps=steps)
        for steps in (1, 60)
    }
    alone = {name: _answer(open_target(place)) for name, place in places.items()}
    assert len(set(alone.values())) == 2, "the two must differ for this to show anything"

    together = open_targets(places)

    for _ in range(2):
        assert {name: _answer(target) for name, target in together.items()} == alone
    shared = {id(target.model) for target in together.values()}
    assert len(shared) == 1


@pytest.mark.parametrize("recipe", ["lora", "prompt"])
def test_each_has_the_digest_that_it_has_alone(base, recipe):
    places = {
        f"after {steps}": _adapter(base, f"digest-{recipe}{steps}", case=Case(recipe, recipe), steps=steps)
        for steps in (1, 60)
    }
    alone = {name: generator_sha256(open_target(place)) for name, place in places.items()}
    together = {name: generator_sha256(target) for name, target in open_targets(places).items()}

    assert len(set(alone.values())) == 2
    assert together == alone


def test_what_cannot_share_a_base_is_refused_with_the_reason(base):
    first = _adapter(base, "first")
    other = tiny_model_folder(base.parent / "other", seed=1)
    elsewhere = str(write_exports(base.parent / "elsewhere", other, tiny_tokenizer()) / "adapter")
    bottlenecks = [_adapter(base, f"b{index}", case=Case("adapter", "adapter")) for index in range(2)]
    prompt = _adapter(base, "soft", case=Case("prompt", "prompt"))

    for places, reason in (
        ([first, elsewhere], "base weights"),
        ([first, prompt], "method: prompt"),
        ([first, str(base)], "is not an export"),
        ([first, str(Path(elsewhere).with_name("merged"))], "is a merged export"),
        (bottlenecks, "cannot share its base"),
    ):
        with pytest.raises(UsageError, match=reason):
            open_targets({str(index): place for index, place in enumerate(places)})
