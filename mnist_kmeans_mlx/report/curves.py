"""The curves of a sweep as a figure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mnist_kmeans_mlx.report.canvas import (
    DARK,
    LIGHT,
    blank,
    check_figure,
    plain,
    prefixed,
    save,
    settings,
)
from mnist_kmeans_mlx.report.charts import axis_of_k

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["against_k", "draw_curves"]

_FIRST = {"color": DARK, "marker": "o", "linestyle": "-"}
_SECOND = {"color": LIGHT, "marker": "s", "linestyle": "--"}
# What each axis says, and its lines.
_PANELS: tuple[tuple[str, Mapping[str, tuple[str, Mapping[str, str]]]], ...] = (
    (
        "Accuracy (% of the rows)",
        {"train_accuracy": ("train", _SECOND), "test_accuracy": ("test", _FIRST)},
    ),
    ("SSE (squared feature units)", {"inertia": ("SSE", _FIRST)}),
    ("NMI (0 to 1)", {"nmi": ("NMI", _FIRST)}),
    ("Silhouette (−1 to 1, sampled)", {"silhouette": ("silhouette", _FIRST)}),
    ("Time of the fit (s)", {"seconds": ("fit", _FIRST)}),
)
# Values that grow by more than this are drawn on a logarithmic axis.
_WIDE = 20


def draw_curves(sweep: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw accuracy, SSE, silhouette, NMI and time against the number of clusters.

    Parameters
    ----------
    sweep : Mapping
        As `Sweep.to_dict` returns it.
    path : path-like
        Ends in one of `canvas.FORMATS`. It appears whole or not at all.

    Raises
    ------
    FigureError
        There is no matplotlib.
    OSError
        The file cannot be written.
    """
    check_figure()
    with settings():
        figure = against_k(sweep)
    save(figure, path)


def against_k(sweep: Mapping[str, Any]) -> Figure:
    """Make the figure, within `canvas.settings`."""
    panels = [
        (title, lines)
        for title, lines in _PANELS
        if any(point[name] is not None for name in lines for point in sweep["curve"])
    ]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = blank(4.2 * columns, 3.2 * rows)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    # The first panel takes the places that would stay empty.
    spare = rows * columns - len(panels)
    grid = figure.add_gridspec(rows, columns)
    for i, (title, lines) in enumerate(panels):
        place = grid[divmod(i + spare, columns)] if i else grid[0, : 1 + spare]
        _draw(figure.add_subplot(place), title, lines, sweep)
    figure.suptitle(_title(sweep), x=0.01, ha="left", weight="bold")
    return figure


def _draw(
    ax: Axes,
    title: str,
    lines: Mapping[str, tuple[str, Mapping[str, str]]],
    sweep: Mapping[str, Any],
) -> None:
    for name, (label, style) in lines.items():
        points = [point for point in sweep["curve"] if point[name] is not None]
        if not points:
            continue
        counts = [point["n_clusters"] for point in points]
        scale = 100 if name.endswith("accuracy") else 1
        median, low, high = (
            [scale * point[name][part] for point in points] for part in ("median", "low", "high")
        )
        ax.plot(counts, median, label=label, markersize=5, **style)  # type: ignore[arg-type]
        if low != high:
            ax.fill_between(counts, low, high, color=style["color"], alpha=0.2, linewidth=0)
        if 0 < _WIDE * min(low) < max(high):
            _logarithmic(ax)
        elif name == "seconds":
            ax.set_ylim(bottom=0)
    across = axis_of_k([point["n_clusters"] for point in sweep["curve"]])
    ax.set_xscale("log" if across.log else "linear")
    ax.set_xticks(across.at, [across.write(at) for at in across.at])
    ax.minorticks_off()
    ax.set_xlabel("Number of clusters K")
    ax.set_ylabel(title)
    ax.grid(True, which="major", alpha=0.3)
    if "inertia" in lines:
        prefixed(ax.yaxis)
        if sweep["elbow"] is not None:
            elbow = sweep["elbow"]["n_clusters"]
            ax.axvline(elbow, color="0.4", linestyle=":", label=f"elbow, K = {elbow}")
    if len(lines) > 1 or ax.get_legend_handles_labels()[1] != [next(iter(lines.values()))[0]]:
        ax.legend()


def _logarithmic(ax: Axes) -> None:
    """Give the y axis a logarithmic scale, with enough numbers to read it."""
    from matplotlib.ticker import LogLocator

    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    prefixed(ax.yaxis)


def _title(sweep: Mapping[str, Any]) -> str:
    name = "MNIST" if sweep["data"]["name"] == "mnist" else sweep["data"]["name"]
    seeds = sorted({cell["seed"] for cell in sweep["cells"]})
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds: median, least and most"
    return plain(f"K-means · {name} · {which}")
