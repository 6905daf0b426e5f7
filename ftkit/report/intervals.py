"""Charts of values with intervals: one under the other, or over a cost."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ftkit.report.markup import Markup, element, join
from ftkit.report.svg import Frame, tick_texts, ticks

ROW, NAMES, WIDTH = 24.0, 170.0, 760.0


@dataclass(frozen=True, kw_only=True)
class IntervalBar:
    """A value and its interval.

    Attributes:
        name: What it is of.
        value: The value.
        low: Of the interval; None where it has none.
        high: Of the interval.
    """

    name: str
    value: float
    low: float | None
    high: float | None

    @property
    def span(self) -> tuple[float, float]:
        """Lowest and highest that is drawn."""
        low = self.value if self.low is None else self.low
        high = self.value if self.high is None else self.high
        return min(low, self.value), max(high, self.value)


def interval_chart(bars: Sequence[IntervalBar], *, title: str) -> Markup:
    """Draw values under each other, each as a dot on its interval.

    Args:
        bars: At least one.
        title: What a screen reader says.
    """
    low, high = min(0.0, *(bar.span[0] for bar in bars)), max(bar.span[1] for bar in bars)
    marks = ticks(low, high if high > low else low + 1.0, 6)
    height = ROW * len(bars) + 34
    frame = Frame(
        left=NAMES, right=WIDTH - 70, top=6, bottom=height - 28, x_range=(marks[0], marks[-1]), y_range=(0, 1)
    )
    parts: list[str | None] = []
    for value, text in zip(marks, tick_texts(marks), strict=True):
        x = frame.x(value)
        parts.append(element("line", x1=x, x2=x, y1=frame.top, y2=frame.bottom, class_="grid"))
        parts.append(element("text", text, x=x, y=frame.bottom + 18, text_anchor="middle"))
    for number, bar in enumerate(bars):
        y = frame.top + ROW * (number + 0.5)
        low, high = bar.span
        parts.append(element("text", bar.name, x=NAMES - 10, y=y + 4, text_anchor="end"))
        parts.append(element("line", x1=frame.x(low), x2=frame.x(high), y1=y, y2=y, class_="interval"))
        parts.append(element("circle", element("title", _words(bar)), cx=frame.x(bar.value), cy=y, r=4, class_="dot"))
        parts.append(element("text", f"{bar.value:.3f}", x=WIDTH - 60, y=y + 4))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=title, class_="chart")


def cost_chart(
    points: Sequence[tuple[IntervalBar, float]],
    *,
    title: str,
    x_title: str,
    y_title: str,
    lower_is_better: bool,
    apart: Collection[str] = (),
) -> Markup:
    """Draw values over what they cost, and join those that no other beats in both.

    Args:
        points: Each value with its cost, from 0; at least one.
        title: What a screen reader says.
        x_title: What the cost is.
        y_title: What the value is.
        lower_is_better: Of the value; of a cost lower always is.
        apart: Names that are drawn and not joined, as nobody can have them.
    """
    x_marks = ticks(0.0, max(cost for _, cost in points) or 1.0, 6)
    y_marks = ticks(min(bar.span[0] for bar, _ in points), max(bar.span[1] for bar, _ in points), 6)
    height = 400.0
    frame = Frame(
        left=70, right=WIDTH - 150, top=12, bottom=height - 46, x_range=(x_marks[0], x_marks[-1]),
        y_range=(y_marks[0], y_marks[-1]),
    )  # fmt: skip
    parts: list[str | None] = []
    for value, text in zip(y_marks, tick_texts(y_marks), strict=True):
        y = frame.y(value)
        parts.append(element("line", x1=frame.left, x2=frame.right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", text, x=frame.left - 8, y=y + 4, text_anchor="end"))
    for value, text in zip(x_marks, tick_texts(x_marks), strict=True):
        parts.append(element("text", text, x=frame.x(value), y=frame.bottom + 18, text_anchor="middle"))
    middle = (frame.left + frame.right) / 2
    parts.append(element("text", x_title, x=middle, y=height - 8, text_anchor="middle"))
    parts.append(element("text", y_title, x=frame.left, y=frame.top - 2))
    for_sale = [(cost, bar.value) for bar, cost in points if bar.name not in apart]
    front = pareto_front(for_sale, lower_is_better=lower_is_better)
    path = " ".join(f"{frame.x(x):.1f},{frame.y(y):.1f}" for x, y in front)
    parts.append(element("polyline", points=path, class_="front"))
    taken: list[tuple[float, float]] = []
    for bar, cost in sorted(points, key=lambda point: frame.y(point[0].value)):
        x, y = frame.x(cost), frame.y(bar.value)
        low, high = bar.span
        parts.append(element("line", x1=x, x2=x, y1=frame.y(low), y2=frame.y(high), class_="interval"))
        parts.append(element("circle", element("title", _words(bar)), cx=x, cy=y, r=4, class_="dot"))
        line = y + 4
        while any(abs(line - other) < 14 and abs(x - place) < 130 for place, other in taken):
            line += 3
        taken.append((x, line))
        parts.append(element("text", bar.name, x=x + 8, y=line))
    return element("svg", *parts, viewBox=f"0 0 {WIDTH:g} {height:g}", role="img", aria_label=title, class_="chart")


def pareto_front(points: Sequence[tuple[float, float]], *, lower_is_better: bool) -> list[tuple[float, float]]:
    """Of (cost, value) those that no other beats: none is as cheap and better, or cheaper and as good."""
    sign = 1.0 if lower_is_better else -1.0
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], sign * point[1])):
        if not front or sign * value < sign * front[-1][1]:
            front.append((cost, value))
    return front


def _words(bar: IntervalBar) -> Markup:
    between = "" if bar.low is None else f", {bar.low:.3f} to {bar.high:.3f}"
    return join(f"{bar.name}: {bar.value:.3f}{between}")
