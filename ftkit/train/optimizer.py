"""Which parameters are optimised alike, and at which rate."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from ftkit.train.schedule import rate_factor
from ftkit.train.spec import FitSpec


def parameter_groups(model: nn.Module, spec: FitSpec, *, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Parameters that train, by factor on the learning rate and then by weight decay.

    The groups with factor 1 stand first, empty or not: the Trainer logs the first group's rate, which is then always
    ``spec.learning_rate`` on its course.

    Args:
        model: With the parameters that ``spec.learning_rate_factors`` names.
        spec: Rate, factors and decay.
        decayed: Names of the parameters that may decay; they may include frozen ones, vectors, and those of
            ``spec.undecayed``.

    Returns:
        What torch's optimizers take, each parameter once, in the model's order within its group.

    Raises:
        ValueError: A factor is for a name that no training parameter has.
    """
    factors = spec.learning_rate_factors
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    # A vector kept as (n, 1), as of (IA)3, is no matrix: its neutral value is 1, and decay would switch the base off.
    decaying = {name for name in decayed if name in trained and name not in spec.undecayed}
    decaying = {name for name in decaying if min(trained[name].shape, default=1) > 1}
    if unknown := sorted(factors.keys() - trained.keys()):
        raise ValueError(f"learning_rate_factors: no parameter that trains is called {', '.join(unknown[:5])}")
    return [
        {
            "params": [
                value
                for name, value in trained.items()
                if factors.get(name, 1.0) == factor and (name in decaying) == decays
            ],
            "weight_decay": spec.weight_decay if decays else 0.0,
            "lr": spec.learning_rate * factor,
        }
        for factor in [1.0, *sorted(set(factors.values()) - {1.0})]
        for decays in (True, False)
    ]


def rate_schedule(optimizer: Any, spec: FitSpec, total_steps: int) -> LambdaLR:
    """Each group's own peak rate, led through the same course."""
    factor = functools.partial(
        rate_factor,
        schedule=spec.schedule,
        warmup_steps=math.ceil(spec.warmup * total_steps),
        total_steps=total_steps,
    )
    return LambdaLR(optimizer, factor)
