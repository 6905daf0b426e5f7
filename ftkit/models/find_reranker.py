"""From what a recipe or an index says to a checked folder with a reranker."""

from __future__ import annotations

import json
import os
from pathlib import Path

from ftkit.errors import ModelError
from ftkit.models.find import fetch_from_hub
from ftkit.models.find_encoder import EncoderFolder, check_encoder_folder, encoder_sha256
from ftkit.models.weights import check_model_folder

# One model from the pair's tokens to the score. Generators that are asked for "yes" or "no" need a prompt of their
# own, which differs from one to the next and, left out, ranks wrong without a word.
MODULES = ("Transformer",)
ARCHITECTURE = "ForSequenceClassification"


def find_reranker(path: str, revision: str | None = None, *, cached_only: bool = False) -> EncoderFolder:
    """Find, fetch if it is allowed and needed, and check a cross-encoder that gives a pair of texts one score.

    Args:
        path: A folder or a hub id.
        revision: Branch, tag or commit of a hub id.
        cached_only: No hub id is fetched; see `ftkit.models.find.fetch_from_hub`.

    Raises:
        ModelError: It is nowhere, cannot be fetched, or cannot be used.
    """
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises where a name is too long to be one
        folder = Path(path).resolve()
    elif path.startswith((".", "/", "~")) or path.count("/") != 1:
        raise ModelError(
            f"{path}: no such folder, and no hub id of a reranker",
            fix="Name a folder, or a hub id such as cross-encoder/ms-marco-MiniLM-L6-v2.",
        )
    else:
        folder = fetch_from_hub(path, revision, cached_only=cached_only)[0]
    check_reranker_folder(folder)
    return EncoderFolder(name=path, folder=folder, sha256=encoder_sha256(folder))


def check_reranker_folder(folder: Path) -> None:
    """Refuse a reranker that cannot be loaded safely, completely and as it was trained to be asked.

    Raises:
        ModelError: Weights missing, damaged or pickled, code of its own, another kind of model, or one that wants a
            prompt.
    """
    check_encoder_folder(folder, allowed=MODULES)
    architectures = check_model_folder(folder).get("architectures") or []
    if not (isinstance(architectures, list) and architectures and str(architectures[0]).endswith(ARCHITECTURE)):
        raise ModelError(
            f"{folder}: is no reranker (architectures in config.json is {architectures!r})",
            fix=f"ftkit reranks with cross-encoders, whose architecture ends in {ARCHITECTURE}.",
        )
    if _wants_prompt(folder):
        raise ModelError(
            f"{folder}: wants a prompt in front of each pair (default_prompt_name), which ftkit does not give",
            fix="Use a reranker that takes a question and a passage as they are.",
        )


def _wants_prompt(folder: Path) -> bool:
    path = folder / "config_sentence_transformers.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return bool(settings.get("default_prompt_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read: {error}", fix="Fetch the reranker again.") from None
