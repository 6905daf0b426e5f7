"""What every kind of export is to the rest of ftkit: how it is written, read back, and what it needs."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import MissingPartError, RecipeError
from ftkit.export.trained import Trained, Written
from ftkit.models.find import BaseModel


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of export.

    Attributes:
        write: Fills an empty folder with the artefact. Tokenizer, generation config, probes, token contract, card and
            manifest are added by `ftkit.export.write`.
        on_base: Whether the artefact works only together with the base model's own weights.
        reader: A script of its own that measures the artefact in the engine that it is for, as ``verify_process.py``
            does in transformers and PEFT; None for that one. It reads the same job and writes the same
            ``found.json`` (greedy, greedy_text, eos_token_id) and ``logits.safetensors``; see there.
        prepare: For artefacts ``on_base``: makes of the base's folder what the reader needs, for as long as it reads,
            and gives what is added to its job.
        own_tokenizer: Whether the engine cuts text itself. Its reader is then also asked to ``tokenise`` and adds
            ``engine`` to what it found, see `ftkit.export.engine_tokens.engine_fault`.
        fixed_vocabulary: Whether tokens that were added to the base's vocabulary cannot be part of it.
        needs: Import names of packages, and the extra of ftkit that brings them.
        refuses: Gives why a base or a method's settings cannot be exported so, in words that follow "cannot be
            exported to KIND: "; None where they can. Asked before training.
        loads_with: Packages that it takes to load the artefact, by their names in a registry.
    """

    write: Callable[[Trained, str, Path], Written]
    on_base: bool = False
    reader: Path | None = None
    prepare: Callable[[Path], AbstractContextManager[dict[str, Any]]] | None = None
    own_tokenizer: bool = False
    fixed_vocabulary: bool = False
    needs: tuple[tuple[str, ...], str] = ((), "")
    refuses: Callable[[BaseModel, Any], str | None] | None = None
    loads_with: tuple[str, ...] = ("transformers", "torch", "safetensors")

    def require_parts(self, kind: str) -> None:
        """Refuse to start without the packages that it takes to write or to read the artefact.

        Raises:
            MissingPartError: With the command that installs them.
        """
        packages, extra = self.needs
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            raise MissingPartError(
                f"an export to {kind} needs {', '.join(missing)}, which is not installed",
                fix=f"Run: pip install 'ftkit[{extra}]'",
            )

    def require_possible(self, kind: str, base: BaseModel, settings: Any, *, adds_tokens: bool = False) -> None:
        """Refuse what the engine cannot load, before anything is trained.

        Raises:
            RecipeError: With the reason.
        """
        if adds_tokens and self.fixed_vocabulary:
            because: str | None = "it cannot hold the rows of tokens that are added to the base's vocabulary"
        else:
            because = None if self.refuses is None else self.refuses(base, settings)
        if because is not None:
            raise RecipeError(
                f"export: this cannot be exported to {kind}: {because}", fix="Take it out of export, or change that."
            )
