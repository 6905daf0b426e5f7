"""Train the systems of a comparison, each once, whatever interrupts it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftkit.compare.arms import DOCUMENTS, QUESTIONS, Arm, rag_recipe, tuned_recipe
from ftkit.compare.work import read_cost, retriever_flops
from ftkit.compare.workload import Workload
from ftkit.files import write_text
from ftkit.notices import log
from ftkit.pipeline import run as line
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import open_session
from ftkit.rag.reader import REFUSAL, ReaderPrompts
from ftkit.rag.run import REPORT, RESULT, is_rag_run, resume_rag, run_rag
from ftkit.recipe import CompareSpec, RagRecipe, Recipe


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains systems into one folder.

    Attributes:
        spec: Resolved.
        workload: As drawn.
        folder: Of the comparison.
        ground: Digests of base model and encoder, which decide every result too.
        index: By the untrained encoders, from which vectors are taken.
        own: Trains on the comparison's own questions, where these are others; None where they are.
    """

    spec: CompareSpec
    workload: Workload
    folder: Path
    ground: tuple[str, ...]
    index: Path
    own: Trainer | None = None

    def train(self, arm: Arm) -> tuple[Arm, Path | None]:
        """Train a system, go on with what was begun, or take what is there.

        Returns:
            The system with its steps, and the run folder; None where nothing is trained.

        Raises:
            Interrupted: After saving what the next call goes on from.
        """
        if not arm.system.trains:
            return arm, None
        arm = replace(arm, steps=self.steps_of(arm))
        place = self._place(arm)
        if not (place / RESULT).is_file():
            log.info("%s: training into %s", arm.label, place.name)
        if arm.system.stages:
            recipe = self._rag_recipe(arm)
            known = [self.index]
            done = resume_rag(place, known=known) if is_rag_run(place) else run_rag(recipe, known=known)
            return arm, done.folder
        run = RunFolder(place)
        if (place / RESULT).is_file():
            return arm, place
        if run.is_run():
            return arm, line.resume(place).folder
        return arm, line.run(self._tuned_recipe(arm)).folder

    def order(self, arms: list[Arm]) -> list[Arm]:
        """With the system first whose operations others are given, and before it what says how many others take."""
        reference = self.spec.equal_flops

        def rank(arm: Arm) -> int:
            if arm.system.combines is not None:
                return 4
            if not arm.system.trains:
                return 0
            if "reader" not in arm.system.stages and not arm.system.learns:
                return 1
            if arm.variant:
                return 5
            return 2 if arm.name == reference else 3

        return sorted(arms, key=rank)

    def _place(self, arm: Arm) -> Path:
        output = (self._rag_recipe(arm) if arm.system.stages else self._tuned_recipe(arm)).output
        assert output is not None, "every arm has a place"
        return Path(output)

    def _rag_recipe(self, arm: Arm) -> RagRecipe:
        return rag_recipe(self.spec, arm, self.folder, self.ground, validates=bool(self.workload.held))

    def _tuned_recipe(self, arm: Arm) -> Recipe:
        return tuned_recipe(self.spec, arm, self.folder, self.ground)

    def steps_of(self, arm: Arm) -> int | None:
        """Optimizer steps that spend the reference's operations; None where the recipe decides.

        On other questions than the comparison's own: in proportion to their number.
        """
        if self.own is not None:
            steps = self.own.steps_of(replace(arm, variant=""))
            share = len(self.workload.train) / len(self.own.workload.train)
            return None if steps is None else max(1, round(steps * share))
        name = self.spec.equal_flops
        alone = "reader" not in arm.system.stages and not arm.system.learns
        if name is None or arm.name == name or alone or "joint" in arm.system.stages:
            return None
        run = self._place(Arm(name=name, system=self.spec.systems[name], seed=arm.seed))
        total = read_cost(run).flops
        reader: dict[str, Any] = json.loads((run / "reader" / RESULT).read_text(encoding="utf-8"))
        a_token = float(reader["flops"]) / int(reader["tokens"])
        if total is None:
            return None  # it was cut off in a way that left its operations unknown; the table says what each took
        if arm.system.stages:
            total -= self._retriever_flops(arm)
            report = json.loads((run / "reader" / REPORT).read_text(encoding="utf-8"))
            tokens, rows = int(report["tokens"]), int(report["trained"])
        else:
            data = open_session(self._tuned_recipe(arm)).prepare_data().report
            tokens, rows = data.tokens, data.trained
        steps_an_epoch = math.ceil(rows / self.spec.train.batch_size)
        return max(1, round(total / (a_token * tokens / steps_an_epoch)))

    def _retriever_flops(self, arm: Arm) -> float:
        """What the stage retriever takes, by a system that has it behind it."""
        if "retriever" not in arm.system.stages:
            return 0.0
        for name, system in self.spec.systems.items():
            if "retriever" in system.stages and "reader" not in system.stages:
                place = self._place(Arm(name=name, system=system, seed=arm.seed))
                return (retriever_flops(place) or 0.0) if (place / RESULT).is_file() else 0.0
        return 0.0


def write_lessons(folder: Path, workload: Workload, prompts: ReaderPrompts, contents: Iterable[str]) -> None:
    """What systems that learn without passages are fine-tuned on.

    Args:
        folder: Where to.
        workload: Its training questions, each alone, with its answer.
        prompts: How they are asked.
        contents: Of the passages, each a plain text.
    """
    rows = [
        {
            "messages": [
                {"role": "user", "content": prompts.text(asked.question, [])},
                {"role": "assistant", "content": asked.answers[0] if asked.answers else REFUSAL},
            ]
        }
        for asked in workload.train
    ]
    texts = [{"text": prompts.harmless(content)} for content in contents]
    for name, lines in ((QUESTIONS, rows), (DOCUMENTS, texts)):
        write_text(folder / name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines))
