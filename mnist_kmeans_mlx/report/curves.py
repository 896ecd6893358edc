"""The curves of a sweep as a figure, drawn by matplotlib without a display."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMATS", "FigureError", "check_figure", "draw_curves"]

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours: of different lightness too, so that grey tells them apart, and each
# line has a marker of its own.
_TRAIN = {"color": "#0072B2", "marker": "o", "linestyle": "-"}
_TEST = {"color": "#E69F00", "marker": "s", "linestyle": "--"}

_PANELS: tuple[tuple[str, Mapping[str, tuple[str, Mapping[str, str]]]], ...] = (
    (
        "Accuracy (share of images)",
        {"train_accuracy": ("train", _TRAIN), "test_accuracy": ("test", _TEST)},
    ),
    ("SSE (squared units of the features)", {"inertia": ("SSE", _TRAIN)}),
    ("Silhouette (-1 to 1, sampled)", {"silhouette": ("silhouette", _TRAIN)}),
    ("NMI (0 to 1)", {"nmi": ("NMI", _TRAIN)}),
    ("Time of the fit (s)", {"seconds": ("fit", _TRAIN)}),
)
# Values that grow by more than this are drawn on a logarithmic axis.
_WIDE = 20


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


def draw_curves(sweep: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw accuracy, SSE, silhouette, NMI and time against the number of clusters.

    Parameters
    ----------
    sweep : Mapping
        As `Sweep.to_dict` returns it.
    path : path-like
        Ends in one of `FORMATS`. It appears whole or not at all.

    Raises
    ------
    FigureError
        There is no matplotlib.
    OSError
        The file cannot be written.
    """
    check_figure()
    import matplotlib
    from matplotlib.figure import Figure

    from mnist_kmeans_mlx.persistence.files import write_atomically

    suffix = os.path.splitext(path)[1].lower()
    panels = [
        (title, lines)
        for title, lines in _PANELS
        if any(point[name] is not None for name in lines for point in sweep["curve"])
    ]
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    # The same figure in the same bytes, and text that can be searched.
    settings: Any = {"svg.hashsalt": "mnist-kmeans-mlx", "svg.fonttype": "none"}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.4 * columns, 3.4 * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for ax, (title, lines) in zip(axes, panels, strict=False):
            _draw(ax, title, lines, sweep)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        figure.suptitle(_title(sweep))
        metadata = {"Date": None} if suffix == ".svg" else None
        with write_atomically(path) as file:
            figure.savefig(file, format=suffix[1:], dpi=150, metadata=metadata)


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
        median, low, high = (
            [point[name][part] for point in points] for part in ("median", "low", "high")
        )
        ax.plot(counts, median, label=label, markersize=5, **style)  # type: ignore[arg-type]
        if low != high:
            ax.fill_between(counts, low, high, color=style["color"], alpha=0.2, linewidth=0)
        if 0 < _WIDE * min(low) < max(high):
            ax.set_yscale("log")
    ax.set_xlabel("Number of clusters K")
    ax.set_ylabel(title)
    ax.grid(True, which="major", alpha=0.3)
    if "inertia" in lines and sweep["elbow"] is not None:
        elbow = sweep["elbow"]["n_clusters"]
        ax.axvline(elbow, color="0.4", linestyle=":", label=f"elbow, K = {elbow}")
    if len(lines) > 1 or ax.get_legend_handles_labels()[1] != [next(iter(lines.values()))[0]]:
        ax.legend(frameon=False)


def _title(sweep: Mapping[str, Any]) -> str:
    name = "MNIST" if sweep["data"]["name"] == "mnist" else sweep["data"]["name"]
    seeds = sorted({cell["seed"] for cell in sweep["cells"]})
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds: median, least and most"
    # A dollar would begin a formula.
    return _plain(f"K-means · {name} · {which}")


def _plain(text: str) -> str:
    return "".join(char for char in text if char.isprintable()).replace("$", r"\$")
