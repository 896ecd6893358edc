"""The nearest centre of any rows, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, Rounding, host_rounding, product, slices
from mnist_kmeans_mlx.engine.points import Float32, Index, Labels

# Bytes of float32 rows, or of scores, that a core works on at once: they stay in its cache.
BLOCK = 1 << 20
# Products of numbers for which no BLAS wakes a thread.
SMALL = 1 << 17


class HostComparison:
    """Centres, ready to be compared with blocks of rows by NumPy.

    Parameters
    ----------
    device : Device
    factor : ndarray of shape (d, k), float32
        The centres times -2.
    constant : ndarray of shape (k,), float32
        Their squared norms.
    """

    def __init__(self, device: Device, factor: Float32, constant: Float32) -> None:
        self.device, self._factor, self._constant = device.host, factor, constant
        self._step = max(1, BLOCK // (4 * max(factor.shape)))

    @staticmethod
    def rounding(device: Device) -> Rounding:
        """How exactly rows are multiplied."""
        return host_rounding()

    def each(self, function: Callable[[slice], None], n: int) -> None:
        """Call a function with blocks of `n` rows."""
        if n * self._factor.size <= SMALL:
            function(slice(0, n))  # to keep BLAS to one thread takes longer than a few rows
        else:
            self.device.map(function, slices(n, self._step))

    def nearest(
        self, moved: npt.NDArray[Any], slope: float, offset: float
    ) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """Nearest centres of a block; rows in doubt, and which centres these may be nearest to."""
        rows = moved.astype(np.float32, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            error = np.float32(slope) * np.sqrt(np.vecdot(rows, rows)) + np.float32(offset)
            # Scores of one centre side by side: rows are compared with one another, not along.
            scores = np.ascontiguousarray(product(rows, self._factor).T)
            scores += self._constant[:, None]
            # Whatever is not a number is in doubt.
            close = ~(scores > scores.min(axis=0) + 2 * error)
        m = len(rows)
        center, row = np.divmod(np.flatnonzero(close), m)
        label = np.empty(m, dtype=np.int32)
        label[row] = center
        if len(row) == m:
            return label, np.zeros(0, np.intp), close[:, :0].T
        doubtful = np.flatnonzero(np.bincount(row, minlength=m) > 1)
        return label, doubtful, close[:, doubtful].T
