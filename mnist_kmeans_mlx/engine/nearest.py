"""The nearest centre of any row, whatever other rows come with it.

A fit knows all its rows and finds a frame that suits them (`points`). Rows that fitted centres are
asked about may be few, far off, or one of them a million times as large as the next. The frame is
therefore that of the centres. Rows for which float32 does not do there are rows in doubt like any
others: float64 decides them, each by itself.
"""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, Device, product, slices
from mnist_kmeans_mlx.engine.decision import HUGE, TINY, decide_pairs, euclidean, power_of_two
from mnist_kmeans_mlx.engine.distances import tolerance, undecided
from mnist_kmeans_mlx.engine.exact import Exact, joined
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Labels

# Bytes of float32 rows, or of scores, that a core works on at once: they stay in its cache.
BLOCK = 1 << 20
# Bytes of float64 rows, or of their distances, that a core works on at once.
STEP_BYTES = 4 << 20
# Below this share of what the product adds and subtracts, cancellation has cost it six digits.
CANCELLED = 1e-6
# Between these float32 holds squares of centres, and of rows a good deal farther off.
NEAR, FAR = 1e-10, 1e10
# Smaller numbers are no infinity in float32.
HELD = 1e38


class Nearest:
    """Centres, ready to be compared with any rows.

    Parameters
    ----------
    centers : ndarray of shape (k, d), float64
        Finite.
    device : Device
        Where rows and centres are multiplied.
    """

    def __init__(self, centers: Float64, device: Device) -> None:
        self.centers, self.device = centers, device
        k, d = centers.shape
        origin, largest = _middle(centers), float(np.abs(centers).max())
        reach = float(np.abs(centers - origin).max())
        # Centres around zero, such as pixels, stay where they are: to move rows costs a pass.
        if largest <= 4 * reach:
            origin, reach = np.zeros(d), largest
        self._origin = origin if origin.any() else None
        self._scale = 1.0
        if reach and not NEAR < reach < FAR:
            self._scale = power_of_two(reach)
        # What float32 holds is moved with a single rounding.
        self._moves_narrow = self._scale == 1 and largest < HELD
        moved = (centers - origin) * self._scale
        norms_sq = np.square(moved).sum(axis=1)
        self._factor = (-2.0 * moved).astype(np.float32).T
        self._constant = norms_sq.astype(np.float32)
        slope, constant = tolerance(device, d, float(np.sqrt(norms_sq.max())))
        # The norm of a row is itself a sum of float32.
        self._slope = np.float32(slope * (1 + (d + 4) * FLOAT32_ROUNDOFF))
        self._offset = np.float32(constant)
        # A GPU wants few large steps.
        step_bytes = BLOCK if device.is_host else device.chunk_bytes
        self._step = max(1, step_bytes // (4 * max(d, k)))

    def labels(self, rows: Any) -> Labels:
        """The nearest centre of each row in float64 arithmetic; of equally near ones the first.

        Parameters
        ----------
        rows : ndarray of shape (n, d) or CSR matrix
            Finite numbers of any real dtype.

        Returns
        -------
        ndarray of shape (n,), int32
        """
        n = rows.shape[0]
        labels = np.zeros(n, dtype=np.int32)
        if len(self.centers) == 1:
            return labels
        compare = self._on_host if self.device.is_host else self._on_device

        def decide(part: slice) -> None:
            block = dense(rows[part])
            label, doubtful, close = compare(block)
            if len(doubtful) > 0:
                row, center = np.nonzero(close)
                some = block[doubtful]
                label[doubtful] = decide_pairs(some, row, self.centers, center)
            labels[part] = label

        if n <= self._step and self.device.is_host:
            decide(slice(0, n))  # to wake threads takes longer than a few rows
        else:
            self.device.map(decide, slices(n, self._step))
        return labels

    def costs(self, rows: Any, labels: Labels) -> Float64:
        """Squared distances ``(n,)`` of rows to the centres of their labels, in float64.

        In the units of the rows squared; infinite where float64 does not reach.
        """
        costs = np.empty(rows.shape[0])

        def measure(part: slice) -> None:
            with np.errstate(over="ignore"):
                difference = dense(rows[part]) - self.centers[labels[part]]
                costs[part] = np.square(difference, out=difference).sum(axis=1)

        host = self.device.host
        host.map(measure, slices(len(costs), max(1, BLOCK // (8 * self.centers.shape[1]))))
        return costs

    def inertia(self, rows: Any, labels: Labels, weights: Float64 | None = None) -> float:
        """Weighted sum of `costs`, the same in whatever order these are added."""
        costs = self.costs(rows, labels)
        if weights is not None:
            costs *= weights
        largest = costs.max(initial=0)
        if not np.isfinite(largest):
            return float("inf")
        return float(joined(Exact(largest, len(costs)).sums(costs)))

    def distances(self, rows: Any, out: npt.NDArray[Any]) -> None:
        """Euclidean distances of each row to each centre, in float64 on the host.

        They are answers rather than steps to one, so they are the same on every device. A product
        in float32 would have lost the distance of two neighbours before float64 could look again.

        Parameters
        ----------
        rows : ndarray of shape (n, d) or CSR matrix
            Finite numbers of any real dtype.
        out : ndarray of shape (n, k)
            Takes the distances, in the units of the rows. Where row and centre are equal, they are
            exactly zero.

        Raises
        ------
        ValueError
            A distance is larger than the dtype of `out` holds.
        """
        origin = _middle(self.centers)
        moved = self.centers - origin
        with np.errstate(over="ignore"):
            norms_sq = np.vecdot(moved, moved)

        def measure(part: slice) -> None:
            block, found = dense(rows[part]), out[part]
            with np.errstate(over="ignore", invalid="ignore"):
                shifted = block - origin
                own = np.vecdot(shifted, shifted)
                squared = product(shifted, -2 * moved.T) + norms_sq + own[:, None]
                # What left the range of squares, or lost its digits where these cancelled.
                largest = own + norms_sq.max()
                lost = ~(squared > CANCELLED * (own[:, None] + norms_sq))
                lost |= ~((largest > TINY) & (largest < HUGE))[:, None]
                found[:] = np.sqrt(squared, out=squared)
                row, center = np.nonzero(lost)
                for some in slices(len(row), len(block)):
                    pair = row[some], center[some]
                    found[pair] = euclidean(block[pair[0]], self.centers[pair[1]])
            if not np.isfinite(found).all():
                raise ValueError(
                    f"Distances of these rows to the centers are larger than {out.dtype} holds, "
                    f"{np.finfo(out.dtype).max:.2g}: divide X and the centers by a large number."
                )

        width = 8 * max(self.centers.shape)
        self.device.host.map(measure, slices(rows.shape[0], max(1, STEP_BYTES // width)))

    def _moved(self, block: npt.NDArray[Any]) -> Float32:
        """Rows in the frame of the centres; too far out they are infinite."""
        with np.errstate(over="ignore"):
            if not self._moves_narrow or not np.can_cast(block.dtype, np.float32):
                block = block.astype(np.float64, copy=False)
            else:
                block = block.astype(np.float32, copy=False)
            if self._origin is not None:
                block = block - self._origin.astype(block.dtype)
            if self._scale != 1:
                block = block * self._scale
            return block.astype(np.float32, copy=False)

    def _on_host(self, block: npt.NDArray[Any]) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """Nearest centres; rows in doubt, and which centres these may be nearest to."""
        moved = self._moved(block)
        with np.errstate(over="ignore", invalid="ignore"):
            error = self._slope * np.sqrt(np.vecdot(moved, moved)) + self._offset
            # Scores of one centre side by side: rows are compared with one another, not along.
            scores = np.ascontiguousarray(product(moved, self._factor).T)
            scores += self._constant[:, None]
            # Whatever is not a number is in doubt.
            close = ~(scores > scores.min(axis=0) + 2 * error)
        m = len(moved)
        center, row = np.divmod(np.flatnonzero(close), m)
        label = np.empty(m, dtype=np.int32)
        label[row] = center
        if len(row) == m:
            return label, np.zeros(0, np.intp), close[:, :0].T
        doubtful = np.flatnonzero(np.bincount(row, minlength=m) > 1)
        return label, doubtful, close[:, doubtful].T

    def _on_device(self, block: npt.NDArray[Any]) -> tuple[Labels, Index, npt.NDArray[np.bool_]]:
        """The same as MLX operations."""
        if self._moves_narrow and self._origin is None and block.dtype == np.uint8:
            moved = mx.array(block).astype(mx.float32)  # a quarter of the bytes to send
        else:
            moved = mx.array(self._moved(block))
        norms = mx.sqrt(mx.sum(mx.square(moved), axis=1))
        scores = self.device.matmul(moved, mx.array(self._factor)) + mx.array(self._constant)
        label, doubtful, close = undecided(scores, float(self._slope) * norms + float(self._offset))
        return label.copy(), doubtful, close


def dense(rows: Any) -> npt.NDArray[Any]:
    """Rows as an array, of the dtype that they have."""
    block: npt.NDArray[Any] = rows.toarray() if hasattr(rows, "toarray") else np.asarray(rows)
    return block


def _middle(centers: Float64) -> Float64:
    """The middle of the range of centres, as float32 holds it where it can."""
    middle: Float64 = centers.min(axis=0) / 2 + centers.max(axis=0) / 2
    if np.abs(middle).max() < HELD:
        middle = middle.astype(np.float32).astype(np.float64)
    return middle
