"""Packed and unpacked, a step has the same loss and the same gradient: for each family, each method, and SmolLM2."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3TextConfig, GPT2Config, MistralConfig, Qwen3Config

from ftkit.data.collate import collate, collate_packed, split_packs
from ftkit.data.example import TokenizedExample
from ftkit.evaluate.loss import summed_loss
from ftkit.models.load import load_model
from ftkit.models.tokenizer import load_tokenizer
from ftkit.train.documents import documents_cut
from ftkit.train.isolation import isolates
from ftkit.train.metrics_log import MetricsLog
from ftkit.train.trainer import fit
from tests.contract.cases import CASES, CPU
from tests.tiny import SIZES, tiny_config
from tests.train.fitting import examples, spec, trainable

VOCABULARY = 400
IDS = {"vocab_size": VOCABULARY, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 2}
WINDOW = 6  # shorter than most of the rows, which have 4 to 24 tokens, and than every pack


def gemma2():
    config = tiny_config("gemma2", VOCABULARY)
    config.sliding_window = WINDOW
    return config


FAMILIES = {
    "llama": lambda: tiny_config("llama", VOCABULARY),
    "qwen2": lambda: tiny_config("qwen2", VOCABULARY),
    "qwen3": lambda: Qwen3Config(**SIZES, **IDS, head_dim=8),
    "mistral": lambda: MistralConfig(**SIZES, **IDS, sliding_window=WINDOW),
    "gemma2": gemma2,
    "gemma3": lambda: Gemma3TextConfig(
        **SIZES, **IDS, head_dim=8, query_pre_attn_scalar=8, sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "gpt2": lambda: GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=512, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **IDS
    ),
}  # fmt: skip
METHODS = ("full", "lora", "qlora-nf4", "adapter-houlsby")
ROWS = examples(8)
TICKETS = Path(__file__).parents[2] / "recipes" / "data" / "shop_tickets_train.jsonl"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny model of each family on disk; read-only for tests."""
    root = tmp_path_factory.mktemp("packed")
    for family, config in FAMILIES.items():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config())
        with torch.no_grad():  # spread the logits, which transformers draws nearly equal
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(4)
        model.save_pretrained(root / family)
    return root


def attached(folder, method="lora"):
    """In training mode, every trained number moved away from where an untrained attachment would hide it."""
    method = next(case for case in CASES if case.id == method).method()
    base = load_model(folder, dtype=torch.float32, device=CPU, quantization_config=method.quantization(torch.float32))
    torch.manual_seed(0)
    model = method.attach(method.prepare(base)).train()
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(torch.randn_like(value), alpha=0.02)
    return model


def step(model, batches):
    """Summed loss of a step, and its gradients."""
    model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = summed_loss(model, batch)
        loss.backward()
        total += loss.item()
    return total, {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def packed_step(model, rows, pack_length):
    packs = split_packs(collate_packed(rows, pack_length=pack_length))
    assert len(packs) < len(rows)
    with documents_cut(model):
        return step(model, packs)


def assert_same(ours, theirs):
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1].keys() == theirs[1].keys() != set()
    for name, gradient in theirs[1].items():
        scale = gradient.abs().max().item()
        assert scale > 0, name
        torch.testing.assert_close(
            ours[1][name], gradient, atol=1e-4 * scale, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_step_is_the_step_of_its_rows_one_by_one(family, method, folders):
    assert sorted(len(row.input_ids) for row in ROWS)[2] > WINDOW
    model = attached(folders / family, method)
    assert isolates(model, compute=torch.float32) is None

    alone = step(model, [collate([row]) for row in ROWS])

    for pack_length in (30, 1000):  # several packs, and one
        assert_same(packed_step(model, ROWS, pack_length), alone)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma3"])
def test_the_masks_of_transformers_give_the_same_step_as_documents_by_themselves(family, folders):
    # As on GPUs, where packs are not cut.
    model = attached(folders / family, "full")
    packs = split_packs(collate_packed(ROWS, pack_length=1000))

    assert_same(step(model, packs), packed_step(model, ROWS, 1000))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_without_positions_of_their_own_the_rows_of_a_pack_would_mix(family, folders):
    model = attached(folders / family)
    pack = split_packs(collate_packed(ROWS, pack_length=1000))[0]
    alone = step(model, [collate([row]) for row in ROWS])

    running_on = step(model, [{**pack, "position_ids": torch.arange(pack["input_ids"].shape[1]).unsqueeze(0)}])

    # A packed step differs from its rows by rounding, a ten-thousandth of a gradient at most.
    assert running_on[0] != pytest.approx(alone[0], rel=1e-3)
    for name, gradient in alone[1].items():
        assert (running_on[1][name] - gradient).abs().max() > 0.05 * gradient.abs().max(), name


@pytest.mark.parametrize("family", ["qwen2", "mistral", "gemma2", "gpt2"])
def test_packed_and_unpacked_runs_take_the_same_course(family, folders, tmp_path):
    def run(packing):
        model = attached(folders / family)
        folder = tmp_path / str(packing)
        fit(model, examples(20), [], spec(folder, packing=packing, epochs=2, learning_rate=1e-4))
        lines = MetricsLog(folder / "metrics.jsonl").read()
        return trainable(model), [(line["loss"], line["grad_norm"], line["tokens"]) for line in lines]

    packed, rows = run(packing=True), run(packing=False)

    assert len(packed[1]) == 6
    for ours, theirs in zip(packed[1], rows[1], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    for name, value in rows[0].items():
        torch.testing.assert_close(packed[0][name], value, atol=5e-6, rtol=0, msg=lambda text, name=name: name + text)


def real_rows(folder, count):
    """Chat rows as the model's own template writes them, of which the answer counts."""
    tokenizer = load_tokenizer(folder)
    rows = []
    for line in TICKETS.read_text(encoding="utf-8").splitlines()[:count]:
        messages = json.loads(line)["messages"]
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        assert ids[: len(asked)] == asked
        labels = [-100] * len(asked) + ids[len(asked) :]
        facts = {"answer": messages[-1]["content"], "place": f"{TICKETS.name}:{len(rows) + 1}"}
        rows.append(TokenizedExample(input_ids=ids, labels=labels, answer_start=len(asked), stop_id=ids[-2], **facts))
    return rows


@pytest.mark.real
@pytest.mark.parametrize("method", ["lora", "adapter-houlsby"])
def test_a_packed_step_of_smollm2_is_the_step_of_its_rows_one_by_one(method, smollm2):
    rows = real_rows(smollm2.folder, 5)
    model = attached(smollm2.folder, method)

    assert_same(packed_step(model, rows, 512), step(model, [collate([row]) for row in rows]))


@pytest.mark.real
@pytest.mark.parametrize(
    ("method", "compute"),
    [("lora", torch.float32), ("lora", torch.bfloat16), ("qlora-nf4", torch.float32)],
)
def test_smollm2_is_proven_in_a_moment(method, compute, smollm2):
    model = attached(smollm2.folder, method)
    began = time.process_time()

    assert isolates(model, compute=compute) is None

    assert time.process_time() - began < 20  # one second on an idle core


@pytest.mark.real
def test_in_8_bits_smollm2_rounds_by_its_neighbours_side_by_side_as_in_a_pack_and_only_that(smollm2):
    model = attached(smollm2.folder, "qlora-int8").eval()
    method = next(case for case in CASES if case.id == "qlora-int8").method()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(49152, (3, 10), generator=generator)

    def distance_side_by_side():
        with torch.no_grad():
            together = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False).logits
            alone = [model(input_ids=row[None], use_cache=False).logits[0] for row in rows]
        pairs = zip(together, alone, strict=True)
        return max(((ours - own).norm(dim=-1) / own.norm(dim=-1)).max().item() for ours, own in pairs)

    assert distance_side_by_side() > 0.01  # without any pack
    with method.float32_arithmetic(model):
        assert distance_side_by_side() < 1e-3
        assert isolates(model, compute=torch.float32) is None
