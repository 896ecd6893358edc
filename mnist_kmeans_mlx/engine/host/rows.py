"""Rows as the host's way has them: in float32 and with their norms, and a sketch where one pays."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from mnist_kmeans_mlx.device import dots, product, slices
from mnist_kmeans_mlx.engine.differences import NARROW, to_each
from mnist_kmeans_mlx.engine.frame import EXACT_FLOAT32
from mnist_kmeans_mlx.engine.host.sketch import Sketch, TurningSketch
from mnist_kmeans_mlx.engine.host.strategy import Strategy, sketch_bytes, sketch_pays
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Points, length, taken
from mnist_kmeans_mlx.threads import scratch


class HostRows:
    """Moved and scaled rows in float32, kept or as quickly made again.

    Parameters
    ----------
    points : Points
        The rows.

    Attributes
    ----------
    norms_sq : ndarray of shape (n,), float64
        Squared norms of the moved and scaled rows.
    norm_sq : float
        Their weighted sum, of all ranks.
    mean_variance : float
        Mean over the features of the variance of the moved and scaled rows.
    products_are_exact : bool
        Whether products of rows are made in float32 without rounding.
    """

    def __init__(self, points: Points) -> None:
        self.points = points
        # How many features of two rows can be multiplied and summed exactly in float32.
        width = int(EXACT_FLOAT32 // max(1.0, points.limit**2)) if points.integer else 0
        self.products_are_exact = width >= 32
        self._exact_features = slices(points.d, max(1, width))
        self._convert()

    def _convert(self) -> None:
        """Make norms, variance and the float32 rows, unless these are as quickly made again."""
        points, self._kept = self.points, None
        if points.keep and not points.is_narrow:
            self._kept = np.empty((points.n, points.d), dtype=np.float32)

        def take(part: slice, block: Any) -> None:
            if self._kept is not None:
                self._kept[part] = block

        self.norms_sq: Float64
        if not self.products_are_exact:
            self.norms_sq, self.norm_sq, self.mean_variance = points.convert(take)
            return
        self.norms_sq = np.empty(points.n)

        def convert(part: slice) -> Float64:
            whole = points.narrow(part)
            take(part, whole)
            short = (whole[:, features] for features in self._exact_features)
            self.norms_sq[part] = sum(dots(some, some).astype(np.float64) for some in short)
            return whole.sum(axis=0, dtype=np.float64)

        column_sums = points.folded(convert, np.add)
        self.norm_sq, self.mean_variance = points.moments(column_sums, self.norms_sq)

    def float32(self, index: Index | slice) -> Float32:
        """Moved and scaled rows on the host, in float32."""
        if self._kept is None:
            return self.points.narrow(index)
        return np.asarray(taken(self._kept, index))

    def distances_sq_to(self, index: Index | slice, row: Float64) -> Float64:
        """Squared distances in float64 of chosen rows to one row, in the moved frame.

        Exact for whole numbers. Computed by the calling thread.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or slice
            The rows, of this rank's.
        row : ndarray of shape (d,), float64
            One of the rows of any rank, as given.
        """
        if not self.products_are_exact:
            return self.points.between(index, row)
        distances: Float64 = self.distances_sq_to_each(index, row[None])[0]
        return distances

    def distances_sq_to_each(self, index: Index | slice, rows: Float64) -> Float64:
        """Squared distances ``(c, m)`` of chosen rows to each of some rows, in one product.

        Exact. Only where `products_are_exact` or rows go `by_column`, of which they are squared
        differences in float64, as `Points.between` has them. Computed by the calling thread, for
        it to read before the next call.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or slice
            The rows, of this rank's; at least one.
        rows : ndarray of shape (c, d), float64
            Rows of any rank, as given.
        """
        points = self.points
        if self.by_column:
            return self._distances_sq_by_column(index, rows)
        block, centers = points.narrow(index), points.move_rows(rows).astype(np.float32)
        norms_sq, own = np.vecdot(centers, centers.astype(np.float64)), self.norms_sq[index]
        result = np.empty((len(centers), len(block)))
        result[:] = product(block, -2 * centers.T).T
        # No sum of some of the features' products exceeds the product of the norms.
        long = np.flatnonzero(norms_sq * own.max() > EXACT_FLOAT32**2)
        if len(long) > 0:
            result[long] = self._exact_products(block, -2 * centers[long].T).T
        result += norms_sq[:, None]
        result += own
        return result

    @cached_property
    def by_column(self) -> bool:
        """Whether there are so few features that a pass over each takes less than a product."""
        points = self.points
        return points.keep and points.d <= NARROW and 8 * points.n * points.d <= points.spare

    @cached_property
    def _columns(self) -> Float64:
        """Rows ``(d, n)`` as `_turned` has them."""
        points, columns = self.points, np.empty((self.points.d, self.points.n))

        def turn(part: slice) -> None:
            columns[:, part] = self._turned(points.raw(part))

        points.host.map(turn, points.host_parts())
        return columns

    def _turned(self, rows: Float64) -> Float64:
        """Rows as given as columns, scaled; moved only if whole: others would be rounded twice."""
        points = self.points
        return (points.move_rows(rows) if points.integer else rows * points.scale).T

    def columns(self, index: Index | slice) -> Float32:
        """Moved and scaled rows as columns ``(d + 1, m)`` with a one each, until the next call."""
        points = self.points
        columns = scratch("columns", (points.d + 1, length(index)), np.float32)
        origin = np.zeros(points.d) if points.integer else points.origin * points.scale
        for column, values, zero in zip(columns, self._columns, origin, strict=False):
            np.subtract(taken(values, index), zero, out=column, casting="same_kind")
        columns[-1] = 1
        return columns

    def _distances_sq_by_column(self, index: Index | slice, rows: Float64) -> Float64:
        columns, turned = self._columns[:, index], self._turned(rows)
        total = scratch("total", (len(rows), columns.shape[1]), np.float64)
        if not self.points.integer:
            return to_each(columns, turned.T, total)
        # Products of whole numbers are exact, in one step.
        product(-2 * turned.T, columns, out=total)
        total += np.square(turned).sum(axis=0)[:, None] + self.norms_sq[index]
        return total

    def _exact_products(self, a: Any, b: Any) -> Any:
        """Exact products of rows of whole numbers with a column, or with several."""
        parts = self._exact_features
        return sum(product(a[:, part], b[part]).astype(np.float64) for part in parts)

    @cached_property
    def largest_norm_sq(self) -> float:
        """Of this rank's moved and scaled rows."""
        return float(self.norms_sq.max(initial=0))

    def strategy(self, k: int) -> Strategy:
        """How to go about `k` centres."""
        points = self.points
        return Strategy.of(points.n, points.d, k, points.keep, points.spare)

    def sketch(self, k: int) -> Sketch | None:
        """Narrow copy of the rows, where one pays with `k` centres and may be kept."""
        fits = sketch_bytes(self.points.n, self.points.d) <= self.points.spare
        if not (self.points.keep and fits and sketch_pays(self.points.n, self.points.d, k)):
            return None
        return self._sketch

    @cached_property
    def _sketch(self) -> Sketch | None:
        return Sketch.make(self.float32, self.norms_sq, self.points.d, self.points.host)

    def turning_sketch(self, k: int, strategy: Strategy) -> TurningSketch | None:
        """Narrow copy of the rows on axes that turn to `k` centres, where one pays."""
        if not strategy.turning:
            return None
        base, host = self.turning_base(k, strategy), self.points.host
        return TurningSketch(self.float32, self.norms_sq, base, strategy.fixed, k, host)

    def turning_base(self, k: int, strategy: Strategy) -> Sketch | None:
        """What all such narrow copies take the axes from that do not turn, made only once."""
        return self.sketch(k) if strategy.fixed else None
