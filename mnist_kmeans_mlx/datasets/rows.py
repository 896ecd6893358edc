"""A matrix that is read while it is used: blocks of a reader, with the next block read ahead."""

from __future__ import annotations

import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.datasets.readers import Array, Reader

# Large enough for a disk's full speed, and for computing to overlap with reading.
BLOCK_BYTES = 1 << 25
# The current block, the next one, and the last one, which other threads may still use.
_HELD = 3


class Rows:
    """A matrix whose rows are read on demand.

    Slices with step one and `take` work as on an array. Sequential access is fast: while one block
    is in use, a thread reads the next. Several threads may read at once.

    Parameters
    ----------
    reader : Reader
        Where rows come from.
    start, stop : int, optional
        The rows of the reader that these are; all if left out.
    block_bytes : int, default=32 MiB
        Size of a block, of which no more than three are held at a time; besides these there is
        only what callers hold. A block has at least one row.

    Attributes
    ----------
    shape : tuple (n, d)
    dtype : numpy.dtype
        bool, an integer or a float of up to 64 bits, in native byte order.
    ndim : int
        Always 2.
    streams : bool
        True: tells these rows from an array.
    block_rows : int
        Rows of a block. A slice within a block, the first of which begins at row 0, is a
        read-only view that keeps its block in memory; any other is a copy.
    """

    ndim = 2
    streams = True

    def __init__(
        self,
        reader: Reader,
        start: int = 0,
        stop: int | None = None,
        *,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        n, d = reader.shape
        self.shape = ((n if stop is None else stop) - start, d)
        self.dtype = reader.dtype
        self.block_bytes = block_bytes
        self.block_rows = max(1, min(block_bytes // (d * self.dtype.itemsize), self.shape[0]))
        self._reader = reader
        self._start = start
        self._lock = threading.Lock()
        self._held: dict[int, Future[Array]] = {}  # in order of use
        self._spare: list[Array] = []
        self._thread = ThreadPoolExecutor(1, "rows")

    @property
    def files(self) -> list[tuple[str, int]]:
        """Names of the files, for messages, and the first row of each.

        In a part, a first row may be negative: so many rows of that file lie before the part.
        """
        files = [(name, first - self._start) for name, first in self._reader.files]
        before = sum(first <= 0 for _, first in files)
        return [file for file in files[before - 1 :] if file[1] < max(1, len(self))]

    @property
    def identity(self) -> list[Any] | None:
        """Identity of the rows, in JSON types; None if only reading them can tell.

        Files are known by name, size, times of their last changes, and inode.
        """
        found = self._reader.identity
        return None if found is None else [found, self._start, len(self)]

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        name, others = self.files[0][0], len(self.files) - 1
        more = f" and {others} more" if others else ""
        return f"<{self.shape[0]} x {self.shape[1]} {self.dtype} rows of {name!r}{more}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        # NumPy would make an array of one object.
        raise TypeError(
            "Rows that are read in blocks are not an array: take a slice such as rows[:1000]."
        )

    def __getitem__(self, rows: slice) -> Array:
        """Return consecutive rows, read-only or copied."""
        if not isinstance(rows, slice) or rows.step not in (None, 1):
            raise TypeError("Rows support slices with step one, and take().")
        start, stop, _ = rows.indices(len(self))
        size = self.block_rows
        number = start // size
        if start < stop <= (number + 1) * size:
            return self._block(number)[start - number * size : stop - number * size]
        out = np.empty((max(0, stop - start), self.shape[1]), self.dtype)
        done = start
        while done < stop:
            number, first = divmod(done, size)
            part = self._block(number)[first : first + stop - done]
            out[done - start : done - start + len(part)] = part
            done += len(part)
        return out

    def take(self, index: npt.ArrayLike, axis: int = 0) -> Array:
        """Return copies of rows in any order, as ``ndarray.take`` does.

        Rows that lie close are read as one stretch, others singly; from a Parquet file or
        batches whole blocks are read.

        Parameters
        ----------
        index : array-like of int, shape (m,)
        axis : 0

        Returns
        -------
        ndarray of shape (m, d)
        """
        index = np.asarray(index)
        if axis != 0 or index.ndim != 1 or (index.dtype.kind not in "iu" and index.size):
            raise TypeError("take() needs a one-dimensional index of rows, and axis 0.")
        index = index.astype(np.intp, copy=False)
        if index.size and not -len(self) <= index.min() <= index.max() < len(self):
            raise IndexError(f"take is given a row that is not among these {len(self)}.")
        if np.any(index < 0):
            index = np.where(index < 0, index + len(self), index)
        if np.all(index[1:] > index[:-1]):
            return self._gather(index)
        index, places = np.unique(index, return_inverse=True)
        return np.take(self._gather(index), places, axis=0)

    def part(self, start: int, stop: int, *, block_bytes: int | None = None) -> Rows:
        """Return consecutive rows as a separate source, with its own blocks.

        Parameters
        ----------
        start, stop : int
            As in a slice.
        block_bytes : int, optional
            Size of its blocks, if not that of these.
        """
        start, stop, _ = slice(start, stop).indices(len(self))
        origin = self._start
        return Rows(
            self._reader,
            origin + start,
            origin + max(start, stop),
            block_bytes=block_bytes or self.block_bytes,
        )

    def _gather(self, index: npt.NDArray[np.intp]) -> Array:
        """Read rows of a strictly ascending index."""
        out = np.empty((len(index), self.shape[1]), self.dtype)
        numbers = index // self.block_rows
        ends = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(index)]
        for a, b in pairwise(ends):
            if a == b:
                continue
            number, take = int(numbers[a]), self._reader.take
            if take is None or number in self._held:
                rows = index[a:b] - number * self.block_rows
                # Without `mode`, NumPy would buffer `out` to restore it after an error.
                np.take(self._block(number), rows, axis=0, out=out[a:b], mode="clip")
            else:
                take(index[a:b] + self._start, out[a:b])
        return out

    def _block(self, number: int) -> Array:
        """Return a block, and prefetch the next one if access is sequential."""
        with self._lock:
            wanted = [number]
            in_order = number == 0 or number - 1 in self._held
            if in_order and (number + 1) * self.block_rows < len(self):
                wanted.insert(0, number + 1)
            kept = [other for other in self._held if other not in wanted][len(wanted) - _HELD :]
            # Drop other blocks first, so that their memory can be reused.
            self._held = held = {i: self._held[i] for i in (*kept, *wanted) if i in self._held}
            for i in reversed(wanted):
                if i not in held:
                    held[i] = self._thread.submit(self._read, i)
            future = held[number]
        try:
            return future.result()
        except BaseException:
            with self._lock:
                self._held.pop(number, None)  # to be tried again
            raise

    def _read(self, number: int) -> Array:
        start = number * self.block_rows
        stop = min(start + self.block_rows, len(self))
        try:
            memory = self._spare.pop()
        except IndexError:
            size = self.block_rows * self.shape[1] * self.dtype.itemsize
            memory = np.empty(size, np.uint8)
        # All views of the block keep `flat` alive. When it is collected, no view is left and the
        # memory can be reused: fresh pages are slow.
        flat = np.frombuffer(memory.data, self.dtype, (stop - start) * self.shape[1])
        weakref.finalize(flat, _keep, self._spare, memory).atexit = False
        block = flat.reshape(-1, self.shape[1])
        self._reader.read(self._start + start, block)
        block.flags.writeable = False
        return block


def _keep(spare: list[Array], memory: Array) -> None:
    if len(spare) < _HELD:
        spare.append(memory)
