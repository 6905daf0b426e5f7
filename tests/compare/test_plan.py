"""How much fits into the time there is, by speeds that are measured first."""

from __future__ import annotations

from collections import Counter

import pytest

from ftkit.compare import plan as planning
from ftkit.compare.plan import choose_plan
from ftkit.compare.workload import Workload
from ftkit.errors import ResourceError
from ftkit.rag.corpus import Corpus
from ftkit.rag.questions import AskedQuestion


def asked(prefix, count):
    return tuple(AskedQuestion(question=f"{prefix} {number}?", answers=("a",)) for number in range(count))


@pytest.fixture
def workload():
    return Workload(
        corpus=Corpus(documents=(), faults=()), train=asked("train", 400), held=(), test=asked("test", 300)
    )


@pytest.fixture
def spec(module_spec, tmp_path):
    return module_spec(tmp_path / "out", systems=["dense", "oracle", "reader", "joint"])


@pytest.fixture(autouse=True)
def speeds(monkeypatch):
    """A second for a question, a hundredth of one for a token of training, a hundred tokens a reading."""
    monkeypatch.setattr(planning, "_speed", lambda *_: (1.0, 0.01, 100.0))


def test_without_a_budget_everything_is_done(spec, workload, tmp_path):
    plan = choose_plan(spec, workload, None, None, tmp_path)
    assert (plan.train, plan.test) == (400, 300)


def test_with_a_budget_the_estimate_stays_within_it_and_uses_most_of_it(spec, workload, tmp_path):
    plan = choose_plan(spec, workload, None, 20.0, tmp_path)
    assert plan.train < 400 and 0.8 * 1200 < plan.estimated_s <= 1200


def test_twice_the_time_is_never_less_of_anything(spec, workload, tmp_path):
    first = choose_plan(spec, workload, None, 10.0, tmp_path / "a")
    second = choose_plan(spec, workload, None, 20.0, tmp_path / "b")
    assert second.train >= first.train and second.test >= first.test and second != first


def test_giving_others_the_operations_of_the_costliest_is_part_of_the_estimate(module_spec, workload, tmp_path):
    systems = ["reader", "joint"]
    own = choose_plan(module_spec(tmp_path / "x", systems=systems), workload, None, None, tmp_path / "a")
    equal = module_spec(tmp_path / "x", systems=systems, equal_flops="joint")
    assert choose_plan(equal, workload, None, None, tmp_path / "b").estimated_s > own.estimated_s


def test_what_was_chosen_stays_for_the_same_and_is_chosen_anew_for_another(spec, workload, tmp_path, monkeypatch):
    first = choose_plan(spec, workload, None, 20.0, tmp_path)
    monkeypatch.setattr(planning, "_speed", lambda *_: (9.0, 0.09, 100.0))  # a slower moment
    assert choose_plan(spec, workload, None, 20.0, tmp_path) == first
    more = spec.model_copy(update={"measure": spec.measure.model_copy(update={"wordings": 8, "style": 64})})
    assert choose_plan(more, workload, None, 20.0, tmp_path) == first  # or all answers would be asked anew
    assert choose_plan(spec, workload, None, 60.0, tmp_path) != first


def test_too_little_time_says_how_much_is_needed(spec, workload, tmp_path):
    with pytest.raises(ResourceError) as caught:
        choose_plan(spec, workload, None, 1.0, tmp_path)
    need = float(str(caught.value).split("Give it ")[1].split()[0])
    assert choose_plan(spec, workload, None, need + 0.1, tmp_path).train >= planning.FEWEST_TRAIN


def test_test_questions_come_from_as_many_documents_as_there_are():
    many = [
        AskedQuestion(question=f"q{n}?", answers=("a",), documents=(f"d{n % 12}",), id=f"q{n}") for n in range(120)
    ]
    few = [AskedQuestion(question=f"o{n}?", answers=("a",), documents=("d0",), id=f"o{n}") for n in range(60)]
    none = [AskedQuestion(question=f"u{n}?", answers=(), documents=(), id=f"u{n}") for n in range(20)]
    workload = Workload(corpus=Corpus(documents=()), train=(), held=(), test=(*many, *few, *none))

    before: set[str] = set()
    for count in (10, 20, 40, 80, 199):
        chosen = workload.drawn(None, count).test
        assert len(chosen) == count
        documents = Counter(one.documents[0] for one in chosen if one.documents)
        bare = sum(not one.documents for one in chosen)
        assert abs(bare - count / 10) <= 1  # questions without a document keep their share
        assert len(documents) == min(12, count - bare)
        # One document has most of the questions, and no more of the chosen ones than it must.
        assert documents["d0"] <= max(-(-(count - bare) // 12), count - bare - 110)
        ids = {one.id for one in chosen}
        assert before <= ids
        before = ids
    assert workload.drawn(None, 500).test == workload.test
