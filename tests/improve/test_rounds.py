"""What holds a round together when it is killed, taken back, changed or rolled back; nothing is trained here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from ftkit.errors import DataError, Interrupted, OutputError
from ftkit.export.manifest import MANIFEST
from ftkit.improve import run as rounds
from ftkit.improve import tuning
from ftkit.improve.checking import check_improve
from ftkit.improve.gate import Verdict
from ftkit.improve.identity import digest_of
from ftkit.improve.run import improve, rollback
from ftkit.models.find import find_base
from ftkit.recipe import FullRecipe
from ftkit.serve.names import served_names
from tests.improve.desk import TUNE, complaint, make_spec, open_journal, plant, withdraw, write_clean, write_test

LOGGED = range(1000, 1030)


class Bench:
    """Stands in for training and judging, with what happens meanwhile."""

    def __init__(self):
        self.meanwhile, self.promoted, self.trained, self.against = None, True, [], []

    def train(self, recipe):
        export = Path(recipe.output) / "export" / "merged"
        export.mkdir(parents=True, exist_ok=True)
        (export / MANIFEST).write_text(recipe.output)
        self.trained.append(export.parents[2].name)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return export

    def judge(self, current, candidate, *_):
        self.against.append(current)
        return Verdict(
            promoted=self.promoted, because="", metric="nll", current=1, candidate=0, gain=1, low=1, high=1, p=0,
            test="", forgotten=None, questions=40,
        )  # fmt: skip


@pytest.fixture
def bench(monkeypatch):
    made = Bench()
    monkeypatch.setattr(rounds, "train", made.train)
    monkeypatch.setattr(rounds, "judge", made.judge)
    monkeypatch.setattr(rounds, "ask", lambda place, *_: place)
    return made


@pytest.fixture
def spec(tmp_path, tiny_llama, bench):
    plant(tmp_path / "log.jsonl", LOGGED)
    former = write_clean(tmp_path / "former.jsonl", range(5000, 5010))
    tune = TUNE | {"data": {"train": str(former), "near_duplicates": False}}
    test = write_test(tmp_path / "test.jsonl", range(40))
    return make_spec(tmp_path / "log.jsonl", tiny_llama, test, tmp_path / "out", tune=tune)


def take_back(tmp_path):
    journal = open_journal(tmp_path / "log.jsonl")
    withdraw(journal, "chatcmpl-1004")
    journal.close()


def stop():
    raise Interrupted("killed")


def history(tmp_path):
    found = json.loads((tmp_path / "out/promoted.json").read_text())["history"]
    return [(one["event"], one["round"]) for one in found]


def test_a_withdrawal_after_a_kill_between_promotion_and_verdict_leaves_no_dangling_service(
    spec, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(rounds.Round, "finish", lambda *_: stop())
        with pytest.raises(Interrupted):
            improve(spec, quiet=True)
    take_back(tmp_path)

    document = improve(spec, quiet=True)

    assert (document["outcome"], document["round"]) == ("promoted", 2)
    assert history(tmp_path) == [
        ("began", None), ("promoted", 1), ("rolled back to", None), ("removed", 1), ("promoted", 2),
    ]  # fmt: skip
    assert [one.name for one in (tmp_path / "out/rounds").iterdir()] == ["0002"]
    assert served_names([f"a={tmp_path / 'out'}"])["a"] == document["in_service"]["place"]


@pytest.mark.parametrize("put_back", [False, True])
def test_a_kill_between_promotion_and_verdict_changes_neither(spec, tmp_path, bench, monkeypatch, put_back):
    with monkeypatch.context() as patch:
        patch.setattr(rounds.Round, "finish", lambda *_: stop())
        with pytest.raises(Interrupted):
            improve(spec, quiet=True)
    if put_back:
        rollback(spec)
    else:
        bench.promoted = False  # by other settings, which did not decide

    document = improve(spec, quiet=True)

    assert (document["outcome"], document["round"]) == ("nothing new" if put_back else "promoted", 1)
    assert document["in_service"]["round"] == (None if put_back else 1)
    assert document["gate"]["promoted"]


def test_a_withdrawal_while_a_candidate_trains_is_heeded(spec, tmp_path, bench):
    def meanwhile():
        take_back(tmp_path)
        (tmp_path / "out/answers").mkdir()
        for name in ("0001", "0011"):  # of this round and of another
            said = {"place": str(tmp_path / f"out/rounds/{name}/run/export/merged"), "answers": ["words"]}
            (tmp_path / f"out/answers/{name}.json").write_text(json.dumps(said))

    bench.meanwhile = meanwhile

    document = improve(spec, quiet=True)

    assert (document["outcome"], document["in_service"]["round"]) == ("withdrawn", None)
    assert list((tmp_path / "out/rounds").iterdir()) == []
    assert [one.name for one in (tmp_path / "out/answers").iterdir()] == ["0011.json"]
    assert bench.against == []
    assert improve(spec, quiet=True)["round"] == 2


def test_former_data_with_questions_of_the_test_are_refused(spec, tmp_path):
    asked = {"role": "user", "content": f"Hi! {complaint(3)[0]}, please"}
    row = {"messages": [asked, {"role": "assistant", "content": "x"}]}
    with (tmp_path / "former.jsonl").open("a") as stream:
        stream.write(json.dumps(row) + "\n")

    for call in (check_improve, lambda spec: improve(spec, quiet=True)):
        with pytest.raises(DataError, match="1 rows of the former data hold questions") as caught:
            call(spec)
        assert caught.value.problems[1].where == f"{tmp_path / 'former.jsonl'}:11"
    assert not (tmp_path / "out/rounds").exists()


def test_a_changed_former_file_closes_the_unfinished_round_and_a_moved_one_does_not(spec, tmp_path, bench):
    bench.meanwhile = stop
    with pytest.raises(Interrupted):
        improve(spec, quiet=True)
    (tmp_path / "former.jsonl").rename(tmp_path / "moved.jsonl")
    tune = TUNE | {"data": {"train": str(tmp_path / "moved.jsonl"), "near_duplicates": False}}
    spec = make_spec(tmp_path / "log.jsonl", spec.current, spec.test, tmp_path / "out", tune=tune)
    bench.meanwhile = stop
    with pytest.raises(Interrupted):
        improve(spec, quiet=True)
    write_clean(tmp_path / "moved.jsonl", range(5000, 5011))

    assert improve(spec, quiet=True)["round"] == 2
    assert bench.trained == ["0001", "0001", "0002"]
    assert json.loads((tmp_path / "out/rounds/0001/gate.json").read_text())["closed"]


def test_other_settings_of_the_gate_judge_a_refused_candidate_anew(spec, bench):
    bench.promoted = False
    improve(spec, quiet=True)
    assert improve(spec, quiet=True)["outcome"] == "nothing new"

    bench.promoted = True
    document = improve(spec.model_copy(update={"gate": spec.gate.model_copy(update={"level": 0.2})}), quiet=True)

    assert (document["outcome"], document["round"], document["gate"]["judged_before"]) == ("promoted", 1, 1)
    assert improve(spec, quiet=True)["outcome"] == "nothing new"  # it is in service


def test_data_that_stop_a_training_end_the_round(spec, bench):
    def fail():
        raise DataError("no row is left")

    bench.meanwhile = fail
    document = improve(spec, quiet=True)

    assert (document["outcome"], document["gate"]["because"]) == ("kept", "there is no candidate: no row is left")


def test_what_was_changed_since_its_promotion_is_not_served(spec, tmp_path):
    place = Path(improve(spec, quiet=True)["in_service"]["place"])
    (place / MANIFEST).write_text("another")

    with pytest.raises(OutputError, match="is not what was put into service"):
        served_names([str(tmp_path / "out")])
    rollback(spec)
    assert served_names([f"a={tmp_path / 'out'}"])["a"] == spec.current


def test_a_rollback_while_a_candidate_is_made_is_heeded(spec, tmp_path, bench, monkeypatch):
    first = improve(spec, quiet=True)["in_service"]["place"]
    plant(tmp_path / "more.jsonl", range(2000, 2030))
    spec = spec.model_copy(update={"log": (*spec.log, str(tmp_path / "more.jsonl"))})
    judge = bench.judge

    def judged(*given):
        found = judge(*given)
        if len(bench.against) == 2:
            rollback(spec)
        return found

    monkeypatch.setattr(rounds, "judge", judged)
    document = improve(spec, quiet=True)

    assert bench.against == [spec.current, first, spec.current]
    assert (document["outcome"], document["gate"]["against"]) == ("promoted", digest_of(spec.current))


def test_another_template_is_another_model(tmp_path, tiny_llama):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_llama, copy)
    same = digest_of(str(copy)) == digest_of(str(tiny_llama))
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")

    assert same and digest_of(str(copy)) != digest_of(str(tiny_llama))


def test_a_run_around_an_export_of_another_base_is_not_asked_for_its_base(tmp_path, tiny_llama, monkeypatch):
    export = tmp_path / "run" / "export" / "merged"
    export.mkdir(parents=True)
    (export / MANIFEST).write_text("{}")
    found = find_base(str(tiny_llama))
    around = SimpleNamespace(is_run=lambda: True, recipe=lambda: FullRecipe(model="other", data="rows.jsonl"))
    itself = SimpleNamespace(is_run=lambda: False)
    written = SimpleNamespace(base={"name": "tiny", "sha256": found.sha256})
    monkeypatch.setattr(tuning, "RunFolder", lambda path: itself if path == export else around)
    monkeypatch.setattr(tuning, "read_manifest", lambda path: written)
    monkeypatch.setattr(tuning, "find_export_base", lambda *_: found)
    spec = SimpleNamespace(current=str(export), model=None)

    monkeypatch.setattr(tuning, "base_sha256", lambda model: "another")
    assert tuning.base_of(spec).path == str(found.folder)
    monkeypatch.setattr(tuning, "base_sha256", lambda model: found.sha256)
    assert tuning.base_of(spec).path == "other"


def test_the_first_place_is_absolute_and_follows_a_move(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(Path(spec.current).parent)
    improve(spec.model_copy(update={"current": Path(spec.current).name, "fewest": 100}), quiet=True)

    monkeypatch.chdir(tmp_path)
    assert served_names(["a=out"])["a"] == spec.current


def test_the_output_is_for_its_owner_alone(spec, tmp_path):
    improve(spec, quiet=True)

    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "out/rounds/0001/dataset").stat().st_mode & 0o777 == 0o700
