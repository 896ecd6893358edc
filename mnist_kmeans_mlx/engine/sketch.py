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
# Bytes of rows to project at once, and of how many features.
BLOCK = 4 << 20
WIDTH = 112

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

    Attributes
    ----------
    rows : ndarray of shape (n, m + 2), float32
        The sketched rows.
    slope : float
        Rounding takes a product with a sketched centre no further than ``slope * |x| * |c|`` from
        the bound it stands for.
    """

    def __init__(self, rows: Rows, norms_sq: Float64, axes: Float32, device: Device) -> None:
        self.device = device
        d, m = axes.shape
        wide = axes.astype(np.float64)
        self._skew = float(np.linalg.norm(wide.T @ wide - np.eye(m)))
        u, r = FLOAT32_ROUNDOFF, device.input_roundoff
        # How far, relative to |x|, the computed projection is from that onto exact axes.
        self._error = 1.01 * (self._skew + np.sqrt(m) * (WIDTH + 4) * u)
        product = 2 * u + 2 * r + r * r + (m + 4) * device.sum_roundoff
        self.slope = 1.01 * 2 * (2.1 * self._error + product)
        self._axes = wide
        self.rows = np.ones((len(norms_sq), m + 2), dtype=np.float32)

        def project(part: slice) -> None:
            block, projected = rows(part), np.zeros((part.stop - part.start, m))
            for start in range(0, d, WIDTH):
                # Short sums in float32, their sum in float64: a tenth of the error.
                features = slice(start, start + WIDTH)
                projected += block[:, features] @ axes[features]
            self.rows[part, :m] = projected
            self.rows[part, m] = self._rest(self.rows[part, :m], norms_sq[part])

        step = max(1, BLOCK // (4 * d))
        starts = range(0, len(self.rows), step)
        device.map(project, [slice(start, min(start + step, len(self.rows))) for start in starts])

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

    def _rest(self, projected: Float32, norms_sq: Float64) -> Float32:
        """Upper bounds of the norms outside the axes."""
        inside = np.square(projected, dtype=np.float64).sum(axis=1)
        outside = np.maximum(norms_sq - inside, 0) + 2.1 * self._error * norms_sq
        return (np.sqrt(outside) * (1 + 1e-6)).astype(np.float32)

    def centers(self, moved: Float64, norms_sq: Float64) -> Float32:
        """Sketched centres ``(m + 2, k)``."""
        projected = (moved @ self._axes).astype(np.float32)
        rest = self._rest(projected, norms_sq)
        return np.concatenate(
            [-2 * projected.T, -2 * rest[None], norms_sq[None].astype(np.float32)]
        )


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
