"""Every error a person can cause or meet, and the exit code that scripts see.

    FtkitError
    |- UsageError            2    arguments of a command or call
    |  |- RecipeError        2    the recipe file, its overrides, or a recipe built in Python
    |  `- OutputError        2    the output folder is in use or not empty; a resume whose recipe or data changed
    |- DataError             3    rows, files, templates
    |- ResourceError         4    will not fit: memory or disk
    |- VerificationError     5    an export does not behave like the trained model
    |- MissingPartError      6    a package that is not installed (the message says how to get it)
    |- ModelError            7    the base model is missing, damaged, pickled, or wants to run its own code
    |- TrainingStoppedError  8    a canary fired: NaN, divergence, nothing learns
    `- Interrupted         130    Ctrl-C or SIGTERM, after everything was saved

The command line shows these without a traceback (with one under ``--debug``). A ``ValueError`` raised
by ftkit is a mistake in a call; an ``AssertionError`` is a mistake of ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_PROBLEMS_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong: where it is, what it is, and how to mend it.

    Attributes:
        where: ``file:line: field``, or whatever names the place best; empty where the whole is meant.
        what: The fault, with the offending value.
        fix: What to do about it; empty where ``what`` says it all.
    """

    where: str = ""
    what: str
    fix: str = ""

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return head + "".join(f"\n  {line}" for line in self.fix.splitlines())


class FtkitError(Exception):
    """Base of all errors meant for the person at the keyboard.

    Args:
        problems: What is wrong: one sentence, or every problem found in one pass.
        fix: How to mend it, when ``problems`` is one sentence.
    """

    exit_code = 1

    def __init__(self, problems: str | Problem | Sequence[Problem], *, fix: str = "") -> None:
        if isinstance(problems, str):
            problems = Problem(what=problems, fix=fix)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__(self._text())

    def _text(self) -> str:
        shown = [str(problem) for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        hidden = len(self.problems) - len(shown)
        if hidden:
            shown.append(f"... and {hidden} more problems (--json lists all)")
        return "\n".join(shown)


class UsageError(FtkitError):
    """The arguments of a command or call are wrong."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe, or an override of it, is wrong."""


class OutputError(UsageError):
    """The output folder cannot be used, or no longer belongs to this recipe and data."""


class DataError(FtkitError):
    """The data cannot be trained on as it is."""

    exit_code = 3


class ResourceError(FtkitError):
    """Memory or disk will not suffice."""

    exit_code = 4


class VerificationError(FtkitError):
    """An export does not behave like the model that was trained."""

    exit_code = 5


class MissingPartError(FtkitError):
    """An optional part is not installed."""

    exit_code = 6


class ModelError(FtkitError):
    """The base model cannot be used."""

    exit_code = 7


class TrainingStoppedError(FtkitError):
    """Training was stopped because going on would waste time or ruin the result."""

    exit_code = 8


class Interrupted(FtkitError):  # noqa: N818 - an interruption is not an error of anybody's
    """Training was interrupted on request, after saving a checkpoint."""

    exit_code = 130
