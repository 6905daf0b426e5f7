"""Record what adapter-hub's ``adapters`` computes on tiny random models; `test_adapter_hub` compares with it.

Made with adapters 1.3.0, transformers 4.57.6 and torch 2.13.0. To make it again, with the python of an environment in
which ``pip install adapters`` has been run (it needs nothing of ftkit, and its transformers is not ftkit's):

    python tests/conformance/adapter_hub_fixture.py

For each of three families, ``data/FAMILY`` holds the model (config.json, model.safetensors in bfloat16, which holds
the weights exactly), for each architecture a folder in the format of `ftkit.methods.bottleneck`, and
logits.safetensors: the ids, the bare model's logits (``base``) and those with each adapter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import adapters
import torch
from adapters import DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

DATA = Path(__file__).parent / "data"
IDS = torch.tensor([[5, 60, 7, 33, 9, 21, 11, 48, 2, 17], [13, 40, 15, 26, 17, 58, 19, 3, 44, 1]])
SPECIAL = {"vocab_size": 64, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
ROTARY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "tie_word_embeddings": True,
    "attn_implementation": "eager",
    **SPECIAL,
}
GPT2 = {"n_embd": 32, "n_inner": 48, "n_layer": 2, "n_head": 4, "n_positions": 32, **SPECIAL}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": ROTARY,
    "mistral": {**ROTARY, "sliding_window": 4},
    "gpt2": {**GPT2, "attn_implementation": "eager"},
}
# Each differs from the others in every setting. 32 // 6 is not whole, and its remainder is dropped.
CONFIGS = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=16, non_linearity="swish"),
    "pfeiffer": SeqBnConfig(reduction_factor=6, non_linearity="relu", scaling=0.5),
    "parallel": ParBnConfig(reduction_factor=8, non_linearity="gelu", scaling=4.0),
}
# Their names for our two places.
PLACES = {"attention": "attention_adapters", "ffn": "output_adapters"}


def random_model(family: str) -> Any:
    """A model whose weights bfloat16 holds exactly, large enough for logits that differ."""
    torch.manual_seed(sum(map(ord, family)))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILIES[family])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn_like(parameter)
            parameter.copy_((0.2 * drawn if parameter.dim() > 1 else parameter + 0.1 * drawn).bfloat16())
    return model


def add_random_adapter(model: Any, architecture: str) -> dict[str, torch.Tensor]:
    """Add the adapter, make it active, give it random weights, and return them under our names."""
    model.add_adapter(architecture, config=CONFIGS[architecture])
    model.set_active_adapters(architecture)
    torch.manual_seed(1)
    tensors = {}
    for at, layer in model.iter_layers():
        for place, theirs in PLACES.items():
            bottleneck = dict(getattr(layer, theirs).adapters).get(architecture)
            if bottleneck is None:
                continue
            for name, linear in (("down", bottleneck.adapter_down[0]), ("up", bottleneck.adapter_up)):
                for kind, parameter in linear.named_parameters():
                    parameter.data.normal_(std=0.3)
                    tensors[f"layers.{at}.{place}.{name}.{kind}"] = parameter.detach().clone()
    model.eval()
    return tensors


def write_adapter(folder: Path, family: str, architecture: str, tensors: dict[str, torch.Tensor]) -> None:
    """The two files of `ftkit.methods.bottleneck`, written without it."""
    settings = {name: CONFIGS[architecture][name] for name in ("reduction_factor", "non_linearity", "scaling")}
    values = {
        "format": "ftkit-bottleneck",
        "format_version": 1,
        "adapter": {"architecture": architecture, **settings, "dropout": CONFIGS[architecture]["dropout"]},
        "width": 32,
        "layer_count": 2,
        "model_type": family,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@torch.no_grad()
def record(family: str) -> None:
    """Write one family's folder."""
    folder = DATA / family
    folder.mkdir(parents=True, exist_ok=True)
    model = random_model(family)
    # Tied weights once: safetensors holds no two names of one tensor.
    weights = {name: parameter.detach().bfloat16() for name, parameter in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps({"model_type": family, **FAMILIES[family]}, indent=2)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")

    logits = {"ids": IDS, "base": model(IDS).logits}
    adapters.init(model)
    for architecture in CONFIGS:
        write_adapter(folder / architecture, family, architecture, add_random_adapter(model, architecture))
        logits[architecture] = model(IDS).logits
    save_file(logits, folder / "logits.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    for each in FAMILIES:
        record(each)
