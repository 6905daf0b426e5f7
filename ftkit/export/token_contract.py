"""The token contract: what exactly the trained model was shown, so that any server can be held to it.

A fixed list of conversations, each as the token ids that the training tokenizer and chat template give it when an
answer is asked for, or the template's refusal; and a few plain texts. It travels in every export as
``token_contract.json``. Nothing here imports torch or transformers: a contract alone suffices to question a server.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ftkit.errors import VerificationError
from ftkit.export.contract_cases import CONVERSATIONS, TEXTS, TOOLS, WITH_TOOLS
from ftkit.export.process import read_alone
from ftkit.files import sha256_json, write_text

CONTRACT = "token_contract.json"
VERSION = 1
# What templates that write today's date see, so that a contract does not depend on the day of the export.
# Year, month, day, hour, minute and second all differ, so that none can stand in for another.
CLOCK = "2001-02-03T04:05:06"

Namer = Callable[[int], str]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One entry of the contract.

    Attributes:
        name: Of the conversation; of a plain text, the text itself.
        messages: As chat templates take them; None for a plain text.
        tools: JSON schemas that the template is given.
        text: As rendered; None where it is refused.
        ids: Token ids; None where it is refused.
        refused: Why the template renders no text.
    """

    name: str
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    text: str | None = None
    ids: list[int] | None = None
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As written, without what it does not have."""
        if self.messages is None:
            return {"text": self.text, "ids": self.ids}
        values = {key: getattr(self, key) for key in ("name", "messages", "tools", "text", "ids", "refused")}
        return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TokenContract:
    """All of token_contract.json.

    Attributes:
        clock: The moment that the template saw as now, in ISO form; None where it never reads the clock.
        conversations: Empty for a tokenizer without a chat template.
        texts: Plain texts, with the special tokens that the tokenizer itself adds.
    """

    clock: str | None
    conversations: tuple[Prompt, ...]
    texts: tuple[Prompt, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON; the words of a refusal do not count, as Python's own vary by version."""
        conversations = [prompt.to_dict() for prompt in self.conversations]
        for entry in conversations:
            if "refused" in entry:
                entry["refused"] = True
        texts = [prompt.to_dict() for prompt in self.texts]
        return sha256_json({"version": VERSION, "clock": self.clock, "conversations": conversations, "texts": texts})

    def write(self, folder: Path) -> None:
        """Write token_contract.json, a line a prompt."""
        head = {"version": VERSION, "digest": self.digest, "clock": self.clock}
        parts = [f'  "{key}": {json.dumps(value)}' for key, value in head.items()]
        for key, prompts in (("conversations", self.conversations), ("texts", self.texts)):
            lines = [f"    {json.dumps(prompt.to_dict(), ensure_ascii=False)}" for prompt in prompts]
            parts.append(f'  "{key}": [\n' + ",\n".join(lines) + "\n  ]")
        write_text(folder / CONTRACT, "{\n" + ",\n".join(parts) + "\n}\n")

    def questions(self) -> dict[str, Any]:
        """What has to be rendered and tokenised to compare with, for ``verify_process.py``."""
        return {
            "conversations": [{"messages": prompt.messages, "tools": prompt.tools} for prompt in self.conversations],
            "texts": [prompt.text for prompt in self.texts],
        }

    def with_answers(self, answers: dict[str, Any], clock: str | None) -> TokenContract:
        """The same prompts with what ``verify_process.py`` made of them."""
        conversations = [
            Prompt(name=prompt.name, messages=prompt.messages, tools=prompt.tools, **answer)
            for prompt, answer in zip(self.conversations, answers["conversations"], strict=True)
        ]
        texts = [
            Prompt(name=prompt.name, text=prompt.text, ids=ids)
            for prompt, ids in zip(self.texts, answers["texts"], strict=True)
        ]
        return TokenContract(clock=clock, conversations=tuple(conversations), texts=tuple(texts))


def make_contract(tokenizer: Any) -> TokenContract:
    """Take down what a tokenizer of transformers and its chat template make of the fixed prompts."""
    templates = tokenizer.chat_template
    reads_clock = "strftime_now" in (templates if isinstance(templates, str) else json.dumps(templates))
    texts = [Prompt(name=text, text=text, ids=list(tokenizer(text)["input_ids"])) for text in TEXTS]
    conversations: list[Prompt] = []
    if templates is not None:
        cases = [(*case, None) for case in CONVERSATIONS] + [(*case, TOOLS) for case in WITH_TOOLS]
        with _frozen_clock(tokenizer) if reads_clock else contextlib.nullcontext():
            conversations = [_render(tokenizer, *case) for case in cases]
    return TokenContract(clock=CLOCK if reads_clock else None, conversations=tuple(conversations), texts=tuple(texts))


def read_contract(folder: Path, digest: str | None) -> TokenContract | None:
    """Read an export's contract.

    Args:
        folder: The export.
        digest: That its manifest names; None for an export that was written without a contract.

    Returns:
        The contract; None where there is none and none is named.

    Raises:
        VerificationError: It is missing, damaged, or another than the manifest's.
    """
    path = folder / CONTRACT
    if digest is None and not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise VerificationError(
                f"{path}: is of version {values['version']}, not {VERSION}",
                fix="Use the ftkit that wrote it, or export again.",
            )
        contract = TokenContract(
            clock=values["clock"],
            conversations=tuple(Prompt(**entry) for entry in values["conversations"]),
            texts=tuple(Prompt(name=entry["text"], **entry) for entry in values["texts"]),
        )
        found = contract.digest
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerificationError(f"{path}: cannot be read: {error}", fix="Export again.") from None
    if found != digest:
        raise VerificationError(f"{path}: is not the contract that manifest.json names", fix="Export again.")
    return contract


def redate(folder: Path, contract: TokenContract, moments: Sequence[datetime]) -> list[TokenContract]:
    """Render a contract that reads the clock at other moments, by the export's own tokenizer in a fresh process.

    Raises:
        ModelError: The tokenizer cannot be loaded.
        VerificationError: At the contract's own moment it renders something else than the contract says.
    """
    assert contract.clock is not None, "only a template that reads the clock is rendered anew"
    clocks = [contract.clock, *(moment.replace(tzinfo=None, microsecond=0).isoformat() for moment in moments)]
    with read_alone({"folder": str(folder.resolve()), "contract": contract.questions(), "clocks": clocks}) as out:
        answers = json.loads((out / "contract.json").read_text(encoding="utf-8"))
    own, *others = [contract.with_answers(one, clock) for one, clock in zip(answers, clocks, strict=True)]
    if own.digest != contract.digest:
        raise VerificationError(
            f"{folder}: its tokenizer or template no longer gives the tokens of {CONTRACT}",
            fix="Run `ftkit verify` on it without --endpoint; do not deploy it.",
        )
    return others


def first_difference(expected: Sequence[int], found: Sequence[int]) -> int | None:
    """Position of the first token that differs or that only one side has; None for equal lists."""
    pairs = enumerate(zip(expected, found, strict=False))
    parting = next((index for index, (ours, theirs) in pairs if ours != theirs), None)
    if parting is None and len(expected) != len(found):
        return min(len(expected), len(found))
    return parting


def describe_contract_difference(contract: TokenContract, found: TokenContract, names: Namer) -> str:
    """The first prompt that another tokenizer or template treats differently, in words; empty where there is none."""
    ours, theirs = (*contract.conversations, *contract.texts), (*found.conversations, *found.texts)
    for expected, other in zip(ours, theirs, strict=True):
        if (expected.ids is None) != (other.ids is None):
            refused, rendered = ("trained", "exported") if expected.ids is None else ("exported", "trained")
            reason = expected.refused or other.refused
            return f"{expected.name!r}: the {refused} template refuses it ({reason}), the {rendered} one does not"
        if expected.ids is not None and other.ids is not None:
            position = first_difference(expected.ids, other.ids)
            if position is not None:
                sides = (show_tokens(ids, position, names) for ids in (expected.ids, other.ids))
                return f"{expected.name!r}, token {position}: trained with {{}}, exported {{}}".format(*sides)
    return ""


def show_tokens(ids: Sequence[int], position: int, names: Namer, *, around: int = 3) -> str:
    """Tokens around a position, as ``… <|im_start|> 'assistant' '\\n'``; ``(end)`` where they end."""
    start, stop = max(0, position - around), position + around
    shown = [names(token) for token in ids[start:stop]]
    return " ".join([*(["…"] if start else []), *shown, "…" if stop < len(ids) else "(end)"])


def token_names(folder: Path) -> Namer:
    """How to show a token: control tokens as they are, others quoted; ``#id`` for ids that the vocabulary lacks."""
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # noqa: BLE001 - the library raises bare Exception; ids alone still tell where lists part
        return lambda token: f"#{token}"
    special = {token for token, entry in tokenizer.get_added_tokens_decoder().items() if entry.special}
    by_bytes = '"ByteLevel"' in json.dumps(json.loads(tokenizer.to_str()).get("decoder"))

    def name(token: int) -> str:
        piece = tokenizer.id_to_token(token) if token >= 0 else None
        if piece is None:
            return f"#{token} (not in the vocabulary)"
        if token in special:
            return piece
        text = tokenizer.decode([token], skip_special_tokens=False) if by_bytes else piece.replace("▁", " ")
        if match := re.fullmatch(r"<0x([0-9A-F]{2})>", text):
            text = bytes([int(match[1], 16)]).decode("latin-1")
        return repr(piece if "\ufffd" in text else text)  # a part of a character has no text of its own

    return name


def _render(tokenizer: Any, name: str, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None) -> Prompt:
    try:
        text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # noqa: BLE001 - templates raise whatever they like, and every kind is a refusal
        return Prompt(name=name, messages=messages, tools=tools, refused=str(error) or type(error).__name__)
    ids = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    return Prompt(name=name, messages=messages, tools=tools, text=text, ids=ids)


@contextlib.contextmanager
def _frozen_clock(tokenizer: Any) -> Iterator[None]:
    """Let templates see `CLOCK` as now.

    transformers gives templates ``strftime_now`` and takes nothing in its place (functions among the template's
    variables are blotted out), so the clock that it reads is exchanged for the while.
    """
    from transformers.utils import chat_template_utils

    class Frozen(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:  # noqa: ARG003 - as the clock is called
            return datetime.fromisoformat(CLOCK)

    real = chat_template_utils.datetime
    chat_template_utils.datetime = Frozen
    try:
        probe = "{{ strftime_now('%Y-%m-%dT%H:%M:%S') }}"
        seen = tokenizer.apply_chat_template([{"role": "user", "content": ""}], chat_template=probe, tokenize=False)
        assert seen == CLOCK, "transformers takes the time of templates from elsewhere than it did"
        yield
    finally:
        chat_template_utils.datetime = real
