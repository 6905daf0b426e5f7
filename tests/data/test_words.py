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

    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    for position, cut in zip(positions, cuts, strict=True):
        head = tokenizer.encode(text[:position], add_special_tokens=False).ids
        assert cut == (len(head) if ids[: len(head)] == head else None)


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
