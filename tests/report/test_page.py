from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from ftkit.errors import UsageError
from ftkit.report import write_report
from tests.report.folder import DATA, METRICS, RESULT, SAMPLES, VERIFICATION, write_run

ALL_BUT_RECIPE = ("metrics.jsonl", "data_report.json", "result.json", "samples.json", "export/adapter/verify.json")


def page(folder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def words(html: str) -> str:
    """What a reader sees: text without tags and style, spaces as one."""

    class Text(HTMLParser):
        seen = ""
        hidden = False

        def handle_starttag(self, tag, attrs):
            self.hidden = tag == "style"
            self.seen += " " if tag in {"td", "th", "p", "li", "dt", "dd", "div", "h1", "h2", "h3", "text"} else ""

        def handle_endtag(self, tag):
            self.hidden = False

        def handle_data(self, data):
            self.seen += "" if self.hidden else data

    text = Text()
    text.feed(html)
    return " ".join(text.seen.split())


def test_the_first_sentences_name_the_figures_before_and_after(tmp_path):
    text = words(page(write_run(tmp_path)))

    assert (
        "Trained for 2 steps. Loss on 15 validation rows fell from 3.000 to 2.250 (better). "
        "Exact match rose from 0% to 72.5% (better). The export passed all its checks."
    ) in text
    assert "lora on tiny-llama" in text
    assert "25% lower" in text  # (3 - 2.25) / 3


def test_a_loss_that_rose_is_called_worse(tmp_path):
    losses = {"validation_before": 2.0, "validation_after": 2.5}

    text = words(page(write_run(tmp_path, result=RESULT | {"losses": losses})))

    assert "rose from 2.000 to 2.500 (worse)" in text
    assert "25% higher" in text


def test_time_speed_memory_and_parameters_are_shown_in_readable_units(tmp_path):
    text = words(page(write_run(tmp_path)))

    for shown in ("1 min 35 s", "1,234 tokens/s", "3.0 GiB", "0.5% of 1M", "torch 2.9.0"):
        assert shown in text


def test_every_row_is_accounted_for_and_the_sum_is_checked(tmp_path):
    text = words(page(write_run(tmp_path)))

    assert "trained on 80 80%" in text
    assert "kept for validation 15 15%" in text
    assert "dropped: longer than max_length 5 5%" in text
    assert "rows read 100 ✓ adds up" in text
    assert "500 (25%)" in text  # supervised of 2000 tokens
    assert "training rows 7 24 25 50 61 64" in text  # min, p50, mean, p95, max, max_length


@pytest.mark.parametrize(("rows_in", "verdict"), [(103, "✗ 3 unaccounted for"), (98, "✗ 2 too many")])
def test_rows_that_do_not_add_up_are_shown(tmp_path, rows_in, verdict):
    assert f"rows read {rows_in} {verdict}" in words(page(write_run(tmp_path, data=DATA | {"rows_in": rows_in})))


def test_leaks_are_named_beside_the_figures_that_they_spoil(tmp_path):
    text = words(page(write_run(tmp_path, data=DATA | {"leaks": 4})))

    assert "Beware: 4 validation rows are also trained on" in text


def test_samples_say_in_words_whether_they_match(tmp_path):
    text = words(page(write_run(tmp_path)))

    assert "2+2? 4 ✗ differs five ✓ matches 4" in text


def test_an_answer_that_was_not_generated_is_not_called_wrong(tmp_path):
    text = words(page(write_run(tmp_path, samples=[SAMPLES[0] | {"before": None}])))

    assert "2+2? 4 not generated ✓ matches 4" in text


def test_checks_show_measured_values_beside_limits_with_their_direction(tmp_path):
    text = words(page(write_run(tmp_path)))

    assert "Predicts what the trained model predicts logits_match_trained ✓ passed" in text
    assert "max abs diff 0.00021 top1 agreement 1" in text
    assert "max abs diff ≤ 0.005 top1 agreement ≥ 0.995" in text


def test_one_failed_check_fails_the_export_whatever_the_summary_says(tmp_path):
    checks = [*VERIFICATION["checks"], {"name": "greedy_text_match", "passed": False, "detail": "prompt 2 parts"}]

    text = words(page(write_run(tmp_path, verification={"passed": True, "checks": checks})))

    assert text.count("✗ an export failed its checks") == 1
    assert "0 of 1 exports passed all their checks; 1 failed and must not be used." in text
    assert "✗ failed prompt 2 parts" in text


def test_a_verification_without_checks_proves_nothing(tmp_path):
    assert "No export was verified." in words(page(write_run(tmp_path, verification={"passed": True, "checks": []})))


@pytest.mark.parametrize("name", ALL_BUT_RECIPE)
def test_a_missing_file_is_named_and_the_rest_is_shown(tmp_path, name):
    text = words(page(write_run(tmp_path, without=(name,))))

    if not name.startswith("export/"):  # without verify.json the folder is not there either
        assert f"Missing from this run folder {name} is not there" in text
    assert "lora on tiny-llama" in text
    assert text.count("Missing from this run folder") == (0 if name.startswith("export/") else 1)


@pytest.mark.parametrize("name", ALL_BUT_RECIPE)
@pytest.mark.parametrize(
    "content", ['{"half": ', "null", '"text"', "[1, null]", "{}", '{"checks": 3, "lengths": []}']
)
def test_a_damaged_file_never_stops_the_report(tmp_path, name, content):
    folder = write_run(tmp_path)
    (folder / name).write_text(content)

    assert "lora on tiny-llama" in words(page(folder))


def test_an_interrupted_run_says_how_far_it_came(tmp_path):
    text = words(page(write_run(tmp_path, without=("result.json", "samples.json", "export/adapter/verify.json"))))

    assert "● not finished" in text
    assert "it reached step 2. Loss on 15 validation rows fell from 3.000 to 2.250 so far (better)." in text
    assert "50 tokens/s" in text  # 200 tokens in the 4 seconds of the last line
    assert "adapter ● not written" in text


def test_a_run_that_was_stopped_early_is_not_called_finished(tmp_path):
    text = words(page(write_run(tmp_path, result=RESULT | {"total_steps": 10})))

    assert "it reached step 2 of 10." in text
    assert "✓ finished" not in text


def test_a_recipe_alone_makes_a_page(tmp_path):
    text = words(page(write_run(tmp_path, without=ALL_BUT_RECIPE)))

    assert "The run has not finished; it has not trained yet. Nothing was measured yet." in text
    assert "recipe: lora" in text


def test_without_validation_the_page_says_what_training_loss_cannot_show(tmp_path):
    losses = {"first_train": 2.9, "last_train": 2.0}
    metrics = [line for line in METRICS if "loss" in line]

    text = words(page(write_run(tmp_path, metrics=metrics, result=RESULT | {"losses": losses})))

    assert "Training loss went from 2.900 to 2.000. Nothing was measured after training on rows" in text


def test_a_folder_without_recipe_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not a run folder"):
        write_report(tmp_path)


def test_text_from_the_data_never_becomes_markup(tmp_path):
    attack = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
    folder = write_run(
        tmp_path,
        recipe=f"recipe: lora\nnote: {attack!r}\n",
        samples=[dict.fromkeys(("prompt", "reference", "before", "after"), attack)],
        data=DATA | {"dropped": {attack: 5}, "stop_tokens": [attack], "files": [{"path": attack, "format": attack}]},
        result=RESULT | {"model": attack, "recipe": attack, "versions": {attack: attack},
                         "metrics": {"before": {attack: 0.1}, "after": {attack: 0.2}},
                         "exports": [{"kind": attack, "path": attack, "dtype": attack}]},
        verification={"passed": True, "checks": [{"name": attack, "value": {attack: attack}, "limit": attack,
                                                  "detail": attack, "passed": True}]},
    )  # fmt: skip

    html = page(folder)

    assert "<script" not in html
    assert "<img" not in html
    assert html.count("&lt;script&gt;alert(1)") >= 15
    assert attack in words(html)  # shown as it was written


def test_lone_surrogates_and_control_characters_do_not_stop_the_report(tmp_path):
    text = words(page(write_run(tmp_path, samples=[SAMPLES[0] | {"after": "a\ud800b\x00c"}])))

    assert "a\ufffdb\ufffdc" in text


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    html = page(write_run(tmp_path))

    assert not re.search(r"https?:|//[a-z]|@import|url\(|\ssrc=|\shref=|<script|<link", html)
    assert "default-src &#x27;none&#x27;; style-src &#x27;unsafe-inline&#x27;" in html


def test_every_element_that_opens_also_closes(tmp_path):
    open_elements = []

    class Balance(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                open_elements.append(tag)

        def handle_endtag(self, tag):
            assert open_elements.pop() == tag

    Balance().feed(page(write_run(tmp_path)))

    assert open_elements == []


def test_the_same_files_give_the_same_bytes_and_no_machine_path(tmp_path):
    folder = write_run(tmp_path)

    first = write_report(folder).read_bytes()

    assert write_report(folder).read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert sorted(path.name for path in folder.iterdir()) == [
        "data_report.json", "export", "metrics.jsonl", "recipe.yaml", "report.html", "result.json", "samples.json",
    ]  # fmt: skip


def test_a_report_is_written_without_torch():
    program = "import sys, ftkit.report; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
