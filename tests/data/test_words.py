"""A word at a time gives the tokenizer's own ids, for every text, or is not used."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from ftkit.data.words import GPT2, LLAMA3, QWEN2, WordEncoder, fitting

CORPUS = [
    "The quick brown fox jumps over the lazy dog, isn't it? It's 12 345 times 0.5 = 6172.5!",
    "def f(x):\n    return x ** 2\n\n\tprint('we'll see', \"I'd say\")\r\n",
    "Ünïcödé naïve café 中文 текст  two  spaces ... end.\n\n\nNew paragraph",
    "<|im_start|>user\nhello there<|im_end|>\n<think> half </think>",
]


def build(
    splitter: Any, *, normalizer: Any = None, control: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")
) -> Tokenizer:
    """A byte-level BPE tokenizer that has merges across everything the splitter leaves together."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def split_by(pattern: str) -> Any:
    stages = [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    return pre_tokenizers.Sequence(stages)


TOKENIZERS = {
    "GPT-2": build(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "SmolLM": build(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    ),
    "Llama 3": build(split_by(LLAMA3)),
    "Qwen 2": build(split_by(QWEN2), normalizer=normalizers.NFC()),
    "Mistral Nemo": build(split_by(GPT2)),
}
FRAGMENTS = [
    " ", "  ", "\n", "\r", "\t", "\x0b", "\x1c", "\x85", "\u00a0", "\u2003", "\u3000", "'s", "'S", "'ll", "'",
    "e", "é", "e\u0301", "\u0301", "\u0338", "word", "Word", "12", "345", "²", "Ⅷ", "١", ".", "...", "—", "$", "中文",
    "ß", "ſ", "🙂", "\u200d", "<|im_start|>", "<|im_end|>", "<|im_", "end|>", "_", "the", " the", "a ", "=", "\\",
    "\x00", "\x7f", "ǆ", "a.b", "x1", "1x", "é.", "a\n", "9\n", "'s.", "`", "~", "@",
]  # fmt: skip
texts = st.lists(st.sampled_from(FRAGMENTS) | st.characters(exclude_categories=["Cs"]), max_size=24).map("".join)


def fitted(tokenizer: Tokenizer) -> WordEncoder | None:
    return fitting(tokenizer, json.loads(tokenizer.to_str()))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=400, deadline=None)
@given(text=texts)
@example(text="a  b c\n d 1 2'll e\u0301 <|im_start|> x")
def test_ids_are_those_of_the_tokenizer(name: str, text: str):
    encoder = fitted(TOKENIZERS[name])

    assert encoder is not None
    assert encoder.ids(text) == TOKENIZERS[name].encode(text, add_special_tokens=False).ids
    assert encoder.ids(text) == encoder.ids(text)  # the second time from memory


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200, deadline=None)
@given(text=texts, data=st.data())
def test_a_cut_is_told_only_where_both_sides_are_tokenised_alike(name: str, text: str, data: st.DataObject):
    tokenizer = TOKENIZERS[name]
    positions = data.draw(st.lists(st.integers(0, len(text)), max_size=4))
    encoder = fitted(tokenizer)
    assert encoder is not None

    ids, cuts = encoder.cut(text, positions)

    assert ids.tolist() == tokenizer.encode(text, add_special_tokens=False).ids
    for position, cut in zip(positions, cuts, strict=True):
        head = tokenizer.encode(text[:position], add_special_tokens=False).ids
        assert cut == (len(head) if ids[: len(head)].tolist() == head else None)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200, deadline=None)
@given(many=st.lists(texts, max_size=8), data=st.data())
@example(many=["", "<|im_start|>", "a<|im_end|><|im_start|>b", "", " ", "e\u0301 x", "é x"], data=None)
def test_many_texts_together_have_the_ids_and_cuts_that_each_has_alone(
    name: str, many: list[str], data: st.DataObject | None
):
    tokenizer = TOKENIZERS[name]
    encoder, alone = fitted(tokenizer), fitted(tokenizer)
    assert encoder is not None
    assert alone is not None
    places = [range(len(text) + 1) if data is None else data.draw(places_of(text)) for text in many]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ftkit.data.words._WORTH", 0)
        with encoder.ahead(many):
            assert any(map(str.isascii, many)) <= bool(encoder._ahead)
            found = [(encoder.ids(text), encoder.cut(text, at)) for text, at in zip(many, places, strict=True)]
            other = encoder.ids("<|im_end|> something else é")

    expected = [tokenizer.encode(text, add_special_tokens=False).ids for text in many]
    assert [ids for ids, _ in found] == [ids.tolist() for _, (ids, _) in found] == expected
    assert [cuts for _, cuts in found] == [alone.cut(text, at) for text, at in zip(many, places, strict=True)]
    assert other == tokenizer.encode("<|im_end|> something else é", add_special_tokens=False).ids
    assert encoder._ahead == {}


def places_of(text: str) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(text)), max_size=4)


@pytest.mark.parametrize("odd", ["half \ud83d of a pair", "x" * 50, "é" * 50])
def test_a_text_that_cannot_be_worked_out_with_others_keeps_none_of_them_back(
    odd: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("ftkit.data.words._WORTH", 0)
    monkeypatch.setattr("ftkit.data.words._ROOM", 49)
    encoder = fitted(TOKENIZERS["GPT-2"])
    assert encoder is not None

    with encoder.ahead(["one", odd, "two é"]):
        assert set(encoder._ahead) == {"one", "two é"}


def test_texts_that_find_no_room_beside_others_are_worked_out_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("ftkit.data.words._WORTH", 0)
    monkeypatch.setattr("ftkit.data.words._ROOM", 10)
    encoder = fitted(TOKENIZERS["GPT-2"])
    assert encoder is not None

    with encoder.ahead(["twice", "twice", "again", "more"]):
        assert set(encoder._ahead) == {"twice", "again"}
        assert encoder.ids("more") == TOKENIZERS["GPT-2"].encode("more", add_special_tokens=False).ids


def test_what_is_known_of_a_text_is_not_changed_by_who_asks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ftkit.data.words._WORTH", 0)
    encoder = fitted(TOKENIZERS["GPT-2"])
    assert encoder is not None

    with encoder.ahead(["some text"]):
        expected = encoder.ids("some text")
        encoder.ids("some text").append(7)
        encoder.cut("some text", [3])[0].append(7)

        assert encoder.ids("some text") == expected


def test_a_few_words_are_not_worked_out_together():
    encoder = fitted(TOKENIZERS["GPT-2"])
    assert encoder is not None

    with encoder.ahead(["one", "two"]):
        assert encoder._ahead == {}


def changed(tokenizer: Tokenizer, change: Any) -> Tokenizer:
    description = json.loads(tokenizer.to_str())
    change(description)
    return Tokenizer.from_str(json.dumps(description))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"].update(dropout=0.1),
        lambda d: d["pre_tokenizer"].update(add_prefix_space=True),
        lambda d: d["pre_tokenizer"].update(use_regex=False),
        lambda d: d.update(pre_tokenizer=None),
        lambda d: d.update(normalizer={"type": "Lowercase"}),
        lambda d: d.update(normalizer={"type": "NFKC"}),
        lambda d: d["added_tokens"][0].update(lstrip=True),
        lambda d: d["added_tokens"][0].update(single_word=True),
        lambda d: d["added_tokens"][0].update(normalized=True),
        lambda d: d.update(
            truncation={"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
        ),
    ],
)
def test_a_tokenizer_that_might_look_across_words_is_left_alone(change: Any):
    assert fitted(changed(TOKENIZERS["GPT-2"], change)) is None


def test_an_unknown_pattern_is_left_alone():
    looks_back = split_by(r"\p{L}+ \p{L}+|\s+|\S")

    assert fitted(build(looks_back)) is None


def test_a_tokenizer_that_is_no_byte_level_bpe_is_left_alone():
    pieces = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    pieces.pre_tokenizer = pre_tokenizers.Whitespace()

    assert fitted(pieces) is None


def test_words_are_forgotten_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ftkit.data.words._MOST", 10)
    encoder = fitted(TOKENIZERS["GPT-2"])
    assert encoder is not None
    text = " ".join(f"w{number}" for number in range(100))

    assert encoder.ids(text) == TOKENIZERS["GPT-2"].encode(text, add_special_tokens=False).ids
    assert len(encoder._words) <= 10
