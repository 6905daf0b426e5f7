"""A router: a small classifier that sends each question to the member that suits it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ftkit.errors import DataError
from ftkit.files import write_json
from ftkit.hybrid.logistic import Logistic
from ftkit.rag.answering import RagSystem
from ftkit.rag.cited import CitedAnswer, Why
from ftkit.rag.encoder import Encoder

ROUTER, WEIGHTS = "router.json", "router.safetensors"
FORMAT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Router:
    """What chooses.

    Attributes:
        members: Their names, in the order of the classes.
        model: Of `question_features`.
        promoted: Whether it beat the best single member in cross-validation. One that did not sends everything there.
        best: That member.
        encoder_sha256: Of the encoder whose vectors it reads.
    """

    members: tuple[str, ...]
    model: Logistic
    promoted: bool
    best: str
    encoder_sha256: str

    def routes(self, features: Tensor) -> list[str]:
        """The member for each row of features."""
        if not self.promoted:
            return [self.best] * len(features)
        return [self.members[number] for number in self.model.classes(features)]


@dataclass(frozen=True, kw_only=True)
class RoutedAnswer(CitedAnswer):
    """An answer of a member.

    Attributes:
        member: Its name.
    """

    member: str


@dataclass(frozen=True, kw_only=True)
class RouterSystem:
    """Members and what chooses between them.

    Attributes:
        members: Ready to be asked, by name.
        router: Chooses.
        encoder: Whose vectors it reads.
    """

    members: Mapping[str, RagSystem]
    router: Router
    encoder: Encoder

    def __post_init__(self) -> None:
        if set(self.members) != set(self.router.members):
            raise DataError(
                f"the router chooses between {', '.join(self.router.members)}, and there are "
                f"{', '.join(self.members)}",
                fix="Train it again.",
            )
        if self.encoder.found.sha256 != self.router.encoder_sha256:
            raise DataError(
                f"{self.encoder.found.portable_name} is another encoder ({self.encoder.found.sha256[:12]}…) than the "
                f"router was trained with ({self.router.encoder_sha256[:12]}…)",
                fix="Put back that encoder, or train again.",
            )

    @property
    def context_length(self) -> int | None:
        """Tokens of the shortest context among the members' generators; None where nobody knows any."""
        known = [one.generator.context_length for one in self.members.values()]
        return min((length for length in known if length is not None), default=None)

    @property
    def max_new_tokens(self) -> int:
        """The longest answer of any member."""
        return max(one.max_new_tokens for one in self.members.values())

    def choose(self, question: str) -> str:
        """The member that answers a question.

        Raises:
            DataError: The question is empty.
        """
        return self.routes([question])[0]

    def routes(self, questions: Sequence[str]) -> list[str]:
        """The same of many."""
        if not all(question.strip() for question in questions):
            raise DataError("the question is empty", fix="Ask something.")
        if not self.router.promoted:
            return [self.router.best] * len(questions)
        # One by one, so that a question has the same vector to the last bit whatever is asked beside it.
        return [self.router.routes(question_features(self.encoder, [question]))[0] for question in questions]

    def ask(self, question: str) -> RoutedAnswer:
        """Answer one question.

        Raises:
            DataError: The question is empty, or longer than the member reads.
        """
        name = self.choose(question)
        return routed(self.members[name].ask(question), name)

    def explain(self, question: str) -> tuple[RoutedAnswer, Why]:
        """Answer one question, and say what the answer rests on."""
        name = self.choose(question)
        answer, why = self.members[name].explain(question)
        return routed(answer, name), why


def routed(answer: CitedAnswer, member: str) -> RoutedAnswer:
    """An answer with the name of the member that gave it."""
    values = {one.name: getattr(answer, one.name) for one in fields(CitedAnswer)}
    return RoutedAnswer(**values, member=member)


def question_features(encoder: Encoder, questions: Sequence[str]) -> Tensor:
    """What a router sees of questions: the encoder's vector, and the logarithm of the number of words.

    Args:
        encoder: A question that is longer than it reads is judged by its beginning.
        questions: Not empty.

    Returns:
        (questions, width + 1), float64.
    """
    vectors = encoder.vectors([_beginning(encoder, question) for question in questions], "query")
    words = torch.tensor([float(1 + len(question.split())) for question in questions], dtype=torch.float64)
    return torch.cat([torch.from_numpy(vectors).double(), words.log()[:, None]], dim=1)


def _beginning(encoder: Encoder, question: str) -> str:
    words, kept = question.split(), question
    while len(words) > 1 and encoder.count(kept, "query") > encoder.max_tokens:
        words = words[: len(words) - max(1, len(words) // 16)]
        kept = " ".join(words)
    return kept


def save_router(router: Router, folder: Path) -> None:
    """Write router.safetensors, then router.json."""
    tensors = {one.name: getattr(router.model, one.name).contiguous() for one in fields(Logistic)}
    partial = folder / f".{WEIGHTS}"
    save_file(tensors, partial)
    partial.replace(folder / WEIGHTS)
    values = {
        "format_version": FORMAT_VERSION,
        "members": list(router.members),
        "promoted": router.promoted,
        "best": router.best,
        "encoder_sha256": router.encoder_sha256,
    }
    write_json(folder / ROUTER, values)


def load_router(folder: Path) -> Router:
    """Read it again.

    Raises:
        DataError: It cannot be read, or its parts do not fit.
    """
    try:
        values: dict[str, Any] = json.loads((folder / ROUTER).read_text(encoding="utf-8"))
        if values.pop("format_version") != FORMAT_VERSION:
            raise ValueError("it is of another format")
        router = Router(
            **(values | {"members": tuple(values["members"])}), model=Logistic(**load_file(folder / WEIGHTS))
        )
        _require_fit(router)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DataError(f"{folder / ROUTER}: cannot be read: {error}", fix="Train it again.") from None
    return router


def _require_fit(router: Router) -> None:
    model, classes = router.model, len(router.members)
    width = model.mean.numel()
    shapes = [tuple(getattr(model, one.name).shape) for one in fields(Logistic)]
    if shapes != [(classes, width), (classes,), (width,), (width,)]:
        raise ValueError(f"weights of shapes {shapes} do not fit {classes} members")
    if type(router.promoted) is not bool or router.best not in router.members:
        raise ValueError(f"it sends all to {router.best!r}, which is no member")


def count_routes(routes: Sequence[str], members: Sequence[str]) -> dict[str, int]:
    """Questions of each member."""
    counted = Counter(routes)
    return {name: counted[name] for name in members}
