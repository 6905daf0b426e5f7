"""Text and answer spans of a conversation, proven to be what serving will render."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from ftkit.data.chat import Beginnings, ChatTemplate, RenderFault, Spans
from ftkit.data.sample import Sample, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TrainOn = Literal["assistant", "last", "all"]

SHOWN = 60  # characters of a template's text in a message
OTHER_TEMPLATE = "Choose another model.chat_template."
# Words that no template looks for, so that what stands around them is all the template's own.
PROBE = (Turn(role="user", content="aquamarine"), Turn(role="assistant", content="vermilion"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An answer's place in a rendered conversation, in characters.

    Attributes:
        turn: Its index in the conversation.
        begin: Where it begins; what stands before is the prompt that a server sends.
        end: Where it ends, with the text that closes it and without line breaks behind that.
        counts: What of it counts: all of it, or what the template's ``{% generation %}`` marks choose.
    """

    turn: int
    begin: int
    end: int
    counts: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """One training sequence as text.

    Attributes:
        text: All of it.
        answers: Those that are trained, ascending; never empty.
        context: None where only answers count. Else everything counts but these answers.
    """

    text: str
    answers: tuple[Answer, ...]
    context: tuple[Answer, ...] | None = None


def render_chat(tokenizer: PreTrainedTokenizerBase, turns: Sequence[Turn], *, ask: bool) -> str:
    """Apply the tokenizer's chat template by transformers itself, as a server does at this moment.

    Raises:
        RenderFault: The template refuses this conversation.
    """
    messages = [turn.message for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
    except Exception as error:  # noqa: BLE001 - templates raise whatever they like; every kind becomes one message
        raise RenderFault(f"the chat template refuses this conversation: {error}") from None


def trained_turns(turns: Sequence[Turn], train_on: TrainOn) -> list[int]:
    """Indexes of the answers that a row is trained on.

    Raises:
        RenderFault: There are none.
    """
    spoken = [index for index, turn in enumerate(turns) if turn.role == "assistant"]
    if train_on == "last" and spoken and not turns[spoken[-1]].train:
        raise RenderFault(
            "data.train_on is last, and the last answer is kept out of training",
            "Choose data.train_on: assistant, or remove the row.",
            _field(spoken[-1]),
        )
    chosen = [index for index in (spoken[-1:] if train_on == "last" else spoken) if turns[index].train]
    if not chosen:
        raise RenderFault("no answer of this row is to be trained", "Remove the row.")
    return chosen


def render(sample: Sample, chat: ChatTemplate, *, train_on: TrainOn, epilogue: str = "") -> list[Rendered]:
    """Render a conversation and find its answers by rendering every prompt that serving will send.

    For each answer: the conversation before it, with the generation prompt, must be a prefix of the conversation with
    it. What lies between is what the model writes, whatever the template. Where each of these is also a prefix of the
    whole, the whole is one sequence with every answer in it. Else the template writes earlier turns in another way
    once later ones follow, as reasoning templates do that drop earlier thoughts, and each answer gets a sequence of
    its own: the conversation up to it, as serving renders it at that moment.

    Args:
        sample: A conversation.
        chat: The template.
        train_on: ``assistant``: every answer. ``last``: the last one. ``all``: every token, but not the answers that
            are kept out of training.
        epilogue: What the template writes behind the last turn alone (see `find_epilogue`).

    Raises:
        RenderFault: The template refuses, or loses a part of the row, or does not write what a server would.
    """
    turns = sample.turns
    trained = trained_turns(turns, train_on)
    beginnings = chat.beginnings(turns, sample.content.tools)
    follows_marks = train_on != "all" and chat.has_marks(sample.content.tools)
    conversation = _Conversation(sample, beginnings, epilogue, follows_marks=follows_marks)
    found = [conversation.until(index) for index in trained]
    last = found[-1]
    goes_on = trained[-1] < len(turns) - 1
    whole = beginnings.written(len(turns), follow_marks=False)[0] if goes_on else last.text
    _require_tools(sample.content.tools, whole)
    if train_on == "all":
        untrained = [index for index in _spoken(turns) if not turns[index].train]
        return [_everything(whole, last, [conversation.until(index) for index in untrained])]
    if all(whole.startswith(one.stable) for one in found):
        return [Rendered(text=whole, answers=tuple(one.answer for one in found))]
    return [Rendered(text=one.text, answers=(one.answer,)) for one in found]


def find_epilogue(chat: ChatTemplate, control: re.Pattern[str]) -> str:
    """What a template writes behind the last turn alone, though that turn has an end of its own.

    Phi-3 closes every turn with ``<|end|>`` and, where no answer is asked for, the conversation with
    ``<|endoftext|>``. A server stops at the first of them, and the second must not keep the turns of a conversation
    from sharing one sequence. Where the last turn merely ends in another way than earlier ones do, that is its end.

    Args:
        chat: The template.
        control: Matches control tokens, in one group.
    """
    try:
        alone, _ = chat.render(PROBE, ask=False)
        goes_on, _ = chat.render((*PROBE, PROBE[0]), ask=True)
    except RenderFault:
        return ""  # the rows will say so, with a place
    answer = PROBE[1].content
    pieces, others = (control.split(text.partition(answer)[2]) for text in (alone, goes_on))
    shared = _shared(pieces, others)
    has_end = shared > 1  # every second piece is a control token, the first is what stands before it
    return "".join(pieces[shared:]) if has_end else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Answered:
    """A conversation up to and with an answer, as a template writes it.

    Attributes:
        text: All of it.
        stable: The part that must stay when the conversation goes on, for the row to be one sequence.
        answer: The place of the answer.
    """

    text: str
    stable: str
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Conversation:
    """A row and what the template makes of it."""

    sample: Sample
    beginnings: Beginnings
    epilogue: str
    follows_marks: bool
    marks: dict[int, Spans] = field(default_factory=dict)

    def until(self, index: int) -> _Answered:
        """Render up to an answer and prove that the prompt that asks for it stands before it."""
        asked = self.beginnings.asked(index)
        text, marks = self.beginnings.written(index + 1, follow_marks=self.follows_marks)
        if not text.startswith(asked):
            raise _asks_differently(asked, text, index)
        stable = text.removesuffix(self.epilogue) if len(text) - len(self.epilogue) >= len(asked) else text
        begin, end = len(asked), len(stable.rstrip())
        self._require_all_of(index, text, begin, end)
        counts: tuple[tuple[int, int], ...] = ((begin, end),)
        if self.follows_marks:
            self.marks[index] = marks
            self._require_no_others(index, asked, marks)
            inside = [(max(start, begin), min(stop, end)) for start, stop in marks]
            counts = tuple((start, stop) for start, stop in inside if start < stop)
            if not counts:
                raise RenderFault(
                    "the chat template has {% generation %} marks, and none of them is in this answer",
                    f"Correct the template's marks or take them out. {OTHER_TEMPLATE}",
                    _field(index),
                )
        return _Answered(text=text, stable=stable, answer=Answer(turn=index, begin=begin, end=end, counts=counts))

    def _require_no_others(self, index: int, asked: str, marks: Spans) -> None:
        """Between one answer and the prompt for the next, nothing is the model's to write."""
        earlier = _spoken(self.sample.turns[:index])
        before = self._marks_until(earlier[-1]) if earlier else []
        passed = [(start, end) for start, end in marks if end <= len(asked)]
        if len(passed) > len(before):
            start, end = passed[-1]
            raise RenderFault(
                f"the chat template's {{% generation %}} marks stand around {_short(asked[start:end])}, which is not "
                "the model's to write",
                f"Correct the template's marks or take them out. {OTHER_TEMPLATE}",
                _field(index),
            )

    def _marks_until(self, index: int) -> Spans:
        if index not in self.marks:
            self.marks[index] = self.beginnings.written(index + 1, follow_marks=True)[1]
        return self.marks[index]

    def _require_all_of(self, index: int, text: str, begin: int, end: int) -> None:
        """What a row wants the model to say must be in what it learns; of white space a template may do with less."""
        for name, wanted in _parts(self.sample.turns[index]):
            if wanted.strip() in text[begin:end]:
                continue
            # The generation prompt itself may begin the answer, as an empty thought does.
            before, _ = self.beginnings.written(index, follow_marks=False)
            written = text[len(before) if text.startswith(before) else begin : end]
            if _squeezed(wanted) not in _squeezed(written):
                raise RenderFault(
                    f"the chat template leaves out or changes this answer's {name}, {_short(wanted)}: it writes "
                    f"{_short(written)}",
                    f"{OTHER_TEMPLATE} Or change the row.",
                    _field(index),
                )


def _everything(whole: str, last: _Answered, context: Sequence[_Answered]) -> Rendered:
    """The longest text in which everything but some answers can count."""
    text = whole if whole.startswith(last.stable) else last.text
    kept_out = [one for one in context if text is whole or one.answer.turn < last.answer.turn]
    for one in kept_out:
        if not text.startswith(one.stable):
            raise RenderFault(
                "the chat template writes this answer in another way once later turns follow, so it cannot be kept "
                "out of training there",
                f"Choose data.train_on: assistant, or remove the turn. {OTHER_TEMPLATE}",
                _field(one.answer.turn),
            )
    return Rendered(text=text, answers=(last.answer,), context=tuple(one.answer for one in kept_out))


def _require_tools(tools: Sequence[Mapping[str, Any]], text: str) -> None:
    for tool in tools:
        name = str(tool.get("function", tool).get("name", ""))
        if name not in text:
            raise RenderFault(
                f"the chat template does not show the model the tool {name!r}",
                f"{OTHER_TEMPLATE} Or leave out the tools.",
                "tools",
            )


def _asks_differently(asked: str, text: str, index: int) -> RenderFault:
    same = _shared(asked, text)
    return RenderFault(
        f"a server's prompt for this answer goes on with {_short(asked[same:])} where the chat template writes "
        f"{_short(text[same:])} once the answer follows, so it would be asked in another way than it was "
        "trained",
        f"Set model.chat_template_kwargs, such as enable_thinking, so that both agree. {OTHER_TEMPLATE}",
        _field(index),
    )


def _parts(turn: Turn) -> list[tuple[str, str]]:
    """What of an answer must be found in its text."""
    fields = turn.fields
    parts = [("content", turn.content)]
    if fields:
        reasoning = next((fields[key] for key in ("reasoning_content", "thinking") if fields.get(key)), "")
        parts.append(("reasoning", str(reasoning)))
        for call in fields.get("tool_calls") or ():
            parts.append(("tool call", str(call.get("function", call).get("name", ""))))
    return parts


def _spoken(turns: Sequence[Turn]) -> list[int]:
    return [index for index, turn in enumerate(turns) if turn.role == "assistant"]


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many elements both begin with."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _short(text: str) -> str:
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def _field(index: int) -> str:
    return f"turn {index}"
