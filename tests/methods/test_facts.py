"""What the settings say of a method is what the method does."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from ftkit.methods import METHODS, method_of
from ftkit.recipe import RECIPES
from ftkit.recipe.facts import MethodFacts, method_facts

# SmolLM2-135M: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, config.json.
VOCABULARY, WIDTH, LAYERS, HEADS, KV_HEADS, INNER = 49152, 576, 30, 9, 3, 1536
KV = KV_HEADS * (WIDTH // HEADS)  # 192
BASE = VOCABULARY * WIDTH + LAYERS * (2 * WIDTH * (WIDTH + KV) + 3 * WIDTH * INNER + 2 * WIDTH) + WIDTH
# (input, output) of the seven linear layers of a block: q, k, v, o, gate, up, down.
LINEAR = [(WIDTH, WIDTH), (WIDTH, KV), (WIDTH, KV), (WIDTH, WIDTH), (WIDTH, INNER), (WIDTH, INNER), (INNER, WIDTH)]
THIN = sum(width_in + width_out for width_in, width_out in LINEAR)  # one row of A, one column of B, per block
FACTORS = {KV: (12, 16), WIDTH: (24, 24), INNER: (32, 48)}  # LoKr's, as square as can be
TRAINED = {
    "full": BASE,
    "lora": LAYERS * 16 * THIN,
    "lora (kind: adalora)": LAYERS * 12 * (THIN + len(LINEAR)),  # and one singular value for each triplet
    "lora (kind: vera)": LAYERS * sum(256 + width_out for _, width_out in LINEAR),  # the vectors d and b
    "lora (kind: ia3)": LAYERS * (KV + KV + INNER),  # keys, values, what the down projection reads
    # Blocks of 32 along each input, each a skew-symmetric matrix.
    "lora (kind: oft)": LAYERS * sum(width_in // 32 for width_in, _ in LINEAR) * (32 * 31 // 2),
    "lora (kind: loha)": LAYERS * 2 * 8 * THIN,
    "lora (kind: lokr)": LAYERS
    * sum(FACTORS[i][0] * FACTORS[o][0] + 8 * (FACTORS[i][1] + FACTORS[o][1]) for i, o in LINEAR),
    "qlora": LAYERS * 16 * THIN,
    "prefix": LAYERS * 20 * 2 * KV,
    "prompt": 20 * WIDTH,
    "adapter": LAYERS * 2 * (2 * WIDTH * 36 + 36 + WIDTH),  # two places a block, 576 / 16 = 36 wide, with biases
}


@pytest.fixture(params=method_facts(), ids=lambda facts: facts.name)
def facts(request: pytest.FixtureRequest) -> MethodFacts:
    """Of each method."""
    return request.param


def skeleton() -> torch.nn.Module:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS, intermediate_size=INNER, tie_word_embeddings=True,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config)


def defaults(facts: MethodFacts) -> object:
    """A recipe that says no more than the method's name."""
    method = {} if facts.kind is None else {"kind": facts.kind}
    values = {"recipe": facts.recipe, "model": "smollm2-135m", "data": "d.jsonl", "method": method}
    return RECIPES[facts.recipe].model_validate(values)


def test_the_declared_share_is_what_default_settings_train_on_smollm2(facts: MethodFacts) -> None:
    if facts.recipe == "qlora":
        pytest.importorskip("bitsandbytes")
    with torch.device("meta"):
        base = skeleton()
        total = sum(parameter.numel() for parameter in base.parameters())
        model = method_of(defaults(facts)).attach(base)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    assert total == BASE == 134_515_008
    assert trained == TRAINED[facts.name]
    assert facts.trainable_share == float(f"{trained / total:.2g}")


def test_every_method_is_listed_once() -> None:
    listed = [facts.recipe if facts.kind is None else facts.kind for facts in method_facts()]

    assert sorted(listed) == sorted(METHODS)


def test_a_method_is_called_mergeable_where_it_can_merge(facts: MethodFacts) -> None:
    assert facts.mergeable == METHODS[facts.kind or facts.recipe].mergeable == ("merged" in facts.engines)
