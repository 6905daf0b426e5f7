"""Ctrl-C and SIGTERM at any moment: exit 130, what is saved is said, and a resume is as if nothing had happened."""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.faults.places import Fault
from tests.faults.runs import differing, digests, go_on, half_written, last_saved, left_over

INT, TERM = signal.SIGINT, signal.SIGTERM
MOMENTS = 16
FAST = ("measuring the base", "a step", "export")
# What a run is doing, the place it has come to, and the words that the person reads.
CASES = [
    ("preparing data", "create .lock", 1, (TERM,), "nothing was trained yet", "Run the same command again."),
    ("measuring the base", "mkdir probes", 1, (INT,), "no step is saved yet", "ftkit resume"),
    ("a step", "write metrics.jsonl", 2, (TERM,),
     "stopped after step 2 of 8; everything is saved", "ftkit resume"),
    ("checkpoint", "write checkpoints/.partial/random.safetensors", 1, (INT, INT),
     "interrupted; no step is saved yet", "ftkit resume"),
    ("answers", "create .partial", 7, (INT,), "everything up to step 8 is saved", "ftkit resume"),
    ("export", "write export/.partial/model.safetensors", 3, (TERM,),
     "everything up to step 8 is saved", "ftkit resume"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "occurrence", "signals", "saved", "go_on_with"),
    [pytest.param(*case[1:], id=case[0], marks=[] if case[0] in FAST else [pytest.mark.slow]) for case in CASES],
)
def test_an_interrupted_run_says_what_is_saved_and_goes_on_as_if_it_had_not_been(
    label, occurrence, signals, saved, go_on_with, line, ground, tmp_path
):
    at = ground.straight().at(label, occurrence=occurrence)
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"

    ended = line.run("train", recipe, fault=Fault(folder=run, at=at, do="signal", signals=signals))

    assert ended.code == 130, ended.err
    assert saved in ended.err
    assert go_on_with in ended.err
    assert "Traceback" not in ended.err
    assert half_written(run) == []
    resumed = go_on(line, recipe, run)
    assert resumed.code == 0, resumed.err
    assert differing(digests(run), ground.straight().digests) == []


@pytest.mark.slow
def test_a_signal_in_the_last_step_is_not_lost(line, ground, tmp_path):
    at = ground.straight().at("write checkpoints/.partial/.partial", occurrence=7)
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"

    ended = line.run("train", recipe, fault=Fault(folder=run, at=at, do="signal", signals=(TERM,)))

    assert ended.code == 130, ended.err
    assert "stopped after step 8 of 8; everything is saved" in ended.err
    assert not (run / "export").exists()
    assert line.run("resume", run).code == 0
    assert differing(digests(run), ground.straight().digests) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_signals_at_random_moments(line, ground, tmp_path, capsys):
    draw, wrong = random.Random(7), []
    for number in range(MOMENTS):
        recipe, run = ground.recipe(tmp_path / str(number)), tmp_path / str(number) / "run"
        after_s, which = draw.uniform(0.3, ground.straight().wall_s), draw.choice([INT, TERM])
        twice = draw.random() < 0.3
        started = line.start("train", recipe)
        time.sleep(after_s)
        started.send(which)
        if twice:
            time.sleep(draw.uniform(0, 0.1))
            started.send(INT)
        ended = started.wait()
        step = last_saved(run)
        faults = [] if ended.code in (0, 130) and "Traceback" not in ended.err else [ended.err]
        faults += ["does not say how to go on"] * (
            ended.code == 130 and "ftkit resume" not in ended.err and (run / "run.json").exists()
        )
        faults += half_written(run)
        if ended.code == 130:
            resumed = go_on(line, recipe, run)
            faults += [resumed.err] if resumed.code else differing(digests(run), ground.straight().digests)
        said = next((text for text in ended.err.splitlines() if "saved" in text or "trained yet" in text), "")
        with capsys.disabled():
            name = f"{which.name}{' twice' if twice else ''} after {after_s:.2f} s"
            print(
                f"\n{name:30} exit {ended.code:3} step {step}  {said:65} {faults or 'identical'}", end="", flush=True
            )
        wrong += faults

    assert wrong == []
    assert left_over(run) == []
