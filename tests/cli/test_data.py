from __future__ import annotations

import io
import json
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
from rich.console import Console

from ftkit.cli import data_output
from ftkit.cli.data_output import bar, print_rows, print_stats, visible
from ftkit.data.example import TokenizedExample
from tests.cli.running import ftkit
from tests.cli.test_start import NO_TORCH

WORDS = {1: "<|im_start|>user\n", 2: "Hi [bold]", 3: "<|im_end|>", 4: "Yo", 5: "\x1b[31m"}
REPORT = {
    "rows_in": 1000, "trained": 900, "validation": 80, "dropped": {"longer than max_length": 20}, "truncated": 0,
    "sequences": 900, "tokens": 40_000, "supervised_tokens": 10_000, "epoch": {"sequences": 900, "tokens": 40_000},
    "lengths": {"min": 7, "mean": 44.4, "p50": 40, "p90": 80, "p95": 90, "p99": 99, "max": 3000},
    "histogram": [{"from": 0, "to": 49, "sequences": 600}, {"from": 50, "to": 99, "sequences": 300},
                  {"from": 100, "to": 3000, "sequences": 1}],
    "over_max_length": {"256": 25, "512": 20, "1024": 5, "2048": 0},
    "duplicates": 2, "leaks": 1, "near_duplicates": 3, "near_leaks": None,
    "duplicate_examples": [{"places": ["a.jsonl:9", "a.jsonl:2"], "similarity": 1.0, "text": "Where is my\norder?"}],
    "leak_examples": [{"places": ["b.jsonl:1", "a.jsonl:4"], "similarity": 0.87, "text": "Refund?"}],
    "mixture": [
        {"source": "a.jsonl", "rows": 750, "sequences": 750, "tokens": 30_000, "supervised_tokens": 8000,
         "row_share": 0.75, "token_share": 0.6},
        {"source": "b.jsonl", "rows": 250, "sequences": 250, "tokens": 20_000, "supervised_tokens": 2000,
         "row_share": 0.25, "token_share": 0.4},
    ],
    "answers": {"distinct": 77, "top": [{"text": "card [red]arrival", "rows": 90, "share": 0.1}]},
    "lint": {"counts": {"secret": 5, "e-mail": 1}, "findings": [
        *({"code": "secret", "where": f"a.jsonl:{line}: turn 1", "detail": "API key sk-a…"} for line in range(1, 6)),
        {"code": "e-mail", "where": "a.jsonl:7: turn 0", "detail": "jo…@firma.de"},
    ]},
    "examples": [], "stop_tokens": ["<|im_end|>"], "chat_template": True, "digest": "d" * 64, "files": [],
}  # fmt: skip
EXAMPLE = TokenizedExample(
    input_ids=[1, 2, 3, 4, 5, 3], labels=[-100, -100, -100, 4, 5, 3], answer_start=3, stop_id=3, answer="Yo",
    place="rows.jsonl:17",
)  # fmt: skip


class FakeView:
    """What `ftkit.pipeline.data_view.open_data` gives."""

    report = REPORT
    tokenizer = SimpleNamespace(decode=lambda ids, **options: "".join(WORDS[index] for index in ids))

    def examples(self, n, at=None):
        self.asked = (n, at)
        return [EXAMPLE] * (1 if at else n)

    def findings(self):
        return self.report["lint"]["findings"]


@pytest.fixture
def opened(monkeypatch):
    """The calls of open_data; each gives a FakeView."""
    calls = []

    def open_data(file, overrides):
        calls.append((file, list(overrides), view := FakeView()))
        return view

    module = ModuleType("ftkit.pipeline.data_view")
    module.open_data = open_data
    monkeypatch.setitem(sys.modules, "ftkit.pipeline.data_view", module)
    return calls


def printed(function, *arguments, width=80, terminal=False, no_color=False, encoding="utf-8", **options) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    console = Console(
        file=stream, width=width, force_terminal=terminal, no_color=no_color,
        color_system="standard" if terminal else None, markup=False, highlight=False, emoji=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_output, "_console", lambda: console)
        function(*arguments, **options)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


def row(*pieces) -> dict:
    listed = [{"text": "".join(tokens), "supervised": counts, "tokens": list(tokens)} for tokens, counts in pieces]
    return {"place": "rows.jsonl:17", "tokens": 6, "supervised_tokens": 3, "pieces": listed}


def test_stats_are_what_is_printed_unless_told_otherwise(opened):
    outcome = ftkit("data", "rows.jsonl")

    assert outcome.code == 0, outcome.err
    lines = [" ".join(line.split()) for line in outcome.out.splitlines()]
    assert "rows 1,000 read: 900 to train on, 80 held back; 20 dropped: longer than" in lines
    assert "tokens 40k in 900 sequences; 10k (25.0%) count; answers end with <|im_end|>" in lines
    assert "512 20 2.0 %" in lines
    assert "a.jsonl 750 30,000 75.0% 60.0%" in lines
    assert "answers 77 different" in lines
    assert "card [red]arrival 90 10.0%" in lines
    assert "duplicates 2 of the rows repeat an earlier one; 3 nearly" in lines
    assert "a.jsonl:9 = a.jsonl:2 Where is my⏎order?" in lines
    assert "leaks 1 of the held-back rows are also trained on; nearly equal rows were" in lines
    assert "b.jsonl:1 = a.jsonl:4 87% Refund?" in lines
    assert "suspicious 5 secret, 1 e-mail; see: ftkit data rows.jsonl lint" in lines


@pytest.mark.parametrize("width", [40, 80, 132])
def test_no_line_of_the_stats_is_wider_than_the_terminal(width):
    out = printed(print_stats, REPORT, "rows.jsonl", width=width)

    assert max(map(len, out.splitlines())) <= width


def test_bars_are_in_proportion_to_the_largest():
    out = printed(print_stats, REPORT, "rows.jsonl", width=80)
    bars = [sum(line.count(block) for block in data_output.EIGHTHS[1:]) for line in out.splitlines()]
    longest, half, least = sorted(filter(None, bars), reverse=True)

    assert longest == 2 * half or longest + 1 == 2 * half  # 600 and 300; an eighth more takes a column
    assert least == 1  # one sequence of 600 is still seen


def test_a_bar_is_exact_to_an_eighth_of_a_column():
    assert bar(1, 4, plain=False) == "████"
    assert bar(0.5, 1, plain=False).strip() == "▌"
    assert bar(0.0001, 10, plain=False).strip() == "▏"
    assert bar(0, 10, plain=False).strip() == ""
    assert (bar(0.5, 4, plain=True), bar(0.001, 4, plain=True), bar(0, 4, plain=True)) == ("##", "#", "")


def test_where_the_output_is_no_unicode_bars_and_brackets_are_ascii():
    report = REPORT | {"duplicate_examples": [], "leak_examples": [], "answers": None}

    assert "####" in printed(print_stats, report, "rows.jsonl", encoding="ascii")
    assert "[[Yo]]" in printed(print_rows, [row((("Yo",), True))], tokens=False, encoding="ascii")


def test_a_terminal_that_lacks_a_character_gets_a_question_mark(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    print_rows([row((("é",), True))], tokens=False)
    stream.flush()

    assert stream.buffer.getvalue().endswith(b"[[?]]\n\n")


def test_options_are_overrides_of_a_recipe(opened):
    outcome = ftkit(
        "data", "rows.jsonl", "stats", "data.validation=0.5", "--model", "a: b", "--format", "text",
        "--max-length", "64", "--train-on", "last", "--chat-template", "chatml", "--columns", "{text: body}",
    )  # fmt: skip

    assert outcome.code == 0, outcome.err
    file, overrides, _ = opened[0]
    assert file == "rows.jsonl"
    assert overrides == [
        "data.validation=0.5", 'model.path="a: b"', 'model.chat_template="chatml"', 'data.format="text"',
        "data.max_length=64", 'data.train_on="last"', "data.columns={text: body}",
    ]  # fmt: skip


def test_an_override_may_stand_where_the_verb_was_left_out(opened):
    assert ftkit("data", "recipe.yaml", "data.max_length=64").code == 0
    assert opened[0][1] == ["data.max_length=64"]


def test_json_of_stats_is_the_report_and_also_goes_to_a_file(opened, tmp_path):
    outcome = ftkit("data", "rows.jsonl", "--json", "-o", tmp_path / "data_report.json")

    assert json.loads(outcome.out) == REPORT
    assert json.loads((tmp_path / "data_report.json").read_text()) == REPORT


def test_a_mistaken_verb_answers_without_torch():
    words = ["data", "rows.jsonl", "stat"]
    done = subprocess.run([sys.executable, "-c", NO_TORCH, *words], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "torch was loaded" not in done.stderr


def test_an_unknown_verb_is_refused_before_anything_is_read(opened):
    outcome = ftkit("data", "rows.jsonl", "stat")

    assert outcome.code == 2
    assert outcome.err == "'stat' is not one of stats, show, lint\n  Did you mean 'stats'?\n"
    assert opened == []


def test_show_puts_what_counts_between_brackets_where_there_is_no_terminal(opened):
    outcome = ftkit("data", "rows.jsonl", "show", "--rows", "1")

    assert outcome.out == (
        "rows.jsonl:17  6 tokens, 3 count (50%), between ⟦ and ⟧:\n"
        "<|im_start|>user⏎\nHi [bold]<|im_end|>⟦Yo␛[31m<|im_end|>⟧\n\n"
    )
    assert opened[0][2].asked == (1, None)


def test_show_takes_the_row_that_is_named(opened):
    assert ftkit("data", "rows.jsonl", "show", "--row", "rows.jsonl:17").code == 0
    assert opened[0][2].asked == (3, "rows.jsonl:17")


def test_token_borders_are_shown_on_request(opened):
    outcome = ftkit("data", "rows.jsonl", "show", "--rows", "1", "--tokens")

    assert "<|im_start|>user⏎\n|Hi [bold]|<|im_end|>⟦Yo|␛[31m|<|im_end|>⟧\n" in outcome.out


def test_json_of_show_holds_pieces_and_tokens(opened):
    shown = json.loads(ftkit("data", "rows.jsonl", "show", "--rows", "2", "--json").out)

    assert len(shown) == 2
    assert shown[0] == {
        "place": "rows.jsonl:17", "tokens": 6, "supervised_tokens": 3,
        "pieces": [
            {"text": "<|im_start|>user\nHi [bold]<|im_end|>", "supervised": False,
             "tokens": ["<|im_start|>user\n", "Hi [bold]", "<|im_end|>"]},
            {"text": "Yo\x1b[31m<|im_end|>", "supervised": True, "tokens": ["Yo", "\x1b[31m", "<|im_end|>"]},
        ],
    }  # fmt: skip


def test_a_terminal_colours_and_underlines_what_counts_instead():
    out = printed(print_rows, [row((("Q",), False), (("A",), True))], tokens=False, terminal=True)

    assert "Q\x1b[1;4;32mA\x1b[0m" in out
    assert "⟦" not in out


def test_without_colour_a_terminal_gets_brackets_too():
    out = printed(print_rows, [row((("Q",), False), (("A",), True))], tokens=False, terminal=True, no_color=True)

    assert "⟦" in out
    assert "⟧" in out


def test_a_row_is_never_broken_where_it_has_no_line_break():
    out = printed(print_rows, [row((("word " * 100,), False))], tokens=False)

    assert "word " * 100 in out


def test_lint_groups_findings_by_code_and_says_how_many_more_there_are(opened):
    outcome = ftkit("data", "rows.jsonl", "lint", "--rows", "2")

    lines = outcome.out.splitlines()
    assert lines[0] == "secret  5"
    assert "take it out and revoke it" in " ".join(lines[1:3])
    assert "  a.jsonl:1: turn 1: API key sk-a…" in lines
    assert "  a.jsonl:3: turn 1: API key sk-a…" not in lines
    assert "  … and 3 more" in lines
    assert "e-mail  1" in lines


def test_json_of_lint_explains_its_codes(opened):
    found = json.loads(ftkit("data", "rows.jsonl", "lint", "--json").out)

    assert found["counts"] == {"secret": 5, "e-mail": 1}
    assert set(found["codes"]) == {"secret", "e-mail"}
    assert len(found["findings"]) == 6
    assert found["rows"] == 1000


def test_nothing_suspicious_is_said_in_words(opened, monkeypatch):
    monkeypatch.setattr(FakeView, "report", REPORT | {"lint": {"counts": {}, "findings": []}})

    assert ftkit("data", "rows.jsonl", "lint").out == "Nothing suspicious in 1,000 rows of rows.jsonl.\n"


def test_free_text_gets_no_list_of_answers():
    report = REPORT | {"answers": {"distinct": 9, "top": [{"text": "once", "rows": 1, "share": 1 / 9}]}}
    out = printed(print_stats, report, "rows.jsonl")

    assert "9 different, none twice" in out
    assert "once" not in out


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\tb\n", "a⇥b⏎"), ("\x1b[2J", "␛[2J"), ("\x00\x7f", "␀␡"), ("a\u202eb", "a<U+202E>b"), ("\x9b", "<U+009B>"),
     ("é 日本 😀", "é 日本 😀")],
)  # fmt: skip
def test_what_could_drive_a_terminal_is_made_visible(text, shown):
    assert visible(text) == shown
