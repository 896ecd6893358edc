"""Sums of clusters on the host: rows that changed cluster are added and taken away."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from mnist_kmeans_mlx.engine.exact import joined
from mnist_kmeans_mlx.engine.frame import EXACT_FLOAT32
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points, length

# Bytes of float64 rows that are split at once where sums are large too.
SPLIT_BYTES = 16 << 20
# If more than this share of the rows changed cluster, all are summed.
CHANGED = 1 / 2
# With fewer rows in a part, it would take as long to add its sums as to make them.
FEWEST_SUMMED = 1 << 10


class HostSums:
    """Weighted sums of clusters, kept up to date.

    They are exact (see `exact`), so it does not matter who adds what in which order: from one step
    to the next only the rows that changed cluster are added and subtracted, and each rank sums its
    own.

    Attributes
    ----------
    sums : ndarray of shape (k, d), float64
        Of the moved rows of each cluster, of all ranks.
    counts : ndarray of shape (k,), float64
        Their weights.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.points, self.k = points, k
        self._labels: Labels | None = None
        # How many rows a product in float32 sums exactly; zero if none.
        self._exact = int(EXACT_FLOAT32 // max(1.0, points.limit)) if points.integer else 0
        # How to sum rows and weights, and what is summed of this rank's.
        self._of_rows, self._of_weights = self.points.row_sums, self.points.weight_sums
        self._sums: Float64 = np.zeros((self._of_rows.width, k, self.points.d))
        self._counts: Float64 = np.zeros((self._of_weights.width, k))

    def update(self, labels: Labels) -> None:
        """Sum by these labels."""
        before, self._labels = self._labels, labels
        few = CHANGED * self.points.n
        if before is not None and len(changed := np.flatnonzero(labels != before)) < few:
            self._move(changed, before[changed], labels[changed])
        else:
            self._sum_all(labels)
        self.sums = joined(self._of_rows.over(self.points.group, self._sums))
        self.counts = joined(self._of_weights.over(self.points.group, self._counts))

    def _sum_all(self, labels: Labels) -> None:
        self._sums[:] = 0
        self._add(None, labels)
        self._counts = self._count(slice(None), labels)

    def _move(self, rows: Index, before: Labels, after: Labels) -> None:
        """Take rows out of one cluster each and put them into another."""
        self._add(rows, after, before)
        self._counts += self._count(rows, after) - self._count(rows, before)

    def _add(self, rows: Index | None, labels: Labels, less: Labels | None = None) -> None:
        """Add rows, all if None, by label, and take the same away by other labels."""
        points, host, most = self.points, self.points.host, None
        if points.weights is not None or self._exact < FEWEST_SUMMED:
            # What rows are split into stays in cache, unless sums are as large.
            most = max(points.host_step, min(2 * self.k, SPLIT_BYTES // (8 * points.d)))

        def add(part: slice) -> Float64:
            index = part if rows is None else rows[part]
            return self._sum(index, labels[part], None if less is None else less[part])

        parts = host.parts(len(labels), max(self.k, points.d), most, FEWEST_SUMMED)
        # A few at a time: the sums of many parts would not fit into memory.
        for start in range(0, len(parts), host.workers):
            for sums in host.map(add, parts[start : start + host.workers]):
                self._sums += sums

    def _sum(self, index: Index | slice, labels: Labels, less: Labels | None) -> Float64:
        """Parts of the sums of rows by label, less those of the same rows by other labels."""
        points = self.points
        if self._of_rows.whole and points.weights is None:
            # In float32 where that sums so many exactly.
            few = length(index) <= self._exact
            moved = points.narrow(index) if few else points.moved(index)
            parts, weights = moved[None], np.ones(len(labels), dtype=moved.dtype)
        else:
            moved, weights = points.moved(index), np.ones(len(labels))
            if points.weights is not None:
                moved *= points.weights[index, None]
            parts = self._of_rows.split(moved)
        # By column, so that each row is read once.
        labels, m = labels[:, None], len(labels)
        if less is not None:
            labels = np.hstack([labels, less[:, None]])
            weights = np.stack([weights, -weights], axis=1)
        starts = np.arange(m + 1) * labels.shape[1]
        one_hot = sparse.csc_matrix((weights.ravel(), labels.ravel(), starts), shape=(self.k, m))
        sums: Float64 = np.stack([one_hot @ part for part in parts])
        return sums

    def _count(self, index: Index | slice, labels: Labels) -> Float64:
        """Parts of the weights of rows by label."""
        if self.points.weights is None:
            return np.bincount(labels, minlength=self.k)[None].astype(np.float64)
        parts = self._of_weights.split(self.points.weights[index])
        return np.stack([np.bincount(labels, part, self.k) for part in parts])
