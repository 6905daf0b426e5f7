"""Which engines an export works in, as its card says it."""

from __future__ import annotations

import pytest

from ftkit.export.engines import engines_of, not_for_vllm, vllm_rank
from ftkit.export.manifest import read_manifest
from ftkit.export.targets import TARGETS
from tests.contract.cases import Case
from tests.export.small_exports import ADAPTER, MERGED, write_exports
from tests.tiny import tiny_tokenizer

PLAIN = {"peft_type": "LORA", "r": 4, "rank_pattern": {}, "use_dora": False}


@pytest.fixture(scope="module")
def manifest(tiny_llama, tmp_path_factory):
    folder = write_exports(tmp_path_factory.mktemp("exports"), tiny_llama, tiny_tokenizer(), exports=ADAPTER)
    return read_manifest(folder / "adapter")


def changed(manifest, **values):
    return type(manifest)(**{**vars(manifest), **values})


def statuses(manifest, adapter=None) -> dict[str, str]:
    return {one.name: one.status for one in engines_of(manifest, adapter)}


@pytest.mark.parametrize("kind", TARGETS)
def test_every_kind_is_proven_in_exactly_one_engine_which_comes_first(manifest, kind):
    found = engines_of(changed(manifest, kind=kind), PLAIN)

    assert [one.status for one in found].count("proven") == 1
    assert found[0].status == "proven"
    assert all(one.why for one in found)


def test_a_plain_adapter_is_expected_in_vllm_and_llama_cpp_is_told_apart(manifest):
    found = statuses(manifest, PLAIN)

    assert found["transformers with PEFT"] == "proven"
    assert found["vLLM"] == "expected"
    assert found["llama.cpp, Ollama"] == "impossible"


@pytest.mark.parametrize(
    ("adapter", "values", "because"),
    [
        ({**PLAIN, "use_dora": True}, {}, "no DoRA"),
        ({**PLAIN, "r": 1024}, {}, "rank 1024 is above 512"),
        ({**PLAIN, "rank_pattern": {"q_proj": 513}}, {}, "rank 513 is above 512"),
        ({**PLAIN, "modules_to_save": ["lm_head"]}, {}, "rows or modules of its own"),
        (PLAIN, {"added_tokens": [400]}, "rows or modules of its own"),
        (PLAIN, {"quantization": {"load_in_4bit": True}}, "quantised base"),
        ({"peft_type": "PROMPT_TUNING"}, {}, "not PROMPT_TUNING"),
        ({"peft_type": "PREFIX_TUNING"}, {}, "no place for stored keys"),
    ],
)
def test_what_vllm_cannot_serve_is_impossible_there_with_the_reason(manifest, adapter, values, because):
    found = {one.name: one for one in engines_of(changed(manifest, **values), adapter)}

    assert found["vLLM"].status == "impossible"
    assert because in found["vLLM"].why


@pytest.mark.parametrize(("rank", "room"), [(4, 8), (8, 8), (9, 16), (200, 256), (512, 512)])
def test_vllm_is_given_room_for_the_largest_rank(manifest, rank, room):
    assert vllm_rank({**PLAIN, "rank_pattern": {"q_proj": rank}}) == room
    assert not_for_vllm({**PLAIN, "rank_pattern": {"q_proj": rank}}, manifest) == ""


def test_the_card_of_an_adapter_has_the_table_and_the_command_for_vllm(tiny_llama, tmp_path):
    case = Case("wide", "lora", {"rank": 12})
    folder = write_exports(tmp_path, tiny_llama, tiny_tokenizer(), case=case, exports={**ADAPTER, **MERGED})

    card = (folder / "adapter" / "README.md").read_text()

    assert "| transformers with PEFT | proven |" in card
    assert "--enable-lora --max-lora-rank 16 --lora-modules tuned=this-folder" in card
    assert "--chat-template this-folder/chat_template.jinja" in card
    assert str(tiny_llama.parent) not in card
    assert "--enable-lora" not in (folder / "merged" / "README.md").read_text()


def test_the_card_of_an_adapter_that_vllm_cannot_serve_has_no_command_for_it(tiny_llama, tmp_path):
    case = Case("dora", "lora", {"use_dora": True})
    folder = write_exports(tmp_path, tiny_llama, tiny_tokenizer(), case=case, exports=ADAPTER)

    card = (folder / "adapter" / "README.md").read_text()

    assert "| vLLM | impossible | it has no DoRA; use the export to merged |" in card
    assert "vllm serve" not in card
