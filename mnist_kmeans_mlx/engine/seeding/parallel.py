"""k-means||: seeding in a few passes, for many centres."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.exact import BLOCK, joined
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.seeding.sampling import default_trials, first_row
from mnist_kmeans_mlx.engine.ways import choose

# Rounds of k-means||, and how many rows each draws for every centre.
ROUNDS, OVERSAMPLING = 5, 2
# Random numbers drawn at once.
DRAWS = 1 << 16


def parallel(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """k-means||: a few rounds of many draws each, in place of one pass for every centre.

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
        Numbers of the chosen rows, among those of all ranks.

    Notes
    -----
    Each of five rounds draws about ``2 * k`` rows, every row by itself with a chance in proportion
    to its squared distance from those drawn before. Of all that were drawn, each with the weight of
    the rows nearest to it, greedy k-means++ keeps `k`. It takes two passes for every round.

    References
    ----------
    B. Bahmani, B. Moseley, A. Vattani, R. Kumar and S. Vassilvitskii, *Scalable k-means++*,
    VLDB 2012.
    """
    candidates = first_row(points, random_state)
    rows = [points.pick_given(candidates)]
    nearest = np.zeros(points.n, dtype=np.int32)
    closest = points.distances_sq(None, points.pick(candidates), nearest)
    for _ in range(ROUNDS):
        drawn = points.group.gather(_hits(points, closest, OVERSAMPLING * k, random_state))
        if len(drawn) == 0:
            continue
        _approach(points, points.pick(drawn), len(candidates), closest, nearest)
        candidates = np.concatenate([candidates, drawn])
        rows.append(points.pick_given(drawn))
    del closest
    if len(candidates) < k:
        return _plus_plus(points, k, random_state)
    behind = _weight_behind(points, nearest, len(candidates))
    del nearest
    together = sparse.vstack(rows, "csr") if points.is_sparse else np.concatenate(rows)
    kept = _plus_plus(Points(together, points.device, behind), k, random_state)
    return candidates[kept]


def _plus_plus(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """k-means++ of a few rows, or of rows of which few differ."""
    ((chosen, _),) = choose(points, k).seed(k, [random_state], default_trials(k))
    return chosen


def _approach(
    points: Points, found: Float64, first: int, closest: Float64, nearest: Labels
) -> None:
    """Renew the distances of all rows, and to which candidate, by those just `found`."""
    labels = Nearest(found, points.device).labels(points.rows)
    distances = points.distances_sq(None, found, labels)
    closer = distances < closest
    labels += first
    np.copyto(closest, distances, where=closer)
    np.copyto(nearest, labels, where=closer)


def _weight_behind(points: Points, nearest: Labels, count: int) -> Float64:
    """Weight of the rows nearest to each candidate, of all ranks."""
    exact = points.exact(1, whole=True)
    parts = np.zeros((exact.width, count))
    for part in slices(points.n, BLOCK):
        own = nearest[part]
        weights = points.weighted(np.ones(len(own)), part)
        parts += [np.bincount(own, share, count) for share in exact.split(weights)]
    return joined(points.group.sum(parts))


def _hits(
    points: Points, shares: Float64, expected: int, random_state: np.random.RandomState
) -> Index:
    """Numbers of this rank's rows that are hit, each by itself, in proportion to its share.

    About as many as `expected` are, on all ranks. Numbers are drawn for all rows, so that which
    are hit does not depend on the rank that holds them.
    """
    total, hits = points.sum(shares, points.integer and not points.on_lattice), []
    for start in range(0, points.total, DRAWS):
        draws = random_state.random_sample(min(DRAWS, points.total - start))
        first = max(points.offset - start, 0)
        own = draws[first : max(points.offset + points.n - start, 0)]
        place = start + first - points.offset
        part = slice(place, place + len(own))
        weighted = points.weighted(shares[part], part)
        hits.append(points.offset + place + np.flatnonzero(own * total < weighted * expected))
    return np.concatenate(hits)
