"""The systems that a hybrid is made of, opened as it names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, FtkitError, Interrupted, Problem, UsageError
from ftkit.export.base import BASE_FOLDER
from ftkit.files import sha256_json
from ftkit.models.find_encoder import EncoderFolder
from ftkit.pipeline.target import Target, open_target
from ftkit.rag.answering import USUAL, RagSystem
from ftkit.rag.encoder import Encoder, EncoderPair, Role
from ftkit.rag.exported import is_rag_export
from ftkit.rag.index import Index, create_index
from ftkit.rag.opening import NO_RERANKER, Reranking, beside, generator_of, index_folder, is_rag_place, open_system
from ftkit.rag.settings import SETTINGS, IndexSettings, Mode, read_settings
from ftkit.rag.threshold import generator_sha256
from ftkit.recipe import HybridRecipe

MARK, CLOSED_BOOK = "hybrid.json", "closed_book"
MODES: dict[str, Mode] = {"lexical": "lexical", "dense": "dense", "hybrid": "hybrid"}
NO_DOCUMENTS, CONDITIONS = "none", "conditions"


class _NoEncoder(Encoder):
    """Stands beside an index without documents in a hybrid that has no encoder: nothing is ever embedded."""

    def __init__(self) -> None:
        # Nothing is loaded: whoever has no use for an encoder need not have one on this machine.
        self.found = EncoderFolder(name="none", folder=Path("none"), sha256=sha256_json("no encoder"))
        self.width, self.max_tokens = 1, 0

    def count(self, text: str, role: Role = "document") -> int:  # noqa: ARG002 - reads nothing
        """See `Encoder.count`: any text fits that is not embedded."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Member:
    """A system by where it stands.

    Attributes:
        path: See `ftkit.recipe.hybrid.MemberSection`, as for the others; relative to the hybrid's folder where it
            stands in there.
        index: Where passages come from.
        retrieval: How they are searched for.
        passages: How many are given.
        max_new_tokens: Longest answer; None for its own.
    """

    path: str
    index: str | None = None
    retrieval: str | None = None
    passages: int | None = None
    max_new_tokens: int | None = None

    def documents_at(self, folder: Path) -> str | None:
        """The index, RAG run or export with its documents; None for a system without."""
        if self.index is not None:
            return beside(folder, self.index)
        place = beside(folder, self.path)
        return place if is_rag_place(place) else None


def members_of(recipe: HybridRecipe) -> dict[str, Member]:
    """The members that a recipe names."""
    return {
        name: Member(**one.model_dump(), max_new_tokens=recipe.answer.max_new_tokens)
        for name, one in recipe.members.items()
    }


def open_members(folder: Path, members: Mapping[str, Member], encoder: Encoder | None) -> dict[str, RagSystem]:
    """Open every member; a generator that several name is in memory once.

    Args:
        folder: Of the hybrid; gets an index without documents where a member has none and it can be written to.
        members: By name.
        encoder: Of that index; None for none.

    Raises:
        FtkitError: Of the kind of the first member that cannot be opened, with the faults of all.
    """
    encoders = EncoderPair(_NoEncoder() if encoder is None else encoder)
    targets: dict[str, Target] = {}
    found: dict[str, RagSystem] = {}
    faults: list[FtkitError] = []
    problems: list[Problem] = []
    for name, member in members.items():
        try:
            found[name] = _open(folder, name, member, encoders, targets)
        except Interrupted:
            raise
        except FtkitError as error:
            faults.append(error)
            problems += [replace(one, where=f"members.{name}: {one.where}".rstrip(": ")) for one in error.problems]
    if faults:
        raise type(faults[0])(problems)
    return found


def _open(folder: Path, name: str, member: Member, encoders: EncoderPair, targets: dict[str, Target]) -> RagSystem:
    path, documents = beside(folder, member.path), member.documents_at(folder)
    if (Path(path) / MARK).is_file():
        raise UsageError(f"{path}: is a hybrid itself", fix=f"Name its members under members instead of {name}.")
    if member.index is not None and is_rag_place(path):
        raise UsageError(f"{path}: brings its own documents", fix=f"Leave out members.{name}.index.")
    if documents is None:
        return _open_closed_book(folder, path, member, encoders, targets)
    silent = member.retrieval == NO_DOCUMENTS
    return open_system(
        documents,
        generator=_generator(path, documents, targets),
        mode="lexical" if silent else MODES.get(member.retrieval or ""),
        passages=0 if silent else member.passages,
        max_new_tokens=member.max_new_tokens,
        hops=1 if silent else None,
        reranking=Reranking(reranker=NO_RERANKER) if silent else None,
    )


def _generator(path: str, documents: str, targets: dict[str, Target]) -> Target | None:
    """The generator; None for an export's own, which is opened from the export and nowhere else."""
    own = path == documents
    return None if own and is_rag_export(Path(path)) else _target(generator_place(path, documents), targets)


def generator_place(path: str, documents: str) -> str:
    """Where the generator of a member stands that has documents: what they name themselves, or its own path."""
    if path != documents:
        return path
    index = index_folder(path)
    return generator_of(index, read_settings(index).generator)


def _target(place: str, targets: dict[str, Target], folder: Path | None = None) -> Target:
    if place not in targets:
        # In a hybrid's export an adapter's base stands beside it, and no other is looked for.
        inside = folder is not None and Path(place).is_relative_to(folder.resolve())
        needs_base = inside and (Path(place) / "adapter_config.json").is_file()
        targets[place] = open_target(place, base=Path(place).parent / BASE_FOLDER if needs_base else None)
    return targets[place]


def _open_closed_book(
    folder: Path, path: str, member: Member, encoders: EncoderPair, targets: dict[str, Target]
) -> RagSystem:
    if member.retrieval not in (None, NO_DOCUMENTS) or member.passages is not None:
        raise UsageError(
            f"{path}: has no documents to take passages from",
            fix="Name an index, or leave retrieval and passages out.",
        )
    target = _target(path, targets, folder)
    # Read by words: the encoder has no say where there is nothing to find.
    return RagSystem(
        index=_empty_index(folder / CLOSED_BOOK, encoders),
        encoders=encoders,
        generator=target,
        mode="lexical",
        passages=0,
        max_new_tokens=member.max_new_tokens or USUAL.max_new_tokens,
    )


def _empty_index(folder: Path, encoders: EncoderPair) -> Index:
    """An index that holds nothing, so that a system without documents is asked and measured like the others."""
    if not (folder / SETTINGS).is_file():
        named = encoders.query.found.portable_name
        settings = IndexSettings(encoder=named, encoder_sha256=encoders.sha256, width=encoders.width, generator="")
        create_index(folder, settings).close()
    return Index(folder, read_only=True)


def is_closed_book(system: RagSystem) -> bool:
    """Whether a member has no documents at all."""
    return system.index.folder.name == CLOSED_BOOK


def digests_of(system: RagSystem) -> dict[str, Any]:
    """What tells a member from another: its generator's weights, and what it is given."""
    index, searched = system.index, None
    if not is_closed_book(system):
        cut = index.settings.passage_tokens, index.settings.overlap_tokens, index.settings.words
        searched = sha256_json([system.encoders.sha256, cut, index.content_sha256])
    return {
        "generator_sha256": generator_sha256(system.generator),
        "index_sha256": searched,
        CONDITIONS: asdict(system.conditions),
        "max_new_tokens": system.max_new_tokens,
    }


def require_same(name: str, system: RagSystem, stored: Mapping[str, Any]) -> bool:
    """Refuse a member that is not the one a hybrid was trained with.

    Returns:
        Whether its index holds what it held then. It may go on: an edit is in the next answer.

    Raises:
        DataError: Its generator is another.
    """
    now = digests_of(system)
    if now["generator_sha256"] != stored["generator_sha256"]:
        raise DataError(
            f"members.{name}: its generator is another than the hybrid was trained with",
            fix="Put back the one that it was, or train the hybrid again.",
        )
    return bool(now["index_sha256"] == stored["index_sha256"])


def changed_conditions(system: RagSystem, stored: Mapping[str, Any]) -> list[str]:
    """What is otherwise in the way to a member's passages than it was when a hybrid was trained with it, in words.

    Args:
        system: The member, open.
        stored: Its digests then; see `digests_of`.
    """
    now, before = asdict(system.conditions), stored[CONDITIONS]
    if not now["passages"] and not before.get("passages"):
        return []  # however nothing is found
    return [
        f"{name} {_shown(now[name])}, not {_shown(before[name])}"
        for name in now
        if before.get(name, now[name]) != now[name]
    ]


def _shown(value: object) -> str:
    return "none" if value is None else str(value)[:12]
