"""A narrow copy of the rows that bounds their distances from below and above.

Rows are projected onto axes of large variance. With ``p`` the projection and ``r`` the norm of the
rest, ``x.c`` lies within ``r_x r_c`` of ``p_x.p_c`` by the inequality of Cauchy and Schwarz. A
product of width m + 2 instead of d so bounds a distance from both sides, and most comparisons need
no more. The bounds hold in exact arithmetic: `Sketch.slope` covers all rounding.
"""

from __future__ import annotations

from collections.abc import Callable
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
# Bytes of rows to project at once.
BLOCK = 4 << 20

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
    array : mx.array of shape (n, m + 2), float32
        The sketched rows.
    slope : float
        Rounding takes a product with a sketched centre no further than ``slope * |x| * |c|`` from
        the bound it stands for.
    """

    def __init__(self, rows: Rows, norms_sq: Float64, axes: Float32, device: Device) -> None:
        self.device = device
        d, m = axes.shape
        wide = axes.astype(np.float64)
        skew = float(np.linalg.norm(wide.T @ wide - np.eye(m)))
        product = 2 * FLOAT32_ROUNDOFF
        # How far, relative to |x|, the computed projection is from that onto exact axes.
        self._skew = 1.01 * (skew + np.sqrt(m) * (product + d * FLOAT32_ROUNDOFF))
        r = device.input_roundoff
        product += 2 * r + r * r + (m + 4) * device.sum_roundoff
        self.slope = 1.01 * 2 * (2.1 * self._skew + product)
        self._axes = axes
        host = np.ones((len(norms_sq), m + 2), dtype=np.float32)

        def project(part: slice) -> None:
            host[part, :m] = projected = rows(part) @ axes
            host[part, m] = self._rest(projected, norms_sq[part])

        step = max(1, BLOCK // (4 * d))
        starts = range(0, len(host), step)
        device.map(project, [slice(start, min(start + step, len(host))) for start in starts])
        with mx.stream(device.mlx):
            self.array = mx.array(host)
            mx.eval(self.array)

    @classmethod
    def make(cls, rows: Rows, norms_sq: Float64, d: int, device: Device) -> Sketch | None:
        """Sketch of the rows as narrow as the data allow, or None where none pays."""
        n = len(norms_sq)
        if n < FEWEST_ROWS or d < 2 * WIDTHS[0]:
            return None
        chosen = np.arange(0, n, n // FEWEST_ROWS)
        sample = rows(chosen)
        covariance = sample.T @ sample
        spread = np.square(sample - sample.mean(axis=0)).sum(dtype=np.float64)
        for m in (m for m in WIDTHS if 2 * m <= d):
            axes = _leading_axes(covariance, m)
            rest = norms_sq[chosen].sum() - np.square(sample @ axes).sum(dtype=np.float64)
            if rest <= (1 - WORTHWHILE) * spread:
                return cls(rows, norms_sq, axes, device)
        return None

    def _rest(self, projected: Float32, norms_sq: Float64) -> Float32:
        inside = np.square(projected, dtype=np.float64).sum(axis=1)
        outside = np.maximum(norms_sq - inside, 0) + 2.1 * self._skew * norms_sq
        return (np.sqrt(outside) * (1 + 1e-6)).astype(np.float32)

    def centers(self, moved: Float64, norms_sq: Float64) -> Float32:
        """Sketched centres ``(m + 2, k)``."""
        projected = (moved @ self._axes.astype(np.float64)).astype(np.float32)
        rest = self._rest(projected, norms_sq)
        columns = [-2 * projected.T, -2 * rest[None], norms_sq[None].astype(np.float32)]
        return np.concatenate(columns)


def _leading_axes(covariance: Float32, m: int) -> Float32:
    """Orthonormal columns close to the leading eigenvectors, by subspace iteration.

    Reference: G. Golub and C. Van Loan, *Matrix Computations*, 4th ed., section 8.2.4.
    """
    axes = np.random.default_rng(0).normal(size=(len(covariance), m)).astype(np.float32)
    for _ in range(3):
        axes, _ = np.linalg.qr(covariance @ axes)
    # Once more in float64, so that rounded axes are orthonormal to float32.
    axes, _ = np.linalg.qr(axes.astype(np.float64))
    return axes.astype(np.float32)
