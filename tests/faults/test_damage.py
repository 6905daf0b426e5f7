"""Damaged checkpoints are passed over with a warning that says so, and the run ends as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import signal

import pytest

from ftkit.train.checkpoint import ALWAYS, MANIFEST, checkpoints_in, fault_of, newest_checkpoint
from tests.faults.places import Fault
from tests.faults.runs import differing, digests, left_over


def truncate(path):
    path.write_bytes(path.read_bytes()[:-2])


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty_list(path):
    path.write_text(json.dumps({"format_version": 1, "files": {}}))


def foreign(path):
    path.write_text("[]")


DAMAGE = {"truncated": truncate, "bit flipped": flip_bit, "removed": lambda path: path.unlink()}
CASES = [(name, how, damage) for name in (*ALWAYS, MANIFEST) for how, damage in DAMAGE.items()]
CASES += [(MANIFEST, "lists nothing", empty_list), (MANIFEST, "something else", foreign)]


@pytest.fixture(scope="module")
def killed(line, ground, tmp_path_factory):
    """A run that was killed after its sixth step: checkpoints of the fourth and the sixth."""
    folder = tmp_path_factory.mktemp("killed")
    at = ground.straight().at("rmdir checkpoints/step-N") + 5
    ended = line.run("train", ground.recipe(folder), fault=Fault(folder=folder / "run", at=at))
    assert ended.code == -signal.SIGKILL, ended.err
    assert [path.name for path in checkpoints_in(folder / "run" / "checkpoints")] == [
        "step-00000004",
        "step-00000006",
    ]
    return folder


def copy_of(killed, folder):
    """The run moved to another place, as its recipe has it there."""
    shutil.copytree(killed, folder, dirs_exist_ok=True, copy_function=shutil.copy2)
    return folder / "run"


@pytest.mark.parametrize(("name", "how", "damage"), CASES, ids=[f"{name} {how}" for name, how, _ in CASES])
def test_every_kind_of_damage_is_noticed_and_named(name, how, damage, killed, tmp_path):
    run = copy_of(killed, tmp_path)
    newest = checkpoints_in(run / "checkpoints")[-1]
    assert fault_of(newest) is None
    damage(newest / name)

    fault = fault_of(newest)

    assert fault is not None
    assert name in fault or name == MANIFEST, fault
    assert newest_checkpoint(run / "checkpoints").name == "step-00000004"


@pytest.mark.parametrize(
    ("name", "damage"),
    [("optimizer.safetensors", flip_bit), pytest.param(MANIFEST, truncate, marks=pytest.mark.slow)],
)
def test_a_resume_goes_on_from_the_checkpoint_before_and_says_so(name, damage, line, ground, killed, tmp_path):
    run = copy_of(killed, tmp_path)
    newest = run / "checkpoints" / "step-00000006"
    damage(newest / name)

    ended = line.run("resume", run)

    assert ended.code == 0, ended.err
    assert f"{newest}: is damaged and passed over: {name}" in ended.err
    assert "going back to step 4" in ended.err
    assert differing(digests(run), ground.straight().digests) == []


def test_a_resume_without_a_whole_checkpoint_starts_over_and_says_so(line, ground, killed, tmp_path):
    run = copy_of(killed, tmp_path)
    for checkpoint in checkpoints_in(run / "checkpoints"):
        truncate(checkpoint / "trained.safetensors")
    (run / "checkpoints" / "step-backup").mkdir()  # a person's, no checkpoint

    ended = line.run("resume", run)

    assert ended.code == 0, ended.err
    assert ended.err.count("is damaged and passed over: trained.safetensors has") == 2
    assert "no checkpoint is whole; a resume starts over" in ended.err
    assert differing(digests(run), ground.straight().digests) == []
    assert left_over(run) == []
