"""metrics.jsonl keeps what was measured, whatever happens to the run."""

from __future__ import annotations

import math

import pytest

from ftkit.train.metrics_log import MetricsLog


def test_lines_come_back_as_they_were_written(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    lines = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-30}]
    for line in lines:
        log.write(line)

    assert log.read() == lines
    assert MetricsLog(tmp_path / "absent.jsonl").read() == []


def test_a_line_that_a_crash_cut_short_is_left_out_and_does_not_spoil_the_next(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"step": 1})
    with log.path.open("a") as stream:
        stream.write('{"step": 2, "lo')

    assert log.read() == [{"step": 1}]
    log.keep_through(1)
    log.write({"step": 2})
    assert log.read() == [{"step": 1}, {"step": 2}]


def test_keep_through_forgets_what_came_after_the_step(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (0, 1, 2, 2, 3):
        log.write({"step": step})

    log.keep_through(2)

    assert [line["step"] for line in log.read()] == [0, 1, 2, 2]


def test_what_is_not_json_is_never_written(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")

    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write({"step": 1, "loss": math.nan})
    assert log.read() == []
