"""E-step: the nearest centre of every row, as float64 arithmetic decides it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view, product, slices
from mnist_kmeans_mlx.engine.distances import Codebook, decide
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.sketch import TURNING_WIDTH, TurningSketch

# Bytes of float32 rows that a core works on at once: with their scores they stay in its cache.
BLOCK = 4 << 20
# With fewer centres than this, or in a sketch, a row is compared with its own no more quickly than
# with all.
FEW = 48
# With more, bounds to each are worth what it takes to keep them, even beside a sketch.
MANY = 128


class Assignment(Protocol):
    """An E-step: called with centres, it returns the nearest one of every row."""

    rechecked: int

    def __call__(self, codebook: Codebook) -> Labels:
        """Labels ``(n,)``, int32; of equally near centres the first."""


def make_assignment(points: Points, k: int, algorithm: str, settled: bool = False) -> Assignment:
    """E-step for `algorithm` "lloyd", "elkan" or "auto".

    Bounds pay where comparing costs more than looking up, and are kept on the host: "auto" takes
    them on the CPU. `settled` is whether the first centres to come are means.
    """
    if k == 1 or algorithm == "lloyd" or points.device.kind != "cpu":
        return FullAssignment(points)
    return BoundedAssignment(points, k, bounds_bytes(points, k) <= points.spare, settled)


def bounds_bytes(points: Points, k: int) -> int:
    """What a rich `BoundedAssignment` keeps of all rows."""
    return 4 * points.n * (k + max(k, TURNING_WIDTH))


class FullAssignment:
    """Compare every row with every centre.

    As MLX operations; on a CPU, where most of these use a single core and make passes over what
    they should keep in its cache, with NumPy as `BoundedAssignment` begins.
    """

    def __init__(self, points: Points) -> None:
        self.points = points
        self.rechecked = 0
        self._on_host = points.device.kind == "cpu" and points.device.input_roundoff == 0

    def __call__(self, codebook: Codebook) -> Labels:
        points = self.points
        if self._on_host:
            host = BoundedAssignment(points, codebook.k, rich=False)
            labels = host(codebook)
            self.rechecked += host.rechecked
            return labels
        labels = np.empty(points.n, dtype=np.int32)
        slope, constant = codebook.tolerance
        norms = points.norms

        def compare(part: slice) -> Index:
            scores = codebook.scores(points.block(part))
            reach = mx.min(scores, axis=1) + 2 * (slope * norms[part] + constant)
            label = mx.argmin(scores, axis=1)
            doubtful = mx.sum(scores <= reach[:, None], axis=1) > 1
            mx.eval(label, doubtful)
            labels[part] = host_view(label)
            return part.start + np.flatnonzero(host_view(doubtful))

        parts = points.device_parts(codebook.k)
        doubts = np.concatenate(points.device.map(compare, parts))
        labels[doubts] = decide(codebook, doubts)
        self.rechecked += len(doubts)
        return labels


class BoundedAssignment:
    """Compare only rows and centres that the triangle inequality leaves open.

    Keeps for each row an upper bound of the distance to its own centre, and a lower bound of that
    to the nearest other one (G. Hamerly, *Making k-means even faster*, SDM 2010). Bounds are stored
    relative to the summed drift of the centres, so a step writes only those that it renews.
    Rounding is added to upper and taken from lower bounds: they stay bounds.

    What is open is compared in a sketch of the rows first, where one pays. It spans the centres of
    one step, for which it is as good as the rows; the more centres move since, the more rows it
    leaves open, until as many were compared in full as it takes to turn it to where they are.

    Without a sketch, or with many centres, rows keep lower bounds of the distances to each of the
    others too (C. Elkan, *Using the triangle inequality to accelerate k-means*, ICML 2003).

    Works on the host, in blocks of rows that stay in a core's cache.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        Number of centres.
    rich : bool, default=True
        Whether there is memory for a sketch and for bounds to each centre.
    settled : bool, default=False
        Whether the first centres to come are means: where rows are drawn as centres, these say
        little of where means will be.
    """

    def __init__(self, points: Points, k: int, rich: bool = True, settled: bool = False) -> None:
        self.points = points
        self.k = k
        self.rechecked = 0
        self.compared = 0
        self._labels = np.zeros(points.n, dtype=np.int32)
        self._norms_sq = points.norms_sq.astype(np.float32)
        self._upper, self._nearest_other = np.empty((2, points.n), dtype=np.float32)
        self._sketch = points.turning_sketch(k) if rich else None
        each = rich and (self._sketch is None or k > MANY)
        self._lower = np.empty((points.n, k), dtype=np.float32) if each else None
        self._drift = np.zeros(k)
        self._largest_drift = 0.0
        self._previous: Float64 | None = None
        self._settled = settled
        # Rows that the sketch left open since its axes were turned.
        self._left_open = points.n

    def __call__(self, codebook: Codebook) -> Labels:
        points = self.points
        first = self._previous is None
        if self._previous is not None:
            moved = (codebook.centers - self._previous) * points.scale
            drift = np.sqrt(np.square(moved).sum(axis=1)) * (1 + 1e-6)
            self._drift += drift
            self._largest_drift += float(drift.max())
        self._previous = codebook.centers
        step = _Step(codebook, self._drift, self._largest_drift, points)
        whole, sketched = _look(codebook), None
        if self._sketch is not None and self._settled:
            if self._left_open >= points.n:
                codebook.turn(self._sketch)
                self._left_open = 0
            sketched = _sketched_look(codebook, self._sketch)

        def advance(part: slice) -> tuple[int, Index]:
            rows = np.arange(part.start, part.stop)
            if not first:
                rows = self._open(step, sketched or whole, part)
            if sketched is not None:
                rows = self._compare(step, sketched, rows)
            return len(rows), self._compare(step, whole, rows)

        self._settled = True
        # Scores are made block by block; of all rows of a part there are a few numbers each.
        found = points.device.map(advance, points.device_parts(16))
        left_open, doubts = sum(n for n, _ in found), np.concatenate([rows for _, rows in found])
        self._left_open += left_open
        self.compared += left_open
        self._labels[doubts] = decide(codebook, doubts)
        # Bounds of a row in doubt may be those of another centre: compare it again next time.
        self._nearest_other[doubts] = 0
        if self._lower is not None:
            self._lower[doubts] = 0
        self.rechecked += len(doubts)
        return self._labels.copy()

    def _open(self, step: _Step, look: _Look, part: slice) -> Index:
        """Those rows whose bounds overlap now that the centres moved."""
        reach = np.take(step.drift, self._labels[part])
        reach += self._upper[part]
        reach += step.slack
        nearest = self._nearest_other[part] - step.largest_drift
        open_ = np.flatnonzero(nearest <= reach)
        rows = part.start + open_
        if self._lower is None and (self.k < FEW or self._sketch is not None):
            return rows
        reach, nearest = reach[open_], nearest[open_]
        if self._lower is not None:
            for part in self._blocks(len(rows), self.k):
                lower = np.take(self._lower, rows[part], axis=0)
                lower -= step.drift
                lower.min(axis=1, out=nearest[part])
            self._nearest_other[rows] = nearest + step.largest_drift
            open_ = nearest <= reach
            rows, nearest = rows[open_], nearest[open_]
        if self.k < FEW:
            return rows
        own = self._labels[rows]
        upper = np.empty(len(rows), dtype=np.float32)
        for part in self._blocks(len(rows), look.factor.shape[0]):
            block, norms_sq = look.rows(rows[part]), self._norms_sq[rows[part]]
            upper[part] = look.distances_to_own(block, own[part], norms_sq)
        self._upper[rows] = upper - step.drift[own]
        return rows[nearest <= upper + step.slack]

    def _compare(self, step: _Step, look: _Look, rows: Index) -> Index:
        """Compare rows with all centres and renew their bounds; return those left open."""
        norms_sq, label = self._norms_sq[rows], self._labels[rows]
        error = look.error(norms_sq)
        best, second = np.empty((2, len(rows)), dtype=np.float32)
        for part in self._blocks(len(rows), look.factor.shape[0]):
            block = look.rows(rows[part])
            scores = look.scores(block)
            best[part], second[part] = _two_smallest(scores, label[part])
            if look.rest is not None:
                best[part] += look.width(block, label[part])
            if self._lower is not None:
                lower = look.lower(scores, norms_sq[part], error[part])
                lower += step.drift[:, None]
                self._lower[rows[part]] = lower.T
        open_ = second <= best + 2 * error
        self._labels[rows] = label
        self._upper[rows] = look.upper(best, norms_sq, error) - step.drift[label]
        self._nearest_other[rows] = look.lower(second, norms_sq, error) + step.largest_drift
        return rows[open_]

    def _blocks(self, n: int, width: int) -> list[slice]:
        """Slices of `n` rows of which float32 copies and products stay in cache."""
        size = max(1, BLOCK // (4 * max(width, self.k)))
        return slices(n, size)


def _two_smallest(scores: Float32, label: Labels) -> tuple[Float32, Float32]:
    """The smallest of each column, which becomes infinite, and the next.

    `label`, a guess that is right for most columns, becomes where the smallest is.
    """
    columns, best = np.arange(len(label)), scores.min(axis=0)
    wrong = np.flatnonzero(best < scores[label, columns])
    label[wrong] = np.take(scores, wrong, axis=1).argmin(axis=0)
    scores[label, columns] = np.inf
    return best, scores.min(axis=0)


class _Step:
    """How far the centres have come."""

    def __init__(
        self, codebook: Codebook, drift: Float64, largest_drift: float, points: Points
    ) -> None:
        self.drift = drift.astype(np.float32)
        self.largest_drift = np.float32(largest_drift)
        # Bounds and drifts are sums of numbers below this, each rounded a few times.
        largest = np.sqrt(points.largest_norm_sq) + codebook.largest_norm + largest_drift
        self.slack = np.float32(16 * FLOAT32_ROUNDOFF * largest)


class _Look:
    """Centres of one step as rows, or a sketch of them, are compared with, and what that tells.

    Parameters
    ----------
    rows : callable
        Gives what stands for rows of an index, shape ``(m, w)``.
    factor : ndarray of shape (w, k), float32
        What stands for the centres.
    constant : ndarray of shape (k,), float32, or None
        What products lack to be scores.
    rest : ndarray of shape (k,), float32, or None
        Where products are lower bounds of scores: what times the last but one column of a row is
        how far below they can be.
    tolerance : tuple of float
        Slope and constant of the rounding, as in `Codebook.tolerance`.
    largest_norm : float
        Of a centre.
    """

    def __init__(
        self,
        rows: Callable[[Index], Float32],
        factor: Float32,
        constant: Float32 | None,
        rest: Float32 | None,
        tolerance: tuple[float, float],
        largest_norm: float,
    ) -> None:
        self.rows, self.factor, self.constant, self.rest = rows, factor, constant, rest
        self._slope, self._constant = (np.float32(x) for x in tolerance)
        self._largest = np.float32(largest_norm)

    def scores(self, block: Float32) -> Float32:
        """Scores ``(k, m)`` of rows, or lower bounds of them."""
        # A row for each centre: to compare whole rows is several times as quick as to look along
        # columns.
        scores: Float32
        if self.factor.shape[1] < FEW:
            # To turn so narrow a product around takes less than AVX-512 kernels gain by it.
            scores = np.ascontiguousarray(product(block, self.factor).T)
        else:
            scores = product(self.factor.T, block.T)
        if self.constant is not None:
            scores += self.constant[:, None]
        return scores

    def width(self, block: Float32, label: Labels) -> Float32:
        """How far the scores of rows with one centre each can be above their lower bounds."""
        assert self.rest is not None
        return block[:, -2] * self.rest[label]

    def distances_to_own(self, rows: Float32, own: Labels, norms_sq: Float32) -> Float32:
        """Upper bounds of the distances of rows to one centre each."""
        scores = np.vecdot(rows, np.take(self.factor.T, own, axis=0))
        scores += self.width(rows, own) if self.constant is None else self.constant[own]
        return self.upper(scores, norms_sq, self.error(norms_sq))

    def error(self, norms_sq: Float32) -> Float32:
        """Bound of the error of a row's scores and of their sums with its squared norm."""
        norms = np.sqrt(norms_sq)
        rounding = 5 * np.float32(FLOAT32_ROUNDOFF) * np.square(norms + self._largest)
        return self._slope * norms + self._constant + rounding

    def upper(self, score: Float32, norms_sq: Float32, error: Float32) -> Float32:
        """Upper bound of a distance."""
        return np.sqrt(np.maximum(score + (norms_sq + error), 0))

    def lower(self, score: Float32, norms_sq: Float32, error: Float32) -> Float32:
        """Lower bound of a distance, which takes the place of the score."""
        score += norms_sq - error
        np.maximum(score, 0, out=score)
        return np.sqrt(score, out=score)


def _look(codebook: Codebook) -> _Look:
    factor, constant = codebook.factor.T, codebook.constant
    rows, norm = codebook.points.float32, codebook.largest_norm
    return _Look(rows, factor, constant, None, codebook.tolerance, norm)


def _sketched_look(codebook: Codebook, sketch: TurningSketch) -> _Look:
    sketched = codebook.sketched(sketch)

    def rows(index: Index) -> Float32:
        return np.take(sketch.rows, index, axis=0)

    factor, norm = sketched.factor, codebook.largest_norm
    return _Look(rows, factor, None, -2 * factor[-2], sketched.tolerance, norm)
