"""`ftkit improve`: log -> consent and filter -> data set -> candidate -> gate -> promotion.

runs/improve/
  spec.yaml          resolved, of the last call
  frozen.json        digest of the test, kept at its first use
  frozen.jsonl       the test as chat data
  rounds/0001/       dataset/ (messages.jsonl, filter.json, rows.jsonl), run/ (an ordinary run folder), gate.json
  answers/           what each model said to the test
  promoted.json      what is in service, and what was before
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.errors import FtkitError, Interrupted, TrainingStoppedError, VerificationError
from ftkit.files import folder_lock, remove_partials, require_empty, sha256_json, write_text
from ftkit.improve.asking import ask
from ftkit.improve.filtering import filter_log
from ftkit.improve.frozen import FROZEN, MESSAGES, Frozen, hold_frozen, read_frozen
from ftkit.improve.gate import judge
from ftkit.improve.identity import digest_of
from ftkit.improve.log import Log, read_log
from ftkit.improve.promotion import Promotions, Service
from ftkit.improve.rounds import ROUNDS, Round, begin_round, rounds_of
from ftkit.improve.trainable import Trainable
from ftkit.improve.tuning import base_of, base_sha256, candidate_recipe, train
from ftkit.notices import log, show_notices
from ftkit.recipe import ImproveSpec, ModelSection, Recipe, decisive_values, dump_recipe

SPEC, LOCK = "spec.yaml", ".lock"


def improve(spec: ImproveSpec, *, quiet: bool = False) -> dict[str, Any]:
    """Go one round: make a candidate from the log and put it into service if it is better.

    What was done before for the same is taken as it is, and a round that was interrupted is gone on with.

    Args:
        spec: What to do.
        quiet: Warnings only on stderr.

    Returns:
        ``outcome`` (promoted, kept, waiting, nothing new), ``round``, ``data``, ``gate`` and ``in_service``.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving what the same call goes on from.
    """
    show_notices(quiet=quiet)
    spec = spec.resolved()
    folder = Path(spec.output or "")
    _require_ours(folder)
    frozen, base = read_frozen(spec.test), base_of(spec)
    found, can_train = read_log(spec.log), Trainable(base, spec.tune.data)
    with folder_lock(folder):
        remove_partials(folder / ROUNDS)
        test = hold_frozen(spec, folder, frozen)
        write_text(folder / SPEC, dump_recipe(spec))
        promotions = Promotions(folder)
        promotions.begin(spec.current, digest_of(spec.current))
        key = _key(candidate_recipe(spec, base, folder / "rows", test, folder), base, spec)
        unfinished = _unfinished(folder, key, found)
        filtered = filter_log(found, frozen, can_train)
        facts = filtered.to_dict() | {"withdrawn_in_service": _withdrawn_in_service(folder, promotions, found)}
        if unfinished is None:
            done = [one for one in rounds_of(folder) if (one.key, one.sha256) == (key, filtered.sha256) and one.gate]
            if len(filtered.rows) < spec.fewest:
                return _document("waiting", None, facts, promotions) | {"fewest": spec.fewest}
            if done:
                return _document("nothing new", done[-1], facts, promotions)
            unfinished = begin_round(folder, key, filtered)
        return _go(spec, base, unfinished, frozen, folder) | {"data": facts}


def rollback(spec: ImproveSpec) -> dict[str, Any]:
    """Put back what was in service before the last promotion.

    Raises:
        UsageError: Nothing was promoted.
    """
    folder = Path(spec.resolved().output or "")
    _require_ours(folder)
    promotions = Promotions(folder)
    with folder_lock(folder):
        promotions.rollback()
        return {"outcome": "rolled back", "in_service": promotions.to_dict()}


def _require_ours(folder: Path) -> None:
    """Refuse a folder with something else in it; a lock alone is what a call left that failed at once."""
    if (folder / SPEC).is_file() or (folder / FROZEN).is_file():
        return
    if folder.is_dir() and {one.name for one in folder.iterdir()} <= {LOCK}:
        return
    require_empty(folder)


def _key(recipe: Recipe, base: ModelSection, spec: ImproveSpec) -> str:
    """Digest of all that decides a candidate beside the log's rows."""
    former = [source.model_dump(mode="json") for source in spec.tune.data.train]
    return sha256_json([decisive_values(recipe), base_sha256(base), former])


def _withdrawn_in_service(folder: Path, promotions: Promotions, found: Log) -> int:
    """Rows that what is in service learnt from, and that were withdrawn since."""
    number = promotions.services[-1].round
    learnt = {name for one in rounds_of(folder) if one.number == number for name in one.ids}
    count = sum(one.withdrawn and one.id in learnt for one in found.exchanges)
    if count:
        log.warning("what is in service learnt from %d answers that were withdrawn since; candidates do not", count)
    return count


def _unfinished(folder: Path, key: str, found: Log) -> Round | None:
    """The round to go on with; None for none."""
    open_rounds = [one for one in rounds_of(folder) if one.gate is None]
    withdrawn = {one.id for one in found.exchanges if one.withdrawn}
    for one in open_rounds:
        if one.ids & withdrawn:
            log.warning("round %d learns from what was withdrawn since, so it is removed", one.number)
            one.remove()
        elif one.key == key:
            log.info("going on with round %d", one.number)
            return one
    return None


def _go(spec: ImproveSpec, base: ModelSection, one: Round, frozen: Frozen, folder: Path) -> dict[str, Any]:
    """Train the candidate of a round, judge it, and put it into service if it is better."""
    promotions = Promotions(folder)
    try:
        export = train(candidate_recipe(spec, base, one.rows, folder / MESSAGES, one.run))
    except Interrupted as stopped:
        what = f"round {one.number}: {stopped.problems[0].what}"
        raise Interrupted(what, fix="The same command goes on with it.") from None
    except (VerificationError, TrainingStoppedError) as fault:
        return _refused(one, fault, promotions)
    digest = digest_of(str(export))
    services = promotions.services
    # Killed between the promotion and the verdict: then it is held against what was there before it, as it was.
    current = services[-2] if services[-1].digest == digest and len(services) > 1 else services[-1]
    verdict = judge(
        ask(promotions.place_of(current), current.digest, spec, frozen, folder),
        ask(str(export), digest, spec, frozen, folder),
        frozen,
        spec.gate,
    )
    if verdict.promoted:
        place = export.relative_to(folder).as_posix()
        promotions.promote(Service(place=place, digest=digest, round=one.number))
    tried = sum(other.gate is not None for other in rounds_of(folder))
    one.finish(verdict.to_dict() | {"against": current.digest, "judged": digest, "judged_before": tried})
    return _document("promoted" if verdict.promoted else "kept", one, {}, promotions)


def _refused(one: Round, fault: FtkitError, promotions: Promotions) -> dict[str, Any]:
    """A candidate that came to nothing; the next rows begin another round."""
    log.warning("round %d has no candidate: %s", one.number, fault)
    one.finish({"promoted": False, "because": f"there is no candidate: {fault.problems[0].what}"})
    return _document("kept", one, {}, promotions)


def _document(outcome: str, one: Round | None, data: dict[str, Any], promotions: Promotions) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "round": None if one is None else one.number,
        "data": data,
        "gate": None if one is None else one.gate,
        "in_service": promotions.to_dict(),
    }
