"""M-step: sums of the rows of each cluster, empty clusters, means."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
from scipy import sparse

from mnist_kmeans_mlx.device import host_view
from mnist_kmeans_mlx.engine.distances import inertia
from mnist_kmeans_mlx.engine.exact import joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points

# Share of the rows' squared norms that inertia must be for their difference to be exact enough.
CANCELLED = 1 / 16
# Bytes of float64 rows that are split at once where sums are large too.
SPLIT_BYTES = 16 << 20
# With fewer rows in a part, it would take as long to add its sums as to make them.
FEWEST_SUMMED = 1 << 10


class Centroids:
    """Means of clusters, kept up to date.

    Sums are those of the moved rows. They are exact (see `exact`), so it does not matter who adds
    what in which order: from one step to the next only the rows that changed cluster are added and
    subtracted, each rank sums its own, and whole numbers are summed on the device, as a product
    with the one-hot matrix of labels, in parts small enough that float32 is exact.

    Attributes
    ----------
    sums : ndarray of shape (k, d), float64
        Weighted sums of the rows of each cluster, of all ranks.
    counts : ndarray of shape (k,), float64
        Their weights.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.points = points
        self.k = k
        self._labels: Labels | None = None
        # How to sum rows and weights, and what is summed of this rank's.
        self._of_rows = points.exact(points.limit, points.integer, points.depth)
        self._of_weights = points.exact(1, whole=True)
        self._sums: Float64 = np.zeros((self._of_rows.width, k, points.d))
        self._counts: Float64 = np.zeros((self._of_weights.width, k))

    def __call__(self, labels: Labels, centers: Float64) -> Float64:
        """Means ``(k, d)`` of the clusters, in the units of the rows.

        Parameters
        ----------
        labels : ndarray of int32, shape (n,)
            Cluster of each row.
        centers : ndarray of shape (k, d), float64
            Centres that the labels were found with; rows furthest from them fill empty clusters.
        """
        self.update(labels)
        sums, counts = self._relocate(labels, centers)
        filled = counts > 0
        # As in scikit-learn, an empty cluster that found no row sits on the largest one.
        source = np.where(filled, np.arange(self.k), np.argmax(counts))
        sums, counts = sums[source], counts[source, None]
        if self.points.integer:
            # Exact up to the one division, so the same wherever the origin lies.
            return (sums + counts * self.points.origin) / counts
        return sums / counts / self.points.scale + self.points.origin

    def update(self, labels: Labels) -> None:
        """Sum by these labels."""
        before, self._labels = self._labels, labels
        few = self.points.n / 4
        if before is not None and len(changed := np.flatnonzero(labels != before)) < few:
            self._move(changed, before[changed], labels[changed])
        else:
            self._sum_all(labels)
        self.sums = joined(self._of_rows.over(self.points.group, self._sums))
        self.counts = joined(self._of_weights.over(self.points.group, self._counts))

    def inertia(self, labels: Labels, centers: Float64) -> float:
        """Weighted sum of squared distances of the moved and scaled rows to `centers`.

        Parameters
        ----------
        labels : ndarray of int32, shape (n,)
            As last summed by.
        centers : ndarray of shape (k, d), float64
        """
        points = self.points
        found = inertia_of_sums(points, centers, self.sums, self.counts)
        if found < CANCELLED * points.norm_sq:
            return inertia(points, centers, labels)
        return found

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
        points, sum_part = self.points, self._sum_on_host
        device, most = points.host, None
        if points.weights is not None or points.exact_sum_rows < FEWEST_SUMMED:
            # What rows are split into stays in cache, unless sums are as large.
            most = max(points.host_step, min(2 * self.k, SPLIT_BYTES // (8 * points.d)))
        elif points.device.kind != "cpu":
            # A GPU multiplies faster than it scatters; the one-hot matrix of a CPU stays sparse.
            device, sum_part, most = points.device, self._sum_on_device, points.exact_sum_rows

        def add(part: slice) -> Float64:
            index = part if rows is None else rows[part]
            return sum_part(index, labels[part], None if less is None else less[part])

        parts = device.parts(len(labels), max(self.k, points.d), most, FEWEST_SUMMED)
        # A few at a time: the sums of many parts would not fit into memory.
        for start in range(0, len(parts), device.workers):
            for sums in device.map(add, parts[start : start + device.workers]):
                self._sums += sums

    def _sum_on_host(self, index: Index | slice, labels: Labels, less: Labels | None) -> Float64:
        """Parts of the sums of rows by label, less those of the same rows by other labels."""
        points = self.points
        if self._of_rows.width == 1 and points.weights is None:
            moved = points.summable(index)
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

    def _sum_on_device(self, index: Index | slice, labels: Labels, less: Labels | None) -> Float64:
        """The same of whole numbers, few enough for float32 to be exact."""
        clusters = mx.arange(self.k)[:, None]
        weights = (mx.array(labels) == clusters).astype(mx.float32)
        if less is not None:
            weights -= mx.array(less) == clusters
        product = self.points.device.matmul(weights, self.points.block(index))
        return host_view(product).astype(np.float64)[None]

    def _count(self, index: Index | slice, labels: Labels) -> Float64:
        """Parts of the weights of rows by label."""
        if self.points.weights is None:
            return np.bincount(labels, minlength=self.k)[None].astype(np.float64)
        parts = self._of_weights.split(self.points.weights[index])
        return np.stack([np.bincount(labels, part, self.k) for part in parts])

    def _relocate(self, labels: Labels, centers: Float64) -> tuple[Float64, Float64]:
        """Give each empty cluster the row that is furthest from its centre.

        The rule and its order are scikit-learn's.
        """
        points = self.points
        empty = np.flatnonzero(self.counts == 0)
        if len(empty) == 0:
            return self.sums, self.counts
        distances = points.group.gather(points.distances_sq(None, centers, labels))
        if distances.max() == 0:
            return self.sums, self.counts
        sums, counts = self.sums.copy(), self.counts.copy()
        furthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
        weights = np.ones(len(empty))
        if points.weights is not None:
            weights = points.pick(furthest, points.weights)
        moved = points.move(points.pick(furthest)) * weights[:, None]
        owners = points.pick(furthest, labels)
        for cluster, row, owner, weight in zip(empty, moved, owners, weights, strict=True):
            sums[owner] -= row
            sums[cluster] = row
            counts[owner] -= weight
            counts[cluster] = weight
        return sums, counts


def inertia_of_sums(points: Points, centers: Float64, sums: Float64, counts: Float64) -> float:
    """Weighted sum of squared distances of rows to the centres of their clusters.

    From the sums of the clusters alone, without a pass over the rows. Digits cancel as far as it is
    below the squared norms of the moved rows.

    Parameters
    ----------
    points : Points
        The rows.
    centers : ndarray of shape (k, d), float64
        Centres, in the units of the rows.
    sums : ndarray of shape (k, d), float64
    counts : ndarray of shape (k,), float64
        As `Centroids` keeps them for some labels.

    Returns
    -------
    float
        Of the moved and scaled rows.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of given centres far off
        moved = points.move(centers)
        # NumPy sums pairwise: with an error of a few units in the last place.
        total = points.norm_sq + np.sum(moved * (counts[:, None] * moved - 2 * sums))
    return max(0.0, float(total))
