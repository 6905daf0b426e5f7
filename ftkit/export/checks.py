"""What an export is held to: one function a check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ftkit.export.engine_tokens import EngineTexts, bare, default_template, engine_fault
from ftkit.export.limits import Limits
from ftkit.export.manifest import ExportManifest, file_problems
from ftkit.export.measure import Measured
from ftkit.export.probes import Probes
from ftkit.export.targets import TARGETS
from ftkit.export.token_contract import TokenContract, describe_contract_difference, token_names
from ftkit.models.find import BaseModel
from ftkit.models.tokenizer import chat_template_digest, tokenizer_digest


@dataclass(frozen=True, kw_only=True)
class Check:
    """One entry of verify.json."""

    name: str
    passed: bool
    value: Any = None
    limit: Any = None
    detail: str = ""


def check_files(folder: Path, manifest: ExportManifest) -> Check:
    """Every file has the bytes that the manifest lists, and there are no others."""
    problems = file_problems(folder, manifest)
    return Check(
        name="files", passed=not problems, value=len(manifest.files), detail="; ".join(map(str, problems[:10]))
    )


def check_base(base: BaseModel, manifest: ExportManifest) -> Check:
    """The base is the one that was trained on, by its digest."""
    same = base.sha256 == manifest.base["sha256"]
    detail = "" if same else f"{base.folder} is not the base that this adapter was trained on"
    return Check(name="base", passed=same, value=base.sha256, limit=manifest.base["sha256"], detail=detail)


def check_tokenizer(
    tokenizer: Any, manifest: ExportManifest, found: dict[str, Any], fixtures: dict[str, Any]
) -> Check:
    """The tokenizer has the trained vocabulary and gives the fixed texts the trained ids."""
    digest = tokenizer_digest(tokenizer)
    wrong = [
        entry["text"] for entry, ids in zip(fixtures["texts"], found["texts"], strict=True) if entry["ids"] != ids
    ]
    same = digest == manifest.tokenizer_digest and not wrong
    detail = "" if same else f"other token ids than in training, for {wrong[0]!r}" if wrong else "other vocabulary"
    return Check(name="tokenizer", passed=same, value=digest, limit=manifest.tokenizer_digest, detail=detail)


def check_engine_texts(found: dict[str, Any], fixtures: dict[str, Any], front: Sequence[int]) -> Check:
    """What an engine's own tokenizer and template make of the fixed texts, where its reader tells.

    A soft prompt's tokens, ``front``, may be left to the chat template (see `ftkit.export.engine_tokens.bare`).
    """
    chats = any(chat["text"] is not None for chat in fixtures["chats"])
    problems = [
        f"gives other token ids for {entry['text']!r}"
        for entry, ids in zip(fixtures["texts"], found["engine_texts"], strict=True)
        if entry["ids"] != ids and ids != bare(entry["ids"], front if chats else ())
    ] + [
        f"renders {text!r}, trained with {chat['text']!r}"
        for chat, text in zip(fixtures["chats"], found["engine_chats"], strict=True)
        if chat["text"] is not None and chat["text"] != text
    ]
    equal = len(fixtures["texts"]) + len(fixtures["chats"]) - len(problems)
    value = {"equal": equal, "of": len(fixtures["texts"]) + len(fixtures["chats"])}
    detail = f"the engine's own tokenizer {problems[0]}" if problems else ""
    return Check(name="engine_tokenizer", passed=not problems, value=value, detail=detail)


def check_template(
    tokenizer: Any, manifest: ExportManifest, found: dict[str, Any], fixtures: dict[str, Any]
) -> Check:
    """The chat template renders as in training, and generation stops at the trained stop tokens."""
    digest = chat_template_digest(tokenizer)
    pairs = list(zip((chat["text"] for chat in fixtures["chats"]), found["chats"], strict=True))
    wrong = next(((wanted, got) for wanted, got in pairs if wanted != got and wanted is not None), None)
    stops = found["eos_token_id"]
    stops = [stops] if isinstance(stops, int) else stops or []
    unknown = [token for token in manifest.stop_tokens if token not in stops]
    detail = ""
    if wrong:
        detail = f"renders {wrong[1]!r}, trained with {wrong[0]!r}"
    elif digest != manifest.chat_template_digest:
        detail = "the template's text differs from the one that was trained with"
    elif unknown:
        detail = f"generation_config.json does not stop at {unknown}, which end the trained answers"
    return Check(
        name="chat_template", passed=not detail, value=digest, limit=manifest.chat_template_digest, detail=detail
    )


def check_contract(
    folder: Path, manifest: ExportManifest, contract: TokenContract | None, fault: str, found: dict[str, Any]
) -> Check:
    """Every prompt of the token contract, rendered and tokenised anew from the bytes on disk."""
    if contract is None:
        missing = "this export was written without a token contract; export again to have one"
        return Check(name="token_contract", passed=not fault, detail=fault or missing)
    (answers,) = found["contract"]
    again = contract.with_answers(answers, contract.clock)
    detail = describe_contract_difference(contract, again, token_names(folder))
    front = manifest.prefix_ids
    lacking = [
        one for one in (*again.conversations, *again.texts) if one.ids is not None and one.ids[: len(front)] != front
    ]
    if lacking and not detail:
        detail = f"{lacking[0].name!r} does not begin with the soft prompt's tokens, {front}"
    return Check(name="token_contract", passed=not detail, value=again.digest, limit=contract.digest, detail=detail)


def check_engine(
    folder: Path, manifest: ExportManifest, tokenizer: Any, found: dict[str, Any], texts: EngineTexts
) -> Check:
    """The engine's own tokenizer, stops and chat template."""
    # An adapter holds no template: the base's GGUF does, which is not ours.
    own = None if TARGETS[manifest.kind].on_base else default_template(tokenizer)
    detail = engine_fault(found, texts, manifest.stop_tokens, own, token_names(folder))
    return Check(name="engine_tokens", passed=not detail, value={"texts": texts.count}, detail=detail)


def check_logits(distance: dict[str, float], limits: Limits) -> Check:
    """The artefact's logits lie within the limits of its dtype."""
    value = {key: distance[key] for key in ("max_abs_diff", "kl_mean", "top1_agreement")}
    passed = (
        value["max_abs_diff"] <= limits.max_abs_diff
        and value["kl_mean"] <= limits.kl_mean
        and value["top1_agreement"] >= limits.top1_agreement
    )
    detail = "" if passed else "the export does not behave like the trained model"
    return Check(name="logits_match_trained", passed=passed, value=value, limit=asdict(limits), detail=detail)


def check_differs(distance: dict[str, float], limits: Limits) -> Check:
    """Closer to the trained model than to the base, by as much as the dtype allows."""
    to_trained, to_base = distance["mean_abs_diff"], distance["base_mean_abs_diff"]
    passed = to_base > 0 and to_trained < limits.to_trained * distance["trained_base_mean_abs_diff"]
    detail = (
        ""
        if passed
        else (
            "the export equals the untouched base"
            if to_base == 0
            else "it is no closer to the trained model than to the base: lost in rounding, or in a merge"
        )
    )
    value = {"mean_abs_diff_to_trained": to_trained, "mean_abs_diff_to_base": to_base}
    limit = {"mean_abs_diff_to_trained": limits.to_trained * distance["trained_base_mean_abs_diff"]}
    return Check(name="differs_from_base", passed=passed, value=value, limit=limit, detail=detail)


def check_silence(distance: dict[str, float]) -> Check:
    """A soft prompt's tokens are no words: their logits must lie below all others wherever one is measured."""
    margin = distance["prefix_margin"]
    detail = "" if margin > 0 else "the soft prompt's own tokens could be sampled"
    return Check(name="prompt_tokens_never_sampled", passed=margin > 0, value=margin, limit=0.0, detail=detail)


def check_greedy(probes: Probes, measured: Measured) -> Check:
    """Equal greedy tokens; they may part only where the trained model's own lead was within the measured error."""
    problems, equal = [], 0
    for index, (wanted, got) in enumerate(zip(probes.greedy, measured.greedy, strict=True)):
        pairs = enumerate(zip(wanted, got, strict=False))
        parting = next((step for step, pair in pairs if pair[0] != pair[1]), None)
        if parting is None and len(wanted) != len(got):
            problems.append(f"prompt {index} ends after {len(got)} tokens, not {len(wanted)}")
        elif parting is None:
            equal += 1
        elif parting is not None and probes.margins[index][parting] > 2 * measured.distances["max_abs_diff"]:
            problems.append(f"prompt {index} parts at token {parting}: {measured.greedy_text[index]!r}")
    value = {"equal": equal, "of": len(probes.greedy)}
    return Check(name="greedy_text_match", passed=not problems, value=value, detail="; ".join(problems))
