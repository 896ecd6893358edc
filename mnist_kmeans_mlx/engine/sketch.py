"""A narrow copy of the rows that bounds their distances from below and above.

Rows are projected onto axes of large variance. With ``p`` the projection and ``r`` the norm of the
rest, ``x.c`` lies within ``r_x r_c`` of ``p_x.p_c`` by the inequality of Cauchy and Schwarz. A
product of width m + 2 instead of d so bounds a distance from both sides, and most comparisons need
no more. The bounds hold in exact arithmetic: `Sketch.slope` covers all rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, Device

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

WIDTHS = (32, 64, 128)
# Share of the variance that the axes must capture: with less, few comparisons are decided.
WORTHWHILE = 0.9
FEWEST_ROWS = 4096
# Width to which leading axes fill up those that turn.
TURNING_WIDTH = 96
# Bytes of rows to project at once, and of how many features.
BLOCK = 4 << 20
SUMMED = 196

Rows = Callable[[Any], Float32]


class Sketch:
    """Rows ``(p, r, 1)``, to be multiplied with centres ``(-2 p, -2 r, |c|^2)``.

    Parameters
    ----------
    rows : callable
        Gives the float32 rows of a slice or an index.
    norms_sq : ndarray of shape (n,), float64
        Their squared norms.
    axes : ndarray of shape (d, m), float32
        Orthonormal columns.
    device : Device
        Where to compute.
    turning : int, default=0
        How many further axes there are, for `turn` to choose.

    Attributes
    ----------
    rows : ndarray of shape (n, m + turning + 2), float32
        The sketched rows.
    """

    def __init__(
        self, rows: Rows, norms_sq: Float64, axes: Float32, device: Device, turning: int = 0
    ) -> None:
        d, self._fixed = axes.shape
        self.device = device
        self._source, self._norms_sq = rows, norms_sq
        self._axes = np.zeros((d, self._fixed + turning), dtype=np.float32)
        self._axes[:, : self._fixed] = axes
        self.rows = np.ones((len(norms_sq), self._axes.shape[1] + 2), dtype=np.float32)
        self._outside = norms_sq  # squared norms of what is outside of the axes that do not turn
        if self._fixed:
            self._outside = self._project(slice(0, self._fixed))

    def turning(self, most: int, k: int) -> Sketch:
        """The same, at `most` so wide, with room for `k` further axes."""
        m = min(most, self._fixed)
        sketch = Sketch(self._source, self._norms_sq, self._axes[:, :0], self.device, m + k)
        sketch._axes[:, :m], sketch.rows[:, :m] = self._axes[:, :m], self.rows[:, :m]
        sketch._fixed = m
        sketch._outside = self._norms_sq - _norms_sq(self.rows[:, :m].astype(np.float64))
        return sketch

    def turn(self, moved: Float64) -> None:
        """Choose the further axes so that centres lie within all axes together."""
        fixed = self._axes[:, : self._fixed].astype(np.float64)
        axes = moved.T
        for _ in range(2):
            # Twice is enough: B. Parlett, *The symmetric eigenvalue problem*, section 6.9.
            axes, _ = np.linalg.qr(axes - fixed @ (fixed.T @ axes))
        self._axes[:, self._fixed :] = axes
        self._project(slice(self._fixed, self._axes.shape[1]))

    def _project(self, columns: slice) -> Float64:
        """Find the rows' places on some axes; the squares of what is outside of all so far."""
        d, m = self._axes.shape
        width = columns.stop
        wide = self._axes[:, :width].astype(np.float64)
        self._skew = 1.01 * float(np.linalg.norm(wide.T @ wide - np.eye(width)))
        # How far, relative to |x|, the computed places on the axes are from the exact ones.
        self._error = 1.01 * np.sqrt(width) * (min(d, SUMMED) + 4) * FLOAT32_ROUNDOFF
        axes = np.ascontiguousarray(self._axes[:, columns])
        outside = np.empty(len(self.rows))

        def project(part: slice) -> None:
            block, places = self._source(part), np.zeros((part.stop - part.start, axes.shape[1]))
            for start in range(0, d, SUMMED):
                # Short sums in float32, their sum in float64: a fraction of the error.
                features = slice(start, start + SUMMED)
                places += block[:, features] @ axes[features]
            self.rows[part, columns] = places
            np.subtract(self._outside[part], _norms_sq(places), out=outside[part])
            self.rows[part, m] = self._rest(outside[part], self._norms_sq[part])

        n, step = len(self.rows), max(1, BLOCK // (4 * d))
        self.device.map(project, [slice(i, min(i + step, n)) for i in range(0, n, step)])
        return outside

    @classmethod
    def make(cls, rows: Rows, norms_sq: Float64, d: int, device: Device) -> Sketch | None:
        """Sketch of the rows as narrow as the data allow, or None where none pays."""
        n = len(norms_sq)
        widths = [m for m in WIDTHS if 2 * m <= d]
        if n < FEWEST_ROWS or not widths:
            return None
        chosen = np.arange(0, n, n // FEWEST_ROWS)
        sample = rows(chosen)
        axes = _leading_axes(sample.T @ sample, widths[-1])
        spread = np.square(sample - sample.mean(axis=0)).sum(dtype=np.float64)
        inside = np.square(sample @ axes).sum(axis=0, dtype=np.float64)
        for m in widths:
            if norms_sq[chosen].sum() - inside[:m].sum() <= (1 - WORTHWHILE) * spread:
                return cls(rows, norms_sq, axes[:, :m], device)
        return None

    @cached_property
    def array(self) -> mx.array:
        """`rows` on the device."""
        with mx.stream(self.device.mlx):
            array = mx.array(self.rows)
            mx.eval(array)
        return array

    def _rest(self, outside_sq: Float64, norms_sq: Float64) -> Float64:
        """Upper bounds of the norms outside the axes, and of what is rounded of them."""
        slack = 2.1 * self._error + self._skew
        return np.sqrt(np.maximum(outside_sq, 0) + slack * norms_sq) * (1 + 1e-6)

    def centers(self, moved: Float64, norms_sq: Float64) -> tuple[Float32, float]:
        """Sketched centres ``(m + 2, k)``, and the slope of the error of products with them.

        Rounding takes a product with a row no further than ``slope * |x|`` from the bound it
        stands for.
        """
        m = self._axes.shape[1]
        places = (moved @ self._axes.astype(np.float64)).astype(np.float32)
        # Rounded only here, to float32.
        exact = 2 * FLOAT32_ROUNDOFF + self._skew
        outside = np.maximum(norms_sq - _norms_sq(places.astype(np.float64)), 0)
        rest = np.sqrt(outside + 2.1 * exact * norms_sq) * (1 + 1e-6)
        # x.c = p_x.p_c + (x - A p_x).(c - A p_c) + (A'x - p_x).p_c + p_x.A'(c - A p_c)
        u, r = FLOAT32_ROUNDOFF, self.device.input_roundoff
        product = 2 * u + 2 * r + r * r + (m + 4) * self.device.sum_roundoff
        slope = 1.01 * 2 * (self._error + exact + product) * np.sqrt(norms_sq.max())
        factor = np.concatenate([-2 * places.T, -2 * rest[None], norms_sq[None]])
        return factor.astype(np.float32), float(slope)


def _norms_sq(rows: Float64) -> Float64:
    return np.vecdot(rows, rows)


def _leading_axes(covariance: Float32, m: int) -> Float32:
    """Orthonormal columns close to the leading eigenvectors, by subspace iteration.

    Reference: G. Golub and C. Van Loan, *Matrix Computations*, 4th ed., section 8.2.4.
    """
    axes = np.random.default_rng(0).normal(size=(len(covariance), m)).astype(np.float32)
    for _ in range(3):
        axes, _ = np.linalg.qr(covariance @ axes)
    # Within their span the eigenvectors, so that the first few columns are a narrower sketch.
    _, rotation = np.linalg.eigh(axes.T @ (covariance @ axes))
    # Once more in float64, so that rounded axes are orthonormal to float32.
    axes, _ = np.linalg.qr((axes @ rotation[:, ::-1]).astype(np.float64))
    return axes.astype(np.float32)
