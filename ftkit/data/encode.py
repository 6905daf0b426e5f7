"""Samples into token ids and the spans of them that count towards the loss."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ftkit.data.chat import ChatTemplate, RenderFault
from ftkit.data.control import ControlTokens
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.render import OTHER_TEMPLATE, Answer, Rendered, TrainOn, find_epilogue, render, trained_turns
from ftkit.data.sample import Content, Sample
from ftkit.data.text_encoder import TextEncoder
from ftkit.files import sha256_json

RULES = 1  # counts up when the same row comes to other ids or spans, so that stored ones are not taken for these


@dataclass(frozen=True, kw_only=True)
class EncoderSettings:
    """All that decides what a row becomes, as plain values that travel to worker processes.

    Attributes:
        tokenizer_json: The tokenizer as ``tokenizers`` serialises it.
        chat_template: In its final form; several by name, as some tokenizers have them; None where there is none.
        special_tokens: ``bos_token``, ``eos_token`` and the like, as templates read them.
        bos_id: That the tokenizer puts in front of plain text; None where it puts none.
        prompt_ids: What it puts before BOS, or where it puts no BOS: the tokens of a soft prompt. They count towards
            no loss.
        eos_id: What ends plain text; None where the tokenizer has none.
        control_ids: Ids of control tokens, ascending.
        train_on: ``assistant``: every answer. ``last``: the last one. ``all``: every token.
        allow_control_tokens: Whether the text of a row may spell control tokens.
        today: ISO date that templates are told.
        known_templates: What a person can choose from where there is none; for messages.
    """

    tokenizer_json: str
    chat_template: str | dict[str, str] | None
    special_tokens: dict[str, str]
    bos_id: int | None
    prompt_ids: list[int]
    eos_id: int | None
    control_ids: list[int]
    train_on: TrainOn
    allow_control_tokens: bool
    today: str
    known_templates: list[str] = field(default_factory=list)

    @cached_property
    def digest(self) -> str:
        """SHA-256 under which encoded rows can be kept; the date counts only where the template reads it."""
        seen: dict[str, Any] = asdict(self) | {"rules": RULES}
        del seen["known_templates"]
        chat = self.chat
        if chat is None or not chat.reads_today:
            del seen["today"]
        return sha256_json(seen)

    @property
    def template_fix(self) -> str:
        """What to do where there is no template."""
        named = ": " + "".join(f"{name}, " for name in self.known_templates) if self.known_templates else ": "
        return f"Choose one with model.chat_template{named}or a Jinja file."

    @cached_property
    def chat(self) -> ChatTemplate | None:
        """The template, ready to render."""
        if self.chat_template is None:
            return None
        return ChatTemplate(self.chat_template, self.special_tokens, datetime.date.fromisoformat(self.today))


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """One training sequence.

    Attributes:
        ids: Token ids.
        spans: Ranges of tokens that count towards the loss, ascending and disjoint; never token 0, as nothing comes
            before it to predict it from, nor a soft prompt and the token after it, which is token 0 without one.
        answer_start: Where the last trained answer begins; the ids before it are the prompt that a server sends.
        stop_id: The token that ends that answer.
        turn: Its index in the sample's turns.
    """

    ids: list[int]
    spans: list[tuple[int, int]]
    answer_start: int
    stop_id: int
    turn: int


class Encoder:
    """Encodes samples for one tokenizer and one way of training.

    Args:
        settings: See `EncoderSettings`.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._text = TextEncoder(settings.tokenizer_json)
        self._control = ControlTokens(self._text, settings.control_ids, settings.special_tokens.get("unk_token"))
        self._bos = [] if settings.bos_id is None else [settings.bos_id]
        self._soft = list(settings.prompt_ids)

    @cached_property
    def _epilogue(self) -> str:
        chat = self.settings.chat
        return "" if chat is None else find_epilogue(chat, self._control.pattern)

    def encode(self, sample: Sample) -> list[Encoded]:
        """Encode one sample.

        Returns:
            One sequence; one for each trained answer where the chat template writes earlier turns differently once
            later ones follow, or where an answer's first letters would merge with its prompt's last. Of a preference
            pair, the chosen answer's; the rejected one is checked alike.

        Raises:
            RenderFault: Its template, its tokenizer or its control tokens make an exact mask impossible.
        """
        encoded = self._encode(sample)
        if sample.content.rejected:
            rejected = Content(turns=sample.content.rejected, tools=sample.content.tools)
            try:
                self._encode(replace(sample, content=rejected))
            except RenderFault as fault:
                raise RenderFault(fault.what, fault.fix, f"rejected, {fault.field}".removesuffix(", ")) from None
        return encoded

    def _encode(self, sample: Sample) -> list[Encoded]:
        if not self.settings.allow_control_tokens:
            self._control.refuse_spelled(sample)
        chat = self.settings.chat
        if sample.kind == "text" or (chat is None and sample.kind == "exchange" and len(sample.turns) == 2):
            return [self._plain(sample)]
        if chat is None:
            raise RenderFault(
                "is a conversation, and this model's tokenizer has no chat template", self.settings.template_fix
            )
        parts = render(sample, chat, train_on=self.settings.train_on, epilogue=self._epilogue)
        return [encoded for part in parts for encoded in self._templated(part)]

    def _plain(self, sample: Sample) -> Encoded:
        """Plain text: BOS where wanted, the prompt tokenised by itself as a server will, eos at the end."""
        eos = self.settings.eos_id
        if eos is None:
            raise RenderFault("the tokenizer has no eos token, so the model could never learn to stop")
        *before, said = sample.turns
        if sample.kind != "text":
            trained_turns(sample.turns, self.settings.train_on)  # or there is nothing to learn here
        prompt = self._soft + self._bos + [token for turn in before for token in self._text.ids(turn.content)]
        ids = [*prompt, *self._text.ids(said.content), eos]
        self._require_one_bos(ids)
        answer_start = 0 if sample.kind == "text" else len(prompt)
        counted = 0 if self.settings.train_on == "all" else answer_start
        return Encoded(
            ids=ids,
            spans=_merged([(counted, len(ids))], self._first(ids)),
            answer_start=answer_start,
            stop_id=eos,
            turn=len(before),
        )

    def _templated(self, rendered: Rendered) -> list[Encoded]:
        answers = [*rendered.answers, *(rendered.context or ())]
        tokens = _Tokens(self._text, rendered.text, answers)
        if not all(tokens.knows(answer.begin) for answer in answers):
            if len(answers) > 1:
                return [encoded for part in _one_by_one(rendered) for encoded in self._templated(part)]
            tokens = self._apart(rendered.text, answers[0])
        return [self._spans(rendered, tokens)]

    def _spans(self, rendered: Rendered, tokens: _Tokens) -> Encoded:
        self._require_one_bos(tokens.ids)
        for answer in (*rendered.answers, *(rendered.context or ())):
            self._require_stop(rendered.text, answer, tokens)
        if rendered.context is None:
            spans = [span for answer in rendered.answers for span in _counted(answer, tokens)]
        else:
            borders = [0, *(tokens.at(place) for one in rendered.context for place in (one.begin, one.end))]
            spans = list(zip(borders[::2], [*borders[1::2], len(tokens.ids)], strict=True))
        last = rendered.answers[-1]
        return Encoded(
            ids=tokens.ids,
            spans=_merged(spans, self._first(tokens.ids)),
            answer_start=tokens.at(last.begin),
            stop_id=tokens.ids[tokens.at(last.end) - 1],
            turn=last.turn,
        )

    def _apart(self, text: str, answer: Answer) -> _Tokens:
        """For an answer whose first letters would merge with the prompt's last: tokenise the prompt by itself.

        That is what a server does.
        """
        tokens = _Tokens(self._text, text, [answer], apart=answer.begin)
        if self._text.decode(tokens.ids) != text:
            raise RenderFault(
                "this tokenizer adds characters between prompt and answer, so they cannot be kept apart",
                field=f"turn {answer.turn}",
            )
        return tokens

    def _first(self, ids: Sequence[int]) -> int:
        """The first token that can count."""
        return 1 + (len(self._soft) if ids[: len(self._soft)] == self._soft else 0)

    def _require_one_bos(self, ids: Sequence[int]) -> None:
        start = self._first(ids) - 1
        if self._bos and ids[start : start + 2] == self._bos * 2:
            raise RenderFault("BOS stands twice at the start", "Remove bos_token from the data or the template.")

    def _require_stop(self, text: str, answer: Answer, tokens: _Tokens) -> None:
        """An answer must end with a control token that stands there as itself, not as `unk` for something unknown."""
        if tokens.knows(answer.end) and tokens.at(answer.end) > tokens.at(answer.begin):
            content = self._control.contents.get(tokens.ids[tokens.at(answer.end) - 1])
            if content is not None and text.endswith(content, answer.begin, answer.end):
                return
        raise RenderFault(
            "the chat template does not end the assistant's turn with a control token, so the model could never "
            "learn to stop",
            OTHER_TEMPLATE,
        )


def example_of(encoded: Encoded, sample: Sample) -> TokenizedExample:
    """One of a sample's sequences as lists, for a trainer and for people to look at."""
    labels = [IGNORED] * len(encoded.ids)
    for start, end in encoded.spans:
        # By position, never by id: where pad equals eos, masking by id would hide the stop token.
        labels[start:end] = encoded.ids[start:end]
    is_text = sample.kind == "text"
    return TokenizedExample(
        input_ids=encoded.ids,
        labels=labels,
        answer_start=encoded.answer_start,
        stop_id=encoded.stop_id,
        answer=None if is_text else sample.turns[encoded.turn].content,
        place=sample.place,
        question=None if is_text else sample.turns[encoded.turn - 1].content,
    )


class _Tokens:
    """The tokens of a rendered text, and where in them its answers' borders are.

    Args:
        encoder: Of the text.
        text: All of it.
        answers: Whose beginnings, ends and marks are wanted.
        apart: Characters from the beginning that are tokenised by themselves.
    """

    def __init__(self, encoder: TextEncoder, text: str, answers: Sequence[Answer], *, apart: int = 0) -> None:
        self._encoder, self._text, self._apart = encoder, text, apart
        self._head = encoder.ids(text[:apart]) if apart else []
        marks = (place for one in answers for span in one.counts for place in span)
        places = sorted({*marks, *(place for one in answers for place in (one.begin, one.end))})
        rest, cuts = self._cut(places)
        self.ids = self._head + rest
        self._at = dict(zip(places, cuts, strict=True))

    def knows(self, place: int) -> bool:
        """Whether the tokens can be cut exactly at a character."""
        return self._at[place] is not None

    def at(self, place: int) -> int:
        """How many tokens stand before a character that can be cut at."""
        count = self._at[place]
        assert count is not None
        return count

    def outward(self, place: int, limit: int) -> int:
        """Like `at`, but from the nearest place towards a limit, itself one, where the tokens can be cut."""
        if self.knows(place):
            return self.at(place)
        step = 1 if limit > place else -1
        _, cuts = self._cut(list(range(place + step, limit + step, step)))
        return next(count for count in cuts if count is not None)

    def _cut(self, places: Sequence[int]) -> tuple[list[int], list[int | None]]:
        ids, cuts = self._encoder.cut(self._text[self._apart :], [place - self._apart for place in places])
        return ids, [None if count is None else len(self._head) + count for count in cuts]


def _one_by_one(rendered: Rendered) -> list[Rendered]:
    """A sequence for each answer, where no single tokenisation can equal the server's for all of their prompts."""
    if rendered.context is not None:
        raise RenderFault(
            "an answer's first token merges with the text before it, so its border cannot be told",
            "Choose data.train_on: assistant.",
            f"turn {rendered.context[0].turn if rendered.context else rendered.answers[0].turn}",
        )
    return [Rendered(text=rendered.text[: answer.end], answers=(answer,)) for answer in rendered.answers]


def _counted(answer: Answer, tokens: _Tokens) -> Iterator[tuple[int, int]]:
    """Spans of an answer's tokens that count: a token that is only partly inside a mark does, the stop always."""
    stop = tokens.at(answer.end)
    for start, end in answer.counts:
        yield tokens.outward(start, answer.begin), tokens.outward(end, answer.end)
    yield stop - 1, stop


def _merged(spans: Sequence[tuple[int, int]], first: int) -> list[tuple[int, int]]:
    """Ascending and disjoint, without empty ones and without what comes before the first token that can count."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted((max(start, first), end) for start, end in spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        elif start < end:
            merged.append((start, end))
    return merged
