"""The contract that every tuning method keeps; ``tests/contract`` holds each entry of `METHODS` to it."""

from __future__ import annotations

import abc
import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ftkit.errors import MissingPartError, RecipeError, UsageError

FIRST = "default"  # the name of a base's first adapter, as PEFT gives it


class NotMergeableError(TypeError):
    """A merged model was asked of a method that has none; recipes refuse it before it comes to this."""


Read = Callable[[str], Tensor]
MergeBase = Literal["original", "dequantised"]


class Merger(abc.ABC):
    """Merges the modules of a base one after the other."""

    @abc.abstractmethod
    def merged(self, names: list[str], read: Read) -> Iterator[tuple[str, Tensor]]:
        """The tensors of one module after merging.

        Args:
            names: All tensors of one module, by their names in the base.
            read: Gives the base's tensor of a name, float32.
        """


class Method(abc.ABC):
    """One way of tuning a model.

    Attributes:
        mergeable: Whether the result can be written into plain weights of the base's architecture.
        exact_at_init: Whether an untrained attachment leaves the base's logits bit for bit as they were.
        trains_base_weights: Whether the base's own weights are trained (they are then held in float32).
        needs_float32_base: Whether 16 bits are too few for the frozen base, because its weights are changed once,
            copied to be trained, or measured.
        exact_forward: Whether the forward pass is a function of the weights alone up to float rounding. False where
            activations are quantised on the way, which no merged model can imitate.
        pads_prompts: Whether prompts of unequal length may share a batch, padded on the left, when answers are
            generated. False where learned positions stand before the padding.
        packs: Whether several examples may share a sequence, where the model keeps them apart.
        unpacked_because: Why not, in words that follow "not packed:".
        virtual_tokens: Learned positions in front of every text that a merged export has as tokens of its vocabulary.
        has_own_start: Whether `start` has something to do.
        merge_bases: The forms of the base that a merge can go into; of several, the export measures each and keeps
            the one that behaves most like the trained model.
        shares_base: Whether several adapters fit onto one base (`load_beside`) and are chosen by name (`choose`).
        needs: Import names of optional packages.
    """

    mergeable: ClassVar[bool]
    exact_at_init: bool
    trains_base_weights: ClassVar[bool] = False
    needs_float32_base: bool = False
    exact_forward: bool = True
    pads_prompts: ClassVar[bool] = True
    packs: ClassVar[bool] = True
    unpacked_because: ClassVar[str] = ""
    virtual_tokens: int = 0
    has_own_start: bool = False
    merge_bases: ClassVar[tuple[MergeBase, ...]] = ("original",)
    shares_base: ClassVar[bool] = False
    needs: tuple[str, ...] = ()

    def require_parts(self) -> None:
        """Refuse to start without the packages this method needs.

        Raises:
            MissingPartError: With the command that installs them.
        """
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                raise MissingPartError(
                    f"{package} is not installed", fix="Run: pip install 'ftkit[qlora]' (or 'ftkit[all]')"
                )

    def bind(self, tokenizer: Any, added_token_ids: Sequence[int] = ()) -> None:
        """Learn what only the tokenizer can tell; call it before `attach`.

        Args:
            tokenizer: In its final form.
            added_token_ids: Tokens that the recipe adds to the base's vocabulary, whose rows must be trained.

        Raises:
            RecipeError: The method has no place for them, or a setting names what the tokenizer lacks.
        """
        del tokenizer
        if added_token_ids:
            raise RecipeError(
                f"model.chat_template or model.added_tokens: {len(added_token_ids)} new in the vocabulary, and this "
                "method's adapter has no place for their rows",
                fix="Use recipe: lora, qlora or full, a base whose vocabulary has these tokens, or added_tokens: [].",
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

    def start(self, model: nn.Module, texts: Sequence[Sequence[int]], original: Callable[[], nn.Module]) -> None:
        """Choose the initial weights by the training data or the base; once after `attach`, not when resuming.

        Args:
            model: What `attach` returned.
            texts: Token ids of training examples.
            original: Loads the base without quantisation in float32.
        """
        del model, texts, original

    def learning_rate_factors(self, model: nn.Module) -> Mapping[str, float]:
        """Parameters that do not learn at the recipe's rate, by name, with their factors on it."""
        del model
        return {}

    def undecayed(self, model: nn.Module) -> set[str]:
        """Names of trained matrices that weight decay must leave alone, as zero is not where they say nothing."""
        del model
        return set()

    def training_hooks(self, model: nn.Module, total_steps: int | None) -> Any:
        """What the method does within training (see `ftkit.train.spec.TrainingHooks`); None for nothing.

        Args:
            model: What `attach` returned.
            total_steps: Of the whole run; None where a checkpoint is only read back.
        """
        del model, total_steps

    @abc.abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Write what was trained, in the method's own published format, as safetensors."""

    @abc.abstractmethod
    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """Put what `save` wrote onto a freshly loaded base."""

    def merger(self, trained: nn.Module, skeleton: nn.Module, *, base: MergeBase) -> Merger | None:
        """What merges the trained model into its base one module after the other, without a second model in memory.

        Args:
            trained: The live model.
            skeleton: The base on the meta device, with rows for added tokens; it is changed.
            base: Into which form of the base; one of `merge_bases`.

        Returns:
            None where modules cannot be merged one by one, as with projections that layers share; then `merge`.
        """
        del trained, skeleton, base
        return None

    def load_beside(self, loaded: nn.Module, folder: Path, name: str) -> None:
        """Put one more adapter onto what `load` returned; it stays as it is until `choose` chooses another.

        Args:
            loaded: With an adapter of the same kind.
            folder: The other adapter's.
            name: To choose it by.

        Raises:
            UsageError: The two cannot share a base.
        """
        del loaded, name
        raise UsageError(
            f"{folder}: {type(self).__name__} cannot put several adapters onto one base",
            fix="Serve each in a process of its own, on a port of its own.",
        )

    def choose(self, loaded: nn.Module, name: str) -> None:
        """Let the adapter of this name answer; `FIRST` is the one that `load` loaded."""
        del loaded
        raise UsageError(f"{type(self).__name__} has one adapter, none named {name!r}")

    def merge(self, trained: nn.Module, fresh: nn.Module, *, base: MergeBase | None = None) -> nn.Module:
        """Write the trained model into a plain one; what stands in front of texts comes by `virtual_embeddings`.

        Args:
            trained: The live model.
            fresh: The base, freshly loaded without quantisation in float32; it is changed and returned.
            base: Into which form of the base; None for the first of `merge_bases`.

        Raises:
            NotMergeableError: No plain model behaves like the trained one.
        """
        del trained, fresh, base
        raise NotMergeableError(f"{type(self).__name__} has no plain weights to be merged into")

    def virtual_embeddings(self, trained: nn.Module) -> Tensor | None:
        """What the trained model puts in front of every text, BOS included.

        Returns:
            (virtual_tokens, width), as the first layer sees them; None for a method that puts nothing there.
        """
        del trained
        return None

    @contextlib.contextmanager
    def float32_arithmetic(self, model: nn.Module) -> Any:
        """A block in which the model computes in float32 wherever it can, for exact comparisons."""
        del model
        yield
