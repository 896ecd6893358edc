"""The rows to cluster, in two precisions: exact on the host, float32 on the device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, host_view

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]

# Every integer up to here is a float32, so sums that stay below are exact in any order.
EXACT_FLOAT32 = 1 << 24


class Points:
    """Rows to cluster.

    Distances do not change when all rows and centres move or grow together. The device therefore
    holds ``(rows - origin) * scale`` in float32: `origin` is close to the mean, `scale` a power of
    two that brings values near one, so that neither an offset of 1000 nor a scale of 1e-30 costs
    precision. Integer-valued rows keep whole numbers (integer origin, scale one).

    Parameters
    ----------
    rows : ndarray of shape (n, d)
        Finite numbers of any real dtype, or a CSR matrix.
    device : Device
        Where `array` lives.
    weights : ndarray of shape (n,), dtype float64, optional
        Weight of each row; all one if None.

    Attributes
    ----------
    array : mx.array of shape (n, d), float32
        The moved and scaled rows on the device.
    norms_sq : ndarray of shape (n,), float64
        Squared norms of the moved and scaled rows.
    norms : mx.array of shape (n,), float32
        Their norms on the device, rounded up.
    mean_variance : float
        Mean over the features of their variance, in the units of the rows squared.
    limit : float
        Upper bound of the absolute values in `array`.
    integer : bool
        Whether `array` holds the moved rows exactly, as whole numbers.
    """

    def __init__(self, rows: Any, device: Device, weights: Float64 | None = None) -> None:
        self.rows = rows
        self.device = device
        self.weights = weights
        self.n, self.d = rows.shape
        self.host_step = max(1, (4 << 20) // (8 * self.d))
        self._find_frame()
        self._convert()

    def _find_frame(self) -> None:
        """Choose origin and scale."""
        low, high, whole = np.full(self.d, np.inf), np.full(self.d, -np.inf), True
        dtype = self.rows.dtype
        if dtype.kind in "bu" and dtype.itemsize == 1:
            low[:], high[:] = 0, 1 if dtype.kind == "b" else 255
        else:
            for part in self.host_slices():
                block = self.raw(part)
                low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
                whole = whole and (dtype.kind in "biu" or bool(np.all(block == np.rint(block))))
        sample = self.raw(np.arange(0, self.n, max(1, self.n // 4096)))
        # The mean of numbers near the largest float64 would overflow.
        with np.errstate(over="ignore"):
            mean = sample.mean(axis=0)
        origin = np.clip(np.where(np.isfinite(mean), mean, 0.0), low, high)
        if whole:
            origin = np.rint(origin)
        limit = float(np.max(np.maximum(high - origin, origin - low), initial=0.0))
        self.integer = whole and limit <= EXACT_FLOAT32
        self.origin: Float64 = origin
        if self.integer or limit == 0:
            self.scale = 1.0
        else:
            self.scale = 2.0 ** -np.frexp(limit)[1]
        self.limit = limit * self.scale

    def _convert(self) -> None:
        """Fill `array`, the squared norms and the mean of the moved rows."""
        self.norms_sq: Float64 = np.empty(self.n)
        total = np.zeros(self.d)
        with mx.stream(self.device.mlx):
            self.array = mx.zeros((self.n, self.d), dtype=mx.float32)
            target = host_view(self.array)
        # A view shares memory with the array on unified memory; elsewhere it is a copy.
        shared = self.device.kind != "cuda"
        if not shared:
            target = np.empty((self.n, self.d), dtype=np.float32)
        for part in self.host_slices():
            if self.integer and self.product_width >= 32:
                block = target[part] = self.whole(part)
                self.norms_sq[part] = self._whole_products(block, block)
                ones = np.ones(len(block), dtype=np.float32)
                total += (
                    ones @ block
                    if len(block) * self.limit < EXACT_FLOAT32
                    else block.sum(axis=0, dtype=np.float64)
                )
            else:
                moved = self.moved(part)
                target[part] = moved
                self.norms_sq[part] = np.einsum("ij,ij->i", moved, moved)
                total += moved.sum(axis=0)
        if not shared:
            with mx.stream(self.device.mlx):
                self.array = mx.array(target)
                mx.eval(self.array)
        with mx.stream(self.device.mlx):
            self.norms = mx.array((np.sqrt(self.norms_sq) * (1 + 1e-6)).astype(np.float32))
        mean = total / self.n
        self.mean_variance = (
            max(0.0, float((self.norms_sq.sum() / self.n - mean @ mean) / self.d)) / self.scale**2
        )

    @property
    def product_width(self) -> int:
        """How many features of two rows can be multiplied and summed exactly in float32."""
        return int(EXACT_FLOAT32 // max(1.0, self.limit**2)) if self.integer else 0

    @property
    def exact_sum_rows(self) -> int:
        """How many rows the device's matrix product sums exactly; zero if it cannot."""
        # A multiplier of eight significant bits (bfloat16) keeps whole numbers up to 256.
        if not self.integer or (self.device.input_roundoff > 0 and self.limit > 256):
            return 0
        return int(EXACT_FLOAT32 // max(1.0, self.limit))

    def _whole_products(self, a: Any, b: Any) -> Float64:
        """Exact row-wise dot products of whole numbers; `b` may be a single row."""
        result = np.zeros(len(a))
        for start in range(0, self.d, self.product_width):
            part = slice(start, start + self.product_width)
            left, right = a[:, part], b[..., part]
            result += left @ right if right.ndim == 1 else np.vecdot(left, right)
        return result

    def host_slices(self) -> Iterator[slice]:
        """Slices of rows that stay in cache as float64."""
        for start in range(0, self.n, self.host_step):
            yield slice(start, min(start + self.host_step, self.n))

    def raw(self, index: Index | slice, dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Rows as given, in float64 or another dtype."""
        block = self.rows[index]
        return np.asarray(block.toarray() if hasattr(block, "toarray") else block).astype(dtype)

    def moved(self, index: Index | slice) -> Float64:
        """Moved and scaled rows in float64."""
        block = self.raw(index)
        block -= self.origin
        block *= self.scale
        return block

    def whole(self, index: Index | slice) -> npt.NDArray[np.float32]:
        """Moved rows of whole numbers, exact in float32."""
        block = self.raw(index, np.float32)
        block -= self.origin.astype(np.float32)
        return block

    def move(self, centers: Float64) -> Float64:
        """Centres in the frame of the moved rows."""
        return (centers - self.origin) * self.scale

    def block(self, part: slice) -> mx.array:
        """Consecutive rows on the device."""
        return self.array[part.start : part.stop]

    def gather(self, index: Index) -> mx.array:
        """Chosen rows on the device."""
        return mx.take(self.array, mx.array(index.astype(np.int32)), axis=0)

    def device_step(self, k: int) -> int:
        """How many rows to compare with `k` centres at once."""
        return max(1, self.device.chunk_bytes // (4 * max(self.d, k)))

    def slices(self, k: int) -> Iterator[slice]:
        """Slices of rows to compare with `k` centres at once."""
        step = self.device_step(k)
        for start in range(0, self.n, step):
            yield slice(start, min(start + step, self.n))

    def distances_sq(
        self, index: Index | None, centers: Float64, owner: Index | None = None
    ) -> Float64:
        """Squared distances in float64 of chosen rows, in the moved frame.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or None
            The rows; all if None.
        centers : ndarray of shape (k, d) or (d,), float64
            Centres as given, not moved.
        owner : ndarray of int, shape (m,), optional
            For each row the centre to measure to; needed if `centers` has two dimensions.

        Returns
        -------
        ndarray of shape (m,), float64
        """
        result = np.empty(self.n if index is None else len(index))
        for start in range(0, len(result), self.host_step):
            part = slice(start, start + self.host_step)
            difference = self.raw(part if index is None else index[part])
            difference -= centers if owner is None else centers[owner[part]]
            difference *= self.scale
            # NumPy sums pairwise in the same order on every processor; einsum does not.
            result[part] = np.square(difference, out=difference).sum(axis=1)
        return result

    def distances_sq_to_row(self, index: Index | None, row: int) -> Float64:
        """Squared distances in float64 of chosen rows to one of the rows, in the moved frame."""
        if self.product_width < 32:
            return self.distances_sq(index, self.raw(np.array([row]))[0])
        center = self.whole(np.array([row]))[0]
        result = np.empty(self.n if index is None else len(index))
        for start in range(0, len(result), self.host_step):
            part = slice(start, start + self.host_step)
            block = self.whole(part if index is None else index[part])
            result[part] = self._whole_products(block, center)
        result *= -2
        result += self.norms_sq[row]
        result += self.norms_sq if index is None else self.norms_sq[index]
        return result
