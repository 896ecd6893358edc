"""M-step: sums of the rows of each cluster, empty clusters, means."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from scipy import sparse

from mnist_kmeans_mlx.device import host_view
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


class Centroids:
    """Means of clusters, kept up to date.

    Sums are those of the moved rows, in float64. From one step to the next only the rows that
    changed cluster are added and subtracted. Whole numbers are summed on the device, as a product
    with the one-hot matrix of labels, in parts small enough that float32 is exact: the sums do not
    depend on the order of summation, so neither on the device.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.points = points
        self.k = k
        self.sums: Float64 = np.zeros((k, points.d))
        self.counts: Float64 = np.zeros(k)
        self._labels: Index | None = None

    def __call__(self, labels: Index, centers: Float64) -> Float64:
        """Means ``(k, d)`` of the clusters, in the units of the rows.

        Parameters
        ----------
        labels : ndarray of int, shape (n,)
            Cluster of each row.
        centers : ndarray of shape (k, d), float64
            Centres that the labels were found with; rows furthest from them fill empty clusters.
        """
        self._update(labels)
        sums, counts = self._relocate(labels, centers)
        filled = counts > 0
        # As in scikit-learn, an empty cluster that found no row sits on the largest one.
        source = np.where(filled, np.arange(self.k), np.argmax(counts))
        sums, counts = sums[source], counts[source, None]
        if self.points.integer:
            # Exact up to the one division, so the same wherever the origin lies.
            return (sums + counts * self.points.origin) / counts
        return sums / counts / self.points.scale + self.points.origin

    def _update(self, labels: Index) -> None:
        if self._labels is not None:
            changed = np.flatnonzero(labels != self._labels)
            if 4 * len(changed) < self.points.n:
                self._move(changed, self._labels[changed], labels[changed])
                self._labels = labels
                return
        self._labels = labels
        self.counts = np.bincount(labels, weights=self.points.weights, minlength=self.k).astype(
            np.float64
        )
        self.sums = self._sum(labels)

    def _move(self, rows: Index, before: Index, after: Index) -> None:
        """Take rows out of one cluster each and put them into another."""
        for part in self.points.device_parts(max(self.k, self.points.d), len(rows)):
            moved = self.points.summable(rows[part])
            weights = self._weights(rows[part], moved.dtype)
            change = self._one_hot(after[part], weights) - self._one_hot(before[part], weights)
            self.sums += change @ moved
        weights = self._weights(rows)
        self.counts += np.bincount(after, weights=weights, minlength=self.k)
        self.counts -= np.bincount(before, weights=weights, minlength=self.k)

    def _weights(self, index: Index | slice, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Weights of rows; if all are one, in a dtype that keeps whole numbers narrow."""
        if self.points.weights is not None:
            return self.points.weights[index]
        size = index.stop - index.start if isinstance(index, slice) else len(index)
        return np.ones(size, dtype=dtype)

    def _one_hot(self, labels: Index, weights: npt.NDArray[Any]) -> sparse.csr_matrix:
        """Matrix ``(k, m)`` that sums rows by label."""
        m = len(labels)
        return sparse.csc_matrix((weights, labels, np.arange(m + 1)), shape=(self.k, m)).tocsr()

    def _sum(self, labels: Index) -> Float64:
        """Sums of all rows by label."""
        points = self.points
        # A GPU multiplies faster than it scatters; the one-hot matrix of a CPU stays sparse.
        exact = points.weights is None and points.exact_sum_rows >= 1024
        on_device = exact and points.device.kind != "cpu"
        clusters = mx.arange(self.k)[:, None]
        mx.eval(clusters)

        def sum_part(part: slice) -> Float64:
            if not on_device:
                return self._one_hot(labels[part], self._weights(part)) @ points.summable(part)
            own = mx.array(labels[part].astype(np.int32)) == clusters
            product = points.device.matmul(own.astype(mx.float32), points.block(part))
            return host_view(product).astype(np.float64)

        sums = np.zeros((self.k, points.d))
        parts = points.device_parts(
            max(self.k, points.d), most=points.exact_sum_rows if on_device else None
        )
        # A few at a time: the sums of many parts would not fit into memory.
        for start in range(0, len(parts), points.device.workers):
            for partial in points.device.map(
                sum_part, parts[start : start + points.device.workers]
            ):
                sums += partial
        return sums

    def _relocate(self, labels: Index, centers: Float64) -> tuple[Float64, Float64]:
        """Give each empty cluster the row that is furthest from its centre.

        The rule and its order are scikit-learn's.
        """
        empty = np.flatnonzero(self.counts == 0)
        if len(empty) == 0:
            return self.sums, self.counts
        distances = self.points.distances_sq(None, centers, labels)
        if distances.max() == 0:
            return self.sums, self.counts
        sums, counts = self.sums.copy(), self.counts.copy()
        furthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
        weights = self._weights(furthest)
        for cluster, row, weight in zip(empty, furthest, weights, strict=True):
            moved = self.points.moved(np.array([row]))[0] * weight
            sums[labels[row]] -= moved
            sums[cluster] = moved
            counts[labels[row]] -= weight
            counts[cluster] = weight
        return sums, counts


def inertia_of_sums(points: Points, centers: Float64, sums: Float64, counts: Float64) -> float:
    """Weighted sum of squared distances of rows to the centres of their clusters.

    From the sums of the clusters alone, without a pass over the rows: enough for a curve. A
    result takes `distances.inertia`, where nothing cancels.

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
        In the units of the rows squared.
    """
    weights = 1.0 if points.weights is None else points.weights
    moved = points.move(centers)
    total = (points.norms_sq * weights).sum() - 2 * np.vdot(moved, sums)
    total += counts @ np.square(moved).sum(axis=1)
    return max(0.0, float(total)) / points.scale**2
