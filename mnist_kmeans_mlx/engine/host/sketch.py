"""Narrow copies of the rows that bound their distances from below and above.

Rows are projected onto a few axes. With ``p`` the places on these and ``r`` the norm of the rest,
``x.c`` lies within ``r_x r_c`` of ``p_x.p_c`` by the inequality of Cauchy and Schwarz. A product of
width m + 2 instead of d so bounds a distance from both sides, and most comparisons need no more:
rows ``(p, r, 1)`` times centres ``(-2 p, -2 r, |c|^2)`` are lower bounds of scores, and upper ones
are at most ``4 r_x r_c`` above. In float32 that holds up to the slope that `Axes.centers` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, Device, dots, product, slices
from mnist_kmeans_mlx.engine.host.strategy import FEWEST_ROWS, ITERATIONS, widths

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Share of the variance that the axes must capture: with less, few comparisons are decided.
WORTHWHILE = 0.9
# To project fewer centres takes no longer than to share them out.
FEWEST_CENTERS = 32
# Bytes of rows to project at once, and of how many features.
BLOCK = 4 << 20
SUMMED = 196

Index = npt.NDArray[np.intp]
Rows = Callable[[Any], Float32]


class Axes:
    """Orthonormal columns, as far as float32 goes.

    Parameters
    ----------
    columns : ndarray of shape (d, m), float32
    """

    def __init__(self, columns: Float32) -> None:
        self.columns = columns
        self.d, self.m = columns.shape
        wide = columns.astype(np.float64)
        self._wide = wide
        self._skew = 1.01 * float(np.linalg.norm(product(wide.T, wide) - np.eye(self.m)))
        # How far, relative to |x|, the computed places of a row are from the exact ones.
        self._error = 1.01 * np.sqrt(self.m) * (min(self.d, SUMMED) + 4) * FLOAT32_ROUNDOFF

    def places(self, block: Float32, first: int = 0) -> Float64:
        """Places ``(n, m - first)`` of rows on the axes from some axis on."""
        axes = np.ascontiguousarray(self.columns[:, first:])
        places = np.zeros((len(block), self.m - first))
        for start in range(0, self.d, SUMMED):
            # Short sums in float32, their sum in float64: a fraction of the error.
            features = slice(start, start + SUMMED)
            places += product(block[:, features], axes[features])
        return places

    def rest(self, outside_sq: Float64, norms_sq: Float64) -> Float64:
        """Upper bounds of the norms of rows outside the axes.

        Of their squared norms `norms_sq`, `outside_sq` is what their places do not account for.
        """
        slack = 2.1 * self._error + self._skew
        return np.sqrt(np.maximum(outside_sq, 0) + slack * norms_sq) * (1 + 1e-6)

    def centers(self, moved: Float64, norms_sq: Float64, host: Device) -> tuple[Float32, float]:
        """Sketched centres ``(m + 2, k)``, and the slope of the error of products with them.

        Rounding takes a product with a row no further than ``slope * |x|`` from the bound it
        stands for.
        """

        def project(part: slice) -> Float32:
            places: Float32 = product(moved[part], self._wide).astype(np.float32)
            return places

        parts = host.parts(len(moved), self.d, fewest=FEWEST_CENTERS)
        places = np.concatenate(host.map(project, parts))
        # Rounded only here, to float32.
        exact = 2 * FLOAT32_ROUNDOFF + self._skew
        outside = np.maximum(norms_sq - _norms_sq(places), 0)
        rest = np.sqrt(outside + 2.1 * exact * norms_sq) * (1 + 1e-6)
        # x.c = p_x.p_c + (x - A p_x).(c - A p_c) + (A'x - p_x).p_c + p_x.A'(c - A p_c)
        rounding = (self.m + 6) * FLOAT32_ROUNDOFF
        slope = 1.01 * 2 * (self._error + exact + rounding) * np.sqrt(norms_sq.max())
        factor = np.column_stack([-2 * places, -2 * rest, norms_sq]).astype(np.float32)
        return factor.T, float(slope)


class Sketch:
    """Rows on the axes of their largest variance, to be compared with a few centres at a time.

    Parameters
    ----------
    rows : callable
        Gives the float32 rows of a slice or an index.
    norms_sq : ndarray of shape (n,), float64
        Their squared norms.
    axes : Axes
    host : Device
        Whose threads share the work.

    Attributes
    ----------
    columns : ndarray of shape (m + 2, n), float32
        The sketched rows. A product with few centres is quicker with each axis in one piece.
    """

    def __init__(self, rows: Rows, norms_sq: Float64, axes: Axes, host: Device) -> None:
        self.axes = axes
        self.columns = np.ones((axes.m + 2, len(norms_sq)), dtype=np.float32)

        def project(part: slice) -> None:
            places = axes.places(rows(part))
            self.columns[: axes.m, part] = places.T
            outside = norms_sq[part] - _norms_sq(places)
            self.columns[axes.m, part] = axes.rest(outside, norms_sq[part])

        host.map(project, _parts(len(norms_sq), axes.d))

    @classmethod
    def make(cls, rows: Rows, norms_sq: Float64, d: int, host: Device) -> Sketch | None:
        """Sketch of the rows as narrow as the data allow, or None where none pays."""
        n, allowed = len(norms_sq), widths(d)
        if n < FEWEST_ROWS or not allowed:
            return None
        chosen = np.arange(0, n, -(-n // FEWEST_ROWS))
        sample = rows(chosen)
        axes = _leading_axes(sample, allowed[-1])
        spread = np.square(sample - sample.mean(axis=0)).sum(dtype=np.float64)
        inside = np.square(product(sample, axes)).sum(axis=0, dtype=np.float64)
        for m in allowed:
            if norms_sq[chosen].sum() - inside[:m].sum() <= (1 - WORTHWHILE) * spread:
                return cls(rows, norms_sq, Axes(axes[:, :m]), host)
        return None

    def lower_scores(self, factor: Float32, part: slice) -> Float32:
        """Lower bounds ``(k, n)`` of the scores of consecutive rows with a few sketched centres."""
        # OpenBLAS multiplies four centres as quickly as three.
        padded = np.zeros((-(-factor.shape[1] // 4) * 4, len(factor)), dtype=np.float32)
        padded[: factor.shape[1]] = factor.T
        scores: Float32 = product(padded, self.columns[:, part])[: factor.shape[1]]
        return scores

    def widths(self, factor: Float32, number: Index, rows: Index) -> Float32:
        """How far the scores of pairs of a sketched centre and a row can be above lower bounds."""
        return self.columns[self.axes.m].take(rows) * (-2 * factor[self.axes.m]).take(number)


class TurningSketch:
    """Rows on axes that are turned now and then so that they span the centres.

    Of centres that have moved little since, next to nothing is outside of the axes.

    Parameters
    ----------
    rows : callable
        Gives the float32 rows of a slice or an index.
    norms_sq : ndarray of shape (n,), float64
        Their squared norms.
    base : Sketch or None
        Where axes come from that do not turn.
    fixed : int
        How many of these, at most.
    k : int
        How many axes turn.
    host : Device
        Whose threads share the work.

    Attributes
    ----------
    rows : ndarray of shape (n, m + 2), float32
        The sketched rows.
    """

    def __init__(
        self,
        rows: Rows,
        norms_sq: Float64,
        base: Sketch | None,
        fixed: int,
        k: int,
        host: Device,
    ) -> None:
        self._source, self._norms_sq, self._base, self._host = rows, norms_sq, base, host
        self._fixed = np.zeros((rows(slice(0, 1)).shape[1], 0), dtype=np.float32)
        if base is not None:
            self._fixed = base.axes.columns[:, :fixed]
        self.rows = np.empty((len(norms_sq), self._fixed.shape[1] + k + 2), dtype=np.float32)
        # Squared norms of rows outside the axes that stay; None as long as these are not in `rows`.
        self._outside: Float64 | None = None

    def turn(self, moved: Float64) -> None:
        """Turn the axes so that centres lie within all axes together."""
        fixed, turned = self._fixed.astype(np.float64), moved.T
        for _ in range(2):
            # Twice is enough: B. Parlett, *The symmetric eigenvalue problem*, section 6.9.
            turned, _ = np.linalg.qr(turned - product(fixed, product(fixed.T, turned)))
        self.axes = axes = Axes(np.hstack([self._fixed, turned.astype(np.float32)]))
        outside = self._norms_sq.copy() if self._outside is None else self._outside
        first = fixed.shape[1]

        def project(part: slice) -> None:
            if self._outside is None:
                self.rows[part, -1] = 1
                if self._base is not None:
                    self.rows[part, :first] = self._base.columns[:first, part].T
                    outside[part] -= _norms_sq(self.rows[part, :first])
            places = axes.places(self._source(part), first)
            self.rows[part, first : axes.m] = places
            rest = axes.rest(outside[part] - _norms_sq(places), self._norms_sq[part])
            self.rows[part, axes.m] = rest

        self._host.map(project, _parts(len(self.rows), axes.d))
        self._outside = outside


def _leading_axes(sample: Float32, m: int) -> Float32:
    """Orthonormal columns close to the leading eigenvectors, by subspace iteration.

    Reference: G. Golub and C. Van Loan, *Matrix Computations*, 4th ed., section 8.2.4.
    """
    n, d = sample.shape
    if d <= n // 4:
        covariance = product(sample.T, sample)

    def stretched(axes: Float32) -> Float32:
        """The covariance times the axes; of wide rows it would be far larger than these."""
        if d <= n // 4:
            return product(covariance, axes)
        return product(sample.T, product(sample, axes))

    axes = np.random.default_rng(0).normal(size=(d, m)).astype(np.float32)
    for _ in range(ITERATIONS):
        axes, _ = np.linalg.qr(stretched(axes))
    # Within their span the eigenvectors, so that the first few columns are a narrower sketch.
    _, rotation = np.linalg.eigh(product(axes.T, stretched(axes)))
    # Once more in float64, so that rounded axes are orthonormal to float32.
    axes, _ = np.linalg.qr(product(axes, rotation[:, ::-1]).astype(np.float64))
    return axes.astype(np.float32)


def _norms_sq(rows: Float32 | Float64) -> Float64:
    """Squared norms, in float64."""
    return dots(rows, rows.astype(np.float64))


def _parts(n: int, d: int) -> list[slice]:
    """Slices of rows that are projected at once."""
    return slices(n, max(1, BLOCK // (4 * d)))
