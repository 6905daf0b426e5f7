"""Checkpoints: complete or invisible, without pickle.

checkpoints/step-00000100/
  trained.safetensors      parameters that train
  optimizer.safetensors    AdamW's moments, one entry per parameter and moment
  random.safetensors       generator states
  method.safetensors       what the method remembers, if anything (see `ftkit.train.spec.TrainingHooks`)
  state.json               step, scheduler, counters
  trainer_state.json       the Trainer's own account
  checkpoint.json          size and sha256 of all of these; written last
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftkit.files import files_in, new_folder, sha256_file, write_json
from ftkit.notices import log
from ftkit.train.spec import TrainingHooks

MANIFEST = "checkpoint.json"
ALWAYS = ("trained.safetensors", "optimizer.safetensors", "random.safetensors", "state.json", "trainer_state.json")
_NAME = re.compile(r"step-\d{8,}")


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` optimizer steps stands."""
    return folder / f"step-{step:08d}"


def save_checkpoint(
    target: Path,
    *,
    model: nn.Module,
    optimizer: Any,
    scheduler: Any,
    trainer_state: str,
    counters: Mapping[str, Any],
    method_state: Mapping[str, Tensor],
) -> None:
    """Write a checkpoint; it appears complete, or not at all."""
    with new_folder(target) as partial:
        save_file(trainable_state(model), partial / "trained.safetensors")
        tensors, plain = _split_optimizer(optimizer.state_dict())
        save_file(tensors, partial / "optimizer.safetensors")
        generators, python_state = _random_states()
        save_file(generators, partial / "random.safetensors")
        if method_state:
            remembered = {name: value.detach().contiguous() for name, value in method_state.items()}
            save_file(remembered, partial / "method.safetensors")
        write_json(
            partial / "state.json",
            {
                "optimizer": plain,
                "scheduler": scheduler.state_dict(),
                "python_random": python_state,
                "counters": dict(counters),
            },
        )
        (partial / "trainer_state.json").write_text(trainer_state, encoding="utf-8")
        files = {
            name: {"size": (partial / name).stat().st_size, "sha256": sha256_file(partial / name)}
            for name in files_in(partial)
        }
        write_json(partial / MANIFEST, {"format_version": 1, "files": files})


def step_of(checkpoint: Path) -> int:
    """The optimizer steps that a checkpoint stands for."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose bytes are those that were written; damaged ones are passed over with a warning."""
    passed_over = False
    for candidate in reversed(checkpoints_in(folder)):
        fault = fault_of(candidate)
        if fault is None:
            if passed_over:
                log.warning("going back to step %d", step_of(candidate))
            return candidate
        log.warning("%s: is damaged and passed over: %s", candidate, fault)
        passed_over = True
    if passed_over:
        log.warning("%s: no checkpoint is whole; a resume starts over", folder)
    return None


def checkpoints_in(folder: Path) -> list[Path]:
    """Every checkpoint, whole or not, in the order of their steps; what has another name is none."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in found if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def fault_of(checkpoint: Path) -> str | None:
    """The first thing that is not as it was written; None for a whole checkpoint."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))["files"]
        listed = [(name, facts["size"], facts["sha256"]) for name, facts in files.items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST} is missing or unreadable"
    if missing := [name for name in ALWAYS if name not in files]:
        return f"{MANIFEST} does not list {missing[0]}"
    for name, size, digest in listed:
        try:
            file = checkpoint / name
            # The files stand side by side: another name could lead anywhere, say to a device without an end.
            if Path(name).name != name or not file.is_file():
                return f"{name} is missing or unreadable"
            actual = file.stat().st_size
            if actual != size:
                return f"{name} has {actual} bytes, not {size}"
            if sha256_file(file) != digest:
                return f"{name} has other bytes than were written"
        except (OSError, ValueError):
            return f"{name} is missing or unreadable"
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether every file is there with its size and digest."""
    return fault_of(checkpoint) is None


def remove_old_checkpoints(folder: Path, keep_last: int, keep_best: int = 0) -> None:
    """Delete all but the newest ``keep_last`` and the ``keep_best`` with the lowest validation losses."""
    found = checkpoints_in(folder)
    kept = set(found[-keep_last:]) | {checkpoint for _, checkpoint in by_validation_loss(folder)[:keep_best]}
    for old in found:
        if old not in kept:
            shutil.rmtree(old)


def by_validation_loss(folder: Path) -> list[tuple[float, Path]]:
    """Checkpoints of steps that were validated, the best first, with their validation losses."""
    found = []
    for checkpoint in checkpoints_in(folder):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # a damaged one is nobody's best
            counters = read_counters(checkpoint)
            if counters["validated_at"] == step_of(checkpoint):
                found.append((float(counters["validation_loss"]), checkpoint))
    return sorted(found)


def remove_newer_checkpoints(folder: Path, step: int) -> None:
    """Delete what a resume at ``step`` passes over as damaged; it would count as the newest for ever."""
    for checkpoint in checkpoints_in(folder):
        if step_of(checkpoint) > step:
            shutil.rmtree(checkpoint)


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, by name, each once however often it is tied."""
    return {name: value.detach().contiguous() for name, value in model.named_parameters() if value.requires_grad}


@torch.no_grad()
def load_trainable(model: nn.Module, checkpoint: Path) -> None:
    """Put a checkpoint's parameters into a model that was prepared in the same way.

    Raises:
        ValueError: The names differ, so the checkpoint belongs to another recipe.
    """
    saved = load_file(checkpoint / "trained.safetensors")
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if saved.keys() != parameters.keys():
        odd = sorted(saved.keys() ^ parameters.keys())
        raise ValueError(f"{checkpoint}: belongs to another recipe: {', '.join(odd[:5])}")
    for name, value in saved.items():
        parameters[name].copy_(value)


def load_optimizer(optimizer: Any, scheduler: Any, checkpoint: Path) -> None:
    """Restore AdamW's moments and the scheduler's place."""
    state = _read_state(checkpoint)
    tensors = load_file(checkpoint / "optimizer.safetensors")
    moments: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": moments, "param_groups": state["optimizer"]})
    scheduler.load_state_dict(state["scheduler"])


def load_method_state(hooks: TrainingHooks | None, checkpoint: Path) -> None:
    """Give a method back what it remembered.

    Raises:
        ValueError: Something was remembered and no method is there to take it.
    """
    file = checkpoint / "method.safetensors"
    state = load_file(file) if file.exists() else {}
    if hooks is not None:
        hooks.load_state(state)
    elif state:
        odd = sorted(state)
        raise ValueError(f"{checkpoint}: belongs to another recipe: its method remembers {', '.join(odd[:5])}")


def load_random_states(checkpoint: Path) -> None:
    """Restore every generator that training draws from."""
    generators = load_file(checkpoint / "random.safetensors")
    version, internal, gauss = _read_state(checkpoint)["python_random"]
    random.setstate((version, tuple(internal), gauss))
    keys = generators["numpy_keys"].numpy()
    position, has_gauss = generators["numpy_rest"].tolist()
    np.random.set_state(("MT19937", keys.astype(np.uint32), position, has_gauss, generators["numpy_gauss"].item()))
    torch.random.set_rng_state(generators["torch"])
    if torch.cuda.is_available() and "cuda" in generators:
        torch.cuda.random.set_rng_state(generators["cuda"])


def read_counters(checkpoint: Path) -> dict[str, Any]:
    """What the run had counted when the checkpoint was written."""
    return dict(_read_state(checkpoint)["counters"])


def _read_state(checkpoint: Path) -> dict[str, Any]:
    return dict(json.loads((checkpoint / "state.json").read_text(encoding="utf-8")))


def _split_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Tensors for safetensors, the rest for JSON."""
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, moments in state["state"].items()
        for name, value in _tensors(moments.items())
    }
    groups = [
        {key: value for key, value in group.items() if not isinstance(value, Tensor)}
        for group in state["param_groups"]
    ]
    return tensors, groups


def _tensors(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Tensor]]:
    return ((name, value if isinstance(value, Tensor) else torch.tensor(float(value))) for name, value in items)


def _random_states() -> tuple[dict[str, Tensor], list[Any]]:
    _, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "torch": torch.random.get_rng_state(),
        "numpy_keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss]),
        "numpy_gauss": torch.tensor([gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.random.get_rng_state()
    version, internal, next_gauss = random.getstate()
    return states, [version, list(internal), next_gauss]
