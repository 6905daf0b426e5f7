"""Which layers a method may be put on, with an answer where a name matches nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ftkit.errors import Problem, RecipeError
from ftkit.nearest import nearest


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
        problems += _tied(model, target)
    if problems:
        raise RecipeError(problems)


def _tied(model: Any, target: str) -> list[Problem]:
    """A correction of one side of a tied embedding cannot be merged: the other side would change with it."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embedding.weight:
        return []
    return [
        Problem(
            where="method.target_modules",
            what=f"{target!r} is tied: embedding and output head share one tensor, and a merge would change both",
            fix="Train it whole with method.modules_to_save, or rows of it with method.trainable_tokens.",
        )
        for name, module in model.named_modules()
        if module in (embedding, head) and (name == target or name.endswith(f".{target}"))
    ]


def require_patterns(
    model: nn.Module, targets: Literal["all-linear"] | Sequence[str], **patterns: Mapping[str, Any]
) -> None:
    """Refuse layer patterns that match no adapted layer: PEFT would pass over them without a word.

    Args:
        model: The base.
        targets: The adapted layers.
        patterns: By the name of their setting; keys match as in PEFT, at the end of a layer's name.

    Raises:
        RecipeError: Listing each such key and the layers that there are.
    """
    adapted = [name for name, _ in _adapted_layers(model, targets)]
    problems = [
        Problem(
            where=f"method.{setting}",
            what=f"{key!r} matches no layer that this recipe adapts",
            fix=f"One of these is {adapted[0]}; the end of a name is enough." if adapted else "",
        )
        for setting, pattern in patterns.items()
        for key in pattern
        if not any(_matches(key, name) for name in adapted)
    ]
    if problems:
        raise RecipeError(problems)


def require_rank(
    model: nn.Module,
    targets: Literal["all-linear"] | Sequence[str],
    rank: int,
    rank_pattern: Mapping[str, int],
    *,
    in_every_layer: bool,
) -> None:
    """Refuse a rank that no adapted layer can have: a matrix has no more than its shorter side.

    Args:
        model: The base.
        targets: The adapted layers.
        rank: As asked for.
        rank_pattern: Other ranks by layer.
        in_every_layer: Each layer must have it, because it starts from that many of its singular vectors.

    Raises:
        RecipeError: Naming the layer that decides.
    """
    sides = {name: min(_sides(layer)) for name, layer in _adapted_layers(model, targets) if _sides(layer)}
    own = {name: next((own for key, own in rank_pattern.items() if _matches(key, name)), rank) for name in sides}
    longest = max(sides.values(), default=rank)
    for name, side in sides.items():
        if own[name] > (side if in_every_layer else longest):
            why = ", from that many of whose singular vectors it starts" if in_every_layer else " or of any layer"
            raise RecipeError(
                f"method.rank: {own[name]} is above {side}, the shorter side of {name}{why}",
                fix=f"Use at most {side if in_every_layer else longest}; 8 to 64 are usual.",
            )


def _sides(layer: nn.Module) -> tuple[int, ...]:
    """Input and output width; of quantised layers the real ones, which their packed weight does not show."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    weight = getattr(layer, "weight", None)
    return tuple(weight.shape) if isinstance(weight, torch.Tensor) and weight.dim() == 2 else ()


def require_linear(model: nn.Module, targets: Literal["all-linear"] | Sequence[str], *, why: str) -> None:
    """Refuse adapted layers that are no linear layers: embeddings, and experts that share one tensor.

    Raises:
        RecipeError: With the reason.
    """
    odd = [name for name, layer in _adapted_layers(model, targets) if not isinstance(layer, (nn.Linear, Conv1D))]
    if targets == "all-linear":
        odd += experts(model)
    if odd:
        raise RecipeError(
            f"method.init: {why}, and {odd[0]} is none", fix="Use init: default, or other target_modules."
        )


def experts(model: nn.Module) -> list[str]:
    """Parameters that hold the matrices of many experts in one tensor, (experts, out, in)."""
    return [name for name, value in model.named_parameters() if value.dim() == 3]


def require_plain_linear(model: nn.Module, targets: Literal["all-linear"] | Sequence[str], *, why: str) -> None:
    """Refuse layers that hold their weight transposed, as GPT-2's Conv1D.

    Raises:
        RecipeError: With the reason.
    """
    for name, layer in _adapted_layers(model, targets):
        if isinstance(layer, Conv1D):
            raise RecipeError(f"method.init: {why}, and {name} has one", fix="Use init: pissa, eva or default.")


def _adapted_layers(model: nn.Module, targets: Literal["all-linear"] | Sequence[str]) -> list[tuple[str, nn.Module]]:
    wanted = linear_layer_names(model) if targets == "all-linear" else list(targets)
    return [
        (name, module)
        for name, module in model.named_modules()
        if any(name == target or name.endswith(f".{target}") for target in wanted)
    ]


def _matches(key: str, name: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({key})$", name) is not None
    except re.error:
        return False


def require_modules(model: nn.Module, wanted: Sequence[str]) -> None:
    """Refuse ``modules_to_save`` that do not exist or cannot be trained whole.

    Raises:
        RecipeError: Listing each.
    """
    modules = dict(model.named_modules())
    last_names = list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in modules if name))
    problems = []
    for name in wanted:
        found = [module for path, module in modules.items() if path == name or path.endswith(f".{name}")]
        if not found:
            near = nearest(name, last_names)
            fix = f"Did you mean {near!r}?" if near else f"Its modules are {', '.join(last_names)}."
            problems.append(
                Problem(where="method.modules_to_save", what=f"{name!r} is no module of this model", fix=fix)
            )
        elif any(not value.is_floating_point() for module in found for value in module.parameters()):
            problems.append(
                Problem(
                    where="method.modules_to_save",
                    what=f"{name!r} is held in quantised form, which cannot be trained",
                    fix="Use recipe: lora, or leave it out.",
                )
            )
    if problems:
        raise RecipeError(problems)
