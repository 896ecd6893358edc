"""Seeding: where the centres start."""

from __future__ import annotations

import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.distances import Codebook
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


def random_rows(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """Draw `k` different rows, as scikit-learn's ``init="random"`` draws them."""
    weights = np.ones(points.n) if points.weights is None else points.weights
    chosen = random_state.choice(points.n, size=k, replace=False, p=weights / weights.sum())
    return np.asarray(chosen, dtype=np.intp)


def plus_plus(
    points: Points, k: int, random_state: np.random.RandomState, trials: int | None = None
) -> Index:
    """Greedy k-means++, with scikit-learn's draws in scikit-learn's order.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.
    trials : int, optional
        Candidates per step; ``2 + int(log(k))`` if None.

    Returns
    -------
    ndarray of int, shape (k,)
        The chosen rows.

    Notes
    -----
    Of a few candidates, drawn in proportion to the squared distance from the rows chosen so far,
    each step keeps the one that leaves the smallest potential. The device finds which rows a
    candidate may come closer to; their distances, the potential and so the draws are float64.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    weights = np.ones(points.n) if points.weights is None else points.weights
    trials = 2 + int(np.log(k)) if trials is None else trials
    chosen = np.empty(k, dtype=np.intp)
    chosen[0] = random_state.choice(points.n, p=weights / weights.sum())
    closest = np.empty(points.n)

    def measure(part: slice) -> None:
        index = np.arange(part.start, part.stop)
        closest[part] = points.distances_sq_to_row(index, chosen[0])

    points.device.map(measure, points.host_parts())
    potential = closest @ weights
    for step in range(1, k):
        draws = random_state.uniform(size=trials) * potential
        candidates = np.searchsorted(np.cumsum(weights * closest), draws)
        np.clip(candidates, None, points.n - 1, out=candidates)
        improved = _closest_with_each(points, closest, candidates)
        potentials = improved @ weights
        best = int(np.argmin(potentials))
        chosen[step], closest, potential = candidates[best], improved[best], potentials[best]
    return chosen


def _closest_with_each(points: Points, closest: Float64, candidates: Index) -> Float64:
    """Squared distances ``(trials, n)`` to the nearest chosen row if each candidate is added."""
    codebook = Codebook(points, points.raw(candidates))
    sketched = codebook.sketch()
    slope, constant = codebook.tolerance if sketched is None else sketched.tolerance
    improved = np.repeat(closest[None], len(candidates), axis=0)

    def improve(part: slice) -> None:
        if sketched is None:
            lower = host_view(codebook.scores(points.block(part)))
        else:
            lower = sketched.lower_scores(part)
        norms_sq, own = points.norms_sq[part], closest[part]
        error = slope * np.sqrt(norms_sq) + constant + 8 * FLOAT32_ROUNDOFF * (norms_sq + own)
        reach = (own - norms_sq + error).astype(np.float32)
        for row, bound, nearest in zip(candidates, lower.T, improved, strict=True):
            index = part.start + np.flatnonzero(bound < reach)
            nearest[index] = np.minimum(own[index - part.start],
                                        points.distances_sq_to_row(index, row))  # fmt: skip

    points.device.map(improve, points.device_parts(max(64, codebook.k)))
    return improved
