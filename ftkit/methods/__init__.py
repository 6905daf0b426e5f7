"""Tuning methods: one file each, and the table that lists them.

A new method is its settings in `ftkit.recipe`, one file here, one line in the table, and it passes
``tests/contract``.
"""

import logging
import warnings

# On a CPU, importing peft with bitsandbytes installed logs a line about optional kernels from the hub, which ftkit
# neither needs nor fetches; the other lines are about a cast that is part of int8. Must come before the imports.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
# Generating with a learned prompt, PEFT says that it lets go of position ids; ftkit pads no prompts there.
warnings.filterwarnings("ignore", message="Position ids are not supported for parameter efficient tuning")

from ftkit.methods.adalora import AdaLoRAMethod  # noqa: E402
from ftkit.methods.adapter import AdapterMethod  # noqa: E402
from ftkit.methods.adapter_files import check_adapter  # noqa: E402
from ftkit.methods.combination import Built, write_combination  # noqa: E402
from ftkit.methods.combination_formula import (  # noqa: E402
    Combination,
    expected_output,
    expected_update,
)
from ftkit.methods.full import FullMethod  # noqa: E402
from ftkit.methods.loading import ADAPTER_LOADERS, load_adapter  # noqa: E402
from ftkit.methods.lora import LoRAMethod  # noqa: E402
from ftkit.methods.lora_family import IA3Method, LoHaMethod, LoKrMethod, OFTMethod, VeRAMethod  # noqa: E402
from ftkit.methods.lora_file import Matrices, lora_scale, not_additive, read_lora  # noqa: E402
from ftkit.methods.method import MergeBase, Merger, Method, NotMergeableError  # noqa: E402
from ftkit.methods.qlora import QLoRAMethod  # noqa: E402
from ftkit.methods.soft_prompts import PrefixMethod, PromptMethod  # noqa: E402
from ftkit.recipe import Recipe  # noqa: E402

# By the recipe's name, and by kind where a recipe has several.
METHODS: dict[str, type[Method]] = {
    "full": FullMethod,
    "lora": LoRAMethod,
    "qlora": QLoRAMethod,
    "prefix": PrefixMethod,
    "prompt": PromptMethod,
    "adapter": AdapterMethod,
    "adalora": AdaLoRAMethod,
    "vera": VeRAMethod,
    "ia3": IA3Method,
    "oft": OFTMethod,
    "loha": LoHaMethod,
    "lokr": LoKrMethod,
}


def method_of(recipe: Recipe) -> Method:
    """The method that a recipe's settings describe.

    Raises:
        MissingPartError: It needs a package that is not installed.
    """
    settings = dict(recipe.method)
    kind = settings.pop("kind", recipe.recipe)
    method = METHODS[kind](**settings)
    method.require_parts()
    return method


__all__ = [
    "ADAPTER_LOADERS",
    "METHODS",
    "AdaLoRAMethod",
    "AdapterMethod",
    "Built",
    "Combination",
    "FullMethod",
    "IA3Method",
    "LoHaMethod",
    "LoKrMethod",
    "LoRAMethod",
    "Matrices",
    "MergeBase",
    "Merger",
    "Method",
    "NotMergeableError",
    "OFTMethod",
    "PrefixMethod",
    "PromptMethod",
    "QLoRAMethod",
    "VeRAMethod",
    "check_adapter",
    "expected_output",
    "expected_update",
    "load_adapter",
    "lora_scale",
    "method_of",
    "not_additive",
    "read_lora",
    "write_combination",
]
