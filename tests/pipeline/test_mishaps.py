"""What the machine does to a run becomes an error that says what is saved."""

from __future__ import annotations

import errno
import os
import signal
import threading

import pytest
import torch
from safetensors import SafetensorError

from ftkit.errors import Interrupted, OutputError, RecipeError, ResourceError
from ftkit.files import write_json
from ftkit.pipeline.mishaps import saying_what_is_saved
from ftkit.pipeline.run_folder import RunFolder
from ftkit.train.checkpoint import ALWAYS, MANIFEST, checkpoint_folder

FULL = "No space left on device"


@pytest.fixture
def folder(tmp_path):
    """A run with a whole checkpoint of step 4 and a damaged one of step 6."""
    run = RunFolder(tmp_path / "run")
    run.checkpoints.mkdir(parents=True)
    (run.path / "run.json").write_text("{}")
    run.recipe_file.write_text("")
    for step, size in ((4, 0), (6, 1)):
        checkpoint = checkpoint_folder(run.checkpoints, step)
        checkpoint.mkdir()
        for name in ALWAYS:
            (checkpoint / name).touch()
        empty = {"size": size, "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
        write_json(checkpoint / MANIFEST, {"files": dict.fromkeys(ALWAYS, empty)})
    return run


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (OSError(errno.ENOSPC, FULL), ResourceError, "run: the disk is full; everything up to step 4 is saved"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/mnt/x/y"), ResourceError, "/mnt/x: the disk is full"),
        (SafetensorError(f"I/O error: {FULL} (os error 28)"), ResourceError, "the disk is full"),
        (
            Exception(f"{FULL} (os error 28)"),
            ResourceError,
            "the disk is full",
        ),  # tokenizers raises no more than this
        (
            OSError(errno.EROFS, "Read-only file system"),
            OutputError,
            "Read-only file system; everything up to step 4",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), OutputError, "/a/b: Permission denied"),
        (MemoryError(), ResourceError, "memory did not suffice: MemoryError; everything up to step 4"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), ResourceError, "train.micro_batch_size=1"),
        (torch.OutOfMemoryError("CUDA out of memory.\nmore"), ResourceError, "suffice: CUDA out of memory.; every"),
        (KeyboardInterrupt(), Interrupted, "interrupted; everything up to step 4 is saved"),
        (
            ResourceError("too large", fix="Make it small."),
            ResourceError,
            "too large\n  Make it small.\n.*step 4 is sa",
        ),
    ],
)
def test_what_the_machine_is_short_of_is_said_with_what_is_saved(error, kind, says, folder):
    with pytest.raises(kind, match=f"(?s){says}") as caught, saying_what_is_saved(folder):
        raise error

    assert str(caught.value).count(f"ftkit resume {folder.path}") == 1


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, "broken"), RecipeError("wrong")])
def test_other_errors_pass_as_they_are(error, folder):
    with pytest.raises(type(error)) as caught, saying_what_is_saved(folder):
        raise error

    assert caught.value is error


def test_before_there_is_a_run_nothing_is_there_to_resume(tmp_path):
    with pytest.raises(ResourceError) as caught, saying_what_is_saved(RunFolder(tmp_path / "run")):
        raise OSError(errno.ENOSPC, FULL)

    assert "nothing was trained yet" in str(caught.value)
    assert "resume" not in str(caught.value)


def test_a_run_without_a_checkpoint_says_that_no_step_is_saved(folder):
    for checkpoint in folder.checkpoints.iterdir():
        (checkpoint / MANIFEST).unlink()
    with pytest.raises(Interrupted, match="no step is saved yet"), saying_what_is_saved(folder):
        raise KeyboardInterrupt


def test_sigterm_ends_the_block_like_ctrl_c_and_the_handler_from_before_is_back(folder):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted), saying_what_is_saved(folder):
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    assert signal.getsignal(signal.SIGTERM) is before


def test_in_a_thread_signals_stay_as_they_are(folder):
    found = []

    def work():
        with saying_what_is_saved(folder):
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert found == [signal.getsignal(signal.SIGTERM)]
