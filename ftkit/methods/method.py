"""The contract that every tuning method keeps; ``tests/contract`` holds each entry of `METHODS` to it."""

from __future__ import annotations

import abc
import contextlib
import importlib.util
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from ftkit.errors import MissingPartError


class Method(abc.ABC):
    """One way of tuning a model.

    Attributes:
        mergeable: Whether the result can be written into plain weights of the base's architecture.
        exact_at_init: Whether an untrained attachment leaves the base's logits bit for bit as they were.
        trains_base_weights: Whether the base's own weights change (they are then held in float32).
        exact_forward: Whether the forward pass is a function of the weights alone up to float rounding. False where
            activations are quantised on the way, which no merged model can imitate.
        needs: Import names of optional packages.
    """

    mergeable: ClassVar[bool]
    exact_at_init: ClassVar[bool]
    trains_base_weights: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    exact_forward: bool = True

    @classmethod
    def require_parts(cls) -> None:
        """Refuse to start without the packages this method needs.

        Raises:
            MissingPartError: With the command that installs them.
        """
        for package in cls.needs:
            if importlib.util.find_spec(package) is None:
                raise MissingPartError(
                    f"{package} is not installed", fix="Run: pip install 'ftkit[qlora]' (or 'ftkit[all]')"
                )

    def quantization(self, compute: torch.dtype) -> Any:
        """How the base is to be quantised while it is loaded; None for not at all."""
        del compute

    def prepare(self, base: nn.Module) -> nn.Module:
        """Make a freshly loaded base safe to evaluate and to train; call it before the first forward pass."""
        return base

    @abc.abstractmethod
    def attach(self, model: nn.Module) -> nn.Module:
        """Make the base trainable by this method, and only by it.

        Draws its initial weights from torch's global generator: seed before.

        Returns:
            The model to train; parameters that train have ``requires_grad``, all others do not.

        Raises:
            RecipeError: A named layer or parameter does not exist.
        """

    @abc.abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what was trained, in the method's own published format, as safetensors."""

    @abc.abstractmethod
    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """Put what `save` wrote onto a freshly loaded base."""

    @abc.abstractmethod
    def merge(self, trained: nn.Module, fresh: nn.Module) -> nn.Module:
        """Write the trained model into a plain one.

        Args:
            trained: The live model.
            fresh: The base, freshly loaded without quantisation in float32; it is changed and returned.
        """

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """A block in which the model computes in float32 wherever it can, for exact comparisons."""
        del model
        yield
