"""Readers for rows that are not held in memory: each copies rows of one kind of source.

A reader has a shape and a dtype and reads consecutive rows. Blocks and threads are the concern
of `rows`.
"""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.binary import BFLOAT16, check_rest, npy_header, widened
from mnist_kmeans_mlx.datasets.faults import DatasetError, Fault, PathLike, opened
from mnist_kmeans_mlx.datasets.matrix import matrix_shape

Array = NDArray[Any]
Index = NDArray[np.intp]

# Bytes: reading over a gap this small is faster than a second request to an SSD.
_GAP = 1 << 16
# Bytes that are read or converted at once when scattered rows are gathered.
STRETCH = 1 << 22


class Reader(Protocol):
    """Rows that can be read, any number of times.

    Attributes
    ----------
    shape : tuple (n, d)
    dtype : numpy.dtype
        In native byte order.
    """

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    @property
    def files(self) -> list[tuple[str, int]]:
        """Name of each file for messages, and its first row, in order."""

    @property
    def identity(self) -> list[Any] | None:
        """Identity of the rows, in JSON types; None if only reading them can tell."""

    @property
    def take(self) -> Callable[[Index, Array], None] | None:
        """Fill an array with the rows of a strictly ascending index; None if it takes all rows."""

    def read(self, start: int, out: Array) -> None:
        """Fill `out`, C-contiguous and of this dtype, with the rows from `start` on."""


class FileReader:
    """Rows stored consecutively in a file.

    The file is opened anew for each read, which costs microseconds: thousands of shards need no
    descriptors, and whether the file has changed is looked up each time.

    Parameters
    ----------
    path : path-like
    offset : int
        Where in the file the first row begins.
    shape : tuple (n, d)
    dtype : numpy.dtype
        As in the file, in any byte order.
    """

    def __init__(
        self, path: PathLike, offset: int, shape: tuple[int, int], dtype: np.dtype[Any]
    ) -> None:
        self.path = os.fspath(path)
        self.shape = shape
        self.dtype = known_dtype(dtype)
        self.files = [(self.path, 0)]
        self._offset = offset
        self._swapped = not dtype.isnative
        self._row = shape[1] * dtype.itemsize
        status = os.stat(path)
        self._stamp = stamp(status)
        self.identity = [*file_identity(path, status), offset, *shape, dtype.str]

    def read(self, start: int, out: Array) -> None:
        with self._opened() as file:
            self._fill(file, start, out)
        self._convert(out)

    def take(self, index: Index, out: Array) -> None:
        steps = np.diff(index)
        most = max(1, STRETCH // self._row)
        # Rows that are adjacent, or a small gap apart, are read as one run of limited length.
        cuts = (steps > max(1, _GAP // self._row)) | (np.diff(index // most) > 0)
        ends = [0, *(np.flatnonzero(cuts) + 1).tolist(), len(index)]
        scratch: Array | None = None
        with self._opened() as file:
            for a, b in pairwise(ends):
                first = int(index[a])
                length = int(index[b - 1]) + 1 - first
                if length == b - a:
                    self._fill(file, first, out[a:b])
                else:
                    if scratch is None:
                        scratch = np.empty((most, self.shape[1]), self.dtype)
                    self._fill(file, first, scratch[:length])
                    # Without `mode`, NumPy would buffer `out` to restore it after an error.
                    np.take(scratch, index[a:b] - first, axis=0, out=out[a:b], mode="clip")
        self._convert(out)

    @contextmanager
    def _opened(self) -> Iterator[io.RawIOBase]:
        with opened(self.path) as file:
            yield cast(io.RawIOBase, file.raw)  # unbuffered: reads go straight into `out`
            if stamp(os.fstat(file.fileno())) != self._stamp:
                raise changed()

    def _fill(self, file: io.RawIOBase, start: int, out: Array) -> None:
        rest = out.reshape(-1).view(np.uint8).data
        file.seek(self._offset + start * self._row)
        while rest:
            count = file.readinto(rest)
            if not count:
                raise changed()
            rest = rest[count:]

    def _convert(self, out: Array) -> None:
        if self._swapped:
            out.byteswap(inplace=True)
        if self.dtype.kind == "b":  # whose bytes in a file need not be 0 and 1
            np.not_equal(out.view(np.uint8), 0, out=out)


class _Bfloat16Reader:
    """Rows of float32 for a file of bfloat16, which is read as whole numbers of two bytes."""

    def __init__(self, words: FileReader) -> None:
        self.shape, self.files = words.shape, words.files
        self.dtype = np.dtype(np.float32)
        self.identity = [*words.identity, "bfloat16"]
        self._words = words
        self._step = max(1, STRETCH // (2 * self.shape[1]))

    def read(self, start: int, out: Array) -> None:
        for a, words in self._widened(out):
            self._words.read(start + a, words)

    def take(self, index: Index, out: Array) -> None:
        for a, words in self._widened(out):
            self._words.take(index[a : a + len(words)], words)

    def _widened(self, out: Array) -> Iterator[tuple[int, Array]]:
        """Places in `out`, each with words to be read, which are then widened into it."""
        for a in range(0, len(out), self._step):
            part = out[a : a + self._step]
            words = np.empty(part.shape, BFLOAT16)
            yield a, words
            part[...] = widened(words, BFLOAT16)


def npy_reader(path: PathLike) -> Reader:
    """Read rows of an `.npy` file; an array of more than two dimensions is flattened."""
    with opened(path) as file:
        dtype, shape, order = npy_header(file)
        check_rest(file, dtype, shape)
        if order == "F":
            raise Fault(
                "is in Fortran order, so that no row of it lies in one piece: "
                "save np.ascontiguousarray(array)"
            )
        reader = FileReader(path, file.tell(), matrix_shape(shape), dtype)
        return _Bfloat16Reader(reader) if dtype is BFLOAT16 else reader


class ShardsReader:
    """The concatenated rows of several readers, in a common dtype."""

    def __init__(self, readers: list[Any]) -> None:
        first = readers[0]
        for reader in readers:
            if reader.shape[1] != first.shape[1]:
                raise DatasetError(
                    f"{reader.files[0][0]!r} has {reader.shape[1]} columns, but "
                    f"{first.files[0][0]!r} has {first.shape[1]}: shards have the same."
                )
        self._readers = readers
        *self._starts, n = accumulate((reader.shape[0] for reader in readers), initial=0)
        self.shape = (n, first.shape[1])
        self.dtype = np.result_type(*{reader.dtype for reader in readers})

    @property
    def files(self) -> list[tuple[str, int]]:
        names = [reader.files[0][0] for reader in self._readers]
        return list(zip(names, self._starts, strict=True))

    @property
    def identity(self) -> list[Any] | None:
        found = [reader.identity for reader in self._readers]
        return None if None in found else found

    @property
    def take(self) -> Callable[[Index, Array], None] | None:
        return self._take if all(reader.take for reader in self._readers) else None

    def read(self, start: int, out: Array) -> None:
        shard = bisect_right(self._starts, start) - 1
        done = 0
        while done < len(out):
            reader, first = self._readers[shard], start + done - self._starts[shard]
            part = out[done : done + reader.shape[0] - first]
            step = len(part)
            if reader.dtype != self.dtype:
                step = max(1, STRETCH // (self.shape[1] * reader.dtype.itemsize))
            for a in range(0, len(part), step):
                with _as(reader.dtype, part[a : a + step]) as rows:
                    reader.read(first + a, rows)
            done += len(part)
            shard += 1

    def _take(self, index: Index, out: Array) -> None:
        ends = np.searchsorted(index, [*self._starts, self.shape[0]]).tolist()
        for reader, start, a, b in zip(self._readers, self._starts, ends, ends[1:], strict=False):
            if a < b:
                with _as(reader.dtype, out[a:b]) as rows:
                    reader.take(index[a:b] - start, rows)


@contextmanager
def _as(dtype: np.dtype[Any], out: Array) -> Iterator[Array]:
    """Yield a buffer of another dtype, and copy it to `out` afterwards."""
    rows = out if dtype == out.dtype else np.empty(out.shape, dtype)
    yield rows
    if rows is not out:
        out[...] = rows


def known_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.itemsize > 8:
        raise Fault(f"holds {dtype}, of more than 64 bits: save array.astype(np.float64)")
    return dtype.newbyteorder("=")


def stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def file_identity(path: PathLike, status: os.stat_result) -> list[Any]:
    """Identity of the contents of a file, without reading them.

    The time of the last change of the inode cannot be set back, as that of the contents can. The
    device is left out: its number may be another one after the machine was started again.
    """
    times = status.st_mtime_ns, status.st_ctime_ns
    return [os.path.realpath(path), status.st_ino, status.st_size, *times]


def changed() -> Fault:
    return Fault("has changed since it was opened: start again when no other process writes to it")
