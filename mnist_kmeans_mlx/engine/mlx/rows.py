"""Rows on the device: in float32 for products, and whatever exact sums need besides."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.sums import Slices
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


class DeviceRows:
    """Moved and scaled rows on the device.

    Whole numbers of one or two bytes are sent as such. Others are sent as two float32 each: the
    second holds what the first leaves of the grid on which rows are summed.

    Parameters
    ----------
    points : Points
        The rows.

    Attributes
    ----------
    held : bool
        Whether all rows are on the device, rather than sent anew for each pass.
    norms : mx.array of shape (n,), float32
        Norms, rounded up.
    norm_sq : float
        Weighted sum of all squared norms, of all ranks.
    mean_variance : float
        Mean over the features of the variance.
    row_slices, weight_slices : Slices
        How weighted rows and weights are summed.
    """

    def __init__(self, points: Points) -> None:
        self.points, self.device, self.held = points, points.device, points.keep
        bits = 12 if self.device.rounding.factors == 0 else 8
        self.row_slices = Slices(points.row_sums, bits)
        self.weight_slices = Slices(points.weight_sums, bits)
        self._sent: list[mx.array] = []
        self._weighted: list[mx.array] = []
        self._weights: list[mx.array] = []
        with points.stage("upload"), mx.stream(self.device.mlx):
            if points.is_narrow:
                self._send()
            else:  # weighted rows have parts of their own, and whole numbers one only
                self._convert(2 if points.weights is None and not points.integer else 1)
            if points.weights is not None:
                self._weights = self._both(points.weights, self.weight_slices)
                if self.held:
                    self._weighted = self._both(self._heavy(slice(None)), self.row_slices)

    def blocks(self, width: int) -> list[slice]:
        """Slices of rows of which so many numbers each are not too much for the device."""
        width = width if self.held else max(width, self.points.d)
        return slices(self.points.n, max(1, self.device.chunk_bytes // (4 * width)))

    def float32(self, index: slice | mx.array) -> mx.array:
        """Rows for products; by number only where all are held."""
        if not self.held:
            assert isinstance(index, slice)
            if self.points.is_narrow:
                return self._moved(mx.array(self._given(index)))
            return mx.array(self.points.narrow(index))
        return self._moved(self._sent[0][index])

    def parts(self, index: slice | mx.array) -> list[mx.array]:
        """Rows, where all are held, as float32 numbers that together are these on the grid."""
        return [self.float32(index), *(part[index] for part in self._sent[1:])]

    def summed(self, index: slice | mx.array) -> list[mx.array]:
        """Slices of weighted rows."""
        if not self.held:
            assert isinstance(index, slice)
            parts = self._both(self._heavy(index), self.row_slices)
        elif self._weighted:
            parts = [part[index] for part in self._weighted]
        else:
            parts = self.parts(index)
        return self.row_slices.split(parts)

    def weights(self, index: slice | mx.array) -> list[mx.array] | None:
        """Slices of weights; None where all rows weigh the same."""
        if not self._weights:
            return None
        return self.weight_slices.split([part[index] for part in self._weights])

    def whole(self, index: Index) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Weighted rows, and weights, as whole numbers on the host, as sums of slices are."""
        weights, heavy = np.ones(len(index)), self._heavy(index)
        if self.points.weights is not None:
            weights = self.points.weights[index]
        return self.row_slices.whole(heavy), self.weight_slices.whole(weights)

    def _send(self) -> None:
        """Send whole numbers as they are; the device finds norms and moments, exactly."""
        points = self.points
        if self.held:
            self._sent = [mx.array(self._given(slice(None)))]
            if 4 * points.n * points.d <= points.spare // 2:
                self._sent = [self._moved(self._sent[0])]
        wide = mx.int32 if points.d * points.limit**2 < 2**31 else mx.int64
        norms_sq, column_sums = [], mx.zeros((points.d,), dtype=mx.int64)
        for part in self.blocks(points.d):
            block = self.float32(part).astype(mx.int32)
            norms_sq.append(mx.sum(mx.square(block.astype(wide)), axis=1))
            column_sums = column_sums + mx.sum(block, axis=0).astype(mx.int64)
            if not self.held:
                mx.eval(column_sums, norms_sq[-1])
        squares = mx.concatenate(norms_sq)
        self.norms = mx.sqrt(squares.astype(mx.float32)) * (1 + 1e-6)
        # Only weights are multiplied with them on the host.
        total = mx.sum(squares.astype(mx.int64)) if points.weights is None else squares
        sums, norm_sq = fetch(column_sums, total, keep=[self.norms])
        self.norm_sq, self.mean_variance = points.moments(
            sums.astype(np.float64), norm_sq.astype(np.float64)
        )

    def _convert(self, count: int) -> None:
        """Send others as float32, and if as two of these what the first leaves of them."""
        points, shape = self.points, (self.points.n, self.points.d)
        kept = [np.empty(shape, np.float32) for _ in range(count if self.held else 0)]

        def take(part: slice, block: Float64) -> None:
            for array, values in zip(kept, self.row_slices.parts(block), strict=False):
                array[part] = values if count == 2 else block

        norms_sq, self.norm_sq, self.mean_variance = points.convert(take)
        self.norms = mx.array((np.sqrt(norms_sq) * (1 + 1e-6)).astype(np.float32))
        self._sent = [mx.array(part) for part in kept if part is kept[0] or part.any()]
        mx.eval(self.norms, *self._sent)

    def _given(self, index: slice) -> np.ndarray[Any, Any]:
        """Rows of one or two bytes a number, in the machine's order."""
        rows = self.points.narrow_rows(index)
        return rows.astype(np.uint8 if rows.dtype == bool else rows.dtype.newbyteorder("="))

    def _moved(self, rows: mx.array) -> mx.array:
        """Rows as they were sent, in the frame."""
        if rows.dtype == mx.float32:
            return rows
        moved = rows.astype(mx.float32)
        origin = self.points.origin
        if self.points.on_lattice or not origin.any():
            return moved
        return moved - mx.array(origin.astype(np.float32))

    def _heavy(self, index: Index | slice) -> Float64:
        """Weighted rows, moved and scaled, in float64."""
        moved, weights = self.points.moved(index), self.points.weights
        if weights is not None:
            moved *= weights[index, None]
        return moved

    def _both(self, a: Float64, slices: Slices) -> list[mx.array]:
        """Numbers on the device in two parts, or one if that is all there is."""
        first, second = slices.parts(a)
        return [mx.array(first), mx.array(second)] if second.any() else [mx.array(first)]
