"""Greedy k-means++ of sparse rows: all are compared with a step's candidates in one product."""

from __future__ import annotations

from typing import Any

import numpy as np

from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.exact import joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Points
from mnist_kmeans_mlx.engine.seeding.sampling import (
    Source,
    WeightedSampling,
    exact_distances,
    first_row,
)


def plus_plus(
    points: Points, norms_sq: Float64, k: int, random_state: Source, trials: int
) -> Index:
    """Greedy k-means++, with scikit-learn's draws in scikit-learn's order.

    Parameters
    ----------
    points : Points
        Sparse rows.
    norms_sq : ndarray of shape (n,), float64
        Their squared norms, of the scaled rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.
    trials : int
        Candidates per step.

    Returns
    -------
    ndarray of int, shape (k,)
        Numbers of the chosen rows, among those of all ranks.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    exact = exact_distances(points, float(norms_sq.max(initial=0)))
    chosen = np.empty(k, dtype=np.intp)
    chosen[:1] = first_row(points, random_state)
    closest = _distances_sq(points, norms_sq, points.pick_given(chosen[:1]))[0]
    for step in range(1, k):
        sampling = WeightedSampling(points, exact, points.weighted(closest))
        draws = random_state.uniform(size=trials) * joined(sampling.sums)
        drawn = sampling.find(draws)
        left = _distances_sq(points, norms_sq, points.pick_given(drawn))
        np.minimum(left, closest, out=left)
        sums = [exact.sums(points.weighted(own)) for own in left]
        best = int(joined(exact.over(points.group, np.transpose(sums))).argmin())
        chosen[step], closest = drawn[best], left[best].copy()
    return chosen


def _distances_sq(points: Points, norms_sq: Float64, candidates: Any) -> Float64:
    """Squared distances ``(t, n)`` of all rows to some others, exactly zero between equal ones."""
    candidates = csr.block(candidates, slice(None)) * points.scale
    own, columns = csr.norms_sq(candidates), np.ascontiguousarray(candidates.toarray().T)
    result = np.empty((len(own), points.n))

    def measure(part: slice) -> None:
        block = csr.block(points.rows, part)
        if points.scale != 1:
            block = block * points.scale
        squared = result[:, part]
        squared[:] = (block @ columns).T
        # In scikit-learn's order, so that there is no other last digit.
        squared *= -2
        squared += own[:, None]
        squared += norms_sq[part]
        if points.integer and 4 * (own.max() + norms_sq[part].max()) < 2.0**53:
            return  # whole numbers, none of which is rounded
        lost = squared <= csr.CANCELLED * (own[:, None] + norms_sq[part])
        number, row = np.nonzero(lost)
        if len(row) > 0:
            squared[lost] = csr.norms_sq(block[row] - candidates[number])

    csr.each(measure, points.rows, points.host, len(own))
    return result
