"""The report's pictures as PNG and SVG files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_kmeans_mlx.engine.metric import METRICS
from mnist_kmeans_mlx.experiment.portrait import Portrait
from mnist_kmeans_mlx.report.canvas import (
    DARK,
    GREY,
    LIGHT,
    blank,
    check_figure,
    draw,
    plain,
    save,
    settings,
    subplots,
)
from mnist_kmeans_mlx.report.charts import charts_of, convergence_of, curves
from mnist_kmeans_mlx.report.clusters import images_of, in_order
from mnist_kmeans_mlx.report.material import Material
from mnist_kmeans_mlx.report.parts import data_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mnist_kmeans_mlx.report.axes import Chart


def save_figures(material: Material, folder: str | os.PathLike[str]) -> list[Path]:
    """Write every figure that the material has numbers for, as ``NAME.png`` and ``NAME.svg``.

    The folder is made if it does not exist.

    Raises
    ------
    FigureError
        matplotlib is not installed.
    OSError
        A file cannot be written.
    """
    check_figure()
    folder, written = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    with settings():
        figures = list(_figures(material))
    for name, figure in figures:
        for kind in ("png", "svg"):
            path = folder / f"{name}.{kind}"
            save(figure, path)
            written.append(path)
    return written


def draw_curves(sweep: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Draw a sweep, as `Sweep.to_dict` returns it, against the number of clusters.

    The file, whose name ends in one of `canvas.FORMATS`, appears whole or not at all.

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


def _figures(material: Material) -> Iterator[tuple[str, Figure]]:
    portrait = material.portrait
    if portrait is not None:
        if images_of(portrait) is not None:
            yield "centroids", _centroids(portrait)
        if portrait.map is not None:
            yield "map", _map(portrait)
    score = material.scores("test") or material.scores("train")
    if score is not None:
        words = "test" if material.scores("test") else "training"
        if len(score["classes"]) <= 20:
            yield "confusion", _confusion(score, words)
        yield "accuracy-per-digit", _per_digit(material)
    for i, sweep in enumerate(curves(material)):
        yield _numbered("against-k", i), against_k(sweep)
    noted = [chart for chart in map(convergence_of, material.fits) if chart is not None]
    for i, chart in enumerate(noted):
        yield _numbered("convergence", i), _convergence(chart)
    for i, values in enumerate(values for values in material.comparisons if values["cases"]):
        yield _numbered("timings", i), _timings(values)


def _numbered(name: str, i: int) -> str:
    return f"{name}-{i + 1}" if i else name


def _centroids(portrait: Portrait) -> Figure:
    images, faces = images_of(portrait), in_order(portrait.faces)
    assert images is not None
    # Up to two columns fewer than usual, whichever leaves the fewest places empty.
    usual = max(1, min(10, round((len(faces) * 1.6) ** 0.5)))
    columns = min(range(usual, max(1, usual - 2) - 1, -1), key=lambda n: -len(faces) % n)
    rows = -(-len(faces) // columns)
    figure, axes = subplots(rows, columns, 1.0 * columns, 1.25 * rows)
    for axis in axes.flat:
        axis.set_axis_off()
    for face, axis in zip(faces, axes.flat, strict=False):
        axis.imshow(1 - images[face.index], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        words = f"{face.size:,}" if face.digit is None else f"{face.digit}"
        if face.purity is not None:
            words += f"  {100 * face.purity:.0f} %"
        axis.set_title(words, fontsize=9, loc="center", pad=2, weight="normal")
    captions = "rows of each cluster"
    if any(face.purity is not None for face in faces):
        captions = "digit, and share of the cluster that shows it"
    figure.suptitle(f"Centroids: {captions}", x=0.01, ha="left", weight="bold", fontsize=10)
    return figure


def _map(portrait: Portrait) -> Figure:
    import matplotlib

    chart = portrait.map
    assert chart is not None
    unit = METRICS[portrait.metric].unit(portrait.unit)
    rows_at, centers_at = chart.rows / unit, chart.centers / unit
    figure, axes = subplots(1, 1, 7.5, 6)
    axis = axes[0, 0]
    if chart.labels is None:
        axis.scatter(*rows_at.T, s=6, color=GREY, linewidths=0)
    else:
        # Ten hues that also differ in lightness; the digits themselves are the markers.
        colours = matplotlib.colormaps["tab10"]
        for label in np.unique(chart.labels):
            rows = rows_at[chart.labels == label]
            colour = colours(int(label) % 10)
            axis.scatter(*rows.T, marker=f"${label}$", s=22, color=colour, linewidths=0)
    images = images_of(portrait)
    for face in portrait.faces:
        x, y = centers_at[face.index]
        if images is None or len(portrait.faces) > 64:
            axis.plot(x, y, "o", color="black", markersize=5, markeredgecolor="white")
        else:
            _stick(axis, images[face.index], (x, y))
    # Pictures do not count for the limits that matplotlib chooses.
    points = np.concatenate([rows_at, centers_at])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * (high - low)
    axis.set_xlim(low[0] - margin[0], high[0] + margin[0])
    axis.set_ylim(low[1] - margin[1], high[1] + margin[1])
    scale = f", pixels / {unit:g}" if unit != 1 else ""
    first, second = (100 * share for share in chart.explained)
    axis.set(
        title=f"Sampled rows{'' if chart.labels is None else ' (their labels)'} and all centroids",
        xlabel=f"first principal axis{scale} ({first:.1f} % of the variance)",
        ylabel=f"second principal axis{scale} ({second:.1f} % of the variance)",
    )
    return figure


def _stick(axis: Axes, image: Any, place: tuple[float, float]) -> None:
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    picture = OffsetImage(1 - image, cmap="gray", zoom=0.62, interpolation="nearest")
    picture.image.set_clim(0, 1)
    frame = {"edgecolor": GREY, "linewidth": 0.6, "boxstyle": "round,pad=0.1"}
    axis.add_artist(AnnotationBbox(picture, place, pad=0, bboxprops=frame))


def _confusion(score: Any, words: str) -> Figure:
    counts = np.array(score["confusion"], dtype=float)
    shares = 100 * counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    classes = [str(label) for label in score["classes"]]
    size = 1.5 + 0.42 * len(classes)
    figure, axes = subplots(1, 1, size + 0.8, size)
    axis = axes[0, 0]
    image = axis.imshow(shares, cmap="Greys", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.5:
            colour = "white" if share > 55 else "black"
            axis.text(column, row, f"{share:.0f}", ha="center", va="center", color=colour, size=8)
    axis.set_xticks(range(len(classes)), classes)
    axis.set_yticks(range(len(classes)), classes)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    axis.set(title=f"Confusion, {words} data", xlabel="digit of the cluster", ylabel="true digit")
    figure.colorbar(image, ax=axis, label="share of the true digit, %", shrink=0.8)
    return figure


def _per_digit(material: Material) -> Figure:
    found = [(part, material.scores(part)) for part in ("train", "test")]
    shown = [(part, score["per_class_accuracy"]) for part, score in found if score]
    labels = list(dict.fromkeys(str(label) for _, score in shown for label in score))
    figure, axes = subplots(1, 1, max(4.5, 0.62 * len(labels) + 1), 3.4)
    axis, width = axes[0, 0], 0.8 / len(shown)
    for i, (part, score) in enumerate(shown):
        heights = {str(label): 100 * share for label, share in score.items()}
        axis.bar(
            np.arange(len(labels)) + (i - (len(shown) - 1) / 2) * width,
            [heights.get(label, 0.0) for label in labels], width, label=part,
            color=(LIGHT, DARK)[i % 2], hatch=("///", None)[i % 2], edgecolor="white",
        )  # fmt: skip
    axis.set_xticks(range(len(labels)), labels)
    axis.set(title="Accuracy per digit", xlabel="digit", ylabel="recognised, %", ylim=(0, 100))
    axis.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure


def against_k(sweep: Any) -> Figure:
    """Charts of a sweep; the first one is as wide as those that are missing."""
    charts = charts_of(sweep)
    columns = 2 if len(charts) == 4 else min(3, len(charts))
    rows = -(-len(charts) // columns)
    figure = blank(4.2 * columns, 3.2 * rows)
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    spare = rows * columns - len(charts)
    grid = figure.add_gridspec(rows, columns)
    for i, chart in enumerate(charts):
        place = grid[divmod(i + spare, columns)] if i else grid[0, : 1 + spare]
        draw(figure.add_subplot(place), chart)
    figure.suptitle(_title(sweep), x=0.01, ha="left", weight="bold")
    return figure


def _title(sweep: Mapping[str, Any]) -> str:
    seeds = sorted({cell["seed"] for cell in sweep["cells"]})
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds: median, least and most"
    return plain(f"K-means · {data_name(sweep['data'])} · {which}")


def _convergence(chart: Chart) -> Figure:
    figure, axes = subplots(1, 1, 6, 3.6)
    draw(axes[0, 0], chart)
    return figure


def _timings(values: Any) -> Figure:
    cases = values["cases"]
    most = max(len(case["rows"]) for case in cases)
    figure, axes = subplots(len(cases), 1, 7, (0.9 + 0.5 * most) * len(cases))
    for case, axis in zip(cases, axes.flat, strict=True):
        rows = case["rows"]
        places = range(len(rows))[::-1]
        for key, shift, style in (
            ("warm", 0.18, {"color": DARK}),
            ("cold", -0.18, {"color": LIGHT, "hatch": "///", "edgecolor": "white"}),
        ):
            known = [(place, row[key]) for place, row in zip(places, rows, strict=True) if row[key]]
            if not known:
                continue
            at, middle = [place + shift for place, _ in known], [one["median"] for _, one in known]
            axis.barh(at, middle, 0.36, label=key, **style)
            ranges = [(one["low"], one["high"]) for _, one in known]
            reach = np.abs(np.transpose(ranges) - middle)
            if reach.any():
                axis.errorbar(middle, at, xerr=reach, fmt="none", color="black", capsize=2, lw=1)
        for place, row in zip(places, rows, strict=True):
            if not row["warm"] and not row["cold"]:
                said = f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"]
                axis.text(0, place, f"  {plain(said)}", va="center", color="0.35")
        axis.set_yticks(places, [plain(row["arm"]) for row in rows])
        axis.set_ylim(-0.6, len(rows) - 0.4)
        axis.set(title=f"K = {case['n_clusters']}", xlabel="seconds per fit (median and range)")
        if axis.patches:
            axis.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return figure
