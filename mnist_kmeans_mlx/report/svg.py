"""Charts for the page: SVG that grows with the screen while its letters keep their size.

Places are percentages of the chart, so there is no ``viewBox`` that would shrink the text on a
phone; only lines and areas, which cannot have percentages, lie in an inner one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mnist_kmeans_mlx.report.axes import Axis, Chart, Series
from mnist_kmeans_mlx.report.markup import Markup, tag

SHAPES = ("circle", "square", "triangle", "diamond")


def draw(chart: Chart) -> Markup:
    """Draw lines over two axes; title and axes are also what a screen reader says."""
    x, y, series = chart.x, chart.y, chart.series
    grid: list[Any] = []
    for at in y.at:
        place = f"{100 - y.place(at):.2f}%"
        grid += [
            tag("line", x1=0, x2="100%", y1=place, y2=place, class_="grid"),
            tag("text", y.write(at), x=-8, y=place, class_="tick left"),
        ]
    for at in x.at:
        place = f"{x.place(at):.2f}%"
        grid.append(tag("text", x.write(at), x=place, y="100%", dy=18, class_="tick below"))
    for at, words in chart.marked:
        place = f"{x.place(at):.2f}%"
        side = "end" if x.place(at) > 50 else "start"
        grid += [
            tag("line", x1=place, x2=place, y1=0, y2="100%", class_="mark"),
            tag("text", words, x=place, y=12, dx=-6 if side == "end" else 6,
                class_="tick", text_anchor=side),
        ]  # fmt: skip
    inner, marks = [], []
    for one in series:
        kind = f"s{one.style % len(SHAPES)}" + (" faint" if one.faint else "")
        if one.band:
            upper = [(at, high) for at, _, high in one.band]
            lower = [(at, low) for at, low, _ in reversed(one.band)]
            inner.append(tag("polygon", points=_path(x, y, upper + lower), class_=f"band {kind}"))
        inner.append(tag("polyline", points=_path(x, y, one.points), class_=f"curve {kind}"))
        if one.marks:
            marks += [
                tag("use", href=f"#{SHAPES[one.style % len(SHAPES)]}", class_=f"point {kind}",
                    x=f"{x.place(at):.2f}%", y=f"{100 - y.place(value):.2f}%")
                for at, value in one.points
            ]  # fmt: skip
    drawing = tag(
        "svg", grid,
        tag("svg", inner, viewBox="0 0 100 100", preserveAspectRatio="none",
            width="100%", height="100%"),
        marks,
        width="100%", height="100%", role="img",
        aria_label=f"{chart.title}: {y.label} against {x.label}.",
    )  # fmt: skip
    return tag(
        "figure",
        tag("figcaption", tag("b", chart.title), tag("span", y.label, class_="axis")),
        _legend(series) if len(series) > 1 else None,
        tag("div", drawing, class_="plot"),
        tag("p", x.label, class_="axis below"),
        class_="chart",
    )


def _path(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x.place(a):.2f},{100 - y.place(b):.2f}" for a, b in points)


def _legend(series: Sequence[Series]) -> Markup:
    """Say which line is which."""
    entries = {one.name: one for one in series}
    items = []
    for name, one in entries.items():
        kind = f"s{one.style % len(SHAPES)}"
        drawn = [tag("line", x1=1, x2=27, y1=7, y2=7, class_=f"curve {kind}")]
        if one.marks:
            shape = SHAPES[one.style % len(SHAPES)]
            drawn.append(tag("use", href=f"#{shape}", x=14, y=7, class_=f"point {kind}"))
        items.append(tag("li", tag("svg", drawn, width=28, height=14, aria_hidden="true"), name))
    return tag("ul", items, class_="legend")


def bar(share: float, style: str, low: float | None = None, high: float | None = None) -> Markup:
    """Draw a horizontal bar; with `low` and `high`, the range of the measurements over it."""
    parts = [tag("rect", width=f"{100 * min(1.0, share):.2f}%", height="100%", class_=style)]
    if low is not None and high is not None and high > low:
        a, b = f"{100 * low:.2f}%", f"{100 * high:.2f}%"
        parts += [
            tag("line", x1=a, x2=b, y1="50%", y2="50%", class_="whisker"),
            *(tag("line", x1=c, x2=c, y1="25%", y2="75%", class_="whisker") for c in (a, b)),
        ]
    return tag("svg", parts, class_="bar", width="100%", height="100%", aria_hidden="true")


def defs() -> Markup:
    """Shapes of the points and hatches of the bars, which all charts of the page share."""
    shapes = (
        tag("circle", id="circle", r=4),
        tag("rect", id="square", x=-3.6, y=-3.6, width=7.2, height=7.2),
        tag("path", id="triangle", d="M0 -5L4.8 3.6H-4.8Z"),
        tag("path", id="diamond", d="M0 -5.4L5.4 0L0 5.4L-5.4 0Z"),
        *(
            tag("pattern", tag("path", d="M-1 1L1 -1M0 6L6 0M5 7L7 5", class_=name), id=name,
                width=6, height=6, patternUnits="userSpaceOnUse")
            for name in ("hatch", "hatch-ours")
        ),
    )  # fmt: skip
    return tag("svg", tag("defs", shapes), width=0, height=0, aria_hidden="true", class_="defs")
