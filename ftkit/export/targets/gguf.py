"""One GGUF file with weights, tokenizer and chat template inside, for llama.cpp and what is built on it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ftkit.export.converter import PACKAGE, convert, vocabulary_of
from ftkit.export.engine_tokens import READER, not_for_llama_cpp
from ftkit.export.target import Target
from ftkit.export.targets import merged
from ftkit.export.trained import Trained, Written
from ftkit.models.find import BaseModel

MODEL = "model.gguf"
NEEDS = (("llama_cpp", "sentencepiece"), "gguf")


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Merge in float32, let llama.cpp's converter make a GGUF of it, and write a Modelfile for Ollama beside it.

    Args:
        trained: The live model and its record.
        dtype: A key of `ftkit.export.converter.STORED`; ``auto`` for float16.
        folder: Where to.
    """
    stored = "float16" if dtype == "auto" else dtype
    # Inside the unfinished export, so that whatever ends the process, nothing of it is left elsewhere.
    with tempfile.TemporaryDirectory(prefix=".merged-", dir=folder) as scratch:
        # The converter writes the folder's name into the GGUF, so that a random one would make no two exports equal.
        source = Path(scratch) / trained.base.portable_name.rpartition("/")[2]
        source.mkdir()
        # float32: each weight is then rounded once, to what is stored.
        plain = merged.write(trained, "float32", source)
        trained.tokenizer.save_pretrained(source)
        own = trained.base.folder / "tokenizer.model"
        if own.is_file() and not trained.added_tokens:  # it would hide the added ones, which tokenizer.json has
            shutil.copyfile(own, source / own.name)
        convert(
            source,
            folder / MODEL,
            stored=stored,
            name=trained.base.portable_name,
            vocabulary=vocabulary_of(trained.tokenizer, trained.stop_token_ids),
        )
    (folder / "Modelfile").write_text(_modelfile(trained), encoding="utf-8")
    return Written(dtype=stored, notes={**plain.notes, "converter": PACKAGE})


def _modelfile(trained: Trained) -> str:
    """For ``ollama create``; the stops are said again, as Ollama reads them as text."""
    stops: list[Any] = trained.tokenizer.convert_ids_to_tokens(trained.stop_token_ids)
    return "\n".join(
        [
            "# ollama create NAME -f Modelfile",
            f"# No TEMPLATE: Ollama picks it by the chat template inside {MODEL}, from those that it knows.",
            "# `ollama show NAME --template` says which. `{{ .Prompt }}` alone: it knew none; write one here.",
            f"FROM ./{MODEL}",
            *(f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops),
            "",
        ]
    )


def _refuses(base: BaseModel, settings: Any) -> str | None:
    del settings  # merged, every method's model has the base's form
    return not_for_llama_cpp(base.folder)


GGUF = Target(
    write=write,
    reader=READER,
    own_tokenizer=True,
    needs=NEEDS,
    loads_with=("llama-cpp-python",),
    refuses=_refuses,
)
