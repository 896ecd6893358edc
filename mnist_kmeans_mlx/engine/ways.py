"""Ways to the nearest centres, and which one a fit takes.

All ways give the same seeds, labels and iterations, and the same bits for whole numbers. Which one
runs is a question of time alone, and is answered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine.host.nearest import HostComparison
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.mlx.nearest import MlxComparison
from mnist_kmeans_mlx.engine.mlx.way import MlxWay
from mnist_kmeans_mlx.engine.points import Float64, Index, Points
from mnist_kmeans_mlx.engine.sparse.comparison import SparseComparison
from mnist_kmeans_mlx.engine.sparse.way import SparseWay

Compared: TypeAlias = HostComparison | MlxComparison
ComparedSparse: TypeAlias = SparseComparison


class Clusters(Protocol):
    """The clusters of one restart: which rows they hold, and the sums of these.

    Attributes
    ----------
    labels : ndarray or mx.array of shape (n,), int32
        Cluster of each of this rank's rows; -1 as long as it has none. Never written to.
    sums : ndarray of shape (k, d), float64
        Weighted sums of the moved and scaled rows of each cluster, of all ranks; exact but for the
        grid of `Points.row_sums`.
    counts : ndarray of shape (k,), float64
        Their weights.
    changed : int
        How many of this rank's rows the last assignment gave to another cluster.
    rechecked : int
        How many of them float64 decided in it.
    """

    @property
    def labels(self) -> Any: ...
    @property
    def sums(self) -> Float64: ...
    @property
    def counts(self) -> Float64: ...
    @property
    def changed(self) -> int: ...
    @property
    def rechecked(self) -> int: ...

    def begin(self, labels: Any) -> None:
        """Take clusters that seeding found: `labels` are the nearest of the first centres."""


class Way(Protocol):
    """Rows as one way has them, and how they find their nearest centres.

    Attributes
    ----------
    points : Points
    norm_sq : float
        Weighted sum of the squared norms of the moved and scaled rows, of all ranks.
    mean_variance : float
        Mean over the features of their variance.
    """

    @property
    def points(self) -> Points: ...
    @property
    def norm_sq(self) -> float: ...
    @property
    def mean_variance(self) -> float: ...

    def clusters(self, k: int, settled: bool = False) -> Clusters:
        """Of a new restart; `settled` is whether the first centres to be assigned are means."""

    def assign(self, asked: Sequence[tuple[Any, Float64]]) -> None:
        """Give each row to the nearest of some centres, of equally near ones the first.

        Several restarts, each clusters and the centres ``(k, d)`` in the units of the rows, are
        assigned side by side.
        """

    def side_by_side(self, k: int) -> tuple[int, int]:
        """How many threads may each have a restart, and how many of these they take together."""

    def seeds_together(self, k: int, n: int) -> bool:
        """Whether `n` seedings take less time together than one by one."""

    def seed(
        self, k: int, sources: Sequence[np.random.RandomState], trials: int
    ) -> list[tuple[Index, Any]]:
        """Greedy k-means++ from each of several sources of draws.

        Returns for each the numbers of the chosen rows among all ranks' ``(k,)``, and labels: which
        of them is nearest to each of this rank's rows, of equally near ones the first; None where
        that is not known.
        """


def choose(points: Points, k: int, algorithm: str = "auto") -> Way:
    """The way that a fit takes.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        Number of centres.
    algorithm : {"auto", "lloyd", "elkan"}
        "lloyd" compares all, "elkan" keeps bounds, "auto" takes what is quicker.
    """
    if points.is_sparse:
        return SparseWay(points)
    on_device = algorithm == "lloyd" or (algorithm == "auto" and points.device.kind != "cpu")
    # The device's sums have no more than `GRID` digits.
    if on_device and not points.is_deep:
        on_gpu = points.device.kind != "cpu"
        return MlxWay(points, otherwise=cache(lambda: HostWay(points)), seeds=on_gpu)
    return HostWay(points)


def comparing(device: Device) -> type[Compared]:
    """What compares any rows with fitted centres."""
    return HostComparison if device.kind == "cpu" else MlxComparison
