"""What a system on disk is and answers, for whoever judges it; see `ftkit.rag.proving`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ftkit.errors import DataError
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest
from ftkit.rag.opening import open_system
from ftkit.rag.probing import Probe, probe, reranker_notes
from ftkit.rag.threshold import generator_sha256


def reread(job: dict[str, Any], out: Path) -> None:
    """Open a system as its users will, ask it, and write found.json and logits.safetensors.

    Args:
        job: ``folder`` of the system, and ``probes`` as `ftkit.rag.probing.Probe` has them.
        out: Folder to write to.
    """
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
        "reranker": reranker_notes(system),
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
