"""Only what was proven is handed on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ftkit.errors import Problem, VerificationError
from ftkit.export.manifest import VERIFY, ExportManifest, file_problems, read_manifest


def require_verified(folder: Path) -> tuple[ExportManifest, dict[str, Any]]:
    """Refuse an export whose last verification did not pass, or whose files are not those of its manifest now.

    Returns:
        The manifest and the content of verify.json.

    Raises:
        VerificationError: It is not proven.
    """
    manifest = read_manifest(folder)
    fix = f"Run `ftkit verify {folder}`, and hand on what passes."
    try:
        proof = json.loads((folder / VERIFY).read_text(encoding="utf-8"))
        failed = [check["name"] for check in proof["checks"] if check["passed"] is not True]
        passed = proof["passed"] is True and bool(proof["checks"]) and not failed
    except FileNotFoundError:
        raise VerificationError(f"{folder}: was never verified", fix=fix) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"{folder / VERIFY}: cannot be read: {error}", fix=fix) from None
    if not passed:
        raise VerificationError(f"{folder}: did not pass its verification: {', '.join(failed)}", fix=fix)
    if problems := file_problems(folder, manifest):
        # What was verified is not what stands there now.
        raise VerificationError([Problem(where=f"{folder}/{one.where}", what=one.what, fix=fix) for one in problems])
    return manifest, proof
