"""Everything that can be known before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.data.example import IGNORED
from ftkit.errors import OutputError
from ftkit.files import require_space
from ftkit.pipeline.estimate import estimate
from ftkit.pipeline.exporting import require_exports
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import open_session
from ftkit.recipe import Recipe


def check(recipe: Recipe) -> dict[str, Any]:
    """Check recipe, base, data, masks, tokens, memory and disk without training.

    Returns:
        ``model``, ``data`` (the report), ``example`` (one row's text in stretches, supervised or not), ``estimate``
        and ``warnings``.

    Raises:
        FtkitError: Of the kind of the first part that fails, listing all faults of that part.
    """
    session = open_session(recipe)
    require_exports(session, session.recipe.export or ())
    data = session.prepare_data()
    needs = estimate(session, data)
    needs.require_fit()
    output = Path(session.recipe.output or "")
    warnings = []
    try:
        RunFolder(output).require_fresh()
    except OutputError as error:
        warnings.append(str(error))
    require_space(output, needs.disk)
    if needs.memory > needs.available:
        warnings.append("memory may not suffice; train.micro_batch_size=1 needs less")
    if data.report.leaks:
        warnings.append(f"{data.report.leaks} validation rows are also trained on")
    example = data.train[0]
    return {
        "recipe": session.recipe.model_dump(mode="json"),
        "model": {
            "name": session.base.portable_name,
            "path": str(session.base.folder),
            "sha256": session.base.sha256,
            "revision": session.base.revision,
        },
        "device": str(session.device),
        "compute": str(session.precision.compute).removeprefix("torch."),
        "steps": needs.steps,
        "data": data.report.to_dict(),
        "example": {"place": example.place, "stretches": _stretches(session.tokenizer, example)},
        "estimate": needs.to_dict(),
        "warnings": warnings,
    }


def _stretches(tokenizer: Any, example: Any) -> list[dict[str, Any]]:
    """The row as text, cut where supervision begins and ends."""
    groups: list[tuple[bool, list[int]]] = []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        counts = label != IGNORED
        if groups and groups[-1][0] == counts:
            groups[-1][1].append(token)
        else:
            groups.append((counts, [token]))
    return [{"supervised": counts, "text": tokenizer.decode(tokens)} for counts, tokens in groups]
