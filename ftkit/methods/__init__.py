"""Tuning methods: one file each, and the table that lists them.

A new method is its settings in `ftkit.recipe.methods`, one file here, one line in the table, and it passes
``tests/contract``.
"""

import logging

# On a CPU, importing peft with bitsandbytes installed logs a line about optional kernels from the hub, which ftkit
# neither needs nor fetches; the other lines are about a cast that is part of int8. Must come before the imports.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from ftkit.methods.full import FullMethod  # noqa: E402
from ftkit.methods.lora import LoRAMethod  # noqa: E402
from ftkit.methods.method import Method  # noqa: E402
from ftkit.methods.qlora import QLoRAMethod  # noqa: E402

METHODS: dict[str, type[Method]] = {"full": FullMethod, "lora": LoRAMethod, "qlora": QLoRAMethod}

__all__ = ["METHODS", "FullMethod", "LoRAMethod", "Method", "QLoRAMethod"]
