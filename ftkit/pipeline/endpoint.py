"""Does a running server send the model what it was trained on? Held to an export's token contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from ftkit.errors import VerificationError
from ftkit.export.manifest import read_manifest
from ftkit.export.token_contract import (
    Namer,
    Prompt,
    first_difference,
    read_contract,
    redate,
    show_tokens,
    token_names,
)
from ftkit.pipeline.http_server import HttpServer, Refused
from ftkit.pipeline.served_tokens import Served, Way, find_model, find_way


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One prompt of the contract as a server treats it.

    Attributes:
        name: Of the prompt.
        passed: Whether the server makes of it what training did.
        compared: ``tokens``, their ``count``, or the ``refusal`` where one side gives no tokens.
        tokens: How many there should be; None where the template refuses the conversation.
        first_difference: ``position``, ``expected`` and ``served`` {ids, tokens, count}, ``text`` (all of it in a
            line) and ``likely`` (the cause, where it has a known look); None where there is none.
    """

    name: str
    passed: bool
    compared: str
    tokens: int | None
    first_difference: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class EndpointVerification:
    """The outcome.

    Attributes:
        passed: Whether nothing differs.
        endpoint: The server's root.
        model: As it was asked for; None where the server has no names.
        method: How the server was asked.
        clock: The moment that a template which writes the date was rendered at; None for others.
        conversations: In the contract's order.
        texts: Plain texts; empty where the server does not take any.
        note: What was not compared, and why.
    """

    passed: bool
    endpoint: str
    model: str | None
    method: str
    clock: str | None
    conversations: tuple[Compared, ...]
    texts: tuple[Compared, ...]
    note: str

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @property
    def failures(self) -> list[Compared]:
        """Prompts that differ."""
        return [one for one in (*self.conversations, *self.texts) if not one.passed]

    def lines(self) -> list[str]:
        """For people, a line a prompt and two for a difference."""
        model = "" if self.model is None else f", model {self.model}"
        shown = [f"{self.endpoint}{model}: {self.method}"]
        named = [(one.name, one) for one in self.conversations] + [(repr(one.name), one) for one in self.texts]
        for full, one in named:
            name = full if len(full) <= 30 else full[:29] + "…"
            shown.append(f"{'✓' if one.passed else '✗'} {name:30} {_in_words(one)}")
            if one.first_difference is not None and one.first_difference["likely"]:
                shown.append(f"  {'':30} {one.first_difference['likely']}")
        return [*shown, self.note] if self.note else shown


def verify_endpoint(
    folder: Path, url: str, *, model: str | None = None, api_key_env: str | None = None, timeout_s: float = 60.0
) -> EndpointVerification:
    """Ask a running server for the tokens of every prompt of an export's contract. No model is loaded here.

    Args:
        folder: The export that the server serves.
        url: Of the server, with or without ``/v1``.
        model: The server's name for the model; needed where it has several.
        api_key_env: Environment variable with the server's key.
        timeout_s: For each request.

    Raises:
        VerificationError: The export has no contract, or a damaged one.
        UsageError: The URL, the model or the key is of no use.
        MissingPartError: No server answers, or it shows neither tokens nor counts.
    """
    server = HttpServer(url, api_key_env=api_key_env, timeout_s=timeout_s)
    contract = read_contract(folder, read_manifest(folder).token_contract_digest)
    if contract is None:
        raise VerificationError(
            f"{folder}: was exported without a token contract, so there is nothing to hold a server to",
            fix="Export the run again: ftkit export RUN --to KIND -o DIR.",
        )
    accepted = [contract] if contract.clock is None else redate(folder, contract, moments(datetime.now(UTC)))
    conversations, texts = accepted[0].conversations, accepted[0].texts
    probe = next((prompt for prompt in conversations if prompt.ids is not None), texts[0])
    chosen = find_model(server, model)
    way, names = find_way(server, chosen, probe), token_names(folder)
    compared = tuple(
        _compare(way, [one.conversations[index] for one in accepted], conversations, names)
        for index in range(len(conversations))
    )
    refusal = _refuses_texts(way, texts[0])
    plain = () if refusal else tuple(_compare(way, [text], (), names) for text in texts)
    return EndpointVerification(
        passed=all(one.passed for one in (*compared, *plain)),
        endpoint=server.root,
        model=chosen,
        method=way.title,
        clock=accepted[0].clock,
        conversations=compared,
        texts=plain,
        note=f"Plain texts were not compared: {refusal}" if refusal else "",
    )


def moments(now: datetime) -> list[datetime]:
    """Now as clocks show it, here first, then where on earth another date stands: servers often run in UTC."""
    clocks = [now.astimezone(), *(now.astimezone(timezone(timedelta(hours=hours))) for hours in (0, -12, 14))]
    by_date: dict[object, datetime] = {}
    for clock in clocks:
        by_date.setdefault(clock.date(), clock)
    return list(by_date.values())


def _refuses_texts(way: Way, text: Prompt) -> str:
    """Why a server takes no plain texts; empty where it does. Chats are what it is there for."""
    try:
        way.ask(text)
    except Refused as refused:
        return str(refused)
    return ""


def _compare(way: Way, accepted: Sequence[Prompt], others: Sequence[Prompt], names: Namer) -> Compared:
    """Ask for one prompt.

    Args:
        way: To ask.
        accepted: What the server may make of it; one, but for templates that write the date.
        others: The rest of the contract, to recognise what was served instead.
        names: To show tokens.
    """
    prompt = accepted[0]
    count = None if prompt.ids is None else len(prompt.ids)
    served: Served | None = None
    refused = ""
    try:
        served = way.ask(prompt)
    except Refused as refusal:
        refused = str(refusal)
    if served is None or count is None:
        passed = served is None and count is None
        difference = None if passed else _about_refusal(prompt, served, refused, names)
        return Compared(
            name=prompt.name, passed=passed, compared="refusal", tokens=count, first_difference=difference
        )
    if served.ids is None:
        passed = any(one.ids is not None and len(one.ids) == served.count for one in accepted)
        difference = None if passed else _about_counts(count, served.count)
        return Compared(name=prompt.name, passed=passed, compared="count", tokens=count, first_difference=difference)
    passed = any(one.ids == served.ids for one in accepted)
    difference = None if passed else _about_tokens(prompt, served.ids, others, names)
    return Compared(name=prompt.name, passed=passed, compared="tokens", tokens=count, first_difference=difference)


def _about_tokens(prompt: Prompt, served: list[int], others: Sequence[Prompt], names: Namer) -> dict[str, Any]:
    expected = prompt.ids or []
    position = first_difference(expected, served)
    assert position is not None, "asked only about lists that differ"
    sides = {"expected": expected, "served": served}
    shown = {side: show_tokens(ids, position, names) for side, ids in sides.items()}
    start = max(0, position - 3)
    return {
        "position": position,
        **{
            side: {
                "ids": ids[start : position + 3],
                "tokens": [names(token) for token in ids[start : position + 3]],
                "count": len(ids),
            }
            for side, ids in sides.items()
        },
        "text": f"token {position}: expected {shown['expected']} | served {shown['served']}",
        "likely": _likely(prompt, served, others),
    }


def _likely(prompt: Prompt, served: list[int], others: Sequence[Prompt]) -> str:
    """The cause of a difference that has a known look; empty where it has none."""
    expected = prompt.ids or []
    if served[1:] == expected and served[0] == expected[0]:
        return "the first token stands there twice: the template writes it, and the server adds it"
    if served == expected[1:]:
        return "the first token is missing: neither the template nor the server writes it"
    twin = next((one for one in others if one.ids == served and one.messages == prompt.messages), None)
    if twin is not None and prompt.tools is not None and twin.tools is None:
        return "the server leaves the tools out"
    if served == expected[: len(served)]:
        return f"{len(expected) - len(served)} tokens at the end are missing, as without add_generation_prompt"
    if expected == served[: len(expected)]:
        return f"{len(served) - len(expected)} more tokens follow than training had"
    return ""


def _about_counts(expected: int, served: int) -> dict[str, Any]:
    return {
        "position": None,
        "expected": {"ids": None, "tokens": None, "count": expected},
        "served": {"ids": None, "tokens": None, "count": served},
        "text": f"expected {expected} tokens | served {served} tokens",
        "likely": "",
    }


def _about_refusal(prompt: Prompt, served: Served | None, refused: str, names: Namer) -> dict[str, Any]:
    """Where one side gives no tokens at all."""
    ids = None if served is None else served.ids
    shown = refused if served is None else f"{served.count} tokens"
    if ids is not None:
        shown += f": {show_tokens(ids, 0, names)}"
    wanted = f"a refusal ({prompt.refused})" if prompt.ids is None else f"{len(prompt.ids)} tokens"
    return {
        "position": None,
        "expected": {"ids": None, "tokens": None, "count": None if prompt.ids is None else len(prompt.ids)},
        "served": {"ids": None, "tokens": None, "count": None if served is None else served.count},
        "text": f"expected {wanted} | served {shown}",
        "likely": "",
    }


def _in_words(one: Compared) -> str:
    if one.first_difference is not None:
        return str(one.first_difference["text"])
    if one.tokens is None:
        return "refused, as by the template"
    return f"{one.tokens} tokens" + (" (count only)" if one.compared == "count" else "")
