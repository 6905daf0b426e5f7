"""LoRA's relatives through PEFT: each is a configuration and a few facts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from peft import IA3Config, LoHaConfig, LoKrConfig, OFTConfig, PeftConfig, VeraConfig
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING,
    TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING,
)
from torch import nn

from ftkit.errors import RecipeError
from ftkit.methods.lora import Targets, whole
from ftkit.methods.peft_method import PeftMethod
from ftkit.methods.targets import experts, linear_layer_names, require_targets


class FamilyMethod(PeftMethod):
    """A relative of LoRA: settings, of which ``target_modules`` is one, and the PEFT configuration they make."""

    mergeable = True
    exact_at_init = True

    def __init__(self, *, target_modules: Any = "all-linear", **settings: Any) -> None:
        self.target_modules: Targets | Literal["auto"] = target_modules
        self.settings = settings

    def targets(self, model: nn.Module) -> list[str]:
        """Names of layers; those of ``all-linear`` are spelt out, as not every PEFT method knows the word."""
        if self.target_modules == "all-linear":
            if shared := experts(model):
                raise RecipeError(
                    f"method.target_modules: all-linear does not reach the experts, which share {shared[0]}",
                    fix="Name the layers to train, such as [q_proj, v_proj], or use kind: lora, which does.",
                )
            return linear_layer_names(model)
        assert self.target_modules != "auto", "IA3Method resolves it"
        require_targets(model, self.target_modules)
        return list(self.target_modules)


class VeRAMethod(FamilyMethod):
    """``W x + b * B (d * (A x))``: A and B random, fixed and shared; the vectors b and d are learned.

    Source:
        Kopiczko et al. 2024, arXiv:2310.11454.
    """

    def config(self, model: nn.Module) -> PeftConfig:
        """See `PeftMethod.config`."""
        return VeraConfig(
            task_type="CAUSAL_LM",
            r=self.settings["rank"],
            target_modules=self.targets(model),
            projection_prng_key=0,
            save_projection=True,  # random numbers of another machine or release would be another model
            vera_dropout=self.settings["dropout"],
            d_initial=self.settings["initial_scale"],
            bias="none",
            init_weights=True,
        )


class IA3Method(FamilyMethod):
    """``l * (W x)`` for keys and values, ``W (l * x)`` for the second feed-forward layer.

    Source:
        Liu et al. 2022, arXiv:2205.05638.
    """

    def config(self, model: Any) -> PeftConfig:
        """See `PeftMethod.config`."""
        return IA3Config(
            task_type="CAUSAL_LM",
            target_modules=self._targets(model),
            feedforward_modules=self._feedforward(model),
            init_ia3_weights=True,
        )

    def _targets(self, model: Any) -> list[str]:
        if self.target_modules != "auto":
            return self.targets(model)
        kind = model.config.model_type
        if kind not in TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING:
            raise RecipeError(
                f"method.target_modules: PEFT does not know which layers of {kind} (IA)3 scales",
                fix="Name target_modules (keys, values, second feed-forward layer) and its feedforward_modules. "
                f"Its linear layers are {', '.join(linear_layer_names(model))}.",
            )
        return list(TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING[kind])

    def _feedforward(self, model: Any) -> list[str]:
        if self.target_modules == "auto":
            return list(TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING[model.config.model_type])
        return list(self.settings["feedforward_modules"])


class OFTMethod(FamilyMethod):
    """``W R x`` with R orthogonal, made of blocks along the diagonal.

    Source:
        Qiu et al. 2023, arXiv:2306.07280; the fast form of R: Qiu et al. 2025, arXiv:2506.19847.
    """

    def config(self, model: nn.Module) -> PeftConfig:
        """See `PeftMethod.config`."""
        targets = self.targets(model)
        _require_whole_blocks(model, targets, self.settings["block_size"])
        return OFTConfig(
            task_type="CAUSAL_LM",
            r=0,
            oft_block_size=self.settings["block_size"],
            target_modules=targets,
            module_dropout=0.0,
            bias="none",
            coft=False,
            block_share=False,
            use_cayley_neumann=True,
            num_cayley_neumann_terms=5,
            init_weights=True,
        )


def _require_whole_blocks(model: nn.Module, targets: Sequence[str], block_size: int) -> None:
    """PEFT would take another size than the recipe's, and only warn."""
    widths = {
        name: layer.in_features
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and f".{name}".endswith(tuple(f".{target}" for target in targets))
    }
    odd = next((name for name, width in widths.items() if width % block_size), None)
    if odd is not None:
        raise RecipeError(
            f"method.block_size: {block_size} does not divide {widths[odd]}, the width of what {odd} receives",
            fix=f"Use a divisor of {math.gcd(*widths.values())}.",
        )


class LoHaMethod(FamilyMethod):
    """``W + (alpha / rank) * (B1 A1) * (B2 A2)``, the last product entry by entry.

    Source:
        Hyeon-Woo et al. 2022, arXiv:2108.06098.
    """

    def config(self, model: nn.Module) -> PeftConfig:
        """See `PeftMethod.config`."""
        return LoHaConfig(
            task_type="CAUSAL_LM",
            r=self.settings["rank"],
            alpha=whole(self.settings["alpha"]),
            target_modules=self.targets(model),
            rank_dropout=0.0,
            module_dropout=0.0,
            init_weights=True,
        )


class LoKrMethod(FamilyMethod):
    """``W + (alpha / rank) * C (x) (B A)``, a Kronecker product.

    Source:
        Edalati et al. 2022, arXiv:2212.10650.
    """

    def config(self, model: nn.Module) -> PeftConfig:
        """See `PeftMethod.config`."""
        return LoKrConfig(
            task_type="CAUSAL_LM",
            r=self.settings["rank"],
            alpha=whole(self.settings["alpha"]),
            decompose_factor=self.settings["decompose_factor"],
            decompose_both=False,
            target_modules=self.targets(model),
            rank_dropout=0.0,
            module_dropout=0.0,
            init_weights=True,
        )
