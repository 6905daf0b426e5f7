"""One system of a comparison as recipes: what is trained for it, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftkit.files import sha256_file, sha256_json
from ftkit.recipe import (
    RECIPES,
    CompareSpec,
    RagRecipe,
    Recipe,
    SystemSection,
    decisive_values,
)

MANY_EPOCHS = 10_000.0  # where steps are given, they alone decide
TRAINED, QUESTIONS, DOCUMENTS = "trained", "questions.jsonl", "documents.jsonl"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A system with one seed.

    Attributes:
        name: Of the system.
        system: What it is.
        seed: Of its training.
        steps: Optimizer steps of the tuned generator; None for as many as the recipe says.
        variant: Of its training questions (`ftkit.compare.variants`); empty for the comparison's own.
    """

    name: str
    system: SystemSection
    seed: int
    steps: int | None = None
    variant: str = ""

    @property
    def label(self) -> str:
        """The name, with its variant."""
        return f"{self.name}@{self.variant}" if self.variant else self.name


def data_folder(variant: str) -> str:
    """Where the questions of a variant stand, in the comparison's folder."""
    return f"workload-{variant}" if variant else "workload"


def arms_of(spec: CompareSpec) -> list[Arm]:
    """Every system with every seed; one that is not trained has the first alone. Variants come last."""
    return [
        Arm(name=name, system=system, seed=seed, variant=variant)
        for variant in ("", *spec.variants)
        for name, system in spec.systems.items()
        if not variant or variant in spec.variants_for(name)
        for seed in (spec.seeds if _trains(spec, system) else spec.seeds[:1])
    ]


def _trains(spec: CompareSpec, system: SystemSection) -> bool:
    """Whether it, or anything that it combines, is trained."""
    parts = () if system.combines is None else system.combines.of
    return system.trains or any(spec.systems[name].trains for name in parts)


def rag_recipe(spec: CompareSpec, arm: Arm, folder: Path, ground: tuple[str, ...], *, validates: bool) -> RagRecipe:
    """The training of a system with passages; it stands in a folder named by all that decides it.

    Args:
        spec: Resolved.
        arm: The system.
        folder: Of the comparison.
        ground: Digests of what decides the result beside the recipe: models, documents, questions.
        validates: Whether questions are held back.
    """
    data = folder / data_folder(arm.variant)
    values: dict[str, Any] = {
        "model": spec.model,
        "corpus": spec.corpus,
        "data": {
            "train": str(data / "train.jsonl"),
            "validation": str(data / "validation.jsonl") if validates else None,
            "max_length": spec.data.max_length,
        },
        "generator": arm.system.generator or spec.generator,
        "retriever": spec.retriever,
        "reader": spec.reader.model_copy(update={"passages": arm.system.passages or spec.reader.passages}),
        "joint": spec.joint,
        "stages": arm.system.stages,
        "train": _train(spec, arm),
        "answer": spec.answer.model_copy(update={"samples": 0}),
    }
    recipe = RagRecipe.model_validate(values).resolved()
    label = "+".join(arm.system.stages)
    # How questions are answered afterwards decides nothing of the training.
    decisive = {key: value for key, value in decisive_values(recipe).items() if key != "answer"}
    return recipe.model_copy(update={"output": str(_place(folder, label, decisive, ground))})


def tuned_recipe(spec: CompareSpec, arm: Arm, folder: Path, ground: tuple[str, ...]) -> Recipe:
    """The training of a system without passages, on questions, on the documents' text, or on both."""
    generator = arm.system.generator or spec.generator
    kinds = generator.method.EXPORT_KINDS
    data = folder / data_folder(arm.variant)
    sources: list[dict[str, Any]] = []
    if "questions" in arm.system.learns:
        sources.append({"path": str(data / QUESTIONS), "format": "messages"})
    if "documents" in arm.system.learns:
        sources.append({"path": str(data / DOCUMENTS), "format": "text"})
    values: dict[str, Any] = {
        "model": spec.model.model_dump(),
        "data": {
            "train": sources,
            "validation": None,
            "max_length": spec.data.max_length,
            "near_duplicates": False,
        },
        "method": generator.method,
        "train": _train(spec, arm),
        "evaluate": {"samples": 0, "metrics": ()},
        "export": ("adapter" if "adapter" in kinds else "merged",),
    }
    recipe = RECIPES[generator.recipe].model_validate(values).resolved()
    # What stands in these files follows from how documents are cut and how questions are worded, too.
    lessons = [sha256_file(Path(one["path"])) for one in sources]
    place = _place(folder, "tuned", [decisive_values(recipe), arm.system.learns, lessons], ground)
    return recipe.model_copy(update={"output": str(place)})


def _train(spec: CompareSpec, arm: Arm) -> Any:
    changes: dict[str, Any] = {"seed": arm.seed}
    if arm.steps is not None:
        changes |= {"max_steps": arm.steps, "epochs": MANY_EPOCHS}
    if arm.system.generator is not None and arm.system.generator.recipe != spec.generator.recipe:
        # The shared rate is the shared method's; another method starts from its own.
        changes["learning_rate"] = arm.system.generator.method.DEFAULT_LEARNING_RATE
    return spec.train.model_copy(update=changes)


def _place(folder: Path, label: str, decisive: Any, ground: tuple[str, ...]) -> Path:
    return folder / TRAINED / f"{label}-{sha256_json([decisive, *ground])[:12]}"
