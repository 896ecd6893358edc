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
import numpy.typing as npt

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, Device, host_view, product
from mnist_kmeans_mlx.engine.decision import decide_pairs
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.sketch import Sketch, TurningSketch

# Norm of moved centres up to which their scores are numbers of float32.
FARTHEST = 1e15


class Codebook:
    """Centres, ready to be compared with rows.

    Parameters
    ----------
    points : Points
        The rows, whose frame the device's copy of the centres shares.
    centers : ndarray of shape (k, d), float64
        Centres in the units of the rows.

    Attributes
    ----------
    factor : ndarray of shape (k, d), float32
        The moved centres times -2.
    constant : ndarray of shape (k,), float32
        Their squared norms.
    largest_norm : float
        The norm of the longest.
    """

    @property
    def is_near(self) -> bool:
        """Whether float32 holds the squares of the centres, and some more."""
        return self.largest_norm < FARTHEST

    def __init__(self, points: Points, centers: Float64) -> None:
        self.points = points
        self.centers = centers
        self.k = len(centers)
        # Centres that are given may lie beyond all rows, and their squares beyond all numbers.
        with np.errstate(over="ignore"):
            self._moved = points.move(centers)
            self._norms_sq = np.square(self._moved).sum(axis=1)
            self.largest_norm = float(np.sqrt(self._norms_sq.max()))
            # Times -2 is exact, and saves a pass over the products.
            self.factor = -2.0 * self._moved.astype(np.float32)
            self.constant = self._norms_sq.astype(np.float32)

    @cached_property
    def _on_device(self) -> tuple[mx.array, mx.array]:
        with mx.stream(self.points.device.mlx):
            copies = mx.array(self.factor.T), mx.array(self.constant)
            mx.eval(copies)
        return copies

    def scores(self, block: mx.array) -> mx.array:
        """Scores ``(m, k)`` of a block of rows."""
        factor, constant = self._on_device
        return self.points.device.matmul(block, factor) + constant

    @cached_property
    def tolerance(self) -> tuple[float, float]:
        """Slope and constant of the bound of a row's error.

        No score of a row is further than ``slope * |x| + constant`` from its value in exact
        arithmetic, where ``|x|`` is the norm of the moved row.
        """
        return tolerance(self.points.device, self.points.d, self.largest_norm)

    def sketched(self, sketch: Sketch | TurningSketch) -> SketchedCodebook:
        """The centres as a sketch of the rows sees them."""
        return SketchedCodebook(sketch, self._moved, self._norms_sq, self.points.host)

    def turn(self, sketch: TurningSketch) -> None:
        """Turn a sketch to the centres."""
        sketch.turn(self._moved)


def tolerance(device: Device, d: int, largest_norm: float) -> tuple[float, float]:
    """Slope and constant of the bound of the error of scores, as `Codebook.tolerance`.

    Parameters
    ----------
    device : Device
        Where `d` products a score are made.
    d : int
    largest_norm : float
        Of a moved centre.
    """
    u, r = FLOAT32_ROUNDOFF, device.input_roundoff
    # Rounding of the inputs to float32, again by the multiplier, and of d sums; then the last
    # addition, which rounds a number of at most |c|^2 + 2 |x| |c|.
    rounding = 2 * (2 * u + 2 * r + r * r + (d + 2) * device.sum_roundoff) + 2 * u
    # One per cent covers the second-order terms and the bound's own rounding.
    return 1.01 * rounding * largest_norm, 1.01 * 2 * u * largest_norm**2


class SketchedCodebook:
    """Centres, ready to be compared with sketched rows.

    Attributes
    ----------
    factor : ndarray of shape (m + 2, k), float32
        The sketched centres.
    tolerance : tuple of float
        Slope and constant of the rounding of a product, as in `Codebook.tolerance`.
    """

    def __init__(
        self, sketch: Sketch | TurningSketch, moved: Float64, norms_sq: Float64, host: Device
    ) -> None:
        self.factor, slope = sketch.axes.centers(moved, norms_sq, host)
        # The squared norms of the centres are rounded and multiplied like all else.
        self.tolerance = slope, 1.01 * 4 * FLOAT32_ROUNDOFF * float(norms_sq.max())


def decide(codebook: Codebook, index: Index, close: npt.NDArray[np.bool_] | None = None) -> Labels:
    """Nearest centres, in float64, of rows that float32 leaves in doubt.

    Parameters
    ----------
    codebook : Codebook
        The centres.
    index : ndarray of int, shape (m,)
        The rows in doubt.
    close : ndarray of bool, shape (m, k), optional
        Which centres each may be nearest to, if that is known.

    Returns
    -------
    ndarray of int32, shape (m,)
        The nearest centre of each row; of equally near ones the first.
    """
    points = codebook.points
    slope, constant = codebook.tolerance
    labels = np.empty(len(index), dtype=np.int32)

    def measure(part: slice) -> None:
        rows = index[part]
        if close is None:
            own = product(points.float32(rows), codebook.factor.T) + codebook.constant
            error = slope * np.sqrt(points.norms_sq[rows]) + constant
            row, center = np.nonzero(~(own > own.min(axis=1)[:, None] + 2 * error[:, None]))
        else:
            row, center = np.nonzero(close[part])
        labels[part] = decide_pairs(points.raw(rows), row, codebook.centers, center)

    points.host.map(measure, points.host.parts(len(index), max(codebook.k, points.d)))
    return labels


def undecided(scores: mx.array, error: mx.array) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
    """What scores on a device tell, and what they leave open.

    Parameters
    ----------
    scores : mx.array of shape (m, k)
    error : mx.array of shape (m,)
        How far the scores of a row can be off.

    Returns
    -------
    labels : ndarray of shape (m,), int32
        Where the smallest score of each row is.
    doubtful : ndarray of int
        Rows with another that may be as small. Whatever is not a number may.
    close : ndarray of bool, shape (len(doubtful), k)
        Which scores of these may be.
    """
    reach = mx.min(scores, axis=1) + 2 * error
    close = mx.logical_not(scores > reach[:, None])
    label = mx.argmin(scores, axis=1).astype(mx.int32)
    several = mx.sum(close, axis=1) > 1
    mx.eval(label, several, close)
    doubtful = np.flatnonzero(host_view(several))
    return host_view(label), doubtful, host_view(close[mx.array(doubtful)])


def inertia(points: Points, centers: Float64, labels: Labels) -> float:
    """Weighted sum of squared distances of the moved and scaled rows, in float64."""
    return points.sum(points.distances_sq(None, centers, labels))
