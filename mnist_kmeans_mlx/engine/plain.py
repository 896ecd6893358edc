"""The plain way: K-means in float64, in one piece. What all ways equal, and what small data takes.

Rows are ``(n, d)``. Restarts go side by side: the centres of all are ``(r, k, d)``, scores and
one-hot labels ``(r, k, n)``. No threads, no blocks, no bounds from one iteration to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import product
from mnist_kmeans_mlx.engine.decision import decide_pairs
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

ROUNDOFF, TINIEST = 2.0**-53, np.finfo(np.float64).tiny
# Bytes of scores that are worked on at once: they stay in cache.
SCORES_BYTES = 1 << 20


class PlainWay:
    """Rows in float64: a `Way`."""

    device, why = "cpu", ""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.raw, self.rows = points.raw(slice(None)), np.empty((points.n, points.d))
        self.norms_sq, self.norm_sq, self.mean_variance = points.convert(self.rows.__setitem__)
        self._norms = np.sqrt(self.norms_sq)
        self._columns = np.ascontiguousarray(np.column_stack([self.rows, np.ones(points.n)]).T)
        largest = 4 * float(self.norms_sq.max(initial=0))
        self._products_are_exact = points.integer and largest <= EXACT_FLOAT64
        # What a cluster sums of each row: its parts, which float64 adds without error, and weight.
        weights = points.weighted(np.ones(points.n))
        parts = points.row_sums.split(self.rows * weights[:, None])
        self._summed = np.hstack([*parts, points.weight_sums.split(weights).T])

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
        labels, sums, counts = self.sums(close)
        rechecked = np.bincount(restart, minlength=len(asked)).tolist()
        for (clusters, _), *found in zip(asked, labels, sums, counts, rechecked, strict=True):
            clusters.take(*found)

    def _close(self, centers: Float64) -> npt.NDArray[np.bool_]:
        """Which centres ``(r, k, d)`` may be nearest to each row: True in ``(r, k, n)``.

        The score ``|c|^2 - 2 x.c`` of a row x is its squared distance less ``|x|^2``. How far the
        two, both rounded, can be apart is bounded.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # of given centres far off
            moved = self.points.move(centers)
            norms_sq = np.square(moved).sum(axis=2)
            scores = self._scores(moved, norms_sq)
            reach = self._norms + np.sqrt(norms_sq.max(axis=1))[:, None]
            # Whatever is not a number may be nearest.
            error = self._error(reach) + 2 * self.points.residual * reach
            close: npt.NDArray[np.bool_] = ~(scores > (scores.min(axis=1) + 2 * error)[:, None])
        return close

    def _scores(self, moved: Float64, norms_sq: Float64) -> Float64:
        """``|c|^2 - 2 x.c`` of centres ``(..., d)`` and all rows: ``(..., n)``, by one product."""
        factors = np.concatenate([-2 * moved, norms_sq[..., None]], axis=-1)
        scores: Float64 = product(factors.reshape(-1, self.points.d + 1), self._columns)
        return scores.reshape(*norms_sq.shape, -1)

    def sums(self, labels: npt.NDArray[np.bool_]) -> tuple[Labels, Float64, Float64]:
        """Labels ``(r, n)``, sums and weights of clusters, by ``(r, k, n)``: which row is whose."""
        (r, k, n), d = labels.shape, self.points.d
        one_hot = labels.astype(np.float64)
        found = product(one_hot.reshape(r * k, n), self._summed).reshape(r, k, -1)
        width = self.points.row_sums.width * d
        parts = np.moveaxis(found[:, :, :width].reshape(r, k, -1, d), 2, 0)
        counts = np.moveaxis(found[:, :, width:], 2, 0)
        return (np.arange(k) @ one_hot).astype(np.int32), joined(parts), joined(counts)

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
        closest = self._closest(drawn, np.full(nearest.shape, np.inf))[:, 0]
        for step in range(1, k):
            draws = np.stack([source.uniform(size=trials) for source in sources])
            drawn = self._drawn(exact, points.weighted(closest), draws)
            after = self._closest(drawn, closest)
            left = points.weighted(after)
            best = least(left.sum(axis=-1), partial(_exactly, exact, left))
            after = after[each, best]
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
            np.minimum(place, len(sums) - 1, out=place)
            gaps = [sums[place] - aim, np.where(place > 0, aim - sums[place - 1], np.inf)]
            if np.min(gaps) <= slack[source]:
                sums = joined(np.cumsum(exact.split(shares[source]), axis=-1))
                place[:] = np.searchsorted(sums, draws[source] * sums[-1])
        return np.minimum(found, shares.shape[1] - 1)

    def _closest(self, drawn: Index, closest: Float64) -> Float64:
        """Squared distances ``(r, t, n)`` to the closest seed, if each row drawn is one more.

        Rows drawn are ``(r, t)``; `closest` is ``(r, n)``, without them.
        """
        if self.points.d <= NARROW and not self._products_are_exact:
            distances = np.empty((*drawn.shape, self.points.n))
            to_each(self._scaled, self._scaled.T[drawn], distances)
            return np.minimum(distances, closest[:, None], out=distances)
        distances = self._scores(self.rows[drawn], self.norms_sq[drawn])
        distances += self.norms_sq
        if not self._products_are_exact:
            # They rule out the rows to which one that is drawn cannot come closer.
            reach = self._norms + self._norms[drawn].max(axis=1)[:, None]
            near = distances < (closest + 2 * self._error(reach))[:, None]
            source, candidate, row = pairs = np.nonzero(near)
            distances[pairs] = self.points.direct(row, self.raw[drawn[source, candidate]])
        return np.minimum(distances, closest[:, None], out=distances)

    @cached_property
    def _scaled(self) -> Float64:
        """Rows as columns ``(d, n)``, not moved: differences of what was are rounded twice."""
        return np.ascontiguousarray((self.raw * self.points.scale).T)

    def _error(self, reach: Float64) -> Float64:
        """How far squared distances by products and by differences, both rounded, can be apart.

        No norms of a row and a centre add up to more than `reach`.
        """
        return 2 * (self.points.d + 8) * ROUNDOFF * np.square(reach) + TINIEST


def _exactly(exact: Exact, left: Float64, seeding: int) -> Float64:
    """Potentials ``(t,)`` of what the candidates of one seeding leave ``(s, t, n)``."""
    return joined(exact.split(left[seeding]).sum(axis=-1))


class PlainClusters:
    """Labels and sums of one restart: `Clusters`."""

    def __init__(self, way: PlainWay, k: int) -> None:
        self._way, self._k = way, k
        self.labels: Labels = np.full(way.points.n, -1, dtype=np.int32)
        self.sums: Float64 = np.zeros((k, way.points.d))
        self.counts: Float64 = np.zeros(k)
        self.changed, self.rechecked = 0, 0

    def begin(self, labels: Labels) -> None:
        """Take clusters that seeding found."""
        found = self._way.sums(labels == np.arange(self._k)[None, :, None])
        labels, sums, counts = (each[0] for each in found)
        self.take(labels, sums, counts, 0)

    def take(self, labels: Labels, sums: Float64, counts: Float64, rechecked: int) -> None:
        """Take what an assignment found."""
        self.changed, self.rechecked = int(np.count_nonzero(labels != self.labels)), rechecked
        self.labels, self.sums, self.counts = labels, sums, counts
