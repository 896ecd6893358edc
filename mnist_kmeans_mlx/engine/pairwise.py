"""All distances between rows and centres, in float64 on the host.

They are answers rather than steps to one, so they are the same on every device. A product in
float32 would have lost the distance of two neighbours before float64 could look at it again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, product, slices
from mnist_kmeans_mlx.engine.points import Float64

STEP_BYTES = 4 << 20
# Below this share of what the product adds and subtracts, cancellation has cost it six digits.
CANCELLED = 1e-6


def distances(rows: Any, centers: Float64, device: Device, out: npt.NDArray[Any]) -> None:
    """Euclidean distances of each row to each centre.

    Parameters
    ----------
    rows : ndarray of shape (n, d) or CSR matrix
        Finite numbers of any real dtype.
    centers : ndarray of shape (k, d), float64
        Centres.
    device : Device
        Whose host's threads share the work.
    out : ndarray of shape (n, k)
        Takes the distances, in the units of the rows. Where row and centre are equal, they are
        exactly zero.

    Examples
    --------
    >>> from mnist_kmeans_mlx.device import resolve
    >>> out = np.empty((2, 1))
    >>> distances(np.array([[0, 0], [3, 4]]), np.array([[3.0, 4.0]]), resolve("cpu"), out)
    >>> out
    array([[5.],
           [0.]])
    """
    n, d = rows.shape
    origin = centers.mean(axis=0)
    moved = centers - origin

    def measure(part: slice) -> None:
        block = rows[part]
        block = np.asarray(block.toarray() if hasattr(block, "toarray") else block) - origin
        out[part] = _distances(block, moved)

    step = max(1, STEP_BYTES // (8 * max(d, len(centers))))
    device.host.map(measure, slices(n, step))


def _distances(rows: Float64, centers: Float64) -> Float64:
    scale = 1.0
    with np.errstate(over="ignore"):
        rows_sq, centers_sq = _norms_sq(rows), _norms_sq(centers)
    if not 1e-280 < rows_sq.max() + centers_sq.max() < 1e280:
        # A power of two, so exact: squares neither overflow nor vanish.
        exponent = np.frexp(max(np.abs(rows).max(), np.abs(centers).max()))[1]
        scale = 2.0 ** -np.clip(exponent, -1000, 1000)
        rows, centers = rows * scale, centers * scale
        rows_sq, centers_sq = _norms_sq(rows), _norms_sq(centers)
    result: Float64 = product(rows, -2 * centers.T)
    result += centers_sq
    result += rows_sq[:, None]
    doubtful = np.flatnonzero(result.min(axis=1) <= CANCELLED * (rows_sq + centers_sq.max()))
    row, center = np.nonzero(result[doubtful] <= CANCELLED * (rows_sq[doubtful, None] + centers_sq))
    row = doubtful[row]
    for start in range(0, len(row), len(rows)):
        some = slice(start, start + len(rows))
        result[row[some], center[some]] = _norms_sq(rows[row[some]] - centers[center[some]])
    np.sqrt(result, out=result)
    return result if scale == 1 else result / scale


def _norms_sq(rows: Float64) -> Float64:
    return np.vecdot(rows, rows)
