"""Squared distances by matrix product, and how far they can be from the truth.

A row's nearest centre minimises ``|c|^2 - 2 x.c``, its *score*: the row's own norm is the same for
all centres. Scores are float32 products on the device; `Codebook.tolerance` bounds their error
(Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1), so that rows whose
best two scores lie closer than that can be decided again in float64.
"""

from __future__ import annotations

from functools import cached_property

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


class Codebook:
    """Centres, ready to be compared with rows.

    Parameters
    ----------
    points : Points
        The rows, whose frame the device's copy of the centres shares.
    centers : ndarray of shape (k, d), float64
        Centres in the units of the rows.
    """

    def __init__(self, points: Points, centers: Float64) -> None:
        self.points = points
        self.centers = centers
        self.k = len(centers)
        moved = points.move(centers)
        norms_sq = np.einsum("ij,ij->i", moved, moved)
        self.largest_norm = float(np.sqrt(norms_sq.max()))
        with mx.stream(points.device.mlx):
            # Times -2 is exact, and saves a pass over the products.
            self._factor = mx.array(-2.0 * moved.T.astype(np.float32))
            self._norms_sq = mx.array(norms_sq.astype(np.float32))

    def scores(self, block: mx.array) -> mx.array:
        """Scores ``(m, k)`` of a block of rows."""
        return self.points.device.matmul(block, self._factor) + self._norms_sq

    @cached_property
    def tolerance(self) -> tuple[float, float]:
        """Slope and constant of the bound of a row's error.

        No score of a row is further than ``slope * |x| + constant`` from its value in exact
        arithmetic, where ``|x|`` is the norm of the moved row.
        """
        device = self.points.device
        u, r = FLOAT32_ROUNDOFF, device.input_roundoff
        # Rounding of the inputs to float32, again by the multiplier, and of d sums; then the
        # last addition, which rounds a number of at most |c|^2 + 2 |x| |c|.
        product = 2 * (2 * u + 2 * r + r * r + (self.points.d + 2) * device.sum_roundoff) + 2 * u
        # One per cent covers the second-order terms and the bound's own rounding.
        return 1.01 * product * self.largest_norm, 1.01 * 2 * u * self.largest_norm**2


def decide(codebook: Codebook, index: Index) -> tuple[Index, Float64]:
    """Nearest centres, in float64, of rows that float32 leaves in doubt.

    Parameters
    ----------
    codebook : Codebook
        The centres.
    index : ndarray of int, shape (m,)
        The rows in doubt.

    Returns
    -------
    labels : ndarray of int, shape (m,)
        The nearest centre of each row; of equally near ones the first.
    distances_sq : ndarray of shape (m,), float64
        Squared distance to it, in the moved frame.
    """
    points = codebook.points
    slope, constant = codebook.tolerance
    labels, nearest = np.empty(len(index), dtype=np.intp), np.empty(len(index))
    step = points.device_step(codebook.k)
    for start in range(0, len(index), step):
        part = slice(start, start + step)
        rows = index[part]
        scores = host_view(codebook.scores(points.gather(rows)))
        error = slope * np.sqrt(points.norms_sq[rows]) + constant
        contender = scores <= scores.min(axis=1)[:, None] + 2 * error[:, None]
        row, center = np.nonzero(contender)
        distances = points.distances_sq(rows[row], codebook.centers, center)
        # Pairs come sorted by row, then centre: a stable sort keeps the first of equals.
        order = np.lexsort((distances, row))[np.searchsorted(row, np.arange(len(rows)))]
        labels[part], nearest[part] = center[order], distances[order]
    return labels, nearest


def inertia(points: Points, centers: Float64, labels: Index) -> float:
    """Weighted sum of squared distances, in float64 and in the units of the rows."""
    distances = points.distances_sq(None, centers, labels)
    weighted = distances if points.weights is None else distances * points.weights
    return float(weighted.sum() / points.scale**2)
