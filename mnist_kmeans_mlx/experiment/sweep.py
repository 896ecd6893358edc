"""The same experiment for many numbers of clusters and seeds; what is finished stays finished."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.experiment import records
from mnist_kmeans_mlx.experiment.cells import Cell, Cells, cells_path
from mnist_kmeans_mlx.experiment.data import Array, Data, check_clusters, load
from mnist_kmeans_mlx.experiment.flow import run
from mnist_kmeans_mlx.experiment.result import Result, plain
from mnist_kmeans_mlx.persistence.checksum import checksum

# What each cell measures, apart from how it was fitted.
MEASURES = (*records.MEASURES, "n_iter")
_ELBOW = {
    "method": "point of log SSE against K that is furthest from the chord, both scaled to 0-1",
    "reference": "V. Satopaa, J. Albrecht, D. Irwin and B. Raghavan, Finding a Kneedle in a "
    "Haystack: Detecting Knee Points in System Behavior, ICDCS Workshops 2011",
}


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Attributes
    ----------
    cells : tuple of dict
        One for each number of clusters and seed, in this order, with ``n_clusters``, ``seed``,
        `MEASURES` (None where there is nothing to measure; ``nmi`` is that of the training data),
        ``missing_digits``, ``device`` and ``started``.
    kept : int
        How many of them were finished before.
    damaged : int
        Lines of the file of cells that were passed over.
    data, environment, settings : Mapping
    started, command : str
    """

    cells: tuple[Cell, ...]
    kept: int
    damaged: int
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any]
    started: str
    command: str

    @property
    def curve(self) -> list[dict[str, Any]]:
        """For each number of clusters, median, least and most of each measure over the seeds."""
        return records.curve_of(self.cells, MEASURES)

    @property
    def elbow(self) -> dict[str, Any] | None:
        """Number of clusters that `elbow` suggests, by which method; None if there is none."""
        points = {point["n_clusters"]: point["inertia"]["low"] for point in self.curve}
        found = elbow(list(points), list(points.values()))
        return None if found is None else {"n_clusters": found, **_ELBOW}

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return plain(
            {
                "kind": "sweep",
                "curve": self.curve,
                "elbow": self.elbow,
                "cells": list(self.cells),
                "settings": dict(self.settings),
                "data": dict(self.data),
                "environment": dict(self.environment),
                "started": self.started,
                "version": __version__,
                "command": self.command,
            }
        )


def elbow(n_clusters: Iterable[int], inertias: Iterable[float]) -> int | None:
    """Suggest where more clusters stop paying.

    Parameters
    ----------
    n_clusters : iterable of int
        In ascending order.
    inertias : iterable of float
        The lowest SSE found with each.

    Returns
    -------
    int or None
        The number of clusters whose point, on the curve of log SSE, lies furthest below the
        straight line between the curve's ends. It depends on where the curve ends. None for fewer
        than three points, or where none lies below the line.

    References
    ----------
    V. Satopää, J. Albrecht, D. Irwin and B. Raghavan, *Finding a "Kneedle" in a Haystack:
    Detecting Knee Points in System Behavior*, ICDCS Workshops 2011.

    Examples
    --------
    >>> elbow([1, 2, 3, 4, 5], [1000.0, 100.0, 10.0, 9.0, 8.0])
    3
    """
    pairs = zip(n_clusters, inertias, strict=True)
    points = [(count, math.log(inertia)) for count, inertia in pairs if inertia > 0]
    if len(points) < 3 or points[0][1] <= points[-1][1]:
        return None
    (left, top), (right, bottom) = points[0], points[-1]
    below = [
        1 - (count - left) / (right - left) - (value - bottom) / (top - bottom)
        for count, value in points
    ]
    # A deviation by rounding alone is no elbow.
    return points[int(np.argmax(below))][0] if max(below) > 1e-9 else None


def sweep(
    source: str | os.PathLike[str] = "auto",
    *,
    n_clusters: Iterable[int],
    seeds: Iterable[int] = (0,),
    device: str = "auto",
    n_init: int | str = "auto",
    max_iter: int = 300,
    silhouette_sample: int = 3000,
    path: str | os.PathLike[str] | None = None,
    fresh: bool = False,
    command: str = "",
    observe: Callable[[str], None] | None = None,
    **named: Any,
) -> Sweep:
    """Cluster and score for each number of clusters and seed.

    Every cell that is finished is added to a file at once. Cells that the file holds are not
    computed again if data, parameters, machine, device and version of this package are the same.

    Parameters
    ----------
    source
        As for `load`.
    n_clusters, seeds : iterable of int
    device : {"auto", "gpu", "cpu"}
    n_init, max_iter
        As for `KMeans`.
    silhouette_sample : int
        How many rows the silhouette is taken of, the same for every cell; 0 for none.
    path : path-like, optional
        The file of finished cells; `cells_path` if None.
    fresh : bool
        Compute also what the file holds.
    command : str
        Kept in the result.
    observe : callable, optional
        Called with what is being done, in words.
    **named
        ``key``, ``labels``, ``header`` and ``columns``, as for `load`.

    Returns
    -------
    Sweep

    Raises
    ------
    DatasetError, DeviceError
    ExperimentError
        The data cannot be clustered so.
    OSError
        The file of cells cannot be read or written.
    """
    from mnist_kmeans_mlx.device import describe

    started = datetime.now(UTC).isoformat(timespec="seconds")
    observe = observe or (lambda words: None)
    cells = Cells(cells_path() if path is None else Path(path))
    environment = describe(device)
    observe("Loading data")
    data = load(source, **named).held("`fit` takes it, one K at a time")
    counts, seeds = sorted(set(n_clusters)), sorted(set(seeds))
    check_clusters(counts[-1], len(data.train))
    settings = {"n_init": n_init, "max_iter": max_iter, "silhouette_sample": silhouette_sample}
    same = {
        **settings,
        "data": checksum(data.train, data.y_train, data.test, data.y_test),
        "machine": environment["machine"],
        "device": environment["device_name"],
        "version": __version__,
    }
    finished, damaged = cells.finished(same)
    wanted = [(count, seed) for count in counts for seed in seeds]
    missing = wanted if fresh else [pair for pair in wanted if pair not in finished]
    sample = _sample(data, silhouette_sample)
    if missing:
        observe("Warming up")
        _warm_up(data, device)
    for done, (count, seed) in enumerate(missing):
        observe(f"K = {count}, seed {seed} ({done + 1} of {len(missing)})")
        result = run(
            data, n_clusters=count, seed=seed, device=device, n_init=n_init, max_iter=max_iter
        )
        cell = _cell(result, data, sample)
        cells.add(cell, same)
        finished[count, seed] = cell
    return Sweep(
        cells=tuple(finished[pair] for pair in wanted),
        kept=len(wanted) - len(missing),
        damaged=damaged,
        data=data.to_dict(),
        environment=environment,
        settings={**settings, "seeds": seeds},
        started=started,
        command=command,
    )


def _cell(result: Result, data: Data, sample: Array) -> Cell:
    return plain(
        {
            "n_clusters": result.n_clusters,
            "seed": result.seed,
            "inertia": result.inertia,
            "train_accuracy": result.train_accuracy,
            "test_accuracy": result.test_accuracy,
            "nmi": None if result.train is None else result.train.nmi,
            "silhouette": _silhouette(data, result.estimator.labels_, sample),
            "seconds": result.timings["fit"],
            "n_iter": result.n_iter,
            "missing_digits": list(result.missing),
            "device": result.device,
            "started": result.started,
        }
    )


def _sample(data: Data, size: int) -> Array:
    """Rows for the silhouette, in ascending order and the same whenever the data is."""
    n = len(data.train)
    chosen = np.random.default_rng(0).choice(n, size=min(size, n), replace=False)
    return np.sort(chosen)


def _silhouette(data: Data, labels: Array, sample: Array) -> float | None:
    """Mean silhouette of sampled rows among each other; None if they are all alike or all apart."""
    from sklearn.metrics import silhouette_score

    if not 2 <= len(np.unique(labels[sample])) < len(sample):
        return None
    rows = data.train[sample].astype(np.float64)
    return float(silhouette_score(rows, labels[sample]))


def _warm_up(data: Data, device: str) -> None:
    """Load what the first fit would load, and let the device make its kernels."""
    from mnist_kmeans_mlx.estimator import KMeans

    rows = data.train[:4096]
    KMeans(min(2, len(rows)), n_init=1, max_iter=2, random_state=0, device=device).fit(rows)
