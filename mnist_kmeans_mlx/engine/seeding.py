"""Seeding: where the centres start."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.assignment import FullAssignment
from mnist_kmeans_mlx.engine.distances import Codebook
from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points

# Rounds of k-means||, and how many rows each draws for every centre.
ROUNDS, OVERSAMPLING = 5, 2
# Random numbers drawn at once.
DRAWS = 1 << 16

# Of one block, the rows that a candidate comes closer to, how close, and what that saves.
Gain = tuple[Index, Float64, Float64]


class Lots:
    """Rows to be drawn in proportion to a number of each, among all ranks.

    Numbers are summed exactly: a draw finds the same row however the rows are shared out.

    Parameters
    ----------
    points : Points
        The rows.
    exact : Exact
        How to sum.
    shares : ndarray of shape (n,), float64
        A number, not negative, of each of this rank's rows.

    Attributes
    ----------
    sums : ndarray of float64
        Parts of the sum of all shares.
    """

    def __init__(self, points: Points, exact: Exact, shares: Float64) -> None:
        self.points = points
        self._exact, self._shares = exact, shares
        blocks = [exact.split(shares[part]).sum(axis=1) for part in self._blocks()]
        # Where each block ends; running sums within are made again for those that are drawn from.
        self._ends = np.cumsum(np.reshape(blocks, (-1, exact.width)).T, axis=1)
        own = self._ends[:, -1] if points.n else np.zeros(exact.width)
        ranks = points.group.gather(own[None])
        self.sums: Float64 = ranks.sum(axis=0)
        self._before: Float64 = ranks[: points.group.rank].sum(axis=0)[:, None]
        self._ends += self._before

    def find(self, draws: Float64, side: Literal["left", "right"] = "left") -> Index:
        """Numbers of the rows at which the running sum of shares reaches (or passes) each draw."""
        block = np.searchsorted(joined(self._ends), draws, side=side)
        below = np.minimum(block * BLOCK, self.points.n)
        blocks = self._blocks()
        for number in np.unique(block[block < len(blocks)]):
            running = np.cumsum(self._exact.split(self._shares[blocks[number]]), axis=1)
            running += self._before if number == 0 else self._ends[:, number - 1, None]
            here = block == number
            below[here] += np.searchsorted(joined(running), draws[here], side=side)
        found: Index = self.points.group.sum(below)
        return np.minimum(found, self.points.total - 1)

    def _blocks(self) -> list[slice]:
        return [slice(start, start + BLOCK) for start in range(0, self.points.n, BLOCK)]


def _first(points: Points, random_state: np.random.RandomState) -> Index:
    """Number of one row, drawn by weight, as an array."""
    weights = np.ones(points.n) if points.weights is None else points.weights
    lots = Lots(points, points.exact(1, whole=True), weights)
    draw = np.atleast_1d(random_state.random_sample())
    return lots.find(draw * joined(lots.sums), side="right")


def random_rows(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """Draw `k` different rows, as scikit-learn's ``init="random"`` draws them.

    Returns
    -------
    ndarray of int, shape (k,)
        Numbers of rows, among those of all ranks.
    """
    shares = np.ones(points.n) if points.weights is None else points.weights.copy()
    chosen = np.empty(0, dtype=np.intp)
    exact = points.exact(1, whole=True)
    if points.group.sum(np.count_nonzero(shares)) < k:
        raise ValueError("Fewer non-zero entries in p than size")
    # As `RandomState.choice` without replacement: what was drawn twice is drawn anew.
    while len(chosen) < k:
        lots = Lots(points, exact, shares)
        draws = random_state.random_sample(k - len(chosen)) * joined(lots.sums)
        found = lots.find(draws, side="right")
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]
        chosen = np.concatenate([chosen, found])
        mine = found - points.offset
        shares[mine[(mine >= 0) & (mine < points.n)]] = 0
    return chosen


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
    candidates = _first(points, random_state)
    rows = points.pick(candidates)
    nearest = np.zeros(points.n, dtype=np.int32)
    closest = points.distances_sq(None, rows, nearest)
    for _ in range(ROUNDS):
        drawn = points.group.gather(_hits(points, closest, OVERSAMPLING * k, random_state))
        if len(drawn) == 0:
            continue
        found = points.pick(drawn)
        _approach(points, found, len(candidates), closest, nearest)
        candidates, rows = np.concatenate([candidates, drawn]), np.concatenate([rows, found])
    del closest
    if len(candidates) < k:
        return plus_plus(points, k, random_state)
    behind = _weight_behind(points, nearest, len(candidates))
    del nearest
    kept = plus_plus(Points(rows, points.device, behind), k, random_state)
    return candidates[kept]


def _approach(
    points: Points, found: Float64, first: int, closest: Float64, nearest: Labels
) -> None:
    """Renew the distances of all rows, and to which candidate, by those just `found`."""
    labels = FullAssignment(points)(Codebook(points, found))
    distances = points.distances_sq(None, found, labels)
    closer = distances < closest
    labels += first
    np.copyto(closest, distances, where=closer)
    np.copyto(nearest, labels, where=closer)


def _weight_behind(points: Points, nearest: Labels, count: int) -> Float64:
    """Weight of the rows nearest to each candidate, of all ranks."""
    exact = points.exact(1, whole=True)
    parts = np.zeros((exact.width, count))
    for start in range(0, points.n, BLOCK):
        part = slice(start, start + BLOCK)
        own = nearest[part]
        weights = np.ones(len(own)) if points.weights is None else points.weights[part]
        parts += [np.bincount(own, share, count) for share in exact.split(weights)]
    return joined(points.group.sum(parts))


def _hits(
    points: Points, shares: Float64, expected: int, random_state: np.random.RandomState
) -> Index:
    """Numbers of this rank's rows that are hit, each by itself, in proportion to its share.

    About as many as `expected` are, on all ranks. Numbers are drawn for all rows, so that which
    are hit does not depend on the rank that holds them.
    """
    total, hits = points.sum(shares, points.integer), []
    for start in range(0, points.total, DRAWS):
        draws = random_state.random_sample(min(DRAWS, points.total - start))
        first = max(points.offset - start, 0)
        own = draws[first : max(points.offset + points.n - start, 0)]
        place = start + first - points.offset
        part = slice(place, place + len(own))
        weighted = shares[part] if points.weights is None else shares[part] * points.weights[part]
        hits.append(points.offset + place + np.flatnonzero(own * total < weighted * expected))
    return np.concatenate(hits)


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
        Numbers of the chosen rows, among those of all ranks.

    Notes
    -----
    Of a few candidates, drawn in proportion to the squared distance from the rows chosen so far,
    each step keeps the one that leaves the smallest potential. The device finds which rows a
    candidate may come closer to; their distances, the potential and so the draws are float64.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    trials = 2 + int(np.log(k)) if trials is None else trials
    weights = points.weights
    chosen = np.empty(k, dtype=np.intp)
    chosen[:1] = _first(points, random_state)
    closest = np.empty(points.n)
    center = points.pick(chosen[:1])[0]

    def measure(part: slice) -> None:
        closest[part] = points.distances_sq_to(part, center)

    points.device.map(measure, points.host_parts())
    # No two rows are further from one another than twice the largest norm.
    reach = 4 * float(points.group.max(points.norms_sq.max(initial=0))) * (1 + 1e-9)
    exact = points.exact(reach, points.integer)
    # A second look at the best candidate takes less memory than to keep what all would gain.
    keep = points.keep or 16 * trials * points.n <= points.spare
    for step in range(1, k):
        lots = Lots(points, exact, closest if weights is None else closest * weights)
        draws = random_state.uniform(size=trials) * joined(lots.sums)
        candidates = lots.find(draws)
        centers = points.pick(candidates)
        gains = _gains(points, exact, closest, centers, keep)
        saved = np.array([sum(saved for _, _, saved in blocks) for blocks in gains]).T
        saved = exact.over(points.group, saved)
        best = int(np.argmin(joined(lots.sums[:, None] - saved)))
        chosen[step] = candidates[best]
        if not keep:
            gains, best = _gains(points, exact, closest, centers[[best]], keep=True), 0
        for rows, distances, _ in gains[best]:
            closest[rows] = distances
    return chosen


def _gains(
    points: Points, exact: Exact, closest: Float64, candidates: Float64, keep: bool
) -> list[list[Gain]]:
    """For each candidate, block by block, the rows that it is closer to than any chosen row.

    Only what they save, unless they are to be kept.
    """
    codebook = Codebook(points, candidates)
    sketch = points.sketch
    sketched = None if sketch is None else codebook.sketched(sketch)
    slope, constant = codebook.tolerance if sketched is None else sketched.tolerance

    def compare(part: slice) -> list[Gain]:
        if sketch is None or sketched is None:
            lower = host_view(codebook.scores(points.block(part))).T
        else:
            lower = sketch.lower_scores(sketched.factor, part)
        norms_sq, own = points.norms_sq[part], closest[part]
        error = slope * np.sqrt(norms_sq) + constant + 8 * FLOAT32_ROUNDOFF * (norms_sq + own)
        reach = (own - norms_sq + error).astype(np.float32)
        gains = []
        for bound, candidate in zip(lower, candidates, strict=True):
            near = np.flatnonzero(bound < reach)
            distances = np.empty(len(near))
            for block in points.host_parts(len(near)):
                distances[block] = points.distances_sq_to(part.start + near[block], candidate)
            closer = distances < own[near]
            near, distances = near[closer], distances[closer]
            before, after = own[near], distances
            if points.weights is not None:
                heavy = points.weights[part][near]
                before, after = before * heavy, after * heavy
            saved = exact.sums(before) - exact.sums(after)
            if not keep:
                near, distances = near[:0], distances[:0]
            gains.append((part.start + near, distances, saved))
        return gains

    parts = points.device_parts(max(64, codebook.k))
    return [list(each) for each in zip(*points.device.map(compare, parts), strict=True)]
