"""Runs in a process of its own: opens an exported system as its users will, and reports what it answers.

    python -P -E export_process.py JOB.json OUT_FOLDER

JOB names the folder and the probes. What comes out is measured here and judged in `ftkit.rag.proving`. No network:
any attempt to connect ends the process.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
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

from safetensors.torch import save_file  # noqa: E402

from ftkit.errors import DataError, FtkitError  # noqa: E402
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest  # noqa: E402
from ftkit.rag.opening import open_system  # noqa: E402
from ftkit.rag.probing import Probe, probe  # noqa: E402
from ftkit.rag.threshold import generator_sha256  # noqa: E402


def read(job: dict[str, Any], out: Path) -> None:
    """Write found.json and logits.safetensors."""
    system = open_system(job["folder"])
    try:
        system.index.require_sound()
        fault = ""
    except DataError as error:
        fault = str(error)
    answers, logits = probe(system, [Probe(**one) for one in job["probes"]])
    tokenizer = system.generator.tokenizer
    found = {
        "answers": [asdict(one) for one in answers],
        "encoder_sha256": system.encoders.sha256,
        "index": {
            "version": system.index.version,
            "documents": len(system.index.documents),
            "passages": system.index.passages,
        },
        "index_fault": fault,
        "threshold": system.threshold,
        "generator_sha256": generator_sha256(system.generator),
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "chat_template_digest": chat_template_digest(tokenizer),
    }
    save_file({"logits": logits}, out / "logits.safetensors")
    (out / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    try:
        read(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
    except FtkitError as refused:  # whoever started this shows one line
        sys.exit(" ".join(str(refused).split()))
