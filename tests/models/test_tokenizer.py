"""Tokenizers render in training exactly what a server will render, or are refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ftkit.errors import DataError, ModelError, RecipeError
from ftkit.models.tokenizer import (
    chat_template_digest,
    load_tokenizer,
    template_names,
    tokenizer_digest,
    wants_bos,
)
from tests.models.bare import bare_tokenizer
from tests.tiny import CHATML, tiny_tokenizer

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yo"},
]


@pytest.fixture
def saved(tmp_path):
    """Save a tokenizer; its folder."""

    def save(tokenizer):
        tokenizer.save_pretrained(tmp_path / "tokenizer")
        return tmp_path / "tokenizer"

    return save


@pytest.fixture
def jinja(tmp_path):
    """Write a template file; its path as a recipe names it."""

    def write(text):
        (tmp_path / "chat.jinja").write_text(text, encoding="utf-8")
        return str(tmp_path / "chat.jinja")

    return write


# Beginning of sequence


def test_bos_is_put_into_a_template_that_forgets_it_and_stands_there_once(saved):
    tokenizer = load_tokenizer(saved(tiny_tokenizer(bos=True)))

    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert text.startswith("<s><|im_start|>system\n")
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_mended_template_is_not_mended_again_when_the_export_is_loaded(saved, tmp_path):
    mended = load_tokenizer(saved(tiny_tokenizer(bos=True)))
    mended.save_pretrained(tmp_path / "export")

    again = load_tokenizer(tmp_path / "export")

    assert again.chat_template == mended.chat_template == "{{ bos_token }}" + CHATML


def test_a_template_that_writes_bos_itself_is_left_alone(saved):
    template = "{{ bos_token }}" + CHATML

    assert load_tokenizer(saved(tiny_tokenizer(bos=True, template=template))).chat_template == template


def test_a_tokenizer_without_bos_keeps_its_template(saved):
    tokenizer = load_tokenizer(saved(tiny_tokenizer()))

    assert not wants_bos(tokenizer)
    assert tokenizer.chat_template == CHATML


def test_bos_is_put_into_a_shipped_template_too(saved):
    tokenizer = load_tokenizer(saved(tiny_tokenizer(bos=True, template=None)), "chatml")

    assert tokenizer.apply_chat_template(CHAT, tokenize=False).startswith("<s><|im_start|>")


# Templates


def test_every_shipped_template_is_found_by_its_name():
    assert template_names() == ["chatml", "plain", "zephyr"]


@pytest.mark.parametrize(
    ("name", "rendered"),
    [
        (
            "chatml",
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
            "<|im_start|>assistant\nyo<|im_end|>\n",
        ),
        ("plain", "Be brief.\n\n### User:\nhi\n\n### Assistant:\nyo<|im_end|>\n\n"),
        ("zephyr", "<|system|>\nBe brief.<|im_end|>\n<|user|>\nhi<|im_end|>\n<|assistant|>\nyo<|im_end|>\n"),
    ],
)
def test_a_shipped_template_renders_as_it_always_did(saved, name, rendered):
    # Models were trained on these very bytes.
    tokenizer = load_tokenizer(saved(tiny_tokenizer(template=None)), name)

    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == rendered


@pytest.mark.parametrize("name", template_names())
def test_a_shipped_template_ends_the_answer_with_a_control_token_so_that_the_model_learns_to_stop(saved, name):
    tokenizer = load_tokenizer(saved(tiny_tokenizer(template=None)), name)

    text = tokenizer.apply_chat_template(CHAT, tokenize=False)

    after_answer = text.partition("yo")[2].rstrip("\n")
    assert tokenizer(after_answer, add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id]
    assert after_answer in tokenizer.all_special_tokens


@pytest.mark.parametrize("name", template_names())
def test_a_shipped_template_opens_the_assistants_turn_just_as_training_did(saved, name):
    tokenizer = load_tokenizer(saved(tiny_tokenizer(template=None)), name)

    prompt = tokenizer.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True)
    trained = tokenizer.apply_chat_template(CHAT, tokenize=False)

    assert trained.startswith(prompt + "yo")


def test_an_unknown_template_name_lists_the_shipped_ones(saved):
    with pytest.raises(RecipeError) as caught:
        load_tokenizer(saved(tiny_tokenizer()), "chatlm")

    assert str(caught.value) == (
        "model.chat_template: 'chatlm' is neither a shipped template nor a readable file\n"
        "  Shipped: chatml, plain, zephyr."
    )


def test_a_template_file_takes_the_place_of_the_tokenizers_own(saved, jinja):
    tokenizer = load_tokenizer(saved(tiny_tokenizer()), jinja("{{ messages[0].content }}{{ eos_token }}"))

    assert tokenizer.apply_chat_template(CHAT, tokenize=False) == "Be brief.<|im_end|>"


@pytest.mark.parametrize("control", ["<start_of_turn>", "<end_of_turn>", "<|eot_id|>", "<|end|>"])
def test_a_template_whose_control_tokens_the_vocabulary_lacks_is_refused(saved, jinja, control):
    template = jinja("{% for message in messages %}" + control + "{{ message.content }}{% endfor %}")

    with pytest.raises(DataError) as caught:
        load_tokenizer(saved(tiny_tokenizer()), template, added_tokens=[])

    assert str(caught.value) == (
        f"the chat template uses {control}, which is not one token of this tokenizer\n"
        "  Choose another template (chatml, plain, zephyr), name the token in model.added_tokens, or take a base "
        "model that has it."
    )


def test_a_checkpoints_own_template_whose_tokens_are_missing_is_refused_unless_they_are_named(saved):
    folder = saved(bare_tokenizer(template=CHATML))

    with pytest.raises(DataError, match=r"uses <\|im_start\|>, which is not one token"):
        load_tokenizer(folder)
    tokenizer = load_tokenizer(folder, added_tokens=["<|im_start|>", "<|im_end|>"])

    assert tokenizer("<|im_start|>a<|im_end|>")["input_ids"] == [300, *tokenizer("a")["input_ids"], 301]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{% for %}", RecipeError, "is not valid Jinja: .* \\(line 1\\)"),
        ("{{ raise_exception('no system turn') }}", DataError, "cannot render .* turn: no system turn"),
        ("{{ 1 / 0 }}", DataError, "cannot render .* turn: division by zero"),
        ("{{ messages[0].__class__.__mro__[1].__subclasses__() }}", DataError, "cannot render .* unsafe"),
    ],
)
def test_a_template_that_cannot_render_is_refused(saved, jinja, text, error, message):
    with pytest.raises(error, match=message):
        load_tokenizer(saved(tiny_tokenizer()), jinja(text))


# Added tokens


def test_the_control_tokens_of_a_chosen_template_are_added_in_their_order(saved):
    tokenizer = load_tokenizer(saved(bare_tokenizer()), "chatml")

    # The base has ids 0 to 299.
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [300, 301]
    assert len(tokenizer) == 302
    hi = tokenizer.convert_tokens_to_ids(["h", "i"])
    assert tokenizer("<|im_start|>hi<|im_end|>")["input_ids"] == [300, *hi, 301]
    assert tokenizer.decode([300, *hi, 301], skip_special_tokens=True) == "hi"


def test_added_tokens_keep_their_ids_when_the_export_is_loaded(saved, tmp_path):
    first = load_tokenizer(saved(bare_tokenizer(bos=True)), "chatml", added_tokens=["<tool>", "</tool>"])
    first.save_pretrained(tmp_path / "export")

    again = load_tokenizer(tmp_path / "export")

    text = first.apply_chat_template(CHAT, tokenize=False) + "<tool>x</tool>"
    assert again(text)["input_ids"] == first(text)["input_ids"]
    assert again.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<tool>", "</tool>"]) == [300, 301, 302, 303]
    assert tokenizer_digest(again) == tokenizer_digest(first)
    assert again.decode([302], skip_special_tokens=True) == ""


def test_a_template_whose_tokens_are_all_there_adds_none(saved):
    folder = saved(tiny_tokenizer(template=None))

    assert tokenizer_digest(load_tokenizer(folder, "chatml")) == tokenizer_digest(tiny_tokenizer())


@pytest.mark.parametrize("name", ["plain", "zephyr"])
def test_templates_made_of_plain_text_add_none(saved, name):
    assert len(load_tokenizer(saved(bare_tokenizer()), name)) == 300


def test_named_tokens_come_after_the_templates_and_known_ones_are_left_alone(saved):
    tokenizer = load_tokenizer(
        saved(bare_tokenizer()), "chatml", added_tokens=["<tool>", "<|im_end|>", "<|endoftext|>", "hello"]
    )

    assert tokenizer.convert_tokens_to_ids(["<|im_end|>", "<tool>", "<|endoftext|>"]) == [301, 302, 0]
    assert len(tokenizer) == 304  # `hello` is four pieces of this vocabulary


def test_an_empty_list_adds_none_and_refuses_a_template_that_needs_them(saved):
    folder = saved(bare_tokenizer())

    with pytest.raises(DataError, match=r"uses <\|im_start\|>, which is not one token"):
        load_tokenizer(folder, "chatml", added_tokens=[])


def test_a_word_that_is_only_unknown_is_not_taken_for_a_token(saved):
    words = RawTokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder = saved(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="[UNK]"))

    assert load_tokenizer(folder, "chatml")("<|im_start|> a")["input_ids"] == [2, 1]


def test_a_control_token_is_only_its_exact_text_even_where_a_normaliser_lowercases(saved):
    tokenizer = bare_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()

    tokenizer = load_tokenizer(saved(tokenizer), added_tokens=["<|END|>"])

    assert tokenizer("<|END|>")["input_ids"] == [300]
    assert 300 not in tokenizer("<|end|>")["input_ids"]


def test_a_vocabulary_with_gaps_whose_next_id_is_taken_is_refused(saved):
    tokenizer = bare_tokenizer()
    folder = saved(tokenizer)
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    last = tokenizer.convert_ids_to_tokens(299)
    raw["model"]["merges"] = [pair for pair in raw["model"]["merges"] if "".join(pair) != last]
    raw["model"]["vocab"][last] = 300  # 300 entries, ids 0 to 298 and 300
    (folder / "tokenizer.json").write_text(json.dumps(raw), encoding="utf-8")

    with pytest.raises(ModelError, match=r"<\|im_start\|> cannot be added: .* has gaps, and its id 300"):
        load_tokenizer(folder, "chatml")


# Template variables


def test_template_variables_are_rendered_and_survive_the_export(saved, jinja, tmp_path):
    template = jinja(CHATML + "{% if add_generation_prompt and not thinking %}<think></think>{% endif %}")
    tokenizer = load_tokenizer(saved(bare_tokenizer(bos=True)), template, chat_template_kwargs={"thinking": True})
    tokenizer.save_pretrained(tmp_path / "export")

    again = load_tokenizer(tmp_path / "export")

    def ask(**values):
        return again.apply_chat_template(CHAT[:2], tokenize=False, add_generation_prompt=True, **values)

    prompt = "<s><|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert ask() == prompt
    assert ask(thinking=False) == prompt + "<think></think>"
    assert chat_template_digest(again) == chat_template_digest(tokenizer)


def test_an_export_that_is_trained_further_with_the_same_variables_keeps_its_template(saved, tmp_path):
    values = {"colour": "blue", "n": 3}
    first = load_tokenizer(
        saved(bare_tokenizer(bos=True, template="{{ colour }}{{ n }}")), chat_template_kwargs=values
    )
    first.save_pretrained(tmp_path / "export")

    again = load_tokenizer(tmp_path / "export", chat_template_kwargs=values)

    assert again.apply_chat_template(CHAT, tokenize=False) == "<s>blue3"
    assert again.chat_template == first.chat_template


def test_each_named_template_gets_its_variables_and_bos(saved):
    named = {"default": "{{ x }}", "tool_use": "{{ tools[0].name }}{{ x }}", "rag": "r"}

    tokenizer = load_tokenizer(saved(bare_tokenizer(bos=True, template=named)), chat_template_kwargs={"x": 1})

    def text(**values):
        return tokenizer.apply_chat_template(CHAT, tokenize=False, **values)

    assert [text(), text(chat_template="rag")] == ["<s>1", "<s>r"]
    assert text(x=2) == "<s>2"


def test_variables_without_a_template_are_refused(saved):
    with pytest.raises(RecipeError) as caught:
        load_tokenizer(saved(bare_tokenizer()), chat_template_kwargs={"x": 1})

    assert str(caught.value) == (
        "model.chat_template_kwargs: this tokenizer has no chat template to read them\n"
        "  Choose one with model.chat_template: chatml, plain, zephyr, or a Jinja file."
    )


# Digests


def test_the_digests_survive_saving_and_loading(saved, tmp_path):
    first = load_tokenizer(saved(tiny_tokenizer(bos=True)))
    first.save_pretrained(tmp_path / "export")

    again = load_tokenizer(tmp_path / "export")

    assert tokenizer_digest(again) == tokenizer_digest(first)
    assert chat_template_digest(again) == chat_template_digest(first)


def test_truncation_and_padding_of_the_moment_do_not_change_the_digest():
    tokenizer = tiny_tokenizer()
    before = tokenizer_digest(tokenizer)

    tokenizer(["one", "two three"], padding=True, truncation=True, max_length=2)

    assert tokenizer_digest(tokenizer) == before


@pytest.mark.parametrize("part", ["vocabulary", "merges", "added token", "pre-tokenizer", "post-processor"])
def test_whatever_turns_text_into_ids_changes_the_tokenizers_digest(part):
    tokenizer = tiny_tokenizer()
    before = tokenizer_digest(tokenizer)
    raw = json.loads(tokenizer.backend_tokenizer.to_str())
    if part == "vocabulary":
        words = raw["model"]["vocab"]
        words["a"], words["b"] = words["b"], words["a"]
    elif part == "merges":
        raw["model"]["merges"].pop()
    elif part == "added token":
        raw["added_tokens"][-1]["lstrip"] = True
    elif part == "pre-tokenizer":
        raw["pre_tokenizer"]["add_prefix_space"] = True
    else:
        raw["post_processor"] = {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        }
    tokenizer._tokenizer = RawTokenizer.from_str(json.dumps(raw))

    assert tokenizer_digest(tokenizer) != before


def test_the_template_has_a_digest_of_its_own():
    chatml, other, none = (tiny_tokenizer(template=template) for template in (CHATML, CHATML + " ", None))

    assert tokenizer_digest(chatml) == tokenizer_digest(other) == tokenizer_digest(none)
    assert chat_template_digest(chatml) != chat_template_digest(other)
    assert chat_template_digest(none) is None


# Damage


@pytest.mark.parametrize("text", ["", "no json", "{}", '{"model": {"type": "BPE", "vocab": 3, "merges": []}}'])
def test_a_damaged_tokenizer_file_is_a_model_error(saved, text):
    folder = saved(tiny_tokenizer())
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="its tokenizer cannot be loaded"):
        load_tokenizer(tmp_path)


def test_a_tokenizers_own_code_is_never_run(saved):
    folder = saved(tiny_tokenizer())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"] = {"AutoTokenizer": ["foreign.Tokenizer", "foreign.Tokenizer"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "foreign.py").write_text(f"open({str(folder / 'pwned')!r}, 'w')\nclass Tokenizer: pass\n")

    with contextlib.suppress(ModelError):  # refusing is as good as ignoring
        load_tokenizer(folder)

    assert not (folder / "pwned").exists()
