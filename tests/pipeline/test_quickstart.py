"""The README's promise, in full: minutes long, so left to ``-m slow``."""

from __future__ import annotations

import json

import pytest

import ftkit
from ftkit.recipe import find_recipe


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(1800)
def test_the_quickstart_goes_from_nothing_to_above_ninety_percent(tmp_path, smollm2):
    recipe = ftkit.load_recipe(find_recipe("quickstart"), [f"output={tmp_path / 'run'}"])

    run = ftkit.run(recipe, quiet=True)

    assert run.result["metrics"]["before"]["exact_match"] < 0.05
    assert run.result["metrics"]["after"]["exact_match"] > 0.9
    assert [entry["passed"] for entry in run.result["exports"]] == [True, True]


def test_no_held_back_row_of_the_quickstart_repeats_a_training_row():
    folder = find_recipe("quickstart").parent / "data"
    sides = []
    for name in ("shop_tickets_train.jsonl", "shop_tickets_heldback.jsonl"):
        rows = [json.loads(line)["messages"][0]["content"] for line in (folder / name).read_text().splitlines()]
        sides.append({" ".join(row.lower().split()) for row in rows})

    assert [len(side) for side in sides] == [300, 40]
    assert not sides[0] & sides[1]
