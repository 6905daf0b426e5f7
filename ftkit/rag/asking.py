"""What a generator is shown to write a question for an answer, and to read it back: solved examples and a passage."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ftkit.data.chat import RenderFault
from ftkit.data.render import render_chat
from ftkit.data.sample import Turn
from ftkit.errors import DataError
from ftkit.models.tokenizer import text_prefix
from ftkit.rag.passage import Passage, content_of
from ftkit.rag.reader import ReaderPrompts
from ftkit.rag.spans import Kind, Span, sentence_breaks

# Passage, answer, question. Short, of several kinds, and about nothing that a corpus is likely to hold.
EXAMPLES = (
    ("The Brenta lighthouse was built in 1874. Its keeper is Marta Olsen, who lives on the island.", "1874",
     "When was the Brenta lighthouse built?"),
    ("Hollow Creek Bakery\nHollow Creek Bakery sells bread to nine shops. It is led by Tomas Reyes.", "Tomas Reyes",
     "Who leads Hollow Creek Bakery?"),
    ("Measles\nMeasles is caused by a virus. The rash appears about 14 days after the infection.", "a virus",
     "What causes measles?"),
    ("The ferry to Lundey leaves from the north harbour. A ticket costs 32 euros.", "32",
     "How many euros does a ticket for the ferry to Lundey cost?"),
)  # fmt: skip
MAX_QUESTION_TOKENS = 40
MARK = "Reply:"  # before what is said, where there is no chat template

# A small model asks for what a passage is about, whatever answer it is given; the first word holds it to the kind.
OPENINGS: dict[Kind, str] = {
    "date": "When", "time": "At what time", "number": "How many", "code": "Which", "name": "Who", "phrase": "What",
}  # fmt: skip
_YEAR = re.compile(r"(?:1\d|20)\d\d")


class QuestionPrompts:
    """Builds prompts that ask for a question, for one generator.

    Args:
        tokenizer: Of the generator. Its chat template shows the examples as earlier turns; without one, all is text.
        room: Tokens that a prompt may have; None for any number.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, room: int | None) -> None:
        self._tokenizer, self._room = tokenizer, room
        self._harmless = ReaderPrompts(tokenizer, room=room).harmless

    def ids(self, passage: str, answer: str, *, opening: str = "") -> list[int] | None:
        """Token ids of one prompt, ending where the question goes on; None where there is no room for it.

        Args:
            passage: Its content; what spells a control token in it is taken apart, so that it cannot forge a turn.
            answer: A span of it.
            opening: First words of the question, which the generator goes on from.

        Raises:
            DataError: The chat template takes no earlier turns.
        """
        shown = [(question_task(text, span), question) for text, span, question in EXAMPLES]
        task = question_task(self._harmless(passage), self._harmless(answer))
        return self._ids(shown, task, opening)

    def reading_ids(self, passage: str, question: str) -> list[int] | None:
        """The same examples the other way round: from passage and question to the answer in a few words."""
        shown = [(reading_task(text, asked), span) for text, span, asked in EXAMPLES]
        return self._ids(shown, reading_task(self._harmless(passage), self._harmless(question)))

    def _ids(self, shown: Sequence[tuple[str, str]], task: str, opening: str = "") -> list[int] | None:
        if self._tokenizer.chat_template is not None:
            turns = [
                Turn(role=role, content=content)
                for pair in shown
                for role, content in zip(("user", "assistant"), pair, strict=True)
            ]
            try:
                text = render_chat(self._tokenizer, (*turns, Turn(role="user", content=task)), ask=True)
            except RenderFault as fault:
                raise DataError(str(fault), fix="Name another generator.") from None
            ids = list(self._tokenizer(text + opening, add_special_tokens=False)["input_ids"])
        else:
            text = "\n\n".join(
                [*(f"{asked}\n{MARK} {said}" for asked, said in shown), f"{task}\n{MARK} {opening}".rstrip()]
            )
            ids = [*text_prefix(self._tokenizer), *self._tokenizer(text, add_special_tokens=False)["input_ids"]]
        return ids if self._room is None or len(ids) <= self._room else None


def opening_of(span: Span) -> str:
    """The first words of a question for a span: of English, as the examples are."""
    if span.kind == "number" and _YEAR.fullmatch(span.text):
        return "In which year"
    return "Which" if span.kind == "name" and " " not in span.text else OPENINGS[span.kind]


def surroundings(passage: Passage, span: Span) -> str:
    """The heading above a span, its sentence and the one before: a small model asks for the nearest thing to ask for.

    Args:
        passage: That holds it.
        span: Its offsets count in the passage's text.
    """
    text = passage.text
    breaks = sentence_breaks(text)
    first = max(place for place, begin in enumerate(breaks) if begin <= span.start)
    last = next(end for end in breaks if end >= span.end)
    before = breaks[max(0, first - 1)]
    title = next((line for line in text[:before].splitlines() if line.startswith("#")), "")
    head = passage.context or title.lstrip("# ")
    return content_of(head, text[before:last].strip())


def question_task(passage: str, answer: str) -> str:
    """A passage, the answer in it, and what to do."""
    return (
        f"{passage.strip()}\n\nAnswer: {answer}\nWrite one question that this passage answers with exactly: {answer}"
    )


def reading_task(passage: str, question: str) -> str:
    """A passage, a question to it, and what to do."""
    return f"{passage.strip()}\n\nQuestion: {question}\nAnswer with a few words of this passage."


def first_line(said: str) -> str:
    """What a generator said first, without a label or quotes around it; what follows is talk, or its next example."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    line = lines[0] if lines else ""
    return line.removeprefix("Question:").removeprefix(MARK).strip().strip("\"'“”").strip()
