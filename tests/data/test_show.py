from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ftkit.data.example import TokenizedExample
from ftkit.data.show import Piece, example_json, pieces, shortened, token_texts

WORDS = {1: "<|im_start|>", 2: "user", 3: "\n", 4: "Hi", 5: "<|im_end|>", 6: " there"}


def decode(ids: list[int]) -> str:
    return "".join(WORDS[index] for index in ids)


def example(ids: list[int], counted: str) -> TokenizedExample:
    """``counted`` has an x for each token that counts."""
    labels = [index if mark == "x" else -100 for index, mark in zip(ids, counted, strict=True)]
    return TokenizedExample(
        input_ids=ids, labels=labels, answer_start=0, stop_id=5, answer=None, place="rows.jsonl:3"
    )


def byte_tokenizer() -> Tokenizer:
    """One token a byte, so that é takes two tokens and 😀 four."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def test_pieces_begin_where_tokens_begin_or_cease_to_count():
    assert pieces(example([1, 2, 3, 4, 6, 5, 3], "...xxx."), decode) == [
        Piece(tokens=("<|im_start|>", "user", "\n"), supervised=False),
        Piece(tokens=("Hi", " there", "<|im_end|>"), supervised=True),
        Piece(tokens=("\n",), supervised=False),
    ]


def test_the_text_of_a_piece_is_that_of_its_tokens():
    assert [piece.text for piece in pieces(example([4, 6], "xx"), decode)] == ["Hi there"]


def test_a_character_of_several_tokens_stands_at_its_last_one():
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode("aé😀b").ids

    assert len(ids) == 1 + 2 + 4 + 1
    assert token_texts(ids, tokenizer.decode) == ["a", "", "é", "", "", "", "😀", "b"]


def test_bytes_that_are_no_character_are_shown_as_lost_and_do_not_swallow_the_rest():
    tokenizer = byte_tokenizer()
    lone = tokenizer.encode("é").ids[:1]
    texts = token_texts([*lone * 6, *tokenizer.encode("abc").ids], tokenizer.decode)

    assert texts[-2:] == ["b", "c"]
    assert max(map(len, texts)) == 4  # no character has more bytes, so no longer wait can be for one
    assert set("".join(texts)) == {"\ufffd", *"abc"}
    assert token_texts(lone, tokenizer.decode) == ["\ufffd"]


def test_a_space_that_a_decoder_drops_at_the_start_is_kept_inside():
    tokenizer = Tokenizer(models.WordLevel(vocab={"▁Hi": 0, "▁there": 1, "!": 2}, unk_token="!"))
    tokenizer.decoder = decoders.Metaspace()

    assert tokenizer.decode([1]) == "there"
    assert token_texts([0, 1, 2], tokenizer.decode) == ["Hi", " there", "!"]


@pytest.mark.parametrize("text", ["", "plain", "  two  spaces ", "naïve 日本語 😀😀 end", "a\nb\tc"])
def test_token_texts_together_are_the_decoded_text(text):
    tokenizer = byte_tokenizer()
    ids = tokenizer.encode(text).ids

    assert len(token_texts(ids, tokenizer.decode)) == len(ids)
    assert "".join(token_texts(ids, tokenizer.decode)) == text


def test_a_long_example_keeps_its_beginning_and_its_end():
    parts = [Piece(tokens=("ab",) * 50, supervised=False), Piece(tokens=("cd",) * 50, supervised=True)]
    cut = shortened(parts, 20)

    assert [(piece.text, piece.supervised) for piece in cut] == [
        ("ab" * 5, False), (" […180 characters…] ", False), ("cd" * 5, True),
    ]  # fmt: skip
    assert shortened(parts, 200) == parts


def test_an_example_as_the_report_holds_it():
    assert example_json(example([4, 5], ".x"), decode) == {
        "place": "rows.jsonl:3",
        "pieces": [{"text": "Hi", "supervised": False}, {"text": "<|im_end|>", "supervised": True}],
    }
