"""Cross-encoders: question and passage are read together, which orders better than vectors made apart, and costs a
pass for each passage. So only the first hits of a search are read again (Nogueira and Cho 2019, arXiv:1901.04085).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ftkit.errors import DataError, MissingPartError, ModelError
from ftkit.models.find_encoder import EncoderFolder
from ftkit.models.find_reranker import find_reranker
from ftkit.models.load import UNLOADABLE, quiet_transformers
from ftkit.models.precision import default_device
from ftkit.rag.encoder import AGAIN, by_length, require_complete
from ftkit.rag.passage import Hit

RERANKED = "reranked"  # its name among a hit's ranks


class Reranker:
    """A cross-encoder in memory, in float32, without dropout.

    A pair that is longer than it reads is cut at the end of the passage, never in the question. This is a second look
    at what was found already, so nothing becomes impossible to find by it; but what stands in the part that was cut
    does not count for the passage's score.

    Args:
        found: Its folder, checked.
        device: Where it computes; None for this machine's default.

    Raises:
        MissingPartError: sentence-transformers is not installed.
        ModelError: The folder cannot be loaded, lacks weights, or gives a pair more than one score.
    """

    def __init__(self, found: EncoderFolder, device: torch.device | None = None) -> None:
        self.found = found
        self.module = _load(found.folder, device or default_device())
        self.tokenizer: Any = self.module.tokenizer
        if self.module.num_labels != 1:
            raise ModelError(
                f"{found.folder}: gives each pair {self.module.num_labels} scores; passages are ordered by one",
                fix="Use a reranker with num_labels 1.",
            )
        positions = getattr(self.module.model.config, "max_position_embeddings", None)
        told = (self.module.max_seq_length, self.tokenizer.model_max_length, positions)
        self.max_tokens = min(int(one) for one in told if one)
        require_complete(found.folder, self.module, lambda: self._forward(self._batch("a", ["which weights matter"])))

    @property
    def sha256(self) -> str:
        """Identity of everything that decides a score."""
        return self.found.sha256

    def excess(self, question: str) -> int:
        """By how many tokens a question is too long to leave room for even one of the passage; 0 where it fits."""
        special = int(self.tokenizer.num_special_tokens_to_add(pair=True))
        length = len(self.tokenizer(question, add_special_tokens=False, truncation=False, verbose=False)["input_ids"])
        return max(0, length + special + 1 - self.max_tokens)

    @torch.no_grad()
    def scores(self, question: str, passages: Sequence[str]) -> list[float]:
        """How well each passage answers a question, as the model's logit: higher is better, without bounds.

        What the model's settings put on top of it for display (mostly a sigmoid) is left out: it keeps the order, but
        makes equal what lies far from zero.

        Args:
            question: Leaves room for a passage.
            passages: Cut at their end where the pair is longer than ``max_tokens``.

        Raises:
            DataError: The question is too long.
            ModelError: A score is no number.
        """
        if excess := self.excess(question):
            raise DataError(
                f"a question of {excess} tokens more than {self.found.portable_name} reads beside a passage "
                f"({self.max_tokens} in all)",
                fix="Ask in fewer words, or without this reranker.",
            )
        if not passages:
            return []
        encoded = self._encoded(question, passages)
        found = [0.0] * len(passages)
        for group in by_length([len(ids) for ids in encoded["input_ids"]]):
            batch = {key: [values[place] for place in group] for key, values in encoded.items()}
            scored = self._forward(self.tokenizer.pad(batch, return_tensors="pt", verbose=False)).tolist()
            for place, score in zip(group, scored, strict=True):
                found[place] = score
        if not all(map(math.isfinite, found)):
            raise ModelError(f"{self.found.folder}: gives scores that are no numbers", fix=AGAIN)
        return found

    def rerank(self, question: str, hits: Sequence[Hit], count: int) -> list[Hit]:
        """The first hits of a search in a new order; equally good ones keep theirs.

        Args:
            question: As asked.
            hits: Best first.
            count: How many of them are read; the others follow as they were, with the search's own scores.

        Returns:
            As many hits. Those that were read have this model's score, and their rank by it as ``reranked``.
        """
        read = hits[:count]
        scores = self.scores(question, [hit.passage.content for hit in read])
        order = sorted(range(len(read)), key=lambda place: -scores[place])
        return [
            *(
                replace(read[place], score=scores[place], ranks={**read[place].ranks, RERANKED: rank})
                for rank, place in enumerate(order, start=1)
            ),
            *hits[count:],
        ]

    def _encoded(self, question: str, passages: Sequence[str]) -> dict[str, list[list[int]]]:
        return dict(
            self.tokenizer(
                [question] * len(passages),
                list(passages),
                truncation="only_second",
                max_length=self.max_tokens,
                add_special_tokens=True,
                verbose=False,
            )
        )

    def _batch(self, question: str, passages: Sequence[str]) -> dict[str, Tensor]:
        return dict(self.tokenizer.pad(self._encoded(question, passages), return_tensors="pt", verbose=False))

    def _forward(self, features: dict[str, Tensor]) -> Tensor:
        """Logits, (pairs,), float32."""
        device = next(self.module.parameters()).device
        output = self.module({name: value.to(device) for name, value in features.items()} | {"modality": "text"})
        logits: Tensor = output["scores"]
        return logits.float().squeeze(-1)


def load_reranker(name: str, *, cached_only: bool = False) -> Reranker:
    """Find and load a reranker by hub id or folder.

    Args:
        name: Of it.
        cached_only: Nothing is fetched, as for names that a file gives and nobody typed.
    """
    return Reranker(find_reranker(name, cached_only=cached_only))


def _load(folder: Path, device: torch.device) -> Any:
    try:
        from sentence_transformers import CrossEncoder
    except ImportError:
        raise MissingPartError("rerankers need sentence-transformers", fix="Run: pip install 'ftkit[rag]'") from None
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        try:
            module = CrossEncoder(
                str(folder),
                device=str(device),
                local_files_only=True,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True, "dtype": torch.float32},
                # The folder's settings may name any function of torch, to be called.
                activation_fn=nn.Identity(),
            )
        except UNLOADABLE as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(f"{folder}: cannot be loaded as a reranker: {first}", fix=AGAIN) from None
    return module.eval()
