"""Several prompts that one text is written behind, token by token: what mixtures of next-token probabilities rest on.

Probabilities are logarithms in float64: mixtures of many small numbers then lose no digit that a model has.
"""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from ftkit.data.collate import collate
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.errors import ModelError
from ftkit.evaluate.generation import PROMPT_TOKENS_PER_BATCH, Answer, answer_of, pad_left
from ftkit.evaluate.loss import supervised_logits
from ftkit.models.precision import arithmetic
from ftkit.pipeline.target import Target
from ftkit.rag.likelihood import TOKENS_PER_PASS, Reading, answer_example, gives_likelihoods


@dataclass(frozen=True, kw_only=True)
class Behind:
    """What a model says behind one prompt.

    Attributes:
        log_probs: Of every token to come next, (vocabulary,), float64.
        hidden: The last layer's output there, as the head reads it, (width,), float32.
    """

    log_probs: Tensor
    hidden: Tensor


@dataclass(frozen=True, kw_only=True)
class Forced:
    """What a model says of a given text, token by token.

    Attributes:
        log_probs: Of each of its tokens, (tokens,), float64.
        hidden: What the head read to say so, (tokens, width), float32.
        tokens: They.
    """

    log_probs: Tensor
    hidden: Tensor
    tokens: list[int]


# What is said behind each prompt of each question, to log-probabilities of its next token, (questions, vocabulary).
Mix = Callable[[list[list[Behind]]], Tensor]


def require_probabilities(target: Target) -> None:
    """Refuse a model that says no probabilities.

    Raises:
        ModelError: It is one of llama.cpp's.
    """
    if not gives_likelihoods(target):
        raise ModelError(
            "a GGUF file gives answers and no probabilities, so it cannot be mixed with anything",
            fix="Use the run, the model or the adapter that it was made from.",
        )


@torch.no_grad()
def write(questions: Sequence[Sequence[Reading]], mix: Mix, *, max_new_tokens: int) -> list[Answer]:
    """Answer questions greedily, each behind several prompts at once.

    Args:
        questions: Prompts of each; their targets share vocabulary and stop tokens.
        mix: Gives the probabilities that the likeliest token is taken by.
        max_new_tokens: Longest answer.
    """
    started = time.perf_counter()
    target = questions[0][0].target
    streams = _Streams(questions)
    rows: list[list[int]] = [[] for _ in questions]
    nats: list[list[float]] = [[] for _ in questions]
    said = streams.begin()
    while True:
        log_probs = mix(said)
        best = log_probs.argmax(dim=1, keepdim=True)
        chosen = best.squeeze(1).tolist()
        for row, token, each, one in zip(rows, chosen, nats, log_probs.gather(1, best).tolist(), strict=True):
            row.append(token)
            each.append(-one[0])
        ended = all(not set(target.stop_token_ids).isdisjoint(row) for row in rows)
        if ended or len(rows[0]) == max_new_tokens:
            break
        said = streams.go_on(chosen)
    wall_s = time.perf_counter() - started
    answers = [answer_of(row, target.tokenizer, target.stop_token_ids, wall_s) for row in rows]
    return [replace(one, nats=sum(each[: one.tokens])) for one, each in zip(answers, nats, strict=True)]


@torch.no_grad()
def forced(readings: Sequence[Reading], answer: str, *, ended: bool = True) -> list[Forced]:
    """What each model says of an answer behind its prompt.

    Args:
        readings: At least one.
        answer: Tokenised by itself, as readers are trained on it.
        ended: Whether the token that ends an answer belongs to it.

    Returns:
        In their order; shared passes change them by rounding alone.
    """
    examples = [answer_example(one.target, one.ids, answer, ended=ended) for one in readings]
    found: dict[int, Forced] = {}
    for target, places in _by_target(readings):
        for group in _groups([len(examples[place].input_ids) for place in places], target, TOKENS_PER_PASS):
            chosen = [places[index] for index in group]
            found |= zip(chosen, force(target, [examples[place] for place in chosen]), strict=True)
    return [found[place] for place in range(len(readings))]


@torch.no_grad()
def force(target: Target, examples: Sequence[TokenizedExample]) -> list[Forced]:
    """What a model says of the supervised tokens of some texts, in one pass."""
    _choose(target)
    device = next(target.model.parameters()).device
    batch = {name: value.to(device) for name, value in collate(examples).items()}
    with arithmetic(device, target.compute), _head_input(target) as seen:
        logits, targets = supervised_logits(target.model, batch)
    # Without a choice of positions the head also reads the last one, and what stands in front of the text.
    hidden = seen[-1]
    if hidden.shape[1] != targets.shape[1]:
        length = batch["labels"].shape[1]
        hidden = hidden[:, -length:-1]
    found = []
    for row in range(len(examples)):
        places = targets[row] != IGNORED
        tokens = targets[row][places]
        # In float32, as losses are taken everywhere else: over a large vocabulary float64 differs in the sixth digit.
        log_probs = -cross_entropy(logits[row][places], tokens, reduction="none").double().cpu()
        states = hidden[row][places].float().cpu()
        found.append(Forced(log_probs=log_probs, hidden=states, tokens=tokens.tolist()))
    return found


class _Streams:
    """The prompts of several questions, by target, each with the cache of what was read of it.

    Args:
        questions: Prompts of each.
    """

    def __init__(self, questions: Sequence[Sequence[Reading]]) -> None:
        self._counts = [len(one) for one in questions]
        self._owners = [number for number, count in enumerate(self._counts) for _ in range(count)]
        readings = [one for some in questions for one in some]
        self._batches: list[tuple[list[int], _Batch]] = []
        for target, places in _by_target(readings):
            lengths = [len(readings[place].ids) for place in places]
            for group in _groups(lengths, target, PROMPT_TOKENS_PER_BATCH):
                chosen = [places[index] for index in group]
                self._batches.append((chosen, _Batch(target, [readings[place].ids for place in chosen])))

    def begin(self) -> list[list[Behind]]:
        """Read the prompts."""
        return self._gathered([(places, batch.begin()) for places, batch in self._batches])

    def go_on(self, tokens: Sequence[int]) -> list[list[Behind]]:
        """Read one more token behind every prompt of each question."""
        return self._gathered(
            [
                (places, batch.go_on([tokens[self._owners[place]] for place in places]))
                for places, batch in self._batches
            ]
        )

    def _gathered(self, said: Sequence[tuple[list[int], list[Behind]]]) -> list[list[Behind]]:
        by_place = {place: one for places, some in said for place, one in zip(places, some, strict=True)}
        ordered = iter([by_place[place] for place in range(len(by_place))])
        return [[next(ordered) for _ in range(count)] for count in self._counts]


class _Batch:
    """Prompts that one target reads together, padded on the left; where it does not pad, there is one.

    Args:
        target: Reads.
        prompts: Token ids.
    """

    def __init__(self, target: Target, prompts: Sequence[Sequence[int]]) -> None:
        self._target = target
        self._device = next(target.model.parameters()).device
        ids, mask = pad_left(prompts, target.stop_token_ids[0])
        self._ids, self._mask = ids.to(self._device), mask.to(self._device)
        self._cache: Any = None

    def begin(self) -> list[Behind]:
        """Read the prompts."""
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        return self._read(self._target.model, self._ids, positions)

    def go_on(self, tokens: Sequence[int]) -> list[Behind]:
        """Read a token each."""
        model: Any = self._target.model
        if not self._target.pads_prompts:
            # PEFT would put the learned positions in front once more; the cache has them.
            model = model.get_base_model()
        ids = torch.tensor(tokens, device=self._device).unsqueeze(1)
        self._mask = torch.cat([self._mask, torch.ones_like(ids)], dim=1)
        return self._read(model, ids, self._mask.sum(dim=1, keepdim=True) - 1)

    def _read(self, model: Any, ids: Tensor, positions: Tensor) -> list[Behind]:
        _choose(self._target)
        inputs: dict[str, Any] = {"input_ids": ids, "use_cache": True}
        accepted = inspect.signature(type(_inner(model)).forward).parameters
        if self._target.pads_prompts:
            inputs["attention_mask"] = self._mask
            if "position_ids" in accepted:
                inputs["position_ids"] = positions
        if self._cache is not None:
            inputs["past_key_values"] = self._cache
        if "logits_to_keep" in accepted:
            inputs["logits_to_keep"] = 1
        with _head_input(self._target) as seen:
            output = model(**inputs)
        self._cache = output.past_key_values
        log_probs = log_softmax(output.logits[:, -1].double(), dim=1)
        hidden = seen[-1][:, -1].float()
        return [Behind(log_probs=one, hidden=other) for one, other in zip(log_probs, hidden, strict=True)]


def _by_target(readings: Sequence[Reading]) -> list[tuple[Target, list[int]]]:
    """Places of each target's prompts, so that adapters that share a model change as seldom as can be."""
    found: dict[int, tuple[Target, list[int]]] = {}
    for place, one in enumerate(readings):
        found.setdefault(id(one.target), (one.target, []))[1].append(place)
    return list(found.values())


def _groups(lengths: Sequence[int], target: Target, budget: int) -> list[list[int]]:
    """Places of similar length, as many as one pass may hold; alone where the target does not pad."""
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and target.pads_prompts and (len(groups[-1]) + 1) * lengths[place] <= budget:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _choose(target: Target) -> None:
    if target.choose is not None:
        target.choose()
    target.model.eval()


def _inner(model: Any) -> Any:
    while hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return model


@contextlib.contextmanager
def _head_input(target: Target) -> Iterator[list[Tensor]]:
    """A list that gets whatever the output head reads."""
    seen: list[Tensor] = []
    head = _inner(target.model).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        yield seen
    finally:
        handle.remove()
