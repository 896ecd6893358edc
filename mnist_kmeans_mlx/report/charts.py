"""Parts of the page that are curves: everything against K, and SSE over the iterations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mnist_kmeans_mlx.experiment.records import MEASURES, curve_of
from mnist_kmeans_mlx.report.axes import Axis, Chart, Series, log_ticks, ticks
from mnist_kmeans_mlx.report.markup import Markup, join, table, tag
from mnist_kmeans_mlx.report.material import Material
from mnist_kmeans_mlx.report.parts import percent, seconds, short
from mnist_kmeans_mlx.report.svg import draw

Values = Mapping[str, Any]

_NAMES = {
    "train_accuracy": "Train accuracy",
    "test_accuracy": "Test accuracy",
    "inertia": "SSE",
    "nmi": "NMI",
    "silhouette": "Silhouette",
    "seconds": "Seconds",
}
_WRITE: dict[str, Callable[[float], str]] = {
    "train_accuracy": percent,
    "test_accuracy": percent,
    "inertia": short,
    "nmi": "{:.4f}".format,
    "silhouette": "{:.4f}".format,
    "seconds": seconds,
}
# Title, unit and lines of each chart.
_CHARTS = (
    ("Accuracy", "share of rows recognised, %", ("test_accuracy", "train_accuracy")),
    ("SSE", "sum of squared distances", ("inertia",)),
    ("NMI", "normalised mutual information, 0 to 1", ("nmi",)),
    ("Silhouette", "mean of sampled rows, −1 to 1", ("silhouette",)),
    ("Time", "seconds per fit", ("seconds",)),
)
# Values whose ratio is more than this are drawn on a logarithmic axis.
_WIDE = 20


def curves(material: Material) -> list[Values]:
    """Curves against K: of each sweep, or of several fits with different K."""
    if material.sweeps:
        return [sweep for sweep in material.sweeps if len(sweep["curve"]) > 1]
    cells = [{**fit, **{name: _measure(fit, name) for name in MEASURES}} for fit in material.fits]
    curve = curve_of(cells)
    if len(curve) < 2:
        return []
    return [{"curve": curve, "elbow": None, "cells": cells, "data": material.data}]


def _measure(fit: Values, name: str) -> float | None:
    part = name.partition("_")[0]
    if name.endswith("accuracy"):
        return fit["scores"][part]["accuracy"] if fit["scores"][part] else None
    if name == "seconds":
        return float(fit["timings"]["fit"])
    return fit["inertia"] if name == "inertia" else None


def against_k_lead(material: Material) -> str:
    """What the curves say."""
    for sweep in curves(material):
        if sweep.get("elbow"):
            return (
                f"The SSE curve bends most at K = {sweep['elbow']['n_clusters']}, on a "
                "logarithmic scale and within this range. Lines join medians over the seeds, "
                "bands reach from the lowest to the highest."
            )
    return "Lines join medians; bands reach from the lowest to the highest."


def against_k(material: Material) -> Markup | None:
    """Charts of each measure against K, and the numbers behind them."""
    parts = []
    for sweep in curves(material):
        parts.append(tag("div", map(draw, charts_of(sweep)), class_="pair first"))
        parts.append(_table(sorted(sweep["curve"], key=lambda point: point["n_clusters"])))
    return join(parts) if parts else None


def charts_of(sweep: Values) -> list[Chart]:
    """Each measure of a sweep against K, if there is anything to see."""
    drawn = (_against_k(sweep, *one) for one in _CHARTS)
    return [chart for chart in drawn if chart is not None]


def _against_k(sweep: Values, title: str, unit: str, names: Sequence[str]) -> Chart | None:
    curve = sorted(sweep["curve"], key=lambda point: point["n_clusters"])
    scale = 100 if unit.endswith("%") else 1
    series = []
    for style, name in enumerate(names):
        known = [(p["n_clusters"], p[name]) for p in curve if p.get(name) is not None]
        points = [(k, scale * one["median"]) for k, one in known]
        band = [(k, scale * one["low"], scale * one["high"]) for k, one in known]
        if known:
            series.append(Series(_NAMES[name], points, style, band))
    if not series:
        return None
    low = min(value for one in series for _, value, _ in one.band)
    high = max(value for one in series for _, _, value in one.band)
    log = 0 < _WIDE * low < high
    at = log_ticks(low, high) if log else ticks(0 if title == "Time" else low, high)
    y = Axis(unit, at[0], at[-1], at, short, log)
    elbow = sweep.get("elbow") if title == "SSE" else None
    marked = [(float(elbow["n_clusters"]), f"elbow, K = {elbow['n_clusters']}")] if elbow else []
    return Chart(title, _axis_of_k([point["n_clusters"] for point in curve]), y, series, marked)


def _axis_of_k(counts: Sequence[float]) -> Axis:
    """Axis with ticks at the numbers of clusters that were tried; logarithmic if they go far."""
    low, high = min(counts), max(counts)
    if low == high or low <= 0:
        low, high = low - 1, high + 1
    axis = Axis("number of clusters K", low, high, (), log=low > 0 and high >= 4 * low)
    # Ticks that would run into each other are left out.
    at: list[float] = []
    for count in sorted(set(counts)):
        if not at or axis.place(count) - axis.place(at[-1]) > 10:
            at.append(count)
    return Axis(axis.label, low, high, at, log=axis.log)


def _table(curve: Sequence[Values]) -> Markup:
    names = [name for name in MEASURES if any(point.get(name) for point in curve)]
    rows = []
    for point in curve:
        cells = [
            tag("td", _WRITE[name](point[name]["median"]) if point.get(name) else "–")
            for name in names
        ]
        rows.append(tag("tr", tag("th", point["n_clusters"], scope="row"), cells))
    shown = table(["K", *(_NAMES[name] for name in names)], rows)
    return tag("details", tag("summary", "The numbers"), tag("div", shown, class_="scroll"))


def convergence(material: Material) -> Markup | None:
    """SSE over the iterations of each restart, for fits that recorded it."""
    charts = [chart for chart in map(convergence_of, material.fits) if chart is not None]
    return tag("div", map(draw, charts), class_="pair") if charts else None


def convergence_of(fit: Values) -> Chart | None:
    """SSE over the iterations of each restart of a fit."""
    history = [run for run in fit.get("history") or () if run]
    longest = max((len(run) for run in history), default=0)
    if longest < 2:
        return None
    # The first iterations fall so far that they would flatten the rest.
    shown = [value for run in history for value in run[min(2, len(run) - 1) :]]
    at = ticks(min(shown), max(shown), 4)
    x = Axis("iteration", 1, longest, _whole(longest), log=longest > 20)
    y = Axis("SSE, sum of squared distances", at[0], at[-1], at, short)
    best = min(range(len(history)), key=lambda i: history[i][-1])
    series = [
        Series(
            f"best, {len(run)} iterations" if j == best else "other restarts",
            [(i + 1, value) for i, value in enumerate(run) if value <= y.high],
            style=0 if j == best else 1, marks=False, faint=j != best,
        )
        for j, run in sorted(enumerate(history), key=lambda pair: pair[0] == best)
    ]  # fmt: skip
    restarts = f"{len(history)} restart{'s' * (len(history) > 1)}"
    return Chart(f"K = {fit['n_clusters']}, {restarts}", x, y, series)


def _whole(high: int) -> list[float]:
    """Ticks of an axis of iterations."""
    found = [n for n in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if n <= high]
    return [float(n) for n in found]
