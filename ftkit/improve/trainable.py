"""Whether a row can be trained on at all: one that cannot must not stop all others, and none is left out silently."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, Literal

from ftkit.data.chat import RenderFault
from ftkit.data.encode import Encoder
from ftkit.data.formats.fields import RowFault
from ftkit.data.formats.messages import FORMAT
from ftkit.data.sample import Sample
from ftkit.data.settings import encoder_settings
from ftkit.errors import UsageError
from ftkit.models.find import find_base
from ftkit.models.tokenizer import load_tokenizer, template_names
from ftkit.recipe import ModelSection
from ftkit.recipe.improve import FormerData

Fault = Literal["cannot be trained on", "too long"]


class Trainable:
    """Tries rows with the tokenizer and the template that will train on them.

    A correction may hold anything that somebody sent, such as the text of a control token.

    Args:
        base: That is tuned.
        data: How rows are read, and how long they may be.

    Raises:
        UsageError: The base has no chat template.
        ModelError: It is not here.
    """

    def __init__(self, base: ModelSection, data: FormerData) -> None:
        tokenizer = load_tokenizer(
            find_base(base.path, base.revision).folder,
            base.chat_template,
            chat_template_kwargs=base.chat_template_kwargs,
            added_tokens=base.added_tokens,
        )
        if not tokenizer.chat_template:
            raise UsageError(
                f"{base.path}: has no chat template, and a log holds chats", fix="Set model.chat_template."
            )
        settings = encoder_settings(
            tokenizer,
            train_on=data.train_on,
            allow_control_tokens=data.allow_control_tokens,
            today=datetime.date.today(),
            known_templates=template_names(),
        )
        self.settings = settings
        self._encoder = Encoder(settings)
        self._max_length, self._cuts = data.max_length, data.overflow == "truncate"

    def __call__(self, values: Mapping[str, Any]) -> Fault | None:
        """Why a row of chat data cannot be trained on; None where it can."""
        try:
            found = self._encoder.encode(Sample(content=FORMAT.read(values), kind=FORMAT.kind, place=""))
        except (RowFault, RenderFault):
            return "cannot be trained on"
        # What is cut must keep something of every answer: a row that teaches nothing stops a training.
        needed = [one.spans[0][0] + 1 if self._cuts and one.spans else len(one.ids) for one in found]
        return "too long" if max(needed) > self._max_length else None
