"""A conversation with a target, turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ftkit.errors import DataError, UsageError
from ftkit.evaluate.generation import Answer
from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.prompting import chat_ids
from ftkit.pipeline.target import Target

RESET, EXIT = "/reset", "/exit"


@dataclass(kw_only=True)
class Conversation:
    """What was said so far.

    Attributes:
        target: That answers; with a chat template.
        speech: How.
        system: Said before everything; None for nothing.
        messages: All turns since the last reset, as the chat template takes them.
        answers: All answers, also those before a reset.
    """

    target: Target
    speech: Speech
    system: str | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.target.tokenizer.chat_template is None:
            raise UsageError(
                "this model has no chat template, so it has no turns to talk in",
                fix="Use `ftkit generate`, which lets it go on with a plain text.",
            )
        self.reset()

    def reset(self) -> None:
        """Forget everything but the system's words."""
        self.messages = [] if self.system is None else [{"role": "system", "content": self.system}]

    def ask(self, question: str, say: Callable[[str], None]) -> None:
        """Add a turn and its answer. Ctrl-C ends the answer; what was said of it stays.

        Args:
            question: The user's turn.
            say: Called with each piece of the answer.

        Raises:
            DataError: The template refuses the turn, or there is no room left; it is as if it had not been asked.
        """
        said: list[str] = []

        def hear(piece: str) -> None:
            said.append(piece)
            say(piece)

        turns = [*self.messages, {"role": "user", "content": question}]
        ids = chat_ids(self.target.tokenizer, turns)
        try:
            self.answers.append(self.target.speak(ids, self.speech, say=hear))
        except KeyboardInterrupt:
            if not said:
                return
        self.messages = [*turns, {"role": "assistant", "content": "".join(said)}]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"messages": self.messages, "answers": [answer.to_dict() for answer in self.answers]}


def talk(
    conversation: Conversation,
    lines: Iterable[str],
    say: Callable[[str], None],
    *,
    complain: Callable[[str], None] | None = None,
) -> None:
    """Answer line by line until there are no more, or one says `EXIT`.

    Args:
        conversation: To go on with.
        lines: Turns of the user, and commands.
        say: Called with pieces of answers, and with a line break after each.
        complain: Called with why a turn could not be answered, after which the next follows; None to raise it.

    Raises:
        DataError: See ``complain``.
    """
    for line in lines:
        words = line.strip()
        if words == EXIT:
            return
        if words == RESET:
            conversation.reset()
        elif words:
            try:
                conversation.ask(words, say)
            except DataError as error:
                if complain is None:
                    raise
                complain(str(error))
            else:
                say("\n")
