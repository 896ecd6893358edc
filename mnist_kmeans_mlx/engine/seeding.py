"""Seeding: where the centres start."""

from __future__ import annotations

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.distances import Codebook
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


def random_rows(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """Draw `k` different rows, as scikit-learn's ``init="random"`` draws them."""
    weights = np.ones(points.n) if points.weights is None else points.weights
    chosen = random_state.choice(points.n, size=k, replace=False, p=weights / weights.sum())
    return np.asarray(chosen, dtype=np.intp)


def plus_plus(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """Greedy k-means++, with scikit-learn's draws in scikit-learn's order.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.

    Returns
    -------
    ndarray of int, shape (k,)
        The chosen rows.

    Notes
    -----
    Of a few candidates, drawn in proportion to the squared distance from the rows chosen so far,
    each step keeps the one that leaves the smallest potential. The device finds in float32 which
    rows a candidate may come closer to; their distances, the potential and so the draws are
    float64.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    weights = np.ones(points.n) if points.weights is None else points.weights
    trials = 2 + int(np.log(k))
    chosen = np.empty(k, dtype=np.intp)
    chosen[0] = random_state.choice(points.n, p=weights / weights.sum())
    closest = points.distances_sq_to_row(None, int(chosen[0]))
    potential = closest @ weights
    for step in range(1, k):
        draws = random_state.uniform(size=trials) * potential
        candidates = np.searchsorted(np.cumsum(weights * closest), draws)
        np.clip(candidates, None, points.n - 1, out=candidates)
        closest, winner = _best_candidate(points, weights, closest, candidates)
        potential = closest @ weights
        chosen[step] = candidates[winner]
    return chosen


def _best_candidate(
    points: Points, weights: Float64, closest: Float64, candidates: Index
) -> tuple[Float64, int]:
    """Squared distances once the best candidate is chosen, and which one that is."""
    codebook = Codebook(points, points.raw(candidates))
    gains, errors, rows = _approximate_gains(codebook, closest, weights)
    contenders = np.flatnonzero(gains + errors >= np.max(gains - errors))
    best, best_closest = 0, closest
    best_potential = np.inf
    for contender in contenders:
        if contender > 0 and candidates[contender] in candidates[:contender]:
            continue
        improved = closest.copy()
        index = rows[contender]
        distances = points.distances_sq_to_row(index, int(candidates[contender]))
        improved[index] = np.minimum(closest[index], distances)
        potential = float(improved @ weights)
        if potential < best_potential:
            best, best_potential, best_closest = int(contender), potential, improved
    return best_closest, best


def _approximate_gains(
    codebook: Codebook, closest: Float64, weights: Float64
) -> tuple[Float64, Float64, list[Index]]:
    """What each candidate takes off the potential, with an error bound, and the rows it may win."""
    points = codebook.points
    slope, constant = codebook.tolerance
    gains, errors = np.zeros(codebook.k), np.zeros(codebook.k)
    rows: list[list[Index]] = [[] for _ in range(codebook.k)]
    with mx.stream(points.device.mlx):
        for part in points.slices(codebook.k):
            own = closest[part] - points.norms_sq[part]
            error = slope * np.sqrt(points.norms_sq[part]) + constant
            error += 8 * FLOAT32_ROUNDOFF * (points.norms_sq[part] + closest[part])
            limit = mx.array((own + error).astype(np.float32))[:, None]
            gain = limit - codebook.scores(points.block(part))
            block = host_view(mx.maximum(gain, 0))
            for candidate in range(codebook.k):
                index = np.flatnonzero(block[:, candidate])
                rows[candidate].append(index + part.start)
                weight, slack = weights[part][index], error[index]
                gains[candidate] += weight @ (block[index, candidate] - slack)
                errors[candidate] += 2 * weight @ slack
    return gains, errors, [np.concatenate(r) for r in rows]
