"""Shared by all figures: style, and writing files without a display.

Figures are made without ``pyplot``: no window, no state that outlives a call. What differs in
colour differs in lightness, hatch, dash or marker too, so that it survives a printer.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from mnist_kmeans_mlx.persistence.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mnist_kmeans_mlx.report.axes import Chart

FORMATS = (".png", ".svg", ".pdf")
# Okabe and Ito's colours, which also differ in lightness.
DARK, LIGHT, GREY = "#0072B2", "#E69F00", "#8a857a"
# Colour, dash and marker of each series.
_STYLES = ((DARK, "-", "o"), (LIGHT, "--", "s"))

_SETTINGS: dict[str, Any] = {
    "backend": "agg",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "figure.dpi": 160,
    "savefig.dpi": 160,
    "svg.hashsalt": "mnist-kmeans-mlx",  # the same figure is the same file
    "svg.fonttype": "none",  # and its text can be searched
}


class FigureError(RuntimeError):
    """A figure that cannot be drawn here."""


def check_figure() -> None:
    """Fail early if matplotlib is not installed.

    Raises
    ------
    FigureError
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FigureError("figures need matplotlib: pip install 'mnist-kmeans-mlx[plot]'.")


def settings() -> Any:
    """Context with matplotlib's defaults and our settings; no matplotlibrc is read."""
    import matplotlib

    values: Any = {**matplotlib.rcParamsDefault, **_SETTINGS}
    return matplotlib.rc_context(values)


def blank(width: float, height: float) -> Figure:
    """Make a figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, Any]:
    """Make a figure of so many inches, and an array of its axes."""
    figure = blank(width, height)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file whose name ends in one of `FORMATS`: whole or not at all."""
    kind = os.path.splitext(path)[1].lower().removeprefix(".")
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with settings(), write_atomically(path) as file:
        figure.savefig(file, format=kind, metadata=metadata[kind], bbox_inches="tight")


def draw(axes: Axes, chart: Chart) -> None:
    """Draw lines over two axes, as the page does."""
    for one in chart.series:
        color, dash, marker = _STYLES[one.style]
        axes.plot(
            *zip(*one.points, strict=True), label=one.name, color=color, linestyle=dash,
            marker=marker if one.marks else None, markersize=5, clip_on=False,
        )  # fmt: skip
        if any(low != high for _, low, high in one.band):
            at, low, high = zip(*one.band, strict=True)
            axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
    for place, words in chart.marked:
        axes.axvline(place, color="0.4", linestyle=":", label=words)
    for name, axis in (("x", chart.x), ("y", chart.y)):
        axes.set(**{
            f"{name}scale": "log" if axis.log else "linear",
            f"{name}lim": (axis.low, axis.high),
            f"{name}label": axis.label,
        })  # fmt: skip
        getattr(axes, f"set_{name}ticks")(axis.at, list(map(axis.write, axis.at)))
    axes.minorticks_off()
    axes.grid(True, which="major", alpha=0.3)
    axes.set_title(chart.title)
    shown = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    if len(shown) > 1:
        axes.legend(shown.values(), shown.keys())


def plain(text: Any) -> str:
    """Text that is neither control characters nor taken for mathematics."""
    return "".join(char for char in str(text) if char.isprintable()).replace("$", r"\$")
