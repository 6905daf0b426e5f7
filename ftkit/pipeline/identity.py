"""What must be the same for a run to be the same run, and in what it differs where it is not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from ftkit.data.prepare import PreparedData
from ftkit.errors import OutputError, Problem
from ftkit.export.manifest import library_versions
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest
from ftkit.notices import log
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session

PUT_BACK = "Put it back as it was, or train into another output."
# What else than the recipe and the data can move the last bits of a result.
MOST_THREADS = 1024  # of a number that is read from a file
NUMERIC = ("ftkit", "torch", "transformers", "peft", "bitsandbytes")


def identity(session: Session, data: PreparedData) -> dict[str, Any]:
    """What `require_unchanged` compares, for run.json."""
    base, report = session.base, data.report
    return {
        "base": {"name": base.portable_name, "revision": base.revision, "sha256": base.sha256},
        "data_digest": report.digest,
        "tokenizer_digest": tokenizer_digest(session.tokenizer),
        "chat_template_digest": chat_template_digest(session.tokenizer),
        "stop_tokens": data.stop_token_ids,
        "files": [{"path": file.path, "sha256": file.sha256, "rows": file.rows} for file in report.files],
        "environment": environment(session.device),
    }


def environment(device: torch.device) -> dict[str, Any]:
    """Where a run computes: versions, kind of device, and threads, which decide in what order sums are taken."""
    versions = {name: version for name, version in library_versions().items() if name in NUMERIC}
    return {"device": device.type, "threads": torch.get_num_threads(), "versions": versions}


def require_unchanged(folder: RunFolder, now: Mapping[str, Any]) -> None:
    """Refuse to go on with other data, another base or another tokenizer.

    Raises:
        OutputError: Listing every difference.
    """
    before = folder.read("run.json")
    problems = list(_differences(before, now, folder))
    if problems:
        raise OutputError(problems)


@contextlib.contextmanager
def as_it_began(folder: RunFolder) -> Iterator[None]:
    """A block with as many threads as the run began with; says what else of what computes is not as it was."""
    before = folder.read("run.json").get("environment")
    threads = before.get("threads") if isinstance(before, dict) else None
    versions = before.get("versions") if isinstance(before, dict) else None
    now, current = library_versions(), torch.get_num_threads()
    moved = [
        f"{name} {version} then, {now.get(name)} now"
        for name, version in (versions.items() if isinstance(versions, dict) else ())
        if now.get(name) != version
    ]
    if moved:
        log.warning("the result may differ in its last digits from an uninterrupted run: %s", "; ".join(moved))
    # Of a run of before this was written down, or of a file that somebody else wrote, nothing is taken over.
    known = isinstance(threads, int) and 1 <= threads <= MOST_THREADS
    torch.set_num_threads(threads if known else current)
    try:
        yield
    finally:
        torch.set_num_threads(current)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> Iterator[Problem]:
    where = f"{folder.path}: changed since the run began"
    base = before["base"] if isinstance(before.get("base"), dict) else {}
    if base != now["base"]:
        names = [key for key, value in now["base"].items() if base.get(key) != value]
        said = ", ".join(f"{key} was {base.get(key)}, is {now['base'][key]}" for key in names)
        yield Problem(where=where, what=f"base model: {said}", fix=PUT_BACK)
    if before.get("data_digest") != now["data_digest"]:
        yield Problem(where=where, what="data: " + "; ".join(_data_differences(before, now)), fix=PUT_BACK)
    for key in ("tokenizer_digest", "chat_template_digest", "stop_tokens"):
        if before.get(key) != now[key]:
            name = key.removesuffix("_digest").replace("_", " ")
            yield Problem(where=where, what=f"{name}: was {before.get(key)}, is {now[key]}", fix=PUT_BACK)
    began = before.get("environment")
    then = began.get("device") if isinstance(began, dict) else now["environment"]["device"]
    if then != now["environment"]["device"]:
        what = f"device: was {then}, is {now['environment']['device']}, which computes other numbers"
        yield Problem(where=where, what=what, fix="Go on where it began, or train into another output.")


def _data_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    then = {file["path"]: file for file in before.get("files", ())}
    files = {file["path"]: file for file in now["files"]}
    found = False
    for path in sorted(then.keys() | files.keys()):
        old, new = then.get(path), files.get(path)
        if old == new:
            continue
        found = True
        yield f"{path}: {_said(old)} then, {_said(new)} now"
    if not found:
        yield "the files are the same, what is made of them is not (another version of ftkit or of a library?)"


def _said(file: Mapping[str, Any] | None) -> str:
    return "not read" if file is None else f"{file['rows']} rows (sha256 {file['sha256'][:12]})"
