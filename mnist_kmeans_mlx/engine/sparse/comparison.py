"""Sparse rows compared with dense centres in float64, and how far that can be from the truth.

A score is ``|c|^2 - 2 x.c``, added up in the order that scikit-learn adds it in: where centres are
as near as float64 can tell, such as unit vectors that share no column with a row, it is the same
one that is taken.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.decision import decide_pairs, euclidean, power_of_two
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels

# Between these squares of centres and of rows are numbers of float32, or nearly.
NEAR, FAR = 1e-10, 1e10
# With fewer centres than this, products in float32 are no quicker.
FEW = 8
# With fewer entries than this share of the columns, centres are asked for theirs alone.
SPARSE = 16


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
        self._scaled = centers if self._scale == 1 else centers * self._scale
        self._norms_sq = np.einsum("ij,ij->i", self._scaled, self._scaled)
        self._norms = np.sqrt(self._norms_sq)
        self._largest = float(self._norms.max())

    @cached_property
    def _factors(self) -> npt.NDArray[Any]:
        """For each column -2 times what all centres have there, side by side."""
        return np.multiply(self._scaled.T, -2, order="C")

    @cached_property
    def _narrow_factors(self) -> npt.NDArray[Any]:
        """The same in float32."""
        return np.multiply(self._scaled.T, -2, order="C", dtype=np.float32, casting="same_kind")

    def labels(self, rows: Any, norms: Float64 | None = None) -> tuple[Labels, int]:
        """The nearest centre of each row, of equally near ones the first; how many were in doubt.

        Parameters
        ----------
        rows : CSR matrix of shape (n, d)
            Finite numbers of any real dtype.
        norms : ndarray of shape (n,), float64, optional
            What is known to be no less than their norms.
        """
        labels = np.zeros(rows.shape[0], dtype=np.int32)
        if len(self.centers) == 1:
            return labels, 0

        dtype: Any = np.float32 if len(self.centers) >= FEW else np.float64

        def decide(part: slice) -> int:
            block = csr.block(rows, part)
            with np.errstate(over="ignore", invalid="ignore"):
                longest = csr.no_longer(block) if norms is None else norms[part]
                labels[part], doubtful = self._nearest(block, longest * self._scale, dtype)
            return doubtful

        return labels, sum(csr.each(decide, rows, self.host, len(self.centers)))

    def _nearest(self, block: Any, norms: Float64, dtype: Any) -> tuple[Labels, int]:
        """The same of a block: float32 decides most rows, float64 most others."""
        scores = self._products(csr.scaled(block, self._scale), dtype)
        scores += self._norms_sq.astype(scores.dtype)[:, None]
        label, doubtful = self._least(scores, np.diff(block.indptr), norms)
        if len(doubtful) == 0:
            return label, 0
        rest = block[doubtful]
        if scores.dtype == np.float32:
            label[doubtful], number = self._nearest(rest, norms[doubtful], np.float64)
            return label, number
        among = scores[:, doubtful].T
        label[doubtful] = among.argmin(axis=1)
        again, left = self._differ(csr.canonical(rest), among)
        label[doubtful[left]] = again
        return label, len(left)

    def _products(self, scaled: Any, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Products ``(k, m)`` of centres and rows, times -2."""
        (m, d), k = scaled.shape, len(self.centers)
        if SPARSE * scaled.nnz < d:  # of the columns that they have: no matter how wide they are
            used, place = np.unique(scaled.indices, return_inverse=True)
            factors = np.multiply(self._scaled[:, used].T, -2, order="C")
            scaled = csr_matrix((scaled.data, place, scaled.indptr), shape=(m, len(used)))
        elif dtype == np.float32:
            factors = self._narrow_factors
            scaled = csr.like(scaled, scaled.data.astype(dtype))
        else:
            factors = self._factors
        if k == 2:  # one by one is quicker
            return np.stack([scaled @ column for column in factors.T])
        return np.ascontiguousarray((scaled @ factors).T)

    def _least(
        self, scores: npt.NDArray[Any], entries: Index, norms: Float64
    ) -> tuple[Labels, Index]:
        """Where the least score of each row is, and which rows these leave in doubt."""
        best = scores.min(axis=0).astype(np.float64)
        slope, constant = self._rounding(entries, np.finfo(scores.dtype).eps / 2)
        limit = best + 2 * self._largest * (slope * norms + constant * self._largest)
        # What was rounded up is in doubt, and so is whatever is not a number.
        near = np.flatnonzero(scores <= limit.astype(scores.dtype))
        center, row = np.divmod(near, len(best))
        label = np.zeros(len(best), dtype=np.int32)
        label[row] = center
        # Nor may a sum of some products be infinite, for what would come back to a number.
        held = norms * self._largest < np.finfo(scores.dtype).max / 8
        held &= np.isfinite(best)
        if len(row) == len(label) and held.all():
            return label, np.zeros(0, dtype=np.intp)
        number = np.bincount(row, minlength=len(label))
        return label, np.flatnonzero((number != 1) | ~held)

    def _rounding(self, entries: Any, roundoff: float) -> tuple[Any, float]:
        """What norms of a row and a centre, and of a centre squared, are in the error of a score.

        Factors are rounded, each of so many sums, and the squared norm, of one product for each
        feature, in float64.
        """
        constant = 4 * roundoff + (self.centers.shape[1] + 4) * 2.0**-53
        return 2.02 * roundoff * (entries + 6), 1.01 * constant

    def _differ(self, block: Any, scores: Float64) -> tuple[Labels, Index]:
        """Nearest centres, by differences, of rows in doubt; and which of them these decide.

        Where all are whole numbers, scores are exact. Centres with the same product differ by their
        norms alone, such as all those that share no column with a row: the least score is right.
        """
        scaled = csr.scaled(block, self._scale)
        whole = self._is_whole and np.all(block.data == np.rint(block.data))
        if whole and csr.norms_sq(scaled).max() < 2.0**50:
            left = np.flatnonzero(~np.isfinite(scores).all(axis=1))
        else:
            left = self._untold(scaled, scores)
        if len(left) == 0:
            return np.zeros(0, dtype=np.int32), left
        close = self._close(scaled[left], scores[left])
        label = np.empty(len(left), dtype=np.int32)
        row, center = np.nonzero(close)
        if self._scale == 1 and np.abs(block.data).max(initial=0) < FAR:
            squared = csr.pairs_sq(block, left[row], self._sparse, center)
            order = np.lexsort((squared, row))  # which keeps the first of equals
            label[:] = center[order[np.searchsorted(row, np.arange(len(left)))]]
            return label, left
        for few in csr.dense_parts(len(left), block.shape[1]):
            row, center = np.nonzero(close[few])
            label[few] = decide_pairs(block[left[few]].toarray(), row, self.centers, center)
        return label, left

    def _close(self, scaled: Any, scores: Float64) -> npt.NDArray[np.bool_]:
        """Which centres may be nearest to each row, as far as its scores tell."""
        slope, constant = self._rounding(np.diff(scaled.indptr), 2.0**-53)
        norms = np.sqrt(csr.norms_sq(scaled))
        # With the norm of each centre: one far off is no reason to doubt the others.
        error = (slope * norms)[:, None] * self._norms + constant * self._norms_sq
        close: npt.NDArray[np.bool_] = ~(scores - error > (scores + error).min(axis=1)[:, None])
        return close

    def _untold(self, scaled: Any, scores: Float64) -> Index:
        """Rows of which the least score may not be that of the nearest centre."""
        close, products = self._close(scaled, scores), self._products(scaled).T
        lowest = np.where(close, products, np.inf).min(axis=1)
        highest = np.where(close, products, -np.inf).max(axis=1)
        told = (np.count_nonzero(close, axis=1) < 2) | (lowest == highest)
        return np.flatnonzero(~(told & np.isfinite(scores).all(axis=1)))

    @cached_property
    def _sparse(self) -> Any:
        """The scaled centres as a CSR matrix: seeds, at least, are as sparse as rows."""
        return csr_matrix(self._scaled)

    @cached_property
    def _is_whole(self) -> bool:
        """Whether scores of rows of whole numbers are exact."""
        small = self._scale == 1 and self._largest < 2.0**25
        return small and bool(np.all(self.centers == np.rint(self.centers)))

    def distances(self, rows: Any, out: Float64) -> None:
        """Euclidean distances of each row to each centre.

        Parameters
        ----------
        rows : CSR matrix of shape (n, d)
            Finite numbers of any real dtype.
        out : ndarray of shape (n, k)
            Takes the distances, which are exactly zero where row and centre are equal.
        """
        rows, norms_sq = csr.merged(rows), self._norms_sq

        def measure(part: slice) -> None:
            block, found = csr.block(rows, part), out[part]
            with np.errstate(over="ignore", invalid="ignore"):
                scaled = csr.scaled(block, self._scale)
                own = csr.norms_sq(scaled)
                squared, size = scaled @ self._factors, np.add.outer(own, norms_sq)
                squared += size
                least, most = own.min() + norms_sq.min(), own.max() + norms_sq.max()
                if least > NEAR**2 and most < FAR**2 and squared.min() > csr.CANCELLED * most:
                    np.sqrt(squared, out=squared)
                    np.divide(squared, self._scale, out=found, casting="same_kind")
                    return
                lost = ~(squared > csr.CANCELLED * size)
                odd = ~((size > NEAR**2) & (size < FAR**2))
                row, center = np.nonzero(lost & ~odd)
                if len(row) > 0:
                    squared[row, center] = csr.pairs_sq(scaled, row, self._sparse, center)
                measured = np.sqrt(squared) / self._scale
            nothing = csr.of_rows(np.maximum, block, np.abs(block.data)) == 0
            nothing = nothing[:, None] & ~self.centers.any(axis=1)
            measured[nothing] = 0
            row, center = np.nonzero(odd & ~nothing)
            for few in csr.dense_parts(len(row), block.shape[1]):
                own = self.centers[center[few]]
                measured[row[few], center[few]] = euclidean(block[row[few]].toarray(), own)
            with np.errstate(over="ignore"):
                found[:] = measured

        csr.each(measure, rows, self.host, len(self.centers))
