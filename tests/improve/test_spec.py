"""The spec: what ships loads, what is unknown is an error with its line, and paths are those of the file's folder."""

from __future__ import annotations

import json

import pytest

from ftkit.errors import RecipeError
from ftkit.recipe import dump_recipe, load_improve_spec, load_recipe
from ftkit.recipe.shipped import recipes_folder
from tests.cli.running import ftkit
from tests.improve.desk import exchange, open_journal, plant, rate, write_test

SHIPPED = recipes_folder() / "improve" / "from_log.yaml"


def write_spec(folder, extra=""):
    path = folder / "spec.yaml"
    path.write_text(
        "version: 1\nrecipe: improve\nlog: log.jsonl\ncurrent: smollm2-135m\ntest: test.jsonl\n"
        f"tune: {{recipe: lora, method: {{rank: 4}}, data: {{train: former.jsonl}}}}\n{extra}"
    )
    return path


def test_the_shipped_spec_loads_and_comes_back_from_its_own_dump(tmp_path):
    spec = load_improve_spec(SHIPPED).resolved()
    (tmp_path / "again.yaml").write_text(dump_recipe(spec))

    again = load_improve_spec(tmp_path / "again.yaml")

    assert spec.tune.method.rank == 8
    assert spec.log == (str(SHIPPED.parent / "log.jsonl"),)
    assert again.model_dump(exclude={"output"}) == spec.model_dump(exclude={"output"})


def test_paths_are_relative_to_the_file(tmp_path):
    spec = load_improve_spec(write_spec(tmp_path, "gate: {forgetting: general.txt}\n"))

    assert (spec.log, spec.test) == ((str(tmp_path / "log.jsonl"),), str(tmp_path / "test.jsonl"))
    assert spec.gate.forgetting == str(tmp_path / "general.txt")
    assert spec.tune.data.train[0].path == str(tmp_path / "former.jsonl")
    assert spec.current == "smollm2-135m"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("tune.method.rnk=1", "Did you mean 'rank'?"),
        ("tune.train.epohs=1", "Did you mean 'epochs'?"),
        ("tune.data.trian=x", "Did you mean 'train'?"),
        ("tune.recipe=lorra", "Did you mean 'lora'?"),
        ("gate.levle=1", "Did you mean 'level'?"),
        ("gate.level=1.5", "less than 1"),
        ("tune.data.streaming=true", "nothing is streamed"),
        ("log=[]", "should not be empty"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path, override, said):
    with pytest.raises(RecipeError) as caught:
        load_improve_spec(write_spec(tmp_path), [override])

    assert said in str(caught.value)
    assert f"override '{override}'" in str(caught.value)


def test_train_names_the_verb_that_runs_it(tmp_path):
    with pytest.raises(RecipeError, match="ftkit improve"):
        load_recipe(write_spec(tmp_path))


@pytest.fixture
def planted(tmp_path, tiny_llama):
    plant(tmp_path / "log.jsonl", range(1000, 1010))
    journal = open_journal(tmp_path / "log.jsonl")
    exchange(journal, "silent", "words", "at all", consent=False)
    rate(journal, "silent")
    write_test(tmp_path / "test.jsonl", range(30))
    return ["spec.yaml", f"current={tiny_llama}", "~tune.data.train"], tiny_llama


def test_check_says_what_is_left_of_a_log(tmp_path, planted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path)

    outcome = ftkit("check", *planted[0], "--json")
    shown = ftkit("check", *planted[0])

    found = json.loads(outcome.out)
    assert outcome.code == shown.code == 0, outcome.err
    assert (found["data"]["rows"], found["data"]["kept"]) == (11, 10)
    assert found["data"]["dropped"] == {"no consent": 1}
    assert len(found["warnings"]) == 2
    assert "1 no consent" in shown.out
    assert not (tmp_path / "runs").exists()


def test_the_command_waits_for_rows_and_has_nothing_to_roll_back(tmp_path, planted, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_spec(tmp_path)

    waiting = ftkit("improve", *planted[0], "--json", "-o", "out")
    shown = ftkit("improve", *planted[0], "-o", "out")
    back = ftkit("improve", *planted[0], "-o", "out", "--rollback")

    assert json.loads(waiting.out)["outcome"] == "waiting"
    assert "a round begins with 20 rows" in shown.out and str(planted[1]) in shown.out
    assert (back.code, "nothing to go back to" in back.err) == (2, True)


def test_only_ftkits_own_server_logs(tmp_path):
    outcome = ftkit("serve", tmp_path, "--engine", "vllm", "--log", tmp_path / "log.jsonl")

    assert (outcome.code, "--log" in outcome.err) == (2, True)
    assert list(tmp_path.iterdir()) == []
