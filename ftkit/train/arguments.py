"""What transformers' Trainer is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from ftkit.train.spec import FitSpec


def training_arguments(spec: FitSpec, total: int, device: torch.device, scratch: Path) -> TrainingArguments:
    """Every setting that changes numbers or writes files is named; the Trainer's defaults move between releases."""
    arguments = TrainingArguments(
        output_dir=str(scratch),
        max_steps=total,
        # Packs are cut out of the whole step by `training_step`, as many as it takes.
        per_device_train_batch_size=spec.batch_size if spec.packing else spec.micro_batch_size,
        gradient_accumulation_steps=1 if spec.packing else spec.batch_size // spec.micro_batch_size,
        learning_rate=spec.learning_rate,
        warmup_steps=0,  # `create_scheduler` has the schedule
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        optim="adamw_torch_fused",
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        seed=spec.seed,
        data_seed=spec.seed,
        bf16=False,  # `compute_loss` opens its own autocast, and only around the forward pass
        fp16=False,
        tf32=None,
        average_tokens_across_devices=True,
        logging_strategy="steps",
        logging_steps=spec.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would replace a NaN by the mean of the losses before it
        eval_strategy="no",  # the callback asks for validations, checkpoints and the stop
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        label_names=["labels"],
        use_cpu=device.type == "cpu",
        push_to_hub=False,
    )
    # With several GPUs in one process the Trainer would wrap the model in DataParallel and multiply the batch by
    # their number; several devices are several processes (torchrun) or none.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def recompute_activations(model: Any) -> None:
    """Let a model compute its activations once more in the backward pass, instead of keeping them."""
    # Renamed in transformers 5; the old name goes with version 6.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    if hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
