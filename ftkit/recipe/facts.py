"""What each method is like, gathered from what its settings declare."""

from __future__ import annotations

from dataclasses import dataclass

from ftkit.recipe.lora_family import FAMILY
from ftkit.recipe.methods import ENGINES, MethodSettings
from ftkit.recipe.recipes import RECIPES
from ftkit.recipe.sections import ExportKind


@dataclass(frozen=True, kw_only=True)
class MethodFacts:
    """A method as somebody sees it who has to choose one.

    Attributes:
        recipe: What chooses it.
        kind: What chooses it within the recipe; None where the recipe has no kinds.
        trainable_share: Trainable parameters over the base's, with default settings on smollm2-135m.
        mergeable: Whether it can be exported as plain weights.
        engines: What serves its exports, by their kind.
        when: When to choose it.
    """

    recipe: str
    kind: str | None
    trainable_share: float
    mergeable: bool
    engines: dict[ExportKind, tuple[str, ...]]
    when: str

    @property
    def name(self) -> str:
        """The recipe, with the kind where it is not the recipe's own."""
        return self.recipe if self.kind in (None, self.recipe) else f"{self.recipe} (kind: {self.kind})"


def method_facts() -> list[MethodFacts]:
    """All methods: the recipes in their order, each followed by its kinds."""
    found = []
    for recipe, fields in RECIPES.items():
        settings = fields.model_fields["method"].default
        found.append(facts_of(recipe, type(settings), getattr(settings, "kind", None)))
        if recipe == "lora":
            found += [facts_of(recipe, relative, kind) for kind, relative in FAMILY.items()]
    return found


def facts_of(recipe: str, settings: type[MethodSettings], kind: str | None) -> MethodFacts:
    """What a method's settings declare.

    Args:
        recipe: That the settings belong to.
        settings: Of the method.
        kind: Of the method, where the recipe has several.
    """
    engines = {**ENGINES, "adapter": settings.ADAPTER_ENGINES}
    return MethodFacts(
        recipe=recipe,
        kind=kind,
        trainable_share=settings.TRAINABLE_SHARE,
        mergeable="merged" in settings.EXPORT_KINDS,
        engines={export: engines[export] for export in settings.EXPORT_KINDS},
        when=settings.WHEN,
    )
