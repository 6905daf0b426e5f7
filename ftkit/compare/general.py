"""What a system's generator lost elsewhere: general text and probes, against the untouched base."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from ftkit.compare.seat import Seat
from ftkit.compare.sheet import Sheet, floats, mean_of
from ftkit.evaluate.forgetting import Forgetting, divergences
from ftkit.evaluate.general import General
from ftkit.files import new_file
from ftkit.pipeline.target import Target
from ftkit.rag.intervals import Ratio


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Measures generators on what none of them was trained on.

    Attributes:
        general: Texts and probes.
        base: The model that all were tuned from.
        kept: A file for its distributions on these texts, which are measured once.
    """

    general: General
    base: Target
    kept: Path

    @cached_property
    def _distributions(self) -> torch.Tensor:
        if self.kept.is_file():
            return load_file(self.kept)["base"]
        found = self._measuring(self.base).distributions(self.base.model)
        with new_file(self.kept) as stream:
            stream.write(save({"base": found}))
        return found

    def _measuring(self, target: Target) -> Forgetting:
        return Forgetting(self.general, target.tokenizer, target.compute)

    def measure(self, seat: Seat) -> Sheet:
        """``bits_per_byte`` and ``kl_to_base`` of general text, ``choice_accuracy`` of questions to choose from.

        A system that tunes nothing has the base's own, and a divergence of 0.
        """
        target = seat.system.generator
        if target.choose is not None:
            target.choose()
        measuring = self._measuring(target)
        details = measuring.details(target.model)
        pieces, asked = len(details.texts), len(details.choices)
        owners = measuring.owners()
        same = target is self.base
        moved = torch.zeros(len(owners)) if same else divergences(
            self._distributions, measuring.distributions(target.model)
        )  # fmt: skip
        sums, counts = [0.0] * pieces, [0] * pieces
        for owner, value in zip(owners, moved.tolist(), strict=True):
            sums[owner] += value
            counts[owner] += 1
        text = [*[1.0] * pieces, *[0.0] * asked]
        figures = {
            "bits_per_byte": Ratio(
                numerators=floats([*(one / math.log(2) for one in details.nats), *[0.0] * asked]),
                denominators=floats([*details.sizes, *[0.0] * asked]),
            ),
            "kl_to_base": Ratio(
                numerators=floats([*sums, *[0.0] * asked]), denominators=floats([*counts, *[0.0] * asked])
            ),
            "choice_accuracy": mean_of([*[0.0] * pieces, *details.choices], [not one for one in text]),
        }
        clusters = [*(f"text {number}" for number in details.texts), *(f"probe {number}" for number in range(asked))]
        return Sheet(
            units=tuple(f"{number} {name}" for number, name in enumerate(clusters)),
            clusters=tuple(clusters),
            figures={name: one for name, one in figures.items() if one.denominators.any()},
        )
