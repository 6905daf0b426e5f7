"""The candidate of a round: an ordinary run on the base, the former data and the log's rows.

Every candidate starts from the base and learns all that the log has by then. So nothing piles up over the rounds,
what was withdrawn is gone from the next candidate, and a round can be repeated from its files.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftkit.errors import ModelError, UsageError
from ftkit.export.base import find_export_base
from ftkit.export.manifest import MANIFEST, read_manifest
from ftkit.files import sha256_file, sha256_json
from ftkit.improve.former import former_digests
from ftkit.models.find import find_base
from ftkit.models.tokenizer import template_names
from ftkit.pipeline import run as line
from ftkit.pipeline.run_folder import RunFolder
from ftkit.rag.opening import is_rag_place
from ftkit.recipe import RECIPES, ImproveSpec, ModelSection, Recipe, decisive_values, recipe_error

# Kept rows of evaluation are compared with what is trained on; leaks stand in the run's data_report.json.
NO_SAMPLES: dict[str, Any] = {"samples": 0, "metrics": ()}


def base_of(spec: ImproveSpec) -> ModelSection:
    """The base that candidates start from.

    Raises:
        ModelError: It is not here.
        UsageError: What is in service answers from documents.
    """
    if is_rag_place(spec.current):
        raise UsageError(
            f"{spec.current}: answers from documents; what it read is not in the log as its generator saw it",
            fix="Name the model, run or export that answers without documents. Readers learn by `ftkit rag train`.",
        )
    if spec.model is not None:
        return spec.model
    folder = Path(spec.current)
    if RunFolder(folder).is_run():
        return RunFolder(folder).recipe().model
    if (folder / MANIFEST).is_file():
        return _base_of_export(folder)
    return ModelSection(path=spec.current)


def _base_of_export(folder: Path) -> ModelSection:
    """What an export was tuned from; of one that stands in its run the run knows."""
    manifest = read_manifest(folder)
    run = RunFolder(folder.resolve().parent.parent)  # of an export below the root, the root
    with contextlib.suppress(ModelError):
        # Some other run may stand around an export that was put there.
        if run.is_run() and base_sha256(model := run.recipe().model) == manifest.base["sha256"]:
            return model
    with contextlib.suppress(ModelError):
        found = find_export_base(folder, manifest)
        if found.sha256 == manifest.base["sha256"]:
            return ModelSection(path=str(found.folder))
    raise ModelError(f"{folder}: its base model {manifest.base['name']} is not here", fix="Name it: model: FOLDER.")


def candidate_recipe(spec: ImproveSpec, base: ModelSection, rows: Path, test: Path, output: Path) -> Recipe:
    """The recipe of a round.

    Args:
        spec: Resolved.
        base: That is tuned.
        rows: Of the log.
        test: The frozen test, as chat data: nothing learns from it, and what is equal to it is reported.
        output: The run folder.

    Raises:
        RecipeError: Settings do not go together.
    """
    tune = spec.tune
    data = tune.data.model_dump()
    kinds = tune.method.EXPORT_KINDS
    values = {
        "model": base.model_dump(),
        "data": data
        | {
            "train": [*data["train"], {"path": str(rows), "format": "messages"}],
            "evaluation": (*data["evaluation"], str(test)),
        },
        "method": tune.method,
        "train": tune.train,
        "evaluate": NO_SAMPLES,
        "export": ("adapter" if "adapter" in kinds else "merged",),
        "output": str(output),
    }
    kind = RECIPES[tune.recipe]
    try:
        return kind.model_validate(values).resolved()
    except ValidationError as error:
        raise recipe_error(error, kind, values) from None


def round_key(recipe: Recipe, base: ModelSection, spec: ImproveSpec) -> str:
    """Digest of all that decides a candidate beside the log's rows: contents and settings, and no place on disk.

    Raises:
        DataError: Former data are not there.
    """
    values = decisive_values(recipe)
    data = {key: value for key, value in values["data"].items() if key != "evaluation"}
    if data["replay"] is not None:
        data["replay"] = {key: value for key, value in data["replay"].items() if key != "path"}
    template = recipe.model.chat_template
    if template is not None and template not in template_names():
        values["model"] = values["model"] | {"chat_template": sha256_file(Path(template))}
    former = [source.model_dump(mode="json", exclude={"path"}) for source in spec.tune.data.train]
    return sha256_json([values | {"data": data}, base_sha256(base), former, former_digests(spec.tune.data)])


def base_sha256(base: ModelSection) -> str:
    """Identity of a base's weights."""
    return find_base(base.path, base.revision).sha256


def train(recipe: Recipe) -> Path:
    """Train, go on with what was begun, or take what is there.

    Returns:
        The export that can be put into service.

    Raises:
        FtkitError: As `ftkit.pipeline.run.run`.
    """
    folder = RunFolder(Path(recipe.output or ""))
    finished = line.resume(folder.path) if folder.is_run() else line.run(recipe)
    return folder.path / str(finished.result["exports"][0]["path"])
