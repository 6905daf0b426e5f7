"""kill -9, at exact places and at random moments: a resume ends as if nothing had happened."""

from __future__ import annotations

import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.line import Ended, Line
from tests.faults.places import Fault
from tests.faults.runs import VARIANTS, Ground, differing, digests, go_on, left_over

KILLS = 30
FAST = [
    ("lora", "rename data_report.json", 1, "kill"),  # before there is a run
    ("packed", "write checkpoints/.partial/optimizer.safetensors", 2, "kill-half"),
    ("lora", "write metrics.jsonl", 6, "kill-half"),
    pytest.param("streamed", "write metrics.jsonl", 6, "kill-half", marks=pytest.mark.slow),
    # Half of an old checkpoint is removed.
    pytest.param("full", "unlink checkpoints/step-N/state.json", 1, "kill", marks=pytest.mark.slow),
    ("lora", "write probes/.partial", 3, "kill-half"),  # over what was measured on the base
    ("lora", "write export/adapter/.partial", 1, "kill-half"),  # the export stands, its verify.json does not
    ("lora", "write .partial", 9, "kill"),  # the report
]


@dataclass(frozen=True)
class Outcome:
    """What came of one disturbed run."""

    stood: str
    differs: list[str]
    left: list[str]


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def what_stands(run: Path) -> str:
    """What a killed process left, in a few words."""
    steps = [int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*")]
    names = [name for name in ("run.json", "before.json", "samples.json", "result.json") if (run / name).exists()]
    exports = sorted(path.name for path in (run / "export").glob("[!.]*"))
    return f"{', '.join(names) or 'nothing'}; steps {sorted(steps)}; exports {exports}; partial {len(left_over(run))}"


def finish(line: Line, ground: Ground, recipe: Path, variant: str, killed: Ended) -> Outcome:
    run, stood = recipe.parent / "run", what_stands(recipe.parent / "run")
    assert killed.code == -signal.SIGKILL, killed.err
    ended = go_on(line, recipe, run)
    assert ended.code == 0, ended.err
    return Outcome(stood, differing(digests(run), ground.straight(variant).digests), left_over(run))


@pytest.mark.parametrize(("variant", "label", "occurrence", "do"), FAST)
def test_killed_at_a_place_and_resumed_is_as_if_nothing_had_happened(
    variant, label, occurrence, do, line, ground, tmp_path
):
    at = ground.straight(variant).at(label, occurrence=occurrence)
    recipe = ground.recipe(tmp_path, variant)
    killed = line.run("train", recipe, fault=Fault(folder=tmp_path / "run", at=at, do=do))

    outcome = finish(line, ground, recipe, variant, killed)

    assert (outcome.differs, outcome.left) == ([], []), outcome
    assert (tmp_path / "run" / "report.html").is_file()


def test_the_lines_before_a_checkpoint_survive_a_power_cut_if_it_does(ground):
    watched = ("write metrics.jsonl", "fsync metrics.jsonl", "rename checkpoints/step-N")
    order = [place for place in ground.straight().places if place in watched]

    saved = [at for at, place in enumerate(order) if place == watched[2]]

    assert len(saved) == 4
    assert all(order[at - 1] == watched[1] for at in saved)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_disk_stays_bounded_over_thirty_kills_in_the_middle_of_a_checkpoint(line, ground, tmp_path):
    recipe, run, sizes = ground.recipe(tmp_path), tmp_path / "run", []
    for number in range(KILLS):
        fault = Fault(folder=run, label="write checkpoints/.partial/random.safetensors", do="kill-half")
        killed = line.run(*(("resume", run) if number else ("train", recipe)), fault=fault)
        assert killed.code == -signal.SIGKILL, killed.err
        sizes.append(size_of(run) + size_of(line.temporary))
    assert sizes[-1] < 1.2 * sizes[1], sizes
    assert line.run("resume", run).code == 0
    assert differing(digests(run), ground.straight().digests) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_thirty_kills_at_random_moments_and_places(line, ground, tmp_path, capsys):
    draw, faults = random.Random(20), []
    for number in range(KILLS):
        variant = draw.choice(list(VARIANTS))
        folder = tmp_path / str(number)
        recipe = ground.recipe(folder, variant)
        if number % 2:
            where, killed = _kill_at_a_moment(line, ground, recipe, variant, draw)
        else:
            where, killed = _kill_at_a_place(line, ground, recipe, variant, draw)
        if killed.code == 0:  # it was faster than the run that the moments were drawn from
            assert differing(digests(folder / "run"), ground.straight(variant).digests) == []
            recipe = ground.recipe(tmp_path / f"{number}-again", variant)
            where, killed = _kill_at_a_place(line, ground, recipe, variant, draw)
        outcome = finish(line, ground, recipe, variant, killed)
        same = "identical" if not outcome.differs else f"DIFFERS: {outcome.differs}"
        row = f"{number + 1:2} {variant:8} {where:60} {outcome.stood:95} {same}"
        with capsys.disabled():
            print(f"\n{row}", end="", flush=True)
        faults += [row] if outcome.differs or outcome.left else []

    assert faults == []


def _kill_at_a_moment(
    line: Line, ground: Ground, recipe: Path, variant: str, draw: random.Random
) -> tuple[str, Ended]:
    """Once, twice or three times, each somewhere in what is left of the run."""
    moments, ended = [], None
    for _ in range(draw.randint(1, 3)):
        after_s = draw.uniform(0, ground.straight(variant).wall_s * (1.0 if ended is None else 0.6))
        begun = (recipe.parent / "run" / "run.json").is_file()
        started = line.start("resume", recipe.parent / "run") if begun else line.start("train", recipe)
        time.sleep(after_s)
        started.send(signal.SIGKILL)
        this = started.wait()
        if this.code == 0:
            break
        ended = this
        moments.append(f"{after_s:.2f} s")
    return f"after {', '.join(moments)}", ended or this


def _kill_at_a_place(
    line: Line, ground: Ground, recipe: Path, variant: str, draw: random.Random
) -> tuple[str, Ended]:
    """At an operation whose label is drawn first, so that rare ones are met as often as common ones."""
    places = ground.straight(variant).places
    label = draw.choice(sorted(set(places)))
    at = draw.choice([number for number, place in enumerate(places, 1) if place == label])
    do = draw.choice(["kill", "kill-half"]) if label.startswith("write") else "kill"
    killed = line.run("train", recipe, fault=Fault(folder=recipe.parent / "run", at=at, do=do))
    return f"{'in' if do == 'kill-half' else 'before'} {at}: {label}", killed
