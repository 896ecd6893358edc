"""Weighted sampling of rows, the same however ranks share the rows out."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import numpy as np

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


class WeightedSampling:
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
        return slices(self.points.n, BLOCK)


def first_row(points: Points, random_state: np.random.RandomState) -> Index:
    """Number of one row, drawn by weight, as an array."""
    weights = np.ones(points.n) if points.weights is None else points.weights
    sampling = WeightedSampling(points, points.exact(1, whole=True), weights)
    draw = np.atleast_1d(random_state.random_sample())
    return sampling.find(draw * joined(sampling.sums), side="right")


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
        sampling = WeightedSampling(points, exact, shares)
        draws = random_state.random_sample(k - len(chosen)) * joined(sampling.sums)
        found = sampling.find(draws, side="right")
        _, first = np.unique(found, return_index=True)
        found = found[np.sort(first)]
        chosen = np.concatenate([chosen, found])
        mine = found - points.offset
        shares[mine[(mine >= 0) & (mine < points.n)]] = 0
    return chosen


def default_trials(k: int) -> int:
    """Candidates per step of greedy k-means++."""
    return 2 + int(np.log(k))


def split(random_state: np.random.RandomState, k: int) -> np.random.RandomState:
    """Source of the draws that `plus_plus` takes from another, which then go on after them.

    How many these are does not depend on the rows: several can be seeded at a time.
    """
    own = deepcopy(random_state)
    random_state.random_sample(1 + (k - 1) * default_trials(k))
    return own
