"""The plain way: K-means in float64, in one piece. What all ways equal, and what small data takes.

Rows are ``(n, d)``. Restarts go side by side: the centres of all are ``(r, k, d)``, scores and
one-hot labels ``(r, k, n)``. No threads, no blocks, no bounds from one iteration to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import product
from mnist_kmeans_mlx.engine.decision import decide_pairs, product_error
from mnist_kmeans_mlx.engine.differences import NARROW, to_each
from mnist_kmeans_mlx.engine.exact import EXACT_FLOAT64, Exact, joined
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.seeding.sampling import (
    ROUNDED,
    Source,
    exact_distances,
    first_row,
    least,
)

# Bytes of scores that are worked on at once: they stay in cache.
SCORES_BYTES = 1 << 20
# If more than this share of the rows changed cluster, all are summed.
CHANGED = 1 / 2


class PlainWay:
    """Rows in float64: a `Way`."""

    device, why = "cpu", ""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.raw, self.rows = np.asarray(points.rows, np.float64), points.moved(slice(None))
        self.norms_sq, column_sums = points.measure(self.rows)
        self.norm_sq, self.mean_variance = points.moments(column_sums, self.norms_sq)
        self._blur = product_error(points.d, self.norms_sq, 0.0)
        self._blur += 2 * points.residual * np.sqrt(self.norms_sq)
        self._columns = np.ones((points.d + 1, points.n))
        self._columns[:-1] = self.rows.T
        largest = 4 * float(self.norms_sq.max(initial=0))
        self._products_are_exact = points.integer and largest <= EXACT_FLOAT64
        # What a cluster sums of each row: parts of it and of its weight, ``(parts, n, d or 1)``,
        # which float64 adds without error.
        weights = points.weighted(np.ones(points.n))
        rows = points.row_sums.split(points.weighted(self.rows.T).T)
        self.summed = rows, points.weight_sums.split(weights)[:, :, None]

    def clusters(self, k: int, settled: bool = False) -> PlainClusters:
        """Of a new restart."""
        return PlainClusters(self, k)

    def assign(self, asked: Sequence[tuple[PlainClusters, Float64]]) -> None:
        """Give each row to the nearest of some centres."""
        centers = np.stack([centers for _, centers in asked])
        close, restart = self._close(centers), np.zeros(0, np.intp)
        if np.count_nonzero(close) > len(asked) * self.points.n:
            # Of rows to which several centres are as close as products can tell.
            restart, row = np.nonzero(close.sum(axis=1) > 1)
            pair, center = np.nonzero(close[restart, :, row])
            close[restart, :, row] = False
            k, each = close.shape[1], centers.reshape(-1, self.points.d)
            nearest = decide_pairs(self.raw[row], pair, each, center + k * restart[pair])
            close[restart, nearest - k * restart, row] = True
        rechecked = np.bincount(restart, minlength=len(asked)).tolist()
        for (clusters, _), own, number in zip(asked, close, rechecked, strict=True):
            clusters.take(own, number)

    def _close(self, centers: Float64) -> npt.NDArray[np.bool_]:
        """Which centres ``(r, k, d)`` may be nearest to each row: True in ``(r, k, n)``.

        The score ``|c|^2 - 2 x.c`` of a row x is its squared distance less ``|x|^2``. How far the
        two, both rounded, can be apart is bounded.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # of given centres far off
            moved = self.points.move(centers)
            norms_sq = np.square(moved).sum(axis=2)
            scores = self._scores(moved, norms_sq)
            limits = scores.min(axis=1)
            limits += 2 * self._error(norms_sq.max(axis=1))
            # Whatever is not a number may be nearest.
            close: npt.NDArray[np.bool_] = ~(scores > limits[:, None])
        return close

    def _scores(self, moved: Float64, norms_sq: Float64) -> Float64:
        """``|c|^2 - 2 x.c`` of centres ``(..., d)`` and all rows: ``(..., n)``, by one product."""
        factors = np.concatenate([-2 * moved, norms_sq[..., None]], axis=-1)
        scores: Float64 = product(factors.reshape(-1, self.points.d + 1), self._columns)
        return scores.reshape(*norms_sq.shape, -1)

    def side_by_side(self, k: int) -> tuple[int, int]:
        """How many threads may each have a restart, and how many of these they take together."""
        return 1, max(1, SCORES_BYTES // (8 * k * self.points.n))

    def seeds_together(self, k: int, n: int) -> bool:
        """Whether `n` seedings take less time together than one by one."""
        return n > 1

    def seed(self, k: int, sources: Sequence[Source], trials: int) -> list[tuple[Index, Labels]]:
        """Greedy k-means++ from each of several sources of draws."""
        together = max(1, SCORES_BYTES // (8 * trials * self.points.n))
        found = []
        for start in range(0, len(sources), together):
            found += self._plus_plus(k, sources[start : start + together], trials)
        return found

    def _plus_plus(
        self, k: int, sources: Sequence[Source], trials: int
    ) -> list[tuple[Index, Labels]]:
        """scikit-learn's draws, in its order: a step of all sources at a time."""
        points, each = self.points, np.arange(len(sources))
        exact = exact_distances(points, float(self.norms_sq.max(initial=0)))
        drawn = np.stack([first_row(points, source) for source in sources])
        chosen, nearest = [drawn[:, 0]], np.zeros((len(sources), points.n), dtype=np.int32)
        none = np.full(nearest.shape, np.inf)
        closest = self._closest(drawn, *self._distances(drawn), none)[:, 0]
        for step in range(1, k):
            draws = np.stack([source.uniform(size=trials) for source in sources])
            drawn = self._drawn(exact, points.weighted(closest), draws)
            best, after = self._best(exact, drawn, closest)
            np.copyto(nearest, step, where=after < closest)
            chosen.append(drawn[each, best])
            closest = after
        return list(zip(np.transpose(chosen), nearest, strict=True))

    def _drawn(self, exact: Exact, shares: Float64, draws: Float64) -> Index:
        """Rows at which the running sums of shares ``(r, n)`` reach draws ``(r, t)``, of the total.

        Sums are made exactly only where rounding might decide.
        """
        running = np.cumsum(shares, axis=-1)
        aims, slack = draws * running[:, -1:], ROUNDED * running[:, -1]
        found = np.stack([*map(np.searchsorted, running, aims)])
        for source, (sums, aim, place) in enumerate(zip(running, aims, found, strict=True)):
            around = sums.take([place - 1, place], mode="clip")
            if np.abs(around - aim).min() <= slack[source]:
                sums = joined(np.cumsum(exact.split(shares[source]), axis=-1))
                place[:] = np.searchsorted(sums, draws[source] * sums[-1])
        return np.minimum(found, shares.shape[1] - 1)

    def _best(self, exact: Exact, drawn: Index, closest: Float64) -> tuple[Index, Float64]:
        """Which of the rows drawn ``(r, t)`` leaves least, and the distances ``(r, n)`` with it.

        Those of the others are made exactly only where rounding might decide.
        """
        distances, error = self._distances(drawn)
        left = self.points.weighted(np.minimum(distances, closest[:, None]))

        def exactly(seeding: int) -> Float64:
            one = slice(seeding, seeding + 1)
            each = self._closest(drawn[one], distances[one], error[one], closest[one])[0]
            return joined(exact.split(self.points.weighted(each)).sum(axis=-1))

        doubt = 2 * self.points.weighted(error).sum(axis=-1)
        best = least(left.sum(axis=-1), exactly, doubt)
        chosen = np.arange(len(best))[:, None], best[:, None]
        return best, self._closest(drawn[chosen], distances[chosen], error, closest)[:, 0]

    def _distances(self, drawn: Index) -> tuple[Float64, Float64]:
        """Squared distances ``(r, t, n)`` to rows drawn, and how far they may be off, by row."""
        none = np.zeros((len(drawn), 1))
        if self.points.d <= NARROW and not self._products_are_exact:
            distances = np.empty((*drawn.shape, self.points.n))
            return to_each(self._scaled, self._scaled.T[drawn], distances), none
        distances = self._scores(self.rows[drawn], self.norms_sq[drawn])
        distances += self.norms_sq
        if self._products_are_exact:
            return distances, none
        return distances, self._error(self.norms_sq[drawn].max(axis=1))

    def _closest(
        self, drawn: Index, distances: Float64, error: Float64, closest: Float64
    ) -> Float64:
        """Squared distances ``(r, t, n)`` to the closest seed, if each row drawn is one more.

        Rows drawn are ``(r, t)``; `closest` is ``(r, n)``, without them. `distances` rule out the
        rows to which one that is drawn cannot come closer; to the others they are made exact.
        """
        if error.any():
            for row, found, limit in zip(drawn, distances, closest + 2 * error, strict=True):
                for number, own in zip(row, found, strict=True):
                    near = np.flatnonzero(own < limit)
                    own[near] = self.points.direct(near, self.raw[number])
        return np.minimum(distances, closest[:, None])

    @cached_property
    def _scaled(self) -> Float64:
        """Rows as columns ``(d, n)``, not moved: differences of what was are rounded twice."""
        return np.ascontiguousarray((self.raw * self.points.scale).T)

    def _error(self, largest: Float64) -> Float64:
        """`product_error` of all rows, ``(r, n)``, and centres, the largest of which ``(r,)``.

        Of rows near a lattice it counts what products of its points lack.
        """
        blur = product_error(self.points.d, 0.0, largest)
        blur += 2 * self.points.residual * np.sqrt(largest)
        found: Float64 = self._blur + blur[:, None]
        return found


class PlainClusters:
    """Labels and sums of one restart: `Clusters`."""

    def __init__(self, way: PlainWay, k: int) -> None:
        self._way, self._k, n = way, k, way.points.n
        self.labels: Labels = np.full(n, -1, dtype=np.int32)
        self.changed, self.rechecked = 0, 0
        self._own = np.zeros((k, n), dtype=bool)
        self._sums, self._counts = (np.zeros((len(x), k, x.shape[2])) for x in way.summed)

    def begin(self, labels: Labels) -> None:
        """Take clusters that seeding found."""
        self.take(labels == np.arange(self._k)[:, None], 0)

    def take(self, own: npt.NDArray[np.bool_], rechecked: int) -> None:
        """Take what an assignment found: which row is whose, ``(k, n)``.

        Sums are exact, so only rows that change cluster are added and taken away.
        """
        changed = np.flatnonzero((own != self._own).any(axis=0))
        few = len(changed) < CHANGED * own.shape[1]

        def some(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return x.take(changed, axis=1) if few else x

        after = some(own)
        self.labels = self.labels.copy()
        self.labels[changed if few else slice(None)] = after.argmax(axis=0)
        gained = np.subtract(after, some(self._own), dtype=np.float64)
        self._sums, self._counts = (
            sums + product(gained, some(summed))
            for sums, summed in zip((self._sums, self._counts), self._way.summed, strict=True)
        )
        self.sums, self.counts = joined(self._sums), joined(self._counts)[:, 0]
        self.changed, self.rechecked, self._own = len(changed), rechecked, own
