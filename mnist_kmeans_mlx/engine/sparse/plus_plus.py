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
    candidates = csr.scaled(csr.block(candidates, slice(None)), points.scale)
    own, factors = csr.norms_sq(candidates), np.multiply(candidates.toarray().T, -2, order="C")
    result = np.empty((len(own), points.n))

    def measure(part: slice) -> None:
        block = csr.scaled(csr.block(points.rows, part), points.scale)
        # In scikit-learn's order, so that there is no other last digit.
        squared = np.add((block @ factors).T, own[:, None], out=result[:, part])
        squared += norms_sq[part]
        largest = own.max() + norms_sq[part].max()
        if points.integer and 4 * largest < 2.0**53:
            return  # whole numbers, none of which is rounded
        number, row = np.nonzero(squared <= csr.CANCELLED * largest)
        lost = squared[number, row] <= csr.CANCELLED * (own[number] + norms_sq[part][row])
        number, row = number[lost], row[lost]
        if len(row) > 0:
            squared[number, row] = csr.norms_sq(block[row] - candidates[number])

    csr.each(measure, points.rows, points.host, len(own))
    return result
