"""What the user writes: a recipe, checked in one pass, as pure data."""

from ftkit.recipe.advise import AdviseSpec
from ftkit.recipe.compare import CompareSpec, SystemSection
from ftkit.recipe.comparing import ClaimSection, CombinationSection, ContrastSection, MeasureSection, StagedSection
from ftkit.recipe.digest import decisive_values, recipe_differences, recipe_digest
from ftkit.recipe.evaluating import EvaluateSection
from ftkit.recipe.hybrid import HybridRecipe, MemberSection
from ftkit.recipe.improve import ImproveSpec
from ftkit.recipe.load import (
    dump_recipe,
    json_schema,
    kind_of,
    load_advise_spec,
    load_compare_spec,
    load_hybrid_recipe,
    load_improve_spec,
    load_rag_recipe,
    load_recipe,
    recipe_error,
    recipe_from_values,
)
from ftkit.recipe.lora_family import FAMILY, LoRASettings, QLoRASettings
from ftkit.recipe.methods import AdapterSettings, FullSettings, MethodSettings, PrefixSettings, PromptSettings
from ftkit.recipe.rag import RagRecipe
from ftkit.recipe.recipes import (
    RECIPES,
    AdapterRecipe,
    FullRecipe,
    LoRARecipe,
    PrefixRecipe,
    PromptRecipe,
    QLoRARecipe,
    Recipe,
)
from ftkit.recipe.sections import (
    DataSection,
    ExportSection,
    ModelSection,
    SourceSection,
    TrainSection,
)
from ftkit.recipe.shipped import ShippedRecipe, copy_recipe, find_recipe, shipped_recipes, shipped_specs

__all__ = [
    "FAMILY",
    "RECIPES",
    "AdapterRecipe",
    "AdapterSettings",
    "AdviseSpec",
    "ClaimSection",
    "CombinationSection",
    "CompareSpec",
    "ContrastSection",
    "DataSection",
    "EvaluateSection",
    "ExportSection",
    "FullRecipe",
    "FullSettings",
    "HybridRecipe",
    "ImproveSpec",
    "LoRARecipe",
    "LoRASettings",
    "MeasureSection",
    "MemberSection",
    "MethodSettings",
    "ModelSection",
    "PrefixRecipe",
    "PrefixSettings",
    "PromptRecipe",
    "PromptSettings",
    "QLoRARecipe",
    "QLoRASettings",
    "RagRecipe",
    "Recipe",
    "ShippedRecipe",
    "SourceSection",
    "StagedSection",
    "SystemSection",
    "TrainSection",
    "copy_recipe",
    "decisive_values",
    "dump_recipe",
    "find_recipe",
    "json_schema",
    "kind_of",
    "load_advise_spec",
    "load_compare_spec",
    "load_hybrid_recipe",
    "load_improve_spec",
    "load_rag_recipe",
    "load_recipe",
    "recipe_differences",
    "recipe_digest",
    "recipe_error",
    "recipe_from_values",
    "shipped_recipes",
    "shipped_specs",
]
