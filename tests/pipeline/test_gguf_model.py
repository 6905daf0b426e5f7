"""llama.cpp behind a target answers what transformers does with the same weights."""

from __future__ import annotations

import pytest
import torch
from gguf import GGUFWriter
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftkit.errors import ModelError, UsageError
from ftkit.evaluate.speaking import Speech
from ftkit.pipeline.target import Target

pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

from ftkit.pipeline.gguf_model import GgufModel

QUESTIONS = ["hello there", "What colour is the sky?"]
PARTS = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip


def _turned(weight, heads):
    """Rows of a head in the order in which llama.cpp turns pairs of them."""
    rows, width = weight.shape
    return weight.view(heads, 2, rows // heads // 2, width).transpose(1, 2).reshape(rows, width)


def _write(model, path):
    """A Llama without a vocabulary of its own, in float32."""
    config = model.config
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    weights = model.state_dict()
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"].numpy())
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for ours, theirs in PARTS.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            weight = _turned(weight, heads[ours]) if ours in heads else weight
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def targets(tiny_llama, tmp_path_factory):
    """The same weights in transformers and in llama.cpp."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    path = _write(model, tmp_path_factory.mktemp("gguf") / "model.gguf")
    common = {"tokenizer": tokenizer, "stop_token_ids": [2], "compute": torch.float32, "pads_prompts": False}
    return Target(model=model, **common), Target(model=GgufModel(path), **common)


def test_greedy_answers_are_the_same(targets):
    plain, gguf = targets

    expected = [(one.text, one.tokens, one.finish_reason) for one in plain.generate(QUESTIONS, max_new_tokens=12)]

    assert [
        (one.text, one.tokens, one.finish_reason) for one in gguf.generate(QUESTIONS, max_new_tokens=12)
    ] == expected
    assert gguf.context_length == plain.context_length == 512


def test_answers_come_piece_by_piece_and_seeds_repeat_them(targets):
    pieces = []
    speech = Speech(max_new_tokens=12, temperature=1.0, seed=4)

    answer = targets[1].speak([5, 60, 7], speech, say=pieces.append)

    assert "".join(pieces) == answer.text
    assert targets[1].speak([5, 60, 7], speech).text == answer.text


def test_losses_are_refused_with_what_to_do(targets, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')

    with pytest.raises(UsageError, match="merged export"):
        targets[1].evaluate(rows)


def test_what_is_no_gguf_is_said_so(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF, but not really" * 10)

    with pytest.raises(ModelError, match=r"model\.gguf"):
        GgufModel(path)
