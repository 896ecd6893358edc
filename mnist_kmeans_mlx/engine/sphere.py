"""The unit sphere, on which the nearest centre is the one at the smallest angle.

For unit vectors ``|x - c|^2 = 2 (1 - cos(x, c))``: K-means by cosine is K-means of rows scaled to
unit length, whose centres are scaled back to unit length after each M-step (I. Dhillon and D.
Modha, *Concept decompositions for large sparse text data using clustering*, Machine Learning 42,
2001).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.points import Float64, Index

# Rows to scale at once: temporaries stay in cache.
STEP_BYTES = 4 << 20


def unit_rows(rows: Any) -> Any:
    """Rows divided by their norms, in float64.

    Parameters
    ----------
    rows : ndarray of shape (n, d) or CSR matrix
        Finite numbers of any real dtype.

    Returns
    -------
    ndarray of shape (n, d) or CSR matrix, float64
        Rows of zeros stay zeros. Rows that are unit vectors up to the rounding of their dtype
        stay as they are, so that scaling twice is scaling once.

    Examples
    --------
    >>> unit_rows(np.array([[3, 4], [0, 0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    slack = 16 * float(np.finfo(rows.dtype if rows.dtype.kind == "f" else np.float64).eps)
    scaled = rows.astype(np.float64)
    if sparse.issparse(scaled):
        scaled = csr.canonical(scaled)
        along = partial(csr.along, scaled)
        _scale(scaled.data, slack, lambda ufunc, x: csr.of_rows(ufunc, scaled, x), along)
        return scaled
    n, d = rows.shape
    for part in slices(n, max(1, STEP_BYTES // (8 * d))):
        _scale(scaled[part], slack, partial(np.ufunc.reduce, axis=1), lambda sizes: sizes[:, None])
    return scaled


class UnitRows:
    """Rows of a source or an array, divided by their norms whenever they are asked for."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.shape = rows.shape
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, part: slice) -> Float64:
        return unit_rows(self.rows[part])

    def take(self, index: Index, axis: int = 0) -> Float64:
        """Chosen rows."""
        return unit_rows(self.rows.take(index, axis=axis))


def _scale(values: Float64, slack: float, of_rows: Any, along: Any) -> None:
    """Divide values by the norms of their rows.

    ``of_rows(ufunc, values)`` reduces the values of each row, and ``along`` repeats one for each.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # infinity becomes NaN: who asks refuses
        largest = of_rows(np.maximum, np.abs(values))
        largest[largest == 0] = 1
        # Squares of what is at most one neither overflow nor vanish together.
        norms = np.sqrt(of_rows(np.add, np.square(values / along(largest))))
        done = (np.abs(largest * norms - 1) <= slack) | (norms == 0)
        largest[done] = norms[done] = 1
        for sizes in (largest, norms):
            values /= along(sizes)


def unit_centers(centers: Float64) -> Float64:
    """Centres divided by their norms.

    Where the members of a cluster cancel out, no direction is better than another: such a centre
    points along the first axis.
    """
    result: Float64 = unit_rows(centers)
    result[~result.any(axis=1), 0] = 1
    return result
