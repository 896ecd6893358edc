"""The MLX way: an iteration of one or several restarts, from rows to labels and sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.rows import DeviceRows
from mnist_kmeans_mlx.engine.mlx.seeding import UndecidedError, plus_plus
from mnist_kmeans_mlx.engine.mlx.step import FEWEST, compact, larger, membership, nearest, sums_by
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.seeding.sampling import Source

# Most centres that rows are compared with at a time where restarts go side by side.
WIDEST = 4096
# Bytes of distances to candidates that are kept until the best is known.
KEPT = 1 << 30
# If more than this share of the rows changed cluster, all are summed.
FEW = 1 / 4


class MlxWay:
    """Rows on the device: a `Way`.

    Parameters
    ----------
    points : Points
        The rows.
    otherwise : callable
        Gives the way that seeds what this one cannot.
    """

    def __init__(self, points: Points, otherwise: Callable[[], Any]) -> None:
        self.points, self._otherwise = points, otherwise
        self.device, self.why = points.device.name, ""
        self._seeds = points.weights is None and points.group.size == 1
        self.rows = DeviceRows(points)
        self.norm_sq, self.mean_variance = self.rows.norm_sq, self.rows.mean_variance

    def clusters(self, k: int, settled: bool = False) -> MlxClusters:
        """Of a new restart."""
        return MlxClusters(self.rows, k)

    def assign(self, asked: Sequence[tuple[MlxClusters, Float64]]) -> None:
        """Give each row to the nearest of some centres: one product for all restarts."""
        compared = []
        with mx.stream(self.points.device.mlx):
            for clusters, given in asked:
                centers = Centers(self.points, given, self.points.device.rounding)
                if centers.is_near:
                    compared.append((clusters, centers))
                else:  # the next ones, means, lie among the rows
                    clusters.take_all(centers.nearest(np.arange(self.points.n)), self.points.n)
            while compared:
                compared = self._step(compared)
        for clusters, _ in asked:
            clusters.add_up()

    def side_by_side(self, k: int) -> tuple[int, int]:
        """How many threads may each have a restart, and how many of these they take together."""
        return 1, max(1, WIDEST // k) if self.rows.held else 1

    def seeds_together(self, k: int, n: int) -> bool:
        """Whether `n` seedings take less time together than one by one."""
        return n > 1

    def seed(self, k: int, sources: Sequence[Source], trials: int) -> list[tuple[Index, Any]]:
        """Greedy k-means++ from each of several sources of draws."""
        if not (self._seeds and self.rows.held):
            return self._otherwise().seed(k, sources, trials)
        found, together = [], max(1, KEPT // (8 * self.points.n * trials))
        for start in range(0, len(sources), together):
            some = sources[start : start + together]
            before = deepcopy(some)
            try:
                with mx.stream(self.points.device.mlx):
                    found += plus_plus(self.rows, k, some, trials)
            except UndecidedError:
                for source, state in zip(some, before, strict=True):
                    source.set_state(state.get_state())
                found += self._otherwise().seed(k, some, trials)
        return found

    def _step(self, asked: list[tuple[MlxClusters, Centers]]) -> list[tuple[MlxClusters, Centers]]:
        """Assign, and wait for the device once; returns those whose buffers were too small."""
        labels, doubtful = self._compare([centers for _, centers in asked])
        found = [
            clusters.found(label, doubt)
            for (clusters, _), label, doubt in zip(asked, labels, doubtful, strict=True)
        ]
        arrays = [array for _, small in found for array in small]
        fetched = iter(fetch(*arrays, keep=[new for new, _ in found]))
        again = []
        for (clusters, centers), (new, small) in zip(asked, found, strict=True):
            if not clusters.take(centers, new, [next(fetched) for _ in small]):
                again.append((clusters, centers))
        return again

    def _compare(self, several: list[Centers]) -> tuple[mx.array, mx.array]:
        """Labels ``(r, n)`` by float32, and which are in doubt."""
        rows, k = self.rows, several[0].k
        factor = mx.array(np.concatenate([centers.factor for centers in several]))
        constant = mx.array(np.concatenate([centers.constant for centers in several])[:, None])
        slope, offset = mx.array(np.array([c.tolerance for c in several], np.float32).T[..., None])
        found = []
        for part in rows.blocks(4 * len(factor)):
            scores = self.points.device.addmm(constant, factor, rows.float32(part).T)
            error = slope * rows.norms[part] + offset
            found.append(nearest(scores.reshape(len(several), k, -1), error))
            if not rows.held:
                mx.eval(*found[-1])
        labels, doubtful = (list(each) for each in zip(*found, strict=True))
        return mx.concatenate(labels, axis=1), mx.concatenate(doubtful, axis=1)


class MlxClusters:
    """Labels on the device, and their sums, of one restart: `Clusters`."""

    def __init__(self, rows: DeviceRows, k: int) -> None:
        self.rows, self.points, self.k = rows, rows.points, k
        self.changed, self.rechecked = 0, 0
        with mx.stream(rows.device.mlx):
            self.labels = mx.full((self.points.n,), -1, dtype=mx.int32)
        # How many rows are expected to be in doubt, and to change cluster.
        self._doubts, self._changes = FEWEST, self.points.n
        self._sums = np.zeros((rows.row_slices.width, k, self.points.d), dtype=np.int64)
        self._counts = np.zeros((rows.weight_slices.width, k), dtype=np.int64)

    def begin(self, labels: Any) -> None:
        """Take clusters that seeding found."""
        with mx.stream(self.rows.device.mlx):
            self.take_all(labels, 0)
        self.add_up()

    def take_all(self, labels: Any, rechecked: int) -> None:
        """Take labels of all rows, so many of which float64 decided."""
        new, self._changes = mx.array(labels), self.points.n
        changed, *gained = fetch(mx.sum(new != self.labels), *self._gained(new), keep=[new])
        self._add(*gained)
        self.labels, self.changed, self.rechecked = new, int(changed), rechecked

    def add_up(self) -> None:
        """Make `sums` and `counts` of all ranks."""
        group, rows = self.points.group, self.rows
        sums, counts = self._sums, self._counts
        if group.size > 1:
            sums, counts = group.sum(sums), group.sum(counts)
        self.sums: Float64 = rows.row_slices.value(sums)
        self.counts: Float64 = rows.weight_slices.value(counts)

    def found(self, labels: mx.array, doubtful: mx.array) -> tuple[mx.array, list[mx.array]]:
        """New labels, and of these what `take` wants to know; rows in doubt stay where they are."""
        new = mx.where(doubtful, self.labels, labels)
        changed = mx.sum(new != self.labels)
        doubts = compact(doubtful, self._doubts)
        own = self.labels[mx.minimum(doubts, self.points.n - 1)]
        return new, [changed, mx.sum(doubtful), doubts, own, *self._gained(new)]

    def take(self, centers: Centers, new: mx.array, found: Sequence[Any]) -> bool:
        """Take what was found, unless a buffer was too small for it: then make it larger."""
        (changed, doubts), (rows, before, *gained) = map(int, found[:2]), found[2:]
        fits = doubts <= self._doubts and (changed <= self._buffer() or self._sums_all())
        self._doubts, self._changes = larger(doubts), larger(changed)
        if not fits:
            return False
        self._add(*gained)
        rows, before = rows[:doubts], before[:doubts]
        after = centers.nearest(rows)
        wrong = np.flatnonzero(after != before)
        if len(wrong) > 0:
            self._move(rows[wrong], before[wrong], after[wrong])
            change = mx.array(after[wrong] - before[wrong])
            new = new.at[mx.array(rows[wrong])].add(change)
        self.labels, self.changed, self.rechecked = new, changed + len(wrong), doubts
        return True

    def _sums_all(self) -> bool:
        """Whether all rows are summed, rather than those that changed cluster."""
        return not self.rows.held or self._changes > FEW * self.points.n

    def _buffer(self) -> int:
        """How many rows that changed cluster are summed."""
        return min(self._changes, self.points.n)

    def _gained(self, new: mx.array) -> list[mx.array]:
        """What sums and counts gain by new labels, as sums of slices."""
        rows, old, n = self.rows, self.labels, self.points.n
        if not self._sums_all():
            moved = compact(new != old, self._buffer())
            place = mx.minimum(moved, n - 1)
            matrix = membership(new[place], old[place], self.k) * (moved < n)
            return self._summed(matrix, place)
        total: list[mx.array] = []
        for part in rows.blocks(4 * self.points.d):
            some = self._summed(membership(new[part], old[part], self.k), part)
            total = [a + b for a, b in zip(total, some, strict=True)] if total else some
            if not rows.held:
                mx.eval(*total)
        return total

    def _summed(self, matrix: mx.array, index: slice | mx.array) -> list[mx.array]:
        """Sums and counts of some rows, as sums of slices."""
        rows, device = self.rows, self.rows.device
        sums = sums_by(matrix, rows.summed(index), rows.row_slices.rows, device)
        weights = rows.weights(index)
        if weights is None:
            return [sums, mx.sum(matrix.astype(mx.int32), axis=1)[None]]
        columns = [each[:, None] for each in weights]
        return [sums, sums_by(matrix, columns, rows.weight_slices.rows, device)[..., 0]]

    def _add(self, sums: Any, counts: Any) -> None:
        self._sums += self.rows.row_slices.joined(sums)
        self._counts += self.rows.weight_slices.joined(counts.astype(np.int64))

    def _move(self, rows: Index, before: Labels, after: Labels) -> None:
        """Sum a few rows anew that the host has given to another cluster."""
        for sums, found in zip((self._sums, self._counts), self.rows.whole(rows), strict=True):
            for total, each in zip(sums, found, strict=True):
                for values, source, target in zip(each, before, after, strict=True):
                    total[target] += values
                    if source >= 0:
                        total[source] -= values
