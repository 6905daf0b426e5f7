"""One answer as it comes, greedy or drawn, until a stop token, a stop text, or whoever listens ends it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria

from ftkit.evaluate.generation import Answer, greedy_config, without_own_settings

# Below this a temperature divides logits into infinities; the likeliest token is what it would draw anyway.
SMALLEST_TEMPERATURE = 1e-5
UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are not a whole character yet


@dataclass(frozen=True, kw_only=True)
class Speech:
    """How to answer.

    Attributes:
        max_new_tokens: Longest answer.
        temperature: 0 for the likeliest token every time, else what logits are divided by before one is drawn.
        top_p: Draw only from the fewest tokens that have this probability together.
        seed: Of the draw; None for another one every time.
        stop: Texts that end the answer; they are not part of it.
        strip: Whether white space around the answer is left out, as `ftkit.evaluate.generation.generate` does.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    strip: bool = True


@torch.no_grad()
def speak(
    model: Any,
    ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    speech: Speech,
    *,
    stop_token_ids: Sequence[int],
    say: Callable[[str], None] | None = None,
    ended: Callable[[], bool] | None = None,
) -> Answer:
    """Answer one prompt.

    Args:
        model: A causal language model without dropout.
        ids: Of the prompt, not empty.
        tokenizer: To turn ids into text.
        speech: How to answer.
        stop_token_ids: Any of these ends the answer.
        say: Called with each piece of the answer; together they are its text.
        ended: Asked after each token whether to stop there.

    Returns:
        The answer; with temperature 0 and no stop texts what `generate` gives.
    """
    started = time.perf_counter()
    device = next(model.parameters()).device
    listener = _Listener(tokenizer, speech, stop_token_ids, say, ended)
    row = torch.tensor([list(ids)], device=device)
    with without_own_settings(model), _seeded(speech.seed, device):
        model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            generation_config=_config(speech, stop_token_ids),
            stopping_criteria=[listener],
        )
    return listener.finish(time.perf_counter() - started)


def _config(speech: Speech, stop_token_ids: Sequence[int]) -> GenerationConfig:
    config = greedy_config(stop_token_ids, speech.max_new_tokens)
    if speech.temperature >= SMALLEST_TEMPERATURE:
        # top_k is 50 unless told otherwise, which nobody asked for.
        config.update(do_sample=True, temperature=speech.temperature, top_p=speech.top_p, top_k=0)
    return config


@contextlib.contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Draw by this seed, and leave the generators as they were: the next answer must not follow from it."""
    if seed is None:
        yield
        return
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


class _Listener(StoppingCriteria):
    """Sees every token as soon as it is chosen; transformers' streamers see it only after it was decided to go on."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        speech: Speech,
        stop_token_ids: Sequence[int],
        say: Callable[[str], None] | None,
        ended: Callable[[], bool] | None,
    ) -> None:
        self._tokenizer, self._speech, self._stop_token_ids = tokenizer, speech, stop_token_ids
        self._say, self._ended = say, ended
        self._tokens: list[int] = []
        self._said = ""
        self._stopped = False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:  # noqa: ARG002
        """Take the newest token down, and say whether the answer ends with it."""
        self._tokens.append(int(input_ids[0, -1]))
        if self._tokens[-1] in self._stop_token_ids:
            self._stopped = True
        elif self._say is not None or self._speech.stop:
            self._follow()
        over = self._stopped or (self._ended is not None and self._ended())
        return torch.full((1,), over, dtype=torch.bool, device=input_ids.device)

    def finish(self, wall_s: float) -> Answer:
        """Say what was held back, and give all of it."""
        text = self._shown(self._cut(self._decoded()))
        self._speak(text)
        reason: Literal["stop", "length"] = "stop" if self._stopped else "length"
        return Answer(text=text, tokens=len(self._tokens), finish_reason=reason, wall_s=wall_s)

    def _follow(self) -> None:
        text = self._decoded()
        cut = self._cut(text)
        if cut != text:
            self._stopped = True
            return
        # Held back: half a character, what may become a stop text, and (by strip) what may be white space at the end.
        text = text.rstrip(UNFINISHED)
        held = max((_beginning_of(stop, text) for stop in self._speech.stop), default=0)
        self._speak(self._shown(text[: len(text) - held]))

    def _decoded(self) -> str:
        kept = [token for token in self._tokens if token not in self._stop_token_ids]
        return str(self._tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _cut(self, text: str) -> str:
        places = [place for stop in self._speech.stop if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def _shown(self, text: str) -> str:
        return text.strip() if self._speech.strip else text

    def _speak(self, text: str) -> None:
        if self._say is not None and len(text) > len(self._said) and text.startswith(self._said):
            self._say(text[len(self._said) :])
            self._said = text


def _beginning_of(stop: str, text: str) -> int:
    """How many characters at the end of a text a stop text begins with."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
