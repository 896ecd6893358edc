"""Greedy k-means++ on the device, a step of several restarts at a time.

Squared distances are whole numbers there, so potentials and running sums are exact in int64. Rows
of small whole numbers have exact products: a step compares all rows with all candidates. Of others
only those rows are measured that a candidate may come closer to, to some 2^-48 of the largest; how
much a draw or a choice can be off is bounded, and where that matters the host seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.engine.centers import tolerance
from mnist_kmeans_mlx.engine.exact import EXACT_FLOAT64
from mnist_kmeans_mlx.engine.frame import EXACT_FLOAT32
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.rows import DeviceRows
from mnist_kmeans_mlx.engine.mlx.step import compact
from mnist_kmeans_mlx.engine.points import GRID, Float64, Index
from mnist_kmeans_mlx.engine.seeding.sampling import Source, first_row

# Numbers whose running sum is made anew where a draw falls among them.
RUN = 1024
# Fewest features of two rows whose products are to be summed at a time.
FEWEST_FEATURES = 32
# Bits of a sum of squares in int64, and of a sum of these over all rows.
SQUARES, SUMS = 61, 62


class UndecidedError(Exception):
    """A draw or a choice depends on digits that the device does not know."""


def plus_plus(
    rows: DeviceRows, k: int, sources: Sequence[Source], trials: int
) -> list[tuple[Index, mx.array]]:
    """Seeds from each of several sources of draws.

    Parameters
    ----------
    rows : DeviceRows
        Held, without weights, of one rank.
    k : int
        How many to choose.
    sources : sequence of numpy.random.RandomState
        Sources of the draws.
    trials : int
        Candidates per step.

    Returns
    -------
    list of (ndarray of int, shape (k,), mx.array of shape (n,), int32)
        For each source the numbers of the chosen rows, and which is nearest to each row.

    Raises
    ------
    UndecidedError
        The host has to seed. The sources have been drawn from.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    points = rows.points
    first = np.concatenate([first_row(points, source) for source in sources])
    if Products.are_exact(rows):
        return Products(rows).seed(k, first, sources, trials)
    found = []
    for row, source in zip(first, sources, strict=True):
        found.append(Differences(rows).seed(k, int(row), source, trials))
    return found


class Products:
    """Seeds of rows of small whole numbers, all restarts side by side: one product a step."""

    @staticmethod
    def are_exact(rows: DeviceRows) -> bool:
        """Whether float32 makes products of these rows without rounding."""
        points = rows.points
        limit = max(1.0, points.limit)
        reach = 4.0 * points.d * limit**2 * points.total
        kept = rows.device.rounding.factors == 0 or limit <= 256
        small = limit**2 * FEWEST_FEATURES <= EXACT_FLOAT32 and reach <= EXACT_FLOAT64
        return points.integer and kept and small

    def __init__(self, rows: DeviceRows) -> None:
        self.rows, points = rows, rows.points
        # How many features of two rows are multiplied and summed exactly.
        width = int(EXACT_FLOAT32 // max(1.0, points.limit**2))
        self._features = slices(points.d, width)
        self._dtype = mx.int32 if 4 * points.d * points.limit**2 < 2**31 else mx.int64
        self._squares = mx.concatenate(
            [self._square(rows.float32(part)) for part in rows.blocks(points.d)]
        )

    def seed(
        self, k: int, first: Index, sources: Sequence[Source], trials: int
    ) -> list[tuple[Index, mx.array]]:
        """Choose rows, from those to begin with ``(r,)``."""
        n = self.rows.points.n
        chosen = [first]
        closest = self._distances(mx.array(first.astype(np.int32)))
        labels = mx.zeros((len(first), n), dtype=mx.int32)
        (potential,) = fetch(_totals(closest), keep=[closest])
        for step in range(1, k):
            draws = np.stack([source.uniform(size=trials) for source in sources])
            found = [
                drawn(own, np.ceil(draw * total))[0]
                for own, draw, total in zip(closest, draws, potential, strict=True)
            ]
            candidates = mx.stack(found)
            distances = self._distances(candidates.reshape(-1)).reshape(len(first), trials, n)
            left = mx.minimum(distances, closest[:, None])
            index, potentials = fetch(candidates, _totals(left), keep=[left])
            best = potentials.argmin(axis=1)
            chosen.append(index[np.arange(len(best)), best])
            potential = potentials.min(axis=1)
            after = mx.stack([own[int(number)] for own, number in zip(left, best, strict=True)])
            labels = mx.where(after < closest, step, labels)
            closest = after
        mx.eval(labels)
        return list(zip(np.stack(chosen, axis=1).astype(np.intp), labels, strict=True))

    def _square(self, block: mx.array) -> mx.array:
        """Squared norms of rows."""
        return mx.sum(mx.square(block.astype(self._dtype)), axis=1)

    def _distances(self, index: mx.array) -> mx.array:
        """Squared distances ``(c, n)`` of all rows to some of them."""
        rows = self.rows
        candidates, own = rows.float32(index), self._squares[index][:, None]
        found = []
        for part in rows.blocks(4 * max(len(index), rows.points.d)):
            block, products = rows.float32(part), mx.zeros((), dtype=self._dtype)
            for some in self._features:
                product = rows.device.matmul(candidates[:, some], block[:, some].T)
                products = products + product.astype(self._dtype)
            found.append(own + self._squares[part] - 2 * products)
        return mx.concatenate(found, axis=1)


class Differences:
    """Seeds of any rows: of those that a candidate may come closer to, differences are squared.

    Rows are whole numbers, of fractions in units of 2^-48. Their differences are cut in two, so
    that sums of squares and of products fit into int64.
    """

    def __init__(self, rows: DeviceRows) -> None:
        self.rows, points = rows, rows.points
        self._unit = 0 if points.integer else -GRID
        # No two rows are further from one another than twice the largest norm.
        reach = 4.0 * float(fetch(mx.square(mx.max(rows.norms)))[0]) * 2.0 ** (-2 * self._unit)
        digits = int(np.frexp(reach)[1])
        self._shift = max(0, -(-(digits - SQUARES) // 2))
        digits -= 2 * self._shift
        self._dropped = max(0, digits + points.n.bit_length() - SUMS)
        #: What one unit of a distance is, in the frame of the rows.
        self.value = float(2.0 ** (2 * (self._unit + self._shift) + self._dropped))
        self._exact = self._shift == self._dropped == 0 and reach * points.n <= EXACT_FLOAT64
        slope, constant = tolerance(rows.device.rounding, points.d, 1.0)
        # Squares of norms, which are rounded up, stand for squared norms.
        self._slope, self._constant = slope, constant + 1e-5

    def seed(self, k: int, first: int, source: Source, trials: int) -> tuple[Index, mx.array]:
        """Choose rows, from one to begin with."""
        n = self.rows.points.n
        chosen = [first]
        closest = self._from_first(first)
        labels = mx.zeros((n,), dtype=mx.int32)
        potential = int(fetch(_totals(closest), keep=[closest])[0])
        for step in range(1, k):
            draws = source.uniform(size=trials) * potential
            candidates, *sums = drawn(closest, np.ceil(draws))
            near = self._near(candidates, closest)
            index, before, after, counts = fetch(
                candidates, *sums, mx.sum(near, axis=1), keep=[near]
            )
            slack = self._slack(potential)
            if slack and ((draws - before < slack) | (after - draws < slack)).any():
                raise UndecidedError
            measured = [
                self._measured(candidate, close, max(1, int(count)), closest)
                for candidate, close, count in zip(candidates, near, counts, strict=True)
            ]
            gains = fetch(*(mx.sum(closest - left) for left in measured), keep=measured)
            left = potential - np.array(gains)
            best = int(left.argmin())
            rivals = index[left <= left[best] + 2 * slack]
            if slack and not self._are_equal(rivals):
                raise UndecidedError
            chosen.append(int(index[best]))
            potential = int(left[best])
            labels = mx.where(measured[best] < closest, step, labels)
            closest = measured[best]
        mx.eval(labels)
        return np.array(chosen, dtype=np.intp), labels

    def _slack(self, potential: int) -> float:
        """How far a running sum of distances can be from what the host makes it, in units."""
        if self._exact:
            return 0.0
        points, total = self.rows.points, potential * self.value
        # Rows are rounded to the grid, their differences once more where they are cut; what is
        # dropped of a distance; and float64 rounds on the host.
        grid = 2.0 ** (3 - GRID) * np.sqrt(points.d * points.n * total)
        return float((grid + 2.0**-46 * total) / self.value + points.n * (points.d + 2))

    def _are_equal(self, index: Index) -> bool:
        """Whether rows are the same: then the host finds the same distances."""
        rows = self.rows.points.raw(np.unique(index))
        return bool((rows == rows[0]).all())

    def _near(self, index: mx.array, closest: mx.array) -> mx.array:
        """Which rows ``(t, n)`` each candidate may come closer to than those chosen so far."""
        rows, candidates = self.rows, self.rows.float32(index)
        own = mx.square(rows.norms[index])[:, None]
        longest, found = mx.sqrt(mx.max(own)), []
        for part in rows.blocks(4 * len(index)):
            norms = rows.norms[part]
            scores = own - 2 * rows.device.matmul(candidates, rows.float32(part).T)
            reach = closest[part].astype(mx.float32) * self.value
            error = self._slope * longest * norms + self._constant * mx.square(longest + norms)
            found.append(scores + mx.square(norms) <= reach * (1 + 1e-6) + error)
        return mx.concatenate(found, axis=1)

    def _from_first(self, first: int) -> mx.array:
        """Squared distances ``(n,)`` of all rows to the first."""
        rows, d = self.rows, self.rows.points.d
        center = self._whole(mx.array([first]))
        parts = rows.blocks(16 * d)
        return mx.concatenate([self._squared(self._whole(part) - center) for part in parts])

    def _measured(
        self, candidate: mx.array, near: mx.array, size: int, closest: mx.array
    ) -> mx.array:
        """Squared distances with one candidate as well, which only near rows can come closer to."""
        n = len(closest)
        size, center = min(size, n), self._whole(candidate[None])
        index = mx.minimum(compact(near, size), n - 1)
        step = max(1, self.rows.device.chunk_bytes // (64 * self.rows.points.d))
        found = mx.concatenate(
            [self._squared(self._whole(index[part]) - center) for part in slices(size, step)]
        )
        place = mx.minimum(mx.cumsum(near.astype(mx.int32)) - 1, size - 1)
        return mx.where(near, mx.minimum(closest, found[mx.maximum(place, 0)]), closest)

    def _whole(self, index: slice | mx.array) -> mx.array:
        """Rows as whole numbers."""
        parts = [part * 2.0**-self._unit for part in self.rows.parts(index)]
        return sum((part.astype(mx.int64) for part in parts[1:]), parts[0].astype(mx.int64))

    def _squared(self, difference: mx.array) -> mx.array:
        """Sums of squares of whole numbers, in units of `value`."""
        if self._shift == 0:
            total = mx.sum(mx.square(difference), axis=1)
        else:
            high = difference >> self._shift
            low = difference - (high << self._shift)
            total = mx.sum(mx.square(high), axis=1)
            total = total + (mx.sum(high * low, axis=1) >> (self._shift - 1))
        return total >> self._dropped


def drawn(closest: mx.array, thresholds: Float64) -> tuple[mx.array, mx.array, mx.array]:
    """Numbers of the rows at which the running sum of distances reaches each threshold.

    Returns with the sums before and after these rows.
    """
    n, aims = len(closest), mx.array(thresholds.astype(np.int64))[:, None]
    numbers = mx.pad(closest.astype(mx.int64), [(0, -n % RUN)]).reshape(-1, RUN)
    ends = mx.cumsum(mx.sum(numbers, axis=1))
    run = mx.minimum(mx.sum(ends < aims, axis=1), len(ends) - 1)
    before = mx.where(run > 0, ends[mx.maximum(run - 1, 0)], 0)[:, None]
    sums = mx.cumsum(numbers[run], axis=1) + before
    below = sums < aims
    index = mx.minimum(run * RUN + mx.sum(below, axis=1), n - 1)
    low = mx.max(mx.where(below, sums, before), axis=1)
    high = mx.min(mx.where(below, ends[-1], sums), axis=1)
    return index, low, high


def _totals(distances: mx.array) -> mx.array:
    """Sums along the last axis."""
    return mx.sum(distances.astype(mx.int64), axis=-1)
