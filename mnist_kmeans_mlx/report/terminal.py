"""Results as tables for a terminal; the same without colour for a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.bar import Bar
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from mnist_kmeans_mlx.report.grid import sse
from mnist_kmeans_mlx.report.parts import (
    TABLE,
    data_name,
    facts,
    missing_words,
    percent,
    safe,
    seconds,
)

if TYPE_CHECKING:
    from mnist_kmeans_mlx.experiment import Cluster, Evaluation, Result
    from mnist_kmeans_mlx.scores import Scores

_SCORES = {
    "accuracy": "Accuracy",
    "matched_accuracy": "Accuracy, 1:1",
    "homogeneity": "Homogeneity",
    "completeness": "Completeness",
    # The same number twice: its mean of entropies is scikit-learn's default for NMI.
    "v_measure": "V-measure (NMI)",
    "ari": "Adjusted Rand",
}
_STAGES = {
    "load": "load data",
    "fit": "fit",
    "label": "infer digits",
    "predict": "predict test",
    "score": "score",
}
# Tables stand side by side from this width on.
_WIDE = 80
# From this width on both accuracies stand on one line, and bars beside numbers.
_NARROW = 60
_WIDEST = 100
_BAR = 8


def result_view(result: Result, width: int) -> RenderableType:
    """Lay out what `fit` found, on so many columns of a terminal."""
    summary = facts(
        {
            "SSE": sse(result.inertia),
            "Iterations": f"{result.n_iter:,}",
            "Device": _device(result.device, result.environment),
            "Rechecked": f"{_count(result.rechecked, 'row')} in float64",
            "Seed": str(result.seed),
        }
    )
    parts: list[RenderableType] = []
    if result.train is not None:
        parts += [_headline(result.train, result.test, width), ""]
    parts.append(_beside(summary, _timings(result.timings), width=width))
    title = f"K-means · {safe(data_name(result.data))} · {_count(result.n_clusters, 'cluster')}"
    shown: list[RenderableType] = [_panel(Group(*parts), title, width)]
    if result.train is None:
        shown.append(_cluster_table(result.clusters))
    else:
        shown.append(_beside(
            _class_table(result.train, result.test, result.clusters, width),
            _score_table(result.train, result.test),
            width=width,
        ))  # fmt: skip
        shown += _missing(result.missing)
    return Group(*shown)


def evaluation_view(evaluation: Evaluation, width: int) -> RenderableType:
    """Lay out the scores of a saved model."""
    train, test = evaluation.train, evaluation.test
    return Group(
        _panel(
            _headline(train, test, width), f"Scores · {safe(data_name(evaluation.data))}", width
        ),
        _beside(_class_table(train, test, (), width), _score_table(train, test), width=width),
        *_missing(train.missing),
    )


def gallery_view(result: Result, most: int | None = None) -> RenderableType | None:
    """Draw the centroids, sorted by digit and size; None where they are no images.

    With more clusters than `most`, the largest are drawn, and smaller rather than long; all in full
    size if it is None.
    """
    from mnist_kmeans_mlx.report.gallery import Gallery, as_images

    images = as_images(result.estimator.cluster_centers_)
    if images is None:
        return None
    largest = sorted(result.clusters, key=lambda cluster: -cluster.size)[:most]
    shown = sorted(largest, key=lambda c: (-1 if c.digit is None else c.digit, -c.size))
    drawn = images[[cluster.index for cluster in shown]]
    gallery = Gallery(drawn, [_caption(cluster) for cluster in shown], full=most is None)
    if len(shown) == len(result.clusters):
        return gallery
    note = f"The {len(shown)} largest of {len(result.clusters)} clusters; --gallery draws all."
    return Group(gallery, "", Text(note, style="dim"))


def _panel(content: RenderableType, title: str, width: int) -> Panel:
    bold = Text(title, style="bold")
    return Panel(content, title=bold, box=box.ROUNDED, padding=(0, 2), width=min(width, _WIDEST))


def _headline(train: Scores, test: Scores | None, width: int) -> RenderableType:
    line = Text()
    line.append(f"{100 * train.accuracy:.2f} %", style="bold green")
    line.append(" train accuracy")
    if test is not None:
        line.append("     " if width >= _NARROW else "\n")
        line.append(f"{100 * test.accuracy:.2f} %", style="bold green")
        line.append(" test accuracy")
    return line


def _timings(timings: Mapping[str, float]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    for stage, duration in timings.items():
        if duration:
            style = "bold" if stage == "fit" else ""
            table.add_row(_STAGES.get(stage, stage), Text(f"{seconds(duration)} s", style=style))
    return table


def _class_table(
    train: Scores, test: Scores | None, clusters: Iterable[Cluster], width: int
) -> Table:
    owned: dict[int, int] = {}
    for cluster in clusters:
        if cluster.digit is not None:
            owned[cluster.digit] = owned.get(cluster.digit, 0) + 1
    table = Table(**TABLE)
    table.add_column("Digit", justify="right")
    if owned:
        table.add_column("Clusters", justify="right")
    table.add_column("Train", justify="right", no_wrap=True)
    if test is not None:
        table.add_column("Test", justify="right", no_wrap=True)
    if width >= _NARROW:
        table.add_column("", width=_BAR)
    others = {} if test is None else test.per_class_accuracy
    for label, accuracy in train.per_class_accuracy.items():
        row: list[RenderableType] = [str(label)]
        if owned:
            row.append(str(owned.get(int(label), 0)))
        row.append(percent(accuracy))
        if test is not None:
            row.append(percent(others.get(label)))
        if width >= _NARROW:
            row.append(Bar(1, 0, accuracy, width=_BAR, color="green"))
        table.add_row(*row, style="" if accuracy else "yellow")
    return table


def _score_table(train: Scores, test: Scores | None) -> Table:
    table = Table(**TABLE)
    table.add_column("Score")
    table.add_column("Train", justify="right", no_wrap=True)
    if test is not None:
        table.add_column("Test", justify="right", no_wrap=True)
    for key, name in _SCORES.items():
        values = [f"{getattr(part, key):.4f}" for part in (train, test) if part is not None]
        table.add_row(name, *values)
    return table


def _cluster_table(clusters: Iterable[Cluster]) -> Table:
    table = Table(**TABLE)
    table.add_column("Cluster", justify="right")
    table.add_column("Rows", justify="right")
    for cluster in clusters:
        table.add_row(str(cluster.index), f"{cluster.size:,}")
    return table


def _missing(missing: Iterable[Any]) -> list[RenderableType]:
    words = missing_words(missing)
    return [Text(words, style="bold yellow")] if words else []


def _caption(cluster: Cluster) -> Text:
    if cluster.digit is None or cluster.purity is None:
        return Text.assemble((f"#{cluster.index}", "bold"), (f" {cluster.size:,}", "dim"))
    return Text.assemble(
        (str(cluster.digit), "bold"), (f" {cluster.size:,} {100 * cluster.purity:.0f} %", "dim")
    )


def _beside(left: Table, right: Table, *, width: int) -> RenderableType:
    if width < _WIDE:
        return Group(left, "", right)
    grid = Table.grid(padding=(0, 4))
    grid.add_row(left, right)
    return grid


def _device(device: str, environment: Mapping[str, Any]) -> str:
    name = environment.get("device_name") or environment.get("machine")
    return f"{device} ({name})" if name else device


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
