"""What all methods that PEFT implements have in common."""

from __future__ import annotations

import abc
import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from ftkit.errors import RecipeError
from ftkit.methods.method import Method

ADAPTER = "default"  # the name that PEFT gives an adapter


class PeftMethod(Method):
    """A method that is a PEFT configuration, saved in PEFT's own format."""

    @abc.abstractmethod
    def config(self, model: nn.Module) -> PeftConfig:
        """The method as PEFT takes it.

        Everything that changes the result is named in it: PEFT's defaults move between releases.

        Raises:
            RecipeError: A setting does not fit this model.
        """

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`. What is attached is float32 whatever the base's dtype."""
        with _peft_errors():
            attached: nn.Module = get_peft_model(model, self.config(model), autocast_adapter_dtype=True)
        return attached

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`: adapter_model.safetensors and adapter_config.json, as PEFT reads them."""
        # "auto" would look for added tokens by asking for the base's config, on the hub if it must.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        # PEFT's own card, full of blanks; the export writes a true one.
        (folder / "README.md").unlink(missing_ok=True)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`."""
        loaded: nn.Module = PeftModel.from_pretrained(
            base, folder, is_trainable=True, autocast_adapter_dtype=True, local_files_only=True
        )
        return loaded

    def merge(self, trained: nn.Module, fresh: nn.Module) -> nn.Module:
        """See `Method.merge`. Sums are taken in float32 and checked for NaN before they are kept.

        What is merged is what `save` writes, so the merged export and the adapter export cannot be two models.
        """
        if not self.mergeable:
            return super().merge(trained, fresh)
        with tempfile.TemporaryDirectory(prefix="ftkit-merge-") as folder:
            self.save(trained, Path(folder))
            loaded: Any = PeftModel.from_pretrained(fresh, folder, autocast_adapter_dtype=True, local_files_only=True)
        merged: nn.Module = loaded.merge_and_unload(safe_merge=True)
        return merged


@contextlib.contextmanager
def _peft_errors() -> Iterator[None]:
    """Turn what PEFT says of settings that do not fit a model into an error that names the recipe."""
    try:
        with warnings.catch_warnings():
            # GPT-2 keeps its weights transposed; PEFT notices, handles it, and warns.
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
            yield
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"method: this model cannot take it: {error}",
            fix="Choose other method.target_modules, or another method.",
        ) from None
