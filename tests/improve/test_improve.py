"""Rounds end to end on a tiny model: right feedback is promoted, wrong is not, and nothing moves the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ftkit.errors import DataError, Interrupted, OutputError, UsageError
from ftkit.improve import run as rounds
from ftkit.improve.log import read_log
from ftkit.improve.run import improve, rollback
from ftkit.improve.tuning import base_of
from ftkit.pipeline.run import run
from ftkit.pipeline.target import open_target
from ftkit.serve.names import served_names
from tests.improve.desk import (
    complaint,
    exchange,
    make_spec,
    open_journal,
    plant,
    rate,
    tuned,
    withdraw,
    write_test,
)

TEST, LOGGED = range(60), range(1000, 1300)


@pytest.fixture(scope="module")
def ground(tmp_path_factory, tiny_llama):
    """What is in service (it learnt right data, and answers well), and the frozen test."""
    folder = tmp_path_factory.mktemp("ground")
    run(tuned(tiny_llama, folder, steps=60), quiet=True)
    write_test(folder / "test.jsonl", TEST)
    return folder


def spec_of(ground, log, output, **changes):
    return make_spec(log, ground / "current" / "export" / "merged", ground / "test.jsonl", output, **changes)


@pytest.fixture(scope="module")
def promoted(ground, tmp_path_factory):
    """A round on right feedback that was stopped after its training, and gone on with."""
    folder = tmp_path_factory.mktemp("promoted")
    log = plant(folder / "log.jsonl", LOGGED)
    journal = open_journal(log)
    for number in range(5):  # people ask what the test asks, as it is and inside of more words
        exchange(journal, f"tested-{number}", complaint(number)[0].lower(), complaint(number)[1])
        exchange(journal, f"near-{number}", f"Hello! {complaint(number)[0]}. What now?", complaint(number)[1])
        exchange(journal, f"private-{number}", "words that nobody may keep", "at all", consent=False)
        for kind in ("tested", "near", "private"):
            rate(journal, f"{kind}-{number}")
    spec = spec_of(ground, log, folder / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounds, "judge", _stop)
        with pytest.raises(Interrupted):
            improve(spec, quiet=True)
    exchange(journal, "later", *complaint(2000))
    rate(journal, "later")
    return spec, folder / "out", improve(spec, quiet=True)


def _stop(*_):
    raise Interrupted("stopped")


def test_right_feedback_is_promoted(promoted, ground):
    _, folder, document = promoted

    assert document["outcome"] == "promoted"
    assert document["gate"]["p"] <= 0.05
    assert document["gate"]["candidate"] < document["gate"]["current"]
    served = served_names([f"desk={folder}"])["desk"]
    assert served == document["in_service"]["place"]
    loss = open_target(served).evaluate(folder / "frozen.jsonl")["loss"]
    assert loss == pytest.approx(document["gate"]["candidate"], rel=1e-3)


def test_a_round_that_was_stopped_goes_on_with_its_own_rows(promoted):
    _, folder, document = promoted

    assert document["round"] == 1
    assert [one.name for one in (folder / "rounds").iterdir()] == ["0001"]
    assert json.loads((folder / "rounds/0001/dataset/filter.json").read_text())["kept"] == len(LOGGED)
    assert document["data"]["kept"] == len(LOGGED) + 1  # one more came in between; it waits for the next round


def test_nothing_of_the_frozen_test_is_learnt_from(promoted):
    _, folder, document = promoted
    questions = [complaint(number)[0].lower() for number in TEST]

    rows = (folder / "rounds/0001/dataset/messages.jsonl").read_text().lower()

    assert document["data"]["dropped"]["in the frozen test"] == 5
    assert document["data"]["dropped"]["near the frozen test"] == 5
    assert not any(f'{question}"' in rows or f"{question}." in rows for question in questions)
    report = json.loads((folder / "rounds/0001/run/data_report.json").read_text())
    assert report["leaks"] == 0


def test_words_without_consent_reach_no_file(promoted):
    spec, folder, document = promoted

    assert document["data"]["dropped"]["no consent"] == 5
    for path in [*folder.rglob("*"), *folder.parent.glob("*.jsonl")]:
        assert not path.is_file() or b"nobody may keep" not in path.read_bytes(), path
    assert sum(not one.consent for one in read_log(spec.log).exchanges) == 5


def test_wrong_feedback_is_not_promoted(ground, tmp_path):
    """The same model in service, test and settings; three answers in ten are taught wrong."""
    log = plant(tmp_path / "log.jsonl", LOGGED, share_wrong=0.3)

    document = improve(spec_of(ground, log, tmp_path / "out"), quiet=True)

    assert document["outcome"] == "kept"
    assert document["data"]["kept"] == len(LOGGED)  # no rule found the wrong ones; the test did
    assert document["gate"]["candidate"] > document["gate"]["current"]
    assert document["in_service"]["place"] == str(ground / "current" / "export" / "merged")
    again = improve(spec_of(ground, log, tmp_path / "out"), quiet=True)
    assert (again["outcome"], again["round"]) == ("nothing new", 1)


def test_a_changed_test_is_refused_and_so_is_another_beginning(promoted, ground, tmp_path):
    spec, folder, _ = promoted
    moved = write_test(tmp_path / "test.jsonl", range(61))

    with pytest.raises(OutputError, match="a test that moves is no test"):
        improve(spec.model_copy(update={"test": str(moved)}), quiet=True)
    with pytest.raises(OutputError, match="not what this output began with"):
        improve(spec.model_copy(update={"current": str(base_of(spec).path)}), quiet=True)
    assert json.loads((folder / "promoted.json").read_text())["services"][-1]["round"] == 1


def test_what_was_promoted_can_be_rolled_back(promoted, tmp_path):
    spec, folder, _ = promoted
    copy = tmp_path / "out"
    shutil.copytree(folder, copy)
    spec = spec.model_copy(update={"output": str(copy)})

    document = rollback(spec)

    assert document["in_service"]["place"] == spec.current == served_names([str(copy)])[str(copy)]
    history = json.loads((copy / "promoted.json").read_text())["history"]
    assert [one["event"] for one in history] == ["began", "promoted", "rolled back to"]
    with pytest.raises(UsageError, match="nothing to go back to"):
        rollback(spec)


def test_a_withdrawal_ends_a_round_that_learns_from_it(ground, tmp_path, monkeypatch):
    log = plant(tmp_path / "log.jsonl", range(1000, 1030))
    spec = spec_of(ground, log, tmp_path / "out")
    begun = []

    def stop(recipe):
        begun.append(recipe.data.train[-1].path)
        raise Interrupted("stopped")

    monkeypatch.setattr(rounds, "train", stop)
    with pytest.raises(Interrupted):
        improve(spec, quiet=True)
    withdraw(open_journal(log), "chatcmpl-1004")
    with pytest.raises(Interrupted):
        improve(spec, quiet=True)

    rows = Path(begun[1]).read_text()
    assert complaint(1004)[0] not in rows
    assert [one.name for one in (tmp_path / "out/rounds").iterdir()] == ["0002"]  # a number never stands for two
    assert len(rows.splitlines()) == 29


def test_too_few_rows_wait(ground, tmp_path):
    log = plant(tmp_path / "log.jsonl", range(1000, 1019))

    document = improve(spec_of(ground, log, tmp_path / "out"), quiet=True)

    assert (document["outcome"], document["data"]["kept"]) == ("waiting", 19)
    assert not (tmp_path / "out/rounds").exists()


def test_faults_are_told_before_anything_is_written(ground, tmp_path):
    spec = spec_of(ground, tmp_path / "missing.jsonl", tmp_path / "out")

    with pytest.raises(DataError, match="cannot be read"):
        improve(spec, quiet=True)
    assert not (tmp_path / "out").exists()
