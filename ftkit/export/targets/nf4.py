"""The merged model in 4 bit, by bitsandbytes; transformers loads it as it is, by its config.json."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from ftkit.export.quality import quality_loss
from ftkit.export.target import Target
from ftkit.export.targets import merged
from ftkit.export.trained import Trained, Written
from ftkit.methods.quantised import quantization_config
from ftkit.models.load import load_model


def write(trained: Trained, dtype: str, folder: Path) -> Written:
    """Write config.json and safetensors: NF4 with double quantisation for every linear layer but the head.

    Embeddings, norms and the head keep the base checkpoint's own dtype, which is also what the products are taken in.

    Args:
        trained: The live model and its record.
        dtype: ``auto``.
        folder: Where to.

    Source:
        Dettmers et al. 2023, arXiv:2305.14314.
    """
    # Beside the artefact: there is room there, while a folder for temporary files may be small.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".ftkit-merged-") as scratch:
        stored: torch.dtype = getattr(torch, merged.write(trained, dtype, Path(scratch)).dtype)
        quantised = load_model(
            Path(scratch), dtype=stored, device=torch.device("cpu"),
            quantization_config=quantization_config("nf4", stored),
        )  # fmt: skip
    # At once, before any forward pass: with AVX512-BF16 the first one repacks the layers, see methods/quantised.py.
    quantised.save_pretrained(folder, safe_serialization=True, max_shard_size="5GB")
    return Written(dtype="nf4", notes={"quality_loss": quality_loss(trained, "nf4", folder)})


NF4 = Target(
    write=write,
    needs=(("bitsandbytes",), "qlora"),
    loads_with=("bitsandbytes", "transformers", "torch", "safetensors"),
)
