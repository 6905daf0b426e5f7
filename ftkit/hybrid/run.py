"""`ftkit train` of ``recipe: hybrid``: learn from dev questions what joins the members, write what can be asked.

runs/hybrid/
  recipe.yaml          resolved
  hybrid.json          kind, members with their places and digests, digests of recipe and questions
  answers/NAME.jsonl   what each member of a router answered, as it came
  closed_book/         an index without documents, where a member has none
  router.json  router.safetensors   of a router
  weight.json          of a mixture or a memory (`ftkit.hybrid.weighed`)
  memory/              of a memory: its datastore
  result.json          what was measured
  report.html          the same to look at
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic as clock
from typing import Any

from ftkit.errors import OutputError, UsageError
from ftkit.files import folder_lock, remove_partials, require_empty, sha256_json, write_json, write_text
from ftkit.hybrid.course import Course, hybrid_questions
from ftkit.hybrid.kinds import KINDS
from ftkit.hybrid.members import CLOSED_BOOK, MARK, Member, digests_of, members_of, open_members
from ftkit.hybrid.opening import RESULT, Description, is_hybrid_place
from ftkit.hybrid.page import PAGE, write_hybrid_page
from ftkit.hybrid.remembering import remembered_of
from ftkit.notices import log, show_notices
from ftkit.rag.encoder import Encoder, load_encoder
from ftkit.rag.measuring import require_readable
from ftkit.rag.questions import AskedQuestion
from ftkit.recipe import HybridRecipe, dump_recipe, load_hybrid_recipe, recipe_digest

RECIPE = "recipe.yaml"


@dataclass(frozen=True, kw_only=True)
class FinishedHybrid:
    """A hybrid that can be asked.

    Attributes:
        folder: Where everything stands.
        result: The content of result.json.
    """

    folder: Path
    result: dict[str, Any]


def run_hybrid(recipe: HybridRecipe, *, quiet: bool = False) -> FinishedHybrid:
    """Do everything that the recipe asks for; a run of the same recipe that was cut off goes on.

    Args:
        recipe: What to do.
        quiet: Warnings only on stderr.

    Raises:
        FtkitError: With the exit code of its kind; before the first question is asked wherever it can be known.
        OutputError: Another hybrid was begun in the folder, or something else stands there.
    """
    show_notices(quiet=quiet)
    recipe = recipe.resolved()
    folder = Path(recipe.output or "")
    goes_on = is_hybrid_place(folder)
    if not goes_on:
        _require_fresh(folder)
    train, held = hybrid_questions(recipe)
    with folder_lock(folder):
        remove_partials(folder)
        if not goes_on:
            shutil.rmtree(folder / CLOSED_BOOK, ignore_errors=True)
        description, course = _begin(recipe, folder, train, held)
        if goes_on:
            _require_same(folder, description)
            if (folder / RESULT).is_file():
                return _finished(folder)
        else:
            write_text(folder / RECIPE, dump_recipe(recipe))
            description.write(folder)
        return _go(description, course)


def resume_hybrid(path: str | Path, *, quiet: bool = False) -> FinishedHybrid:
    """Go on with an interrupted run.

    Raises:
        UsageError: There is none.
        OutputError: Recipe, questions or members changed since it began, or another process works on it.
    """
    show_notices(quiet=quiet)
    folder = Path(path)
    if not is_hybrid_place(folder) or not (folder / RECIPE).is_file():
        raise UsageError(f"{folder}: is no run of a hybrid", fix="Name a folder that `ftkit train` wrote.")
    if (folder / RESULT).is_file():
        return _finished(folder)
    return run_hybrid(load_hybrid_recipe(folder / RECIPE, [f"output={folder}"]), quiet=quiet)


def _require_fresh(folder: Path) -> None:
    """An empty folder, but for what a run leaves that was killed before it wrote what it is."""
    left = {one.name for one in folder.iterdir()} if folder.is_dir() else set()
    if not folder.is_dir() or left - {".lock", CLOSED_BOOK}:
        require_empty(folder)


def _begin(
    recipe: HybridRecipe, folder: Path, train: Sequence[AskedQuestion], held: Sequence[AskedQuestion]
) -> tuple[Description, Course]:
    kind = KINDS[recipe.kind]
    encoder = load_encoder(recipe.router.encoder) if kind.has_encoder else None
    systems = open_members(folder, members_of(recipe), encoder)
    kind.require(systems)
    for system in systems.values():  # all of them before the first is asked
        require_readable(system, [*train, *held])
    remembered = None
    if recipe.kind == "memory":
        ((name, system),) = systems.items()
        remembered = remembered_of(recipe, name, system, train, held)
    description = Description(
        kind=recipe.kind,
        encoder=None if encoder is None else recipe.router.encoder,
        encoder_sha256=None if encoder is None else encoder.found.sha256,
        members={name: _seen_from(folder, one) for name, one in members_of(recipe).items()},
        digests={name: digests_of(one) for name, one in systems.items()},
        began=_identity(recipe, encoder, train, held)
        | ({} if remembered is None else {"remembered": remembered.sha256}),
    )
    course = Course(
        recipe=recipe, folder=folder, members=systems, encoder=encoder, train=train, held=held, remembered=remembered
    )
    return description, course


def _seen_from(folder: Path, member: Member) -> Member:
    """Places inside the hybrid's folder by their way from there, so that it can be moved as a whole."""

    def seen(text: str) -> str:
        place = Path(text)
        inside = place.is_absolute() and place.resolve().is_relative_to(folder.resolve())
        return os.path.relpath(place.resolve(), folder.resolve()) if inside else text

    return replace(member, path=seen(member.path), index=None if member.index is None else seen(member.index))


def _identity(
    recipe: HybridRecipe, encoder: Encoder | None, train: Sequence[AskedQuestion], held: Sequence[AskedQuestion]
) -> dict[str, Any]:
    def digest(questions: Sequence[AskedQuestion]) -> str:
        return sha256_json([[one.id, one.question, one.answers, one.documents] for one in questions])

    return {
        "recipe_digest": recipe_digest(recipe),
        "encoder": None if encoder is None else encoder.found.sha256,
        "questions": digest(train),
        "held_back": digest(held),
    }


def _require_same(folder: Path, now: Description) -> None:
    """Refuse to mix what was measured of one hybrid with another."""
    before = json.loads((folder / MARK).read_text(encoding="utf-8"))
    changed = [key for key in now.began if before["began"].get(key) != now.began[key]]
    members = json.loads(json.dumps(now.to_dict()["members"]))
    places = [*asdict(Member(path=""))]
    for name in sorted({*members, *before["members"]}):
        one, other = members.get(name, {}), before["members"].get(name, {})
        if any(one.get(key) != other.get(key) for key in {*one, *other} - {*places}):
            changed.append(f"members.{name}")
    if changed:
        raise OutputError(
            f"{folder}: changed since the run began: {', '.join(changed)}",
            fix="Put it back, or train into another output.",
        )


def _go(description: Description, course: Course) -> FinishedHybrid:
    started = clock()
    log.info(
        "%s of %s; %d questions, %d held back", description.kind, ", ".join(course.members), len(course.train),
        len(course.held),
    )  # fmt: skip
    facts = KINDS[description.kind].train(course)
    result = {
        "kind": description.kind,
        "questions": len(course.train),
        "held_back": len(course.held),
        "wall_s": clock() - started,
        **facts,
    }
    write_json(course.folder / RESULT, result)
    write_hybrid_page(course.folder, result)
    return FinishedHybrid(folder=course.folder, result=result)


def _finished(folder: Path) -> FinishedHybrid:
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    if not (folder / PAGE).is_file():  # it was killed between the two
        write_hybrid_page(folder, result)
    log.info("%s is finished; there is nothing to resume", folder)
    return FinishedHybrid(folder=folder, result=result)
