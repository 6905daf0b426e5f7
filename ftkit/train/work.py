"""How much computing training took: floating-point operations, counted from the tokens that met each network.

A product of matrices costs two operations a parameter and token forward, as many again backward for the gradient of
what went in, and as many again for the gradient of each parameter that learns (Kaplan et al. 2020, arXiv:2001.08361,
section 2.1). Attention's own products, a few percent at these lengths, are left out everywhere alike.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass
class Spent:
    """What one process has trained on so far.

    Attributes:
        flops: Floating-point operations.
        steps: Optimizer steps that they were spent in.
    """

    flops: float = 0.0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Matrices:
    """A network's parameters that every token is multiplied with.

    Attributes:
        all: How many there are; tables that are only looked up are none.
        learning: How many of all its parameters learn.
    """

    all: int
    learning: int

    def forward(self, tokens: int) -> float:
        """Operations of one pass without a gradient."""
        return 2.0 * self.all * tokens

    def trained(self, tokens: int) -> float:
        """Operations of one pass and its gradient; of a pass alone where nothing learns."""
        return (4.0 * self.all + 2.0 * self.learning) * tokens if self.learning else self.forward(tokens)


def matrices_of(module: nn.Module) -> Matrices:
    """Count a network's.

    A quantised weight counts as what it stands for. A table that is the output head too is multiplied with.
    """
    tables = {id(one.weight) for one in module.modules() if isinstance(one, nn.Embedding)}
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    if head is not None:
        tables.discard(id(head.weight))
    parameters = list(module.parameters())
    return Matrices(
        all=sum(_size(value) for value in parameters if id(value) not in tables),
        learning=sum(value.numel() for value in parameters if value.requires_grad),
    )


def _size(value: nn.Parameter) -> int:
    state = getattr(value, "quant_state", None)
    return value.numel() if state is None else int(state.shape.numel())
