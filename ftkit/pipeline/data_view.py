"""Data looked at before anything else: what `ftkit data` shows."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from ftkit.data.example import TokenizedExample
from ftkit.data.prepare import PreparedData, prepare
from ftkit.data.settings import encoder_settings
from ftkit.errors import ModelError, UsageError
from ftkit.export.token_contract import TokenContract, make_contract
from ftkit.models.find import find_base, known_folder
from ftkit.models.known import KNOWN_MODELS
from ftkit.models.tokenizer import load_tokenizer, template_names
from ftkit.pipeline.data_display import ShownRows, facts_html, facts_text, shown
from ftkit.recipe import Recipe, load_recipe
from ftkit.recipe.load import recipe_from_values
from ftkit.recipe.overrides import apply_overrides
from ftkit.train.progress import ProgressBar

DEFAULT_MODEL = "smollm2-135m"
UNLIMITED = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class DataView:
    """Data as a model would be trained on it.

    Attributes:
        report: As a run writes it to data_report.json.
        tokenizer: Of the model, for the texts of tokens.
        prepared: The rows.
    """

    report: dict[str, Any]
    tokenizer: PreTrainedTokenizerBase
    prepared: PreparedData

    def examples(self, n: int, *, at: str | None = None) -> list[TokenizedExample]:
        """Training sequences.

        Args:
            n: How many, where no row is named.
            at: A row as messages name it (``rows.jsonl:17``), or its number alone: all of its sequences.

        Raises:
            UsageError: No row stands there.
        """
        sides = (self.prepared.train, self.prepared.validation)
        if at is None:
            return list(itertools.islice(itertools.chain(*sides), n))
        # By what it holds: an epoch takes a row with a weight above 1 several times.
        found = list({(row.place, tuple(row.input_ids)): row for side in sides for row in _at(side, at)}.values())
        if not found:
            raise UsageError(f"no row stands at {at}", fix="Rows are named as messages name them: rows.jsonl:17.")
        return found

    def findings(self) -> list[dict[str, str]]:
        """Everything suspicious, not only the first of each kind."""
        return [{"code": one.code, "where": one.where, "detail": one.detail} for one in self.prepared.findings()]

    def show(self, n: int = 3, *, at: str | None = None) -> ShownRows:
        """Training sequences as the model sees them, with what counts marked; see `examples`."""

        def decode(ids: list[int]) -> str:
            return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

        return shown(self.examples(n, at=at), decode)

    def token_contract(self) -> TokenContract:
        """What token_contract.json of an export of this model will say."""
        return make_contract(self.tokenizer)

    def __str__(self) -> str:
        return facts_text(self.report)

    def __repr__(self) -> str:
        return f"DataView({self.report['rows_in']:,} rows, {self.report['tokens']:,} tokens)"

    def _repr_html_(self) -> str:
        return facts_html(self.report)


def open_data(name: str, overrides: Sequence[str] = ()) -> DataView:
    """Prepare a data file, a folder, or the data of a recipe, to be looked at.

    Rows longer than the recipe's limit are no error here; how many there are is part of what is shown. Of a data
    file, nothing is held back.

    Args:
        name: Anything that ``data.train`` could name, or a recipe file.
        overrides: Of the recipe; of a data file, of a recipe that has it as ``data.train``.

    Raises:
        DataError: Listing every fault of every row.
        ModelError: No tokenizer can be had.
    """
    recipe = _recipe(name, overrides)
    base = find_base(recipe.model.path, recipe.model.revision)
    tokenizer = load_tokenizer(
        base.folder,
        recipe.model.chat_template,
        chat_template_kwargs=recipe.model.chat_template_kwargs,
        added_tokens=recipe.model.added_tokens,
    )
    section = recipe.data
    encoder = encoder_settings(
        tokenizer,
        train_on=section.train_on,
        allow_control_tokens=section.allow_control_tokens,
        today=datetime.date.today(),
        known_templates=template_names(),
    )
    lifted = section.model_copy(update={"max_length": UNLIMITED}) if section.overflow == "error" else section
    with ProgressBar("reading data, MiB", 1) as bar:
        prepared = prepare(
            lifted,
            encoder,
            seed=recipe.train.seed,
            progress=lambda done, total: bar(done >> 20, max(1, total >> 20)),
            takes_pairs=True,
            limits=(section.max_length,),
        )
    return DataView(report=prepared.report.to_dict(), tokenizer=tokenizer, prepared=prepared)


def _recipe(name: str, overrides: Sequence[str]) -> Recipe:
    if Path(name).suffix in (".yaml", ".yml"):
        return load_recipe(name, overrides).resolved()
    values = {"version": 1, "recipe": "lora", "model": DEFAULT_MODEL, "data": {"train": name, "validation": None}}
    changed, origins = apply_overrides(values, overrides)
    if ("model",) not in origins and ("model", "path") not in origins:
        _require_default_model()
    return recipe_from_values(changed, lambda path: ".".join(map(str, path))).resolved()


def _require_default_model() -> None:
    """Looking at data is not asking for a model to be fetched."""
    model = KNOWN_MODELS[DEFAULT_MODEL]
    if not known_folder(model).is_dir():
        raise ModelError(
            f"{DEFAULT_MODEL}, whose tokenizer is used unless another is named, is not on this machine",
            fix=f"Name the model you will train with --model, or fetch it: ftkit models pull {DEFAULT_MODEL}",
        )


def _at(side: Sequence[TokenizedExample], wanted: str) -> Iterator[TokenizedExample]:
    place = getattr(side, "place", None)
    for index in range(len(side)):
        here = side[index].place if place is None else place(index)
        if here == wanted or Path(here).name == wanted or (wanted.isdigit() and _number(here) == wanted):
            yield side[index]


def _number(place: str) -> str:
    return place.rstrip("]").replace("[", ":").rpartition(":")[2]
