"""Lower bounds of the distances of rows to each centre, in two bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.engine.points import Float32, Float64, Index

# Largest whole number that is kept or subtracted: their difference fits into two bytes as well.
MOST = 32_000


class LowerBounds:
    """What is known of the distances of all rows to each centre, as the centres move.

    Stores ``bound + drift`` of the time when the bound was found, in whole units. A later read
    subtracts the drift of that time, so moving the centres writes k numbers instead of n k. Drifts
    are rounded up and bounds down. What is too large for two bytes is clipped, which is safe and
    only slower. A bound that was never kept is zero.

    Parameters
    ----------
    n, k : int
        Number of rows and of centres.
    reach : float
        What a bound and the drift together rarely exceed.
    """

    def __init__(self, n: int, k: int, reach: float) -> None:
        # A power of two, by which to multiply rounds nothing.
        self._unit = np.float32(2.0 ** np.ceil(np.log2(max(reach / MOST, 1e-30))))
        self._kept = np.zeros((n, k), dtype=np.int16)
        self._drift = np.zeros(k, dtype=np.int16)

    def move(self, drift: Float64) -> None:
        """Set how far each centre has drifted in all, ``(k,)``."""
        self._drift = np.minimum(np.ceil(drift / self._unit), MOST).astype(np.int16)

    def keep(self, rows: Index | slice, lower: Float32) -> None:
        """Keep bounds ``(m, k)`` of rows; these are overwritten."""
        self._kept[rows] = self._at_rest(lower, self._drift)

    def keep_some(self, rows: Index, centers: Index, lower: Float32) -> None:
        """Keep bounds ``(m,)`` of pairs of a row and a centre; these are overwritten."""
        self._kept[rows, centers] = self._at_rest(lower, self._drift[centers])

    def drop(self, rows: Index) -> None:
        """Forget those of some rows."""
        self._kept[rows] = 0

    def nearest(self, rows: Index) -> Float32:
        """The smallest bound of each of some rows, ``(m,)``."""
        bounds = np.take(self._kept, rows, axis=0)
        bounds -= self._drift
        nearest: Float32 = bounds.min(axis=1) * self._unit
        return nearest

    def _at_rest(self, lower: Float32, drift: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Bounds in units, as they are kept."""
        lower *= 1 / self._unit
        # Less 1, for two drifts that are rounded up may differ by a unit too little, and 1 more for
        # the rounding of this sum.
        lower += drift.astype(np.float32) - 2
        return np.minimum(lower, MOST, out=lower).astype(np.int16)
