"""Weighted sampling of rows, the same however ranks share the rows out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.exact import Exact, joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Points

# Sums that differ by a smaller share are made exactly before they are compared.
ROUNDED = 1e-11
# Rows of which the running sum is made again for a draw.
BLOCK = 1 << 13


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


def first_row(points: Points, random_state: Source) -> Index:
    """Number of one row, drawn by weight, as an array."""
    draw = np.atleast_1d(random_state.random_sample())
    if points.weights is None:  # and so the running sums are 1, 2, 3 ...
        return np.minimum((draw * points.total).astype(np.intp), points.total - 1)
    sampling = WeightedSampling(points, points.exact(1, whole=True), points.weights)
    return sampling.find(draw * joined(sampling.sums), side="right")


def random_rows(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """Draw `k` different rows, as scikit-learn's ``init="random"`` draws them.

    Returns
    -------
    ndarray of int, shape (k,)
        Numbers of rows, among those of all ranks.
    """
    shares = points.weighted(np.ones(points.n))
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


def least(
    potentials: Float64, exactly: Callable[[int], Float64], error: Float64 | float = 0.0
) -> Index:
    """Which candidate of each seeding leaves the smallest potential, the first if several do.

    Parameters
    ----------
    potentials : ndarray of shape (s, t), float64
        Rounded sums.
    exactly : callable
        ``exactly(seeding)`` makes the sums ``(t,)`` of one exactly: asked only where rounding might
        decide.
    error : ndarray of shape (s,), float64, optional
        How far two sums of a seeding may be off together, besides.
    """
    best = potentials.argmin(axis=1)
    if potentials.shape[1] > 1:
        first, second = np.sort(potentials, axis=1)[:, :2].T
        for seeding in np.flatnonzero(second - first <= ROUNDED * first + error):
            best[seeding] = exactly(int(seeding)).argmin()
    return best


def exact_distances(points: Points, largest_norm_sq: float) -> Exact:
    """How to sum weighted squared distances between rows, given this rank's largest norm."""
    # No two rows are further from one another than twice the largest norm.
    reach = 4 * float(points.group.max(largest_norm_sq)) * (1 + 1e-9)
    return points.exact(reach, points.integer, 2 * points.depth)


def default_trials(k: int) -> int:
    """Candidates per step of greedy k-means++."""
    return 2 + int(np.log(k))


class Draws:
    """Draws that k-means++ takes, taken ahead from their source, which then goes on after them.

    How many these are does not depend on the rows: several can be seeded at a time. It stands in
    for a `RandomState`, a copy of which takes longer than to cluster a few rows.
    """

    def __init__(self, random_state: np.random.RandomState, k: int) -> None:
        self._drawn = random_state.random_sample(1 + (k - 1) * default_trials(k))
        self._next = 0

    def random_sample(self) -> float:
        """The next one."""
        return float(self.uniform(1)[0])

    def uniform(self, size: int) -> Float64:
        """The next ones."""
        self._next += size
        return self._drawn[self._next - size : self._next]

    def get_state(self) -> Any:
        """Which one is next."""
        return self._next

    def set_state(self, state: Any) -> None:
        """Go back there."""
        self._next = state


# What k-means++ draws from.
Source = np.random.RandomState | Draws
