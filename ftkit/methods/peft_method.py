"""What all methods that PEFT implements have in common."""

from __future__ import annotations

import abc
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn

from ftkit.errors import RecipeError, UsageError
from ftkit.methods.adapter_files import check_adapter, naming_adapter
from ftkit.methods.layerwise import LAYERWISE_TYPES, LayerwiseMerge
from ftkit.methods.method import MergeBase, Merger, Method
from ftkit.methods.peft_calls import ADAPTER, quiet_peft


class PeftMethod(Method):
    """A method that is a PEFT configuration, saved in PEFT's own format."""

    shares_base = True

    @abc.abstractmethod
    def config(self, model: nn.Module) -> PeftConfig:
        """The method as PEFT takes it.

        Everything that changes the result is named in it: PEFT's defaults move between releases.

        Raises:
            RecipeError: A setting does not fit this model.
        """

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`. What is attached is float32 whatever the base's dtype."""
        with _peft_errors(), quiet_peft():
            attached: nn.Module = get_peft_model(model, self.config(model), autocast_adapter_dtype=True)
        for value in attached.parameters():
            # PEFT widens what it adds, but not copies of the base's modules and rows.
            if value.requires_grad:
                value.data = value.data.float()
        return attached

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`: adapter_model.safetensors and adapter_config.json, as PEFT reads them."""
        # "auto" would look for added tokens by asking for the base's config, on the hub if it must.
        with quiet_peft():
            model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        # PEFT's own card, full of blanks; the export writes a true one.
        (folder / "README.md").unlink(missing_ok=True)

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`."""
        check_adapter(folder)
        with naming_adapter(folder), quiet_peft():
            loaded: nn.Module = PeftModel.from_pretrained(
                base, folder, is_trainable=True, autocast_adapter_dtype=True, local_files_only=True
            )
        return loaded

    def merger(self, trained: nn.Module, skeleton: nn.Module, *, base: MergeBase) -> Merger | None:
        """See `Method.merger`."""
        del base
        config: Any = trained.peft_config
        if not self.mergeable or config[ADAPTER].peft_type not in LAYERWISE_TYPES:
            return None
        with tempfile.TemporaryDirectory(prefix="ftkit-merge-") as folder:
            self.save(trained, Path(folder))
            return LayerwiseMerge(skeleton, Path(folder))

    def load_beside(self, loaded: Any, folder: Path, name: str) -> None:
        """See `Method.load_beside`."""
        check_adapter(folder)
        try:
            with quiet_peft():
                loaded.load_adapter(
                    folder, adapter_name=name, is_trainable=False, autocast_adapter_dtype=True, local_files_only=True
                )
        except ValueError as error:
            raise UsageError(
                f"{folder}: cannot share a base with the adapters before it: {error}",
                fix="Serve it in a process of its own, on a port of its own.",
            ) from None

    def choose(self, loaded: Any, name: str) -> None:
        """See `Method.choose`."""
        loaded.set_adapter(name, inference_mode=True)

    def merge(self, trained: nn.Module, fresh: nn.Module, *, base: MergeBase | None = None) -> nn.Module:
        """See `Method.merge`. Sums are taken in float32 and checked for NaN before they are kept.

        What is merged is what `save` writes, so the merged export and the adapter export cannot be two models.
        """
        if not self.mergeable:
            return super().merge(trained, fresh, base=base)
        with tempfile.TemporaryDirectory(prefix="ftkit-merge-") as folder, quiet_peft():
            self.save(trained, Path(folder))
            loaded: Any = PeftModel.from_pretrained(fresh, folder, autocast_adapter_dtype=True, local_files_only=True)
            merged: nn.Module = loaded.merge_and_unload(safe_merge=True)
        return merged


@contextlib.contextmanager
def _peft_errors() -> Iterator[None]:
    """Turn what PEFT says of settings that do not fit a model into an error that names the recipe."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"method: this model cannot take it: {error}",
            fix="Choose other method.target_modules, or another method.",
        ) from None
