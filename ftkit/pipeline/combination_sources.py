"""The adapters of a combination: found, and all that speaks against combining them said in one pass."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ftkit.errors import FtkitError, Problem, UsageError, VerificationError
from ftkit.export.manifest import MANIFEST, VERIFY, ExportManifest, file_problems, read_manifest
from ftkit.export.probes import Probes
from ftkit.export.write import VERIFICATION
from ftkit.methods import Combination, Matrices, not_additive, read_lora
from ftkit.methods.combination_formula import How, MajoritySign
from ftkit.methods.lora_file import WEIGHTS
from ftkit.nearest import did_you_mean
from ftkit.pipeline.run_folder import RunFolder

DENSITY = 0.5
HOWS: tuple[How, ...] = get_args(How)
_RECIPES = ("lora", "qlora")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One adapter of a combination.

    Attributes:
        name: Without this machine's folders: of the run, else of the export's folder.
        folder: Of the adapter export.
        manifest: Its own.
        matrices: Of each layer, straight from its file.
        probes: With what the adapter's own training recorded.
    """

    name: str
    folder: Path
    manifest: ExportManifest
    matrices: Mapping[str, Matrices]
    probes: Probes

    @property
    def weights_sha256(self) -> str:
        """Identity of its matrices."""
        return str(self.manifest.files[WEIGHTS]["sha256"])


def settle(
    count: int, weights: Sequence[float], how: str, options: Mapping[str, Any]
) -> tuple[Combination | None, list[Problem]]:
    """What is asked for, with defaults in place, or everything that is wrong with it.

    Args:
        count: Of adapters.
        weights: One for each.
        how: See `Combination`.
        options: ``density``, ``majority_sign`` and ``seed``; None where nothing is asked.
    """
    found = _weight_problems(count, weights)
    known = next((name for name in HOWS if name == how), None)
    if known is None:
        fix = did_you_mean(how, HOWS, what="There is")
        return None, [*found, Problem(where="how", what=f"there is no {how!r}", fix=fix)]
    plain = Combination(weights=tuple(map(float, weights)), how=known)
    if how != "linear" and count < 2:
        what = f"{how} settles what several adapters disagree on, and there is one"
        found.append(Problem(where="how", what=what, fix="Use linear, or name more."))
    if plain.elects and any(weight < 0 for weight in weights):
        what = f"{_words(weights)}: {how} elects signs before it weighs, so a negative weight has no meaning"
        found.append(Problem(where="weights", what=what, fix="Use linear or dare_linear to subtract a task."))
    found += _option_problems(plain, options)
    density = 1.0 if how == "linear" else DENSITY if options["density"] is None else options["density"]
    sign: MajoritySign = options["majority_sign"] or "total"
    return replace(plain, density=density, majority_sign=sign, seed=options["seed"] or 0), found


def _weight_problems(count: int, weights: Sequence[float]) -> list[Problem]:
    found = []
    if count == 0:
        found.append(Problem(where="adapters", what="none is named", fix="Name run folders or adapter exports."))
    if len(weights) != count:
        what = f"{len(weights)} for {count} adapters"
        found.append(Problem(where="weights", what=what, fix="Give one weight for each adapter, in their order."))
    if any(not math.isfinite(weight) or weight == 0 for weight in weights):
        what = f"{_words(weights)}: each must be a finite number other than 0"
        found.append(Problem(where="weights", what=what, fix="Leave such an adapter out."))
    return found


def _option_problems(plain: Combination, options: Mapping[str, Any]) -> list[Problem]:
    """Options that this way of combining does not read, or values that they cannot have."""
    how, density, sign = plain.how, options["density"], options["majority_sign"]
    found = []
    if density is not None and how == "linear":
        fix = "Leave it out, or use ties, dare_linear or dare_ties."
        found.append(Problem(where="density", what="linear drops nothing", fix=fix))
    elif density is not None and not 0 < density <= 1:
        fix = "It is the share of entries that stay, such as 0.5."
        found.append(Problem(where="density", what=f"{density} is not in (0, 1]", fix=fix))
    if sign is not None and not plain.elects:
        fix = "Leave it out, or use ties or dare_ties."
        found.append(Problem(where="majority-sign", what=f"{how} elects no signs", fix=fix))
    elif sign is not None and sign not in get_args(MajoritySign):
        found.append(Problem(where="majority-sign", what=f"there is no {sign!r}", fix="It is total or frequency."))
    if options["seed"] is not None and not plain.is_random:
        fix = "Leave it out, or use dare_linear or dare_ties."
        found.append(Problem(where="seed", what=f"{how} draws nothing", fix=fix))
    return found


def open_sources(adapters: Sequence[str | Path], problems: list[Problem]) -> list[Source]:
    """Find and read the adapters, and refuse what cannot be combined; no model is loaded.

    Args:
        adapters: Run folders and adapter exports.
        problems: What was found wrong before; said together with what is found here.

    Raises:
        VerificationError: A file of one has other bytes than were exported, or its verification failed.
        UsageError: They cannot be combined; with everything that speaks against it.
    """
    damaged: list[Problem] = []
    found: list[Source] = []
    for adapter in adapters:
        try:
            folder, name = _adapter_of(Path(adapter))
            manifest = read_manifest(folder)
        except FtkitError as error:
            problems += error.problems
            continue
        changed = _damage(folder, manifest)
        damaged += changed
        because = _unfit(manifest) or (None if changed else not_additive(folder))
        if because is not None:
            problems.append(Problem(where=str(adapter), what=f"cannot be combined: {because}", fix=_INSTEAD))
        elif not changed:
            try:
                matrices = read_lora(folder)
            except ValueError as error:
                damaged.append(Problem(where=str(folder), what=str(error), fix="Export it again."))
                continue
            probes = Probes.load(folder / VERIFICATION)
            found.append(Source(name=name, folder=folder, manifest=manifest, matrices=matrices, probes=probes))
    problems += _quarrels(found)
    if damaged:
        raise VerificationError([*damaged, *problems])
    if problems:
        raise UsageError(problems)
    return _named_apart(found)


_INSTEAD = "Leave it out; `ftkit serve a=DIR1 b=DIR2` serves adapters side by side."


def _adapter_of(path: Path) -> tuple[Path, str]:
    """The adapter export that a path means, and its name."""
    if RunFolder(path).is_run():
        inside = RunFolder(path).export("adapter")
        if not (inside / MANIFEST).is_file():
            raise UsageError(
                Problem(
                    where=str(path), what="the run has no adapter export",
                    fix=f"Run `ftkit export {path} --to adapter -o FOLDER`, and name that folder.",
                )
            )  # fmt: skip
        return inside, path.resolve().name
    resolved = path.resolve()
    in_run = resolved.parent.name == "export" and RunFolder(resolved.parents[1]).is_run()
    return path, resolved.parents[1].name if in_run else resolved.name


def _damage(folder: Path, manifest: ExportManifest) -> list[Problem]:
    fix = f"Export it again; `ftkit verify {folder}` tells more."
    found = [
        Problem(where=f"{folder}/{one.where}", what=one.what, fix=fix) for one in file_problems(folder, manifest)
    ]
    try:
        passed = json.loads((folder / VERIFY).read_text(encoding="utf-8"))["passed"]
    except (OSError, ValueError, KeyError, TypeError):
        passed = True  # never verified, or on a medium that cannot be written; its files are held to the manifest
    return found if passed else [*found, Problem(where=str(folder), what="did not pass its verification", fix=fix)]


def _unfit(manifest: ExportManifest) -> str | None:
    """Why an export cannot be part of any combination."""
    if manifest.kind != "adapter":
        return f"it is a {manifest.kind} export, not an adapter"
    kind = manifest.method.get("kind", manifest.recipe)
    if manifest.recipe not in _RECIPES or kind not in _RECIPES:
        return f"its method is {kind}; updates that add up are those of {' and '.join(_RECIPES)}"
    if manifest.added_tokens:
        return f"it has tokens of its own (ids {manifest.added_tokens}), whose trained rows have no sum with others"
    return None


def _quarrels(sources: Sequence[Source]) -> list[Problem]:
    """Where two adapters want different things."""
    found = []
    for index, source in enumerate(sources[1:], start=1):
        first, ours, theirs = sources[0], sources[0].manifest, source.manifest
        twin = next((one for one in sources[:index] if one.weights_sha256 == source.weights_sha256), None)
        if twin is not None:
            what = f"is the same adapter as {twin.folder}"
            found.append(
                Problem(where=str(source.folder), what=what, fix="Name it once, with the sum of the weights.")
            )
        for what, (one, two, fix) in _wants(ours, theirs).items():
            if one != two:
                words = f"{what}: {_short(two)}, but {first.folder} has {_short(one)}"
                found.append(Problem(where=str(source.folder), what=words, fix=fix))
    return found


def _wants(ours: ExportManifest, theirs: ExportManifest) -> dict[str, tuple[Any, Any, str]]:
    same_base = "Combine adapters that were trained on the same weights."
    same_form = (
        "An adapter also corrects the rounding of the base that it was trained on: train both on one form of it."
    )
    same_text = "Train them with one tokenizer and one chat template: a combination has only one."
    return {
        "base weights": (ours.base["sha256"], theirs.base["sha256"], same_base),
        "quantization of the base": (ours.quantization, theirs.quantization, same_form),
        "tokenizer": (ours.tokenizer_digest, theirs.tokenizer_digest, same_text),
        "chat template": (ours.chat_template_digest, theirs.chat_template_digest, same_text),
        "token contract": (ours.token_contract_digest, theirs.token_contract_digest, same_text),
        "tokens that end an answer": (ours.stop_tokens, theirs.stop_tokens, same_text),
    }


def _named_apart(sources: Sequence[Source]) -> list[Source]:
    names: list[str] = []
    for source in sources:
        seen = sum(name == source.name or name.startswith(f"{source.name} (") for name in names)
        names.append(source.name if seen == 0 else f"{source.name} ({seen + 1})")
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def _words(weights: Sequence[float]) -> str:
    return ", ".join(f"{weight:g}" for weight in weights)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
