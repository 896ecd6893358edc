"""Centres in the frame of the rows, and how far products with them can be from the truth.

A row's nearest centre minimises ``|c|^2 - 2 x.c``, its *score*: the row's own norm is the same for
all centres. Scores are float32 products; `Centers.tolerance` bounds their error (Higham, *Accuracy
and Stability of Numerical Algorithms*, 2nd ed., section 3.1), so that rows whose best two scores
lie closer than that can be decided again in float64.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, Rounding, dots, host_rounding, product
from mnist_kmeans_mlx.engine.decision import decide_pairs, product_error
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points

# Norm of moved centres up to which their scores are numbers of float32.
FARTHEST = 1e15
# With fewer rows to decide, waking a thread takes longer.
FEWEST_DECIDED = 512


class Centers:
    """Centres, ready to be compared with rows.

    Parameters
    ----------
    points : Points
        The rows, whose frame they share.
    centers : ndarray of shape (k, d), float64
        Centres in the units of the rows.
    rounding : Rounding
        Of what multiplies them.

    Attributes
    ----------
    moved : ndarray of shape (k, d), float64
        In the frame of the rows.
    norms_sq : ndarray of shape (k,), float64
        Their squared norms there.
    largest_norm : float
        The norm of the longest.
    """

    def __init__(self, points: Points, centers: Float64, rounding: Rounding) -> None:
        self.points, self.centers, self.k = points, centers, len(centers)
        # Centres that are given may lie beyond all rows, and their squares beyond all numbers.
        with np.errstate(over="ignore"):
            self.moved = points.move(centers)
            self.norms_sq = np.square(self.moved).sum(axis=1)
            self.largest_norm = float(np.sqrt(self.norms_sq.max()))
        self.tolerance = self._tolerance(rounding)

    def _tolerance(self, rounding: Rounding) -> tuple[float, float]:
        slope, constant = tolerance(rounding, self.points.d, self.largest_norm)
        return slope, constant + self.off

    @property
    def off(self) -> float:
        """How far scores of rows can be from those of the points of a lattice."""
        return 2 * self.points.residual * self.largest_norm

    @property
    def is_near(self) -> bool:
        """Whether float32 holds the squares of the centres, and some more."""
        return self.largest_norm < FARTHEST

    @cached_property
    def factor(self) -> npt.NDArray[np.float32]:
        """The moved centres times -2, which is exact and saves a pass over the products."""
        return -2.0 * self.moved.astype(np.float32)

    @cached_property
    def constant(self) -> npt.NDArray[np.float32]:
        """Their squared norms."""
        return self.norms_sq.astype(np.float32)

    def nearest(self, index: Index) -> Labels:
        """Nearest centres, in float64, of rows that float32 leaves in doubt.

        Parameters
        ----------
        index : ndarray of int, shape (m,)
            The rows in doubt.

        Returns
        -------
        ndarray of int32, shape (m,)
            The nearest centre of each row; of equally near ones the first.
        """
        points, labels = self.points, np.empty(len(index), dtype=np.int32)
        slope, constant = self._tolerance(host_rounding())

        def decide(part: slice) -> None:
            rows = index[part]
            close = np.ones((len(rows), self.k), dtype=bool)
            if self.is_near:
                block = points.narrow(rows)
                scores = product(block, self.factor.T) + self.constant
                norms = np.sqrt(dots(block, block.astype(np.float64))) * (1 + 1e-6)
                error = slope * norms + constant
                close = ~(scores > (scores.min(axis=1) + 2 * error)[:, None])
            row, center = np.nonzero(close)
            labels[part] = decide_pairs(points.raw(rows), row, self.centers, center)

        width = max(self.k, points.d)
        points.host.map(decide, points.host.parts(len(index), width, fewest=FEWEST_DECIDED))
        return labels


class Factors(NamedTuple):
    """Centres as products with any rows take them.

    Attributes
    ----------
    factor : ndarray of shape (k, d), float32
        The centres times -2.
    constant : ndarray of shape (k,), float32
        Their squared norms: with these, products are scores.
    slope, offset : float
        Of the bound of their error, as `tolerance` gives it, where a norm is itself a sum of
        float32.
    largest_norm : float
        Of a centre.
    """

    factor: npt.NDArray[np.float32]
    constant: npt.NDArray[np.float32]
    slope: float
    offset: float
    largest_norm: float

    def error(self, norms: Any) -> Any:
        """How far scores of rows with these norms can be from those of differences in float64.

        Of rows far off, float64 is the rougher of the two.
        """
        float64 = product_error(self.factor.shape[1], norms * norms, self.largest_norm**2)
        return self.slope * norms + self.offset + float64

    @classmethod
    def of(cls, moved: Float64, rounding: Rounding, terms: int) -> Factors:
        """Of centres ``(k, d)`` as rows are moved, where so many numbers are summed in a row."""
        norms_sq = np.square(moved).sum(axis=1)
        largest = float(np.sqrt(norms_sq.max()))
        slope, offset = tolerance(rounding, terms, largest)
        slope *= 1 + (moved.shape[1] + 4) * FLOAT32_ROUNDOFF
        factor, constant = (-2 * moved).astype(np.float32), norms_sq.astype(np.float32)
        return cls(factor, constant, slope, offset, largest)


def more_of_sums(rounding: Rounding, d: int, largest_norm: float) -> float:
    """What the constant of `tolerance` lacks where squared norms are one more product of a sum."""
    more = (d + 4) * rounding.sums + rounding.factors + FLOAT32_ROUNDOFF
    return 1.01 * more * largest_norm**2


def tolerance(rounding: Rounding, d: int, largest_norm: float) -> tuple[float, float]:
    """Slope and constant of the bound of the error of scores.

    No score of a row is further than ``slope * |x| + constant`` from its value in exact arithmetic,
    where ``|x|`` is the norm of the moved row.

    Parameters
    ----------
    rounding : Rounding
        Of what multiplies and adds.
    d : int
        How many products a score is the sum of.
    largest_norm : float
        Of a moved centre.
    """
    u, r = FLOAT32_ROUNDOFF, rounding.factors
    # Rounding of the inputs to float32, again by the multiplier, and of d sums; then the last
    # addition, which rounds a number of at most |c|^2 + 2 |x| |c|.
    relative = 2 * (2 * u + 2 * r + r * r + (d + 2) * rounding.sums) + 2 * u
    # One per cent covers the second-order terms and the bound's own rounding.
    return 1.01 * relative * largest_norm, 1.01 * 2 * u * largest_norm**2
