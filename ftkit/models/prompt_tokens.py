"""A soft prompt as tokens: their names and place in a tokenizer and its template, their rows in a model."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftkit.errors import ModelError
from ftkit.models.chat_template import each_text, split_defaults
from ftkit.models.tokenizer import add_missing

NAME = "<|ftkit_prompt_{}|>"
_NAMED = re.compile(r"<\|ftkit_prompt_(\d+)\|>")
# What transformers rebuilds a tokenizer's post-processor from when it reads them, whatever tokenizer.json says.
_REBUILD = ("add_bos_token", "add_eos_token")


def add_prompt_tokens(
    tokenizer: PreTrainedTokenizerBase, count: int, folder: Path
) -> tuple[PreTrainedTokenizerBase, list[int]]:
    """A copy of a tokenizer that has new tokens and puts them in front of every text, BOS included.

    Both the chat template and, for plain text, the tokenizer itself write them.

    Args:
        tokenizer: Any fast one; it stays as it is.
        count: Of tokens.
        folder: Of the base model, for messages.

    Returns:
        The copy, and the ids of the new tokens in their order.

    Raises:
        ModelError: The vocabulary has gaps, or the tokenizer cannot put anything in front of what it puts there.
    """
    own = copy.deepcopy(tokenizer)
    # On top of a soft prompt that the base has already, its names go on; the new one stands before the old.
    taken = [int(match[1]) for match in map(_NAMED.fullmatch, own.get_vocab()) if match is not None]
    begin = max(taken, default=-1) + 1
    names = [NAME.format(number) for number in range(begin, begin + count)]
    add_missing(own, names, folder)
    ids = [int(own.convert_tokens_to_ids(name)) for name in names]
    if own.chat_template is not None:
        own.chat_template = each_text(own.chat_template, lambda text: _template_after(text, names))
    backend: Any = own.backend_tokenizer
    processor = json.loads(backend.to_str())["post_processor"]
    backend.post_processor = _processor(_with_front(processor, names, ids, folder))
    for key in _REBUILD:
        own.init_kwargs.pop(key, None)
    return own, ids


def set_prompt_rows(model: PreTrainedModel, ids: Sequence[int], embeddings: Tensor) -> None:
    """Let tokens stand for embeddings as layers see them; the output head is untied, as its rows are others.

    Args:
        model: With room for the ids (see `ftkit.models.vocabulary.extend_vocabulary`); changed in place.
        ids: One for each embedding.
        embeddings: (tokens, width), float.

    Raises:
        ModelError: Its embedding does more to a row than to scale it, so no row gives these embeddings.
    """
    _untie(model)
    table: Any = model.get_input_embeddings()
    places = torch.tensor(list(ids), device=table.weight.device)
    wanted = embeddings.detach().to(table.weight)
    with torch.no_grad():
        # Gemma's multiplies what it looks up, and a soft prompt is learned behind that.
        table.weight[places] = torch.ones_like(wanted)
        scale = table(places).double().mean()
        table.weight[places] = (wanted.double() / scale).to(wanted.dtype)
        given = table(places)
    if not torch.allclose(given, wanted, rtol=1e-5, atol=1e-6):
        raise ModelError(
            "a soft prompt cannot become rows of this model's embedding, which does more than look them up",
            fix="Export the adapter alone: export: [adapter].",
        )


def _untie(model: Any) -> None:
    """Give the output head a table of its own where it shares the embedding's."""
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None:
        raise ModelError("this model has no output head, so no soft prompt can be merged into it")
    if head.weight.data_ptr() == table.weight.data_ptr():
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    # What transformers would drop as a double when it saves.
    model.all_tied_weights_keys = {}


def _template_after(text: str, names: Sequence[str]) -> str:
    defaults, rest = split_defaults(text)
    return defaults + "{{ '" + "".join(names) + "' }}" + rest


def _with_front(
    processor: dict[str, Any] | None, names: Sequence[str], ids: Sequence[int], folder: Path
) -> dict[str, Any]:
    """A post-processor's JSON with the tokens in front of all that it puts there."""
    whole = [] if processor is None else [processor]
    steps = [part for step in whole for part in (step["processors"] if step["type"] == "Sequence" else [step])]
    templates = [step for step in steps if step["type"] == "TemplateProcessing"]
    if len(templates) > 1 or any(step["type"] not in ("ByteLevel", "TemplateProcessing") for step in steps):
        raise ModelError(
            f"{folder}: its tokenizer finishes texts by {', '.join(step['type'] for step in steps)}, and what that "
            "puts in front no soft prompt can stand before",
            fix="Export the adapter alone: export: [adapter].",
        )
    bare: dict[str, Any] = {"type": "TemplateProcessing", "single": _bare("A"), "special_tokens": {}}
    before = templates[0] if templates else bare
    pair = before.get("pair", [*_bare("A"), *_bare("B", 1)])
    front = [{"SpecialToken": {"id": name, "type_id": 0}} for name in names]
    known = {name: {"id": name, "ids": [id_], "tokens": [name]} for name, id_ in zip(names, ids, strict=True)}
    after = {
        "type": "TemplateProcessing",
        "single": front + before["single"],
        "pair": front + pair,
        "special_tokens": before["special_tokens"] | known,
    }
    others = [step for step in steps if step["type"] != "TemplateProcessing"]
    return after if not others else {"type": "Sequence", "processors": [*others, after]}


def _bare(name: str, type_id: int = 0) -> list[dict[str, Any]]:
    return [{"Sequence": {"id": name, "type_id": type_id}}]


def _processor(state: dict[str, Any]) -> Any:
    """The object of a post-processor's JSON, which only whole tokenizers are read from."""
    empty = json.loads(Tokenizer.from_str(json.dumps(_EMPTY)).to_str())
    return Tokenizer.from_str(json.dumps(empty | {"post_processor": state})).post_processor


_EMPTY = {"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}
