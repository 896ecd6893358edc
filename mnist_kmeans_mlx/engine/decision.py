"""Decisions in float64: which of a few centres is nearest to a row that float32 leaves in doubt."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import slices

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int32]

# Bytes of float64 rows that are measured at once.
BLOCK = 4 << 20
# Of float64, relative to the number; and the least number that is as exact.
ROUNDOFF, LEAST = 2.0**-53, float(np.finfo(np.float64).tiny)
# Between these a square is no more than rounded.
TINY, HUGE = 1e-280, 1e280


def decide_pairs(rows: npt.NDArray[Any], row: Index, centers: Float64, center: Index) -> Labels:
    """Nearest centres, in float64, of rows and the centres that each may be nearest to.

    Parameters
    ----------
    rows : ndarray of shape (m, d)
        As given, of any real dtype.
    row, center : ndarray of int
        The pairs, sorted by row and then by centre; each row has one.
    centers : ndarray of shape (k, d), float64

    Returns
    -------
    ndarray of int32, shape (m,)
        The nearest centre of each row; of equally near ones the first.
    """
    fractions, exponents = np.empty(len(row)), np.empty(len(row), dtype=np.int32)
    for part in slices(len(row), max(1, BLOCK // (8 * rows.shape[1]))):
        found = squared_distances(rows[row[part]], centers[center[part]])
        fractions[part], exponents[part] = found
    # A stable sort keeps the first of equals.
    order = np.lexsort((fractions, exponents, row))
    nearest: Labels = center[order[np.searchsorted(row, np.arange(len(rows)))]].astype(np.int32)
    return nearest


def squared_distances(
    rows: npt.NDArray[Any], centers: Float64
) -> tuple[Float64, npt.NDArray[np.int32]]:
    """Squared distances in float64 as fractions and powers of two, which no number overflows.

    Parameters
    ----------
    rows : ndarray of shape (m, d)
    centers : ndarray of shape (m, d), float64
        One for each row.

    Returns
    -------
    fractions, exponents : ndarray of shape (m,)
        ``fractions * 2.0**exponents``, as `numpy.frexp` gives them; a zero has the least exponent.
    """
    with np.errstate(over="ignore"):
        difference = rows - centers
        squared = np.square(difference).sum(axis=1)
    fractions, exponents = np.frexp(squared)
    # A power of two takes the others to where squares are numbers, and rounds none.
    odd = np.flatnonzero(~((squared > TINY) & (squared < HUGE)))
    if len(odd) > 0:
        difference, shift = difference[odd], np.zeros(len(odd), dtype=np.int32)
        over = np.flatnonzero(~np.isfinite(difference).all(axis=1))
        difference[over] = rows[odd[over]] / 2 - centers[odd[over]] / 2
        shift[over] = 1
        _, power = np.frexp(np.abs(difference).max(axis=1))
        difference = np.ldexp(difference, -power[:, None])
        fractions[odd], exponents[odd] = np.frexp(np.square(difference).sum(axis=1))
        exponents[odd] += 2 * (power + shift)
    exponents[fractions == 0] = np.iinfo(np.int32).min
    return fractions, exponents


def product_error(d: int, norms_sq: Any, largest: Any) -> Any:
    """How far squared distances by products in float64 and by differences can be apart.

    Of rows of `d` features with these squared norms, and centres of whose the largest is given: by
    the square of the sum of both norms, which is at most twice the sum of their squares.
    """
    return 4 * (d + 8) * ROUNDOFF * (norms_sq + largest) + LEAST


def euclidean(rows: npt.NDArray[Any], centers: Float64) -> Float64:
    """Distances of rows, each to its own centre; infinite where only these leave float64."""
    fractions, exponents = squared_distances(rows, centers)
    # An even power of two leaves the root as half of it.
    odd = exponents & 1
    with np.errstate(over="ignore"):
        distances: Float64 = np.ldexp(np.sqrt(np.ldexp(fractions, odd)), (exponents - odd) // 2)
    return distances


def power_of_two(reach: float) -> float:
    """What takes numbers of at most `reach` to between a half and one, where float64 has it."""
    return float(2.0 ** -int(np.clip(np.frexp(reach)[1], -1000, 1024)))
