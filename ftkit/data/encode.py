"""Samples into token ids and the spans of them that count towards the loss."""

from __future__ import annotations

import datetime
from array import array
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from ftkit.data.chat import ChatTemplate, RenderFault
from ftkit.data.control import ControlTokens
from ftkit.data.example import IGNORED, TokenizedExample
from ftkit.data.render import OTHER_TEMPLATE, Answer, Rendered, TrainOn, find_epilogue, render, trained_turns
from ftkit.data.sample import Content, Sample
from ftkit.data.text_encoder import TextEncoder
from ftkit.data.tokens import Tokens, counted, merged
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
        ids: Token ids, of type code ``i``: a list of some hundred numbers a row takes longer to make and to read.
        spans: Ranges of tokens that count towards the loss, ascending and disjoint; never token 0, as nothing comes
            before it to predict it from, nor a soft prompt and the token after it, which is token 0 without one.
        answer_start: Where the last trained answer begins; the ids before it are the prompt that a server sends.
        stop_id: The token that ends that answer.
        turn: Its index in the sample's turns.
    """

    ids: array[int]
    spans: list[tuple[int, int]]
    answer_start: int
    stop_id: int
    turn: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """A sample that is ready to be tokenised.

    Attributes:
        sample: Itself.
        parts: What the chat template made of it; None where it is plain text.
        rejected: Of a preference pair, the rejected answer, or the fault of that.
    """

    sample: Sample
    parts: list[Rendered] | None
    rejected: Prepared | RenderFault | None = None

    @property
    def texts(self) -> list[str]:
        """All that is to be tokenised."""
        own = [turn.content for turn in self.sample.turns] if self.parts is None else [one.text for one in self.parts]
        return own + self.rejected.texts if isinstance(self.rejected, Prepared) else own


class Encoder:
    """Encodes samples for one tokenizer and one way of training.

    Args:
        settings: See `EncoderSettings`.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._text = TextEncoder(settings.tokenizer_json)
        self._control = ControlTokens(self._text, settings.control_ids, settings.special_tokens.get("unk_token"))
        self._bos = array("i", [] if settings.bos_id is None else [settings.bos_id])
        self._soft = array("i", settings.prompt_ids)

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
        return self.finish(self.prepare(sample))

    def prepare(self, sample: Sample) -> Prepared:
        """Check and render one sample, up to its tokens.

        Raises:
            RenderFault: Its template or its control tokens make an exact mask impossible.
        """
        parts = self._rendered(sample)
        other = sample.content.rejected
        if not other:
            return Prepared(sample=sample, parts=parts)
        rejected = replace(sample, content=Content(turns=other, tools=sample.content.tools))
        try:
            second = Prepared(sample=rejected, parts=self._rendered(rejected))
        except RenderFault as fault:
            # Told by `finish`, as what is wrong with the chosen answer's tokens comes first.
            return Prepared(sample=sample, parts=parts, rejected=fault)
        return Prepared(sample=sample, parts=parts, rejected=second)

    def ahead(self, many: Iterable[Prepared]) -> AbstractContextManager[None]:
        """Within this context, `finish` is fast for these samples."""
        return self._text.ahead(text for one in many for text in one.texts)

    def finish(self, prepared: Prepared) -> list[Encoded]:
        """Tokenise what `prepare` gave; see `encode`."""
        encoded = self._encoded(prepared)
        try:
            if isinstance(prepared.rejected, RenderFault):
                raise prepared.rejected
            if prepared.rejected is not None:
                self._encoded(prepared.rejected)
        except RenderFault as fault:
            raise RenderFault(fault.what, fault.fix, f"rejected, {fault.field}".removesuffix(", ")) from None
        return encoded

    def _rendered(self, sample: Sample) -> list[Rendered] | None:
        if not self.settings.allow_control_tokens:
            self._control.refuse_spelled(sample)
        chat = self.settings.chat
        if sample.kind == "text" or (chat is None and sample.kind == "exchange" and len(sample.turns) == 2):
            return None
        if chat is None:
            raise RenderFault(
                "is a conversation, and this model's tokenizer has no chat template", self.settings.template_fix
            )
        return render(sample, chat, train_on=self.settings.train_on, epilogue=self._epilogue)

    def _encoded(self, prepared: Prepared) -> list[Encoded]:
        if prepared.parts is None:
            return [self._plain(prepared.sample)]
        return [encoded for part in prepared.parts for encoded in self._templated(part)]

    def _plain(self, sample: Sample) -> Encoded:
        """Plain text: BOS where wanted, the prompt tokenised by itself as a server will, eos at the end."""
        eos = self.settings.eos_id
        if eos is None:
            raise RenderFault("the tokenizer has no eos token, so the model could never learn to stop")
        *before, said = sample.turns
        if sample.kind != "text":
            trained_turns(sample.turns, self.settings.train_on)  # or there is nothing to learn here
        prompt = [*self._soft, *self._bos, *(token for turn in before for token in self._text.ids(turn.content))]
        ids = array("i", [*prompt, *self._text.ids(said.content), eos])
        self._require_one_bos(ids)
        answer_start = 0 if sample.kind == "text" else len(prompt)
        begin = 0 if self.settings.train_on == "all" else answer_start
        return Encoded(
            ids=ids,
            spans=merged([(begin, len(ids))], self._first(ids)),
            answer_start=answer_start,
            stop_id=eos,
            turn=len(before),
        )

    def _templated(self, rendered: Rendered) -> list[Encoded]:
        answers = [*rendered.answers, *(rendered.context or ())]
        tokens = Tokens(self._text, rendered.text, answers)
        if not all(tokens.knows(answer.begin) for answer in answers):
            if len(answers) > 1:
                return [encoded for part in _one_by_one(rendered) for encoded in self._templated(part)]
            tokens = self._apart(rendered.text, answers[0])
        return [self._spans(rendered, tokens)]

    def _spans(self, rendered: Rendered, tokens: Tokens) -> Encoded:
        self._require_one_bos(tokens.ids)
        for answer in (*rendered.answers, *(rendered.context or ())):
            self._require_stop(rendered.text, answer, tokens)
        if rendered.context is None:
            spans = [span for answer in rendered.answers for span in counted(answer, tokens)]
        else:
            borders = [0, *(tokens.at(place) for one in rendered.context for place in (one.begin, one.end))]
            spans = list(zip(borders[::2], [*borders[1::2], len(tokens.ids)], strict=True))
        last = rendered.answers[-1]
        return Encoded(
            ids=tokens.ids,
            spans=merged(spans, self._first(tokens.ids)),
            answer_start=tokens.at(last.begin),
            stop_id=tokens.ids[tokens.at(last.end) - 1],
            turn=last.turn,
        )

    def _apart(self, text: str, answer: Answer) -> Tokens:
        """For an answer whose first letters would merge with the prompt's last: tokenise the prompt by itself.

        That is what a server does.
        """
        tokens = Tokens(self._text, text, [answer], apart=answer.begin)
        if self._text.decode(tokens.ids) != text:
            raise RenderFault(
                "this tokenizer adds characters between prompt and answer, so they cannot be kept apart",
                field=f"turn {answer.turn}",
            )
        return tokens

    def _first(self, ids: array[int]) -> int:
        """The first token that can count."""
        return 1 + (len(self._soft) if ids[: len(self._soft)] == self._soft else 0)

    def _require_one_bos(self, ids: array[int]) -> None:
        start = self._first(ids) - 1
        if self._bos and ids[start : start + 2] == self._bos * 2:
            raise RenderFault("BOS stands twice at the start", "Remove bos_token from the data or the template.")

    def _require_stop(self, text: str, answer: Answer, tokens: Tokens) -> None:
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
    ids = encoded.ids.tolist()
    labels = [IGNORED] * len(ids)
    for start, end in encoded.spans:
        # By position, never by id: where pad equals eos, masking by id would hide the stop token.
        labels[start:end] = ids[start:end]
    is_text = sample.kind == "text"
    return TokenizedExample(
        input_ids=ids,
        labels=labels,
        answer_start=encoded.answer_start,
        stop_id=encoded.stop_id,
        answer=None if is_text else sample.turns[encoded.turn].content,
        place=sample.place,
        question=None if is_text else sample.turns[encoded.turn - 1].content,
    )


def _one_by_one(rendered: Rendered) -> list[Rendered]:
    """A sequence for each answer, where no single tokenisation can equal the server's for all of their prompts."""
    if rendered.context is not None:
        raise RenderFault(
            "an answer's first token merges with the text before it, so its border cannot be told",
            "Choose data.train_on: assistant.",
            f"turn {rendered.context[0].turn if rendered.context else rendered.answers[0].turn}",
        )
    return [Rendered(text=rendered.text[: answer.end], answers=(answer,)) for answer in rendered.answers]
