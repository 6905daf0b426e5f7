"""LoRA through PEFT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch import nn

from ftkit.methods.method import Method
from ftkit.methods.targets import require_targets


class LoRAMethod(Method):
    """``W x + (alpha / rank) * B A x`` with W frozen; B starts at zero, so training starts from the base exactly.

    Args:
        rank: Rows of A and columns of B.
        alpha: Numerator of the scale.
        dropout: Dropout on x before A, while training.
        target_modules: ``all-linear`` or names of layers.

    Source:
        Hu et al. 2021, arXiv:2106.09685.
    """

    mergeable = True
    exact_at_init = True

    def __init__(
        self,
        *,
        rank: int = 16,
        alpha: float = 32,
        dropout: float = 0.0,
        target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear",
    ) -> None:
        self.rank = rank
        # 32 and 32.0 are one setting; written as one, so that two exports of a run have the same bytes.
        self.alpha = int(alpha) if float(alpha).is_integer() else alpha
        self.dropout = dropout
        self.target_modules = target_modules

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`. The adapter is float32 whatever the base's dtype."""
        if self.target_modules != "all-linear":
            require_targets(model, self.target_modules)
        attached: nn.Module = get_peft_model(model, self._config(), autocast_adapter_dtype=True)
        return attached

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`: adapter_model.safetensors and adapter_config.json, as PEFT reads them."""
        # "auto" would look for added tokens by asking for the base's config, on the hub if it must.
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        (folder / "README.md").unlink(
            missing_ok=True
        )  # PEFT's own card, full of blanks; the export writes a true one

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`."""
        loaded: nn.Module = PeftModel.from_pretrained(
            base, folder, is_trainable=True, autocast_adapter_dtype=True, local_files_only=True
        )
        return loaded

    def merge(self, trained: nn.Module, fresh: nn.Module) -> nn.Module:
        """See `Method.merge`. Sums are taken in float32 and checked for NaN before they are kept."""
        attached: Any = get_peft_model(fresh, self._config(), autocast_adapter_dtype=True)
        set_peft_model_state_dict(attached, get_peft_model_state_dict(trained, save_embedding_layers=False))
        merged: nn.Module = attached.merge_and_unload(safe_merge=True)
        return merged

    def _config(self) -> LoraConfig:
        # Everything that changes the result is named: PEFT's defaults move between releases.
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.target_modules == "all-linear" else list(self.target_modules),
            bias="none",
            init_lora_weights=True,
            use_rslora=False,
            use_dora=False,
            modules_to_save=None,
        )
