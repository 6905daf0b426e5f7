"""Whole runs: what is trained, what is kept, what answers afterwards, and what goes on after a kill."""

from __future__ import annotations

import json
import shutil

import pytest

from ftkit.errors import DataError, OutputError, UsageError
from ftkit.hybrid import course
from ftkit.hybrid.checking import check_hybrid
from ftkit.hybrid.opening import open_hybrid
from ftkit.hybrid.run import resume_hybrid, run_hybrid
from ftkit.rag import measuring
from ftkit.rag.opening import index_documents
from ftkit.rag.questions import read_questions
from ftkit.recipe import HybridRecipe
from tests.hybrid.conftest import TOOLS, TOWNS
from tests.hybrid.played import play


def made(values, **changes):
    return run_hybrid(HybridRecipe.model_validate(values | changes), quiet=True)


@pytest.fixture
def played(monkeypatch):
    play(monkeypatch)


@pytest.fixture
def run(values, played):
    return made(values)


def test_a_router_sends_each_topic_to_the_member_that_knows_it(run, topics):
    result = run.result
    system = open_hybrid(run.folder)

    assert result["promoted"] and "beats" in result["because"]
    for figures in (result["cross_validation"], result["validation"]):
        assert figures["routed"] > 0.9 > 0.7 > figures["best"]
        assert figures["oracle"] == 1.0
    for asked in read_questions(topics / "questions.jsonl"):
        answer = system.ask(asked.question)
        topic = "towns" if asked.documents[0].removesuffix(".txt") in TOWNS else "tools"
        assert (answer.member, answer.text) == (topic, asked.answers[0])
        assert [one.document for one in answer.citations] == list(asked.documents)


def test_a_router_that_cannot_win_is_not_promoted_and_the_best_member_answers_all(values, topics, played, tmp_path):
    rows = [json.loads(line) for line in (topics / "questions.jsonl").read_text().splitlines()]
    of_towns = [row for row in rows if row["document"].removesuffix(".txt") in TOWNS]
    (tmp_path / "towns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in of_towns))

    finished = made(values, data={"train": str(tmp_path / "towns.jsonl")})
    answer = open_hybrid(finished.folder).ask(f"What colour has the {TOOLS[0]}?")

    assert finished.result["promoted"] is False and finished.result["best_member"] == "towns"
    assert "does not beat" in finished.result["because"]
    assert answer.member == "towns" and answer.abstained
    assert json.loads((finished.folder / "router.json").read_text())["promoted"] is False


def test_the_same_recipe_gives_the_same_bytes(values, run, tmp_path):
    other = made(values, output=str(tmp_path / "other"))

    for name in ("router.safetensors", "router.json"):
        assert (run.folder / name).read_bytes() == (other.folder / name).read_bytes()
    same = {key: value for key, value in run.result.items() if key != "wall_s"}
    assert same == {key: value for key, value in other.result.items() if key != "wall_s"}


def test_a_run_that_was_moved_answers_as_before(run, tmp_path):
    question = f"Who is the mayor of {TOWNS[3]}?"
    before = open_hybrid(run.folder).ask(question)
    moved = shutil.move(run.folder, tmp_path / "elsewhere")
    after = open_hybrid(moved).ask(question)

    assert (after.member, after.text, after.citations) == (before.member, before.text, before.citations)


@pytest.mark.parametrize("again", ["resume", "same command"])
def test_a_run_that_was_cut_off_goes_on_without_asking_anew(values, played, monkeypatch, again):
    asks, counted = measuring._ask, []

    def cut_off(system, questions, texts, finder):
        counted.append(len(questions))
        if len(counted) == 5:
            raise KeyboardInterrupt
        return asks(system, questions, texts, finder)

    monkeypatch.setattr(measuring, "_ask", cut_off)
    with pytest.raises(KeyboardInterrupt):
        made(values)
    with pytest.raises(DataError, match="not finished"):
        open_hybrid(values["output"])
    done = sum(counted[:-1])
    finished = resume_hybrid(values["output"], quiet=True) if again == "resume" else made(values)

    asked = finished.result["questions"] + finished.result["held_back"]
    assert done > 0 and sum(counted[5:]) == 2 * asked - done
    assert finished.result["promoted"]
    assert made(values).result == finished.result  # nothing is left to do
    assert course.ANSWERS in {one.name for one in finished.folder.iterdir()}


def test_another_recipe_is_refused_in_the_same_folder(run, values):
    with pytest.raises(OutputError, match="recipe_digest"):
        made(values, router={**values["router"], "l2": 0.5})
    with pytest.raises(OutputError, match=r"members\.towns"):
        made(values, members={**values["members"], "towns": values["members"]["tools"]})


def test_a_member_without_documents_is_asked_without_and_cites_nothing(values, topics, played):
    members = {"plain": {"path": str(topics / "model")}, "towns": values["members"]["towns"]}
    finished = made(values, members=members)
    system = open_hybrid(finished.folder, max_new_tokens=4)

    assert system.members["plain"].ask("What colour has the axe?").citations == ()
    assert {one.max_new_tokens for one in system.members.values()} == {4}
    assert system.members["plain"].generator is system.members["towns"].generator  # in memory once
    assert finished.result["best_member"] == "towns"


def test_an_edit_is_in_the_next_answer_and_another_generator_is_refused(values, topics, played, tmp_path):
    for name in ("towns-index", "model"):
        shutil.copytree(topics / name, tmp_path / name)
    settings = json.loads((tmp_path / "towns-index" / "index.json").read_text())
    own = settings | {"generator": str(tmp_path / "model")}
    (tmp_path / "towns-index" / "index.json").write_text(json.dumps(own))
    members = {**values["members"], "towns": {"path": str(tmp_path / "towns-index")}}
    folder = made(values, members=members).folder
    (tmp_path / "Oum.txt").write_text("The mayor of Oum is Kim9.")
    index_documents([tmp_path / "Oum.txt"], tmp_path / "towns-index")

    assert open_hybrid(folder).ask("Who is the mayor of Oum?").text == "Kim9"
    shutil.rmtree(tmp_path / "model")
    from tests.tiny import tiny_model_folder

    tiny_model_folder(tmp_path / "model", seed=5, max_position_embeddings=1024)
    with pytest.raises(DataError, match=r"members\.towns: its generator is another"):
        open_hybrid(folder)


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ({"path": "TOWNS", "index": "TOOLS"}, "brings its own documents"),
        ({"path": "MODEL", "retrieval": "dense"}, "no documents to take passages from"),
        ({"path": "MODEL", "index": "MODEL"}, "is no index"),
    ],
)
def test_a_check_names_the_member_at_fault_and_asks_nothing(values, topics, member, fault):
    places = {"TOWNS": "towns-index", "TOOLS": "tools-index", "MODEL": "model"}
    odd = {key: str(topics / places[value]) if value in places else value for key, value in member.items()}
    recipe = HybridRecipe.model_validate(values | {"members": {**values["members"], "odd": odd}})

    with pytest.raises((UsageError, DataError), match=rf"members\.odd: .*{fault}"):
        check_hybrid(recipe)


def test_a_check_tells_what_there_is_and_writes_nothing(values, topics, tmp_path):
    members = {**values["members"], "plain": {"path": str(topics / "model")}}
    found = check_hybrid(HybridRecipe.model_validate(values | {"members": members}))

    assert found["members"]["towns"]["documents"] == len(TOWNS)
    assert found["members"]["plain"] | {"passages": 0, "retrieval": "none"} == found["members"]["plain"]
    assert sum(side["questions"] for side in found["questions"].values()) == 2 * (len(TOWNS) + len(TOOLS))
    assert any("few to learn" in warning for warning in found["warnings"])
    assert not (tmp_path / "run").exists()
