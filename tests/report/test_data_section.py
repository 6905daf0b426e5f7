from __future__ import annotations

import re

import pytest

from tests.report.folder import DATA, write_run
from tests.report.test_page import page, words

FULL = DATA | {
    "sequences": 80,
    "lengths": DATA["lengths"] | {"p90": 48, "p99": 60},
    "histogram": [{"from": 0, "to": 19, "sequences": 30}, {"from": 20, "to": 39, "sequences": 49},
                  {"from": 40, "to": 61, "sequences": 1}],
    "over_max_length": {"256": 5, "512": 0},
    "near_duplicates": 3, "near_leaks": 2, "duplicates": 1, "leaks": 4,
    "duplicate_examples": [{"places": ["a.jsonl:9", "a.jsonl:2"], "similarity": 1.0, "text": "Where is my order?"}],
    "leak_examples": [{"places": ["b.jsonl:1", "a.jsonl:4"], "similarity": 0.875, "text": "Refund me."}],
    "mixture": [
        {"source": "a.jsonl", "rows": 60, "sequences": 60, "tokens": 1500, "supervised_tokens": 400,
         "row_share": 0.75, "token_share": 0.75},
        {"source": "b.jsonl", "rows": 20, "sequences": 20, "tokens": 500, "supervised_tokens": 100,
         "row_share": 0.25, "token_share": 0.25},
    ],
    "answers": {"distinct": 77, "top": [{"text": "card arrival", "rows": 8, "share": 0.1},
                                        {"text": "only once", "rows": 1, "share": 0.0125}]},
    "lint": {"counts": {"secret": 7, "e-mail": 1}, "findings": [
        *({"code": "secret", "where": f"a.jsonl:{line}: turn 1", "detail": "API key sk-a…"} for line in range(1, 8)),
        {"code": "e-mail", "where": "b.jsonl:3: turn 0", "detail": "jo…@firma.de"},
    ]},
    "examples": [{"place": "a.jsonl:17", "pieces": [
        {"text": "<|im_start|>user\nHi<|im_end|>\n", "supervised": False},
        {"text": "Yo\n<|im_end|>", "supervised": True},
    ]}],
}  # fmt: skip
ATTACK = "</span><script>alert(1)</script><img src=x onerror=alert(2)>\"'"


def html_of(tmp_path, **changed) -> str:
    return page(write_run(tmp_path, data=FULL | changed))


def test_lengths_are_drawn_as_one_bar_for_each_range(tmp_path):
    html = html_of(tmp_path)

    assert html.count('class="count"') == 3
    assert "<title>20 to 39 tokens: 49 sequences</title>" in html
    assert 'aria-label="Sequences by length in tokens; most of all with 20 to 39 tokens: 49 sequences"' in html


def test_heights_of_bars_are_in_proportion_and_one_sequence_is_still_seen(tmp_path):
    html = html_of(tmp_path)
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="count"', html)]

    # The axis goes to 60 over 240 - 12 - 44 = 184 pixels: 30, 49 and 1 sequences.
    assert heights == pytest.approx([184 * 30 / 60, 184 * 49 / 60, 184 * 1 / 60], abs=0.02)
    tall = html_of(tmp_path, histogram=[{"from": 0, "to": 9, "sequences": 10_000},
                                        {"from": 10, "to": 19, "sequences": 1},
                                        {"from": 20, "to": 29, "sequences": 0}])  # fmt: skip
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" class="count"', tall)]
    assert heights[1:] == [1, 0]


def test_the_share_that_is_learnt_from_is_a_bar_with_its_figure(tmp_path):
    html = html_of(tmp_path)

    assert 'aria-label="25% of the tokens count towards the loss"' in html  # 500 of 2000
    assert '<rect x="0" y="0" width="250" height="14" class="part-supervised">' in html


def test_lengths_and_what_a_limit_would_cut_stand_in_tables(tmp_path):
    text = words(html_of(tmp_path))

    assert "training rows 7 24 25 48 50 60 61 64" in text  # min, p50, mean, p90, p95, p99, max, max_length
    assert "A max_length of 256 512 would cut 5 (5%) 0 (0%)" in text  # of 100 rows


def test_sources_answers_repeats_and_faults_are_listed(tmp_path):
    text = words(html_of(tmp_path))

    assert "a.jsonl 60 1,500 400 75% 75%" in text
    assert "77 different answers.The most frequent answer rows share card arrival 8 10%" in text
    assert "only once" not in text
    assert "a.jsonl:9 = a.jsonl:2 100% Where is my order?" in text
    assert "b.jsonl:1 = a.jsonl:4 87.5% Refund me." in text
    assert "secret 7 a.jsonl:1: turn 1: API key sk-a… a.jsonl:2" in text
    assert "a.jsonl:5: turn 1" in text
    assert "a.jsonl:6: turn 1" not in text  # five of each kind are enough
    assert "e-mail 1 b.jsonl:3: turn 0: jo…@firma.de" in text
    assert "3 training rows nearly repeat an earlier one" in text
    assert "2 validation rows are nearly the same as rows that are trained on" in text


def test_rows_show_what_is_learnt_from_and_their_line_breaks(tmp_path):
    html = html_of(tmp_path)
    line_break = '<span class="break">⏎</span>\n'

    assert (
        f'<span class="context">&lt;|im_start|&gt;user{line_break}Hi&lt;|im_end|&gt;{line_break}</span>'
        f'<span class="supervised">Yo{line_break}&lt;|im_end|&gt;</span>'
    ) in html


def test_near_repeats_that_were_not_searched_are_not_called_none(tmp_path):
    text = words(html_of(tmp_path, near_duplicates=None, near_leaks=None))

    assert "nearly" not in text


def test_one_source_needs_no_table_of_shares(tmp_path):
    assert "Sources of an epoch" not in words(html_of(tmp_path, mixture=FULL["mixture"][:1]))


def test_an_older_report_shows_what_it_has(tmp_path):
    text = words(page(write_run(tmp_path, data=DATA)))

    assert "training rows 7 24 25 50 61 64" in text
    for title in (
        "Sources of an epoch",
        "Answers",
        "Suspicious rows",
        "Rows as the model sees them",
        "A max_length of",
    ):
        assert title not in text


@pytest.mark.parametrize("key", [key for key in FULL if key not in DATA])
@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [3, None], {"counts": 3, "top": 3}, [{"pieces": 3}], True,
                                   [{}], {"distinct": "x"}, {"256": "x"}, [{"from": 1}]])  # fmt: skip
def test_a_damaged_entry_never_stops_the_report(tmp_path, key, value):
    assert "lora on tiny-llama" in words(html_of(tmp_path, **{key: value}))


def test_hostile_data_never_becomes_markup(tmp_path):
    keys = {key for entry in ("histogram", "duplicate_examples", "mixture", "examples") for key in FULL[entry][0]}
    keys |= {
        "text",
        "supervised",
        "distinct",
        "top",
        "rows",
        "share",
        "counts",
        "findings",
        "code",
        "where",
        "detail",
    }

    def hostile(value):
        if isinstance(value, dict):
            return {(key if key in keys else ATTACK): hostile(inner) for key, inner in value.items()}
        return (
            [hostile(item) for item in value]
            if isinstance(value, list)
            else ATTACK
            if isinstance(value, str)
            else value
        )

    changed = {key: hostile(FULL[key]) for key in FULL if key not in DATA}
    html = html_of(tmp_path, **changed)

    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 12
    assert ATTACK in words(html)
