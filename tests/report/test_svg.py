from __future__ import annotations

import re
from pathlib import Path

import pytest

from ftkit.report import svg as svg_module
from ftkit.report.read import read_run
from ftkit.report.sections import curves
from ftkit.report.svg import Series, line_chart, nth_style, share_bar, thinned, tick_texts, ticks
from tests.report.folder import METRICS, write_run


def chart(*series: Series, label_width: float = 0) -> str:
    return line_chart(list(series), title="t", size=(286, 156), y_text=lambda y: f"{y:.1f}", label_width=label_width)


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in line.split()] for line in lines]


def test_points_land_where_the_axes_say():
    # The plot spans x 62 to 286 - 24 = 262 and y 12 to 156 - 44 = 112: 200 by 100 pixels.
    svg = chart(Series(name="a", points=[(0, 1.0), (5, 2.0), (10, 3.0)], style="training"))

    # Ticks of y: 1.0, 1.5, ... 3.0, so 1.0 stands on the axis and 3.0 at the top.
    assert points_of(svg) == [[(62, 112), (162, 62), (262, 12)]]


def test_the_step_axis_ends_at_the_last_step_and_starts_at_a_tick():
    svg = chart(Series(name="a", points=[(3, 1.0), (50, 2.0)], style="training"))

    (line,) = points_of(svg)
    assert line[0][0] == pytest.approx(62 + 200 * 3 / 50, abs=0.05)
    assert line[-1][0] == 262


def test_end_labels_of_lines_that_meet_do_not_overlap():
    svg = chart(
        Series(name="a", points=[(0, 3.0), (10, 1.0)], style="training"),
        Series(name="b", points=[(0, 2.0), (10, 1.0)], style="validation"),
        label_width=80,
    )

    heights = [float(y) for y in re.findall(r'<text x="[^"]*" y="([^"]*)" class="label', svg)]
    assert heights == [98, 116]  # both belong at the axis, 112 + 4; the upper one moves 18 up


def test_a_single_point_is_drawn_as_a_dot():
    assert "<circle" in chart(Series(name="a", points=[(0, 2.0)], style="training"))


def test_a_constant_is_drawn_in_the_middle():
    svg = chart(Series(name="a", points=[(0, 2.0), (10, 2.0)], style="training"))

    assert points_of(svg) == [[(62, 62), (262, 62)]]  # ticks 1 to 3


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1.2, 2.3, [1.0, 1.5, 2.0, 2.5]),  # 1.1 / 5 = 0.22, and the next round step is 0.5
        (0, 2e-4, [0, 5e-5, 1e-4, 1.5e-4, 2e-4]),
        (3, 3 + 1e-15, [1, 2, 3, 4, 5]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_cover_the_values(low, high, expected):
    assert ticks(low, high, 5) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(1e300, 2e300), (5e-324, 1e-323), (-1e9, 1e9), (1e-12, 1)])
def test_ticks_survive_extreme_values(low, high):
    values = ticks(low, high, 5)

    assert 3 <= len(values) <= 12
    assert len(set(tick_texts(values))) == len(values)


def test_ticks_of_steps_are_whole():
    assert ticks(0, 3, 8, whole=True) == [0, 1, 2, 3]


def test_labels_of_one_axis_have_the_same_number_of_places():
    assert tick_texts([0.5, 1.0, 1.5]) == ["0.5", "1.0", "1.5"]
    assert tick_texts([0, 5e-5, 1e-4, 1.5e-4, 2e-4]) == ["0", "0.5e-4", "1.0e-4", "1.5e-4", "2.0e-4"]
    assert tick_texts([0, 100, 200]) == ["0", "100", "200"]


def test_long_curves_are_thinned_to_means_that_keep_both_ends():
    points = [(float(step), float(step % 2)) for step in range(1, 10_001)]

    shown = thinned(points, limit=100)

    assert len(shown) == 100
    assert (shown[0], shown[-1]) == (points[0], points[-1])
    assert all(abs(y - 0.5) < 0.01 for _, y in shown[1:-1])


def test_bar_parts_have_widths_in_proportion():
    widths = re.findall(
        r'<rect x="([^"]*)" y="0" width="([^"]*)"', share_bar([(80, "a"), (15, "b"), (5, "c")], title="t")
    )

    assert widths == [("0", "800"), ("800", "150"), ("950", "50")]


def test_a_step_that_a_resumed_run_repeats_counts_with_its_last_line(tmp_path):
    metrics = [METRICS[2] | {"loss": 9.0}, METRICS[1], METRICS[2]]

    assert read_run(write_run(tmp_path, metrics=metrics)).series("loss") == [(1, 2.9), (2, 2.0)]


def test_validation_that_turned_up_again_is_pointed_out(tmp_path):
    metrics = [{"step": step, "validation_loss": loss} for step, loss in ((0, 3.0), (10, 2.0), (20, 2.5))]

    html = curves(read_run(write_run(tmp_path, metrics=metrics)))

    assert "Validation loss was lowest at step 10 (2.000)" in html


def test_training_and_validation_differ_by_more_than_colour(tmp_path):
    html = curves(read_run(write_run(tmp_path)))

    training, validation = re.findall(r'<g class="(?:training|validation)">.*?</g>', html)
    assert training.count("<circle") == 0
    assert validation.count("<circle") == 2
    assert ">validation 2.250</text>" in html


def test_the_first_eight_lines_of_equal_rank_are_drawn_in_ways_of_their_own():
    css = Path(svg_module.__file__).with_name("report.css").read_text(encoding="utf-8")
    looks = []
    for number in range(8):
        style = nth_style(number)
        rules = [body for names, body in re.findall(r"^([^{}@\n]+)\{([^}]*)\}", css, re.M) if f".{style}" in names]
        looks.append(" ".join(rules))
    assert all("--ink" in one for one in looks) and len(set(looks)) == 8
    assert nth_style(8) == nth_style(0)
