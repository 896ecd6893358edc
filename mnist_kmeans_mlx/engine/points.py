"""The rows to cluster: their frame, what they hold, and sums over all of them and all ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix, issparse

from mnist_kmeans_mlx.device import Device, slices
from mnist_kmeans_mlx.distributed import ALONE, Group
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.differences import SMALLEST, sums_of_squares, to_own
from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined
from mnist_kmeans_mlx.engine.frame import Frame
from mnist_kmeans_mlx.engine.lattice import Lattice

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Index = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int32]

# Bytes of float64 rows that a core works on at once: they stay in its cache.
HOST_BLOCK = 4 << 20
# Rows from which the origin is found, in as many bytes at most.
SAMPLE, SAMPLE_BYTES = 4096, 16 << 20
# With less, one piece is quicker than threads and bounds: what takes time is n (d + 25), whatever
# the number of centres (`is_little`). Half of it costs 15 to 49 %, and twice of it gains 10 to
# 34 %: scripts/bench_strategy.py ONE_PIECE. Other rows, of many iterations, lost up to half by it.
ONE_PIECE, FIXED = 1_000_000, 25
# With less, counted likewise, one thread takes up to a quarter less time than two, whose steps are
# so short that they wait for the interpreter; with many centres a tenth more.
ONE_THREAD = 5_000_000
# Numbers side by side that NumPy goes along at once.
ABREAST = 512
# Binary digits that a number of a row keeps in a sum, counted from the largest of all. Usual
# numbers that lie more than so many digits below keep more.
GRID, DEEP = 48, 16

Stage = Callable[[str], AbstractContextManager[None]]


def is_little(n: int, d: int) -> bool:
    """Whether rows are so few that one piece is quicker than threads, bounds or a lattice."""
    return _size(n, d) <= ONE_PIECE


def _size(n: int, d: int) -> int:
    """What takes time of `n` rows of `d` features."""
    return n * (d + FIXED)


def along_rows(function: np.ufunc, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a function of two numbers makes of each feature ``(d,)`` of rows, in any order.

    Many narrow rows are taken for fewer wide ones: NumPy goes along these.
    """
    m, d = block.shape
    together = max(1, ABREAST // d)
    full = m - m % together
    found = function.reduce(block[:full].reshape(-1, together * d), axis=0) if full else None
    parts = [block[full:]] if found is None else [found.reshape(together, d), block[full:]]
    result: npt.NDArray[Any] = function.reduce(np.concatenate(parts), axis=0)
    return result


def length(index: Index | slice) -> int:
    """How many rows a slice or an index names."""
    return index.stop - index.start if isinstance(index, slice) else len(index)


def taken(rows: Any, index: Index | slice | list[int]) -> Any:
    """Rows of a slice, not copied, or of an index."""
    return rows[index] if isinstance(index, slice) else rows.take(index, axis=0)


def unwatched(stage: str) -> AbstractContextManager[None]:
    """A stage that nobody wants to know of."""
    return nullcontext()


class Points:
    """Rows to cluster, in their `frame`.

    The ranks of a group each hold a part of the rows, numbered from the first row of rank 0 to the
    last of the last. What all rows decide, such as the origin, is found together and is the same
    as if one process held them all.

    Parameters
    ----------
    rows : ndarray of shape (n, d), CSR matrix or source of rows
        Finite numbers of any real dtype. Of a source, slices and `take` read what they give.
    device : Device
        Where a way may compute; `host` is the CPU beside it, or the same.
    weights : ndarray of shape (n,), dtype float64, optional
        Weight of each row; all one if None.
    group : Group, optional
        The ranks, if there are others.
    keep : bool, default=True
        Whether to keep copies of all rows, as a way wants them: otherwise each pass makes them
        anew.
    spare : int, optional
        Bytes that bounds may take; a quarter of the machine's memory if None.
    stage : callable, optional
        ``stage(name)`` is a context that is entered for as long as a stage of the fit lasts, by
        whoever has the rows: "upload", "seeding", "iterations", "final".

    Attributes
    ----------
    total : int
        Number of rows, on all ranks.
    ends : ndarray of int, shape (ranks,)
        Number of the row that follows the last of each rank.
    offset : int
        Number of this rank's first row.
    origin, scale, limit, depth, integer
        The frame: see `Frame`.
    is_sparse : bool
        Whether rows are a CSR matrix, whose origin is zero.
    is_narrow : bool
        Whether there are moved and scaled rows as whole numbers of one or two bytes, `narrow_rows`,
        but for an origin: others are made from them as quickly as copied.
    on_lattice : bool
        Whether rows lie on a `Lattice`: then whole numbers stand for them.
    residual : float
        How far at most, as a vector, a moved and scaled row is from the whole numbers.
    is_deep : bool
        Whether usual rows or weights are so much smaller than the largest, or all rows so small,
        that `GRID` digits are not enough.
    row_sums, weight_sums : Exact
        How to sum weighted rows, moved and scaled, and weights.
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
        self.is_sparse = issparse(rows)
        self.rows = rows = csr.canonical(rows) if self.is_sparse else rows
        self.stage = stage
        few = not self.is_sparse and _size(*rows.shape) < ONE_THREAD
        self.device, self.host = device, device.host.alone if few else device.host
        self.weights = weights
        self.group = group
        self.spare = device.memory_bytes // 4 if spare is None else spare
        self.keep = keep
        self.n, self.d = rows.shape
        self.ends = np.cumsum(group.gather(np.array([self.n])))
        self.total = int(self.ends[-1])
        self.offset = int(self.ends[group.rank]) - self.n
        self.host_step = max(1, HOST_BLOCK // (8 * self.d))
        self._heaviest, self._weights_are_whole, self._weight_depth = 1.0, True, 0.0
        if weights is not None:
            self._heaviest = float(group.max(weights.max(initial=0)))
            self._weights_are_whole = bool(group.min(np.all(weights == np.rint(weights))))
            heavy = weights[weights > 0]
            usual = group.min(np.median(heavy) if len(heavy) else self._heaviest)
            self._weight_depth = float(np.log2(self._heaviest) - np.log2(usual))
        self._is_float32 = rows.dtype in (np.float16, np.float32)
        self._lattice: Lattice | None = None
        self._whole: npt.NDArray[Any] | None = None
        self.residual = 0.0
        frame = self._sparse_frame() if self.is_sparse else self._frame()
        self.origin, self.scale, self.limit = frame.origin, frame.scale, frame.limit
        self._shifts = bool(self.origin.any())
        self.depth, self.integer = frame.depth, frame.integer
        self._moves_narrow = frame.moves_narrow
        self.on_lattice = self._lattice is not None
        given = rows.dtype.kind in "biu" and rows.dtype.itemsize <= 2 and not self.is_sparse
        self.is_narrow = self._whole is not None or (given and self.integer)
        # Below 2^-1000 no power of two that float64 has brings the largest near one.
        tiny = not self.integer and 0 < self.limit < 0.5
        self.is_deep = tiny or self.depth + self._weight_depth > DEEP
        grid = None if self.is_deep else GRID
        self.row_sums = self.exact(self.limit, self.integer, self.depth, grid)
        self.weight_sums = self.exact(1, whole=True, grid=grid)

    def _frame(self) -> Frame:
        most = min(SAMPLE, max(8, SAMPLE_BYTES // (8 * self.d)))
        if self.total <= most and self.group.size == 1:
            sample = np.asarray(self.given(slice(0, self.n)), np.float64)  # not copied
        else:
            sample = self.pick(np.arange(0, self.total, -(-self.total // most)))
        if not is_little(self.total, self.d) and (found := self._find_lattice(sample)):
            return found
        low, high, whole = self._range()
        return Frame.of(low, high, whole, sample, self._is_float32)

    def _find_lattice(self, sample: Float64) -> Frame | None:
        """The frame in which rows are whole numbers, if all lie on the lattice of a sample."""
        dtype = self.rows.dtype
        if dtype.kind in "biu" and dtype.itemsize <= 2:
            return None
        lattice = Lattice.guess(sample, dtype)
        if lattice is None:
            return None
        tried = (self._on_lattice(lattice, narrow) for narrow in lattice.dtypes)
        return next(filter(None, tried), None)

    def _on_lattice(self, lattice: Lattice, dtype: Any) -> Frame | None:
        """The frame of a lattice, if all rows lie on it, no farther off than a dtype holds."""
        kept = np.empty((self.n, self.d), dtype) if self.keep else None
        bounds, lost = np.iinfo(dtype), threading.Event()

        def verify(part: slice) -> Float64:
            if lost.is_set():
                return np.full(2, np.inf)
            whole, off = lattice.whole(self.raw(part))
            low, high = float(whole.min()), float(whole.max())
            if not (off <= lattice.slack and bounds.min <= low and high <= bounds.max):
                lost.set()
            elif kept is not None:
                kept[part] = whole
            return np.array([off, max(high, -low)])

        off, limit = self.group.max(self.folded(verify, np.maximum))
        if self.group.max(lost.is_set()):
            return None
        self._lattice, self._whole = lattice, kept
        self.residual = 1.01 * float(off + lattice.roundoff) * np.sqrt(self.d)
        return Frame(lattice.origin, lattice.scale, float(limit), 0.0, True, False)

    def _sparse_frame(self) -> Frame:
        largest, least, whole = 0.0, np.inf, True
        for part in csr.parts(self.rows):
            sizes = np.abs(csr.block(self.rows, part).data)
            whole = whole and bool(np.all(sizes == np.rint(sizes)))
            largest = float(np.maximum(largest, sizes.max(initial=0)))
            least = min(least, float(sizes.min(initial=np.inf, where=sizes > 0)))
            if not np.isfinite(largest):
                break
        largest, least = float(self.group.max(largest)), float(self.group.min(least))
        if not np.isfinite(largest):
            raise ValueError("Input X contains NaN or infinity.")
        reach = np.array([largest, least] if largest > 0 else [0.0])
        if least < largest * 2.0**-DEEP:  # perhaps by far in a single column, perhaps nowhere else
            reach = np.zeros(self.d)
            for part in csr.parts(self.rows):
                block = csr.block(self.rows, part)
                np.maximum.at(reach, block.indices, np.abs(block.data))
            reach = self.group.max(reach)
        return Frame.about_zero(self.d, reach, bool(self.group.min(whole)))

    def _range(self) -> tuple[Float64, Float64, bool]:
        """Lowest and highest value of each feature, and whether all values are whole numbers."""
        dtype = self.rows.dtype
        if dtype.kind in "bu" and dtype.itemsize == 1:
            top = 1.0 if dtype.kind == "b" else 255.0
            return np.zeros(self.d), np.full(self.d, top), True

        fractions = threading.Event()

        def is_whole(block: npt.NDArray[Any]) -> bool:
            return bool(np.all(block == np.rint(block)))

        def part_range(part: slice) -> tuple[Float64, Float64]:
            block = np.asarray(self.given(part), np.float32 if self._is_float32 else np.float64)
            # Looking for fractions costs as much as all the rest: one is enough.
            looking = dtype.kind not in "biu" and not fractions.is_set()
            if looking and not (is_whole(block[:1]) and is_whole(block)):
                fractions.set()
            return along_rows(np.minimum, block), along_rows(np.maximum, block)

        def widest(a: tuple[Float64, Float64], b: tuple[Float64, Float64]) -> Any:
            return np.minimum(a[0], b[0]), np.maximum(a[1], b[1])

        low, high = (a.astype(np.float64) for a in self.folded(part_range, widest))
        if not (np.isfinite(low) & np.isfinite(high)).all():
            raise ValueError("Input X contains NaN or infinity.")
        whole = bool(self.group.min(not fractions.is_set()))
        return self.group.min(low), self.group.max(high), whole

    # Rows

    def host_parts(self, n: int | None = None) -> list[slice]:
        """Slices of rows that stay in cache as float64."""
        return slices(self.n if n is None else n, self.host_step)

    def raw(self, index: Index | slice | list[int], dtype: Any = np.float64) -> npt.NDArray[Any]:
        """Rows as given, in float64 or another dtype."""
        rows = self.given(index)
        given = rows.toarray() if self.is_sparse else rows
        return given.astype(dtype, copy=isinstance(index, slice))

    def given(self, index: Index | slice | list[int]) -> Any:
        """Rows as they came, not necessarily copied."""
        return self.rows[index] if self.is_sparse else taken(self.rows, index)

    def pick(self, index: Index, values: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Rows as given, in float64, or entries of `values`, by their numbers among all ranks'.

        Every rank has to ask for the same, and gets them.
        """
        if self.group.size == 1:
            return self.raw(index) if values is None else values[index]
        owner = np.searchsorted(self.ends, index, side="right")
        mine = index[owner == self.group.rank] - self.offset
        found = self.group.gather(self.raw(mine) if values is None else values[mine])
        picked = np.empty_like(found)
        picked[np.argsort(owner, kind="stable")] = found
        return picked

    def pick_given(self, index: Index) -> Any:
        """The same rows as `pick` gives, but sparse ones as a CSR matrix."""
        if not self.is_sparse:
            return self.pick(index)
        if self.group.size == 1:
            return csr.block(self.rows, index)
        owner = np.searchsorted(self.ends, index, side="right")
        mine = csr.block(self.rows, index[owner == self.group.rank] - self.offset)
        lengths = self.group.gather(np.diff(mine.indptr).astype(np.int64))
        data, columns = self.group.gather(mine.data), self.group.gather(mine.indices)
        ends = np.concatenate([[0], np.cumsum(lengths)])
        found = csr_matrix((data, columns, ends), shape=(len(index), self.d))
        return found[np.argsort(np.argsort(owner, kind="stable"))]

    def moved(self, index: Index | slice) -> Float64:
        """Moved and scaled rows in float64: of a lattice its points."""
        if self._whole is not None:
            return self.narrow_rows(index).astype(np.float64)
        block = self.raw(index)
        if self._lattice is not None:
            return self._lattice.whole(block)[0]
        if self._shifts:
            block -= self.origin
        if self.scale != 1:
            block *= self.scale
        return block

    def narrow(self, index: Index | slice) -> Float32:
        """Moved and scaled rows, each number rounded once; whole ones are exact."""
        if self._whole is not None:
            return self.narrow_rows(index).astype(np.float32)
        if not self._moves_narrow:
            return self.moved(index).astype(np.float32)
        block = self.raw(index, np.float32)
        if self._shifts:
            block -= self.origin.astype(np.float32)
        if self.scale != 1:
            block *= np.float32(self.scale)
        return block

    def narrow_rows(self, index: Index | slice) -> npt.NDArray[Any]:
        """Rows in one or two bytes a number, where they are `is_narrow`."""
        if self._whole is None:
            return np.asarray(self.given(index))
        return np.asarray(taken(self._whole, index))

    def move(self, centers: Float64) -> Float64:
        """Centres in the frame of the moved rows."""
        return (centers - self.origin) * self.scale

    def move_rows(self, rows: Float64) -> Float64:
        """Rows as given in the frame of the moved ones: of a lattice its points."""
        return self.move(rows) if self._lattice is None else self._lattice.whole(rows.copy())[0]

    def squared(self, a: float) -> float:
        """What a sum of squares of moved and scaled numbers is in the units of the rows squared.

        Infinite where float64 does not reach.
        """
        return float(a) / self.scale / self.scale

    # Sums

    def exact(
        self, bound: float, whole: bool = False, depth: float = 0, grid: int | None = None
    ) -> Exact:
        """How to sum weighted numbers of all rows, the largest of them `bound` before weighting."""
        whole, depth = whole and self._weights_are_whole, depth + self._weight_depth
        return Exact(bound * self._heaviest, self.total, whole, depth, grid)

    def weighted(self, values: Float64, part: slice = slice(None)) -> Float64:
        """Numbers ``(..., m)`` of the rows of a part, each times the weight of its row."""
        return values if self.weights is None else values * self.weights[part]

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

    def convert(self, take: Callable[[slice, Float64], None]) -> tuple[Float64, float, float]:
        """Go through all rows, moved and scaled, in float64, a part at a time.

        Parameters
        ----------
        take : callable
            ``take(part, block)`` takes what it wants of each part.

        Returns
        -------
        norms_sq : ndarray of shape (n,), float64
            Squared norms.
        norm_sq, mean_variance : float
            As `moments` gives them.
        """
        norms_sq = np.empty(self.n)

        def convert(part: slice) -> Float64:
            block = self.moved(part)
            take(part, block)
            norms_sq[part], column_sums = self.measure(block)
            return column_sums

        return norms_sq, *self.moments(self.folded(convert, np.add), norms_sq)

    def measure(self, block: Float64) -> tuple[Float64, Float64]:
        """Squared norms of rows ``(m, d)``, moved and scaled, and the sums of columns ``(d,)``."""
        values = Exact(self.limit, self.total, self.integer)
        return np.square(block).sum(axis=1), along_rows(np.add, values.rough(block))

    def moments(self, column_sums: Float64, norms_sq: Float64) -> tuple[float, float]:
        """What all rows of all ranks amount to.

        Parameters
        ----------
        column_sums : ndarray of shape (d,), float64
            Of this rank's moved and scaled rows.
        norms_sq : ndarray of shape (n,), float64
            Their squared norms; the sum of these is enough where rows have no weights.

        Returns
        -------
        norm_sq : float
            The weighted sum of all squared norms.
        mean_variance : float
            The mean over the features of the variance.
        """
        mean = self.group.sum(column_sums) / self.total
        norms = Exact(self.d * self.limit**2 * (1 + 1e-9), self.total, self.integer)
        norm_sq = float(joined(self.group.sum(norms.sums(np.atleast_1d(norms_sq)))))
        variance = (norm_sq / self.total - float(np.square(mean).sum())) / self.d
        weighted = norm_sq if self.weights is None else self.norm_sq(norms_sq)
        return weighted, max(0.0, variance)

    def norm_sq(self, norms_sq: Float64) -> float:
        """The weighted sum of the squared norms of all rows of all ranks."""
        return self.sum(norms_sq, self.integer)

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
        if self.is_sparse:
            return self._sparse_distances_sq(index, centers, owner)
        result = np.empty(self.n if index is None else len(index))

        def measure(part: slice) -> None:
            chosen = part if index is None else index[part]
            result[part] = to_own(self.given(chosen), centers, owner[part], self.scale)

        self.host.map(measure, self.host_parts(len(result)))
        return result

    def _sparse_distances_sq(
        self, index: Index | None, centers: Float64, owner: npt.NDArray[np.integer[Any]]
    ) -> Float64:
        rows = self.rows if index is None else self.rows[index]
        if self.scale != 1:
            rows = rows * self.scale
        return csr.distances_sq(rows, centers * self.scale, owner, self.host)

    def inertia(self, centers: Float64, labels: Labels) -> float:
        """Weighted sum of squared distances of the moved and scaled rows to their centres."""
        return self.sum(self.distances_sq(None, centers, labels))

    def folded(self, function: Callable[[slice], Any], combine: Callable[[Any, Any], Any]) -> Any:
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

    def between(self, index: Index | slice, row: Float64) -> Float64:
        """Squared distances of rows to another row, given: of points of a lattice whole numbers."""
        if self._lattice is None:
            return self.direct(index, row)
        difference = self.moved(index)
        difference -= self.move_rows(row)
        return sums_of_squares(difference)

    def direct(self, index: Index | slice, centers: Float64) -> Float64:
        """Squared distances of rows, each to its own or all to the same centre."""
        difference, scale = self.raw(index), self.scale
        with np.errstate(over="ignore"):  # of given centres far off
            if scale < SMALLEST:  # differences of the largest numbers are larger still
                difference *= scale
                centers, scale = centers * scale, 1.0
            difference -= centers
            return sums_of_squares(difference, scale)
