"""E-step: the nearest centre of every row, as float64 arithmetic decides it."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.distances import Codebook, decide
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Points

# Bytes of float32 rows that a core works on at once: with their scores they stay in its cache.
BLOCK = 2 << 20


class Assignment(Protocol):
    """An E-step: called with centres, it returns the nearest one of every row."""

    rechecked: int

    def __call__(self, codebook: Codebook) -> Index:
        """Labels ``(n,)``; of equally near centres the first."""


def make_assignment(points: Points, k: int, algorithm: str) -> Assignment:
    """E-step for `algorithm` "lloyd", "elkan" or "auto".

    Bounds pay where comparing costs more than looking up, and are kept on the host: "auto" takes
    them on the CPU as long as they fit well into memory.
    """
    if k == 1 or algorithm == "lloyd" or points.device.kind != "cpu":
        return FullAssignment(points)
    if algorithm == "auto" and 4 * points.n * k > points.device.memory_bytes // 4:
        return FullAssignment(points)
    return BoundedAssignment(points, k)


class FullAssignment:
    """Compare every row with every centre."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.rechecked = 0

    def __call__(self, codebook: Codebook) -> Index:
        points = self.points
        labels = np.empty(points.n, dtype=np.intp)
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
        doubts = _joined(points.device.map(compare, parts))
        labels[doubts] = decide(codebook, doubts)
        self.rechecked += len(doubts)
        return labels


class BoundedAssignment:
    """Compare only rows and centres that the triangle inequality leaves open.

    Keeps for each row an upper bound of the distance to its own centre and a lower bound of the
    distance to every other one (Elkan, *Using the triangle inequality to accelerate k-means*, ICML
    2003). Bounds are stored relative to the summed drift of the centres, so a step reads them once
    and writes only those it renews. Rounding is added to upper and taken from lower bounds: they
    stay bounds.

    Works on the host, in blocks of rows that stay in a core's cache.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.points = points
        self.k = k
        self.rechecked = 0
        self.compared = 0
        self._labels = np.zeros(points.n, dtype=np.intp)
        self._norms_sq = points.norms_sq.astype(np.float32)
        self._upper = np.empty(points.n, dtype=np.float32)
        self._lower = np.empty((k, points.n), dtype=np.float32)
        self._drift = np.zeros(k)
        self._previous: Float64 | None = None

    def __call__(self, codebook: Codebook) -> Index:
        points = self.points
        first = self._previous is None
        if self._previous is not None:
            moved = (codebook.centers - self._previous) * points.scale
            self._drift += np.sqrt(np.square(moved).sum(axis=1)) * (1 + 1e-6)
        self._previous = codebook.centers
        step = _Step(codebook, self._drift.astype(np.float32), points)
        advance = self._compare_all if first else self._compare_open
        parts = points.device_parts(self.k)
        doubts = _joined(points.device.map(lambda part: advance(step, part), parts))
        self._labels[doubts] = decide(codebook, doubts)
        # Bounds of a row in doubt may be those of another centre: compare it again next time.
        self._lower[:, doubts] = 0
        self.rechecked += len(doubts)
        return self._labels.copy()

    def _compare_all(self, step: _Step, part: slice) -> Index:
        """Compare rows with all centres; return those in doubt."""
        blocks = self._blocks(np.arange(part.start, part.stop))
        return _joined([self._compare(step, rows, self.points.float32(rows)) for rows in blocks])

    def _compare_open(self, step: _Step, part: slice) -> Index:
        """Compare rows whose bounds overlap now that the centres moved; return those in doubt."""
        nearest_other = (self._lower[:, part] - step.drift[:, None]).min(axis=0)
        own = self._labels[part]
        reach = self._upper[part] + step.drift[own] + step.slack
        active = np.flatnonzero(nearest_other <= reach)
        doubts = []
        for rows in self._blocks(active):
            # First only the own centre: with its distance known, few rows stay open.
            block = self.points.float32(part.start + rows)
            upper = step.distances_to_own(block, own[rows], self._norms_sq[part][rows])
            self._upper[part][rows] = upper - step.drift[own[rows]]
            still = np.flatnonzero(nearest_other[rows] <= upper + step.slack)
            if len(still):
                doubts.append(self._compare(step, part.start + rows[still], block[still]))
        return _joined(doubts)

    def _blocks(self, rows: Index) -> list[Index]:
        """Rows whose float32 copies and products stay in cache."""
        size = max(1, BLOCK // (4 * max(self.points.d, self.k)))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _compare(self, step: _Step, rows: Index, block: Float32) -> Index:
        """Compare rows with all centres and renew their bounds; return those in doubt."""
        norms_sq = self._norms_sq[rows]
        error = step.error(norms_sq)
        # One centre per row: NumPy reduces along the long axis several times as fast.
        scores = np.ascontiguousarray((block @ step.factor.T).T)
        scores += step.constant[:, None]
        label, best = scores.argmin(axis=0), scores.min(axis=0)
        doubtful = np.count_nonzero(scores <= best + 2 * error, axis=0) > 1
        self.compared += len(rows)
        self._labels[rows] = label
        self._upper[rows] = step.upper(best, norms_sq, error) - step.drift[label]
        lower = step.lower(scores, norms_sq, error)
        lower += step.drift[:, None]
        lower[label, np.arange(len(rows))] = np.inf
        self._lower[:, rows] = lower
        return rows[doubtful]


class _Step:
    """The centres of one step, and what turns scores into bounds of distances."""

    def __init__(self, codebook: Codebook, drift: Float32, points: Points) -> None:
        self.factor, self.constant = codebook.factor, codebook.constant
        self.drift = drift
        self._slope, self._constant = (np.float32(x) for x in codebook.tolerance)
        self._largest = np.float32(codebook.largest_norm)
        # Bounds and drifts are sums of numbers below this, each rounded a few times.
        largest = np.sqrt(points.norms_sq.max()) + codebook.largest_norm + drift.max()
        self.slack = np.float32(16 * FLOAT32_ROUNDOFF * largest)

    def distances_to_own(self, rows: Float32, own: Index, norms_sq: Float32) -> Float32:
        """Upper bounds of the distances of rows to one centre each."""
        scores = np.vecdot(rows, self.factor[own]) + self.constant[own]
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
        """Lower bound of a distance."""
        bound = score + (norms_sq - error)
        np.maximum(bound, 0, out=bound)
        return np.sqrt(bound, out=bound)


def _joined(parts: list[Index]) -> Index:
    return np.concatenate(parts) if parts else np.empty(0, dtype=np.intp)
