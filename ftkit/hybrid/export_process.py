"""Runs in a process of its own: opens an exported hybrid as its users will, and reports what it answers.

    python -P -E export_process.py JOB.json OUT_FOLDER

See `ftkit.hybrid.rereading`. No network: any attempt to connect ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = os.environ["FTKIT_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"


def _no_network(event: str, args: Any) -> None:
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise PermissionError(f"verification needs no network, but {event} was called with {args[1:]}")


sys.addaudithook(_no_network)
# The ftkit that this file is part of: -P -E leaves out the folders that would lead to it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ftkit.errors import FtkitError  # noqa: E402
from ftkit.hybrid.rereading import reread  # noqa: E402

if __name__ == "__main__":
    try:
        reread(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
    except FtkitError as refused:  # whoever started this shows one line
        sys.exit(" ".join(str(refused).split()))
