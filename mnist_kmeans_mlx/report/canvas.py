"""What all figures share: their look, and how they become files without a display.

Figures are made without ``pyplot``: no window, no state that outlives a call. What differs in
colour differs in lightness, hatch, dash or marker too, so that it survives a printer.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

from mnist_kmeans_mlx.persistence.files import write_atomically
from mnist_kmeans_mlx.report.parts import short

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "DARK",
    "FORMATS",
    "GREY",
    "LIGHT",
    "FigureError",
    "blank",
    "check_figure",
    "plain",
    "prefixed",
    "save",
    "settings",
    "subplots",
]

FORMATS = (".png", ".svg", ".pdf")
# Of Okabe and Ito: far apart in lightness too.
DARK, LIGHT, GREY = "#0072B2", "#E69F00", "#8a857a"

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
    """Fail now rather than after minutes of work if there is no matplotlib.

    Raises
    ------
    FigureError
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise FigureError("figures need matplotlib: pip install 'mnist-kmeans-mlx[plot]'.")


def settings() -> Any:
    """Context with matplotlib's defaults but for ours: no matplotlibrc is asked."""
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


def prefixed(axis: Axis) -> None:
    """Write large numbers of an axis as the page does, such as 2.1 M."""
    axis.set_major_formatter(lambda value, place: short(value))


def plain(text: Any) -> str:
    """Text that is neither control characters nor taken for mathematics."""
    return "".join(char for char in str(text) if char.isprintable()).replace("$", r"\$")
