"""The nearest centre of any rows, on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, Rounding, slices
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.step import nearest
from mnist_kmeans_mlx.engine.points import Float32, Index, Labels


class MlxComparison:
    """Centres, ready to be compared with blocks of rows on a device.

    Parameters
    ----------
    device : Device
    factor : ndarray of shape (d, k), float32
        The centres times -2.
    constant : ndarray of shape (k,), float32
        Their squared norms.
    """

    def __init__(self, device: Device, factor: Float32, constant: Float32) -> None:
        self.device = device
        self._step = max(1, device.chunk_bytes // (4 * max(factor.shape)))
        with mx.stream(device.mlx):
            self._factor, self._constant = mx.array(factor.T), mx.array(constant[:, None])

    @staticmethod
    def rounding(device: Device) -> Rounding:
        """How exactly rows are multiplied."""
        return device.rounding

    def each(self, function: Callable[[slice], None], n: int) -> None:
        """Call a function with blocks of `n` rows."""
        self.device.map(function, slices(n, self._step))

    def nearest(
        self, moved: npt.NDArray[Any], slope: float, offset: float
    ) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """Nearest centres of a block; rows in doubt, and which centres these may be nearest to."""
        rows = mx.array(moved).astype(mx.float32)
        error = slope * mx.sqrt(mx.sum(mx.square(rows), axis=1)) + offset
        scores = self.device.addmm(self._constant, self._factor, rows.T)
        found = nearest(scores[None], error[None])
        label, doubt = fetch(found[0][0], found[1][0], keep=[scores])
        doubtful, close = np.flatnonzero(doubt), np.zeros((0, len(scores)), dtype=bool)
        if len(doubtful) > 0:
            some = mx.array(doubtful)
            reach = mx.min(scores[:, some], axis=0) + 2 * error[some]
            (close,) = fetch(mx.logical_not(scores[:, some] > reach).T)
        return label.copy(), doubtful, close
