"""A disk that fills up in the middle of a run: a small file system and a file that takes all of its space."""

from __future__ import annotations

import random

import pytest

from tests.faults.mounts import Mounts
from tests.faults.places import Fault, fill
from tests.faults.runs import differing, digests, go_on, half_written, last_saved, left_over

FAST = [
    pytest.param("write .partial", 1, 0, marks=pytest.mark.slow),  # recipe.yaml: before there is a run
    ("write checkpoints/.partial/optimizer.safetensors", 2, 0),
    pytest.param("write export/.partial/model.safetensors", 1, 4096, marks=pytest.mark.slow),
]
PLACES = 24


@pytest.fixture
def disk(tmp_path):
    """A small disk: its mounts and the folder where it is."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with Mounts(folder) as mounts:
        yield mounts


def disturb(line, ground, folder, mounts, *, at, room):
    """Train on the disk that fills up at a place; (what was printed, the run as reached from here, faults found)."""
    run, ballast = mounts.folder / "run", mounts.folder / "ballast"
    recipe = ground.recipe(folder, output=run)
    fault = Fault(folder=run, at=at, do="fill", ballast=ballast, room=room)
    ended, seen = line.run("train", recipe, fault=fault, namespace=mounts.pid), mounts.seen(run)
    faults = []
    if ended.code != 0:
        faults += wrong_words(ended, run, seen) + half_written(seen)
        mounts.seen(ballast).unlink()
        resumed = go_on(line, recipe, run, seen=seen, namespace=mounts.pid)
        faults += [f"the resume ended with {resumed.code}: {resumed.err}"] if resumed.code else []
    if not faults:
        faults = differing(digests(seen), ground.straight().digests) + left_over(seen)
    return ended, seen, faults


def wrong_words(ended, run, seen):
    """What the message lacks."""
    step = last_saved(seen)
    saved = "no step is saved yet" if step is None else f"everything up to step {step} is saved"
    go_on_with = f"Go on with: ftkit resume {run}"
    if not (seen / "run.json").exists():
        saved, go_on_with = "nothing was trained yet", "Run the same command again."
    wanted = [f"{run}: the disk is full", saved, go_on_with]
    faults = [f"does not say: {words}" for words in wanted if words not in ended.err]
    faults += ["shows a traceback"] if "Traceback" in ended.err else []
    return [*faults, ended.err] if faults or ended.code != 4 else []


@pytest.mark.parametrize(("label", "occurrence", "room"), FAST)
def test_a_disk_that_fills_up_is_named_and_a_resume_with_room_is_as_if_it_had_not(
    label, occurrence, room, line, ground, disk, tmp_path
):
    at = ground.straight().at(label, occurrence=occurrence)

    ended, seen, faults = disturb(line, ground, tmp_path, disk, at=at, room=room)

    assert ended.code == 4, ended.err
    assert faults == []
    assert (seen / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_disk_that_fills_up_at_any_write(line, ground, tmp_path, capsys):
    draw, wrong, places = random.Random(4), [], ground.straight().places
    labels = sorted({label for label in places if not label.startswith(("unlink", "rmdir"))})
    for number, label in enumerate(draw.sample(labels, PLACES)):
        at = draw.choice([at for at, place in enumerate(places, 1) if place == label])
        folder = tmp_path / str(number)
        (folder / "disk").mkdir(parents=True)
        with Mounts(folder / "disk") as mounts:
            ended, _, faults = disturb(line, ground, folder, mounts, at=at, room=draw.choice([0, 4096]))
        said = next((text for text in ended.err.splitlines() if "the disk is full" in text), "went on to its end")
        said = said.replace(str(folder / "disk"), "DISK")
        with capsys.disabled():
            print(f"\n{label:55} exit {ended.code}  {said}  {faults or 'identical'}", end="", flush=True)
        wrong += [(label, faults)] if faults or (label.startswith("write ") and ended.code not in (0, 4)) else []

    assert wrong == []


def test_a_full_cache_is_done_without(line, ground, disk, tmp_path):
    straight = ground.straight()
    recipe = ground.recipe(tmp_path)
    fill(disk.seen(disk.folder / "ballast"), 0)
    caches = {"FTKIT_TOKEN_CACHE": str(disk.folder / "tokens"), "FTKIT_CACHE": str(disk.folder / "cache")}

    ended = line.run("train", recipe, namespace=disk.pid, environment=caches)

    assert ended.code == 0, ended.err
    assert "is on a full disk, so tokens are not kept" in ended.err
    assert differing(digests(tmp_path / "run"), straight.digests) == []


@pytest.mark.slow
def test_a_full_folder_of_temporary_files_is_named_and_no_export_is_blamed(line, ground, disk, tmp_path):
    recipe = ground.recipe(tmp_path)
    at = ground.straight().at("rename export/adapter")
    fault = Fault(folder=tmp_path / "run", at=at, do="fill", ballast=disk.folder / "ballast")

    ended = line.run("train", recipe, fault=fault, namespace=disk.pid, environment={"TMPDIR": str(disk.folder)})
    disk.seen(disk.folder / "ballast").unlink()
    resumed = line.run("resume", tmp_path / "run")

    assert ended.code == 4, ended.err
    assert f"{disk.folder}: the disk is full" in ended.err
    assert "everything up to step 8 is saved" in ended.err
    assert resumed.code == 0, resumed.err
    assert differing(digests(tmp_path / "run"), ground.straight().digests) == []
