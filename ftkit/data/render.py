"""Text and answer spans of a sample, rendered exactly as serving will render it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ftkit.data.sample import Sample, Turn


class RenderFault(ValueError):  # noqa: N818 - collected into a DataError, never shown by itself
    """Why a sample cannot be rendered, and how to mend it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A sample as text.

    Attributes:
        text: All of it.
        spans: Start and end, in characters, of each stretch that the assistant writes; an end-of-turn token at the
            end of a stretch belongs to it.
        templated: Whether a chat template wrote ``text`` (it then holds its own special tokens).
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    templated: bool


def render_chat(tokenizer: PreTrainedTokenizerBase, turns: tuple[Turn, ...], *, ask: bool) -> str:
    """Apply the tokenizer's chat template (transformers runs it in Jinja's sandbox).

    Args:
        tokenizer: With a chat template.
        turns: The conversation.
        ask: End with the words that make the model answer, as a server does.

    Raises:
        RenderFault: The template refuses this conversation.
    """
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask))
    except (TemplateError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise RenderFault(f"the chat template refuses this conversation: {error}") from None


def render(sample: Sample, tokenizer: PreTrainedTokenizerBase) -> Rendered:
    """Render a sample and find the assistant's stretches by rendering every prefix that serving will see.

    For each answer: the conversation before it, with the generation prompt, must be a prefix of the conversation
    with it, and that a prefix of the whole. Then what lies between is what the model writes, whatever the template.

    Raises:
        RenderFault: The template refuses, or rewrites earlier turns.
    """
    if sample.kind == "text":
        text = sample.turns[0].content
        return Rendered(text=text, spans=((0, len(text)),), templated=False)
    if tokenizer.chat_template is None:
        prompt, answer = sample.turns  # `prepare` refuses chats without a template before any row is rendered
        text = prompt.content + answer.content
        return Rendered(text=text, spans=((len(prompt.content), len(text)),), templated=False)
    whole = render_chat(tokenizer, sample.turns, ask=False)
    spans = []
    for index, turn in enumerate(sample.turns):
        if turn.role != "assistant":
            continue
        asked = render_chat(tokenizer, sample.turns[:index], ask=True)
        answered = render_chat(tokenizer, sample.turns[: index + 1], ask=False)
        if not answered.startswith(asked) or not whole.startswith(answered):
            raise RenderFault(
                f"the chat template renders turn {index} differently once later turns follow, so what it was trained "
                "on would not be what a server renders",
                "Split the conversation into one row per answer, or choose another model.chat_template.",
            )
        spans.append((len(asked), len(answered)))
    return Rendered(text=whole, spans=tuple(spans), templated=True)
