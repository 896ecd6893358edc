"""The host's way, from rows to labels and sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnist_kmeans_mlx.device import host_rounding
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.host import joint
from mnist_kmeans_mlx.engine.host.bounded import BoundedAssignment
from mnist_kmeans_mlx.engine.host.plus_plus import plus_plus
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.whole import WholeAssignment
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.seeding.sampling import Source
from mnist_kmeans_mlx.engine.sums import HostSums


class HostWay:
    """Rows on the host: a `Way`.

    Parameters
    ----------
    points : Points
        The rows.
    bounded : bool, default=True
        Whether to keep bounds from one step to the next, rather than compare all rows in each.
    """

    device, why = "cpu", ""

    def __init__(self, points: Points, bounded: bool = True) -> None:
        self.points, self.bounded = points, bounded
        self.rows = HostRows(points)
        self.norm_sq, self.mean_variance = self.rows.norm_sq, self.rows.mean_variance

    def clusters(self, k: int, settled: bool = False) -> HostClusters:
        """Of a new restart."""
        if self.bounded:
            return HostClusters(self.rows, k, BoundedAssignment(self.rows, k, settled))
        return HostClusters(self.rows, k, WholeAssignment(self.rows))

    def assign(self, asked: Sequence[tuple[HostClusters, Float64]]) -> None:
        """Give each row to the nearest of some centres."""
        for clusters, centers in asked:
            clusters.assign(centers)

    def side_by_side(self, k: int) -> tuple[int, int]:
        """How many threads may each have a restart, and how many of these they take together."""
        points = self.points
        if not points.keep:
            return 1, 1
        strategy = self.rows.strategy(k)
        threads = max(1, min(points.host.workers, points.spare // strategy.nbytes))
        if threads > 1 and self.bounded:
            self.rows.turning_base(k, strategy)  # with all threads, before these part
        return threads, 1

    def seeds_together(self, k: int, n: int) -> bool:
        """Whether `n` seedings take less time together than one by one."""
        return n > 1 and joint.pays(self.rows, k, n)

    def seed(self, k: int, sources: Sequence[Source], trials: int) -> list[tuple[Index, Labels]]:
        """Greedy k-means++ from each of several sources of draws."""
        if self.seeds_together(k, len(sources)):
            return joint.plus_plus(self.rows, k, sources, trials)
        if joint.pays(self.rows, k, 1):
            return [joint.plus_plus(self.rows, k, [source], trials)[0] for source in sources]
        return [plus_plus(self.rows, k, source, trials) for source in sources]


class HostClusters:
    """Labels and sums of one restart: `Clusters`."""

    def __init__(
        self, rows: HostRows, k: int, nearest: BoundedAssignment | WholeAssignment
    ) -> None:
        self._points, self._nearest = rows.points, nearest
        self._sums = HostSums(rows.points, k)
        self.labels: Labels = np.full(rows.points.n, -1, dtype=np.int32)
        self.changed, self.rechecked = 0, 0

    @property
    def sums(self) -> Float64:
        """Weighted sums of the rows of each cluster."""
        return self._sums.sums

    @property
    def counts(self) -> Float64:
        """Their weights."""
        return self._sums.counts

    def begin(self, labels: Labels) -> None:
        """Take clusters that seeding found."""
        self._take(labels, 0)
        self._nearest.expect(labels)

    def assign(self, centers: Float64) -> None:
        """Give each row to the nearest of the centres."""
        compared, n = Centers(self._points, centers, host_rounding()), self._points.n
        if compared.is_near:
            self._take(self._nearest(compared), self._nearest.rechecked)
        else:  # the next ones, means, lie among the rows
            self._take(compared.nearest(np.arange(n)), n)

    def _take(self, labels: Labels, rechecked: int) -> None:
        self.changed, self.rechecked = int(np.count_nonzero(labels != self.labels)), rechecked
        self.labels = labels
        self._sums.update(labels)
