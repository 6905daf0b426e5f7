"""Which layers a method may be put on, with an answer where a name matches nothing."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers.pytorch_utils import Conv1D

from ftkit.errors import Problem, RecipeError
from ftkit.recipe import nearest


def linear_layer_names(model: nn.Module) -> list[str]:
    """The last part of each linear layer's name (``q_proj``), the output head left out, in order of appearance."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found: dict[str, None] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, Conv1D)) and module is not head:
            found[name.rsplit(".", 1)[-1]] = None
    return list(found)


def require_targets(model: nn.Module, targets: Sequence[str]) -> None:
    """Refuse names that match no layer.

    Raises:
        RecipeError: Listing each such name, the nearest real one, and all that exist.
    """
    # What LoRA can stand beside; a block such as "mlp" is no layer.
    kinds = (nn.Linear, Conv1D, nn.Embedding)
    modules = [name for name, module in model.named_modules() if isinstance(module, kinds)]
    known = linear_layer_names(model)
    problems = []
    for target in targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
            near = nearest(target, known)
            problems.append(
                Problem(
                    where="method.target_modules",
                    what=f"{target!r} matches no layer of this model",
                    fix=(f"Did you mean {near!r}? " if near else "") + f"Its linear layers are {', '.join(known)}.",
                )
            )
    if problems:
        raise RecipeError(problems)
