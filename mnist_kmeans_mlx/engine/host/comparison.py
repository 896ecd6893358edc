"""Rows compared with centres in float32, and how far that can be from the truth."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Any

import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, dots, host_rounding, product
from mnist_kmeans_mlx.engine.centers import Centers, more_of_sums
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.sketch import Sketch, TurningSketch
from mnist_kmeans_mlx.engine.points import Float32, Index, Labels, taken

# With fewer centres than this, or in a sketch, a row is compared with its own no more quickly than
# with all.
FEW = 48

# What rows are left open with: what `Comparison.within` returns.
Pairs = tuple[Index, Index, Float32]


class Comparison:
    """Centres of one step as rows, or a sketch of them, are compared with, and what that tells.

    Parameters
    ----------
    rows : callable
        Gives what stands for rows of an index or, of whole rows, a slice, shape ``(m, w)``.
    factor : ndarray of shape (w, k), float32
        What stands for the centres; of rows `by_column` turned around.
    constant : ndarray of shape (k,), float32, or None
        What products lack to be scores.
    rest : ndarray of shape (k,), float32, or None
        Where products are lower bounds of scores: what times the last but one column of a row is
        how far below they can be.
    tolerance : tuple of float
        Slope and constant of the rounding, as in `Centers.tolerance`.
    largest_norm : float
        Of a centre.
    by_column : bool, default=False
        Whether rows come as columns ``(w, m)``.
    """

    def __init__(
        self,
        rows: Callable[[Any], Float32],
        factor: Float32,
        constant: Float32 | None,
        rest: Float32 | None,
        tolerance: tuple[float, float],
        largest_norm: float,
        by_column: bool = False,
    ) -> None:
        self.by_column = by_column
        self.rows, self.factor, self.constant, self.rest = rows, factor, constant, rest
        self.tolerance = tolerance
        self._slope, self._constant = (np.float32(x) for x in tolerance)
        self._largest = np.float32(largest_norm)

    @classmethod
    def whole(cls, rows: HostRows, centers: Centers) -> Comparison:
        """Of whole rows with the centres."""
        factor, constant = centers.factor.T, centers.constant
        (slope, off), norm = centers.tolerance, centers.largest_norm
        if rows.by_column and centers.k < FEW:
            turned = np.column_stack([centers.factor, constant])
            off += more_of_sums(host_rounding(), rows.points.d, norm)
            return cls(rows.columns, turned, None, None, (slope, off), norm, by_column=True)
        return cls(rows.float32, factor, constant, None, (slope, off), norm)

    @classmethod
    def sketched(cls, rows: HostRows, centers: Centers, sketch: TurningSketch) -> Comparison:
        """Of sketched rows with the centres."""
        factor, tolerance = sketched(rows, centers, sketch)
        chosen = partial(taken, sketch.rows)
        return cls(chosen, factor, None, -2 * factor[-2], tolerance, centers.largest_norm)

    def of_some(self, centers: Index) -> Comparison:
        """The same of whole rows with some of the centres, in this order."""
        assert self.constant is not None
        some = copy(self)
        some.factor, some.constant = self.factor.T[centers].T, self.constant[centers]
        return some

    def scores(self, block: Float32, by_row: bool) -> Float32:
        """Scores ``(m, k)``, or if not `by_row` ``(k, m)``, of rows, or lower bounds of them."""
        scores: Float32
        if self.by_column:
            scores = product(self.factor, block)
        elif by_row:
            scores = product(block, self.factor)
        elif self.factor.shape[1] < FEW:
            # To turn so narrow a product around takes less than AVX-512 kernels gain by it.
            scores = np.ascontiguousarray(product(block, self.factor).T)
        else:
            scores = product(self.factor.T, block.T)
        if self.constant is not None:
            scores += self.constant if by_row else self.constant[:, None]
        return scores

    def scores_with_own(self, rows: Float32, own: Labels | Index) -> Float32:
        """Scores of rows with one centre each, or upper bounds of them."""
        scores: Float32 = dots(rows, np.take(self.factor.T, own, axis=0))
        scores += self.width(rows, own) if self.constant is None else self.constant[own]
        return scores

    def width(self, block: Float32, label: Labels | Index) -> Float32:
        """How far the scores of rows with one centre each can be above their lower bounds."""
        assert self.rest is not None
        return block[:, -2] * self.rest[label]

    def error(self, norms_sq: Float32) -> Float32:
        """Bound of the error of a row's scores and of their sums with its squared norm."""
        norms = np.sqrt(norms_sq)
        rounding = 5 * np.float32(FLOAT32_ROUNDOFF) * np.square(norms + self._largest)
        return self._slope * norms + self._constant + rounding

    def within(self, scores: Float32, limit: Float32, norms_sq: Float32) -> Pairs:
        """What scores ``(m, k)`` of rows leave open by being within a limit; these are overwritten.

        Returns with how many centres each row is left open, with which, and lower bounds of the
        distances to all others.
        """
        near = scores <= limit[:, None]
        centers = np.flatnonzero(near) % scores.shape[1]
        scores[near] = np.inf
        others = self.lower(scores.min(axis=1), norms_sq, self.error(norms_sq))
        return np.count_nonzero(near, axis=1), centers, others

    def upper(self, score: Float32, norms_sq: Float32, error: Float32) -> Float32:
        """Upper bound of a distance."""
        return np.sqrt(np.maximum(score + (norms_sq + error), 0))

    def lower(self, score: Float32, norms_sq: Float32, error: Float32) -> Float32:
        """Lower bound of a distance, which takes the place of the score."""
        score += norms_sq - error
        np.maximum(score, 0, out=score)
        return np.sqrt(score, out=score)


def sketched(
    rows: HostRows, centers: Centers, sketch: Sketch | TurningSketch
) -> tuple[Float32, tuple[float, float]]:
    """Centres ``(m + 2, k)`` as a sketch of the rows sees them.

    Returns with slope and constant of the rounding of a product, as in `Centers.tolerance`.
    """
    factor, slope = sketch.axes.centers(centers.moved, centers.norms_sq, rows.points.host)
    # The squared norms of the centres are rounded and multiplied like all else.
    constant = 1.01 * 4 * FLOAT32_ROUNDOFF * float(centers.norms_sq.max())
    return factor, (slope, constant + centers.off)


def two_smallest(scores: Float32) -> tuple[Index, Float32, Float32]:
    """Where the smallest of each row is, that, which becomes infinite, and the next."""
    label = scores.argmin(axis=1)
    place = label + np.arange(0, scores.size, scores.shape[1])
    flat = scores.reshape(-1)
    best = flat.take(place)
    flat[place] = np.inf
    return label, best, scores.min(axis=1)


def two_smallest_of_columns(scores: Float32, label: Labels) -> tuple[Labels, Float32, Float32]:
    """The same of each column. To compare rows with one another takes less than to look along.

    `label` is a guess of where the smallest is that is right for most columns; what it points at
    becomes infinite.
    """
    place = label * np.intp(len(label)) + np.arange(len(label))
    flat, label = scores.reshape(-1), label.copy()
    guessed = flat.take(place)
    flat[place] = np.inf
    wrong, right, best, second = two_smallest_with_own(guessed, scores)
    label[wrong] = right
    return label, best, second


def two_smallest_with_own(own: Float32, others: Float32) -> tuple[Index, Index, Float32, Float32]:
    """Of each column of scores and an own one that stands apart.

    Returns in which columns another is smaller than the own, where the smallest is in these, and
    of all columns the smallest and the next.
    """
    nearest = others.min(axis=0)
    best, second = np.minimum(own, nearest), np.maximum(own, nearest)
    closer = np.flatnonzero(nearest < own)
    place, _, third = two_smallest(np.take(others, closer, axis=1).T.copy())
    second[closer] = np.minimum(second[closer], third)
    return closer, place, best, second


def two_smallest_of_pairs(scores: Float32, starts: Index) -> tuple[Index, Float32, Float32]:
    """The same of each run of scores; runs, none of which is empty, begin at `starts`."""
    best = np.minimum.reduceat(scores, starts)
    least = np.flatnonzero(scores == np.repeat(best, np.diff(starts, append=len(scores))))
    place = least[np.searchsorted(least, starts)]
    scores[place] = np.inf
    return place, best, np.minimum.reduceat(scores, starts)
