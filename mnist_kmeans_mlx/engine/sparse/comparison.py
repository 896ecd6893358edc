"""Sparse rows compared with dense centres in float64, and how far that can be from the truth.

A score is ``|c|^2 - 2 x.c``, added up in the order that scikit-learn adds it in: where centres are
as near as float64 can tell, such as unit vectors that share no column with a row, it is the same
one that is taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.decision import decide_pairs, euclidean, power_of_two
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels

ROUNDOFF = 2.0**-53
# Between these squares of centres and of rows are numbers, and no digit is lost.
NEAR, FAR = 1e-100, 1e100
# Whole numbers up to here are added and multiplied without rounding.
EXACT = float(1 << 53)


class SparseComparison:
    """Centres, ready to be compared with CSR rows.

    Parameters
    ----------
    centers : ndarray of shape (k, d), float64
        Finite.
    device : Device
        Beside whose host's threads share the work.
    """

    def __init__(self, centers: Float64, device: Device) -> None:
        self.centers, self.host = centers, device.host
        largest = float(max(centers.max(), -centers.min()))
        self._scale = 1.0 if largest == 0 or NEAR < largest < FAR else power_of_two(largest)
        scaled = centers if self._scale == 1 else centers * self._scale
        # For each column what all centres have there, side by side.
        self._columns = np.ascontiguousarray(scaled.T)
        self._norms_sq = np.einsum("ij,ij->i", scaled, scaled)
        self._norms = np.sqrt(self._norms_sq)
        self._largest = float(self._norms.max())

    def labels(self, rows: Any) -> tuple[Labels, int]:
        """The nearest centre of each row, of equally near ones the first; how many were in doubt.

        Parameters
        ----------
        rows : CSR matrix of shape (n, d)
            Finite numbers of any real dtype.
        """
        rows = csr.canonical(rows)
        labels = np.zeros(rows.shape[0], dtype=np.int32)
        if len(self.centers) == 1:
            return labels, 0

        def decide(part: slice) -> int:
            block = csr.block(rows, part)
            labels[part], doubtful = self._nearest(block)
            return doubtful

        return labels, sum(self.host.map(decide, csr.parts(rows, len(self.centers))))

    def _nearest(self, block: Any) -> tuple[Labels, int]:
        """The same of a block in float64."""
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = block if self._scale == 1 else block * self._scale
            products = scaled @ self._columns
            scores = self._norms_sq - 2 * products
            label: Labels = scores.argmin(axis=1).astype(np.int32)
            best = scores[np.arange(len(label)), label]
            slope = 2.02 * ROUNDOFF * (np.diff(block.indptr) + 4) * np.sqrt(csr.norms_sq(scaled))
            constant = 1.01 * ROUNDOFF * (len(self._columns) + 8)
            limit = best + 2 * (slope * self._largest + constant * self._largest**2)
            # Whatever is not a number is in doubt.
            rough = ~(scores > limit[:, None])
            row = np.flatnonzero(np.count_nonzero(rough, axis=1) > 1)
            row = np.union1d(row, np.flatnonzero(~np.isfinite(best)))
            if len(row) == 0:
                return label, 0
            # Again, with the norm of each centre: one far off is no reason to doubt the others.
            scores, products = scores[row], products[row]
            error = slope[row, None] * self._norms + constant * self._norms_sq
            close = ~(scores - error > (scores + error).min(axis=1)[:, None])
            lowest = np.where(close, products, np.inf).min(axis=1)
            highest = np.where(close, products, -np.inf).max(axis=1)
            # Centres with the same product differ by their norms alone, such as all those that
            # share no column with a row.
            told = (np.count_nonzero(close, axis=1) < 2) | (lowest == highest)
            told &= np.isfinite(scores).all(axis=1)
        row, close = row[~told], close[~told]
        for few in csr.dense_parts(len(row), block.shape[1]):
            pair, center = np.nonzero(close[few])
            label[row[few]] = decide_pairs(block[row[few]].toarray(), pair, self.centers, center)
        return label, len(row)

    def distances(self, rows: Any, out: Float64) -> None:
        """Euclidean distances of each row to each centre.

        Parameters
        ----------
        rows : CSR matrix of shape (n, d)
            Finite numbers of any real dtype.
        out : ndarray of shape (n, k)
            Takes the distances, which are exactly zero where row and centre are equal.
        """
        rows = csr.canonical(rows)

        def measure(part: slice) -> None:
            block = csr.block(rows, part)
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = block if self._scale == 1 else block * self._scale
                size = csr.norms_sq(scaled)[:, None] + self._norms_sq
                squared = scaled @ self._columns
                squared *= -2
                squared += size
                lost = ~((squared > csr.CANCELLED * size) & (size > NEAR**2) & (size < FAR**2))
                found = np.sqrt(squared) / self._scale
            row, center = np.nonzero(lost)
            for few in csr.dense_parts(len(row), block.shape[1]):
                # Pairs of a row stand side by side: it is made dense once.
                index, place = np.unique(row[few], return_inverse=True)
                dense = block[index].toarray()
                own = self.centers[center[few]]
                found[row[few], center[few]] = euclidean(dense[place], own)
            with np.errstate(over="ignore"):
                out[part] = found

        self.host.map(measure, csr.parts(rows, len(self.centers)))
