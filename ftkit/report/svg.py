"""Line charts as inline SVG. Colours and line styles live in report.css, so that they follow the reader's theme."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from ftkit.report.markup import Markup, element, join

Point = tuple[float, float]
MAX_POINTS = 400  # a point every two or three pixels; more is only weight
MAX_MARKERS = 60
LABEL_HEIGHT = 18.0
ALIKE = tuple(f"line-{number}" for number in range(1, 9))  # CSS classes of lines of equal rank, in four colours


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart.

    Attributes:
        name: As in the legend.
        points: (x, y) in order of x.
        style: The CSS class that draws it.
        markers: Whether points are marked (where they are few), as for values measured now and then.
    """

    name: str
    points: list[Point]
    style: str
    markers: bool = False


def nth_style(number: int) -> str:
    """The CSS class of a line among others of equal rank, from 0; no two of the first eight look alike."""
    return ALIKE[number % len(ALIKE)]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where the plot stands in the picture and which values it spans."""

    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def x(self, value: float) -> float:
        """Pixels from the left."""
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (self.right - self.left)

    def y(self, value: float) -> float:
        """Pixels from the top; larger values stand higher."""
        low, high = self.y_range
        return self.bottom - (value - low) / (high - low) * (self.bottom - self.top)


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """Round values that cover ``low`` to ``high`` in about ``count`` steps of 1, 2 or 5 times a power of ten.

    Args:
        low: Smallest value.
        high: Largest value.
        count: About how many steps.
        whole: Whether fractions make no sense (steps of training).
    """
    # Values that differ by rounding alone are one value.
    if high - low <= max(1e-9 * max(abs(low), abs(high)), 1e-300):
        spread = abs(low) / 2 or 1.0
        low, high = (low, low + 1) if whole else (low - spread, high + spread)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    size = max(1.0, size) if whole else size
    first, last = math.floor(low / size + 1e-9), math.ceil(high / size - 1e-9)
    return [index * size for index in range(first, last + 1)]


def tick_texts(values: list[float]) -> list[str]:
    """Labels of an axis: all with as many places as its steps need, small and large ones as powers of ten."""
    largest = max(abs(value) for value in values)
    step = values[1] - values[0]
    # The hair more than the step: 0.1 as a difference of floats may come out below 0.1.
    step_power = math.floor(math.log10(step * (1 + 1e-9)))
    if largest < 1e-2 or largest >= 1e5:
        power = math.floor(math.log10(largest * (1 + 1e-9)))
        places = max(0, power - step_power)
        return [f"{value / 10.0**power:.{places}f}e{power}" if value else "0" for value in values]
    places = max(0, -step_power)
    return [f"{value:.{places}f}" for value in values]


def thinned(points: list[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most ``limit`` points, each the mean of neighbours; first and last stay where they are."""
    if len(points) <= limit:
        return points
    inner = points[1:-1]
    edges = [round(index * len(inner) / (limit - 2)) for index in range(limit - 1)]
    groups = [inner[start:end] for start, end in pairwise(edges) if end > start]
    means = [(sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups]
    return [points[0], *means, points[-1]]


def line_chart(
    series: list[Series],
    *,
    title: str,
    size: tuple[float, float],
    y_text: Callable[[float], str],
    label_width: float = 0,
    x_title: str = "step",
) -> Markup:
    """Draw series over the training step, or over another whole number.

    Args:
        series: What to draw; those without points are left out.
        title: What a screen reader says.
        size: Width and height of the picture.
        y_text: How a value is written beside the end of a line and on its markers.
        label_width: Room on the right for a name and last value at the end of each line; 0: no such labels.
        x_title: What the horizontal axis is.
    """
    drawn = [line for line in series if line.points]
    everything = [point for line in drawn for point in line.points]
    x_ticks = ticks(min(x for x, _ in everything), max(x for x, _ in everything), 8, whole=True)
    y_ticks = ticks(min(y for _, y in everything), max(y for _, y in everything), 5)
    width, height = size
    # The step axis ends at the last step: an empty rest would look like training that did not happen.
    last_x = max(max(x for x, _ in everything), x_ticks[0] + 1)
    frame = Frame(
        left=62, right=width - max(label_width, 24), top=12, bottom=height - 44,
        x_range=(x_ticks[0], last_x), y_range=(y_ticks[0], y_ticks[-1]),
    )  # fmt: skip
    parts = [_axes(frame, [x for x in x_ticks if x <= last_x], y_ticks, x_title)]
    parts += [_line(frame, line, y_text, x_title) for line in drawn]
    if label_width:
        parts.append(_end_labels(frame, drawn, y_text))
    return element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title,
        class_="chart" if label_width else "chart small",
    )  # fmt: skip


def share_chart(series: list[Series], *, title: str, size: tuple[float, float], x_title: str) -> Markup:
    """Draw shares over shares, both from 0 to 1.

    Args:
        series: What to draw, each with at least one point.
        title: What a screen reader says.
        size: Width and height of the picture.
        x_title: What the horizontal axis is.
    """
    width, height = size
    frame = Frame(left=62, right=width - 24, top=12, bottom=height - 44, x_range=(0, 1), y_range=(0, 1))
    shares = ticks(0, 1, 5)
    parts = []
    for value, text in zip(shares, tick_texts(shares), strict=True):
        x, y = frame.x(value), frame.y(value)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", text, x=frame.left - 8, y=y + 4, text_anchor="end"))
        parts.append(element("line", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 5, class_="axis"))
        parts.append(element("text", text, x=x, y=frame.bottom + 20, text_anchor="middle"))
    parts.append(element("line", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom, class_="axis"))
    middle = (frame.left + frame.right) / 2
    parts.append(element("text", x_title, x=middle, y=frame.bottom + 38, text_anchor="middle", class_="title"))
    parts += [_line(frame, line, lambda y: f"{y:.3f}", "at") for line in series]
    return element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_="chart small"
    )


def _axes(frame: Frame, x_ticks: list[float], y_ticks: list[float], x_title: str) -> Markup:
    parts = []
    for value, text in zip(y_ticks, tick_texts(y_ticks), strict=True):
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", text, x=frame.left - 8, y=y + 4, text_anchor="end"))
    for value in x_ticks:
        x = frame.x(value)
        parts.append(element("line", x1=x, x2=x, y1=frame.bottom, y2=frame.bottom + 5, class_="axis"))
        parts.append(element("text", f"{value:,.0f}", x=x, y=frame.bottom + 20, text_anchor="middle"))
    parts.append(element("line", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom, class_="axis"))
    middle = (frame.left + frame.right) / 2
    parts.append(element("text", x_title, x=middle, y=frame.bottom + 38, text_anchor="middle", class_="title"))
    return join(*parts)


def _line(frame: Frame, line: Series, y_text: Callable[[float], str], of: str = "step") -> Markup:
    shown = thinned(line.points)
    # A line through a single point is invisible; hundreds of markers hide the line.
    marked = len(shown) == 1 or (line.markers and len(shown) <= MAX_MARKERS)
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in shown)
    dots = [
        element(
            "circle",
            element("title", f"{line.name}, {of} {x:{'.3f' if of == 'at' else ',.0f'}}: {y_text(y)}"),
            cx=frame.x(x), cy=frame.y(y), r=4,
        )
        for x, y in shown
        if marked
    ]  # fmt: skip
    return element("g", element("polyline", points=path), *dots, class_=line.style)


def _end_labels(frame: Frame, lines: list[Series], y_text: Callable[[float], str]) -> Markup:
    """Name and last value of each line on its height, moved apart where two would overlap."""
    return join(
        *(
            element("text", f"{line.name} {y_text(line.points[-1][1])}",
                    x=frame.right + 10, y=y + 4, class_=f"label {line.style}")
            for y, line in _apart(frame, lines)
        )
    )  # fmt: skip


def _apart(frame: Frame, lines: list[Series]) -> list[tuple[float, Series]]:
    placed: list[tuple[float, Series]] = []
    for line in sorted(lines, key=lambda line: frame.y(line.points[-1][1])):
        y = frame.y(line.points[-1][1])
        placed.append((max(y, placed[-1][0] + LABEL_HEIGHT) if placed else y, line))
    # What was pushed below the axis moves up again, together with what stands above it.
    excess = max(0.0, placed[-1][0] - frame.bottom)
    return [(y - excess, line) for y, line in placed]


def share_bar(parts: list[tuple[float, str]], *, title: str) -> Markup:
    """A bar whose parts have widths in proportion; (value, CSS class) each."""
    total, x, shapes = sum(value for value, _ in parts), 0.0, []
    for value, style in parts:
        width = 1000 * value / total
        shapes.append(element("rect", x=x, y=0, width=width, height=14, class_=style))
        x += width
    return element(
        "svg", *shapes, viewBox="0 0 1000 14", preserveAspectRatio="none", role="img", aria_label=title, class_="bar"
    )


def bar_chart(bars: list[tuple[str, float, str]], *, title: str, size: tuple[float, float], x_title: str) -> Markup:
    """Draw counts as bars side by side.

    Args:
        bars: (label below the bar, count, what a reader sees on pointing at it) each, from left to right.
        title: What a screen reader says.
        size: Width and height of the picture.
        x_title: What the labels are.
    """
    width, height = size
    y_ticks = ticks(0, max(1, *(count for _, count, _ in bars)), 4, whole=True)
    frame = Frame(
        left=62, right=width - 24, top=12, bottom=height - 44, x_range=(0, len(bars)), y_range=(0, y_ticks[-1])
    )
    shapes: list[Markup] = []
    for value, text in zip(y_ticks, tick_texts(y_ticks), strict=True):
        y = frame.y(value)
        shapes.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        shapes.append(element("text", text, x=frame.left - 8, y=y + 4, text_anchor="end"))
    # A label needs about seven pixels a character: where bars are narrower, every second or third has one.
    longest = max(len(label) for label, _, _ in bars)
    every = math.ceil((7 * longest + 14) * len(bars) / (frame.right - frame.left))
    for index, (label, count, words) in enumerate(bars):
        # Never under a pixel for more than nothing, or a single outlier could not be seen.
        top = min(frame.y(count), frame.bottom - 1) if count else frame.bottom
        shape = element(
            "rect", element("title", words),
            x=frame.x(index + 0.06), width=frame.x(index + 0.94) - frame.x(index + 0.06),
            y=top, height=frame.bottom - top, class_="count",
        )  # fmt: skip
        shapes.append(shape)
        if index % every == 0:
            middle = frame.x(index + 0.5)
            shapes.append(element("text", label, x=middle, y=frame.bottom + 20, text_anchor="middle"))
    shapes.append(element("line", x1=frame.left, x2=frame.right, y1=frame.bottom, y2=frame.bottom, class_="axis"))
    middle = (frame.left + frame.right) / 2
    shapes.append(element("text", x_title, x=middle, y=frame.bottom + 38, text_anchor="middle", class_="title"))
    return element("svg", *shapes, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title, class_="chart")
