"""A tuned model and a reader of passages answer as one: their next-token probabilities are mixed.

    p(y_t) = (1 - w) p_tuned(y_t | x, y_<t) + w sum_k p_k p_reader(y_t | x, z_k, y_<t)

The reader sees one passage at a time, and p_k is the softmax of the passages' search scores.

Source:
    Lewis et al. 2020, arXiv:2005.11401, section 2.1 (RAG-token).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from ftkit.errors import DataError, ModelError
from ftkit.evaluate.loss import Loss
from ftkit.files import sha256_json
from ftkit.hybrid.reading import Behind, forced, require_probabilities, write
from ftkit.hybrid.weights import WeighedSystem, log_weights, mixed
from ftkit.pipeline.target import Target
from ftkit.rag.cited import Said
from ftkit.rag.likelihood import Reading, has_room
from ftkit.rag.passage import Hit
from ftkit.rag.reader import ReaderPrompts
from ftkit.rag.threshold import generator_sha256


@dataclass(frozen=True, kw_only=True)
class MixtureParts:
    """What the tuned model and the reader say of one answer.

    Attributes:
        first: By the tuned model, (tokens,), float64.
        behind: By the reader behind each passage, (passages, tokens), float64.
        scores: Of the passages, (passages,), float64.
    """

    first: Tensor
    behind: Tensor
    scores: Tensor

    def second(self, temperature: float) -> Tensor:
        """See `ftkit.hybrid.weights.Parts`: the reader's, with each passage counting by its score."""
        return mixed(self.behind, log_softmax(self.scores / temperature, dim=0))


@dataclass(frozen=True, kw_only=True)
class _Blend:
    """Attributes: readings: Prompts. log_weights: Of each, (prompts,). given: Passages, from the best, among them."""

    readings: list[Reading]
    log_weights: Tensor
    given: int


@dataclass(frozen=True, kw_only=True)
class MixtureSystem(WeighedSystem):
    """A system whose answers are mixed from a tuned model's, without passages, and a reader's, a passage at a time.

    ``generator`` reads the passages. At weight 0 it is not asked, and no passage is read or cited. Where no passage
    is given, it is asked without any.

    Attributes:
        tuned: Is asked without passages; of the generator's vocabulary and stop tokens.
        temperature: Of the softmax over the passages' scores, which differ in scale from search to search: cosines
            lie within 1, fused ranks within 0.04, BM25 and rerankers go beyond 10. The higher, the more alike
            passages count.
    """

    tuned: Target
    tuned_prompts: ReaderPrompts = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_probabilities(self.generator)
        require_probabilities(self.tuned)
        _require_one_vocabulary(self.tuned, self.generator)
        length = self.tuned.context_length
        room = None if length is None else length - self.max_new_tokens
        if room is not None and room < 1:
            raise DataError(
                f"an answer of {self.max_new_tokens} tokens leaves no room in the tuned model's context of {length}",
                fix="Ask for shorter answers.",
            )
        object.__setattr__(self, "tuned_prompts", ReaderPrompts(self.tuned.tokenizer, room=room))

    @property
    def identity(self) -> str:
        """See `RagSystem.identity`."""
        both = [generator_sha256(self.tuned), generator_sha256(self.generator)]
        return sha256_json(["mixture", *both, self.weight, self.temperature])

    def readings(self, question: str, hits: Sequence[Hit]) -> tuple[Reading, ...]:
        """See `RagSystem.readings`."""
        return tuple(self._blend(question, hits).readings)

    def answer_nll(self, question: str, hits: Sequence[Hit], answer: str, *, ended: bool = True) -> Loss:
        """See `RagSystem.answer_nll`: of the mixture, token by token."""
        blend = self._blend(question, hits)
        read = forced(blend.readings, answer, ended=ended)
        log_probs = mixed(torch.stack([one.log_probs for one in read]), blend.log_weights)
        return Loss(mean=-float(log_probs.mean()), tokens=len(log_probs))

    def parts(self, question: str, hits: Sequence[Hit], answer: str) -> MixtureParts | None:
        """See `WeighedSystem.parts`."""
        behind, scores, _ = self._behind_passages(question, hits)
        readings = [self._alone(question), *behind]
        if not has_room(readings, answer):
            return None
        first, *others = (one.log_probs for one in forced(readings, answer))
        return MixtureParts(first=first, behind=torch.stack(others), scores=scores)

    def _say(self, question: str, hits: Sequence[Hit], max_new_tokens: int | None = None) -> Said:
        return self._say_mixed([(question, hits)], max_new_tokens)[0]

    def _say_all(self, found: Sequence[tuple[str, Sequence[Hit]]]) -> list[Said]:
        return self._say_mixed(found, None)

    def _say_mixed(self, found: Sequence[tuple[str, Sequence[Hit]]], max_new_tokens: int | None) -> list[Said]:
        blends = [self._blend(question, hits) for question, hits in found]

        def mix(said: list[list[Behind]]) -> Tensor:
            pairs = zip(said, blends, strict=True)
            return torch.stack(
                [mixed(torch.stack([one.log_probs for one in some]), blend.log_weights) for some, blend in pairs]
            )

        answers = write(
            [blend.readings for blend in blends], mix, max_new_tokens=max_new_tokens or self.max_new_tokens
        )
        return [
            Said(answer=answer, given=blend.given, prompt_tokens=sum(len(one.ids) for one in blend.readings))
            for answer, blend in zip(answers, blends, strict=True)
        ]

    def _blend(self, question: str, hits: Sequence[Hit]) -> _Blend:
        """The prompts that count at this weight."""
        alone, together = log_weights(self.weight)
        if self.weight == 0:
            return _Blend(readings=[self._alone(question)], log_weights=alone.view(1), given=0)
        behind, scores, given = self._behind_passages(question, hits)
        shares = together + log_softmax(scores / self.temperature, dim=0)
        if self.weight == 1:
            return _Blend(readings=behind, log_weights=shares, given=given)
        weights = torch.cat([alone.view(1), shares])
        return _Blend(readings=[self._alone(question), *behind], log_weights=weights, given=given)

    def _alone(self, question: str) -> Reading:
        return Reading(target=self.tuned, ids=self.tuned_prompts.prompt(question, []).ids)

    def _behind_passages(self, question: str, hits: Sequence[Hit]) -> tuple[list[Reading], Tensor, int]:
        """The reader's prompts, a passage each up to the first that there is no room for; scores; passages given."""
        readings = []
        for hit in hits:
            prompt = self.prompts.prompt(question, [hit.passage.content])
            if prompt.given == 0:
                break
            readings.append(Reading(target=self.generator, ids=prompt.ids))
        if not readings:
            nothing = Reading(target=self.generator, ids=self.prompts.prompt(question, []).ids)
            return [nothing], torch.zeros(1, dtype=torch.float64), 0
        scores = [hit.score for hit in hits[: len(readings)]]
        return readings, torch.tensor(scores, dtype=torch.float64), len(readings)


def _require_one_vocabulary(tuned: Target, reader: Target) -> None:
    """Refuse models whose probabilities are of different things.

    Raises:
        ModelError: Their tokens differ, or those that end an answer.
    """
    one, other = tuned.tokenizer.get_vocab(), reader.tokenizer.get_vocab()
    widths = [target.model.config.get_text_config().vocab_size for target in (tuned, reader)]
    if one != other or widths[0] != widths[1]:
        differing = len({token for token in one.keys() | other.keys() if one.get(token) != other.get(token)})
        raise ModelError(
            "the tuned model and the reader have different vocabularies, so their probabilities cannot be mixed: "
            f"{differing} tokens have another number or none, and their heads are {widths[0]} and {widths[1]} wide",
            fix="Tune both from the same base model.",
        )
    ends, others = tuned.stop_token_ids, reader.stop_token_ids
    if ends[0] != others[0] or set(ends) != set(others):
        raise ModelError(
            f"the tuned model ends answers with the tokens {ends}, the reader with {others}",
            fix="Tune both with the same chat template.",
        )
