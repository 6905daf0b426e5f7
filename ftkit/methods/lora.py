"""LoRA through PEFT."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig
from peft.tuners.lora.config import EvaConfig
from torch import Tensor, nn

from ftkit.methods.peft_method import PeftMethod
from ftkit.methods.starts import as_correction_of_the_base, initial_matrices, start_from_activations
from ftkit.methods.targets import (
    require_linear,
    require_modules,
    require_patterns,
    require_plain_linear,
    require_rank,
    require_targets,
)
from ftkit.methods.tokens import require_known_tokens, rows_of

Targets = Literal["all-linear"] | tuple[str, ...]


class LoRAMethod(PeftMethod):
    """``W x + (alpha / rank) * B A x`` with W frozen; B starts at zero, so training starts from the base exactly.

    Args:
        rank: Rows of A and columns of B.
        alpha: Numerator of the scale.
        dropout: Dropout on x before A, while training.
        target_modules: ``all-linear`` or names of layers.
        rank_pattern: Other ranks by layer name.
        alpha_pattern: Other alphas by layer name.
        use_rslora: Scale by ``alpha / sqrt(rank)``.
        use_dora: Learn the length of each column apart.
        loraplus_lr_ratio: Factor on the learning rate of B; None for 1.
        modules_to_save: Modules trained and saved whole.
        trainable_tokens: Tokens whose embedding and head rows are trained.
        init: How A and B start.

    Source:
        Hu et al. 2021, arXiv:2106.09685; for the options see `ftkit.recipe.lora_family`.
    """

    mergeable = True

    def __init__(
        self,
        *,
        rank: int = 16,
        alpha: float = 32,
        dropout: float = 0.0,
        target_modules: Targets = "all-linear",
        init: str = "default",
        **options: Any,
    ) -> None:
        self.rank = rank
        self.alpha = whole(alpha)
        self.dropout = dropout
        self.target_modules = target_modules
        self.init = init
        self.rank_pattern: dict[str, int] = options.pop("rank_pattern", {})
        self.alpha_pattern = {name: whole(value) for name, value in options.pop("alpha_pattern", {}).items()}
        self.use_rslora: bool = options.pop("use_rslora", False)
        self.use_dora: bool = options.pop("use_dora", False)
        self.loraplus_lr_ratio: float | None = options.pop("loraplus_lr_ratio", None)
        self.modules_to_save: tuple[str, ...] | None = options.pop("modules_to_save", None)
        self.trainable_tokens: tuple[str, ...] = options.pop("trainable_tokens", None) or ()
        assert not options, f"settings that no one reads: {options}"
        self.trained_rows: tuple[int, ...] = ()
        self.changes_base = init in ("pissa", "olora")
        self.needs_float32_base = self.changes_base or bool(self.modules_to_save)
        self.exact_at_init = not self.changes_base and init != "loftq"
        self.has_own_start = init == "eva"

    def bind(self, tokenizer: Any, added_token_ids: Sequence[int] = ()) -> None:
        """See `Method.bind`."""
        named = require_known_tokens(tokenizer, self.trainable_tokens)
        self.trained_rows = tuple(sorted({*named, *added_token_ids}))

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`."""
        model = super().attach(model)
        if self.changes_base:
            # What was taken out of the base's weights; exports are corrections of the base as it was.
            model.ftkit_initial_matrices = initial_matrices(model)
        return model

    def start(self, model: nn.Module, texts: Sequence[Sequence[int]], original: Callable[[], nn.Module]) -> None:
        """See `Method.start`: EVA."""
        del original
        if self.init == "eva":
            start_from_activations(model, texts)

    def learning_rate_factors(self, model: nn.Module) -> Mapping[str, float]:
        """See `Method.learning_rate_factors`: LoRA+ trains B faster."""
        if self.loraplus_lr_ratio is None:
            return {}
        return {
            name: self.loraplus_lr_ratio
            for name, value in model.named_parameters()
            if value.requires_grad and ".lora_B." in name
        }

    def undecayed(self, model: nn.Module) -> set[str]:
        """See `Method.undecayed`: rows of tokens are the rows themselves, not corrections of them."""
        return {name for name, _ in model.named_parameters() if "trainable_tokens_delta" in name}

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`. PiSSA and OLoRA are saved as plain LoRA of twice the rank on the untouched base."""
        super().save(model, folder)
        if self.changes_base:
            initial: dict[str, Tensor] = model.ftkit_initial_matrices
            as_correction_of_the_base(folder, initial, use_rslora=self.use_rslora)

    def config(self, model: nn.Module) -> LoraConfig:
        """See `PeftMethod.config`."""
        if self.target_modules != "all-linear":
            require_targets(model, self.target_modules)
        require_patterns(model, self.target_modules, rank_pattern=self.rank_pattern, alpha_pattern=self.alpha_pattern)
        require_rank(model, self.target_modules, self.rank, self.rank_pattern, in_every_layer=not self.exact_at_init)
        if self.init not in ("default", "gaussian"):
            require_linear(model, self.target_modules, why=f"{self.init} starts from the weight of a linear layer")
        require_modules(model, self.modules_to_save or ())
        if self.init == "olora":
            require_plain_linear(
                model, self.target_modules, why="PEFT's OLoRA takes a transposed weight for a plain one"
            )
        # The initialisations that transform weights need values; on the meta device only shapes count.
        init: Any = self.init
        if init in ("default", "loftq") or (init != "gaussian" and next(model.parameters()).device.type == "meta"):
            init = True
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules="all-linear" if self.target_modules == "all-linear" else list(self.target_modules),
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=dict(self.alpha_pattern),
            bias="none",
            init_lora_weights=init,
            # rho 1: every layer keeps its rank, so shapes do not depend on the data.
            eva_config=EvaConfig(rho=1.0, tau=0.99) if init == "eva" else None,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            modules_to_save=list(self.modules_to_save) if self.modules_to_save else None,
            trainable_token_indices=rows_of(model, self.trained_rows, whole=self.modules_to_save or ()) or None,
            ensure_weight_tying=bool(self.modules_to_save),
        )


def whole(value: float) -> float:
    """32 and 32.0 are one setting; written as one, so that two exports of a run have the same bytes."""
    return int(value) if float(value).is_integer() else value
