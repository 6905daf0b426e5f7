"""Forgetting in a run: measured on the untouched base and on the trained model, over interruptions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from ftkit.errors import OutputError
from ftkit.evaluate.forgetting import Forgetting, divergence
from ftkit.evaluate.general import General, read_general
from ftkit.files import require_space
from ftkit.notices import log
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import Session

BASE, TENSORS = "forgetting.json", "forgetting.safetensors"


def read_general_of(session: Session) -> General | None:
    """What a recipe wants forgetting to be measured on; None where it names nothing.

    Raises:
        DataError: Naming every fault.
    """
    evaluate = session.recipe.evaluate
    return None if evaluate.forgetting is None else read_general(evaluate.forgetting, most=evaluate.forgetting_rows)


def measure_before(session: Session, general: General | None, model: nn.Module, folder: RunFolder) -> None:
    """Measure the base and keep its figures and distributions in the run folder, unless they are there.

    Raises:
        OutputError: They are there, of other files.
    """
    if general is None:
        return
    if folder.has(BASE):
        if folder.read(BASE)["sha256"] != general.sha256:
            raise OutputError(
                f"{folder.path}: the files of evaluate.forgetting changed since the run began",
                fix="Put them back, or train into another output.",
            )
        return
    measuring = Forgetting(general, session.tokenizer, session.precision.compute)
    log.info("measuring the base on general text and probes")
    tensors = {"base": measuring.distributions(model)}
    require_space(folder.path, tensors["base"].numel() * 4)
    save_file(tensors, folder.path / TENSORS)
    folder.write(BASE, {"sha256": general.sha256, **asdict(measuring.measure(model))})


def measure_after(
    session: Session, general: General | None, model: nn.Module, folder: RunFolder
) -> dict[str, Any] | None:
    """Figures before and after, and how far the distributions have moved; None where nothing was asked for."""
    if general is None:
        return None
    before = folder.read(BASE)
    measuring = Forgetting(general, session.tokenizer, session.precision.compute)
    log.info("measuring the trained model on general text and probes")
    moved = divergence(load_file(folder.path / TENSORS)["base"], measuring.distributions(model))
    after = asdict(measuring.measure(model))
    return {"before": {key: before[key] for key in after}, "after": after, "kl_to_base": moved}


def drop_distributions(folder: RunFolder) -> None:
    """Remove the base's distributions, which are large, once result.json says how far they moved."""
    (folder.path / TENSORS).unlink(missing_ok=True)
