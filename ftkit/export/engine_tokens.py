"""Whether an engine with a tokenizer of its own sees the tokens that the model was trained with."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.errors import ModelError
from ftkit.export.contract_cases import TEXTS as CONTRACT_TEXTS
from ftkit.export.converter import convert, find_converter, vocabulary_of
from ftkit.export.probes import TEXTS
from ftkit.export.process import read_alone, read_found
from ftkit.export.token_contract import Namer, TokenContract, first_difference, show_tokens, token_names
from ftkit.models.tokenizer import load_tokenizer

READER = Path(__file__).parent / "readers" / "llama_cpp.py"


@dataclass(frozen=True, kw_only=True)
class EngineTexts:
    """Texts and the token ids that the trained model's tokenizer gives them.

    Attributes:
        plain: Pairs of a text and its ids, with the special tokens that the tokenizer itself adds.
        rendered: Pairs of a prompt rendered by the chat template and its ids.
        front: A soft prompt's tokens, which the chat template writes; see `bare`.
    """

    plain: tuple[tuple[str, list[int]], ...]
    rendered: tuple[tuple[str, list[int]], ...]
    front: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.plain) + len(self.rendered)

    def questions(self) -> dict[str, list[str]]:
        """For a reader."""
        return {"plain": [text for text, _ in self.plain], "rendered": [text for text, _ in self.rendered]}

    def difference(self, found: dict[str, list[list[int]]], names: Namer) -> str:
        """The first text that the engine cuts otherwise, in words; empty where there is none."""
        sides = ((self.rendered, found["rendered"], ()), (self.plain, found["plain"], self.front))
        for pairs, others, front in sides:
            for (text, ids), other in zip(pairs, others, strict=True):
                position = first_difference(ids, other)
                if position is not None and other != bare(ids, front):
                    trained, engine = (show_tokens(side, position, names) for side in (ids, other))
                    start = text if len(text) <= 60 else text[:60] + "…"
                    return f"{start!r}, token {position}: trained with {trained}, the engine gives {engine}"
        return ""


def bare(ids: list[int], front: Sequence[int]) -> list[int]:
    """A plain text's ids without a soft prompt's tokens in front.

    What the chat template writes, every engine reads. What a tokenizer of transformers puts in front of plain text
    has no place in a GGUF, so there whoever asks for a completion must begin with these tokens; the card says so.
    """
    return ids[len(front) :] if front and ids[: len(front)] == list(front) else ids


def engine_texts(
    tokenizer: Any, fixtures: dict[str, Any], contract: TokenContract | None, front: Sequence[int] = ()
) -> EngineTexts:
    """The texts that an export carries with their ids.

    Args:
        tokenizer: Of the export.
        fixtures: Of its probes.
        contract: Its token contract, if it has one.
        front: A soft prompt's tokens. Without a chat template nothing but the tokenizer writes them, and the engine's
            must do the same.
    """
    plain = [(entry["text"], entry["ids"]) for entry in fixtures["texts"]]
    rendered = []
    if contract is not None:
        plain += [(prompt.name, prompt.ids or []) for prompt in contract.texts]
        rendered = [
            (prompt.text, prompt.ids)
            for prompt in contract.conversations
            if prompt.text is not None and prompt.ids is not None
        ]
    chats = tuple(front) if rendered else ()
    return EngineTexts(plain=_composed(tokenizer, plain), rendered=_composed(tokenizer, rendered), front=chats)


def default_template(tokenizer: Any) -> str | None:
    """The chat template that is used where none is named."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _composed(tokenizer: Any, pairs: Sequence[tuple[str, list[int]]]) -> tuple[tuple[str, list[int]], ...]:
    """The texts as an engine must be given them."""
    # Some tokenizers (Qwen2's) first compose accents (NFC), which llama.cpp leaves to whoever asks. Nearly all text
    # is composed to begin with, so such a model is not refused; it is shown composed text.
    normalizer = tokenizer.backend_tokenizer.normalizer
    if type(normalizer).__name__ != "NFC":
        return tuple(pairs)
    return tuple((normalizer.normalize_str(text), ids) for text, ids in pairs)


def engine_fault(
    found: dict[str, Any], texts: EngineTexts, stops: Sequence[int], template: str | None, names: Namer
) -> str:
    """What is wrong with an engine's tokens, stops and template; empty where all is as it was trained.

    Args:
        found: The reader's ``tokenised``, ``ends`` and, where the artefact has one, ``template``.
        texts: That it was asked for.
        stops: Tokens that must end an answer.
        template: That the artefact must have inside; None for none.
        names: To show tokens.
    """
    if difference := texts.difference(found["tokenised"], names):
        return difference
    if missing := [token for token in stops if token not in found["ends"]]:
        return f"the engine does not stop at {' '.join(names(token) for token in missing)}, which end trained answers"
    if template is not None and found["template"] != template:
        return "the chat template inside differs from the one that was trained with"
    return ""


def not_for_llama_cpp(folder: Path) -> str | None:
    """Why a base model cannot run in llama.cpp as it does in transformers, found without its weights; None if it can.

    Raises:
        MissingPartError: The converter is not here.
    """
    find_converter()
    tokenizer = load_tokenizer(folder)
    pairs = [(text, list(tokenizer(text)["input_ids"])) for text in (*TEXTS, *CONTRACT_TEXTS)]
    texts = EngineTexts(plain=_composed(tokenizer, pairs), rendered=())
    with tempfile.TemporaryDirectory(prefix="ftkit-gguf-") as scratch:
        output = Path(scratch) / "vocabulary.gguf"
        job = {"base_gguf": str(output), "vocabulary_only": True, "tokenise": texts.questions()}
        try:
            vocabulary = vocabulary_of(tokenizer, ())
            convert(folder, output, stored="float32", name=folder.name, vocabulary=vocabulary, vocabulary_only=True)
            with read_alone(job, READER) as out:
                found = read_found(out)
        except ModelError as error:
            return f"llama.cpp's converter gives up on it: {error}"
    difference = texts.difference(found["engine"]["tokenised"], token_names(folder))
    return f"llama.cpp's tokenizer is not this model's: {difference}" if difference else None
