"""The rows to cluster, in two precisions: exact on the host, float32 on the device."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.device import Device, product, slices
from mnist_kmeans_mlx.distributed import ALONE, Group
from mnist_kmeans_mlx.engine.decision import power_of_two
from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined
from mnist_kmeans_mlx.engine.sketch import (
    FEWEST_ROWS,
    TURNING_WIDTH,
    Sketch,
    TurningSketch,
    sketch_bytes,
    sketch_pays,
)

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int32]

# Every integer up to here is a float32, so sums that stay below are exact in any order.
EXACT_FLOAT32 = 1 << 24
# Bytes of float64 rows that a core works on at once: they stay in its cache.
HOST_BLOCK = 4 << 20
# Rows from which the origin is found, in as many bytes at most; and a few of them that tell
# whether it is where most are, rather than more than so many times farther off than most reach.
SAMPLE, SAMPLE_BYTES = 4096, 16 << 20
FEW, DISTANT = 64, 1024
# Rows of a smaller scale may be farther apart than float64 goes.
SMALLEST = 2.0**-1020


Stage = Callable[[str], AbstractContextManager[None]]


def unwatched(stage: str) -> AbstractContextManager[None]:
    """A stage that nobody wants to know of."""
    return nullcontext()


class Points:
    """Rows to cluster.

    Distances do not change when all rows and centres move or grow together. The device therefore
    holds ``(rows - origin) * scale`` in float32: `origin` is close to the mean, `scale` a power of
    two that brings values near one, so that neither an offset of 1000 nor a scale of 1e-30 costs
    precision. Integer-valued rows keep whole numbers (integer origin, scale one).

    The ranks of a group each hold a part of the rows, numbered from the first row of rank 0 to the
    last of the last. What all rows decide, such as the origin, is found together and is the same
    as if one process held them all.

    Parameters
    ----------
    rows : ndarray of shape (n, d), CSR matrix or source of rows
        Finite numbers of any real dtype. Of a source, slices and `take` read what they give.
    device : Device
        Where `array` lives; `host` is the CPU beside it, or the same.
    weights : ndarray of shape (n,), dtype float64, optional
        Weight of each row; all one if None.
    group : Group, optional
        The ranks, if there are others.
    keep : bool, default=True
        Whether to keep copies of all rows, as the device has them and narrowed: otherwise each
        pass makes them anew.
    spare : int, optional
        Bytes that bounds may take; a quarter of the machine's memory if None.
    stage : callable, optional
        ``stage(name)`` is a context that is entered for as long as a stage of the fit lasts, by
        whoever has the rows: "upload", "seeding", "iterations", "final".

    Attributes
    ----------
    total : int
        Number of rows, on all ranks.
    offset : int
        Number of this rank's first row.
    norms_sq : ndarray of shape (n,), float64
        Squared norms of the moved and scaled rows.
    norm_sq : float
        Their weighted sum, of all ranks.
    mean_variance : float
        Mean over the features of the variance of the moved and scaled rows.
    limit : float
        Upper bound of the absolute values of the moved and scaled rows.
    depth : float
        How many binary digits usual numbers lie below `limit`, in the narrowest feature.
    integer : bool
        Whether float32 holds the moved rows exactly, as whole numbers.
    products_are_exact : bool
        Whether their products are made in float32 without rounding.
    """

    def __init__(
        self,
        rows: Any,
        device: Device,
        weights: Float64 | None = None,
        group: Group = ALONE,
        keep: bool = True,
        spare: int | None = None,
        stage: Stage = unwatched,
    ) -> None:
        self.rows = rows
        self.stage = stage
        self.device, self.host = device, device.host
        self.weights = weights
        self.group = group
        self.spare = device.memory_bytes // 4 if spare is None else spare
        self.keep = keep
        self.n, self.d = rows.shape
        self._ends = np.cumsum(group.gather(np.array([self.n])))
        self.total = int(self._ends[-1])
        self.offset = int(self._ends[group.rank]) - self.n
        self.host_step = max(1, HOST_BLOCK // (8 * self.d))
        self._is_narrow = rows.dtype in (np.float16, np.float32)
        self._heaviest, self._weights_are_whole, self._weight_depth = 1.0, True, 0.0
        if weights is not None:
            self._heaviest = float(group.max(weights.max(initial=0)))
            self._weights_are_whole = bool(group.min(np.all(weights == np.rint(weights))))
            heavy = weights[weights > 0]
            usual = group.min(np.median(heavy) if len(heavy) else self._heaviest)
            self._weight_depth = float(np.log2(self._heaviest) - np.log2(usual))
        self._find_frame()
        self._convert()

    def _find_frame(self) -> None:
        """Choose origin and scale."""
        low, high, whole = self._range()
        most = min(SAMPLE, max(8, SAMPLE_BYTES // (8 * self.d)))
        sample = self.pick(np.arange(0, self.total, -(-self.total // most)))
        origin, usual = _middle(sample)
        origin = np.clip(origin, low, high)
        self.integer = whole and _reach(low, high, np.rint(origin)) <= EXACT_FLOAT32
        if self.integer:
            origin = np.rint(origin)
            # Rows near zero, such as pixels, stay where they are: moving them costs a pass.
            if _reach(low, high, np.zeros(self.d)) <= 2 * _reach(low, high, origin):
                origin = np.zeros(self.d)
        elif self._is_narrow:
            origin = origin.astype(np.float32).astype(np.float64)
        limit = _reach(low, high, origin)
        if not np.isfinite(limit):  # a range that is larger than the largest number
            origin = np.zeros(self.d)
            limit = _reach(low, high, origin)
        self.origin: Float64 = origin
        self.scale = 1.0 if self.integer or limit == 0 else power_of_two(limit)
        self.limit = limit * self.scale
        self.depth = max(0.0, np.log2(limit) - np.log2(usual)) if 0 < usual < limit else 0.0
        # Whether float32 holds the rows before they are moved, and moves them with one rounding.
        near = _reach(low, high, np.zeros(self.d)) <= EXACT_FLOAT32
        self._moves_narrow = near if self.integer else self._is_narrow and 1e-30 < limit < 1e30
        # How many features of two rows can be multiplied and summed exactly in float32.
        width = int(EXACT_FLOAT32 // max(1.0, self.limit**2)) if self.integer else 0
        self.products_are_exact = width >= 32
        self._exact_features = slices(self.d, max(1, width))

    def _range(self) -> tuple[Float64, Float64, bool]:
        """Lowest and highest value of each feature, and whether all values are whole numbers."""
        dtype = self.rows.dtype
        if dtype.kind in "bu" and dtype.itemsize == 1:
            top = 1.0 if dtype.kind == "b" else 255.0
            return np.zeros(self.d), np.full(self.d, top), True

        fractions = threading.Event()

        def part_range(part: slice) -> tuple[Float64, Float64]:
            block = self.raw(part, np.float32 if self._is_narrow else np.float64)
            # Looking for fractions costs as much as all the rest: one is enough.
            looking = dtype.kind not in "biu" and not fractions.is_set()
            if looking and not np.all(block == np.rint(block)):
                fractions.set()
            return block.min(axis=0), block.max(axis=0)

        def widest(a: tuple[Float64, Float64], b: tuple[Float64, Float64]) -> Any:
            return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])

        low, high = (a.astype(np.float64) for a in self._folded(part_range, widest))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            raise ValueError("Input X contains NaN or infinity.")
        whole = bool(self.group.min(not fractions.is_set()))
        return self.group.min(low), self.group.max(high), whole

    def _convert(self) -> None:
        """Make norms, variance and the float32 rows, unless these are as quickly made again."""
        dtype = self.rows.dtype
        dense = not hasattr(self.rows, "toarray")
        self._kept = None
        self._as_quick = dense and self.integer and dtype.kind in "biu" and dtype.itemsize <= 2
        if self.keep and not self._as_quick:
            self._kept = np.empty((self.n, self.d), dtype=np.float32)
        self.norms_sq: Float64 = np.empty(self.n)
        values = Exact(self.limit, self.total, self.integer)

        def convert(part: slice) -> Float64:
            if self.products_are_exact:
                whole = self._narrow(part)
                if self._kept is not None:
                    self._kept[part] = whole
                short = (whole[:, features] for features in self._exact_features)
                self.norms_sq[part] = sum(
                    np.vecdot(some, some).astype(np.float64) for some in short
                )
                return whole.sum(axis=0, dtype=np.float64)
            moved = self.moved(part)
            if self._kept is not None:
                self._kept[part] = moved
            self.norms_sq[part] = np.square(moved).sum(axis=1)
            return values.rough(moved).sum(axis=0)

        mean = self.group.sum(self._folded(convert, np.add)) / self.total
        norms = Exact(self.d * self.limit**2 * (1 + 1e-9), self.total, self.integer)
        norm_sq = float(joined(self.group.sum(norms.sums(self.norms_sq))))
        self.norm_sq = norm_sq
        if self.weights is not None:
            self.norm_sq = self.sum(self.norms_sq, self.integer)
        variance = (norm_sq / self.total - float(np.square(mean).sum())) / self.d
        self.mean_variance = max(0.0, variance)

    @property
    def fingerprint(self) -> str:
        """What tells these rows and weights from others, however many ranks hold them.

        Blocks of rows are hashed with their place, and the hashes are added. Those that no rank
        holds alone are fetched.
        """
        step, end = self.host_step, self.offset + self.n
        dtype = self.rows.dtype if self.rows.dtype.itemsize < 8 else np.dtype(np.float64)

        def hashed(start: int, rows: Any, weights: Float64 | None) -> npt.NDArray[np.uint64]:
            digest = hashlib.sha256(str(start).encode())
            digest.update(np.ascontiguousarray(rows, dtype).data)
            if weights is not None:
                digest.update(np.ascontiguousarray(weights).data)
            return np.frombuffer(digest.digest(), np.uint64)

        def own(start: int) -> npt.NDArray[np.uint64]:
            part = slice(start - self.offset, min(start + step, end) - self.offset)
            weights = None if self.weights is None else self.weights[part]
            return hashed(start, self.raw(part, dtype), weights)

        cut = sorted({int(at) // step * step for at in self._ends[:-1] if at % step})
        starts = [at for at in range(-(-self.offset // step) * step, end, step) if at not in cut]
        hashes = [np.zeros(4, np.uint64), *self.host.map(own, starts)]
        total = self.group.sum(np.sum(hashes, axis=0))
        for start in cut:
            index = np.arange(start, min(start + step, self.total))
            weights = None if self.weights is None else self.pick(index, self.weights)
            total += hashed(start, self.pick(index), weights)
        facts = f"{self.total} {self.d} {self.rows.dtype}"
        return hashlib.sha256(facts.encode() + total.tobytes()).hexdigest()

    @cached_property
    def array(self) -> mx.array:
        """Moved and scaled rows ``(n, d)`` on the device, float32."""
        with self.stage("upload"), mx.stream(self.device.mlx):
            array = self._sent(slice(None))
            mx.eval(array)
        if self.device.kind != "cpu":
            self._kept = None  # One copy is enough.
        return array

    def block(self, index: Index | slice) -> mx.array:
        """Some rows of `array`, made afresh where all of it is not to be kept."""
        if not self.keep or (self.device.kind == "cpu" and "array" not in self.__dict__):
            return self._sent(index)
        return self.array[index if isinstance(index, slice) else mx.array(index)]

    def _sent(self, index: Index | slice) -> mx.array:
        """Moved and scaled rows, brought to the device."""
        if not self._as_quick:
            return mx.array(self.float32(index))
        # A byte or two a number travel, and become exactly what the host would make of them.
        rows = self._given(index).astype(self.rows.dtype.newbyteorder("="), copy=False)
        moved = mx.array(rows).astype(mx.float32)
        return moved - mx.array(self.origin.astype(np.float32)) if self.origin.any() else moved

    @cached_property
    def norms(self) -> mx.array:
        """Norms ``(n,)`` of the moved and scaled rows on the device, float32, rounded up."""
        with mx.stream(self.device.mlx):
            norms = mx.array((np.sqrt(self.norms_sq) * (1 + 1e-6)).astype(np.float32))
            mx.eval(norms)
        return norms

    @cached_property
    def largest_norm_sq(self) -> float:
        """Of this rank's moved and scaled rows."""
        return float(self.norms_sq.max(initial=0))

    def sketch(self, k: int) -> Sketch | None:
        """Narrow copy of the rows, where one pays with `k` centres and may be kept."""
        fits = sketch_bytes(self.n, self.d) <= self.spare
        if not (self.keep and fits and sketch_pays(self.n, self.d, k)):
            return None
        return self._sketch

    @cached_property
    def _sketch(self) -> Sketch | None:
        return Sketch.make(self.float32, self.norms_sq, self.d, self.host)

    def turning_width(self, k: int) -> int:
        """Most columns of a sketch that turns to `k` centres; zero where none pays."""
        pays = self.keep and self.n >= FEWEST_ROWS and 2 * k <= self.d
        return max(k, TURNING_WIDTH) + 2 if pays else 0

    def turning_sketch(self, k: int) -> TurningSketch | None:
        """Narrow copy of the rows on axes that turn to `k` centres, where one pays."""
        if self.turning_width(k) == 0:
            return None
        base, fixed = self.turning_base(k), max(0, TURNING_WIDTH - k)
        return TurningSketch(self.float32, self.norms_sq, base, fixed, k, self.host)

    def turning_base(self, k: int) -> Sketch | None:
        """What all such narrow copies take the axes from that do not turn, made only once."""
        return self.sketch(k) if self.turning_width(k) and k < TURNING_WIDTH else None

    def _folded(self, function: Callable[[slice], Any], combine: Callable[[Any, Any], Any]) -> Any:
        """What `function` says of all parts of the rows, in turn, combined in any order.

        As it comes: with wide rows what is said of all parts would be as large as these.
        """
        lock = threading.Lock()
        total: list[Any] = []

        def fold(part: slice) -> None:
            found = function(part)
            with lock:
                total[:] = [combine(total[0], found) if total else found]

        self.host.map(fold, self.host_parts())
        return total[0]

    # Rows

    def host_parts(self, n: int | None = None) -> list[slice]:
        """Slices of rows that stay in cache as float64."""
        return slices(self.n if n is None else n, self.host_step)

    def raw(self, index: Index | slice | list[int], dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Rows as given, in float64 or another dtype."""
        rows = self._given(index)
        return (rows.toarray() if hasattr(rows, "toarray") else rows).astype(dtype)

    def _given(self, index: Index | slice | list[int]) -> Any:
        """Rows as they came, not necessarily copied."""
        if isinstance(index, slice) or hasattr(self.rows, "toarray"):
            return self.rows[index]
        return self.rows.take(index, axis=0)

    def pick(self, index: Index, values: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Rows as given, in float64, or entries of `values`, by their numbers among all ranks'.

        Every rank has to ask for the same, and gets them.
        """
        owner = np.searchsorted(self._ends, index, side="right")
        mine = index[owner == self.group.rank] - self.offset
        found = self.group.gather(self.raw(mine) if values is None else values[mine])
        picked = np.empty_like(found)
        picked[np.argsort(owner, kind="stable")] = found
        return picked

    def moved(self, index: Index | slice) -> Float64:
        """Moved and scaled rows in float64."""
        block = self.raw(index)
        block -= self.origin
        block *= self.scale
        return block

    def float32(self, index: Index | slice) -> Float32:
        """Moved and scaled rows on the host, in float32."""
        if self._kept is not None:
            if isinstance(index, slice):
                return self._kept[index]
            return np.take(self._kept, index, axis=0)
        return self._narrow(index)

    def _narrow(self, index: Index | slice) -> Float32:
        """Moved and scaled rows, each number rounded once; whole ones are exact."""
        if not self._moves_narrow:
            return self.moved(index).astype(np.float32)
        block = self.raw(index, np.float32)
        if self.origin.any():
            block -= self.origin.astype(np.float32)
        if self.scale != 1:
            block *= np.float32(self.scale)
        return block

    @property
    def exact_sum_rows(self) -> int:
        """How many rows a product in float32 sums exactly; zero if none."""
        # A multiplier of eight significant bits (bfloat16) keeps whole numbers up to 256.
        if not self.integer or (self.device.input_roundoff > 0 and self.limit > 256):
            return 0
        return int(EXACT_FLOAT32 // max(1.0, self.limit))

    def summable(self, index: Index | slice) -> npt.NDArray[np.floating[Any]]:
        """Moved rows that can be summed exactly in their precision if they are whole."""
        size = index.stop - index.start if isinstance(index, slice) else len(index)
        return self._narrow(index) if size <= self.exact_sum_rows else self.moved(index)

    def move(self, centers: Float64) -> Float64:
        """Centres in the frame of the moved rows."""
        return (centers - self.origin) * self.scale

    def squared(self, a: float) -> float:
        """What a sum of squares of moved and scaled numbers is in the units of the rows squared.

        Infinite where float64 does not reach.
        """
        return float(a) / self.scale / self.scale

    # Sums

    def exact(self, bound: float, whole: bool = False, depth: float = 0) -> Exact:
        """How to sum weighted numbers of all rows, the largest of them `bound` before weighting."""
        whole = whole and self._weights_are_whole
        return Exact(bound * self._heaviest, self.total, whole, depth + self._weight_depth)

    def sum(self, values: Float64, whole: bool = False) -> float:
        """Weighted sum of a number of each row, of all ranks.

        Parameters
        ----------
        values : ndarray of shape (n,), float64
            Of this rank's rows.
        whole : bool, default=False
            Whether all are whole numbers.
        """
        largest = max(values.max(initial=0), -values.min(initial=0))
        exact = self.exact(float(self.group.max(largest)), whole)
        if self.weights is None:
            sums = exact.sums(values)
        else:  # in blocks, so that there is no further number of each row
            sums = np.zeros(exact.width)
            for part in slices(self.n, BLOCK):
                sums += exact.sums(values[part] * self.weights[part])
        return float(joined(self.group.sum(sums)))

    # Distances in float64

    def distances_sq(
        self, index: Index | None, centers: Float64, owner: npt.NDArray[np.integer[Any]]
    ) -> Float64:
        """Squared distances in float64 of chosen rows, in the moved frame.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or None
            The rows, of this rank's; all if None.
        centers : ndarray of shape (k, d), float64
            Centres as given, not moved.
        owner : ndarray of int, shape (m,)
            For each row the centre to measure to.

        Returns
        -------
        ndarray of shape (m,), float64
        """
        result = np.empty(self.n if index is None else len(index))

        def measure(part: slice) -> None:
            chosen = part if index is None else index[part]
            result[part] = self._direct(chosen, centers[owner[part]])

        self.host.map(measure, self.host_parts(len(result)))
        return result

    def distances_sq_to(self, index: Index | slice, row: Float64) -> Float64:
        """Squared distances in float64 of chosen rows to one row, in the moved frame.

        Exact for whole numbers. Computed by the calling thread.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or slice
            The rows, of this rank's.
        row : ndarray of shape (d,), float64
            One of the rows of any rank, as given.
        """
        if not self.products_are_exact:
            return self._direct(index, row)
        distances: Float64 = self.distances_sq_to_each(index, row[None])[0]
        return distances

    def distances_sq_to_each(self, index: Index | slice, rows: Float64) -> Float64:
        """Squared distances ``(c, m)`` of chosen rows to each of some rows, in one product.

        Exact. Only where `products_are_exact`; computed by the calling thread.

        Parameters
        ----------
        index : ndarray of int, shape (m,), or slice
            The rows, of this rank's; at least one.
        rows : ndarray of shape (c, d), float64
            Rows of any rank, as given.
        """
        block, centers = self._narrow(index), (rows - self.origin).astype(np.float32)
        norms_sq, own = np.vecdot(centers, centers.astype(np.float64)), self.norms_sq[index]
        result = np.empty((len(centers), len(block)))
        result[:] = product(block, -2 * centers.T).T
        # No sum of some of the features' products exceeds the product of the norms.
        long = np.flatnonzero(norms_sq * own.max() > EXACT_FLOAT32**2)
        if len(long) > 0:
            result[long] = self._exact_products(block, -2 * centers[long].T).T
        result += norms_sq[:, None]
        result += own
        return result

    def _direct(self, index: Index | slice, centers: Float64) -> Float64:
        """Squared distances of rows, each to its own or all to the same centre."""
        difference = self.raw(index)
        with np.errstate(over="ignore"):  # of given centres far off
            if self.scale < SMALLEST:  # differences of the largest numbers are larger still
                difference *= self.scale
                difference -= centers * self.scale
            else:
                difference -= centers
                difference *= self.scale
            # NumPy sums pairwise in the same order on every processor; einsum does not.
            squared: Float64 = np.square(difference, out=difference).sum(axis=1)
        return squared

    def _exact_products(self, a: Any, b: Any) -> Any:
        """Exact products of rows of whole numbers with a column, or with several."""
        parts = self._exact_features
        return sum(product(a[:, part], b[part]).astype(np.float64) for part in parts)


def _middle(sample: Float64) -> tuple[Float64, float]:
    """Where most rows of a sample are about, and the least that a usual one reaches from there.

    In each feature the mean, unless a few rows are so far off that the others lie nowhere near it.
    """
    few = sample[:: -(-len(sample) // FEW)]
    median = np.sort(few, axis=0)[len(few) // 2]
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.sort(np.abs(few - median), axis=0)[3 * len(few) // 4]
        reach[~np.isfinite(reach)] = 0
        mean = sample.mean(axis=0)
        near = np.abs(mean - median) <= np.where(reach > 0, DISTANT * reach, reach.max())
    return np.where(near, mean, median), float(reach[reach > 0].min(initial=reach.max()))


def _reach(low: Float64, high: Float64, origin: Float64) -> float:
    """Largest distance from the origin in any feature."""
    with np.errstate(over="ignore"):
        return float(np.max(np.maximum(high - origin, origin - low), initial=0.0))
