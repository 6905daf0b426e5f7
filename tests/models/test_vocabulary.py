"""Added tokens get rows that follow from base and text alone, and nothing else in the model changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ftkit.models.tokenizer import load_tokenizer
from ftkit.models.vocabulary import added_token_pieces, extend_vocabulary
from tests.models.bare import bare_tokenizer
from tests.tiny import tiny_config, tiny_model_folder

FAMILIES = {"llama": True, "qwen2": False, "gpt2": True, "gemma2": True}  # whether the head is tied


@pytest.fixture
def base(tmp_path):
    """Write a base model without chat template, 300 tokens; its folder."""

    def write(family="llama", dtype="float32"):
        return tiny_model_folder(tmp_path / "base", family, dtype=dtype, tokenizer=bare_tokenizer())

    return write


def loaded(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def tables(model):
    return [model.get_input_embeddings().weight, model.get_output_embeddings().weight]


def logits(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits


# Pieces


def test_the_pieces_of_an_added_token_are_what_the_base_cuts_its_text_into(base):
    folder = base()
    tokenizer = load_tokenizer(folder, "chatml", added_tokens=["<hello>"])

    pieces = added_token_pieces(folder, tokenizer)

    assert list(pieces) == [300, 301, 302]
    assert [tokenizer.decode([piece]) for piece in pieces[302]] == ["<", "he", "l", "l", "o", ">"]
    assert "".join(tokenizer.decode([piece]) for piece in pieces[300]) == "<|im_start|>"


def test_a_tokenizer_without_added_tokens_has_no_pieces(base):
    folder = base()

    assert added_token_pieces(folder, load_tokenizer(folder, "plain")) == {}


# Rows


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_row_is_the_mean_of_its_pieces_and_the_old_ones_keep_every_bit(base, family, dtype):
    model = loaded(base(family), dtype)
    before = [table.detach().clone() for table in tables(model)]

    extend_vocabulary(model, {300: (5, 7), 301: (9,)})

    assert model.config.vocab_size == 302
    for old, new in zip(before, tables(model), strict=True):
        assert (new.dtype, tuple(new.shape)) == (dtype, (302, 32))
        assert torch.equal(new[:300], old)
        assert torch.equal(new[300], ((old[5].double() + old[7].double()) / 2).to(dtype))
        assert torch.equal(new[301], old[9])


@pytest.mark.parametrize(("family", "tied"), FAMILIES.items())
def test_a_tied_head_stays_tied_and_an_untied_one_untied(base, family, tied):
    model = loaded(base(family))

    extend_vocabulary(model, {300: (5, 7)})

    embedding, head = tables(model)
    assert (head is embedding) is tied
    assert torch.equal(head, embedding) is tied


def test_the_heads_bias_grows_in_the_same_way(base):
    model = loaded(base("qwen2"))
    model.lm_head.bias = nn.Parameter(torch.arange(300.0))

    extend_vocabulary(model, {300: (4, 10)})

    assert model.lm_head.bias.tolist() == [*range(300), 7.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_text_without_added_tokens_gets_the_same_logits_as_before(base, family):
    model = loaded(base(family))
    before = logits(model, [3, 4, 5])

    extend_vocabulary(model, {300: (5, 7)})

    # Not bit for bit: a matrix product of another width may add in another order.
    torch.testing.assert_close(logits(model, [3, 4, 5])[..., :300], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_spare_rows_are_used_before_the_table_grows(base, family):
    model = loaded(base(family))
    model.resize_token_embeddings(320, mean_resizing=False)
    before = [table.detach().clone() for table in tables(model)]

    extend_vocabulary(model, {300: (5, 7)})

    assert model.config.vocab_size == 320
    for old, new in zip(before, tables(model), strict=True):
        assert torch.equal(new[300], (old[5] + old[7]) / 2)
        assert torch.equal(new[:300], old[:300])
        assert torch.equal(new[301:], old[301:])


def test_the_result_does_not_depend_on_random_numbers(base):
    folder = base("qwen2")
    results = []
    for seed in (1, 2):
        model = loaded(folder)
        torch.manual_seed(seed)
        extend_vocabulary(model, {300: (5, 7), 303: ()})
        results.append([table.detach().clone() for table in tables(model)])

    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_ids_that_nobody_added_and_texts_without_pieces_get_the_mean_row(base):
    model = loaded(base("qwen2"))
    mean = model.get_input_embeddings().weight.detach().double().mean(dim=0).float()

    extend_vocabulary(model, {302: ()})

    table = model.get_input_embeddings().weight
    assert [torch.equal(table[row], mean) for row in (300, 301, 302)] == [True, True, True]


def test_a_piece_that_has_no_row_itself_does_not_count(base):
    model = loaded(base())
    fifth = model.get_input_embeddings().weight[5].detach().clone()

    extend_vocabulary(model, {301: (300, 5)})

    assert torch.equal(model.get_input_embeddings().weight[301], fifth)


def test_nothing_to_add_changes_nothing(base):
    model = loaded(base())
    embedding = model.get_input_embeddings()

    extend_vocabulary(model, {})

    assert model.get_input_embeddings() is embedding
    assert model.config.vocab_size == 300


@pytest.mark.parametrize(("family", "tied"), FAMILIES.items())
def test_a_model_without_memory_only_changes_its_size(family, tied):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_config(family, 300))

    extend_vocabulary(model, {300: (5,), 301: (7,)})

    embedding, head = tables(model)
    assert [(tuple(table.shape), table.device.type) for table in (embedding, head)] == [((302, 32), "meta")] * 2
    assert (head is embedding) is tied


# Saved and loaded


@pytest.mark.parametrize("family", FAMILIES)
def test_an_extended_model_and_its_tokenizer_come_back_from_disk_as_they_were(base, family, tmp_path):
    folder, export = base(family), tmp_path / "export"
    tokenizer = load_tokenizer(folder, "chatml")
    model = loaded(folder)
    extend_vocabulary(model, added_token_pieces(folder, tokenizer))
    model.save_pretrained(export)
    tokenizer.save_pretrained(export)

    again, reloaded = load_tokenizer(export), loaded(export)

    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 300
    assert again(text)["input_ids"] == ids
    assert AutoConfig.from_pretrained(export).vocab_size == 302
    assert torch.equal(logits(reloaded, ids), logits(model, ids))
    assert added_token_pieces(export, again) == {}
