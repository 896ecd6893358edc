"""E-step: the nearest centre of every row, as float64 arithmetic decides it."""

from __future__ import annotations

from typing import Protocol

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view
from mnist_kmeans_mlx.engine.distances import Codebook, decide
from mnist_kmeans_mlx.engine.points import Index, Points


class Assignment(Protocol):
    """An E-step: called with centres, it returns the nearest one of every row."""

    rechecked: int

    def __call__(self, codebook: Codebook) -> Index:
        """Labels ``(n,)``; of equally near centres the first."""


def make_assignment(points: Points, k: int, algorithm: str) -> Assignment:
    """E-step for `algorithm` "lloyd", "elkan" or "auto"."""
    if algorithm == "elkan" and k > 1:
        return BoundedAssignment(points, k)
    return FullAssignment(points)


class FullAssignment:
    """Compare every row with every centre."""

    def __init__(self, points: Points) -> None:
        self.points = points
        self.rechecked = 0

    def __call__(self, codebook: Codebook) -> Index:
        points = self.points
        slope, constant = codebook.tolerance
        found = []
        with mx.stream(points.device.mlx):
            for part in points.slices(codebook.k):
                scores = codebook.scores(points.block(part))
                best = mx.min(scores, axis=1)
                reach = best + 2 * (slope * points.norms[part.start : part.stop] + constant)
                doubtful = mx.sum(scores <= reach[:, None], axis=1) > 1
                found.append((mx.argmin(scores, axis=1), doubtful))
                # Start at once: scores of later blocks then find room in the memory of earlier.
                mx.async_eval(*found[-1])  # type: ignore[no-untyped-call]
            labels = np.concatenate([host_view(label) for label, _ in found]).astype(np.intp)
            index = np.flatnonzero(np.concatenate([host_view(doubt) for _, doubt in found]))
            if len(index):
                labels[index], _ = decide(codebook, index)
        self.rechecked += len(index)
        return labels


class BoundedAssignment:
    """Skip rows whose centre is the nearest by the triangle inequality.

    Keeps for each row an upper bound of the distance to its own centre and a lower bound of the
    distance to every other one (Elkan, *Using the triangle inequality to accelerate k-means*, ICML
    2003). Bounds are stored relative to the summed drift of the centres, so a step reads them once
    and writes only those of the rows that it compares again. Float32 rounding is added to the upper
    and taken from the lower bounds: they stay bounds.
    """

    def __init__(self, points: Points, k: int) -> None:
        self.points = points
        self.k = k
        self.rechecked = 0
        self.compared = 0
        self._previous: Codebook | None = None
        self._drift = np.zeros(k)
        self._largest_norm = float(np.sqrt(points.norms_sq.max()))
        self._labels = np.zeros(points.n, dtype=np.intp)

    def __call__(self, codebook: Codebook) -> Index:
        with mx.stream(self.points.device.mlx):
            if self._previous is None:
                self._lower = mx.zeros((self.points.n, self.k))
                self._upper = mx.zeros((self.points.n,))
                active = None
            else:
                active = self._active_rows(codebook)
            self._previous = codebook
            self._compare(codebook, active)
        return self._labels.copy()

    def _active_rows(self, codebook: Codebook) -> Index:
        """Rows whose bounds overlap now that the centres moved."""
        assert self._previous is not None
        moved = (codebook.centers - self._previous.centers) * self.points.scale
        self._drift += np.sqrt(np.einsum("ij,ij->i", moved, moved)) * (1 + 1e-6)
        drift = mx.array(self._drift.astype(np.float32))
        largest = self._largest_norm + codebook.largest_norm + float(self._drift.max())
        slack = 16 * FLOAT32_ROUNDOFF * largest
        own = mx.take(drift, mx.array(self._labels.astype(np.int32)))
        nearest_other = mx.min(self._lower - drift, axis=1)
        return np.flatnonzero(host_view(nearest_other <= self._upper + own + slack))

    def _compare(self, codebook: Codebook, active: Index | None) -> None:
        """Compare `active` rows (None: all) with all centres and renew their bounds."""
        points = self.points
        count = points.n if active is None else len(active)
        self.compared += count
        lower_target, upper_target = host_view(self._lower), host_view(self._upper)
        drift = mx.array(self._drift.astype(np.float32))
        slope, constant = codebook.tolerance
        doubts = []
        step = points.device_step(self.k)
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            rows = np.arange(part.start, part.stop) if active is None else active[part]
            block = points.block(part) if active is None else points.gather(rows)
            norms_sq = mx.array(points.norms_sq[rows].astype(np.float32))
            norms = mx.sqrt(norms_sq)
            scores = codebook.scores(block)
            label = mx.argmin(scores, axis=1)
            best = mx.min(scores, axis=1)
            error = slope * norms + constant
            doubtful = mx.sum(scores <= (best + 2 * error)[:, None], axis=1) > 1
            error = error + 4 * FLOAT32_ROUNDOFF * mx.square(norms + codebook.largest_norm)
            lower = mx.sqrt(mx.maximum(scores + (norms_sq - error)[:, None], 0)) + drift
            upper = mx.sqrt(mx.maximum(best + norms_sq + error, 0)) - mx.take(drift, label)
            lower = mx.where(mx.arange(self.k) == label[:, None], mx.inf, lower)
            mx.eval(label, doubtful, lower, upper)
            target = part if active is None else rows
            lower_target[target] = host_view(lower)
            upper_target[target] = host_view(upper)
            self._labels[target] = host_view(label)
            doubts.append(rows[host_view(doubtful)])
        index = np.concatenate(doubts) if doubts else np.empty(0, dtype=np.intp)
        if len(index):
            self._labels[index], _ = decide(codebook, index)
            # Bounds of a row in doubt are not worth keeping: compare it again next time.
            lower_target[index] = 0
        self.rechecked += len(index)
