"""Multinomial logistic regression, small enough to be solved exactly and the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MAX_STEPS, GRADIENT_LIMIT, MEMORY = 1000, 1e-9, 20


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """A fitted classifier.

    Attributes:
        weights: Of standardised features, (classes, features), float64.
        bias: (classes,), float64; minus infinity of a class that was never seen.
        mean: Of each feature where it was fitted, (features,), float64.
        scale: Its standard deviation there; 1 of a feature that did not vary.
    """

    weights: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor

    def probabilities(self, features: Tensor) -> Tensor:
        """Of each class.

        Args:
            features: (rows, features), any float dtype.

        Returns:
            (rows, classes), float64; rows sum to 1.
        """
        standard = (features.double() - self.mean) / self.scale
        return (standard @ self.weights.T + self.bias).softmax(dim=1)

    def classes(self, features: Tensor) -> list[int]:
        """The likeliest class of each row; the first of equals."""
        return [int(row.argmax()) for row in self.probabilities(features)]


def fit_logistic(features: Tensor, labels: Sequence[int], *, classes: int, l2: float) -> Logistic:
    """Minimise the mean cross-entropy plus half of ``l2`` times the squared weights, the bias left free.

    Full-batch L-BFGS in float64 from zero on a convex loss: no seed, and the same bits each time.

    Args:
        features: (rows, features), any float dtype.
        labels: The class of each row.
        classes: How many there are; those without a row get no probability.
        l2: Above 0.
    """
    plain = features.detach().double().cpu()
    mean, spread = plain.mean(dim=0), plain.std(dim=0, unbiased=False)
    scale = torch.where(spread > 1e-12, spread, torch.ones_like(spread))
    standard = (plain - mean) / scale
    seen = sorted(set(labels))
    wanted = torch.tensor([seen.index(label) for label in labels])
    solved = _solve(standard, wanted, len(seen), l2)
    weights = torch.zeros(classes, plain.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), -torch.inf, dtype=torch.float64)
    weights[seen], bias[seen] = solved[:, :-1], solved[:, -1]
    return Logistic(weights=weights, bias=bias, mean=mean, scale=scale)


@torch.enable_grad()
def _solve(standard: Tensor, labels: Tensor, classes: int, l2: float) -> Tensor:
    """Weights and, as the last column, bias, (classes, features + 1)."""
    values = torch.zeros(classes, standard.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [values],
        lr=1.0,
        max_iter=MAX_STEPS,
        max_eval=2 * MAX_STEPS,
        tolerance_grad=GRADIENT_LIMIT,
        tolerance_change=1e-14,
        history_size=MEMORY,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = standard @ values[:, :-1].T + values[:, -1]
        total = nn.functional.cross_entropy(logits, labels) + 0.5 * l2 * values[:, :-1].square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return values.detach()
