"""E-step on the host: only what bounds leave open is compared."""

from __future__ import annotations

from typing import NamedTuple, overload

import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, slices
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.host.bounds import LowerBounds
from mnist_kmeans_mlx.engine.host.comparison import (
    FEW,
    Comparison,
    Pairs,
    two_smallest,
    two_smallest_of_columns,
    two_smallest_of_pairs,
    two_smallest_with_own,
)
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Labels, length

# Bytes of float32 rows that a core works on at once: with their scores they stay in its cache.
BLOCK = 4 << 20
# If a row is open with more centres than this, one product with all is cheaper than single ones.
CROWD = 8
# To turn a sketch takes as long as to compare all rows so many times.
TURNED = 1.5
# If more than this share of a part of the rows is open, all of it is compared: no row is copied.
MOST = 3 / 4
# Range of the bounds in two bytes, in multiples of the root-mean-square norm of a row.
REACH = 4


class BoundedAssignment:
    """Compare only rows and centres that the triangle inequality leaves open.

    Keeps for each row an upper bound of the distance to its own centre, and a lower bound of that
    to the nearest other one (G. Hamerly, *Making k-means even faster*, SDM 2010). Bounds are stored
    relative to the summed drift of the centres, so a step writes only those that it renews.
    Rounding is added to upper and taken from lower bounds: they stay bounds.

    What is open is compared in a sketch of the rows first, where one pays. It spans the centres of
    one step, for which it is as good as the rows; the more centres move since, the more rows it
    leaves open to be compared in full. After as many as there are rows it is turned to where the
    centres are. Where it did not save what it took, it waits until they move half as far.

    Where a comparison is dear, rows keep lower bounds of the distances to each of the others too
    (C. Elkan, *Using the triangle inequality to accelerate k-means*, ICML 2003). What a sketch
    leaves open is then compared in full with no centres but those that it is open with.

    With neither, what is open is compared with those few centres first that moved farthest: how
    far the others came bounds how near they can be. (T. Kaukoranta, P. Fränti and O. Nevalainen,
    *A fast exact GLA based on code vector activity detection*, IEEE Trans. Image Processing 2000,
    compare only with centres that moved at all.)

    Works on the host, in blocks of rows that stay in a core's cache.

    Parameters
    ----------
    rows : HostRows
        The rows.
    k : int
        Number of centres.
    settled : bool, default=False
        Whether the first centres to come are means: where rows are drawn as centres, these say
        little of where means will be.
    """

    def __init__(self, rows: HostRows, k: int, settled: bool = False) -> None:
        self.rows, self.points = rows, rows.points
        points = rows.points
        self.k = k
        self.rechecked = 0
        self.compared = 0
        self._labels = np.zeros(points.n, dtype=np.int32)
        self._norms_sq = rows.norms_sq.astype(np.float32)
        self._upper, self._nearest_other = np.empty((2, points.n), dtype=np.float32)
        strategy = rows.strategy(k)
        self._sketch = rows.turning_sketch(k, strategy)
        self._lower = None
        if strategy.each:
            usual = np.sqrt(rows.norms_sq.sum() / max(1, points.n))
            self._lower = LowerBounds(points.n, k, REACH * usual)
        self._movers = strategy.movers
        self._drift = np.zeros(k)
        self._largest_drift = 0.0
        self._previous: Float64 | None = None
        self._settled = settled
        # Since the sketch was turned, rows that were looked up in it, and that it left open.
        self._looked, self._left_open = 0, points.n
        # How far a centre may move for a sketch to last.
        self._calm = np.inf

    def __call__(self, centers: Centers) -> Labels:
        points = self.points
        step, first = self._step(centers), self._previous is None
        self._previous = centers.centers
        whole, sketched = Comparison.whole(self.rows, centers), self._sketched(step, centers)
        movers = whole.of_some(step.movers) if self._movers else None

        def advance(part: slice) -> tuple[int, int, Index]:
            rows: Index | slice = part
            if not first:
                rows = self._open(step, sketched or whole, part)
                if movers is not None:
                    rows = self._compare_with_movers(step, whole, movers, rows)
                elif len(rows) > MOST * (part.stop - part.start):
                    rows = part
            looked = length(rows)
            if sketched is not None:
                pairs: list[Pairs] = []
                rows = self._compare(step, sketched, rows, pairs)
                if self._lower is not None:
                    doubts = self._compare_pairs(step, whole, rows, pairs)
                    return looked, len(rows), doubts
            return looked, length(rows), self._compare(step, whole, rows)

        self._settled = True
        # Scores are made block by block; of all rows of a part there are a few numbers each.
        found = points.host.map(advance, points.host.parts(points.n, 16))
        left_open = sum(left for _, left, _ in found)
        doubts = np.concatenate([rows for _, _, rows in found])
        if sketched is not None:
            self._looked += sum(looked for looked, _, _ in found)
            self._left_open += left_open
        self.compared += left_open
        self._labels[doubts] = centers.nearest(doubts)
        # Bounds of a row in doubt may be those of another centre: compare it again next time.
        self._nearest_other[doubts] = 0
        if self._lower is not None:
            self._lower.drop(doubts)
        self.rechecked = len(doubts)
        return self._labels.copy()

    def _sketched(self, step: _Step, centers: Centers) -> Comparison | None:
        """The centres in a sketch, turned to them if it left much open; None if it does not pay."""
        sketch, points = self._sketch, self.points
        if sketch is None or not self._settled or step.moved > self._calm:
            return None
        if self._left_open >= points.n:
            narrow = self._looked * sketch.rows.shape[1] / points.d
            if 0 < self._looked < TURNED * points.n + narrow + self._left_open:
                self._calm, self._looked = step.moved / 2, 0
                return None
            sketch.turn(centers.moved)
            self._left_open = self._looked = 0
        return Comparison.sketched(self.rows, centers, sketch)

    def expect(self, labels: Labels) -> None:
        """Take labels for what most rows will have."""
        self._labels[:] = labels

    def _step(self, centers: Centers) -> _Step:
        """How far centres have come now."""
        moved = np.zeros(self.k)
        if self._previous is not None:
            moved = np.square((centers.centers - self._previous) * self.points.scale).sum(axis=1)
            moved = np.sqrt(moved) * (1 + 1e-6)
        before = self._largest_drift
        self._drift += moved
        if self._lower is not None:
            self._lower.move(self._drift)
        self._largest_drift += float(moved.max())
        order = np.argsort(-moved)
        rest = before + moved[order[self._movers]]
        largest = np.sqrt(self.rows.largest_norm_sq) + centers.largest_norm + self._largest_drift
        return _Step(
            float(moved.max()),
            self._drift.astype(np.float32),
            np.float32(self._largest_drift),
            order[: self._movers],
            np.float32(rest),
            np.float32(16 * FLOAT32_ROUNDOFF * largest + 2 * self.points.residual),
            self._previous is None or self._lower is not None,
        )

    def _open(self, step: _Step, look: Comparison, part: slice) -> Index:
        """Those rows whose bounds overlap now that the centres moved."""
        reach = np.take(step.drift, self._labels[part])
        reach += self._upper[part]
        reach += step.slack
        nearest = self._nearest_other[part] - step.largest_drift
        open_ = np.flatnonzero(nearest <= reach)
        rows = part.start + open_
        if self._lower is None and (self.k < FEW or self._sketch is not None or self._movers):
            return rows
        reach, nearest = reach[open_], nearest[open_]
        if self._lower is not None:
            for part in _blocks(len(rows), self.k):
                nearest[part] = self._lower.nearest(rows[part])
            self._nearest_other[rows] = nearest + step.largest_drift
            open_ = nearest <= reach
            rows, nearest = rows[open_], nearest[open_]
        if self.k < FEW:
            return rows
        own = self._labels[rows]
        upper = np.empty(len(rows), dtype=np.float32)
        for part in _blocks(len(rows), look.factor.shape[0]):
            block, norms_sq = look.rows(rows[part]), self._norms_sq[rows[part]]
            scores = look.scores_with_own(block, own[part])
            upper[part] = look.upper(scores, norms_sq, look.error(norms_sq))
        self._upper[rows] = upper - step.drift[own]
        return rows[nearest <= upper + step.slack]

    def _compare_with_movers(
        self, step: _Step, look: Comparison, movers: Comparison, rows: Index
    ) -> Index:
        """Compare rows with their own centre and those that moved farthest, and renew bounds.

        Returns rows that may be nearer to another.
        """
        norms_sq, label = self._norms_sq[rows], self._labels[rows]
        error = look.error(norms_sq)
        best, second = np.empty((2, len(rows)), dtype=np.float32)
        place = np.full(self.k, -1)
        place[step.movers] = np.arange(len(step.movers))
        for part in _blocks(len(rows), look.factor.shape[0], len(step.movers)):
            block = look.rows(rows[part])
            own = look.scores_with_own(block, label[part])
            scores = movers.scores(block, by_row=False)
            mover = place[label[part]]
            moved = np.flatnonzero(mover >= 0)
            scores[mover[moved], moved] = np.inf
            closer, number, best[part], second[part] = two_smallest_with_own(own, scores)
            label[part.start + closer] = step.movers[number]
        upper = look.upper(best, norms_sq, error)
        others = self._nearest_other[rows] - step.rest_drift
        open_ = (second <= best + 2 * error) | (others <= upper + step.slack)
        nearest_other = np.minimum(look.lower(second, norms_sq, error), others)
        self._renew(step, rows, label, upper, nearest_other)
        return rows[open_]

    def _compare(
        self,
        step: _Step,
        look: Comparison,
        rows: Index | slice,
        pairs: list[Pairs] | None = None,
    ) -> Index:
        """Compare rows with all centres and renew their bounds; return those left open.

        What these are left open with is added to `pairs`, where bounds to each centre are kept.
        """
        norms_sq, label = self._norms_sq[rows], self._labels[rows]
        error = look.error(norms_sq)
        best, second = np.empty((2, len(label)), dtype=np.float32)
        for part in _blocks(len(label), *look.factor.shape):
            some = _some(rows, part)
            block = look.rows(some)
            by_row = step.by_row and not look.by_column
            scores = look.scores(block, by_row)
            if by_row:
                label[part], best[part], second[part] = two_smallest(scores)
            else:
                found = two_smallest_of_columns(scores, label[part])
                label[part], best[part], second[part] = found
            if look.rest is not None:
                best[part] += look.width(block, label[part])
            if self._lower is not None:
                if pairs is not None:
                    limit = best[part] + 2 * error[part]
                    left = np.flatnonzero(second[part] <= limit)
                    pairs.append(look.within(scores[left], limit[left], norms_sq[part][left]))
                lower = look.lower(scores, norms_sq[part, None], error[part, None])
                self._lower.keep(some, lower)
        open_ = second <= best + 2 * error
        upper = look.upper(best, norms_sq, error)
        nearest_other = look.lower(second, norms_sq, error)
        self._renew(step, rows, label, upper, nearest_other)
        return _some(rows, np.flatnonzero(open_))

    def _compare_pairs(
        self, step: _Step, look: Comparison, rows: Index, pairs: list[Pairs]
    ) -> Index:
        """Compare rows with their own centre and those that are open, and renew their bounds.

        Rows open with a crowd are compared with all. Returns rows left open.
        """
        assert self._lower is not None
        if len(rows) == 0:
            return rows
        lengths, centers, others = map(np.concatenate, zip(*pairs, strict=True))
        crowded = lengths > CROWD
        if crowded.any():
            doubts = self._compare(step, look, rows[crowded])
            some = ~crowded
            few = [(lengths[some], centers[np.repeat(some, lengths)], others[some])]
            return np.concatenate([doubts, self._compare_pairs(step, look, rows[some], few)])
        place = np.repeat(np.arange(len(rows)), lengths)
        norms_sq, label = self._norms_sq[rows], self._labels[rows]
        error = look.error(norms_sq)
        own, scores = (np.empty(len(x), dtype=np.float32) for x in (rows, centers))
        starts = np.searchsorted(place, np.arange(len(rows) + 1))
        for part in _blocks(len(rows), look.factor.shape[0]):
            block, beside = look.rows(rows[part]), slice(starts[part.start], starts[part.stop])
            own[part] = look.scores_with_own(block, label[part])
            block = np.take(block, place[beside] - part.start, axis=0)
            scores[beside] = look.scores_with_own(block, centers[beside])
        lower = look.lower(scores.copy(), norms_sq[place], error[place])
        self._lower.keep_some(rows[place], centers, lower)
        winner, nearest, following = two_smallest_of_pairs(scores, starts[:-1])
        best, second = np.minimum(own, nearest), np.maximum(own, nearest)
        closer = np.flatnonzero(nearest < own)
        second[closer] = np.minimum(own[closer], following[closer])
        before, label[closer] = label[closer], centers[winner[closer]]
        lower = look.lower(own[closer], norms_sq[closer], error[closer])
        self._lower.keep_some(rows[closer], before, lower)
        # A row's own centre is not one of the others, and as far as can be.
        self._lower.keep_some(rows[closer], label[closer], np.full_like(lower, np.inf))
        open_ = second <= best + 2 * error
        upper = look.upper(best, norms_sq, error)
        nearest_other = np.minimum(look.lower(second, norms_sq, error), others)
        self._renew(step, rows, label, upper, nearest_other)
        return rows[open_]

    def _renew(
        self,
        step: _Step,
        rows: Index | slice,
        label: Labels,
        upper: Float32,
        nearest_other: Float32,
    ) -> None:
        """Keep the centres that rows were found to be nearest to, and bounds as of this step."""
        self._labels[rows] = label
        self._upper[rows] = upper - step.drift[label]
        self._nearest_other[rows] = nearest_other + step.largest_drift


def _blocks(n: int, *widths: int) -> list[slice]:
    """Slices of `n` rows of which float32 numbers of these widths stay in cache."""
    return slices(n, max(1, BLOCK // (4 * max(widths))))


@overload
def _some(rows: Index | slice, part: Index) -> Index: ...
@overload
def _some(rows: Index | slice, part: slice) -> Index | slice: ...
def _some(rows: Index | slice, part: Index | slice) -> Index | slice:
    """Those of some rows that are at these places among them."""
    if not isinstance(rows, slice):
        return rows[part]
    if isinstance(part, slice):
        return slice(rows.start + part.start, rows.start + part.stop)
    return rows.start + part


class _Step(NamedTuple):
    """How far the centres have come.

    Attributes
    ----------
    moved : float
        How far the one that moved farthest did in this one.
    drift : ndarray of shape (k,), float32
        How far each did in all steps.
    largest_drift : float32
        The sum over all steps of the largest drift of each.
    movers : ndarray of int
        Those that moved farthest in this one, the farthest first.
    rest_drift : float32
        As `largest_drift`, if `movers` had not moved in this one.
    slack : float32
        Bounds and drifts are sums of numbers that are rounded a few times: at most how far off.
    by_row : bool
        Whether the scores of a row are to stand side by side.
    """

    moved: float
    drift: Float32
    largest_drift: np.float32
    movers: Index
    rest_drift: np.float32
    slack: np.float32
    by_row: bool
