"""A model with a memory: what came next where it thought alike counts beside what it would say itself.

    p(y_t) = (1 - w) p_model(y_t) + w p_nearest(y_t)

What is added to the memory is known at once, without training, and so is what is forgotten.

Source:
    Khandelwal et al. 2020, arXiv:1911.00172.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ftkit.errors import UsageError
from ftkit.evaluate.generation import Answer
from ftkit.evaluate.loss import Loss
from ftkit.files import sha256_json
from ftkit.hybrid.datastore import Datastore, Neighbours
from ftkit.hybrid.reading import Behind, Forced, forced, require_probabilities, write
from ftkit.hybrid.remembered import text_digest
from ftkit.hybrid.weights import WeighedSystem, log_weights, mixed
from ftkit.rag.likelihood import Reading, has_room
from ftkit.rag.passage import Hit
from ftkit.rag.threshold import generator_sha256


@dataclass(frozen=True, kw_only=True)
class NearestParts:
    """What the model and its memory say of one answer.

    Attributes:
        first: By the model, (tokens,), float64.
        neighbours: Nearest entries to its state before each token.
        tokens: Of the answer, (tokens,).
    """

    first: Tensor
    neighbours: Neighbours
    tokens: Tensor

    def second(self, temperature: float) -> Tensor:
        """See `ftkit.hybrid.weights.Parts`: the memory's."""
        shares = torch.softmax(-self.neighbours.distances / temperature, dim=1)
        right = self.neighbours.tokens == self.tokens.unsqueeze(1)
        return (shares * right).sum(dim=1).log()


@dataclass(frozen=True, kw_only=True)
class NearestSystem(WeighedSystem):
    """A system whose generator remembers a datastore; passages come to it as to any other.

    Attributes:
        datastore: That this very generator made.
        temperature: Of the softmax over squared distances: the higher, the more alike neighbours count.
        neighbours: Entries that count.
        follows: Whether the texts in it are passages of the index: what stands there no more counts no more, nor do
            answers that were given from it.
    """

    datastore: Datastore
    temperature: float = 10.0
    neighbours: int = 64
    follows: bool = False
    _by_version: dict[int, Datastore] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbours < 1:
            raise UsageError(f"neighbours is {self.neighbours}; at least one is needed", fix="Take 64.")
        require_probabilities(self.generator)
        self.datastore.require_generator(self.generator)

    @property
    def identity(self) -> str:
        """See `RagSystem.identity`."""
        settings = [self.weight, self.temperature, self.neighbours]
        return sha256_json(["nearest", generator_sha256(self.generator), self.memory.sha256, *settings])

    @property
    def memory(self) -> Datastore:
        """What counts of the datastore now."""
        if not self.follows:
            return self.datastore
        version = self.index.version
        if version not in self._by_version:
            self._by_version.clear()
            standing = {text_digest(one.content) for one in self.index.all_passages()}
            remembered = {text for source in self.datastore.sources for text in source.texts}
            self._by_version[version] = self.datastore.without(remembered - standing)
        return self._by_version[version]

    def answer_nll(self, question: str, hits: Sequence[Hit], answer: str, *, ended: bool = True) -> Loss:
        """See `RagSystem.answer_nll`: of the mixture, token by token."""
        read = forced(self.readings(question, hits), answer, ended=ended)[0]
        log_probs = read.log_probs
        if self.weight > 0 and not self.memory.is_empty:
            both = torch.stack([log_probs, self._parts(read).second(self.temperature)])
            log_probs = mixed(both, log_weights(self.weight))
        return Loss(mean=-float(log_probs.mean()), tokens=len(log_probs))

    def parts(self, question: str, hits: Sequence[Hit], answer: str) -> NearestParts | None:
        """See `WeighedSystem.parts`."""
        readings = self.readings(question, hits)
        return self._parts(forced(readings, answer)[0]) if has_room(readings, answer) else None

    def _parts(self, read: Forced) -> NearestParts:
        found = self.memory.nearest(read.hidden, self.neighbours)
        return NearestParts(first=read.log_probs, neighbours=found, tokens=torch.tensor(read.tokens))

    def _generate_all(self, ids: list[list[int]], max_new_tokens: int | None) -> list[Answer]:
        readings = [[Reading(target=self.generator, ids=one)] for one in ids]
        answers: list[Answer] = write(readings, self._mix, max_new_tokens=max_new_tokens or self.max_new_tokens)
        return answers

    def _mix(self, said: list[list[Behind]]) -> Tensor:
        own = torch.stack([one.log_probs for (one,) in said]).cpu()
        memory = self.memory
        if self.weight == 0 or memory.is_empty:
            return own
        states = torch.stack([one.hidden for (one,) in said]).cpu()
        found = memory.nearest(states, self.neighbours)
        remembered = found.log_probs(own.shape[1], self.temperature)
        return mixed(torch.stack([own, remembered]), log_weights(self.weight))
