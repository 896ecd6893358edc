"""Joint seeding: k-means++ of several restarts, a step of all at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.exact import joined
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels
from mnist_kmeans_mlx.engine.seeding.sampling import (
    Source,
    WeightedSampling,
    default_trials,
    exact_distances,
    first_row,
    least,
)

# Bytes of distances of narrow rows that a core works on at once.
BLOCK = 1 << 20


def pays(rows: HostRows, k: int, n: int) -> bool:
    """Whether `n` seedings take less time together than one by one, or a single one than by bounds.

    The same on all ranks, for it decides what these ask of each other.
    """
    points = rows.points
    trials = default_trials(k)
    fits = 8 * points.n * n * (trials + 2) <= points.spare
    # With many centres few rows come closer to any candidate. Measured on MNIST.
    able = rows.by_column if n == 1 else rows.products_are_exact and n >= trials
    return bool(points.group.min(fits and able))


def plus_plus(
    rows: HostRows, k: int, sources: Sequence[Source], trials: int
) -> list[tuple[Index, Labels]]:
    """What `plus_plus.plus_plus` chooses from each of several sources, a step of all at a time.

    A pass that converts rows once, and multiplies them with the candidates of all, takes less time
    than to rule most of them out for each by itself.

    Parameters
    ----------
    rows : HostRows
        The rows, of which products are exact or which go `by_column`.
    k : int
        How many to choose.
    sources : sequence of numpy.random.RandomState
        Sources of the draws.
    trials : int
        Candidates per step.

    Returns
    -------
    list of (ndarray of int, shape (k,), ndarray of int32, shape (n,))
        For each source the numbers of the chosen rows, and which is nearest to each row, as
        that finds them.
    """
    seedings = _Seedings(rows, sources, trials)
    steps = [seedings.keep_best(seedings.first())]
    while len(steps) < k:
        steps.append(seedings.keep_best(seedings.draw()))
    return list(zip(np.transpose(steps), seedings.nearest, strict=True))


class _Seedings:
    """Several seedings, all at the same step.

    Attributes
    ----------
    nearest : ndarray of shape (s, n), int32
        For each seeding the step that chose the row nearest to each.
    """

    def __init__(self, rows: HostRows, sources: Sequence[Source], trials: int) -> None:
        self.rows, self.points, self.sources, self.trials = rows, rows.points, sources, trials
        points = rows.points
        self.nearest = np.zeros((len(sources), points.n), dtype=np.int32)
        self._exact = exact_distances(points, rows.largest_norm_sq)
        # Squared distances to the rows chosen so far, and with each candidate as well.
        self._closest = np.full((len(sources), points.n), np.inf)
        self._left = np.empty((len(sources), trials, points.n))
        self._step = 0

    def first(self) -> Index:
        """Numbers ``(s, 1)`` of the rows to begin with."""
        return np.stack([first_row(self.points, source) for source in self.sources])

    def draw(self) -> Index:
        """Numbers ``(s, t)`` of candidates."""
        points, drawn = self.points, []
        for source, closest in zip(self.sources, self._closest, strict=True):
            sampling = WeightedSampling(points, self._exact, points.weighted(closest))
            drawn.append(sampling.find(source.uniform(size=self.trials) * joined(sampling.sums)))
        return np.stack(drawn)

    def keep_best(self, candidates: Index) -> Index:
        """Choose the candidate of each seeding that leaves the smallest potential."""
        points = self.points
        rows, left = points.pick(candidates.ravel()), self._left[:, : candidates.shape[1]]

        def measure(part: slice) -> Float64:
            own = left[:, :, part]
            distances = self.rows.distances_sq_to_each(part, rows).reshape(own.shape)
            np.minimum(distances, self._closest[:, None, part], out=own)
            return points.weighted(own, part).sum(axis=-1)

        def exactly(seeding: int) -> Float64:
            each = [self._exact.sums(points.weighted(own)) for own in left[seeding]]
            return joined(self._exact.over(points.group, np.transpose(each)))

        # Twice as many rows as in float64 are in float32; if narrow, distances are wider.
        step = 2 * points.host_step
        if self.rows.by_column:
            step = max(1, BLOCK // (8 * len(rows)))
        sums = points.host.map(measure, slices(points.n, step))
        best = least(points.group.sum(np.sum(sums, axis=0)), exactly)

        def keep(part: slice) -> None:
            for nearest, before, own, number in zip(
                self.nearest, self._closest, left, best, strict=True
            ):
                after = own[number, part]
                np.copyto(nearest[part], self._step, where=after < before[part])
                before[part] = after

        points.host.map(keep, points.host.parts(points.n, 16))
        self._step += 1
        return candidates[np.arange(len(best)), best]
