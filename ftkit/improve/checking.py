"""Everything that can be known of a round before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftkit.files import sha256_file
from ftkit.improve.filtering import filter_log
from ftkit.improve.former import require_untested
from ftkit.improve.frozen import read_frozen
from ftkit.improve.identity import digest_of
from ftkit.improve.log import read_log
from ftkit.improve.trainable import Trainable
from ftkit.improve.tuning import base_of, candidate_recipe
from ftkit.models.find import find_base
from ftkit.recipe import ImproveSpec


def check_improve(spec: ImproveSpec) -> dict[str, Any]:
    """Check test, log, base and settings; nothing is trained or written.

    Returns:
        ``model``, ``current``, ``test``, ``data`` (as in filter.json), ``fewest``, ``gate`` and ``warnings``.

    Raises:
        FtkitError: Of the kind of the first part that fails.
    """
    spec = spec.resolved()
    frozen, base = read_frozen(spec.test), base_of(spec)
    candidate_recipe(spec, base, Path("log"), Path("test"), Path("run"))
    found = find_base(base.path, base.revision)
    trainable = Trainable(base, spec.tune.data)
    facts = filter_log(read_log(spec.log), frozen, trainable).to_dict()
    require_untested(spec.tune.data, frozen, trainable.settings)
    warnings = []
    if facts["kept"] < spec.fewest:
        warnings.append(f"{facts['kept']} rows are left of the log; a round begins with {spec.fewest}")
    if not spec.tune.data.train:
        warnings.append("candidates learn from the log alone: name the former data under tune.data.train")
    return {
        "model": {"name": found.portable_name, "sha256": found.sha256},
        "current": {"place": spec.current, "digest": digest_of(spec.current)},
        "test": {"questions": len(frozen.questions), "sha256": sha256_file(Path(spec.test))},
        "data": facts,
        "fewest": spec.fewest,
        "gate": spec.gate.model_dump(mode="json"),
        "warnings": warnings,
    }
