"""Lower bounds of the distances of rows to each centre, in two bytes each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.engine.points import Float32, Float64, Index

# Largest whole number that is kept or taken away: their difference fits into two bytes as well.
MOST = 32_000


class LowerBounds:
    """What is known of the distances of all rows to each centre, as the centres move.

    Kept is a whole number of units, so large as if the centre had been that much farther away as
    it has come by now; the way that it has come by then is taken away when the bound is asked for.
    Ways are rounded up and bounds down. What is too large for two bytes is cut, and is a bound of
    less use. Until one is kept it is zero.

    Parameters
    ----------
    n, k : int
        Number of rows and of centres.
    reach : float
        What bounds and ways together rarely exceed.
    """

    def __init__(self, n: int, k: int, reach: float) -> None:
        # A power of two, by which to multiply rounds nothing.
        self._unit = np.float32(2.0 ** np.ceil(np.log2(max(reach / MOST, 1e-30))))
        self._kept = np.zeros((n, k), dtype=np.int16)
        self._way = np.zeros(k, dtype=np.int16)

    def move(self, way: Float64) -> None:
        """Let the centres have come so far, ``(k,)``, in all."""
        self._way = np.minimum(np.ceil(way / self._unit), MOST).astype(np.int16)

    def keep(self, rows: Index, lower: Float32) -> None:
        """Keep bounds ``(m, k)`` of rows; these are overwritten."""
        self._kept[rows] = self._at_rest(lower, self._way)

    def keep_some(self, rows: Index, centers: Index, lower: Float32) -> None:
        """Keep bounds ``(m,)`` of pairs of a row and a centre; these are overwritten."""
        self._kept[rows, centers] = self._at_rest(lower, self._way[centers])

    def drop(self, rows: Index) -> None:
        """Forget those of some rows."""
        self._kept[rows] = 0

    def nearest(self, rows: Index) -> Float32:
        """The smallest bound of each of some rows, ``(m,)``."""
        bounds = np.take(self._kept, rows, axis=0)
        bounds -= self._way
        nearest: Float32 = bounds.min(axis=1) * self._unit
        return nearest

    def _at_rest(self, lower: Float32, way: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """Bounds as they are kept."""
        lower *= 1 / self._unit
        # By one, because ways that were rounded up differ by up to one too little, and by one more
        # for the rounding of this very sum.
        lower += way.astype(np.float32) - 2
        return np.minimum(lower, MOST, out=lower).astype(np.int16)
