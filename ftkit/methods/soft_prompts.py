"""Prefix and prompt tuning through PEFT: learned positions in front of every text, the base untouched."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from peft import PeftModel, PrefixTuningConfig, PromptTuningConfig, PromptTuningInit
from torch import Tensor, nn
from transformers import DynamicCache

from ftkit.errors import RecipeError
from ftkit.methods.method import MergeBase
from ftkit.methods.peft_calls import ADAPTER, quiet_peft
from ftkit.methods.peft_method import PeftMethod


class _SoftPromptMethod(PeftMethod):
    """What prefix and prompt tuning share.

    Args:
        num_virtual_tokens: Learned positions.
        init: How they start.
        init_text: Text to start from.
    """

    mergeable: ClassVar[bool] = False
    exact_at_init = False
    # The learned positions stand before the padding of a left-padded batch, and PEFT lets go of the position ids that
    # would tell: an answer would depend on its neighbours' lengths.
    pads_prompts = False
    # There is one of them in front of a sequence, however many examples it holds; and PEFT lets go of position ids.
    packs = False
    unpacked_because = "this method's learned positions stand in front of a sequence, so each example needs its own"

    def __init__(self, *, num_virtual_tokens: int, init: str, init_text: str | None) -> None:
        self.num_virtual_tokens = num_virtual_tokens
        self.init = init
        self.init_text = init_text
        self.init_ids: list[int] = []

    def bind(self, tokenizer: Any, added_token_ids: Sequence[int] = ()) -> None:
        """See `Method.bind`: the initial text as tokens."""
        super().bind(tokenizer, added_token_ids)
        if self.init != "text":
            return
        ids = list(tokenizer(self.init_text, add_special_tokens=False)["input_ids"])
        if len(ids) > self.num_virtual_tokens:
            raise RecipeError(
                f"method.init_text: is {len(ids)} tokens, method.num_virtual_tokens is {self.num_virtual_tokens}",
                fix=f"Set num_virtual_tokens to at least {len(ids)}, or shorten the text.",
            )
        self.init_ids = _repeated(ids, self.num_virtual_tokens)

    def undecayed(self, model: nn.Module) -> set[str]:
        """See `Method.undecayed`: a prompt of zeros is no empty prompt."""
        return {name for name, value in model.named_parameters() if value.requires_grad and "prompt_encoder." in name}

    def load(self, base: nn.Module, folder: Path) -> nn.Module:
        """See `Method.load`. What was learned through a projection is saved without it, and trains no more."""
        with quiet_peft():
            loaded: nn.Module = PeftModel.from_pretrained(base, folder, is_trainable=False, local_files_only=True)
        return loaded


class PrefixMethod(_SoftPromptMethod):
    """Learned keys and values in front of every layer's own, for every text the same.

    Args:
        num_virtual_tokens: Positions.
        init: ``data``, ``text`` or ``random``.
        init_text: For ``text``.
        prefix_projection: Learn them through a two-layer network.
        encoder_hidden_size: Its width; None for the model's.

    Source:
        Li and Liang 2021, arXiv:2101.00190; starting from real activations: their section 7.5.
    """

    def __init__(
        self,
        *,
        num_virtual_tokens: int = 20,
        init: Literal["data", "text", "random"] = "data",
        init_text: str | None = None,
        prefix_projection: bool = False,
        encoder_hidden_size: int | None = None,
    ) -> None:
        super().__init__(num_virtual_tokens=num_virtual_tokens, init=init, init_text=init_text)
        self.prefix_projection = prefix_projection
        self.encoder_hidden_size = encoder_hidden_size
        self.has_own_start = init == "data"

    def config(self, model: Any) -> PrefixTuningConfig:
        """See `PeftMethod.config`."""
        return PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            prefix_projection=self.prefix_projection,
            encoder_hidden_size=self.encoder_hidden_size or model.get_input_embeddings().weight.shape[1],
            init_weights=None,
        )

    def attach(self, model: nn.Module) -> nn.Module:
        """See `Method.attach`."""
        attached = super().attach(model)
        if self.init_ids and next(model.parameters()).device.type != "meta":
            self._start_with(attached, self.init_ids)
        return attached

    def start(self, model: nn.Module, texts: Sequence[Sequence[int]], original: Callable[[], nn.Module]) -> None:
        """See `Method.start`: the beginning of the data, as if it stood in front of every text."""
        del original
        if self.init == "data":
            ids: list[int] = []
            for text in texts:
                ids += text
                if len(ids) >= self.num_virtual_tokens:
                    break
            self._start_with(model, _repeated(ids, self.num_virtual_tokens))

    @torch.no_grad()
    def _start_with(self, model: Any, ids: list[int]) -> None:
        base = model.get_base_model()
        embedding: Tensor = model.prompt_encoder[ADAPTER].embedding.weight
        was_training = base.training
        base.eval()
        # Plain, without the model's config: a cache that knows of sliding windows would forget early keys.
        cache = DynamicCache()
        base(input_ids=torch.tensor([ids], device=embedding.device), past_key_values=cache, use_cache=True)
        base.train(was_training)
        # Per token: for every layer its keys and its values, (heads, head width) each.
        parts = [part[0].transpose(0, 1) for layer in cache.layers for part in (layer.keys, layer.values)]
        embedding.copy_(torch.stack(parts, dim=1).flatten(1))


class PromptMethod(_SoftPromptMethod):
    """Learned embeddings in front of every text's own.

    A plain model behaves like the trained one when its vocabulary has them and its tokenizer writes them.

    Args:
        num_virtual_tokens: Positions.
        init: ``vocabulary``, ``text`` or ``random``.
        init_text: For ``text``.

    Source:
        Lester et al. 2021, arXiv:2104.08691.
    """

    mergeable: ClassVar[bool] = True

    def __init__(
        self,
        *,
        num_virtual_tokens: int = 20,
        init: Literal["vocabulary", "text", "random"] = "vocabulary",
        init_text: str | None = None,
    ) -> None:
        super().__init__(num_virtual_tokens=num_virtual_tokens, init=init, init_text=init_text)
        self.virtual_tokens = num_virtual_tokens

    def config(self, model: nn.Module) -> PromptTuningConfig:
        """See `PeftMethod.config`."""
        del model
        sampled = self.init == "vocabulary"
        return PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=self.num_virtual_tokens,
            # Text is set in `attach`: PEFT would tokenise it with special tokens, by a tokenizer that it looks up.
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB if sampled else PromptTuningInit.RANDOM,
        )

    def merge(self, trained: nn.Module, fresh: nn.Module, *, base: MergeBase | None = None) -> nn.Module:
        """See `Method.merge`: the base's weights are the trained model's."""
        del trained, base
        return fresh

    def virtual_embeddings(self, trained: Any) -> Tensor:
        """See `Method.virtual_embeddings`."""
        learned: Tensor = trained.prompt_encoder[ADAPTER].embedding.weight
        return learned.detach().float().cpu()

    def attach(self, model: Any) -> nn.Module:
        """See `Method.attach`."""
        attached: Any = super().attach(model)
        if self.init_ids and next(model.parameters()).device.type != "meta":
            with torch.no_grad():
                weight = attached.prompt_encoder[ADAPTER].embedding.weight
                # Through the module: Gemma's scales what it looks up.
                weight.copy_(model.get_input_embeddings()(torch.tensor(self.init_ids, device=weight.device)))
        return attached


def _repeated(ids: list[int], length: int) -> list[int]:
    return (ids * math.ceil(length / len(ids)))[:length]
