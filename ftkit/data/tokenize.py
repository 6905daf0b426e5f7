"""Token ids and loss masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from ftkit.data.render import Rendered, RenderFault, render
from ftkit.data.sample import Sample

IGNORED = -100  # the label that cross-entropy leaves out
TrainOn = Literal["assistant", "last", "all"]


@dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One sequence to train on.

    Attributes:
        input_ids: Token ids.
        labels: The same ids where a token counts towards the loss, -100 elsewhere; ``labels[0]`` is always -100, as
            nothing comes before the first token to predict it from.
        answer_start: Where the last answer begins; the ids before it are the prompt that a server would send.
        stop_id: The token that ends the last answer.
        answer: Text of the last answer; None for plain text.
        place: File and line of the row.
        question: Text of the turn before the last answer; None for plain text.
    """

    input_ids: list[int]
    labels: list[int]
    answer_start: int
    stop_id: int
    answer: str | None
    place: str
    question: str | None = None

    @property
    def supervised_tokens(self) -> int:
        """How many tokens count towards the loss."""
        return sum(label != IGNORED for label in self.labels)


class Tokenizer:
    """Turns samples into token ids and labels for one tokenizer.

    Args:
        tokenizer: A fast tokenizer, its chat template already in its final form.
        train_on: ``assistant``: every answer. ``last``: the last one. ``all``: every token.
        bos_wanted: The tokenizer itself begins plain text with BOS (templates write their own).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, train_on: TrainOn, bos_wanted: bool) -> None:
        self.tokenizer = tokenizer
        self.train_on = train_on
        self.bos: list[int] = [tokenizer.bos_token_id] if bos_wanted else []
        added: dict[int, Any] = tokenizer.added_tokens_decoder
        self.control_ids = {index for index, token in added.items() if token.special} | set(tokenizer.all_special_ids)

    def __call__(self, sample: Sample) -> TokenizedExample:
        """Tokenise one sample.

        Raises:
            RenderFault: Its template, its tokenizer or its control tokens make an exact mask impossible.
        """
        rendered = render(sample, self.tokenizer)
        ids, spans = self._ids_and_spans(rendered) if rendered.templated else self._plain(rendered, sample)
        chosen = {"assistant": spans, "last": spans[-1:], "all": [(0, len(ids))]}[self.train_on]
        labels = [IGNORED] * len(ids)
        for start, end in chosen:
            # By position, never by id: where pad equals eos, masking by id would hide the stop token.
            labels[start:end] = ids[start:end]
        labels[0] = IGNORED
        return TokenizedExample(
            input_ids=ids,
            labels=labels,
            answer_start=spans[-1][0],
            stop_id=ids[spans[-1][1] - 1],
            answer=None if sample.kind == "text" else sample.turns[_last_answer(sample)].content,
            place=sample.place,
            question=None if sample.kind == "text" else sample.turns[_last_answer(sample) - 1].content,
        )

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _plain(self, rendered: Rendered, sample: Sample) -> tuple[list[int], list[tuple[int, int]]]:
        """Plain text: BOS where wanted, the prompt tokenised by itself as a server will, eos at the end."""
        if self.tokenizer.eos_token_id is None:
            raise RenderFault("the tokenizer has no eos token, so the model could never learn to stop")
        begin = rendered.spans[0][0]
        prompt = self.bos + (self._encode(rendered.text[:begin]) if begin else [])
        ids = [*prompt, *self._encode(rendered.text[begin:]), self.tokenizer.eos_token_id]
        start = 0 if sample.kind == "text" else len(prompt)
        return ids, [(start, len(ids))]

    def _ids_and_spans(self, rendered: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of templated text, and the token span of each answer including the token that ends it."""
        encoded = self.tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        ids: list[int] = list(encoded["input_ids"])
        offsets: list[tuple[int, int]] = encoded["offset_mapping"]
        if self.bos and ids[:2] == self.bos * 2:
            raise RenderFault("BOS stands twice at the start", "Remove bos_token from the data or the template.")
        starts = [offset[0] for offset in offsets]
        spans = []
        for begin, end in rendered.spans:
            first = next((index for index, start in enumerate(starts) if start >= begin), len(ids))
            last = next((index for index in range(len(ids), 0, -1) if offsets[index - 1][1] <= end), 0)
            if self._encode(rendered.text[:begin]) != ids[:first]:
                return self._by_segments(rendered)
            spans.append((first, self._through_stop(ids, first, last)))
        return ids, spans

    def _by_segments(self, rendered: Rendered) -> tuple[list[int], list[tuple[int, int]]]:
        """For an answer whose first letters would merge with the prompt's last: tokenise the prompt by itself.

        That is what a server does. With several answers, one tokenisation cannot equal the server's for each.
        """
        if len(rendered.spans) > 1:
            raise RenderFault(
                "an answer's first token merges with the text before it, so its prompt cannot be tokenised as a "
                "server would",
                "Split the conversation into one row per answer.",
            )
        begin, end = rendered.spans[0]
        prompt = self._encode(rendered.text[:begin])
        answer = self._encode(rendered.text[begin:end])
        ids = prompt + answer + self._encode(rendered.text[end:])
        if self.tokenizer.decode(ids, clean_up_tokenization_spaces=False) != rendered.text:
            raise RenderFault(
                "this tokenizer adds characters between prompt and answer, so they cannot be kept apart"
            )
        return ids, [(len(prompt), self._through_stop(ids, len(prompt), len(prompt) + len(answer)))]

    def _through_stop(self, ids: list[int], first: int, last: int) -> int:
        """The end of an answer: after the control token that closes it, without the line break behind that."""
        for index in range(last, first, -1):
            if ids[index - 1] in self.control_ids:
                return index
            if self.tokenizer.decode(ids[index - 1 : index]).strip():
                break
        raise RenderFault(
            "the chat template does not end the assistant's turn with a control token, so the model could never "
            "learn to stop",
            "Choose another model.chat_template.",
        )


def _last_answer(sample: Sample) -> int:
    """Index of the last turn that the assistant speaks; `ftkit.data.formats` lets no conversation begin with it."""
    return max(index for index, turn in enumerate(sample.turns) if turn.role == "assistant")
