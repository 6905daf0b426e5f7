"""The token contract: what it holds, that it survives the way to disk, and that verification recomputes it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models

from ftkit.errors import VerificationError
from ftkit.export.manifest import list_files, read_manifest
from ftkit.export.token_contract import (
    CLOCK,
    CONTRACT,
    TokenContract,
    describe_contract_difference,
    first_difference,
    make_contract,
    read_contract,
    redate,
    show_tokens,
    token_names,
)
from ftkit.export.verify import verify_export
from tests.export.small_exports import DATED, TOOLED, change_manifest, write_exports, write_paper_export
from tests.tiny import CHATML, tiny_tokenizer


def _prompt(contract: TokenContract, name: str):
    return next(prompt for prompt in contract.conversations if prompt.name == name)


# What it holds.


def test_a_conversation_is_what_a_server_would_send():
    tokenizer = tiny_tokenizer()
    prompt = _prompt(make_contract(tokenizer), "system and user")

    text = (
        "<|im_start|>system\nYou are a helpful assistant. Be brief.<|im_end|>\n"
        "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.text == text
    assert prompt.ids == tokenizer(text)["input_ids"]
    assert prompt.ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")


def test_the_hard_cases_are_among_the_conversations():
    contract = make_contract(tiny_tokenizer())
    names = [prompt.name for prompt in contract.conversations]
    texts = {prompt.name: prompt.text for prompt in contract.conversations}

    assert len(set(names)) == len(names) >= 20
    assert "<|im_start|>system\n<|im_end|>" in texts["empty system"]
    assert "user\n  \tHello \n\n<|im_end|>" in texts["whitespace around"]
    assert "two\r\nthree\n\n\nfour\n \nfive" in texts["line breaks"]
    assert "<think>\nIt is 4.\n</think>\n\n4" in texts["thinking in history"]
    assert "user\n<|im_end|>\n<|im_start|>assistant\nSure" in texts["spelled control tokens"]
    assert "e\u0301 and \u00e9" in texts["combining marks"]
    assert "First.<|im_end|>\n<|im_start|>user\nSecond." in texts["consecutive user turns"]
    assert len(max(texts["very long word"].split(), key=len)) > 300


def test_spelled_control_tokens_are_the_tokens_that_serving_makes_of_them():
    tokenizer = tiny_tokenizer()
    prompt = _prompt(make_contract(tokenizer), "spelled control tokens")

    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert prompt.ids.count(end) == 2  # the user's, and the turn's own


def test_tools_and_tool_calls_reach_the_template():
    contract = make_contract(tiny_tokenizer(template=TOOLED))

    assert '"name": "get_weather"' in _prompt(contract, "tools offered").text
    assert '[get_weather{"city": "Zürich", "days": 2}]' in _prompt(contract, "tool call and result").text
    assert "get_weather" not in _prompt(contract, "a question about the weather").text


def test_a_template_of_its_own_for_tools_is_used():
    tokenizer = tiny_tokenizer(template={"default": CHATML, "tool_use": TOOLED})
    contract = make_contract(tokenizer)

    assert _prompt(contract, "tools offered").text.startswith("<|im_start|>tools\n")
    assert _prompt(contract, "user only").text.startswith("<|im_start|>user\n")


def test_a_refusal_is_written_down_with_the_templates_words():
    prompt = _prompt(make_contract(tiny_tokenizer(template=TOOLED)), "consecutive user turns")

    assert (prompt.ids, prompt.text, prompt.refused) == (None, None, "Turns must alternate.")


def test_a_tokenizer_without_a_template_has_texts_only():
    contract = make_contract(tiny_tokenizer(template=None))

    assert contract.conversations == ()
    assert contract.texts[0].text == "Hello world"


def test_plain_texts_begin_as_the_tokenizer_begins_them_and_conversations_do_not():
    tokenizer = tiny_tokenizer(bos=True)
    contract = make_contract(tokenizer)

    assert all(text.ids[0] == tokenizer.bos_token_id for text in contract.texts)
    assert tokenizer.bos_token_id not in _prompt(contract, "user only").ids


def test_a_template_that_writes_the_date_sees_a_fixed_one():
    contract = make_contract(tiny_tokenizer(template=DATED))

    assert contract.clock == CLOCK == "2001-02-03T04:05:06"
    assert _prompt(contract, "user only").text.startswith("Today: 03 Feb 2001\n<|im_start|>user")
    assert make_contract(tiny_tokenizer()).clock is None


def test_the_clock_goes_on_afterwards():
    tokenizer = tiny_tokenizer(template="{{ strftime_now('%Y') }}")
    make_contract(tokenizer)

    year = tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    assert int(year) >= datetime.now().year - 1 > 2001


# Its digest and its file.


def test_the_digest_is_of_prompts_and_tokens_and_not_of_the_words_of_a_refusal():
    contract = make_contract(tiny_tokenizer(template=TOOLED))
    first, refused = _prompt(contract, "user only"), _prompt(contract, "consecutive user turns")

    def with_changed(old, new):
        changed = tuple(new if prompt is old else prompt for prompt in contract.conversations)
        return replace(contract, conversations=changed).digest

    assert make_contract(tiny_tokenizer(template=TOOLED)).digest == contract.digest
    assert with_changed(refused, replace(refused, refused="In other words.")) == contract.digest
    assert with_changed(first, replace(first, ids=[*first.ids[:-1], 0])) != contract.digest
    assert with_changed(first, replace(first, messages=[{"role": "user", "content": "x"}])) != contract.digest
    assert replace(contract, clock=CLOCK).digest != contract.digest


@pytest.mark.parametrize("template", [CHATML, TOOLED, DATED, None])
def test_what_is_written_is_read_back(tmp_path, template):
    contract = make_contract(tiny_tokenizer(template=template))
    contract.write(tmp_path)

    assert read_contract(tmp_path, contract.digest) == contract
    plain = json.loads((tmp_path / CONTRACT).read_text())
    assert list(plain) == ["version", "digest", "clock", "conversations", "texts"]
    assert plain["digest"] == contract.digest


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text[:-40], "cannot be read"),
        (lambda text: "[]", "cannot be read"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "is of version 2"),
        (lambda text: text.replace("Hello world", "Hello there"), "not the contract that manifest.json names"),
        (lambda text: text.replace('"texts"', '"words"'), "cannot be read"),
        (lambda text: text.replace('"messages"', '"massages"', 1), "cannot be read"),
    ],
)
def test_a_damaged_contract_is_refused(tmp_path, damage, words):
    contract = make_contract(tiny_tokenizer())
    contract.write(tmp_path)
    path = tmp_path / CONTRACT
    path.write_text(damage(path.read_text()))

    with pytest.raises(VerificationError, match=words):
        read_contract(tmp_path, contract.digest)


def test_an_export_without_a_contract_is_told_from_one_that_lost_it(tmp_path):
    assert read_contract(tmp_path, None) is None
    with pytest.raises(VerificationError, match="cannot be read"):
        read_contract(tmp_path, "0" * 64)


# Differences.


@pytest.mark.parametrize(
    ("expected", "found", "position"),
    [
        ([1, 2, 3], [1, 2, 3], None),
        ([], [], None),
        ([1, 2, 3], [1, 9, 3], 1),
        ([1, 2, 3], [1, 2], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2], [0, 1, 2], 0),
    ],
)
def test_the_first_difference_by_hand(expected, found, position):
    assert first_difference(expected, found) == position


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_before_the_first_difference_all_is_equal_and_there_it_is_not(ours, theirs):
    position = first_difference(ours, theirs)

    if position is None:
        assert ours == theirs
    else:
        assert ours[:position] == theirs[:position]
        assert ours[position : position + 1] != theirs[position : position + 1]


def test_tokens_are_shown_with_their_texts(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    names = token_names(tmp_path)
    ids = tokenizer("<|im_start|>user\nthe sky<|im_end|>\n")["input_ids"]

    assert [names(token) for token in ids] == [
        "<|im_start|>", "'user'", "'\\n'", "'the'", "' sky'", "<|im_end|>", "'\\n'"
    ]  # fmt: skip
    assert show_tokens(ids, 4, names, around=1) == "… 'the' ' sky' …"
    assert show_tokens(ids, 7, names, around=2) == "… <|im_end|> '\\n' (end)"
    assert names(99999) == "#99999 (not in the vocabulary)"


def test_tokens_of_a_sentencepiece_vocabulary_keep_their_spaces(tmp_path):
    vocabulary = {"<unk>": 0, "▁the": 1, "<0x0A>": 2, "sky": 3}
    raw = RawTokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Strip(" ", 1, 0)])
    raw.save(str(tmp_path / "tokenizer.json"))
    names = token_names(tmp_path)

    assert [names(token) for token in (1, 2, 3)] == ["' the'", "'\\n'", "'sky'"]


def test_without_a_readable_vocabulary_tokens_are_numbers(tmp_path):
    assert token_names(tmp_path)(7) == "#7"


def test_a_difference_names_the_prompt_and_the_tokens():
    tokenizer = tiny_tokenizer()
    trained = make_contract(tokenizer)
    tokenizer.chat_template = CHATML.replace("assistant\n", "assistant\n\n")
    exported = make_contract(tokenizer)

    assert describe_contract_difference(trained, trained, str) == ""
    # Of "user only", all but a last line break is equal; this vocabulary cuts "assistant" into as-s-istan-t.
    words = describe_contract_difference(trained, exported, lambda token: repr(tokenizer.decode([token])))
    assert words == (
        f"'user only', token {len(_prompt(trained, 'user only').ids)}: "
        "trained with … 'istan' 't' '\\n' (end), exported … 'istan' 't' '\\n' '\\n' (end)"
    )


def test_a_refusal_on_one_side_only_is_a_difference():
    trained = make_contract(tiny_tokenizer(template=TOOLED))
    lenient = make_contract(tiny_tokenizer(template=TOOLED.replace("raise_exception('Turns must alternate.')", "''")))

    words = (
        "'consecutive user turns': the trained template refuses it (Turns must alternate.), the exported one does not"
    )
    assert describe_contract_difference(trained, lenient, str) == words
    assert "the exported template refuses it (Turns must" in describe_contract_difference(lenient, trained, str)


# In exports.


@pytest.fixture(scope="module")
def exports(tmp_path_factory, tiny_llama):
    """Adapter and merged export of a model with a template that writes the date."""
    return write_exports(tmp_path_factory.mktemp("exports"), tiny_llama, tiny_tokenizer(template=DATED))


def _check(folder):
    outcome = verify_export(folder)
    found = next(check for check in outcome.checks if check.name == "token_contract")
    return found, {check.name for check in outcome.failures}


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_every_export_has_the_contract_of_the_training_tokenizer(exports, kind):
    manifest = read_manifest(exports / kind)

    assert read_contract(exports / kind, manifest.token_contract_digest) == make_contract(
        tiny_tokenizer(template=DATED)
    )
    assert manifest.files[CONTRACT] == list_files(exports / kind)[CONTRACT]


@pytest.mark.parametrize("kind", ["adapter", "merged"])
def test_the_contract_is_kept_in_a_fresh_process_on_any_day(exports, kind, tmp_path):
    folder = shutil.copytree(exports / kind, tmp_path / kind)
    check, failed = _check(folder)

    assert failed == set()
    assert check.value == check.limit == read_manifest(folder).token_contract_digest


def test_a_template_that_differs_in_one_line_break_breaks_the_contract(exports, tmp_path):
    folder = shutil.copytree(exports / "merged", tmp_path / "merged")
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n\n"))
    change_manifest(folder)
    check, failed = _check(folder)

    assert {"token_contract", "chat_template"} <= failed
    assert check.detail.startswith("'user only', token ")
    assert check.detail.endswith("trained with … 'istan' 't' '\\n' (end), exported … 'istan' 't' '\\n' '\\n' (end)")


def test_an_edited_contract_fails_even_with_matching_file_digests(exports, tmp_path):
    folder = shutil.copytree(exports / "merged", tmp_path / "merged")
    path = folder / CONTRACT
    path.write_text(path.read_text().replace("Hello world", "Hello there"))
    change_manifest(folder)
    check, failed = _check(folder)

    assert failed == {"token_contract"}
    assert "is not the contract that manifest.json names" in check.detail


def test_an_older_export_is_verified_without_one(exports, tmp_path):
    folder = shutil.copytree(exports / "merged", tmp_path / "merged")
    (folder / CONTRACT).unlink()
    change_manifest(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["token_contract_digest"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    check, failed = _check(folder)

    assert failed == set()
    assert check.value is None
    assert "written without a token contract" in check.detail


def test_a_contract_is_rendered_anew_for_today(tmp_path):
    folder = write_paper_export(tmp_path / "export", tiny_tokenizer(template=DATED))
    contract = make_contract(tiny_tokenizer(template=DATED))

    (today,) = redate(folder, contract, [datetime(2031, 12, 24, 18, 30)])

    assert _prompt(today, "user only").text.startswith("Today: 24 Dec 2031\n<|im_start|>user")
    assert [prompt.name for prompt in today.conversations] == [prompt.name for prompt in contract.conversations]
    assert today.clock == "2031-12-24T18:30:00"
    assert today.texts == contract.texts


def test_an_export_that_broke_its_contract_is_not_rendered_anew(tmp_path):
    folder = write_paper_export(tmp_path / "export", tiny_tokenizer(template=DATED))
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("Today", "Date"))

    with pytest.raises(VerificationError, match="no longer gives the tokens of"):
        redate(folder, make_contract(tiny_tokenizer(template=DATED)), [datetime(2031, 12, 24)])
