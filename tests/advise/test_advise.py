"""What is advised, why, and what must turn it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command

from ftkit.advise.advice import UNDETERMINED, _next, advise
from ftkit.advise.asking import ask_situation
from ftkit.advise.evidence import Evidence, kind_of, read_evidence
from ftkit.advise.options import OPTIONS
from ftkit.advise.page import advice_text, write_advice_page
from ftkit.advise.ranking import rank
from ftkit.cli.app import app as cli
from ftkit.errors import DataError, RecipeError
from ftkit.recipe import copy_recipe, load_advise_spec, load_compare_spec, load_rag_recipe, load_recipe
from ftkit.recipe.advise import AdviseSpec
from tests.advise.scenarios import SCENARIOS, comparison

SOURCE = re.compile(r"[VRLMSP]-[a-z][a-z-]*")


def told(values, evidence=None):
    spec = AdviseSpec.model_validate(values)
    return spec if evidence is None else spec.model_copy(update={"evidence": str(evidence)})


def measured(folder, expected, share, *, others=0.35):
    path = folder / "comparison.json"
    path.write_text(json.dumps(comparison(dict.fromkeys(OPTIONS, others) | {expected: share})))
    return path


@pytest.mark.parametrize("name", SCENARIOS)
def test_each_situation_gets_the_expected_choice_and_loses_it_when_measured_otherwise(name, tmp_path):
    values, expected = SCENARIOS[name]
    assert advise(told(values)).choice == expected
    confirmed = advise(told(values, measured(tmp_path, expected, 0.75)))
    assert (confirmed.choice, confirmed.confidence >= 0.7) == (expected, True)
    assert advise(told(values, measured(tmp_path, expected, 0.1))).choice != expected


def test_every_line_says_where_it_comes_from(tmp_path):
    for values, expected in SCENARIOS.values():
        document = advise(told(values, measured(tmp_path, expected, 0.75))).to_dict()
        lines = [*document["because"], *document["eliminated"], *document["would_change_if"]]
        assert document["because"] and all(SOURCE.fullmatch(line["id"]) for line in lines)
        assert document["next"] and document["choice"] in (*OPTIONS, UNDETERMINED)


def test_with_nothing_known_it_is_undetermined_and_says_what_to_measure():
    advice = advise(AdviseSpec())
    assert advice.choice == UNDETERMINED
    assert any(line.startswith("ftkit compare") for line in advice.next)


LOADS = {("train",): load_recipe, ("rag", "train"): load_rag_recipe, ("compare",): load_compare_spec}


@pytest.mark.parametrize("examples", [0, 400])
@pytest.mark.parametrize("choice", [*OPTIONS, UNDETERMINED])
def test_the_commands_that_are_advised_are_ones_that_ftkit_takes(choice, examples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = told({"situation": {"examples": examples}})
    app = get_command(cli)
    for line in _next(choice, spec, Evidence(), rank(spec, Evidence())):
        name, *words = shlex.split(line, comments=True)
        assert name == "ftkit"
        command, path = app, []
        while words and hasattr(command, "commands"):
            path.append(words.pop(0))
            command = command.commands[path[-1]]
        arguments = command.make_context(path[-1], [*words], resilient_parsing=False).params
        if path == ["recipes"]:
            copy_recipe(words[1], tmp_path / words[2])
        if tuple(path) in LOADS:
            given = arguments["overrides"] or []
            assert given, "one's own files are named"
            LOADS[tuple(path)](tmp_path / words[0], given)


def test_what_hardly_ever_answers_rightly_is_no_choice_however_cheap(tmp_path):
    path = tmp_path / "comparison.json"
    good = {"prompting": 0.02, "rag": 0.05, "fine-tuning": 0.06, "hybrid": 0.6}
    path.write_text(json.dumps(comparison(good)))
    values = {"situation": {"examples": 100, "documents": 100}, "priorities": {"cost": 5.0, "latency": 5.0}}
    advice = advise(told(values, path))

    assert (advice.choice, advice.runner_up) == ("hybrid", None)
    assert {(option, reason.id) for option, reason in advice.eliminated} == {
        (option, "M-hardly") for option in ("prompting", "rag", "fine-tuning")
    }
    write_advice_page(tmp_path / "advice.html", advice)
    page = (tmp_path / "advice.html").read_text()
    assert page.count("(out)") == 3 and "hybrid; nothing else is left" in page  # what they would save is shown still
    # Nor is it the next best where the choice cannot be had.
    assert advise(told(values | {"situation": {"examples": 0, "documents": 100}}, path)).choice == UNDETERMINED
    # Where nothing answers well, all of them are what there is.
    path.write_text(json.dumps(comparison(dict.fromkeys(good, 0.05))))
    assert not [reason for _, reason in advise(told(values, path)).eliminated if reason.id == "M-hardly"]


@pytest.mark.parametrize("name", SCENARIOS)
def test_more_change_never_favours_fine_tuning(name):
    values, _ = SCENARIOS[name]
    shares = []
    for rate in (0.0, 1.0, 3.0, 8.0, 40.0):
        spec = told({**values, "knowledge": {**values.get("knowledge", {}), "changes_per_month": rate}})
        shares.append(rank(spec, Evidence(), draws=400).shares.get("fine-tuning", 0.0))
    assert shares == sorted(shares, reverse=True)


def test_required_citations_put_weights_alone_out_whatever_is_measured(tmp_path):
    values = {"verifiability": {"citations": "required"}, "situation": {"documents": 100}}
    advice = advise(told(values, measured(tmp_path, "fine-tuning", 0.99)))
    assert advice.choice in ("rag", "hybrid", UNDETERMINED)
    assert ("fine-tuning", "V-citations") in [(option, reason.id) for option, reason in advice.eliminated]


def test_where_only_the_readers_training_is_open_retrieval_comes_first_until_it_is_measured(tmp_path):
    values = {
        "knowledge": {"stability": "slow", "changes_per_month": 2.0, "specialised": True},
        "verifiability": {"citations": "required"},
        "situation": {"documents": 3000, "examples": 400},
        "resources": {"expertise": "low"},
    }
    advice = advise(told(values))
    assert advice.choice == "rag" and advice.because[-1].id == "P-first-step" and advice.confidence >= 0.9
    better = measured(tmp_path, "hybrid", 0.8)
    assert advise(told(values, better)).choice == "hybrid"


def test_when_no_option_is_left_nothing_is_advised(tmp_path):
    advice = advise(told({"verifiability": {"citations": "required"}, "situation": {"documents": 0}}))
    assert (advice.choice, advice.runner_up) == (UNDETERMINED, None)
    assert advice.because[0].id == "P-none"
    assert "Undetermined" in advice_text(advice)


def test_own_measurements_take_the_place_of_papers(tmp_path):
    values, _ = SCENARIOS["stable specialised domain"]
    advice = advise(told(values, measured(tmp_path, "rag", 0.9, others=0.5)))
    used = {reason.id for reason in advice.because}
    assert advice.choice == "rag" and "M-accuracy" in used and not used & {"L-domain", "L-retrieval"}


def test_thin_evidence_settles_nothing(tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(comparison({"fine-tuning": 0.5, "rag": 0.52}, spread=0.3)))
    spec = told({"priorities": {"accuracy": 1.0, "latency": 0.0, "cost": 0.0, "style": 0.0}}, path)
    assert advise(spec).choice == UNDETERMINED


def test_switch_points_turn_the_choice_where_they_say():
    values, _ = SCENARIOS["stable specialised domain"]
    values = {**values, "situation": {"examples": 2000, "documents": 500}}
    found = [one for one in advise(told(values)).would_change_if if one.id == "S-changes"]
    rate, chosen = re.match(r"from ([\d.]+) changes a month on: (\S+)", found[0].text).groups()
    there = told({**values, "knowledge": {**values["knowledge"], "changes_per_month": float(rate)}})
    assert (rank(there, Evidence(), draws=400).choice or UNDETERMINED) == chosen != "fine-tuning"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("closed-book", "prompting"), ("closed-book-tuned", "fine-tuning"), ("bm25", "rag"), ("lora", "fine-tuning"),
        ("joint", "hybrid"), ("reader", "hybrid"), ("rag", "rag"), ("hybrid", "hybrid"), ("rag-tuned", "hybrid"),
        ("something", None),
    ],
)  # fmt: skip
def test_systems_are_known_by_name_where_the_comparison_does_not_say(name, kind):
    assert kind_of(name) == kind


def test_what_the_comparison_says_of_its_systems_counts_before_their_names(tmp_path):
    document = comparison({"hybrid": 0.6, "closed-book": 0.4, "oracle": 0.99})
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(document | {"kinds": {"hybrid": "rag", "oracle": "rag"}}))
    found = read_evidence(path)
    assert found.systems == {"rag": "hybrid", "prompting": "closed-book"}  # nobody has the right passages beforehand


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"systems": {"x": 3}}', '{"systems": {"something": {}}}'])
def test_what_is_no_comparison_is_refused_by_name(tmp_path, text):
    path = tmp_path / "comparison.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"comparison\.json"):
        advise(AdviseSpec(evidence=str(path)))


def test_a_typo_in_the_situation_is_named(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("knowledge: {stabilty: fast}\nupdate: {deadline_hours: soon}\n")
    with pytest.raises(RecipeError) as caught:
        load_advise_spec(path)
    assert "Did you mean 'stability'" in str(caught.value) and "deadline_hours" in str(caught.value)


def test_evidence_is_looked_for_beside_the_file(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(comparison({"rag": 0.5, "prompting": 0.1})))
    path = tmp_path / "spec.yaml"
    path.write_text("evidence: comparison.json\n")
    assert load_advise_spec(path).evidence == str(tmp_path / "comparison.json")


def test_asked_one_by_one_an_empty_answer_leaves_a_thing_unknown_and_a_wrong_one_is_asked_again():
    given = iter(["soon", "fast", "many", "12", "no", "required", "", "300", *[""] * 40])
    said = []
    spec = ask_situation(lambda _: next(given), said.append)
    assert spec.knowledge.stability == "fast" and spec.knowledge.changes_per_month == 12
    assert spec.knowledge.specialised is False and spec.situation.documents == 300
    assert spec.update.deadline_hours is None and sum("is no answer" in line for line in said) == 2


def test_the_page_stands_by_itself(tmp_path):
    values, expected = SCENARIOS["legal and compliance with citations"]
    write_advice_page(tmp_path / "advice.html", advise(told(values, measured(tmp_path, expected, 0.75))))
    page = (tmp_path / "advice.html").read_text()
    assert "V-citations" in page and "rag" in page and "src=" not in page


def test_no_torch_is_needed(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("knowledge: {stability: fast}\nsituation: {documents: 10}\n")
    code = (
        "import sys\n"
        "for name in ('torch', 'numpy', 'transformers', 'pyarrow'): sys.modules[name] = None\n"
        "from ftkit.cli.app import main\n"
        f"sys.argv = ['ftkit', 'advise', {str(path)!r}, '--json']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["choice"] in (*OPTIONS, UNDETERMINED)
