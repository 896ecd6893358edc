"""Ways to the nearest centres, and which one a fit takes.

All ways give the same seeds, labels and iterations, and the same bits for whole numbers. Which one
runs is a question of time alone, and is answered here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np

from mnist_kmeans_mlx.device import Device, Speed, host_speed
from mnist_kmeans_mlx.engine.host.nearest import HostComparison
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.mlx.nearest import MlxComparison
from mnist_kmeans_mlx.engine.mlx.probe import check, speed
from mnist_kmeans_mlx.engine.mlx.way import MlxWay
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.engine.points import Float64, Index, Points, is_little
from mnist_kmeans_mlx.engine.seeding.sampling import Source
from mnist_kmeans_mlx.engine.sparse.comparison import SparseComparison
from mnist_kmeans_mlx.engine.sparse.way import SparseWay

Compared: TypeAlias = HostComparison | MlxComparison
ComparedSparse: TypeAlias = SparseComparison

# Most scores of all rows and centres that are held at once.
HELD = 1 << 22
# With fewer products in an iteration, or in a row, a GPU is not asked.
SMALL, NARROW = 1 << 24, 1 << 7
# What a fit is taken for: how many iterations; the share of all comparisons that bounds leave, in
# these and in seeding (MNIST, K = 20 and 100); and passes over the scores of an iteration.
ITERATIONS, COMPARED, SEEDED, PASSES = 30, 0.2, 0.3, 5
# How many times longer the host's way takes than its rates allow, for products, rows and scores:
# by least squares of the logarithms of ten fits in docs/shapes.json, all within a factor of 2.1.
TIMES = 8, 32, 90


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
    device : {"cpu", "gpu"}
        Where it computes.
    why : str
        Its name and why it was chosen.
    """

    @property
    def points(self) -> Points: ...
    @property
    def device(self) -> str: ...
    @property
    def why(self) -> str: ...
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

    def seed(self, k: int, sources: Sequence[Source], trials: int) -> list[tuple[Index, Any]]:
        """Greedy k-means++ from each of several sources of draws.

        Returns for each the numbers of the chosen rows among all ranks' ``(k,)``, and labels: which
        of them is nearest to each of this rank's rows, of equally near ones the first; None where
        that is not known.
        """


@dataclass(frozen=True)
class Choice:
    """Which way a fit takes, and why.

    Attributes
    ----------
    name : {"plain", "host", "mlx", "sparse"}
    why : str
        A sentence without its full stop.
    seconds : dict of str to float
        What each is estimated to take, where that decided.
    """

    name: str
    why: str
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def told(self) -> str:
        """Both in words."""
        return f"{self.name}: {self.why}"


def decide(
    device: Device, algorithm: str, n: int, d: int, k: int, n_init: int = 1, itemsize: int = 4
) -> Choice:
    """Which way `n_init` restarts of so many rows, features and centres take.

    Parameters
    ----------
    device : Device
    algorithm : {"auto", "lloyd", "elkan"}
        "lloyd" compares all rows, "elkan" keeps bounds, "auto" takes what is estimated to be
        quicker.
    n, d, k, n_init : int
    itemsize : int, default=4
        Bytes of a number of the rows on the device.
    """
    whole = algorithm == "lloyd"
    if algorithm == "elkan":
        return Choice("host", "algorithm='elkan' keeps bounds, on the host")
    if device.kind != "cpu" and not device.optional:
        return Choice("mlx", "device='gpu' was asked for")
    if is_little(n, d) and n * k <= HELD:
        return Choice("plain", "so little is quicker in one piece")
    if device.kind == "cpu":
        on_cpu = "all rows are compared" if whole else "bounds save most comparisons"
        return Choice("host", f"on a CPU {on_cpu}")
    if _is_small(n, d, k):
        return Choice("host", "so little work would not keep a GPU busy")
    if whole:
        return Choice("mlx", "algorithm='lloyd' compares all rows")
    seconds = {
        "host": _host_seconds(host_speed(), n, d, k, n_init),
        "mlx": _mlx_seconds(speed(device), n, d, k, n_init, itemsize),
    }
    name = min(seconds, key=lambda way: seconds[way])
    estimates = ", ".join(f"{way} {value:.2g} s" for way, value in seconds.items())
    return Choice(name, f"estimated from rates measured here: {estimates}", seconds)


def told(device: Device, n: int, d: int, k: int, n_init: int, itemsize: int) -> str:
    """What a fit of so many rows takes on a device, in words."""
    return decide(device, "auto", n, d, k, n_init, itemsize).told


def _host_seconds(rate: Speed, n: int, d: int, k: int, n_init: int) -> float:
    """What the host's way takes: bounds leave a share of all comparisons."""
    steps = ITERATIONS * COMPARED + SEEDED * (2 + np.log(k))
    products, passes = 2.0 * n * d * k / rate.flops, 4.0 * n / rate.bytes
    each = TIMES[0] * products + passes * (TIMES[1] * d + TIMES[2] * k)
    return float(n_init * steps * each)


def _mlx_seconds(rate: Speed, n: int, d: int, k: int, n_init: int, itemsize: int) -> float:
    """What the MLX way takes: all comparisons, and the passes over scores and rows of each."""
    sent = itemsize * n * d / rate.bytes
    products = 2.0 * n * d * k * n_init * (ITERATIONS + 2 + np.log(k)) / rate.flops
    passes = (4.0 * n * d + PASSES * 4.0 * n * k * n_init) * ITERATIONS / rate.bytes
    seeding = 4.0 * n * d * k / rate.bytes
    return float(sent + products + passes + seeding + rate.wait * (ITERATIONS + 2 * k))


def choose(points: Points, k: int, algorithm: str = "auto", choice: Choice | None = None) -> Way:
    """The rows, in the way that a fit takes.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        Number of centres.
    algorithm : {"auto", "lloyd", "elkan"}
    choice : Choice, optional
        What `decide` says; asked for one restart if None.
    """
    device = points.device
    choice = choice or decide(device, algorithm, points.n, points.d, k)
    if points.is_sparse:
        choice = Choice("sparse", "rows stay sparse, on the host")
    elif choice.name == "mlx" and points.is_deep:
        choice = Choice("host", "rows are tiny, or a few far larger: sums need more digits")
    elif choice.name == "plain" and not _in_one_piece(points):
        choice = Choice("host", "rows are read in parts or on several ranks")
    way: PlainWay | HostWay | MlxWay | SparseWay
    if choice.name == "mlx":
        check(device)
        way = MlxWay(points, cache(lambda: HostWay(points)))
    elif choice.name == "sparse":
        way = SparseWay(points)
    elif choice.name == "plain":
        way = PlainWay(points)
    else:
        way = HostWay(points, bounded=algorithm != "lloyd")
    way.why = choice.told
    return way


def _in_one_piece(points: Points) -> bool:
    """Whether one process holds all rows, as an array."""
    return isinstance(points.rows, np.ndarray) and points.group.size == 1 and points.keep


def comparing(device: Device, n: int, d: int, k: int) -> type[Compared]:
    """What compares `n` rows of `d` features with `k` fitted centres."""
    host = device.kind == "cpu" or (device.optional and _is_small(n, d, k))
    return HostComparison if host else MlxComparison


def _is_small(n: int, d: int, k: int) -> bool:
    """Whether a comparison of all rows and centres would not keep a GPU busy."""
    return n * d * k < SMALL or d * k < NARROW
