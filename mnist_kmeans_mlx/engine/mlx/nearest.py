"""The nearest centre of any rows, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, slices
from mnist_kmeans_mlx.engine.centers import Factors
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.step import nearest
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels


class MlxComparison:
    """Centres, ready to be compared with blocks of rows on a device.

    Parameters
    ----------
    device : Device
    moved : ndarray of shape (k, d), float64
        The centres, as rows are moved.
    """

    def __init__(self, device: Device, moved: Float64) -> None:
        self.device = device
        self._step = max(1, device.chunk_bytes // (4 * max(moved.shape)))
        self._factors = factors = Factors.of(moved, device.rounding, moved.shape[1])
        with mx.stream(device.mlx):
            self._factor = mx.array(factors.factor)
            self._constant = mx.array(factors.constant[:, None])

    def each(self, function: Callable[[slice], None], n: int) -> None:
        """Call a function with blocks of `n` rows."""
        self.device.map(function, slices(n, self._step))

    def nearest(self, moved: npt.NDArray[Any]) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """Nearest centres of a block; rows in doubt, and which centres these may be nearest to."""
        # Bytes are a quarter to send.
        with np.errstate(over="ignore"):
            sent = moved if moved.dtype == np.uint8 else moved.astype(np.float32, copy=False)
        rows = mx.array(sent).astype(mx.float32)
        error = self._factors.error(mx.sqrt(mx.sum(mx.square(rows), axis=1)))
        scores = self.device.addmm(self._constant, self._factor, rows.T)
        found = nearest(scores[None], error[None])
        label, doubt = fetch(found[0][0], found[1][0], keep=[scores])
        doubtful, close = np.flatnonzero(doubt), np.zeros((0, len(scores)), dtype=bool)
        if len(doubtful) > 0:
            some = mx.array(doubtful)
            reach = mx.min(scores[:, some], axis=0) + 2 * error[some]
            (close,) = fetch(mx.logical_not(scores[:, some] > reach).T)
        return label.copy(), doubtful, close
