"""E-step: the nearest centre of every row, as float64 arithmetic decides it."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.distances import Codebook, decide
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Labels, Points

# Bytes of float32 rows that a core works on at once: with their scores they stay in its cache.
BLOCK = 1 << 20
# With fewer centres than this, comparing a row with its own costs no less than with all.
FEW = 48


class Assignment(Protocol):
    """An E-step: called with centres, it returns the nearest one of every row."""

    rechecked: int

    def __call__(self, codebook: Codebook) -> Labels:
        """Labels ``(n,)``, int32; of equally near centres the first."""


def make_assignment(points: Points, k: int, algorithm: str) -> Assignment:
    """E-step for `algorithm` "lloyd", "elkan" or "auto".

    Bounds pay where comparing costs more than looking up, and are kept on the host: "auto" takes
    them on the CPU. Those of each row and centre are kept as far as memory goes.
    """
    if k == 1 or algorithm == "lloyd" or points.device.kind != "cpu":
        return FullAssignment(points)
    return BoundedAssignment(points, k, each=4 * points.n * k <= points.spare)


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
            host = BoundedAssignment(points, codebook.k, each=False)
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

    Keeps for each row an upper bound of the distance to its own centre, and lower bounds of the
    distances to the others: to each (C. Elkan, *Using the triangle inequality to accelerate
    k-means*, ICML 2003) and to the nearest (G. Hamerly, *Making k-means even faster*, SDM 2010),
    which spares most rows the look at each. Bounds are stored relative to the summed drift of the
    centres, so a step writes only those that it renews. Rounding is added to upper and taken from
    lower bounds: they stay bounds.

    Works on the host, in blocks of rows that stay in a core's cache.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        Number of centres.
    each : bool, default=True
        Whether to keep the bounds to each centre, of which there are ``n * k``.
    """

    def __init__(self, points: Points, k: int, each: bool = True) -> None:
        self.points = points
        self.k = k
        self.rechecked = 0
        self.compared = 0
        self._labels = np.zeros(points.n, dtype=np.int32)
        self._norms_sq = points.norms_sq.astype(np.float32)
        self._upper, self._nearest_other = np.empty((2, points.n), dtype=np.float32)
        self._lower = np.empty((points.n, k), dtype=np.float32) if each else None
        self._drift = np.zeros(k)
        self._largest_drift = 0.0
        self._previous: Float64 | None = None

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

        def advance(part: slice) -> Index:
            rows = np.arange(part.start, part.stop)
            return self._compare(step, rows if first else self._open(step, rows))

        doubts = np.concatenate(points.device.map(advance, points.device_parts(self.k)))
        self._labels[doubts] = decide(codebook, doubts)
        # Bounds of a row in doubt may be those of another centre: compare it again next time.
        self._nearest_other[doubts] = 0
        if self._lower is not None:
            self._lower[doubts] = 0
        self.rechecked += len(doubts)
        return self._labels.copy()

    def _open(self, step: _Step, rows: Index) -> Index:
        """Those rows whose bounds overlap now that the centres moved."""
        reach = self._upper[rows] + step.drift[self._labels[rows]] + step.slack
        nearest = self._nearest_other[rows] - step.largest_drift
        open_ = nearest <= reach
        rows, reach, nearest = rows[open_], reach[open_], nearest[open_]
        if self._lower is not None:
            for part in self._blocks(len(rows)):
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
        for part in self._blocks(len(rows)):
            block, norms_sq = self.points.float32(rows[part]), self._norms_sq[rows[part]]
            upper[part] = step.distances_to_own(block, own[part], norms_sq)
        self._upper[rows] = upper - step.drift[own]
        return rows[nearest <= upper + step.slack]

    def _compare(self, step: _Step, rows: Index) -> Index:
        """Compare rows with all centres and renew their bounds; return those in doubt."""
        norms_sq, label = self._norms_sq[rows], np.empty(len(rows), dtype=np.intp)
        error = step.error(norms_sq)
        best, second = np.empty((2, len(rows)), dtype=np.float32)
        for part in self._blocks(len(rows)):
            scores = self.points.float32(rows[part]) @ step.factor.T
            scores += step.constant
            every = np.arange(len(scores))
            scores.argmin(axis=1, out=label[part])
            best[part] = scores[every, label[part]]
            scores[every, label[part]] = np.inf
            scores.min(axis=1, out=second[part])
            if self._lower is not None:
                lower = step.lower(scores, norms_sq[part, None], error[part, None])
                lower += step.drift
                self._lower[rows[part]] = lower
        self.compared += len(rows)
        doubtful = second <= best + 2 * error
        self._labels[rows] = label
        self._upper[rows] = step.upper(best, norms_sq, error) - step.drift[label]
        self._nearest_other[rows] = step.lower(second, norms_sq, error) + step.largest_drift
        return rows[doubtful]

    def _blocks(self, n: int) -> list[slice]:
        """Slices of `n` rows whose float32 copies and products stay in cache."""
        size = max(1, BLOCK // (4 * max(self.points.d, self.k)))
        return [slice(start, start + size) for start in range(0, n, size)]


class _Step:
    """The centres of one step, and what turns scores into bounds of distances."""

    def __init__(
        self, codebook: Codebook, drift: Float64, largest_drift: float, points: Points
    ) -> None:
        self.factor, self.constant = codebook.factor, codebook.constant
        self.drift = drift.astype(np.float32)
        self.largest_drift = np.float32(largest_drift)
        self._slope, self._constant = (np.float32(x) for x in codebook.tolerance)
        self._largest = np.float32(codebook.largest_norm)
        # Bounds and drifts are sums of numbers below this, each rounded a few times.
        largest = np.sqrt(points.norms_sq.max()) + codebook.largest_norm + largest_drift
        self.slack = np.float32(16 * FLOAT32_ROUNDOFF * largest)

    def distances_to_own(self, rows: Float32, own: Index, norms_sq: Float32) -> Float32:
        """Upper bounds of the distances of rows to one centre each."""
        scores = np.vecdot(rows, np.take(self.factor, own, axis=0)) + self.constant[own]
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
