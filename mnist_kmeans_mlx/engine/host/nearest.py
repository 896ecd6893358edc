"""The nearest centre of any rows, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, host_rounding, product, slices
from mnist_kmeans_mlx.engine.centers import Factors, more_of_sums
from mnist_kmeans_mlx.engine.differences import NARROW
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels
from mnist_kmeans_mlx.threads import scratch

# Bytes of float32 rows, and of scores, that a core works on at once. With less, threads wait for
# the interpreter.
ROWS, SCORES = 1 << 22, 1 << 21
# Fewest rows of a block: with fewer, BLAS mostly copies the centres.
FEWEST = 128
# Of shorter rows, to take the product of each with itself takes longer than one of all squares.
LONG = 32
# Features that are multiplied at once: the shorter a sum, the smaller its error.
SUMMED = 1024
# Products of numbers for which no BLAS wakes a thread, and from which on another one pays.
SMALL, SHARED = 1 << 17, 1 << 23


class HostComparison:
    """Centres, ready to be compared with blocks of rows by NumPy.

    Parameters
    ----------
    device : Device
    moved : ndarray of shape (k, d), float64
        The centres, as rows are moved.
    """

    def __init__(self, device: Device, moved: Float64) -> None:
        self.device, (k, d) = device.host, moved.shape
        self._features, rounding = slices(d, SUMMED), host_rounding()
        self._factors = factors = Factors.of(moved, rounding, min(d, SUMMED) + len(self._features))
        self._slope, self._offset = np.float32(factors.slope), np.float32(factors.offset)
        self._rows = np.ascontiguousarray(factors.factor.T)
        self._columns = None
        if d <= NARROW:
            # Squared norms are one more product, and one more number to sum.
            self._columns = np.column_stack([factors.factor, factors.constant])
            largest = float(np.sqrt(factors.constant.max()))
            self._offset += np.float32(more_of_sums(rounding, d, largest))
        self._numbers = np.arange(k, dtype=np.min_scalar_type(k))[:, None]
        self._step = max(FEWEST, min(ROWS // (4 * d), SCORES // (4 * k)))
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

    def nearest(self, moved: npt.NDArray[Any]) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """Nearest centres of a block; rows in doubt, and which centres these may be nearest to."""
        shape, dtype = (len(self._numbers), len(moved)), self._numbers.dtype
        close, each = scratch("close", shape, np.bool_), scratch("each", shape, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            scores, reach = self._scores(moved)
            # Twice the error above the least.
            reach *= 2 * self._slope
            reach += 2 * self._offset
            reach += scores.min(axis=0)
            np.less_equal(scores, reach, out=close)
        # A row whose scores are no numbers is close to none.
        lone = np.add.reduce(close.view(np.uint8), axis=0, dtype=dtype) == 1
        np.multiply(close, self._numbers, out=each)
        label = np.add.reduce(each, axis=0, dtype=dtype).astype(np.int32)
        if lone.all():
            return label, np.zeros(0, np.intp), close[:, :0].T
        doubtful = np.flatnonzero(~lone)
        return label, doubtful, ~(scores[:, doubtful] > reach[doubtful]).T

    def _scores(self, moved: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Scores ``(k, m)`` of one centre side by side, and norms of rows."""
        (m, d), k = moved.shape, len(self._numbers)
        scores = scratch("scores", (k, m), np.float32)
        if self._columns is not None:
            columns = scratch("rows", (d + 1, m), np.float32)
            columns[:-1], columns[-1] = moved.T, 1
            product(self._columns, columns, out=scores)
            return scores, np.sqrt(np.square(columns[:-1]).sum(axis=0))
        rows = moved
        if rows.dtype != np.float32:
            rows = scratch("rows", (m, d), np.float32)
            rows[:] = moved
        by_row = scratch("products", (m, k), np.float32)
        for part in self._features:
            if part.start == 0:
                product(rows[:, part], self._rows[part], out=by_row)
            else:
                by_row += product(rows[:, part], self._rows[part])
        # To turn so narrow a product around takes less than AVX-512 kernels gain by it.
        np.add(by_row.T, self._factors.constant[:, None], out=scores)
        if d >= LONG:
            return scores, np.sqrt(np.vecdot(rows, rows))
        squares = np.square(rows, out=scratch("squares", (m, d), np.float32))
        return scores, np.sqrt(product(squares, np.ones(d, np.float32)))
