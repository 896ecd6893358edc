"""Squared distances in float64, by differences: equal rows are at zero, and neighbours keep theirs.

NumPy sums along rows pairwise, in the same order on every processor, as einsum and BLAS do not. Of
few features it takes less to go by feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.threads import scratch

Float64 = npt.NDArray[np.float64]

# Up to so many features it pays to turn rows around, so that each feature lies in one piece.
NARROW = 8
# Rows of a smaller scale may be farther apart than float64 goes.
SMALLEST = 2.0**-1020
# Of rows of a scale down to this, or up to its inverse, squares need not be scaled before they are
# summed: float64 holds them.
MODERATE = 2.0**-200


def sums_of_squares(differences: Float64, scale: float = 1.0) -> Float64:
    """Squared norms ``(m,)`` of scaled differences ``(m, d)``, which are overwritten."""
    late = scale if MODERATE <= scale <= 1 / MODERATE else 1.0
    if late != scale:
        differences *= scale
    squares = np.square(differences, out=differences)
    if squares.shape[1] > NARROW:
        total: Float64 = squares.sum(axis=1)
    else:
        total = np.zeros(len(squares))
        for column in squares.T:
            total += column
    if late != 1:
        total *= late * late
    return total


def to_own(
    rows: npt.NDArray[Any],
    centers: Float64,
    owner: npt.NDArray[np.integer[Any]],
    scale: float = 1.0,
) -> Float64:
    """Squared distances ``(m,)`` of rows ``(m, d)``, each to the centre that `owner` names.

    Of rows and centres that are scaled; infinite where float64 does not reach.
    """
    m, d = rows.shape
    if scale < SMALLEST:  # differences of the largest numbers are larger still
        rows, centers, scale = rows * scale, centers * scale, 1.0
    with np.errstate(over="ignore"):
        if d > NARROW:
            difference, own = (scratch(x, (m, d), np.float64) for x in ("difference", "own"))
            difference[:] = rows  # to cast and subtract in one takes longer
            # "clip" writes to `out`, rather than to a copy of it.
            difference -= centers.take(owner, axis=0, out=own, mode="clip")
            return sums_of_squares(difference, scale)
        total, difference = np.zeros(m), scratch("difference", (m,), np.float64)
        for values, column in zip(rows.T, np.ascontiguousarray(centers.T), strict=True):
            column.take(owner, out=difference, mode="clip")
            np.subtract(values, difference, out=difference)
            if scale != 1:
                difference *= scale
            total += np.square(difference, out=difference)
        return total


def to_each(columns: Float64, rows: Float64, out: Float64) -> Float64:
    """Squared distances ``(..., n)`` of columns ``(d, n)`` to each of some rows ``(..., d)``."""
    difference = scratch("difference", out.shape, np.float64)
    out[...] = 0
    for column, values in zip(columns, np.moveaxis(rows, -1, 0), strict=True):
        np.subtract(column, values[..., None], out=difference)
        out += np.square(difference, out=difference)
    return out
