"""ftkit: fine-tune language models, and hand over exports that are proven to behave like the trained model.

    import ftkit

    run = ftkit.run(ftkit.LoRARecipe(model="smollm2-135m", data="tickets.jsonl"))
    run.generate("Where is my order L1234?")
    run.export("merged", "tickets-model")

Names are resolved on first use (PEP 562), so that `import ftkit` and `ftkit --help` do not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftkit.advise.advice import advise as get_advice
    from ftkit.api import Run, check, open_run, resume, run, selftest
    from ftkit.compare.run import compare as run_compare
    from ftkit.errors import FtkitError
    from ftkit.hybrid.checking import check_hybrid
    from ftkit.hybrid.exporting import export_hybrid
    from ftkit.hybrid.opening import open_hybrid
    from ftkit.hybrid.proving import verify
    from ftkit.hybrid.router import RouterSystem
    from ftkit.hybrid.run import resume_hybrid, run_hybrid
    from ftkit.improve.run import improve as run_improve
    from ftkit.methods import load_adapter
    from ftkit.pipeline.bundling import Packing, unbundle
    from ftkit.pipeline.combining import Combined, combine
    from ftkit.pipeline.data_view import DataView, open_data
    from ftkit.pipeline.endpoint import verify_endpoint
    from ftkit.pipeline.pushing import push
    from ftkit.pipeline.selftest import Selftest
    from ftkit.pipeline.target import Target, open_target
    from ftkit.rag.answering import RagSystem
    from ftkit.rag.bundling import bundle
    from ftkit.rag.checking import check_rag
    from ftkit.rag.exporting import export_rag
    from ftkit.rag.opening import index_documents
    from ftkit.rag.opening import open_system as open_rag
    from ftkit.rag.run import resume_rag, run_rag
    from ftkit.rag.world import closed_world
    from ftkit.recipe import (
        AdapterRecipe,
        AdviseSpec,
        CompareSpec,
        FullRecipe,
        HybridRecipe,
        ImproveSpec,
        LoRARecipe,
        PrefixRecipe,
        PromptRecipe,
        QLoRARecipe,
        RagRecipe,
        Recipe,
        load_advise_spec,
        load_compare_spec,
        load_hybrid_recipe,
        load_improve_spec,
        load_rag_recipe,
        load_recipe,
    )

__version__ = "0.1.0"

_HOMES = {
    "Run": "ftkit.api",
    "run": "ftkit.api",
    "resume": "ftkit.api",
    "check": "ftkit.api",
    "open_run": "ftkit.api",
    "selftest": "ftkit.api",
    "Selftest": "ftkit.pipeline.selftest",
    "open_data": "ftkit.pipeline.data_view",
    "DataView": "ftkit.pipeline.data_view",
    "open_target": "ftkit.pipeline.target",
    "Target": "ftkit.pipeline.target",
    "verify": "ftkit.hybrid.proving",
    "bundle": "ftkit.rag.bundling",
    "unbundle": "ftkit.pipeline.bundling",
    "Packing": "ftkit.pipeline.bundling",
    "push": "ftkit.pipeline.pushing",
    "combine": "ftkit.pipeline.combining",
    "Combined": "ftkit.pipeline.combining",
    "verify_endpoint": "ftkit.pipeline.endpoint",
    "FtkitError": "ftkit.errors",
    "load_adapter": "ftkit.methods",
    "Recipe": "ftkit.recipe",
    "FullRecipe": "ftkit.recipe",
    "LoRARecipe": "ftkit.recipe",
    "QLoRARecipe": "ftkit.recipe",
    "PrefixRecipe": "ftkit.recipe",
    "PromptRecipe": "ftkit.recipe",
    "AdapterRecipe": "ftkit.recipe",
    "load_recipe": "ftkit.recipe",
    "RagRecipe": "ftkit.recipe",
    "load_rag_recipe": "ftkit.recipe",
    "run_rag": "ftkit.rag.run",
    "check_rag": "ftkit.rag.checking",
    "resume_rag": "ftkit.rag.run",
    "index_documents": "ftkit.rag.opening",
    "open_rag": "ftkit.rag.opening:open_system",
    "RagSystem": "ftkit.rag.answering",
    "export_rag": "ftkit.rag.exporting",
    "closed_world": "ftkit.rag.world",
    "HybridRecipe": "ftkit.recipe",
    "load_hybrid_recipe": "ftkit.recipe",
    "run_hybrid": "ftkit.hybrid.run",
    "resume_hybrid": "ftkit.hybrid.run",
    "check_hybrid": "ftkit.hybrid.checking",
    "open_hybrid": "ftkit.hybrid.opening",
    "export_hybrid": "ftkit.hybrid.exporting",
    "RouterSystem": "ftkit.hybrid.router",
    "CompareSpec": "ftkit.recipe",
    "load_compare_spec": "ftkit.recipe",
    "run_compare": "ftkit.compare.run:compare",
    "ImproveSpec": "ftkit.recipe",
    "load_improve_spec": "ftkit.recipe",
    "run_improve": "ftkit.improve.run:improve",
    "AdviseSpec": "ftkit.recipe",
    "load_advise_spec": "ftkit.recipe",
    "get_advice": "ftkit.advise.advice:advise",
}

__all__ = [
    "AdapterRecipe", "AdviseSpec", "Combined", "CompareSpec", "DataView", "FtkitError", "FullRecipe", "HybridRecipe",
    "ImproveSpec", "LoRARecipe", "Packing", "PrefixRecipe", "PromptRecipe", "QLoRARecipe", "RagRecipe", "RagSystem",
    "Recipe", "RouterSystem", "Run", "Selftest", "Target", "bundle", "check", "check_hybrid", "check_rag",
    "closed_world", "combine", "export_hybrid", "export_rag", "get_advice", "index_documents", "load_adapter",
    "load_advise_spec", "load_compare_spec", "load_hybrid_recipe", "load_improve_spec", "load_rag_recipe",
    "load_recipe", "open_data", "open_hybrid", "open_rag", "open_run", "open_target", "push", "resume",
    "resume_hybrid", "resume_rag", "run", "run_compare", "run_hybrid", "run_improve", "run_rag", "selftest",
    "unbundle", "verify", "verify_endpoint",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
    module, _, other = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(module), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
