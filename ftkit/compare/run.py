"""`ftkit compare`: every system trained once, asked the same questions, and held against the others.

runs/compare/
  spec.yaml          resolved
  plan.json          how many questions, and the speeds that this was chosen by
  workload/          the questions as they were drawn, and what systems without passages learn from
  index-DIGEST/      by the encoders as they come
  trained/STAGES-DIGEST/   ordinary run folders; the digest is of all that decides them
  workload-VARIANT/  other training questions (measure.curve, noise, imbalance, updates)
  answers/           what each system answered, its scores, and what else was measured
  comparison.json    the figures
  comparison.html    the same to look at
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic as clock
from typing import Any

from ftkit.compare.arms import Arm, arms_of
from ftkit.compare.claims import judge
from ftkit.compare.contrasts import contrasts_of
from ftkit.compare.document import Measured, comparison_document
from ftkit.compare.figures import Standing
from ftkit.compare.lifecycle import Lifecycle, lifecycle_of
from ftkit.compare.measuring import Answered, answer_questions, measured_part, parts_of
from ftkit.compare.opened import Opened, open_comparison
from ftkit.compare.page import PAGE, write_comparison_page
from ftkit.compare.sheet import Sheet
from ftkit.compare.staged import climb
from ftkit.compare.workload import read_workload
from ftkit.errors import Interrupted, OutputError
from ftkit.files import folder_lock, require_empty, write_json, write_text
from ftkit.notices import log, show_notices
from ftkit.recipe import CompareSpec, dump_recipe

SPEC, COMPARISON = "spec.yaml", "comparison.json"
UPDATES = "updates"
SHARE_OF_WRITING = 20  # seconds of other work for each second of writing


@dataclass(kw_only=True)
class _Found:
    """What is known so far."""

    answered: dict[str, list[Answered]] = field(default_factory=dict)
    sheets: dict[str, dict[str, list[Sheet]]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)

    def of_seed(self, label: str, seed: int) -> Answered | None:
        """A system that was asked; one that is not trained has one seed for all."""
        some = self.answered.get(label, [])
        exact = [one for one in some if one.arm.seed == seed]
        return exact[0] if exact else some[0] if some and some[0].run is None else None


def compare(spec: CompareSpec, *, quiet: bool = False) -> dict[str, Any]:
    """Train and measure every system of a spec; what was done before for the same is taken as it is.

    Args:
        spec: What to compare. With ``budget`` questions are drawn so that it fits, and nothing is begun after it.
        quiet: Warnings only on stderr.

    Returns:
        The content of comparison.json.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving what the same call goes on from.
    """
    show_notices(quiet=quiet)
    started = clock()
    spec = spec.resolved()
    folder = Path(spec.output or "")
    if not (folder / SPEC).is_file():
        require_empty(folder)
    workload = read_workload(spec)
    with folder_lock(folder):
        write_text(folder / SPEC, dump_recipe(spec))
        opened = open_comparison(spec, workload, folder)
        found = _Found()
        page = _Page(opened, found)
        for name, task in _tasks(opened, found):
            if spec.budget is not None and clock() - started > 60 * spec.budget:
                found.waiting.append(name)
                continue
            try:
                task()
            except Interrupted as stopped:
                what = f"{name}: {stopped.problems[0].what}"
                page.write()
                raise Interrupted(what, fix="The same command goes on with it.") from None
            page.write_now_and_then()
        if not found.answered:
            raise OutputError(f"{folder}: the time was over before the first system", fix="Give it more minutes.")
        if found.waiting:
            log.warning(
                "time is over: %s wait. The same command goes on with them.", ", ".join(dict.fromkeys(found.waiting))
            )
        return page.write()


def _tasks(opened: Opened, found: _Found) -> list[tuple[str, Callable[[], None]]]:
    """What is done, the most telling first: all answers, what else is measured, other training questions."""
    arms = opened.trainer.order(arms_of(opened.spec))
    own = [arm for arm in arms if not arm.variant]

    def answer(arm: Arm) -> Callable[[], None]:
        return lambda: _answer(opened, found, arm)

    def measure(arm: Arm, part: str) -> Callable[[], None]:
        return lambda: _measure(opened, found, arm.label, arm.seed, part)

    tasks = [(arm.label, answer(arm)) for arm in own]
    for part in parts_of(opened):
        # Trained anew for each number of edits, so with one seed alone.
        seats = [arm for arm in own if not part.startswith(UPDATES) or arm.seed == opened.spec.seeds[0]]
        tasks += [(f"{arm.label} ({part})", measure(arm, part)) for arm in seats]
    return [*tasks, *((arm.label, answer(arm)) for arm in arms if arm.variant)]


def _answer(opened: Opened, found: _Found, arm: Arm) -> None:
    combined = arm.system.combines
    members = {} if combined is None else {name: found.of_seed(name, arm.seed) for name in combined.of}
    if any(one is None for one in members.values()):
        found.waiting.append(arm.label)
        return
    known = {name: one for name, one in members.items() if one is not None}
    answered = answer_questions(opened, arm, known)
    found.answered.setdefault(arm.label, []).append(answered)


def _measure(opened: Opened, found: _Found, label: str, seed: int, part: str) -> None:
    answered = found.of_seed(label, seed)
    if answered is None:
        found.waiting.append(f"{label} ({part})")
        return
    sheet = measured_part(opened, answered, part)
    if sheet is not None:
        found.sheets.setdefault(label, {}).setdefault(part, []).append(sheet)


def _standing(found: _Found, label: str, lifecycle: Lifecycle | None) -> Standing:
    answered = found.answered[label]
    others = found.sheets.get(label, {})
    counted: dict[str, float] = {} if lifecycle is None else dict(lifecycle.counted)
    costs = [one.cost for one in answered]
    if all(one.flops is not None for one in costs):
        counted["training_flops"] = sum(one.flops or 0.0 for one in costs) / len(costs)
    counted["trained_parameters"] = sum(one.parameters for one in costs) / len(costs)
    counted["shipped_bytes"] = sum(one.shipped_bytes for one in costs) / len(costs)
    for sheets in others.values():
        for sheet in sheets:
            counted |= sheet.counted
    return Standing(
        name=label,
        evaluations=tuple(one.evaluation for one in answered),
        sheets={"answers": tuple(one.sheet for one in answered)}
        | {part: tuple(sheets) for part, sheets in others.items()},
        counted=counted,
    )


class _Page:
    """comparison.json and .html, written so often that writing takes little of the time.

    Args:
        opened: The comparison.
        found: What is known; it grows.
    """

    def __init__(self, opened: Opened, found: _Found) -> None:
        self._opened, self._found = opened, found
        self._standings: dict[str, tuple[Any, Standing]] = {}
        self._took, self._ended = 0.0, 0.0

    def write_now_and_then(self) -> None:
        """Write, unless that was done a short while ago."""
        if time.perf_counter() - self._ended > SHARE_OF_WRITING * self._took:
            self.write()

    def write(self) -> dict[str, Any]:
        """Write what is known so far, where something is."""
        started = time.perf_counter()
        document = _write(self._opened, self._found, self._standing) if self._found.answered else {}
        self._ended = time.perf_counter()
        self._took = self._ended - started
        return document

    def _standing(self, label: str, lifecycle: Lifecycle | None) -> Standing:
        """Of a system; its intervals are computed once for all that is known of it."""
        found = self._found
        known = [len(found.answered[label])]
        known += [len(some) for some in found.sheets.get(label, {}).values()]
        before = self._standings.get(label)
        if before is None or before[0] != known:
            before = (known, _standing(found, label, lifecycle))
            self._standings[label] = before
        return before[1]


def _write(opened: Opened, found: _Found, standing_of: Callable[[str, Lifecycle | None], Standing]) -> dict[str, Any]:
    spec = opened.spec
    costs = {label: [one.cost for one in answered] for label, answered in found.answered.items()}
    lifecycles = {name: lifecycle_of(opened, name, costs) for name in spec.systems if name in found.answered}
    labels = [*(name for name in spec.systems if name in found.answered), *(n for n in found.answered if "@" in n)]
    standings = {label: standing_of(label, lifecycles.get(label)) for label in labels}
    document = comparison_document(
        Measured(
            opened=opened,
            standings=standings,
            costs=costs,
            contrasts=contrasts_of(standings, spec.contrasts()),
            claims=judge(spec.claims, standings),
            staged=None if spec.staged is None else climb(spec.staged, standings),
            lifecycles=lifecycles,
            waiting=found.waiting,
        )
    )
    write_json(opened.folder / COMPARISON, document)
    write_comparison_page(opened.folder / PAGE, document)
    return document
