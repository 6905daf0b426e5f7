"""How data shows itself in a notebook."""

from __future__ import annotations

from ftkit.data.example import TokenizedExample
from ftkit.pipeline.data_display import facts_html, facts_text, shown

WORDS = {1: "<|user|>\n", 2: "a < b", 3: "<|end|>", 4: "Yo\n", 5: "\x1b[31m\u202e"}
REPORT = {
    "rows_in": 1010, "trained": 900, "validation": 80, "dropped": {"longer than max_length": 30}, "truncated": 4,
    "sequences": 950, "tokens": 40_000, "supervised_tokens": 10_000, "stop_tokens": ["<|end|>"],
    "lengths": {"min": 7, "mean": 44.4, "p50": 40, "p90": 80, "p95": 90, "p99": 99, "max": 3000},
    "duplicates": 2, "near_duplicates": 3, "leaks": 1, "near_leaks": None,
    "lint": {"counts": {"secret": 5, "e-mail": 1}, "findings": []},
}  # fmt: skip


def decode(ids):
    return "".join(WORDS[index] for index in ids)


def example(*ids, counts):
    return TokenizedExample(
        input_ids=list(ids),
        labels=[index if place in counts else -100 for place, index in enumerate(ids)],
        answer_start=min(counts),
        stop_id=3,
        answer="Yo",
        place="rows.jsonl:17",
    )


def test_the_summary_accounts_for_every_row():
    assert facts_text(REPORT).splitlines() == [
        "rows        1,010 read: 900 to train on, 80 held back; 30 dropped: longer than max_length; "
        "4 cut to max_length",
        "tokens      40k in 950 sequences; 10k (25.0%) count; answers end with <|end|>",
        "lengths     shortest 7, median 40, 95 % up to 90, longest 3,000",
        "duplicates  2, and 3 nearly equal",
        "leaks       1; nearly equal rows were not searched",
        "suspicious  5 secret, 1 e-mail",
    ]


def test_a_report_without_tokens_and_findings_still_has_a_summary():
    empty = {**REPORT, "tokens": 0, "supervised_tokens": 0, "stop_tokens": [], "lint": {"counts": {}}, "lengths": {}}

    text = facts_text(empty)

    assert "0 (0.0%) count; answers end with nothing" in text
    assert "suspicious  nothing" in text


def test_control_tokens_are_text_in_the_table():
    assert "&lt;|end|&gt;" in facts_html(REPORT)


def test_what_counts_stands_in_brackets():
    rows = shown([example(1, 2, 3, 4, 3, counts={3, 4})], decode)

    # "Yo\n" and the token behind it count: 2 of 5.
    assert str(rows) == (
        "rows.jsonl:17  5 tokens, 2 count (40%), between ⟦ and ⟧:\n<|user|>⏎\na < b<|end|>⟦Yo⏎\n<|end|>⟧"
    )
    assert repr(rows) == str(rows)


def test_a_notebook_gets_what_counts_underlined_and_texts_as_text():
    html = shown([example(1, 2, 4, counts={2})], decode)._repr_html_()

    assert "&lt;|user|&gt;⏎\na &lt; b</span><u style=" in html
    assert ">Yo⏎\n</u></pre>" in html


def test_hostile_rows_cannot_steer_a_terminal():
    text = str(shown([example(1, 5, counts={1})], decode))

    assert "⟦\\x1b[31m\\u202e⟧" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


def test_hostile_rows_cannot_turn_the_text_around_them_in_a_notebook():
    html = shown([example(1, 5, counts={1})], decode)._repr_html_()

    assert "\x1b" not in html
    assert 'unicode-bidi: isolate"' in html
