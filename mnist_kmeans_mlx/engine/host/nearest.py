"""The nearest centre of any rows, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, dots, host_rounding, product, slices
from mnist_kmeans_mlx.engine.centers import Factors, more_of_sums
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index
from mnist_kmeans_mlx.threads import scratch

# Bytes of float32 rows, and of scores, that a core works on at once. With less, threads wait for
# the interpreter.
ROWS, SCORES = 1 << 22, 1 << 22
# Fewest rows of a block: with fewer, BLAS mostly copies the centres. Most: with more, little but
# memory of each thread is added.
FEWEST, MOST = 128, 1 << 17
# Of so few features rows are turned around; of more than so many, their products are.
TURNED, LONG = 4, 32
# Bytes of products that are turned around in a core's cache.
TURNING = 1 << 20
# Features that are multiplied at once: the shorter a sum, the smaller its error.
SUMMED = 1024
# Products of numbers for which no BLAS wakes a thread, and from which on another one pays.
SMALL, SHARED = 1 << 17, 1 << 23
# Larger scores may be infinite in float32.
LARGEST_SCORE = 1e37


class HostComparison:
    """Centres, ready to be compared with blocks of rows by NumPy.

    Parameters
    ----------
    device : Device
    moved : ndarray of shape (k, d), float64
        The centres, as rows are moved.
    off : float, default=0
        How far scores of rows can be from those of the rows that will come instead of them.
    """

    def __init__(self, device: Device, moved: Float64, off: float = 0.0) -> None:
        self.device, (k, d) = device.host, moved.shape
        self._features, rounding = slices(d, SUMMED), host_rounding()
        factors = Factors.of(moved, rounding, min(d, SUMMED) + len(self._features))
        factors = factors._replace(offset=factors.offset + off)
        self._turned = np.ascontiguousarray(factors.factor.T) if d > LONG else None
        self._constant = factors.constant[:, None]
        if d <= TURNED:
            # Squared norms are one more product, and one more number to sum.
            self._columns = np.column_stack([factors.factor, factors.constant])
            more = more_of_sums(rounding, d, factors.largest_norm)
            factors = factors._replace(offset=factors.offset + more)
        self._factors = factors
        self._numbers = np.arange(k, dtype=np.min_scalar_type(k))[:, None]
        self._step = max(FEWEST, min(ROWS // (4 * d), SCORES // (4 * k), MOST))
        self._size = moved.size

    def each(self, function: Callable[[slice], None], n: int) -> None:
        """Call a function with blocks of `n` rows."""
        work, step = n * self._size, self._step
        if work <= SMALL:
            function(slice(0, n))  # to keep BLAS to one thread takes longer than a few rows
            return
        if work >= SHARED:
            step = min(step, -(-n // self.device.workers))
        self.device.map(function, slices(n, step))

    def nearest(
        self, moved: npt.NDArray[Any], longest: float | None = None
    ) -> tuple[npt.NDArray[np.integer[Any]], Index, npt.NDArray[np.bool_]]:
        """Nearest centres of a block; rows in doubt, and which centres these may be nearest to.

        First with the error of the longest row, which takes less than that of each. Its norm, or
        more than that, is `longest` where it is known.
        """
        shape, dtype = (len(self._numbers), len(moved)), self._numbers.dtype
        close, each = scratch("close", shape, np.bool_), scratch("each", shape, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            scores, rows = self._scores(moved)
            longest = _longest(moved, rows) if longest is None else longest
            reach = scores.min(axis=0)
            # Twice the error above the least, and what this sum is rounded by.
            reach += np.float32(3 * self._factors.error(longest))
            np.less_equal(scores, reach, out=close)
        np.multiply(close, self._numbers, out=each)
        label = np.add.reduce(each, axis=0, dtype=dtype)
        largest = self._factors.largest_norm
        if not largest * (largest + 2 * longest) < LARGEST_SCORE:
            return self._of_doubtful(moved, scores, label, np.arange(len(moved)))
        # Where all scores are numbers, each row is close to one at least.
        if np.count_nonzero(close) == len(moved):
            return label, np.zeros(0, np.intp), close[:, :0].T
        several = np.add.reduce(close.view(np.uint8), axis=0, dtype=dtype) != 1
        return self._of_doubtful(moved, scores, label, np.flatnonzero(several))

    def _of_doubtful(
        self,
        moved: npt.NDArray[Any],
        scores: Float32,
        label: npt.NDArray[np.integer[Any]],
        rows: Index,
    ) -> tuple[npt.NDArray[np.integer[Any]], Index, npt.NDArray[np.bool_]]:
        """The same, where some rows are left to be compared with an error of their own."""
        with np.errstate(over="ignore", invalid="ignore"):
            some, own = moved[rows].astype(np.float64), scores[:, rows]
            error = self._factors.error(np.sqrt(dots(some, some)))
            # Where any is not a number, each may be nearest.
            error[~np.isfinite(own).all(axis=0)] = np.inf
            close = ~(own > own.min(axis=0) + 2 * error).T
        count = np.count_nonzero(close, axis=1)
        sure = count == 1
        label[rows[sure]] = close[sure].argmax(axis=1)
        return label, rows[~sure], close[~sure]

    def _scores(self, moved: npt.NDArray[Any]) -> tuple[Float32, Float32]:
        """Scores ``(k, m)`` of one centre side by side, and the rows, perhaps as columns."""
        (m, d), k = moved.shape, len(self._numbers)
        scores = scratch("scores", (k, m), np.float32)
        if d <= TURNED:
            columns = scratch("rows", (d + 1, m), np.float32)
            columns[:-1], columns[-1] = moved.T, 1
            product(self._columns, columns, out=scores)
            return scores, columns[:-1]
        rows = moved
        if rows.dtype != np.float32:
            rows = scratch("rows", (m, d), np.float32)
            rows[:] = moved
        if self._turned is None:
            product(self._factors.factor, rows.T, out=scores)
            scores += self._constant
            return scores, rows
        for part in slices(m, max(FEWEST, TURNING // (4 * k))):
            by_row = scratch("products", (part.stop - part.start, k), np.float32)
            for features in self._features:
                if features.start == 0:
                    product(rows[part, features], self._turned[features], out=by_row)
                else:
                    by_row += product(rows[part, features], self._turned[features])
            # To turn so narrow a product around takes less than AVX-512 kernels gain by it.
            np.add(by_row.T, self._constant, out=scores[:, part])
        return scores, rows


def _longest(rows: npt.NDArray[Any], moved: Float32) -> float:
    """A bound of the norms of moved rows, one after the other or side by side."""
    if rows.dtype == np.uint8:
        return 255.0 * float(np.sqrt(rows.shape[1]))
    if rows.shape[1] > LONG:
        return float(np.sqrt(dots(moved, moved).max()))
    return max(float(moved.max()), -float(moved.min())) * float(np.sqrt(rows.shape[1]))
