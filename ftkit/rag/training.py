"""Retriever and generator as one model, and what `ftkit.train.trainer.fit` minimises over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.data.collate import collate
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.evaluate.loss import row_losses
from ftkit.models.precision import arithmetic
from ftkit.rag.encoder import EncoderPair
from ftkit.rag.objectives import distillation_loss, posterior, rag_sequence_loss
from ftkit.train.soundness import some
from ftkit.train.work import Matrices, Spent, matrices_of

NO_PASSAGE = -1
# A candidate that the posterior gives less adds nothing that training could notice, and costs a pass.
LEAST_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A passage that an answer may come from.

    Attributes:
        content: What the document encoder sees; None for answering without a passage.
        reading: Prompt with this passage, and the answer.
        likelihood: ``log p(answer | question, passage)`` by the reader that scored it, nats over all its tokens; None
            where the objective asks the reader itself.
    """

    content: str | None
    reading: TokenizedExample
    likelihood: float | None = None


@dataclass(frozen=True, kw_only=True)
class RagExample:
    """A question with its candidates: at least two, or one to be refused.

    Attributes:
        question: What the query encoder sees.
        candidates: In any order.
        place: File and line.
    """

    question: str
    candidates: tuple[Candidate, ...]
    place: str

    @property
    def answer_tokens(self) -> int:
        """Tokens of the answer, its stop token included."""
        return self.candidates[0].reading.supervised_tokens


class RagExamples(list[RagExample]):
    """Examples whose lengths the trainer's sampler can see."""

    @property
    def choosing(self) -> RagExamples:
        """Those with candidates to choose from: the others say nothing of which passage is the better one."""
        return RagExamples(row for row in self if len(row.candidates) > 1)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longest reading of each."""
        return [max(len(one.reading.input_ids) for one in example.candidates) for example in self]


class RagModel(nn.Module):
    """Encoders and generator side by side, so that one optimizer holds whatever of them trains.

    Args:
        encoders: Of queries and documents; one and the same where they are shared.
        generator: A causal language model; None where only encoders learn.
        temperature: Of the distribution over passages.
        null_score: What answering without a passage scores at first; None where that is no candidate.
    """

    def __init__(
        self, encoders: EncoderPair, generator: nn.Module | None, *, temperature: float, null_score: float | None
    ) -> None:
        super().__init__()
        self.encoders = encoders
        self.query_encoder, self.document_encoder = encoders.query.module, encoders.document.module
        self.generator = generator
        self.temperature = temperature
        self.null_score = None if null_score is None else nn.Parameter(torch.tensor(float(null_score)))

    def scores(self, batch: dict[str, Any]) -> Tensor:
        """Fresh scores of every question's candidates, with gradient.

        Args:
            batch: As from `RagObjective.collate`.

        Returns:
            (questions, candidates); ``-inf`` where a question has fewer.
        """
        places: Tensor = batch["places"]
        queries = self.encoders.query.forward(batch["queries"])
        documents = self.encoders.document.forward(batch["documents"])
        found = torch.einsum("qw,qcw->qc", queries, documents[places.clamp(min=0)])
        if self.null_score is not None:
            found = torch.where(places == NO_PASSAGE, self.null_score, found)
        return found.masked_fill(~batch["there"], -math.inf)


class RagObjective:
    """Mean over questions of a loss between scores and likelihoods.

    Three forms of one thing. With a generator in the model and no likelihoods in the examples, both learn at once.
    With likelihoods in the examples, the encoders learn from a reader that stands still. With ``reader_only``, the
    generator learns, weighted by how likely each passage is where the answer came from.

    Args:
        compute: dtype of the generator's matrix products.
        likelihood: Weight of the RAG-sequence loss.
        distillation: Weight of the divergence from what the reader finds useful.
        reader_temperature: Of that usefulness.
        reader_only: The encoders stand still and their scores have no gradient.
    """

    must_learn = False  # a first batch that the retriever ranks right already has nothing more to give

    def __init__(
        self,
        compute: torch.dtype,
        *,
        likelihood: float,
        distillation: float,
        reader_temperature: float,
        reader_only: bool = False,
    ) -> None:
        self._compute, self._reader_only = compute, reader_only
        self._likelihood, self._distillation = likelihood, distillation
        self._reader_temperature = reader_temperature
        self._encoders: EncoderPair | None = None
        self._matrices: dict[str, Matrices] = {}
        self._read = 0  # tokens that the generator was given for the last losses
        self.spent = Spent()

    def bind(self, model: RagModel) -> RagObjective:
        """Learn how the model's encoders read; call it before training."""
        self._encoders = model.encoders
        parts = {
            "generator": model.generator,
            "queries": model.query_encoder,
            "documents": model.document_encoder,
        }
        self._matrices = {name: matrices_of(part) for name, part in parts.items() if part is not None}
        return self

    def collate(self, rows: Sequence[RagExample]) -> dict[str, Any]:
        """One batch.

        queries, documents   token ids and masks; each passage once, however many questions it is a candidate of
        places               (questions, candidates): which document, or -1 for none
        there                (questions, candidates): whether the question has so many candidates
        likelihoods          (questions, candidates), or None
        lengths              (questions,): tokens of the answers
        readings             prompts with answers, a row for each candidate, or None
        """
        assert self._encoders is not None, "bind comes first"
        contents = list(
            dict.fromkeys(one.content for row in rows for one in row.candidates if one.content is not None)
        )
        index: dict[str | None, int] = {content: number for number, content in enumerate(contents)}
        index[None] = NO_PASSAGE
        most = max(len(row.candidates) for row in rows)
        places = torch.full((len(rows), most), NO_PASSAGE)
        there = torch.zeros((len(rows), most), dtype=torch.bool)
        likelihoods = torch.zeros((len(rows), most))
        for number, row in enumerate(rows):
            count = len(row.candidates)
            there[number, :count] = True
            places[number, :count] = torch.tensor([index[one.content] for one in row.candidates])
            likelihoods[number, :count] = torch.tensor([one.likelihood or 0.0 for one in row.candidates])
        scored = all(one.likelihood is not None for row in rows for one in row.candidates)
        reads = self._reader_only or not scored
        return {
            "queries": self._encoders.query.features([row.question for row in rows], "query"),
            "documents": self._encoders.document.features(contents or [""], "document"),
            "places": places,
            "there": there,
            "likelihoods": likelihoods if scored else None,
            "lengths": torch.tensor([row.answer_tokens for row in rows]),
            "readings": collate([one.reading for row in rows for one in row.candidates]) if reads else None,
        }

    def passes(self, batch: dict[str, Any]) -> list[dict[str, Any]]:
        """One."""
        return [batch]

    def items(self, batch: dict[str, Any]) -> int:
        """Questions."""
        return len(batch["lengths"])

    def tokens(self, batch: dict[str, Any]) -> tuple[int, int]:
        """Of encoders and generator, readings whose weight is nothing too; supervised are the answers'."""
        counted = [batch["queries"]["attention_mask"], batch["documents"]["attention_mask"]]
        supervised = 0
        if batch["readings"] is not None:
            counted.append(batch["readings"]["attention_mask"])
            supervised = int((batch["readings"]["labels"][:, 1:] != IGNORED).sum())
        return sum(int(mask.sum()) for mask in counted), supervised

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Summed over the questions; what that costs is added to ``spent``."""
        self._read = 0
        summed = self.losses(model, batch).sum()
        met = {name: int(batch[name]["attention_mask"].sum()) for name in ("queries", "documents")}
        for name, tokens in (met | {"generator": self._read}).items():
            if tokens:
                counted = self._matrices[name]
                still = self._reader_only and name != "generator"
                self.spent.flops += counted.forward(tokens) if still else counted.trained(tokens)
        return summed

    def losses(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """(questions,), nats, with gradient."""
        if self._reader_only:
            return self._reader_losses(model, batch)
        scores = model.scores(batch)
        live = batch["likelihoods"] is None
        likelihoods = self.likelihoods(model, batch) if live else batch["likelihoods"].to(scores.device)
        total = scores.new_zeros(len(scores))
        if self._likelihood:
            total = total + self._likelihood * rag_sequence_loss(scores, likelihoods, model.temperature)
        if self._distillation:
            lengths = batch["lengths"].to(scores.device)
            total = total + self._distillation * distillation_loss(
                scores, likelihoods, lengths, model.temperature, reader_temperature=self._reader_temperature
            )
        return total

    def likelihoods(self, model: Any, batch: dict[str, Any], wanted: Tensor | None = None) -> Tensor:
        """``log p(answer | question, passage)`` by the generator, (questions, candidates), with gradient.

        Args:
            model: With a generator.
            batch: As from `collate`.
            wanted: (questions, candidates), which to ask for; None for all that are there. The others are 0.
        """
        device = next(model.generator.parameters()).device
        there = batch["there"].to(device)
        wanted = there if wanted is None else wanted
        readings = {name: value.to(device)[wanted[there]] for name, value in batch["readings"].items()}
        self._read = int(readings["attention_mask"].sum())
        with arithmetic(device, self._compute):
            rows = -row_losses(model.generator, readings)
        return torch.zeros(there.shape, device=device).masked_scatter(wanted, rows)

    def _reader_losses(self, model: Any, batch: dict[str, Any]) -> Tensor:
        with torch.no_grad():
            scores = model.scores(batch)
            weights = posterior(scores, batch["likelihoods"].to(scores.device), model.temperature)
            counts = (weights >= LEAST_WEIGHT) & batch["there"].to(scores.device)
        return -(weights * self.likelihoods(model, batch, counts)).sum(dim=1)

    @torch.no_grad()
    def mean_loss(self, model: Any, rows: Sequence[RagExample]) -> float:
        """Mean over questions, one after the other."""
        was_training = model.training
        model.eval()
        try:
            return sum(float(self.losses(model, self.collate([row])).sum()) for row in rows) / len(rows)
        finally:
            model.train(was_training)

    def size(self, row: RagExample) -> int:
        """Tokens of all readings."""
        return sum(len(one.reading.input_ids) for one in row.candidates)

    def masked(self, rows: Sequence[RagExample]) -> str:
        """Questions whose answers have no token that counts."""
        places = [row.place for row in rows if not row.answer_tokens]
        return f"no token of the answer counts in {some(places)}" if places else ""

    def row_fault(self, rows: Sequence[RagExample]) -> tuple[str, str] | None:
        """Answers that do not count."""
        masked = self.masked(rows)
        return (masked, "Look at these questions and their answers.") if masked else None

    def guessing(self, model: Any) -> float:
        """Of an answer of 32 tokens that are all equally likely; of scores alone, as wrong as cosines can be."""
        config = getattr(model.generator, "config", None)
        return 1 / model.temperature if config is None else 32 * math.log(int(config.get_text_config().vocab_size))

    def clipped_apart(self, model: Any) -> list[list[nn.Parameter]]:
        """Generator and encoders, whose gradients differ by orders of magnitude."""
        generator = {id(value) for value in model.generator.parameters()} if model.generator is not None else set()
        parts = [
            [value for value in model.parameters() if (id(value) in generator) == of_it] for of_it in (True, False)
        ]
        return [part for part in parts if any(value.requires_grad for value in part)]
