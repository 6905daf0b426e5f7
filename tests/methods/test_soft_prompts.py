"""Soft prompts start as the text that they are told to start as, and stand in front of all text without moving it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

import ftkit.evaluate.loss
from ftkit.errors import RecipeError
from ftkit.evaluate.loss import summed_loss
from ftkit.methods import PrefixMethod, PromptMethod
from ftkit.models.load import load_model
from tests.contract.cases import BATCH, CPU, IDS, logits_of, train_steps
from tests.tiny import tiny_model_folder, tiny_tokenizer

TEXT = "The sky is blue"
FAMILIES = ("llama", "qwen2", "gemma2", "gpt2")


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {family: tiny_model_folder(folder / family, family) for family in FAMILIES}


def base(folder):
    return load_model(folder, dtype=torch.float32, device=CPU)


def tokens(text):
    return tiny_tokenizer()(text, add_special_tokens=False)["input_ids"]


def attached(method, folder):
    torch.manual_seed(0)
    method.bind(tiny_tokenizer())
    return method.attach(base(folder))


def embedding_of(model):
    return model.prompt_encoder["default"].embedding.weight


@torch.no_grad()
def logits_with_in_front(folder, ids):
    """What the base makes of the rows of `IDS` where these tokens stand before them."""
    front = torch.tensor([ids, ids])
    return base(folder).eval()(input_ids=torch.cat([front, IDS[:2]], dim=1)).logits[:, len(ids) :]


# Where they start


def test_a_prompt_of_a_text_is_the_embeddings_of_its_tokens_repeated_to_the_length(bases):
    ids = tokens(TEXT)
    assert 1 < len(ids) < 10

    model = attached(PromptMethod(num_virtual_tokens=10, init="text", init_text=TEXT), bases["llama"])

    rows = base(bases["llama"]).get_input_embeddings().weight[torch.tensor((ids * 10)[:10])]
    assert torch.equal(embedding_of(model), rows)


def test_a_prompt_of_the_vocabulary_is_made_of_rows_of_the_embedding(bases):
    model = attached(PromptMethod(num_virtual_tokens=10), bases["llama"])

    table = base(bases["llama"]).get_input_embeddings().weight
    assert all(any(torch.equal(row, known) for known in table) for row in embedding_of(model))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_a_prompt_of_a_text_gives_the_bases_logits_with_that_text_in_front(bases, family):
    ids = tokens(TEXT)
    model = attached(PromptMethod(num_virtual_tokens=len(ids), init="text", init_text=TEXT), bases[family])

    torch.testing.assert_close(logits_of(model), logits_with_in_front(bases[family], ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_of_a_text_gives_the_bases_logits_with_that_text_in_front(bases, family):
    ids = (tokens(TEXT) * 9)[:9]
    model = attached(PrefixMethod(num_virtual_tokens=9, init="text", init_text=TEXT), bases[family])

    torch.testing.assert_close(logits_of(model), logits_with_in_front(bases[family], ids), atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prefix_of_the_data_is_its_first_tokens_one_text_after_another(bases, family):
    method = PrefixMethod(num_virtual_tokens=6)
    model = attached(method, bases[family])
    before = torch.get_rng_state()

    method.start(model, [[5, 60, 7, 80], [9, 100, 11], [13, 140]], lambda: None)

    expected = logits_with_in_front(bases[family], [5, 60, 7, 80, 9, 100])
    torch.testing.assert_close(logits_of(model), expected, atol=1e-4, rtol=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_data_of_fewer_tokens_than_the_prefix_is_repeated(bases):
    method = PrefixMethod(num_virtual_tokens=5)
    model = attached(method, bases["llama"])

    method.start(model, [[5, 60], [7]], lambda: None)

    expected = logits_with_in_front(bases["llama"], [5, 60, 7, 5, 60])
    torch.testing.assert_close(logits_of(model), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", [PrefixMethod, PromptMethod])
def test_a_text_longer_than_the_positions_is_refused_with_both_lengths(method):
    length = len(tokens(TEXT))

    with pytest.raises(RecipeError) as caught:
        method(num_virtual_tokens=length - 1, init="text", init_text=TEXT).bind(tiny_tokenizer())

    assert str(caught.value) == (
        f"method.init_text: is {length} tokens, method.num_virtual_tokens is {length - 1}\n"
        f"  Set num_virtual_tokens to at least {length}, or shorten the text."
    )
    method(num_virtual_tokens=length, init="text", init_text=TEXT).bind(tiny_tokenizer())


def test_a_projected_prefix_is_saved_without_its_projection(bases, tmp_path):
    method = PrefixMethod(num_virtual_tokens=3, init="random", prefix_projection=True, encoder_hidden_size=7)
    model = attached(method, bases["llama"])
    widths = {name: tuple(value.shape) for name, value in model.named_parameters() if value.requires_grad}
    # Keys are 2 heads of 8; there is a key and a value for each of 2 layers.
    assert widths == {
        "prompt_encoder.default.embedding.weight": (3, 16),
        "prompt_encoder.default.transform.0.weight": (7, 16),
        "prompt_encoder.default.transform.0.bias": (7,),
        "prompt_encoder.default.transform.2.weight": (2 * 2 * 16, 7),
        "prompt_encoder.default.transform.2.bias": (2 * 2 * 16,),
    }
    train_steps(model, 2)
    trained = logits_of(model)
    method.save(model, tmp_path)

    loaded = method.load(base(bases["llama"]), tmp_path)

    assert [tuple(value.shape) for value in loaded.prompt_encoder.parameters()] == [(3, 2 * 2 * 16)]
    torch.testing.assert_close(logits_of(loaded), trained, atol=1e-5, rtol=0)


# The loss behind them

SOFT = {
    "prompt": PromptMethod(num_virtual_tokens=5),
    "prefix": PrefixMethod(num_virtual_tokens=5, init="text", init_text="hello"),
}


@pytest.mark.parametrize("name", SOFT)
def test_the_loss_is_the_same_whether_all_logits_are_computed_or_only_those_that_count(bases, name, monkeypatch):
    model = attached(copy.deepcopy(SOFT[name]), bases["llama"])
    seen = []
    model.get_base_model().lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    chosen = summed_loss(model, BATCH)

    monkeypatch.setattr(ftkit.evaluate.loss, "keeps_chosen_logits", lambda model: False)
    every = summed_loss(model, BATCH)

    assert chosen.item() == pytest.approx(every.item(), rel=1e-6)
    # 6 of the 8 positions predict a token that some row supervises; the prompt's 5 come on top if nothing is spared.
    assert seen == [6, 13 if name == "prompt" else 8]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_behind_a_prompt_is_that_of_the_embeddings_put_together_by_hand(bases, family):
    model = attached(PromptMethod(num_virtual_tokens=5), bases[family])
    with torch.no_grad():
        embedding_of(model).add_(torch.linspace(-1, 1, 5 * 32).view(5, 32))
    plain = base(bases[family])
    rows = plain.get_input_embeddings()(IDS)
    together = torch.cat([embedding_of(model).expand(3, 5, 32), rows], dim=1)
    mask = torch.cat([torch.ones(3, 5, dtype=torch.long), BATCH["attention_mask"]], dim=1)

    logits = plain(inputs_embeds=together, attention_mask=mask).logits

    expected = torch.zeros(())
    for row, labels in enumerate(BATCH["labels"].tolist()):
        for position, label in enumerate(labels):
            if label != -100:  # the token at `position` is predicted one place before it, behind the 5 of the prompt
                expected = expected + cross_entropy(logits[row, 5 + position - 1], torch.tensor(label))
    assert summed_loss(model, BATCH).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", SOFT)
def test_the_loss_of_a_row_does_not_depend_on_the_padding_beside_it(bases, name):
    model = attached(copy.deepcopy(SOFT[name]), bases["llama"])
    rows = [{key: value[row : row + 1] for key, value in BATCH.items()} for row in range(3)]
    rows[2] = {key: value[:, :6] for key, value in rows[2].items()}  # the third without its two padding tokens

    alone = sum(summed_loss(model, row).item() for row in rows)

    assert summed_loss(model, BATCH).item() == pytest.approx(alone, rel=1e-5)
