"""Will it fit: memory and disk, from the checkpoint's header and a skeleton of the model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from ftkit.data.example import lengths_of
from ftkit.data.prepare import PreparedData
from ftkit.errors import DataError, ResourceError
from ftkit.machine import available_memory_bytes
from ftkit.models.load import quiet_transformers
from ftkit.models.vocabulary import extend_vocabulary
from ftkit.models.weights import checkpoint_dtype, tensor_dtypes
from ftkit.pipeline.session import Session
from ftkit.train.batches import choose_micro_batch_size, count_steps, tokens_per_pack
from ftkit.units import format_bytes

# torch, transformers and Python themselves.
PROCESS_BYTES = 700 << 20
# Values kept for the backward pass per token, layer and unit of width, counted on the Llama block: norms, q, k, v,
# attention, gate, up, their product, each once as a matrix input and once as a result.
ACTIVATIONS_PER_WIDTH = 34
BYTES = {torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run will take, by part, in bytes.

    Attributes:
        weights: Of the base in memory.
        training: Gradients, moments and attached parameters.
        activations: Of one forward and backward pass.
        process: The libraries.
        available: What the machine (or the device) has free now.
        disk: Checkpoints and exports together.
        trainable_parameters: That training changes.
        total_parameters: Of base and method together.
        micro_batch_size: Examples in one forward pass.
        steps: Optimizer steps in all.
    """

    weights: int
    training: int
    activations: int
    process: int
    available: int
    disk: int
    trainable_parameters: int
    total_parameters: int
    micro_batch_size: int
    steps: int

    @property
    def memory(self) -> int:
        """All parts together."""
        return self.weights + self.training + self.activations + self.process

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "memory": self.memory}

    def require_fit(self) -> None:
        """Refuse what certainly cannot fit: parts whose size is known exactly.

        Raises:
            ResourceError: With what to change.
        """
        certain = self.weights + self.training
        if certain > self.available:
            raise ResourceError(
                f"weights ({format_bytes(self.weights)}) and optimizer ({format_bytes(self.training)}) need "
                f"{format_bytes(certain)} of memory, {format_bytes(self.available)} are free",
                fix="Choose a smaller model, recipe: qlora, model.dtype=bfloat16, or fewer method.parameters.",
            )


def estimate(session: Session, data: PreparedData) -> Estimate:
    """Estimate a run.

    Raises:
        RecipeError: The method names layers that the model lacks, or has too few steps.
        DataError: A row is longer than the model has positions for.
    """
    train = session.recipe.train
    steps = count_steps(len(data.train), batch_size=train.batch_size, epochs=train.epochs, max_steps=train.max_steps)
    total, trainable, linear = _parameters(session, steps)
    counts = tensor_dtypes(session.base.folder)
    base_parameters = sum(counts.values())
    quantization = session.quantization_config
    width = BYTES[session.precision.weights]
    weights = base_parameters * width
    if quantization is not None:
        # A quantised weight takes one byte, or half of one and its share of scales; all but linear layers stay.
        weights = (base_parameters - linear) * width + int(linear * (1.0 if quantization.load_in_8bit else 0.57))
    attached = 0 if session.method.trains_base_weights else trainable
    lengths = lengths_of(data.train) + lengths_of(data.validation)
    _require_positions(session, max(lengths))
    micro = train.micro_batch_size
    if micro == "auto":
        micro = choose_micro_batch_size(lengths, batch_size=train.batch_size, device_type=session.device.type)
    in_a_pass = micro * max(lengths)
    if session.method.packs and session.recipe.data.packing is not False and train.micro_batch_size == "auto":
        # Whether the model can be packed is known once it is loaded: count the larger of the two.
        in_a_pass = max(in_a_pass, min(tokens_per_pack(session.device.type), train.batch_size * max(lengths)))
    return Estimate(
        weights=weights,
        training=4 * attached + 12 * trainable,
        activations=_activation_bytes(session, in_a_pass),
        process=PROCESS_BYTES,
        available=_available(session.device),
        disk=_disk_bytes(session, base_parameters, trainable),
        trainable_parameters=trainable,
        total_parameters=total,
        micro_batch_size=micro,
        steps=steps,
    )


def _require_positions(session: Session, longest: int) -> None:
    """Refuse texts that a base with a table of positions (GPT-2's) has no rows for; learned prompts take some too."""
    table = session.base.config.get("n_positions")
    virtual = getattr(session.recipe.method, "num_virtual_tokens", 0)
    if table is not None and longest + virtual > table:
        raise DataError(
            f"the longest row has {longest} tokens, the method adds {virtual}, and this model has {table} positions",
            fix=f"Set data.max_length to {table - virtual} and data.overflow to drop or truncate.",
        )


def _parameters(session: Session, steps: int) -> tuple[int, int, int]:
    """Total and trainable parameters, and the base's in linear layers, counted on a model without memory behind it.

    A method that cannot work with this model, or in so few steps, says so here, before anything is written.
    """
    with quiet_transformers(), torch.device("meta"):
        config = AutoConfig.from_pretrained(session.base.folder, local_files_only=True, trust_remote_code=False)
        base = AutoModelForCausalLM.from_config(config)
        extend_vocabulary(base, session.added_tokens)
        head = base.get_output_embeddings()
        layers = [layer for layer in base.modules() if isinstance(layer, (nn.Linear, Conv1D)) and layer is not head]
        linear = sum(layer.weight.numel() for layer in layers)
        skeleton = session.method.attach(base)
        session.method.training_hooks(skeleton, steps)
    parameters = list(skeleton.parameters())
    return (
        sum(parameter.numel() for parameter in parameters),
        sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        linear,
    )


def _activation_bytes(session: Session, tokens: int) -> int:
    config = session.base.config
    layers = config.get("num_hidden_layers") or config.get("n_layer") or 0
    hidden = config.get("hidden_size") or config.get("n_embd") or 0
    kept = 1 if session.recipe.train.gradient_checkpointing else layers
    compute = BYTES[session.precision.compute]
    logits = 3 * 4 * tokens * int(config.get("vocab_size", 0))
    return int(tokens * hidden * (ACTIVATIONS_PER_WIDTH * kept + layers) * compute + logits)


def _available(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory_bytes()


def _disk_bytes(session: Session, base_parameters: int, trainable: int) -> int:
    checkpoints = (session.recipe.train.keep_last + session.recipe.train.keep_best + 1) * 12 * trainable
    exports = 32 << 20
    for export in session.recipe.export or ():
        dtype = checkpoint_dtype(session.base.folder) if export.dtype == "auto" else export.dtype
        size = 4 if dtype == "float32" else 2  # for all that is smaller still, a little too much
        if export.kind in ("nf4", "onnx"):  # made from a merged model, which stands beside it for a while
            size = 8 if export.kind == "onnx" else 2 * size
        exports += 4 * trainable if export.kind == "adapter" else size * base_parameters
    return checkpoints + exports
