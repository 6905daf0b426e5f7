"""From a hybrid's run to one folder that answers anywhere: every member, the encoder, and what chooses."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.errors import DataError, UsageError
from ftkit.export.manifest import HYBRID, MANIFEST, ExportManifest, library_versions, list_files, read_manifest
from ftkit.export.verify import Verification
from ftkit.export.write import VERIFICATION
from ftkit.files import new_folder, require_empty, sha256_json, write_json
from ftkit.hybrid.course import hybrid_questions
from ftkit.hybrid.exported import MEMBERS, is_hybrid_export
from ftkit.hybrid.kinds import KINDS, HybridSystem
from ftkit.hybrid.members import Member, digests_of, generator_place, open_members
from ftkit.hybrid.nearest import NearestSystem
from ftkit.hybrid.opening import Description, OpenParts, is_hybrid_place, open_parts
from ftkit.hybrid.proving import PROBES, verify_hybrid_export
from ftkit.hybrid.rereading import answers_of
from ftkit.hybrid.router import RouterSystem
from ftkit.hybrid.weighed import memory_facts, read_weight
from ftkit.notices import log, show_notices
from ftkit.pipeline.exporting import prove
from ftkit.rag.answering import RagSystem
from ftkit.rag.encoder import Encoder, EncoderPair
from ftkit.rag.exported import ENCODER, GENERATOR, is_rag_export
from ftkit.rag.exporting import write_system
from ftkit.rag.opening import beside
from ftkit.rag.parts import copy_encoders, copy_generator
from ftkit.recipe import load_hybrid_recipe

PROBES_EACH = 4  # questions of each member
_TITLES = {
    "router": "A router between systems",
    "mixture": "A mixture of two systems",
    "memory": "A model with a memory",
}


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the live hybrid answered. Attributes: questions; answers: One each."""

    questions: list[str]
    answers: list[dict[str, Any]]


def export_hybrid(source: str | Path, output: str | Path, *, quiet: bool = False) -> Verification:
    """Write a hybrid as one self-contained folder, and verify it in a fresh process without network.

    Answers to a few questions are recorded from the live hybrid first; the export must send each to the same member
    and give the same answer, from the same passages. Indexes are copied as they are searched now.

    Args:
        source: A finished run of a hybrid.
        output: A new folder; it appears complete, or not at all.
        quiet: Warnings only on stderr.

    Raises:
        UsageError: The source is none, or a member cannot be exported.
        OutputError: ``output`` is not empty.
        DataError: The run is not finished, or its questions are gone.
        VerificationError: The export does not answer like the live hybrid; it is left for inspection.
    """
    show_notices(quiet=quiet)
    place, target = Path(source), Path(output)
    if is_hybrid_export(place):
        raise UsageError(f"{place}: is an export already", fix="Copy the folder.")
    if not is_hybrid_place(place):
        raise UsageError(f"{place}: is no hybrid", fix="Name a folder that `ftkit train` of a hybrid wrote.")
    require_empty(target)
    parts = open_parts(place)
    log.info("asking the live hybrid")
    recorded = _record(parts.system(place), _questions_of(place))
    with new_folder(target) as partial:
        _write(place, parts, recorded, partial)
    log.info("verifying the export in a fresh process")
    return prove(target, check=verify_hybrid_export)


def _questions_of(place: Path) -> list[str]:
    try:
        train, held = hybrid_questions(load_hybrid_recipe(place / "recipe.yaml"))
    except DataError as error:
        raise DataError(
            f"{place}: its questions cannot be read, which an export is held to: {error}", fix="Put them back."
        ) from None
    return [one.question for one in [*held, *train]]


def _record(system: HybridSystem, questions: Sequence[str]) -> Recorded:
    """Some questions of each member that any is sent to, so that every way is held to something."""
    chosen = list(questions[: 2 * PROBES_EACH])
    if isinstance(system, RouterSystem):
        routes = system.routes(questions)
        chosen = [
            question
            for name in system.members
            for question in [one for one, route in zip(questions, routes, strict=True) if route == name][:PROBES_EACH]
        ]
    return Recorded(questions=chosen, answers=answers_of(system, chosen))


def _write(place: Path, parts: OpenParts, recorded: Recorded, folder: Path) -> None:
    """Fill the folder."""
    description, encoder = parts.description, parts.encoder
    bases: dict[str, dict[str, Any]] = {}
    members: dict[str, Member] = {}
    for name, one in description.members.items():
        log.info("writing the member %s", name)
        members[name], bases[name] = _copy_member(place, name, one, parts.members[name], folder)
    if encoder is not None:
        copy_encoders(EncoderPair(encoder), folder)
    named = None if encoder is None else ENCODER
    own = replace(description, encoder=named, members=members, digests=_digests(folder, members, encoder))
    KINDS[description.kind].copy(place, folder, own.digests)
    own.write(folder)
    probes = {"questions": recorded.questions, "answers": recorded.answers}
    write_json(folder / VERIFICATION / PROBES, probes)
    manifest = _manifest(own, parts, place, bases)
    (folder / "README.md").write_text(_card(manifest), encoding="utf-8")
    write_json(folder / MANIFEST, replace(manifest, files=list_files(folder)).to_dict())


def _copy_member(
    place: Path, name: str, member: Member, system: RagSystem, folder: Path
) -> tuple[Member, dict[str, Any]]:
    """Copy a member; how the hybrid names it from now on, and the base of its generator."""
    own = folder / MEMBERS / name
    path, documents = beside(place, member.path), member.documents_at(place)
    if documents is None:
        own.mkdir(parents=True)
        copied = copy_generator(path, own)
        return replace(member, path=f"{MEMBERS}/{name}/{GENERATOR}"), copied.base
    if path == documents and is_rag_export(Path(path)):
        shutil.copytree(path, own)
    else:
        write_system(Path(documents), system, own, generator=generator_place(path, documents))
    return replace(member, path=f"{MEMBERS}/{name}", index=None), read_manifest(own).base


def _digests(folder: Path, members: dict[str, Member], encoder: Encoder | None) -> dict[str, dict[str, Any]]:
    """Of the copies as they are opened there: an adapter's weights have other names than in the run that made it."""
    systems = open_members(folder, members, encoder)
    found = {name: digests_of(one) for name, one in systems.items()}
    for one in systems.values():
        one.index.close()
    return found


def _manifest(
    description: Description, parts: OpenParts, place: Path, bases: dict[str, dict[str, Any]]
) -> ExportManifest:
    names = list(dict.fromkeys(base["name"] for base in bases.values()))
    digests = {name: base["sha256"] for name, base in bases.items()}
    licences = {base.get("licence") for base in bases.values()}
    return ExportManifest(
        kind=HYBRID,
        recipe=HYBRID,
        method={},
        base={
            "name": ", ".join(names),
            "revision": None,
            "sha256": sha256_json(digests),
            "licence": next(iter(licences)) if len(licences) == 1 else None,
        },
        recipe_digest=description.began["recipe_digest"],
        data_digest=description.began["questions"],
        tokenizer_digest=sha256_json(description.digests),
        chat_template_digest=None,
        dtype="as each member's",
        quantization=None,
        stop_tokens=[],
        notes={
            "kind": description.kind,
            "members": {name: {"base": bases[name], **description.digests[name]} for name in bases},
            **_joined(parts, place),
        },
        versions=library_versions(),
    )


def _joined(parts: OpenParts, place: Path) -> dict[str, Any]:
    """What joins the members."""
    system = parts.system(place)
    if isinstance(system, RouterSystem):
        found = system.encoder.found
        return {
            "encoder": {"name": found.portable_name, "sha256": found.sha256},
            "promoted": system.router.promoted,
            "best_member": system.router.best,
        }
    stored = asdict(read_weight(place, parts.members))
    return stored | ({"memory": memory_facts(system.datastore)} if isinstance(system, NearestSystem) else {})


def _card(manifest: ExportManifest) -> str:
    """README.md."""
    notes = manifest.notes
    rows = "\n".join(
        f"| `members/{name}/` | {one['base']['name']}; "
        f"{'with documents' if one['index_sha256'] else 'without documents'} |"
        for name, one in notes["members"].items()
    )
    return f"""# {_TITLES[notes["kind"]]}

Exported by ftkit: {_words(notes)}. Nothing outside of this folder is needed, and no network.

```sh
pip install 'ftkit[rag,serve]'
ftkit verify DIR
ftkit rag ask DIR --question 'What is this about?'
ftkit serve DIR
```

| part | what it is |
|---|---|
{rows}

`verify.json` says what was checked in a fresh process: every byte (`manifest.json`), each member, and that questions
are answered as the live hybrid did before, by the same members and from the same passages (`verification/`).
"""


def _words(notes: dict[str, Any]) -> str:
    """What joins the members, in a sentence."""
    if notes["kind"] == "router":
        return (
            f"a classifier on the vectors of {notes['encoder']['name']} (`encoder/`) sends each question to one of "
            "them"
            if notes["promoted"]
            else f"no classifier beat `{notes['best_member']}`, which answers every question"
        )
    weight = f"weight {notes['weight']:g}, temperature {notes['temperature']:g} (`weight.json`)"
    if notes["kind"] == "mixture":
        return f"next-token probabilities of `{notes['second']}` count beside those of `{notes['first']}`, {weight}"
    return (
        f"what came next at {notes['memory']['entries']} remembered places (`memory/`) counts beside what "
        f"`{notes['first']}` says itself, {weight}"
    )
