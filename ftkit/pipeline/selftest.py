"""The invariants on a person's own recipe and data: what may not change the result does not change it.

The runs are the recipe's own, cut to a few steps, in processes of their own and in a temporary folder. Nothing of the
person's is read but the recipe and what it names, and nothing is written but the usual caches.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import UsageError, VerificationError
from ftkit.files import require_space, write_text
from ftkit.notices import log, show_notices
from ftkit.pipeline.estimate import estimate
from ftkit.pipeline.exporting import require_exports
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.selftest_children import Processes, Runs
from ftkit.pipeline.selftest_invariants import Invariant, check_batching, check_exports, check_packing, check_same
from ftkit.pipeline.selftest_runs import Trace, reached, require_steps, short_recipe
from ftkit.pipeline.session import open_session
from ftkit.recipe import Recipe, dump_recipe

DEFAULT_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Selftest:
    """The outcome.

    Attributes:
        checks: One for each invariant, and one for each export.
        steps: Of each run.
        wall_s: All of it.
        kept: The folder with the runs, where something failed.
    """

    checks: tuple[Invariant, ...]
    steps: int
    wall_s: float
    kept: Path | None

    @property
    def passed(self) -> bool:
        """Whether no invariant failed."""
        return not self.failures

    @property
    def failures(self) -> list[Invariant]:
        """Those that failed."""
        return [check for check in self.checks if check.passed is False]

    def to_dict(self) -> dict[str, Any]:
        """As ``ftkit selftest --json`` prints it."""
        return {
            "passed": self.passed,
            "checks": [asdict(check) for check in self.checks],
            "steps": self.steps,
            "wall_s": round(self.wall_s, 1),
            "kept": None if self.kept is None else str(self.kept),
        }

    def require_passed(self) -> None:
        """Refuse an outcome with a failure.

        Raises:
            VerificationError: Naming each with its figures.
        """
        if self.failures:
            failed = "; ".join(f"{check.name}: {check.detail}" for check in self.failures)
            raise VerificationError(
                failed, fix=f"Do not trust a run of this recipe on this machine. The runs are kept in {self.kept}"
            )


def selftest(
    recipe: Recipe, *, steps: int = DEFAULT_STEPS, quiet: bool = False, runs: Runs | None = None
) -> Selftest:
    """Hold the invariants against a recipe.

    Args:
        recipe: Its output may be a finished run; it is not looked at.
        steps: Optimizer steps of each run.
        quiet: Warnings only on stderr.
        runs: Where the runs are done; None for processes of their own.

    Returns:
        What was found, failures included.

    Raises:
        FtkitError: As the run of the recipe does, with its exit code.
        UsageError: The run ended before it could be killed, or ``steps`` is less than two.
        ResourceError: There is no room for the runs.
    """
    began = time.monotonic()
    require_steps(steps)
    show_notices(quiet=quiet)
    recipe = recipe.resolved()
    with _scratch(recipe, _disk_bytes(recipe, steps)) as scratch:
        line = _Line(recipe, steps, scratch.folder, runs or Processes(scratch.folder))
        checks = line.checks()
        scratch.keep = any(check.passed is False for check in checks)
    if scratch.keep:
        log.warning("the runs are kept in %s", scratch.folder)
    return Selftest(
        checks=tuple(checks),
        steps=steps,
        wall_s=time.monotonic() - began,
        kept=scratch.folder if scratch.keep else None,
    )


class _Line:
    """The pieces in their order: each needs what those before it left in the folder."""

    def __init__(self, recipe: Recipe, steps: int, folder: Path, runs: Runs) -> None:
        self.recipe, self.steps, self.folder, self.runs = recipe, steps, folder, runs

    def checks(self) -> list[Invariant]:
        """Run all, and hold them against each other."""
        log.info("selftest in %s", self.folder)
        result = self._first()
        first = Trace.read(self.folder / "first")
        exports = check_exports(self.folder / "first", result["exports"], steps=self.steps)
        again = self._again(first)
        resumed = self._resumed(first) if again.passed else _not_to_be_told()
        log.info("selftest 4 of 4: one step in one pass, row by row, and packed")
        found = self.runs.call("step", self._recipe("step", exports=False))
        batching, packing = check_batching(found), check_packing(found, result)
        return [batching, packing, again, resumed, *exports]

    def _first(self) -> dict[str, Any]:
        log.info("selftest 1 of 4: %d steps, exports, and their verification", self.steps)
        try:
            return self.runs.call("run", self._recipe("first", exports=True))
        except VerificationError:
            # Of an export: it is what is to be found out, and the run is complete.
            result = RunFolder(self.folder / "first")
            if not result.has("result.json"):
                raise
            document: dict[str, Any] = result.read("result.json")
            return document

    def _again(self, first: Trace) -> Invariant:
        log.info("selftest 2 of 4: the same once more")
        self.runs.call("run", self._recipe("again", exports=False))
        again = Trace.read(self.folder / "again")
        check = check_same("repeatability", first, again, f"{self.steps} steps, once more in a new process")
        if check.passed:
            shutil.rmtree(self.folder / "again")  # the next run may need its room
        return check

    def _resumed(self, first: Trace) -> Invariant:
        log.info("selftest 3 of 4: killed on the way, and resumed")
        recipe, folder = self._recipe("resumed", exports=False, checkpoint_every=1), self.folder / "resumed"
        for step in (self.steps // 2, 1):
            self.runs.kill_after(recipe, folder / "checkpoints", step)
            if (done := reached(folder, self.steps)) is not None:
                self.runs.call("resume", folder)
                how = f"killed after step {done} of {self.steps}, and resumed"
                return check_same("resume", first, Trace.read(folder), how)
            log.info("the run ended before it could be killed")
            shutil.rmtree(folder)
        raise UsageError(
            f"--steps {self.steps}: the run ends before it can be killed and resumed",
            fix=f"Give more, such as --steps {4 * self.steps}.",
        )

    def _recipe(self, name: str, *, exports: bool, checkpoint_every: int | None = None) -> Path:
        """The file of a short recipe whose run folder has this name."""
        short = short_recipe(
            self.recipe, self.folder / name, steps=self.steps, exports=exports,
            checkpoint_every=checkpoint_every or self.steps,
        )  # fmt: skip
        file = self.folder / f"{name}.yaml"
        write_text(file, dump_recipe(short))
        return file


def _not_to_be_told() -> Invariant:
    return Invariant(name="resume", passed=None, detail="cannot be told where a second run differs by itself")


def _disk_bytes(recipe: Recipe, steps: int) -> int:
    """Room for all runs; what the recipe cannot do is refused here, before anything is written."""
    # No folder yet: the estimate does not look at the output.
    short = short_recipe(recipe, Path(recipe.output or ""), steps=steps, exports=True, checkpoint_every=steps)
    session = open_session(short)
    require_exports(session, session.recipe.export or ())
    data = session.prepare_data()
    needs = estimate(session, data)
    needs.require_fit()
    bare = session.recipe.model_copy(update={"export": ()})
    return needs.disk + 2 * estimate(dataclasses.replace(session, recipe=bare), data).disk


class _Scratch:
    """Attributes: folder: temporary. keep: whether it stays."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keep = False


@contextlib.contextmanager
def _scratch(recipe: Recipe, needed_bytes: int) -> Iterator[_Scratch]:
    """A folder for the runs, beside the recipe's output or where temporary files go; gone afterwards unless kept.

    Raises:
        ResourceError: Neither place has the room.
    """
    output = Path(recipe.output or "").resolve()
    beside = next(parent for parent in output.parents if parent.is_dir())
    places = [place for place in (beside, Path(tempfile.gettempdir())) if os.access(place, os.W_OK)]
    roomy = [place for place in places if shutil.disk_usage(place).free >= needed_bytes]
    require_space(roomy[0] if roomy else places[0], needed_bytes)
    scratch = _Scratch(Path(tempfile.mkdtemp(prefix=".ftkit-selftest-", dir=roomy[0])))
    try:
        with _interrupted_by_signals():
            yield scratch
    finally:
        if not scratch.keep:
            shutil.rmtree(scratch.folder, ignore_errors=True)


@contextlib.contextmanager
def _interrupted_by_signals() -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does, so that processes and folders are cleared away.

    Ctrl-C too is listened to anew: a shell starts what runs in the background without it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
