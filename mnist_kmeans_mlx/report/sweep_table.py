"""A sweep as tables: for a terminal, for a README, for a spreadsheet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from mnist_kmeans_mlx.report.grid import Grid, Line, escaped, share, spread, sse, to_text
from mnist_kmeans_mlx.report.parts import data_name, safe, seconds

if TYPE_CHECKING:
    from mnist_kmeans_mlx.experiment.sweep import Sweep

# Of the files that hold it.
NAME = "sweep"

_COLUMNS = {
    "n_clusters": "K",
    "seeds": "Seeds",
    "inertia": "Best SSE",
    "train_accuracy": "Train %",
    "test_accuracy": "Test %",
    "nmi": "NMI",
    "silhouette": "Silhouette",
    "n_iter": "Iter.",
    "seconds": "Fit s",
}
_WRITE: Mapping[str, Callable[[float], str]] = {
    "train_accuracy": share,
    "test_accuracy": share,
    "nmi": "{:.4f}".format,
    "silhouette": "{:.4f}".format,
    "n_iter": "{:g}".format,
    "seconds": seconds,
}


def view(found: Sweep, width: int) -> RenderableType:
    """Lay out a sweep for a terminal: a table that does not fit is shown in parts."""
    return Group(
        *_grid(found).spaced(width), *(Text(safe(line), style="dim") for line in _lines(found))
    )


def to_markdown(found: Sweep) -> str:
    """Write a sweep for a README."""
    lines = [*_grid(found).markdown(), "", *(f"- {escaped(line)}" for line in _lines(found))]
    return "\n".join(lines) + "\n"


def to_csv(found: Sweep) -> str:
    """Write one line for each cell."""
    words = [" ".join(map(str, cell["missing_digits"])) for cell in found.cells]
    cells = zip(found.cells, words, strict=True)
    return to_text(found.cells[0], ({**cell, "missing_digits": word} for cell, word in cells))


def _grid(found: Sweep) -> Grid:
    rows: list[Line] = []
    for point in found.curve:
        cells = {name: _cell(point[name], write) for name, write in _WRITE.items()}
        cells["n_clusters"], cells["seeds"] = str(point["n_clusters"]), str(len(point["seeds"]))
        rows.append({**cells, "inertia": sse(point["inertia"]["low"])})
    return Grid(_COLUMNS, rows, ("n_clusters",))


def _cell(found: Mapping[str, Any] | None, write: Callable[[float], str]) -> str:
    return "" if found is None else spread(found["median"], found["low"], found["high"], write)


def _lines(found: Sweep) -> list[str]:
    environment, settings = found.environment, found.settings
    counts = [point["n_clusters"] for point in found.curve]
    lines = []
    if found.elbow is not None:
        lines.append(
            f"Elbow: K = {found.elbow['n_clusters']}, where log SSE lies furthest below its chord "
            f"from K = {counts[0]} to {counts[-1]} (Satopää et al. 2011, Kneedle). Another range "
            "has another elbow."
        )
    elif len(counts) > 2:
        lines.append("Elbow: none, log SSE does not bend in this range.")
    if len(settings["seeds"]) > 1:
        lines.append("Medians over the seeds, with the least and the most; of SSE the least.")
    if any(cell["silhouette"] is not None for cell in found.cells):
        sampled = min(settings["silhouette_sample"], found.data["n_train"])
        lines.append(f"Silhouette: of {sampled:,} sampled rows, the same for every K.")
    lines.append(
        f"Data: {data_name(found.data)}, {found.data['n_train']:,} x "
        f"{found.data['n_features']:,}. "
        f"Device: {environment['device']} ({environment.get('device_name')})."
    )
    return lines
