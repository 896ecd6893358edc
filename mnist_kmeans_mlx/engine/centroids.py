"""M-step: sums of the rows of each cluster, empty clusters, means."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
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
        if self.points.weights is None and self.points.exact_sum_rows >= 1024:
            self.sums = self._sum_on_device(labels)
        else:
            self.sums = np.zeros((self.k, self.points.d))
            for part in self.points.host_slices():
                self.sums += self._one_hot(labels[part], self._weights(part)) @ self.points.moved(
                    part
                )

    def _move(self, rows: Index, before: Index, after: Index) -> None:
        """Take rows out of one cluster each and put them into another."""
        for start in range(0, len(rows), self.points.host_step):
            part = slice(start, start + self.points.host_step)
            moved, weights = self.points.moved(rows[part]), self._weights(rows[part])
            change = self._one_hot(after[part], weights) - self._one_hot(before[part], weights)
            self.sums += change @ moved
            self.counts += np.bincount(after[part], weights=weights, minlength=self.k)
            self.counts -= np.bincount(before[part], weights=weights, minlength=self.k)

    def _weights(self, index: Index | slice) -> Float64:
        if self.points.weights is not None:
            return self.points.weights[index]
        size = index.stop - index.start if isinstance(index, slice) else len(index)
        return np.ones(size)

    def _one_hot(self, labels: Index, weights: Float64) -> sparse.csr_matrix:
        """Matrix ``(k, m)`` that sums rows by label."""
        m = len(labels)
        return sparse.csc_matrix((weights, labels, np.arange(m + 1)), shape=(self.k, m)).tocsr()

    def _sum_on_device(self, labels: Index) -> Float64:
        points = self.points
        step = min(points.exact_sum_rows, points.device_step(self.k))
        sums = np.zeros((self.k, points.d))
        with mx.stream(points.device.mlx):
            clusters = mx.arange(self.k)[:, None]
            for start in range(0, points.n, step):
                part = slice(start, min(start + step, points.n))
                own = mx.array(labels[part].astype(np.int32)) == clusters
                one_hot = own.astype(mx.float32)
                sums += host_view(points.device.matmul(one_hot, points.block(part)))
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
