"""AdaLoRA through PEFT."""

from __future__ import annotations

from typing import Any

import torch
from peft import AdaLoraConfig
from torch import Tensor, nn

from ftkit.errors import RecipeError
from ftkit.methods.lora import whole
from ftkit.methods.lora_family import FamilyMethod
from ftkit.methods.peft_calls import ADAPTER

UNKNOWN_STEPS = 1 << 30  # until `training_hooks` tells


class AdaLoRAMethod(FamilyMethod):
    """``W x + scale * B diag(e) A x``, where entries of e are cut until the mean rank is ``target_rank``.

    Source:
        Zhang et al. 2023, arXiv:2303.10512.
    """

    def config(self, model: nn.Module) -> AdaLoraConfig:
        """See `PeftMethod.config`."""
        return AdaLoraConfig(
            task_type="CAUSAL_LM",
            target_r=self.settings["target_rank"],
            init_r=self.settings["initial_rank"],
            lora_alpha=whole(self.settings["alpha"]),
            lora_dropout=self.settings["dropout"],
            target_modules=self.targets(model),
            tinit=0,
            tfinal=0,
            deltaT=self.settings["allocation_every"],
            beta1=0.85,
            beta2=0.85,
            orth_reg_weight=self.settings["orthogonality_weight"],
            total_step=UNKNOWN_STEPS,
            bias="none",
            init_lora_weights=True,
        )

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`."""
        attached = super().attach(model)
        for name, value in attached.named_parameters():
            # PEFT's count of ranks is a parameter, frozen on a float32 base and by mistake not on a 16-bit one; it
            # would be trained and then not saved.
            if ".ranknum." in name:
                value.requires_grad_(False)
        return attached

    def training_hooks(self, model: Any, total_steps: int | None) -> AdaLoRAHooks:
        """See `Method.training_hooks`.

        Raises:
            RecipeError: There are too few steps for ranks to fall in.
        """
        if total_steps is not None:
            self._plan(model, total_steps)
        return AdaLoRAHooks(model)

    def _plan(self, model: Any, total_steps: int) -> None:
        config = model.peft_config[ADAPTER]
        config.total_step = total_steps
        config.tinit = round(self.settings["warmup_share"] * total_steps)
        config.tfinal = round(self.settings["final_share"] * total_steps)
        if total_steps - config.tfinal - config.tinit < 2:
            raise RecipeError(
                f"method: {total_steps} steps are too few for ranks to fall in: {config.tinit} go to the warm-up and "
                f"{config.tfinal} to the end",
                fix="Train longer, or lower method.warmup_share and method.final_share.",
            )


class AdaLoRAHooks:
    """AdaLoRA within training: the penalty that keeps A and B orthogonal, and the cuts (see `TrainingHooks`).

    Args:
        model: What `AdaLoRAMethod.attach` returned.
    """

    def __init__(self, model: Any) -> None:
        self.tuner = model.base_model
        self.config = model.peft_config[ADAPTER]

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Mean Frobenius distance of ``A A'`` and ``B' B`` from the identity, weighted.

        PEFT adds it to a loss that the model itself computes, which is not how ftkit computes losses.
        """
        terms = []
        for name, value in model.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                covariance = value @ value.T if ".lora_A." in name else value.T @ value
                terms.append(torch.linalg.norm(covariance - torch.eye(len(covariance), device=value.device)))
        return self.config.orth_reg_weight * torch.stack(terms).mean()

    def after_update(self, model: nn.Module, step: int, total_steps: int) -> None:
        """Weigh each triplet, and cut the least."""
        del model, total_steps
        self.tuner.update_and_allocate(step)

    def state(self) -> dict[str, Tensor]:
        """What the cuts are decided by, and which have been made."""
        allocator = self.tuner.rankallocator
        series = {"exp_avg_ipt": allocator.exp_avg_ipt, "exp_avg_unc": allocator.exp_avg_unc}
        state = {
            f"{kind}/{name}": value.detach().cpu()
            for kind, values in series.items()
            for name, value in values.items()
        }
        kept = self.config.rank_pattern or {}
        return state | {f"kept/{name}": torch.tensor(mask) for name, mask in kept.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        allocator = self.tuner.rankallocator
        device = next(self.tuner.parameters()).device
        kept: dict[str, list[bool]] = {}
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if kind == "kept":
                kept[name] = value.tolist()
            else:
                getattr(allocator, kind)[name] = value.to(device)
                allocator.ipt[name] = torch.zeros_like(value, device=device)  # only ever written before it is read
        self.config.rank_pattern = kept or None
