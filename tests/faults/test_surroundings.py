"""What else happens around a run: another clock, other data, another trainer, a folder that is no longer writable."""

from __future__ import annotations

import json
import os
import signal

import pytest

from ftkit.train.checkpoint import newest_checkpoint
from tests.faults.memory import ERRORS
from tests.faults.mounts import Mounts
from tests.faults.places import Fault
from tests.faults.runs import differing, digests, go_on, half_written

DECADE_S = 10 * 365.25 * 24 * 3600
STEP_4_SAVED = ("rename checkpoints/step-N", 2)


def killed_after_step_4(line, ground, folder, variant="lora"):
    """A run that was killed when its fourth step was saved."""
    label, occurrence = STEP_4_SAVED
    at = ground.straight(variant).at(label, occurrence=occurrence) + 2
    ended = line.run("train", ground.recipe(folder, variant), fault=Fault(folder=folder / "run", at=at))
    assert ended.code == -signal.SIGKILL, ended.err
    return folder / "run"


def snapshot(folder):
    """Every file with its bytes and time of change."""
    return {
        path.relative_to(folder): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


# The clock


def test_a_clock_turned_back_between_and_during_runs_changes_nothing(line, ground, tmp_path):
    label, occurrence = STEP_4_SAVED
    at = ground.straight().at(label, occurrence=occurrence) + 2
    back_and_forth = (0.0, 0.0, -DECADE_S, 5.0, -DECADE_S, -2 * DECADE_S)
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"
    killed = line.run("train", recipe, clock_s=back_and_forth, fault=Fault(folder=run, at=at))
    assert killed.code == -signal.SIGKILL, killed.err
    for path in tmp_path.rglob("*"):
        os.utime(path, (4e9, 4e9))  # written in the year 2096, as the new clock sees it

    resumed = line.run("resume", run, clock_s=(-DECADE_S, 0.0, -2 * DECADE_S))

    assert resumed.code == 0, resumed.err
    assert differing(digests(run), ground.straight().digests) == []
    assert all(line["wall_s"] >= 0 for line in _metrics(run) if "wall_s" in line)
    assert sorted(line["wall_s"] for line in _metrics(run)[1:]) == [line["wall_s"] for line in _metrics(run)[1:]]


def _metrics(run):
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


# The data


def keep_size_and_time(path):
    facts = path.stat()
    path.write_bytes(path.read_bytes().replace(b"green", b"brown"))
    assert path.stat().st_size == facts.st_size
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def append(path):
    with path.open("a") as stream:
        stream.write(path.read_text().splitlines()[3].replace("thing 3", "thing 333") + "\n")


def remove_row(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


@pytest.mark.parametrize("variant", ["lora", pytest.param("streamed", marks=pytest.mark.slow)])
def test_other_data_between_a_kill_and_a_resume_is_refused(variant, line, ground, tmp_path):
    run, rows = killed_after_step_4(line, ground, tmp_path, variant), tmp_path / "rows.jsonl"
    original, metrics = rows.read_bytes(), (run / "metrics.jsonl").read_bytes()
    for change in (keep_size_and_time, append, remove_row):
        rows.write_bytes(original)
        change(rows)
        refused = line.run("resume", run)
        assert refused.code == 2, (change, refused.err)
        assert "changed since the run began" in refused.err
        assert "data" in refused.err
    assert (run / "metrics.jsonl").read_bytes() == metrics
    rows.write_bytes(original)

    assert line.run("resume", run).code == 0
    assert differing(digests(run), ground.straight(variant).digests) == []


@pytest.mark.parametrize("change", [keep_size_and_time, pytest.param(append, marks=pytest.mark.slow)])
def test_data_that_changes_while_training_goes_on_is_not_trained_on(change, line, ground, tmp_path):
    ground.straight()
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"
    started = line.start("train", recipe)
    started.wait_for(run / "run.json")
    change(tmp_path / "rows.jsonl")

    ended = started.wait()

    assert ended.code == 0, ended.err
    assert differing(digests(run), ground.straight().digests) == []


@pytest.mark.slow
@pytest.mark.parametrize("change", [keep_size_and_time, append])
def test_a_stream_whose_file_changes_stops_clearly_or_was_read_before(change, line, ground, tmp_path):
    recipe, run = ground.recipe(tmp_path, "streamed"), tmp_path / "run"
    original = (tmp_path / "rows.jsonl").read_bytes()
    started = line.start("train", recipe)
    started.wait_for(run / "run.json")
    change(tmp_path / "rows.jsonl")

    ended = started.wait()

    assert ended.code == 3, ended.err  # the stream starts only with the first step
    assert f"{tmp_path / 'rows.jsonl'}: has changed since training began" in ended.err
    (tmp_path / "rows.jsonl").write_bytes(original)
    assert line.run("resume", run).code == 0
    assert differing(digests(run), ground.straight("streamed").digests) == []


# Two trainers


@pytest.mark.parametrize(
    ("first", "second"),
    [("train", "resume"), *(pytest.param(one, one, marks=pytest.mark.slow) for one in ("train", "resume"))],
)
def test_of_two_trainers_on_one_folder_one_goes_on_and_the_other_touches_nothing(
    first, second, line, ground, tmp_path
):
    ground.straight()
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"
    if first == "resume":
        killed_after_step_4(line, ground, tmp_path)
    words = {"train": ("train", recipe), "resume": ("resume", run)}
    began = line.start(*words[first])
    began.wait_to_say("parameters train")
    os.kill(began.pid, signal.SIGSTOP)  # in the middle of its work, so that nothing moves but by the other
    before = snapshot(run)

    late = line.run(*words[second])

    after = snapshot(run)
    os.kill(began.pid, signal.SIGCONT)
    assert late.code == 2, late.err
    assert f"{run}: another process is working in this folder" in late.err
    assert after == before
    assert late.wall_s < 30
    assert began.wait().code == 0
    assert differing(digests(run), ground.straight().digests) == []


@pytest.mark.slow
def test_of_many_trainers_at_once_exactly_one_goes_on(line, ground, tmp_path):
    ground.straight()
    run = killed_after_step_4(line, ground, tmp_path)
    started = [line.start("resume", run) for _ in range(3)]

    ended = [one.wait() for one in started]

    won = [one for one in ended if "training" in one.err or "exporting" in one.err]
    assert len(won) == 1
    assert differing(digests(run), ground.straight().digests) == []


# Folders that cannot be written to


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    with Mounts(folder) as mounts:
        yield mounts


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(line, ground, disk, tmp_path):
    recipe = ground.recipe(tmp_path, output=disk.folder / "run")
    disk.do(f"mount -o remount,ro '{disk.folder}'")

    ended = line.run("train", recipe, namespace=disk.pid)

    assert ended.code == 2, ended.err
    assert f"{disk.folder / 'run'}: cannot be written to: Read-only file system" in ended.err
    assert "parameters train" not in ended.err


@pytest.mark.slow
def test_a_run_folder_that_turns_read_only_stops_the_run_and_a_resume_until_it_is_writable_again(
    line, ground, disk, tmp_path
):
    run = disk.folder / "run"
    at = ground.straight().at("create metrics.jsonl", occurrence=7)
    recipe, seen = ground.recipe(tmp_path, output=run), disk.seen(run)
    fault = Fault(folder=run, at=at, do="read-only")

    ended = line.run("train", recipe, fault=fault, namespace=disk.pid)
    still = line.run("resume", run, namespace=disk.pid)
    disk.do(f"umount '{run}'")

    assert ended.code == 2, ended.err
    assert "Read-only file system; everything up to step 4 is saved" in ended.err
    assert f"ftkit resume {run}" in ended.err
    assert (still.code, "cannot be written to" in still.err) == (2, True), still.err
    assert "parameters train" not in still.err
    assert half_written(seen) == []
    assert go_on(line, recipe, run, seen=seen, namespace=disk.pid).code == 0
    assert differing(digests(seen), ground.straight().digests) == []


# Memory


@pytest.mark.parametrize(
    "error",
    ["RuntimeError", *(pytest.param(name, marks=pytest.mark.slow) for name in ERRORS if name != "RuntimeError")],
)
def test_too_little_memory_says_what_needs_less_and_a_resume_with_more_is_identical(error, line, ground, tmp_path):
    recipe, run = ground.recipe(tmp_path), tmp_path / "run"
    # Passes 1 to 13 are the first epoch; the 16th is in the fifth step.
    ended = line.run("train", recipe, memory_steps=(16,), memory_error=error)

    assert ended.code == 4, ended.err
    assert "memory" in ended.err
    assert "train.micro_batch_size" in ended.err
    assert "everything up to step 4 is saved" in ended.err
    assert f"ftkit resume {run}" in ended.err
    assert newest_checkpoint(run / "checkpoints").name == "step-00000004"
    if error == "MemoryError":
        assert line.run("resume", run).code == 0
        assert differing(digests(run), ground.straight().digests) == []
