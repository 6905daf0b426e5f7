from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data import private
from ftkit.data.lint import CODES, Finding, lint
from ftkit.data.sample import Content, Sample, Turn

ASK = ("user", "What is the capital of France?")
CALL = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}]}


def sample(*turns, kind="chat", rejected=()) -> Sample:
    made = tuple(turn if isinstance(turn, Turn) else Turn(role=turn[0], content=turn[1]) for turn in turns)
    return Sample(content=Content(turns=made, rejected=rejected), kind=kind, place="rows.jsonl:7")


def found(*turns, **more) -> list[tuple[str, str, str]]:
    return [(finding.code, finding.where, finding.detail) for finding in lint(sample(*turns, **more))]


def in_text(text: str) -> list[tuple[str, str]]:
    """Codes and details of an answer with this text."""
    return [(code, detail) for code, where, detail in found(ASK, ("assistant", f"Well: {text}")) if "turn 1" in where]


def test_an_ordinary_conversation_has_nothing_suspicious():
    assert (
        found(("system", "Be brief."), ASK, ("assistant", "Paris."), ("user", "And 2+2?"), ("assistant", "4")) == []
    )


@pytest.mark.parametrize("answer", ["", "  \n", "...", "—", "?!", "\u3002"])
def test_an_answer_of_spaces_and_marks_says_nothing(answer):
    assert found(ASK, ("assistant", answer)) == [("empty-answer", "rows.jsonl:7: turn 1", repr(answer))]


@pytest.mark.parametrize("answer", ["4", "no", "👍", "+", "$", "“ja”", "   " * 20 + "x", "是"])
def test_a_short_answer_is_an_answer(answer):
    assert found(ASK, ("assistant", answer)) == []


def test_a_tool_call_needs_no_words():
    turns = (ASK, Turn(role="assistant", content="", fields=CALL), ("tool", "Paris"), ("assistant", "Paris."))

    assert found(*turns) == []


def test_an_answer_that_repeats_the_turn_before_it_is_found_whatever_the_spaces_around_it():
    assert found(ASK, ("assistant", " What is the capital of France?\n")) == [
        ("answer-repeats-prompt", "rows.jsonl:7: turn 1", "'What is the capital of France?'")
    ]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("u a s u a", [(2, "a system turn that is not the first")]),
        ("u u a", [(1, "two turns of the user in a row")]),
        ("u a a", [(2, "two turns of the assistant in a row")]),
        ("u a u", [(2, "the last turn is the user's, so nothing of it is learnt")]),
        ("s u a u a", []),
    ],
)
def test_turns_out_of_order_are_named_by_their_number(roles, expected):
    names = {"u": "user", "a": "assistant", "s": "system"}
    turns = [(names[role], f"text {index}") for index, role in enumerate(roles.split())]

    assert found(*turns) == [("role-order", f"rows.jsonl:7: turn {index}", detail) for index, detail in expected]


def test_calls_and_results_belong_together():
    call = Turn(role="assistant", content="", fields=CALL)
    answer = ("assistant", "It is 4.")

    assert found(ASK, ("tool", "4"), answer) == [
        ("tool-order", "rows.jsonl:7: turn 1", "a tool's result without a call")
    ]
    assert found(ASK, call, ("tool", "4"), ("tool", "5"), answer)[0][1:] == (
        "rows.jsonl:7: turn 3", "a tool's result without a call",
    )  # fmt: skip
    assert found(ASK, call, answer) == [
        ("tool-order", "rows.jsonl:7: turn 2", "a call before this turn has no result")
    ]
    assert found(ASK, call) == []  # to call is what is learnt


def test_two_calls_take_two_results():
    call = Turn(role="assistant", content="", fields={"tool_calls": CALL["tool_calls"] * 2})

    assert found(ASK, call, ("tool", "4"), ("tool", "5"), ("assistant", "9")) == []


def test_plain_text_has_no_order_of_roles():
    assert found(("text", "Once upon a time."), kind="text") == []
    assert found(("text", " - "), kind="text") == [("empty-answer", "rows.jsonl:7: turn 0", "' - '")]


@pytest.mark.parametrize(
    "text", ["é", "café — “naïve”", "’", "€", "日本語のテキスト", "😀", "ÄÖÜ", "Ñandú", "Привет"]
)
@pytest.mark.parametrize("wrong", ["cp1252", "latin-1"])
def test_utf8_read_in_another_encoding_is_found(text, wrong):
    byte_by_byte = {byte: bytes([byte]).decode(wrong, "ignore") or chr(byte) for byte in range(256)}
    damaged = "".join(byte_by_byte[byte] for byte in text.encode())

    assert {code for code, _ in in_text(damaged)} == {"mojibake"}


def test_mojibake_is_shown_beside_what_was_meant():
    assert in_text("cafÃ© and itâ€™s") == [("mojibake", "Ã© for é and 1 more")]
    assert in_text("it\x92s") == [("mojibake", "U+0092 for ’")]


@pytest.mark.parametrize(
    "text",
    [
        "«AMANHÃ» e «MAÇÃ”", "café»…", "très «déjà»…", "Größe, Straße, Übermut", "São Paulo, não, maçã",
        "Île d’Âme",
        "naïve façade — “quoted”", "日本語", "Привет",
        "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
        "שלום\u200f", "नमस्\u200dते", "한국어 텍스트", "5 µm ± 0.1 °C · ½ ¿Qué? ¡Sí!", "CÂ\xa0et LÀ",
    ],
)  # fmt: skip
def test_text_that_is_merely_not_english_is_left_alone(text):
    assert in_text(text) == []


def test_lost_hidden_and_control_characters_are_told_apart():
    assert in_text("a\ufffdb\ufffd") == [("replacement-character", "U+FFFD and 1 more")]
    assert in_text("a\x00b\x1bc\x7f") == [("control-character", "U+0000 and 2 more")]
    assert in_text("a\ud800b") == [("control-character", "U+D800")]
    assert in_text("a\u200bb") == [("hidden-character", "U+200B")]
    assert in_text("pay\u202e100") == [("hidden-character", "U+202E")]
    assert in_text("ok\U000e0068\U000e0069") == [("hidden-character", "U+E0068 and 1 more")]
    assert in_text("tab\tline\r\nnext") == []


# Built from parts, so that no scanner of source text takes them for real ones.
SECRETS = [
    ("AKIA" + "ABCDEFGHIJKLMNOP", "AWS access key AKIAA…"),
    ("gh" + "p_" + "a1B2" * 9, "GitHub token ghp_a…"),
    ("github" + "_pat_" + "11ABCDEFG0" * 5, "GitHub token github_pat_…"),
    ("xox" + "b-123456789012-abcDEF", "Slack token xoxb-…"),
    ("sk" + "-proj-a8Zk3Lq9Xw2Pv7Tn4Rb6", "API key sk-pr…"),
    ("sk" + "-a8Zk3Lq9Xw2Pv7Tn4Rb6mN", "API key sk-a8…"),
    ("AI" + "za" + "SyA1234567890abcdefghijklmnopqrstuv", "Google API key AIzaS…"),
    ("-----BEGIN RSA PRIV" + "ATE KEY-----\nMIIE", "private key …"),
    ("-----BEGIN PRIV" + "ATE KEY-----", "private key …"),
    ("ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiIxMjM0In0.abcdefghijk", "JSON web token eyJhb…"),
    ("rk" + "_live_" + "a1B2" * 6, "Stripe key rk_live_…"),
    ("hf" + "_" + "aBcD" * 9, "Hugging Face token hf_aB…"),
    ("password: hunter2Horse!", "password hu…"),
    ('"api_key": "9f86d081884c7d65"', "api_key 9f…"),
    ("DB_PASSWORD=tr0ub4dor&3", "password tr…"),
    ("postgres://bob:s3cr3t@db.firm.de/x", "password in a URL s3…"),
]


@pytest.mark.parametrize(("text", "detail"), SECRETS)
def test_a_secret_is_found_and_never_repeated_whole(text, detail):
    assert in_text(text) == [("secret", detail)]
    assert in_text(f"({text})") == [("secret", detail)]


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE", "a task-based desk-lamp-and-chair-for-the-office", "sk-learn and sk-image",
        "sk-2023-annual-report-of-the-company", "sk-aaaaaaaaaaaaaaaaaaaaaa1",
        "password: changeme123", "password: ********", "token = get_token2(abcdef)", "password = os.environ1234",
        "The secret: never give up.", "secret: Rumpelstiltskin", "api_key: ${API_KEY_1}", "token: <your-token-1>",
        "the password=required1?", "http://host:8080/a@b", "http://user:password@host.de", "max_length=1024",
        "eyJust.a.word", "token: https://a.de/x1y2z3",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_secret_is_left_alone(text):
    assert [code for code, _ in in_text(text) if code == "secret"] == []


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("ann.lee@firma.de", "an…@firma.de"),
        ("jo+tag@mail.firma.co.uk", "jo…@mail.firma.co.uk"),
        ("mailto:ann.lee@firma.de", "an…@firma.de"),
        ("al@firma.de", "…@firma.de"),
    ],
)
def test_an_e_mail_address_is_found_and_its_name_masked(text, detail):
    assert in_text(f"write to {text}.") == [("e-mail", detail)]


@pytest.mark.parametrize(
    "text",
    [
        "jo@example.com",
        "a@b",
        "@someone",
        "icon@2x.png",
        "jo@mail.example.org",
        "x @ y.com",
        "me@test.invalid",
        "git@github.com:a/b.git",
        "https://me@host.de/x",
    ],
)
def test_an_address_of_nobody_is_left_alone(text):
    assert in_text(text) == []


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("(301) 496-5751", "(301…"), ("301-496-5751", "301-…"), ("301.496.5751", "301.…"),
        ("1-800-352-9424", "1-80…"),
        ("+49 30 901820", "+49 …"), ("+1 212 736 5000", "+1 2…"), ("+442071838750", "+442…"),
        ("+33 (0)1 42 68 53 00", "+33 …"), ("301\u2011496\u20115751", "301-…"),
        ("tel.: +49\xa030\xa0901820", "+49 …"),
    ],
)  # fmt: skip
def test_a_telephone_number_is_found(text, detail):
    assert in_text(f"call {text}, please") == [("phone", detail)]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-15", "15.01.2024 - 16.02.2024", "192.168.100.200", "$200.300.4000", "12345678901",
        "1234567890123456",
        "3.14159265358979", "1,234,567,890", "10-20-30-4000", "212-555-0123", "411-555-1234", "x+12345678",
        "+10000000000",
        "1990-2000-2010-2020", "ISBN 978-3-16-148410-0", "100-200-3000", "1.2.3.4.5.6.7.8", "2 * 300 * 400 * 5000",
        "5000000 + 4000000 = 9000000", "2024-01-15T12:30:45+01:00", "1234-567-890-12345",
    ],
)  # fmt: skip
def test_a_number_that_is_no_telephone_number_is_left_alone(text):
    assert in_text(f"it is {text} now") == []


def test_account_and_card_numbers_are_known_by_their_check_digits():
    # Numbers that banks and networks publish for examples; the second of each pair has its last digit changed.
    assert in_text("DE89 3704 0044 0532 0130 00") == [("bank-account", "DE89…")]
    assert in_text("DE89 3704 0044 0532 0130 01") == []
    assert in_text("GB29NWBK60161331926819 AND MORE") == [("bank-account", "GB29…")]
    assert in_text("4012 8888 8888 1881") == [("card-number", "4012…")]
    assert in_text("4012888888881881") == [("card-number", "4012…")]
    assert in_text("4012 8888 8888 1882") == []
    assert in_text("3782 822463 10005") == [("card-number", "3782…")]


def test_each_turn_is_named_and_counted_by_itself():
    assert found(("user", "Mail eve.j@firma.de or al@firma.de"), ("assistant", "I wrote to al@firma.de.")) == [
        ("e-mail", "rows.jsonl:7: turn 0", "e…@firma.de and 1 more"),
        ("e-mail", "rows.jsonl:7: turn 1", "…@firma.de"),
    ]


def test_thoughts_calls_and_rejected_answers_are_searched_too():
    thinking = Turn(role="assistant", content="Done.", fields={"reasoning_content": "write to ann.lee@firma.de"})
    rejected = (Turn(role="user", content="x"), Turn(role="assistant", content="write to bob.ray@firma.de"))

    assert found(ASK, thinking) == [("e-mail", "rows.jsonl:7: turn 1", "an…@firma.de")]
    assert found(ASK, ("assistant", "No."), rejected=rejected) == [
        ("e-mail", "rows.jsonl:7: rejected answer", "bo…@firma.de")
    ]


def test_every_code_says_what_it_means_and_what_to_do():
    assert Finding("secret", "a", "b").code in CODES
    assert all(": " in meaning and meaning.endswith(".") for meaning in CODES.values())


HOSTILE = [
    "sk-" * 100_000, "ey" + "J" * 300_000, "eyJ" * 100_000, "ghp_" * 80_000, "+1" + "1" * 300_000, "+1 " * 100_000,
    "password=" * 40_000, "password=" + "a1" * 150_000, "@" * 300_000, "a@" * 150_000, "a@" + "a." * 150_000,
    "Ã" * 300_000, "Ã©" * 150_000, "DE89" * 80_000, "4" * 300_000, "4 " * 150_000, "://a:" * 60_000,
    "-----BEGIN " * 30_000 + "PRIVATE KEY-----", "(301" * 80_000,
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:8] for text in HOSTILE])
def test_hostile_text_takes_no_more_than_time_in_proportion(text):
    begin = time.perf_counter()
    lint(sample(ASK, ("assistant", text)))

    assert time.perf_counter() - begin < 10  # quadratic time over 300,000 characters would take hours


PARTS = st.sampled_from([
    "password", "Passwd", "PWD", "secret", "token", "api_key", "apikey", "API-key", "access_key", "accesskey",
    "access", "tokentoken", ":", "=", ":=", " = ", '"', "'", " ", "\n", "x9Kd83jf0s", "hunter2hunter2", "(",
    "a", "é", "ſecret",
])  # fmt: skip


@given(st.lists(PARTS, max_size=14).map("".join))
def test_assignments_are_found_where_the_pattern_finds_them(text):
    found = [match.span() for match in private._assignments(text, text.encode().lower())]

    assert found == [match.span() for match in private._ASSIGNED.finditer(text)]
