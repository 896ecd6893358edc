"""The rows to cluster, in two precisions: exact on the host, float32 on the device."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, host_view
from mnist_kmeans_mlx.engine.sketch import Sketch

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]

# Every integer up to here is a float32, so sums that stay below are exact in any order.
EXACT_FLOAT32 = 1 << 24
# Bytes of float64 rows that a core works on at once: they stay in its cache.
HOST_BLOCK = 4 << 20


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
    norms_sq : ndarray of shape (n,), float64
        Squared norms of the moved and scaled rows.
    mean_variance : float
        Mean over the features of their variance, in the units of the rows squared.
    limit : float
        Upper bound of the absolute values of the moved and scaled rows.
    integer : bool
        Whether float32 holds the moved rows exactly, as whole numbers.
    """

    def __init__(self, rows: Any, device: Device, weights: Float64 | None = None) -> None:
        self.rows = rows
        self.device = device
        self.weights = weights
        self.n, self.d = rows.shape
        self.host_step = max(1, HOST_BLOCK // (8 * self.d))
        self._find_frame()
        self._convert()

    def _find_frame(self) -> None:
        """Choose origin and scale."""
        low, high, whole = self._range()
        sample = self.raw(np.arange(0, self.n, max(1, self.n // 4096)))
        # The mean of numbers near the largest float64 would overflow.
        with np.errstate(over="ignore"):
            mean = sample.mean(axis=0)
        origin = np.clip(np.where(np.isfinite(mean), mean, 0.0), low, high)
        self.integer = whole and _reach(low, high, np.rint(origin)) <= EXACT_FLOAT32
        if self.integer:
            origin = np.rint(origin)
            # Rows near zero, such as pixels, stay where they are: moving them costs a pass.
            if _reach(low, high, np.zeros(self.d)) <= 2 * _reach(low, high, origin):
                origin = np.zeros(self.d)
        limit = _reach(low, high, origin)
        self.origin: Float64 = origin
        self.scale = 1.0 if self.integer or limit == 0 else 2.0 ** -np.frexp(limit)[1]
        self.limit = limit * self.scale
        # How many features of two rows can be multiplied and summed exactly in float32.
        self._exact_width = int(EXACT_FLOAT32 // max(1.0, self.limit**2)) if self.integer else 0
        self._products_are_exact = self._exact_width >= 32

    def _range(self) -> tuple[Float64, Float64, bool]:
        """Lowest and highest value of each feature, and whether all values are whole numbers."""
        dtype = self.rows.dtype
        if dtype.kind in "bu" and dtype.itemsize == 1:
            top = 1.0 if dtype.kind == "b" else 255.0
            return np.zeros(self.d), np.full(self.d, top), True

        def part_range(part: slice) -> tuple[Float64, Float64, bool]:
            block = self.raw(part)
            whole = dtype.kind in "biu" or bool(np.all(block == np.rint(block)))
            return block.min(axis=0), block.max(axis=0), whole

        lows, highs, whole = zip(*self.device.map(part_range, self.host_parts()), strict=True)
        return np.min(lows, axis=0), np.max(highs, axis=0), all(whole)

    def _convert(self) -> None:
        """Make norms, variance and the float32 rows, unless these are as quickly made again."""
        dtype = self.rows.dtype
        dense = not hasattr(self.rows, "toarray")
        self._kept = None
        if not (dense and self.integer and dtype.kind in "biu" and dtype.itemsize <= 2):
            with mx.stream(self.device.mlx):
                self._kept = host_view(mx.zeros((self.n, self.d)))
        self.norms_sq: Float64 = np.empty(self.n)

        def convert(part: slice) -> Float64:
            moved = self._whole(part) if self._products_are_exact else self.moved(part)
            if self._kept is not None:
                self._kept[part] = moved
            if self._products_are_exact:
                self.norms_sq[part] = self._exact_products(moved, moved)
            else:
                self.norms_sq[part] = np.square(moved).sum(axis=1)
            return moved.sum(axis=0, dtype=np.float64)

        mean = np.sum(self.device.map(convert, self.host_parts()), axis=0) / self.n
        variance = float(self.norms_sq.sum() / self.n - mean @ mean) / self.d
        self.mean_variance = max(0.0, variance) / self.scale**2

    @cached_property
    def array(self) -> mx.array:
        """Moved and scaled rows ``(n, d)`` on the device, float32."""
        with mx.stream(self.device.mlx):
            array = mx.array(self.float32(slice(None)))
            mx.eval(array)
        return array

    def block(self, part: slice) -> mx.array:
        """Consecutive rows of `array`, which the CPU makes afresh rather than keep all of it."""
        if self.device.kind == "cpu" and "array" not in self.__dict__:
            return mx.array(self.float32(part))
        return self.array[part]

    @cached_property
    def norms(self) -> mx.array:
        """Norms ``(n,)`` of the moved and scaled rows on the device, float32, rounded up."""
        with mx.stream(self.device.mlx):
            norms = mx.array((np.sqrt(self.norms_sq) * (1 + 1e-6)).astype(np.float32))
            mx.eval(norms)
        return norms

    @cached_property
    def sketch(self) -> Sketch | None:
        """Narrow copy of the rows, where one pays."""
        return Sketch.make(self.float32, self.norms_sq, self.d, self.device)

    @property
    def exact_sum_rows(self) -> int:
        """How many rows a product in float32 sums exactly; zero if none."""
        # A multiplier of eight significant bits (bfloat16) keeps whole numbers up to 256.
        if not self.integer or (self.device.input_roundoff > 0 and self.limit > 256):
            return 0
        return int(EXACT_FLOAT32 // max(1.0, self.limit))

    # Rows

    def host_parts(self, n: int | None = None) -> list[slice]:
        """Slices of rows that stay in cache as float64."""
        return _parts(self.n if n is None else n, self.host_step)

    def device_parts(
        self, width: int, n: int | None = None, most: int | None = None
    ) -> list[slice]:
        """Slices of `n` rows (None: all) whose temporaries of `width` columns fit into a chunk.

        None has more than `most` rows.
        """
        n = self.n if n is None else n
        step = self.device.chunk_bytes // (4 * width)
        if self.device.workers > 1:
            step = min(step, -(-n // (2 * self.device.workers)))
        return _parts(n, max(1, step if most is None else min(step, most)))

    def raw(self, index: Index | slice | list[int], dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Rows as given, in float64 or another dtype."""
        if hasattr(self.rows, "toarray"):
            return self.rows[index].toarray().astype(dtype)
        rows = self.rows[index] if isinstance(index, slice) else self.rows.take(index, axis=0)
        return rows.astype(dtype)

    def moved(self, index: Index | slice) -> Float64:
        """Moved and scaled rows in float64."""
        block = self.raw(index)
        block -= self.origin
        block *= self.scale
        return block

    def float32(self, index: Index | slice) -> Float32:
        """Moved and scaled rows on the host, in float32."""
        if self._kept is None:
            return self._whole(index)
        return self._kept[index] if isinstance(index, slice) else np.take(self._kept, index, axis=0)

    def _whole(self, index: Index | slice | list[int]) -> Float32:
        """Moved rows of whole numbers, exact in float32."""
        block = self.raw(index, np.float32)
        if self.origin.any():
            block -= self.origin.astype(np.float32)
        return block

    def summable(self, index: Index | slice) -> npt.NDArray[np.floating[Any]]:
        """Moved rows whose sums are exact (float32) or as good as float64."""
        size = index.stop - index.start if isinstance(index, slice) else len(index)
        return self._whole(index) if size <= self.exact_sum_rows else self.moved(index)

    def move(self, centers: Float64) -> Float64:
        """Centres in the frame of the moved rows."""
        return (centers - self.origin) * self.scale

    # Distances in float64

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

        def measure(part: slice) -> None:
            chosen = part if index is None else index[part]
            result[part] = self._direct(chosen, centers if owner is None else centers[owner[part]])

        self.device.map(measure, self.host_parts(len(result)))
        return result

    def distances_sq_to_row(self, index: Index, row: int) -> Float64:
        """Squared distances in float64 of chosen rows to one of the rows, in the moved frame.

        Computed by the calling thread.
        """
        result = np.empty(len(index))
        center = self._whole([row])[0] if self._products_are_exact else self.raw([row])[0]
        for part in _parts(len(index), self.host_step):
            if self._products_are_exact:
                products = self._exact_products(self._whole(index[part]), center)
                result[part] = self.norms_sq[index[part]] - 2 * products + self.norms_sq[row]
            else:
                result[part] = self._direct(index[part], center)
        return result

    def _direct(self, index: Index | slice, centers: Float64) -> Float64:
        """Squared distances of rows, each to its own or all to the same centre."""
        difference = self.raw(index)
        difference -= centers
        difference *= self.scale
        # NumPy sums pairwise in the same order on every processor; einsum does not.
        return np.square(difference, out=difference).sum(axis=1)

    def _exact_products(self, a: Any, b: Any) -> Float64:
        """Exact row-wise dot products of whole numbers; `b` may be a single row."""
        result = np.zeros(len(a))
        for start in range(0, self.d, self._exact_width):
            part = slice(start, start + self._exact_width)
            left, right = a[:, part], b[..., part]
            result += left @ right if right.ndim == 1 else np.vecdot(left, right)
        return result


def _parts(n: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


def _reach(low: Float64, high: Float64, origin: Float64) -> float:
    """Largest distance from the origin in any feature."""
    return float(np.max(np.maximum(high - origin, origin - low), initial=0.0))
