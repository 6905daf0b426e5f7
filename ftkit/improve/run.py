"""`ftkit improve`: log -> consent and filter -> data set -> candidate -> gate -> promotion.

runs/improve/
  spec.yaml          resolved, of the last call
  frozen.json        digest of the test, kept at its first use
  frozen.jsonl       the test as chat data
  rounds/0001/       dataset/ (messages.jsonl, filter.json, rows.jsonl), run/ (an ordinary run folder), gate.json
  answers/           what each model said to the test
  promoted.json      what is in service, and what was before

The folder is made readable for its owner alone, as the log is. Finished rounds keep their rows.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, FtkitError, Interrupted, TrainingStoppedError, VerificationError
from ftkit.files import folder_lock, remove_partials, require_empty, write_text
from ftkit.improve.asking import ask, forget_answers
from ftkit.improve.filtering import Filtered, filter_log
from ftkit.improve.former import require_untested
from ftkit.improve.frozen import FROZEN, MESSAGES, Frozen, hold_frozen, read_frozen
from ftkit.improve.gate import Verdict, judge
from ftkit.improve.identity import digest_of
from ftkit.improve.log import Log, read_log
from ftkit.improve.promotion import Promotions, Service
from ftkit.improve.rounds import ROUNDS, Round, begin_round, rounds_of
from ftkit.improve.trainable import Trainable
from ftkit.improve.tuning import base_of, candidate_recipe, round_key, train
from ftkit.notices import log, show_notices
from ftkit.recipe import ImproveSpec, ModelSection, dump_recipe

SPEC, LOCK = "spec.yaml", ".lock"
PRIVATE = 0o700


def improve(spec: ImproveSpec, *, quiet: bool = False) -> dict[str, Any]:
    """Go one round: make a candidate from the log and put it into service if it is better.

    What was done before for the same is taken as it is, and a round that was interrupted is gone on with.

    Args:
        spec: What to do.
        quiet: Warnings only on stderr.

    Returns:
        ``outcome`` (promoted, kept, withdrawn, waiting, nothing new), ``round``, ``data``, ``gate``, ``in_service``.

    Raises:
        FtkitError: With the exit code of its kind; before training wherever it can be known.
        Interrupted: After saving what the same call goes on from.
    """
    show_notices(quiet=quiet)
    spec = spec.resolved()
    folder = Path(spec.output or "")
    _require_ours(folder)
    frozen, base = read_frozen(spec.test), base_of(spec)
    read_log(spec.log)  # its faults are told before anything is written
    trainable = Trainable(base, spec.tune.data)
    current = digest_of(spec.current)
    with folder_lock(folder):
        if not (folder / FROZEN).is_file():
            folder.chmod(PRIVATE)  # words of the log stand in it; who serves it under another account opens it
        remove_partials(folder / ROUNDS)
        test = hold_frozen(spec, folder, frozen)
        write_text(folder / SPEC, dump_recipe(spec))
        promotions = Promotions(folder)
        promotions.begin(spec.current, current)
        key = round_key(candidate_recipe(spec, base, folder / "rows", test, folder), base, spec)
        found = read_log(spec.log)
        unfinished = _unfinished(folder, key, found, promotions)
        filtered = filter_log(found, frozen, trainable)
        facts = filtered.to_dict() | {"withdrawn_in_service": _withdrawn_in_service(folder, promotions, found)}
        if unfinished is None:
            done = _done(folder, key, filtered)
            if len(filtered.rows) < spec.fewest:
                return _document("waiting", None, facts, promotions) | {"fewest": spec.fewest}
            if done is not None and not _is_judged_anew(done, spec, promotions):
                return _document("nothing new", done, facts, promotions)
            if done is None:
                require_untested(spec.tune.data, frozen, trainable.settings)
            unfinished = done or begin_round(folder, key, filtered, used=promotions.rounds)
        promotions.require_unchanged(promotions.services[-1])
        return _go(spec, base, unfinished, frozen, folder) | {"data": facts}


def rollback(spec: ImproveSpec) -> dict[str, Any]:
    """Put back what was in service before the last promotion.

    Raises:
        UsageError: Nothing was promoted.
        OutputError: What was before it is gone, or another by now.
    """
    folder = Path(spec.resolved().output or "")
    _require_ours(folder)
    promotions = Promotions(folder)
    gone = promotions.rollback()
    for one in rounds_of(folder):
        if one.number == gone.round and one.gate is None:  # killed before its verdict; it must not come back
            one.finish({"promoted": True, "because": "it was promoted, and rolled back"})
    return {"outcome": "rolled back", "in_service": promotions.to_dict()}


def _require_ours(folder: Path) -> None:
    """Refuse a folder with something else in it; a lock alone is what a call left that failed at once."""
    if (folder / SPEC).is_file() or (folder / FROZEN).is_file():
        return
    if folder.is_dir() and {one.name for one in folder.iterdir()} <= {LOCK}:
        return
    require_empty(folder)


def _withdrawn_in_service(folder: Path, promotions: Promotions, found: Log) -> int:
    """Rows that what is in service learnt from, and that were withdrawn since."""
    number = promotions.services[-1].round
    learnt = {name for one in rounds_of(folder) if one.number == number for name in one.ids}
    count = sum(one.withdrawn and one.id in learnt for one in found.exchanges)
    if count:
        log.warning("what is in service learnt from %d answers that were withdrawn since; candidates do not", count)
    return count


def _unfinished(folder: Path, key: str, found: Log, promotions: Promotions) -> Round | None:
    """The round to go on with; None for none."""
    open_rounds = [one for one in rounds_of(folder) if one.gate is None]
    for one in open_rounds:
        if one.ids & _withdrawn(found):
            _take_back(one, promotions)
        elif one.key == key or one.number == promotions.services[-1].round:
            log.info("going on with round %d", one.number)
            return one
        else:
            because = "the former data, the base or the settings were changed before it was finished"
            log.warning("round %d is closed: %s", one.number, because)
            one.close(because)
    return None


def _withdrawn(found: Log) -> Set[str]:
    return {one.id for one in found.exchanges if one.withdrawn}


def _take_back(one: Round, promotions: Promotions) -> None:
    """Remove a round that learns from what was withdrawn."""
    log.warning("round %d learns from what was withdrawn since, so it is removed", one.number)
    if promotions.services[-1].round == one.number:  # killed between its promotion and its verdict
        promotions.rollback()
    promotions.note_removed(one.number)
    forget_answers(one.folder.parents[1], f"{ROUNDS}/{one.folder.name}")
    one.remove()


def _done(folder: Path, key: str, filtered: Filtered) -> Round | None:
    """The last round that came to an end with these rows and settings."""
    for one in reversed(rounds_of(folder)):
        if (one.key, one.sha256) == (key, filtered.sha256) and one.gate and not one.gate.get("closed"):
            return one
    return None


def _is_judged_anew(one: Round, spec: ImproveSpec, promotions: Promotions) -> bool:
    """Whether a candidate that was refused is asked for by other settings of the gate; its training stands."""
    gate = one.gate or {}
    return "judged" in gate and gate.get("settings") != _settings(spec) and one.number not in promotions.promoted


def _settings(spec: ImproveSpec) -> dict[str, Any]:
    """Of the gate; the text of forgetting has a digest of its own in frozen.json."""
    values = spec.gate.model_dump(mode="json")
    return values | {"forgetting": values["forgetting"] is not None}


def _go(spec: ImproveSpec, base: ModelSection, one: Round, frozen: Frozen, folder: Path) -> dict[str, Any]:
    """Train the candidate of a round, judge it, and put it into service if it is better."""
    promotions = Promotions(folder)
    try:
        export = train(candidate_recipe(spec, base, one.rows, folder / MESSAGES, one.run))
    except Interrupted as stopped:
        what = f"round {one.number}: {stopped.problems[0].what}"
        raise Interrupted(what, fix="The same command goes on with it.") from None
    except (DataError, VerificationError, TrainingStoppedError) as fault:
        return _refused(one, fault, promotions)
    candidate = Service(place=export.relative_to(folder).as_posix(), digest=digest_of(str(export)), round=one.number)
    if _is_taken_back(one, spec, promotions):
        return _document("withdrawn", None, {}, promotions)
    while True:
        services = promotions.services
        # Killed between the promotion and the verdict: then it is held against what was there before it, as it was.
        current = services[-2] if services[-1].digest == candidate.digest and len(services) > 1 else services[-1]
        verdict = _judged(current, candidate, spec, frozen, promotions, folder)
        if _is_taken_back(one, spec, promotions):
            return _document("withdrawn", None, {}, promotions)
        # Rolled back meanwhile, it is held against what is in service now.
        if not verdict.promoted or promotions.promote(candidate, after=current):
            break
    # Killed right after its promotion, it is in service, whatever other settings of the gate would say by now.
    promoted = verdict.promoted or promotions.services[-1].round == one.number
    before = sum(int((other.gate or {}).get("verdicts", 0)) for other in rounds_of(folder))
    verdicts = int((one.gate or {}).get("verdicts", 0)) + 1
    one.finish(
        verdict.to_dict()
        | {
            "promoted": promoted, "against": current.digest, "judged": candidate.digest, "judged_before": before,
            "verdicts": verdicts, "settings": _settings(spec),
        }
    )  # fmt: skip
    return _document("promoted" if promoted else "kept", one, {}, promotions)


def _judged(
    current: Service, candidate: Service, spec: ImproveSpec, frozen: Frozen, promotions: Promotions, folder: Path
) -> Verdict:
    return judge(
        ask(promotions.place_of(current), current.digest, spec, frozen, folder),
        ask(promotions.place_of(candidate), candidate.digest, spec, frozen, folder),
        frozen,
        spec.gate,
    )


def _is_taken_back(one: Round, spec: ImproveSpec, promotions: Promotions) -> bool:
    """Whether somebody withdrew, while it trained or was judged, what it learns from; then it is gone."""
    if not one.ids & _withdrawn(read_log(spec.log)):
        return False
    _take_back(one, promotions)
    return True


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
