"""From the folder of a hybrid to a system that can be asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, UsageError
from ftkit.files import write_json
from ftkit.hybrid.exported import is_hybrid_export, require_own_members
from ftkit.hybrid.kinds import KINDS, HybridSystem
from ftkit.hybrid.members import CONDITIONS, MARK, Member, changed_conditions, open_members, require_same
from ftkit.models.find_encoder import find_encoder
from ftkit.notices import log
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder
from ftkit.rag.opening import beside
from ftkit.recipe.hybrid import MEMBER_NAME

RESULT = "result.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Description:
    """hybrid.json: what a hybrid is made of.

    Attributes:
        kind: A key of `ftkit.hybrid.kinds.KINDS`.
        encoder: Its name or place.
        encoder_sha256: Of its folder.
        members: By name.
        digests: Of each; see `ftkit.hybrid.members.digests_of`.
        began: Digests of recipe and questions.
    """

    kind: str
    encoder: str | None
    encoder_sha256: str | None
    members: dict[str, Member]
    digests: dict[str, dict[str, Any]]
    began: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As written."""
        return {
            "format_version": FORMAT_VERSION,
            "kind": self.kind,
            "encoder": None if self.encoder is None else {"name": self.encoder, "sha256": self.encoder_sha256},
            "members": {name: {**asdict(one), **self.digests[name]} for name, one in self.members.items()},
            "began": self.began,
        }

    def write(self, folder: Path) -> None:
        """Into the hybrid's folder."""
        write_json(folder / MARK, self.to_dict())


def read_description(folder: Path) -> Description:
    """Read hybrid.json.

    Raises:
        DataError: It cannot be read.
        VerificationError: It stands in an export, and names what is no part of that.
    """
    path = folder / MARK
    own = [*asdict(Member(path=""))]
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["format_version"] != FORMAT_VERSION or values["kind"] not in KINDS:
            raise ValueError("it is of a format or kind that this ftkit does not know")
        members = values["members"]
        if strange := [name for name in members if not MEMBER_NAME.fullmatch(name)]:
            raise ValueError(f"{strange[0]!r} is no name of a member")
        if bare := [name for name, one in members.items() if not isinstance(one[CONDITIONS], dict)]:
            raise ValueError(f"it does not say how passages come to {bare[0]}")
        encoder = values["encoder"] if KINDS[values["kind"]].has_encoder else {"name": None, "sha256": None}
        description = Description(
            kind=values["kind"],
            encoder=encoder["name"],
            encoder_sha256=encoder["sha256"],
            members={name: Member(**{key: one[key] for key in own}) for name, one in members.items()},
            digests={
                name: {key: value for key, value in one.items() if key not in own} for name, one in members.items()
            },
            began=values["began"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: cannot be read: {error}", fix="Put it back, or train again.") from None
    if is_hybrid_export(folder):
        require_own_members(folder, description.encoder, description.members)
    return description


def is_hybrid_place(place: str | Path) -> bool:
    """Whether a folder is a hybrid's run, or an export of one."""
    return (Path(place) / MARK).is_file()


@dataclass(frozen=True, kw_only=True)
class OpenParts:
    """What a hybrid answers with. Attributes: description; members: Open; encoder: Its own; None for none."""

    description: Description
    members: Mapping[str, RagSystem]
    encoder: Encoder | None

    def system(self, folder: Path) -> HybridSystem:
        """As one, by what training left in a folder."""
        return KINDS[self.description.kind].open(folder, self.members, self.encoder)


def open_hybrid(
    folder: str | Path, *, max_new_tokens: int | None = None, asked: Mapping[str, Any] | None = None
) -> HybridSystem:
    """A hybrid ready to be asked.

    Args:
        folder: Of its run or export.
        max_new_tokens: Longest answer; None for what its recipe says.
        asked: Other options by name; each that is not None is refused: they are the members' own.

    Raises:
        DataError: It is not finished, or a member's generator or its encoder is not what it was trained with, or
            the search of a mixture's.
        UsageError: An option is asked for that members have of their own.
    """
    path = Path(folder)
    require_no_options(path, asked or {})
    return open_parts(path, max_new_tokens=max_new_tokens).system(path)


def open_parts(path: Path, *, max_new_tokens: int | None = None) -> OpenParts:
    """The same, with its members apart."""
    description = read_description(path)
    if not is_hybrid_export(path) and not (path / RESULT).is_file():
        raise DataError(f"{path}: is not finished", fix=f"Go on with it: ftkit resume {path}")
    encoder = _open_encoder(path, description)
    members = description.members
    if max_new_tokens is not None:
        members = {name: replace(one, max_new_tokens=max_new_tokens) for name, one in members.items()}
    systems = open_members(path, members, encoder)
    changed = [name for name, one in systems.items() if not require_same(name, one, description.digests[name])]
    if changed:
        log.info(
            "%s: the documents of %s have changed since it was trained; choices stay as they were learnt", path,
            ", ".join(changed),
        )  # fmt: skip
    _compare_conditions(path, description, systems)
    return OpenParts(description=description, members=systems, encoder=encoder)


def _compare_conditions(folder: Path, description: Description, systems: Mapping[str, RagSystem]) -> None:
    """Refuse, or tell, that passages come to a member in another way than the hybrid was trained with."""
    for name, system in systems.items():
        changed = ", ".join(changed_conditions(system, description.digests[name]))
        if changed and KINDS[description.kind].reads_scores:
            raise DataError(
                f"members.{name}: passages are found otherwise than the {description.kind} was trained with "
                f"({changed}), and its temperature was chosen for the scores of that search",
                fix="Put the index's settings back, or train again.",
            )
        if changed:
            log.warning(
                "%s: passages of %s are found otherwise than it was trained with (%s); what it learnt then may not "
                "hold", folder, name, changed,
            )  # fmt: skip


def _open_encoder(folder: Path, description: Description) -> Encoder | None:
    if description.encoder is None:
        return None
    # A hybrid may come from anybody: what it names is looked for here, and not fetched from where it says.
    found = find_encoder(beside(folder, description.encoder), cached_only=True)
    if found.sha256 != description.encoder_sha256:
        raise DataError(
            f"{description.encoder} is another encoder ({found.sha256[:12]}…) than {folder} was trained with "
            f"({str(description.encoder_sha256)[:12]}…)",
            fix="Put back that encoder, or train again.",
        )
    return Encoder(found)


def require_no_options(place: Path, asked: Mapping[str, Any]) -> None:
    """Refuse options that a hybrid's members have of their own.

    Raises:
        UsageError: Naming them.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in asked.items() if value is not None]
    if given:
        raise UsageError(
            f"{place}: is a hybrid, whose members answer as its recipe says; it takes no {', '.join(given)}",
            fix="Leave it out, or ask the member's own folder.",
        )
