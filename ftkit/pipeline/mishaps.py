"""What the machine does to a run: interruptions, full disks, too little memory. Each says what is saved."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from ftkit.cache import cache_folder
from ftkit.errors import FtkitError, Interrupted, OutputError, Problem, ResourceError
from ftkit.files import FULL, READ_ONLY, error_number
from ftkit.pipeline.run_folder import RunFolder
from ftkit.train.checkpoint import checkpoints_in, is_whole, step_of

# A file system with less room than this is the one that was full; a file that did not fit is gone by now.
_HARDLY_ANY_BYTES = 1 << 20
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@contextlib.contextmanager
def saying_what_is_saved(folder: RunFolder) -> Iterator[None]:
    """Turn interruptions and failures of the machine inside the block into errors that say how to go on.

    Args:
        folder: Of the run that the block works on.

    Raises:
        Interrupted: Ctrl-C or SIGTERM.
        ResourceError: A disk is full, or memory did not suffice.
        OutputError: The folder cannot be written to.
    """
    try:
        with _terminated_like_interrupted():
            yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted; {_saved(folder)}", fix=_how_to_go_on(folder)) from None
    except ResourceError as error:
        if not folder.is_run():
            raise
        told = Problem(what=f"{folder.path}: {_saved(folder)}", fix=_how_to_go_on(folder))
        raise ResourceError([*error.problems, told]) from error
    except FtkitError:
        raise
    except Exception as error:
        found = _as_fault(error, folder)
        if found is None:
            raise
        raise found from error


def _as_fault(error: Exception, folder: RunFolder) -> FtkitError | None:
    """What the machine is short of; None where it is not the machine's fault."""
    number, saved, go_on = error_number(error), _saved(folder), _how_to_go_on(folder)
    if number in FULL:
        place = _full_place(error, folder.path)
        return ResourceError(f"{place}: the disk is full; {saved}", fix=f"Free some space. {go_on}")
    if number in READ_ONLY:
        place = getattr(error, "filename", None) or folder.path
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(f"{place}: {reason}; {saved}", fix=f"Make it accessible. {go_on}")
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _wants_memory(error):
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        return ResourceError(
            f"memory did not suffice: {first}; {saved}",
            fix=f"Free some memory. {go_on}\nOr train into another output with train.micro_batch_size=1, "
            "train.gradient_checkpointing=true, or a lower data.max_length.",
        )
    return None


def _wants_memory(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def _saved(folder: RunFolder) -> str:
    """How much of the run a resume will find."""
    if not folder.is_run():
        return "nothing was trained yet"
    whole = (step_of(one) for one in reversed(checkpoints_in(folder.checkpoints)) if is_whole(one))
    step = next(whole, None)
    return "no step is saved yet" if step is None else f"everything up to step {step} is saved"


def _how_to_go_on(folder: RunFolder) -> str:
    return f"Go on with: ftkit resume {folder.path}" if folder.is_run() else "Run the same command again."


def _full_place(error: Exception, folder: Path) -> Path:
    """What to free: where the failing file was to stand, or whichever of the places written to is full."""
    named = getattr(error, "filename", None)
    if isinstance(named, (str, Path)):
        return folder if Path(named).is_relative_to(folder) else Path(named).parent
    for place in (folder, Path(tempfile.gettempdir()), cache_folder()):
        existing = next((one for one in (place, *place.parents) if one.exists()), None)
        if existing is not None and psutil.disk_usage(str(existing)).free < _HARDLY_ANY_BYTES:
            return place
    return folder


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does; while training goes on, `ftkit.train.signals` takes over."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
