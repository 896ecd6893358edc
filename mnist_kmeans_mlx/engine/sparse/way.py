"""The way of sparse rows, from rows to labels and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.exact import Exact, joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.seeding.sampling import Source
from mnist_kmeans_mlx.engine.sparse.comparison import SparseComparison
from mnist_kmeans_mlx.engine.sparse.plus_plus import plus_plus


class SparseWay:
    """Sparse rows: a `Way`.

    Attributes
    ----------
    norms_sq : ndarray of shape (n,), float64
        Squared norms of the scaled rows.
    """

    device, why = "cpu", ""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.norms_sq = np.empty(points.n)
        for part in csr.parts(points.rows):
            block = csr.block(points.rows, part)
            self.norms_sq[part] = csr.norms_sq(csr.scaled(block, points.scale))
        with np.errstate(over="ignore"):
            self._norms = np.sqrt(self.norms_sq) / points.scale * (1 + 1e-9)
        self.norm_sq = points.norm_sq(self.norms_sq)

    @property  # which all ranks find together: none may wait for another's lock
    def mean_variance(self) -> float:
        """Mean over the features of the variance of the scaled rows."""
        points = self.points
        values, sums = Exact(points.limit, points.total, points.integer), np.zeros(points.d)
        for part in csr.parts(points.rows):
            block = csr.block(points.rows, part)
            np.add.at(sums, block.indices, values.rough(block.data * points.scale))
        return points.moments(sums, self.norms_sq)[1]

    def clusters(self, k: int, settled: bool = False) -> SparseClusters:
        """Of a new restart."""
        return SparseClusters(self.points, k)

    def assign(self, asked: Sequence[tuple[SparseClusters, Float64]]) -> None:
        """Give each row to the nearest of some centres."""
        for clusters, centers in asked:
            compared = SparseComparison(centers, self.points.device)
            labels, doubtful = compared.labels(self.points.rows, self._norms)
            clusters.begin(labels)
            clusters.rechecked = doubtful

    def side_by_side(self, k: int) -> tuple[int, int]:
        """How many threads may each have a restart: one, which takes all."""
        return 1, 1

    def seeds_together(self, k: int, n: int) -> bool:
        """Whether `n` seedings take less time together."""
        return False

    def seed(self, k: int, sources: Sequence[Source], trials: int) -> list[tuple[Index, None]]:
        """Greedy k-means++ from each of several sources of draws.

        Labels are left to the first comparison: a distance has one digit less than a score.
        """
        found = (plus_plus(self.points, self.norms_sq, k, source, trials) for source in sources)
        return [(chosen, None) for chosen in found]


class SparseClusters:
    """Labels and sums of one restart: `Clusters`.

    Sums are exact (see `exact`), so that only rows that changed cluster are added and taken away.
    """

    def __init__(self, points: Points, k: int) -> None:
        self._points = points
        self._of_rows, self._of_weights = points.row_sums, points.weight_sums
        self._row_parts: Float64 = np.zeros((self._of_rows.width, k, points.d))
        self._weight_parts: Float64 = np.zeros((self._of_weights.width, k))
        self.labels: Labels = np.full(points.n, -1, dtype=np.int32)
        self.sums, self.counts = np.zeros((k, points.d)), np.zeros(k)
        self.changed, self.rechecked = 0, 0

    def begin(self, labels: Labels) -> None:
        """Take clusters that are known."""
        points, before, self.labels = self._points, self.labels, labels
        changed = np.flatnonzero(labels != before)
        self.changed, self.rechecked = len(changed), 0
        if 2 * len(changed) > points.n:  # to sum all anew takes no longer
            self._row_parts[:], self._weight_parts[:] = 0, 0
            self._add(points.rows, slice(None), labels)
        elif len(changed) > 0:
            rows = points.rows[changed]
            self._add(rows, changed, labels[changed], before[changed])
        self.sums = self._joined(self._of_rows, self._row_parts)
        self.counts = self._joined(self._of_weights, self._weight_parts)

    def _joined(self, exact: Exact, own: Float64) -> Float64:
        """What parts of the sums of all ranks stand for, which later changes leave as it is."""
        if self._points.group.size == 1 and len(own) > 1:
            return joined(own)
        return joined(exact.over(self._points.group, own))

    def _add(
        self, rows: Any, index: Index | slice, labels: Labels, less: Labels | None = None
    ) -> None:
        """Add the rows of an index, by label, and take the same away by other labels."""
        points = self._points
        heavy = None if points.weights is None else points.weights[index]
        for part in csr.parts(rows):
            block, own = csr.block(rows, part), labels[part]
            values, weights = csr.scaled(block, points.scale).data, np.ones(block.shape[0])
            if heavy is not None:
                weights = heavy[part]
                values = values * csr.along(block, weights)
            changes = (
                [(np.add, own)] if less is None else [(np.add, own), (np.subtract, less[part])]
            )
            split_rows, split_weights = self._of_rows.split(values), self._of_weights.split(weights)
            for change, label in changes:
                csr.add(self._row_parts, block, label, split_rows, change)
                for count, share in zip(self._weight_parts, split_weights, strict=True):
                    change.at(count, label, share)
