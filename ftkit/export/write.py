"""Writing exports: what a target writes, and what every export has beside it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from ftkit.export.card import model_card
from ftkit.export.manifest import MANIFEST, ExportManifest, library_versions, list_files
from ftkit.export.probes import text_fixtures
from ftkit.export.soft_prompt import as_exported
from ftkit.export.targets import TARGETS
from ftkit.export.token_contract import make_contract
from ftkit.export.trained import Trained, generation_config
from ftkit.files import new_folder, require_empty, write_json
from ftkit.models.licences import licence_files, stated_licence
from ftkit.models.load import quiet_transformers
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest
from ftkit.recipe.sections import ExportKind

VERIFICATION = "verification"
BASE_LICENCE = "LICENSE.base"


def write_export(trained: Trained, kind: ExportKind, dtype: str, folder: Path) -> ExportManifest:
    """Write one export; it appears complete, or not at all.

    Args:
        trained: The live model and its record.
        kind: A key of `TARGETS`.
        dtype: Of the weights, as the target understands it; ``auto`` for its own choice.
        folder: Where to; must be absent or empty.

    Raises:
        OutputError: The folder is in use.
        RecipeError: A soft prompt cannot become tokens of this tokenizer.
        VerificationError: Its tokens could be sampled.
    """
    target = TARGETS[kind]
    require_empty(folder)
    trained = as_exported(trained, kind)
    with new_folder(folder) as partial, quiet_transformers():
        written = target.write(trained, dtype, partial)
        trained.tokenizer.save_pretrained(partial)
        generation_config(trained).save_pretrained(partial)
        trained.probes.save(partial / VERIFICATION)
        # Of the live tokenizer, so that verifying compares the exported template with the one that was trained with.
        contract = make_contract(trained.tokenizer)
        contract.write(partial)
        fixtures = text_fixtures(trained.tokenizer)
        (partial / VERIFICATION / "texts.json").write_text(json.dumps(fixtures), encoding="utf-8")
        if (licences := licence_files(trained.base.folder)) and not (partial / BASE_LICENCE).exists():
            shutil.copyfile(licences[0], partial / BASE_LICENCE)
        manifest = ExportManifest(
            kind=kind,
            base={
                "name": trained.base.portable_name,
                "revision": trained.base.revision,
                "sha256": trained.base.sha256,
                "licence": stated_licence(trained.base),
            },
            tokenizer_digest=tokenizer_digest(trained.tokenizer),
            chat_template_digest=chat_template_digest(trained.tokenizer),
            token_contract_digest=contract.digest,
            dtype=written.dtype,
            quantization=trained.quantization if target.on_base else None,
            notes=trained.notes | written.notes,
            added_tokens=sorted(trained.added_tokens),
            prefix_ids=trained.prefix_ids,
            stop_tokens=trained.stop_token_ids,
            versions=library_versions(),
            **trained.origin,
        )
        (partial / "README.md").write_text(model_card(manifest, trained.facts, partial), encoding="utf-8")
        manifest = replace(manifest, files=list_files(partial))
        write_json(partial / MANIFEST, manifest.to_dict())
    return manifest
