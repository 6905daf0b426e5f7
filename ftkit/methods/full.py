"""Full fine-tuning."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ftkit.errors import RecipeError
from ftkit.methods.method import MergeBase, Merger, Method, Read

WEIGHTS_FILE = "trained.safetensors"


class FullMethod(Method):
    """Train the base's own weights: all, or those whose names match a pattern.

    Args:
        parameters: ``all``, or shell patterns of parameter names.
    """

    mergeable = True
    exact_at_init = True
    trains_base_weights = True

    def __init__(self, *, parameters: Literal["all"] | tuple[str, ...] = "all") -> None:
        self.parameters = parameters
        self.adds_tokens = False

    def bind(self, tokenizer: Any, added_token_ids: Sequence[int] = ()) -> None:
        """See `Method.bind`."""
        del tokenizer
        self.adds_tokens = bool(added_token_ids)

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`."""
        names = [name for name, _ in model.named_parameters()]
        patterns = ("*",) if self.parameters == "all" else self.parameters
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise RecipeError(
                    f"method.parameters: {pattern!r} matches no parameter of this model",
                    fix=f"Its parameters are {_summary(names)}.",
                )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
        if self.adds_tokens:
            _require_trained_rows(model)
        return model

    def save(self, model: nn.Module, folder: Path) -> None:
        """See `Method.save`. Frozen weights are not written again."""
        folder.mkdir(parents=True, exist_ok=True)
        trained = {
            name: value.detach().contiguous() for name, value in model.named_parameters() if value.requires_grad
        }
        save_file(trained, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`."""
        _copy_into(base, load_file(folder / WEIGHTS_FILE))
        return self.attach(base)

    def merger(self, trained: nn.Module, skeleton: nn.Module, *, base: MergeBase) -> Merger | None:
        """See `Method.merger`."""
        del skeleton, base
        return _TrainedWeights(trained)

    def merge(self, trained: nn.Module, fresh: nn.Module, *, base: MergeBase | None = None) -> nn.Module:
        """See `Method.merge`."""
        del base
        _copy_into(fresh, dict(trained.named_parameters()))
        return fresh


class _TrainedWeights(Merger):
    """The live model's own weights."""

    def __init__(self, trained: nn.Module) -> None:
        self._weights = dict(trained.named_parameters())

    def merged(self, names: list[str], read: Read) -> Iterator[tuple[str, torch.Tensor]]:
        """See `Merger.merged`."""
        for name in names:
            yield name, self._weights[name].detach() if name in self._weights else read(name)


@torch.no_grad()
def _copy_into(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    # named_parameters lists tied weights once, so each is copied once.
    parameters = dict(model.named_parameters())
    unknown = sorted(set(values) - set(parameters))
    if unknown:
        raise ValueError(f"these weights belong to another model: {', '.join(unknown[:5])}")
    for name, value in values.items():
        parameters[name].copy_(value)


def _require_trained_rows(model: Any) -> None:
    tables = {id(part.weight) for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part}
    frozen = [name for name, value in model.named_parameters() if id(value) in tables and not value.requires_grad]
    if frozen:
        raise RecipeError(
            f"method.parameters: {', '.join(frozen)} stays frozen, and the recipe adds tokens whose rows it holds",
            fix="Add them to method.parameters, or choose a chat template whose tokens the base knows.",
        )


def _summary(names: list[str]) -> str:
    """Parameter names with layer numbers folded, so that thirty layers read as one."""
    folded: dict[str, None] = {}
    for name in names:
        folded[".".join("*" if part.isdigit() else part for part in name.split("."))] = None
    return ", ".join(folded)
