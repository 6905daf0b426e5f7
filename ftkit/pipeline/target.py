"""Anything that can answer: a run, an export, or a base model."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

from ftkit.data.prepare import prepare
from ftkit.data.settings import encoder_settings
from ftkit.errors import DataError, ModelError, UsageError
from ftkit.evaluate.generation import Answer, generate, prompt_ids, stop_ids
from ftkit.evaluate.loss import mean_loss
from ftkit.evaluate.speaking import Speech, speak
from ftkit.export.base import find_export_base
from ftkit.export.manifest import MANIFEST, ExportManifest, read_manifest
from ftkit.export.targets import TARGETS
from ftkit.methods import Method, method_of
from ftkit.methods.quantised import keep_backward_pass
from ftkit.models.find import find_base
from ftkit.models.load import load_model
from ftkit.models.precision import choose_precision, default_device
from ftkit.models.tokenizer import load_tokenizer, template_names, text_prefix
from ftkit.models.vocabulary import added_token_pieces, extend_vocabulary
from ftkit.models.weights import checkpoint_dtype
from ftkit.pipeline.answers import answer_questions, choose_questions
from ftkit.pipeline.exporting import load_trained
from ftkit.pipeline.gguf_model import GgufModel, can_read_gguf
from ftkit.pipeline.other_engines import artefact_of, refuse_other_engine
from ftkit.pipeline.prompting import context_length
from ftkit.pipeline.run_folder import RunFolder
from ftkit.pipeline.session import open_session
from ftkit.recipe import RECIPES, DataSection
from ftkit.train.progress import ProgressBar

# Exports that are model folders, as transformers loads them.
PLAIN_KINDS = ("merged", "nf4")


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model ready to answer.

    Attributes:
        model: In memory, without dropout.
        tokenizer: Its own.
        stop_token_ids: Tokens that end an answer.
        compute: dtype of the matrix products for losses.
        pads_prompts: Whether prompts of unequal length may share a batch.
        data_settings: Keys of a recipe's data section that its rows were read with; empty for exports and models.
        choose: Lets this target answer, where several share one model in memory; None where the model is its own.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_token_ids: list[int]
    compute: torch.dtype
    pads_prompts: bool = True
    data_settings: dict[str, Any] = field(default_factory=dict)
    choose: Callable[[], None] | None = None

    @property
    def context_length(self) -> int | None:
        """Tokens that a prompt and its answer may have together; None where nobody knows."""
        return context_length(self.model)

    def speak(
        self,
        ids: Sequence[int],
        speech: Speech,
        *,
        say: Callable[[str], None] | None = None,
        ended: Callable[[], bool] | None = None,
    ) -> Answer:
        """Answer one prompt of token ids, as it comes; see `ftkit.evaluate.speaking.speak`.

        Raises:
            DataError: The prompt leaves no room for an answer.
        """
        room = None if self.context_length is None else self.context_length - len(ids)
        if not ids or (room is not None and room < 1):
            what = f"the prompt has {len(ids)} tokens; this model takes 1 to {(room or 0) + len(ids) - 1}"
            raise DataError(what, fix="Send less text.")
        if self.choose is not None:
            self.choose()
        allowed = speech if room is None else replace(speech, max_new_tokens=min(speech.max_new_tokens, room))
        stops = self.stop_token_ids
        answer: Answer = speak(self.model, ids, self.tokenizer, allowed, stop_token_ids=stops, say=say, ended=ended)
        return answer

    def generate(self, prompts: Sequence[str], *, max_new_tokens: int = 256) -> list[Answer]:
        """Answer each prompt greedily, as one user turn of its own."""
        if self.choose is not None:
            self.choose()
        in_front = text_prefix(self.tokenizer)
        ids = [prompt_ids(prompt, self.tokenizer, in_front=in_front) for prompt in prompts]
        if not all(ids):
            raise DataError("a prompt is empty", fix="Give at least one character.")
        with ProgressBar("answering", len(ids)) as bar:
            answers: list[Answer] = generate(
                self.model,
                ids,
                self.tokenizer,
                stop_token_ids=self.stop_token_ids,
                max_new_tokens=max_new_tokens,
                pads_prompts=self.pads_prompts,
                progress=bar if len(ids) > 1 else None,
            )
        return answers

    def evaluate(
        self, data: str | Path, *, metrics: Sequence[str] = (), settings: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Loss, perplexity and scores on a data file.

        Args:
            data: Any file or folder that a recipe could name.
            metrics: Of `ftkit.evaluate.metrics.METRICS`.
            settings: Other keys of a recipe's data section, and ``max_new_tokens``.

        Returns:
            loss, perplexity, tokens, rows, train_on (what the loss is over), and each metric.
        """
        options = self.data_settings | (settings or {})
        max_new_tokens = options.pop("max_new_tokens", 256)
        section = DataSection.model_validate({"train": data, "validation": None, **options})
        encoder = encoder_settings(
            self.tokenizer,
            train_on=section.train_on,
            allow_control_tokens=section.allow_control_tokens,
            today=datetime.date.today(),
            known_templates=template_names(),
        )
        prepared = prepare(section, encoder)
        examples = prepared.train
        with ProgressBar("loss", len(examples)) as bar:
            loss = mean_loss(self.model, examples, compute=self.compute, progress=bar)
        outcome: dict[str, Any] = {
            "loss": loss.mean,
            "perplexity": loss.perplexity if loss.mean < 700 else None,
            "tokens": loss.tokens,
            "rows": len(examples),
            "train_on": options.get("train_on", "assistant"),
        }
        if metrics:
            questions = choose_questions(
                examples, at_most=len(examples), max_new_tokens=max_new_tokens, metrics=metrics
            )
            if not questions.prompts:
                raise UsageError(f"{data}: has no answers to score", fix="Leave out --metric for plain text.")
            answered = answer_questions(
                self.model,
                questions,
                self.tokenizer,
                stop_token_ids=self.stop_token_ids,
                metrics=metrics,
                title="answers",
                pads_prompts=self.pads_prompts,
            )
            outcome |= answered["metrics"]
        return outcome


def open_target(name: str, *, base: str | Path | None = None) -> Target:
    """Load a run folder, an export folder, or a base model.

    Args:
        name: A folder, a hub id or a known name.
        base: Folder with the base model of an adapter export; None to look for it.

    Raises:
        ModelError: It cannot be used, or an adapter's base has another digest.
    """
    path = Path(name)
    is_export = (path / MANIFEST).is_file() and not RunFolder(path).is_run()
    kind = read_manifest(path).kind if is_export else None
    if base is not None and not (kind in TARGETS and TARGETS[kind].on_base):
        raise UsageError(f"{name}: is not an adapter export, so it takes no --base", fix="Leave it out.")
    if RunFolder(path).is_run():
        return _open_run(RunFolder(path))
    if is_export:
        return _open_export(path, None if base is None else Path(base))
    found = find_base(name)
    tokenizer = load_tokenizer(found.folder)
    model = load_model(found.folder, dtype=_inference_dtype(found.folder), device=default_device())
    return _target(model, tokenizer, stop_ids(model, tokenizer), found.folder)


def _open_run(folder: RunFolder) -> Target:
    session = open_session(folder.recipe())
    model = load_trained(session, folder)
    data = session.recipe.data
    return Target(
        model=model,
        tokenizer=session.tokenizer,
        stop_token_ids=folder.read("run.json")["stop_tokens"],
        compute=session.precision.compute,
        pads_prompts=session.method.pads_prompts,
        data_settings={key: getattr(data, key) for key in ("columns", "max_length", "train_on")},
    )


def _open_export(folder: Path, named_base: Path | None) -> Target:
    manifest = read_manifest(folder)
    if manifest.kind in PLAIN_KINDS:
        TARGETS[manifest.kind].require_parts(manifest.kind)
        tokenizer = load_tokenizer(folder)
        find_base(str(folder))  # refuses damaged or missing weights with a clear word
        model: nn.Module = load_model(folder, dtype=_inference_dtype(folder), device=default_device())
        if manifest.kind == "nf4":
            keep_backward_pass(model)
        return _target(model, tokenizer, manifest.stop_tokens, folder)
    if manifest.kind == "gguf" and can_read_gguf():
        gguf = GgufModel(artefact_of(folder, manifest))
        stops = manifest.stop_tokens
        return Target(
            model=gguf,
            tokenizer=load_tokenizer(folder),
            stop_token_ids=stops,
            compute=torch.float32,
            pads_prompts=False,
        )
    if manifest.kind != "adapter":
        refuse_other_engine(folder, manifest)
    return open_adapter(folder, manifest, named_base)[0]


def open_adapter(folder: Path, manifest: ExportManifest, named_base: Path | None = None) -> tuple[Target, Method]:
    """Load an adapter onto its base.

    Args:
        folder: An adapter export.
        manifest: Its own.
        named_base: The base model's folder, where it is named; no other is then taken.

    Returns:
        The target, and the method that made its model.

    Raises:
        ModelError: The base is not here, or has another digest.
    """
    tokenizer = load_tokenizer(folder)
    base = find_export_base(folder, manifest, named_base)
    if base.sha256 != manifest.base["sha256"]:
        raise ModelError(
            f"{folder}: was trained on {manifest.base['name']} with weights SHA-256 {manifest.base['sha256'][:16]}…, "
            f"but {base.folder} has {base.sha256[:16]}…",
            fix="Put the adapter on the base that it was trained on.",
        )
    method = _method_of(manifest)
    method.require_parts()
    quantization = None if manifest.quantization is None else BitsAndBytesConfig(**manifest.quantization)
    model = load_model(
        base.folder,
        dtype=_inference_dtype(base.folder),
        device=default_device(),
        quantization_config=quantization,
    )
    extend_vocabulary(model, added_token_pieces(base.folder, tokenizer) if manifest.added_tokens else {})
    loaded = method.load(method.prepare(model), folder).eval()
    target = _target(loaded, tokenizer, manifest.stop_tokens, base.folder)
    return replace(target, pads_prompts=method.pads_prompts), method


def _method_of(manifest: ExportManifest) -> Method:
    values = {"recipe": manifest.recipe, "model": "-", "data": "-", "method": manifest.method}
    try:
        return method_of(RECIPES[manifest.recipe].model_validate(values))
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"its method, {manifest.recipe}, is none that this ftkit knows: {error}", fix="Use a matching ftkit."
        ) from None


def _inference_dtype(folder: Path) -> torch.dtype:
    """The checkpoint's own dtype; float16 becomes float32 where there is no GPU, which computes it slowly."""
    dtype: torch.dtype = getattr(torch, checkpoint_dtype(folder))
    return torch.float32 if dtype == torch.float16 and default_device().type == "cpu" else dtype


def _target(model: nn.Module, tokenizer: PreTrainedTokenizerBase, stops: list[int], folder: Path) -> Target:
    precision = choose_precision(
        "auto", checkpoint=checkpoint_dtype(folder), device=default_device(), master_weights=False
    )
    return Target(model=model, tokenizer=tokenizer, stop_token_ids=stops, compute=precision.compute)
