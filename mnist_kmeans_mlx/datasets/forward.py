"""Readers of rows that can be read only in order: Parquet files and batches."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.datasets.columns import Columns
from mnist_kmeans_mlx.datasets.faults import (
    DatasetError,
    Fault,
    PathLike,
    brief,
    claimed_bytes,
)
from mnist_kmeans_mlx.datasets.matrix import matrix_shape
from mnist_kmeans_mlx.datasets.readers import (
    STRETCH,
    changed,
    file_identity,
    known_dtype,
    stamp,
)
from mnist_kmeans_mlx.datasets.tables import opened_parquet

Array = NDArray[Any]


class ForwardReader:
    """Rows that arrive as consecutive arrays, in one order only.

    The reader remembers its position; to read earlier rows, it restarts. A lock admits one thread
    at a time.

    Parameters
    ----------
    name : str
        What a message calls it.
    shape : tuple (n, d)
    dtype : numpy.dtype
    starts : list of int
        Rows at which it can begin, ascending from 0.
    begin : callable
        ``begin(i)`` iterates over arrays of rows from ``starts[i]`` on.
    notes : sequence of str
        What was guessed about the columns, as of `Table`.
    identity : list, optional
        What tells these rows from others; None if only reading them can.
    """

    take = None

    def __init__(
        self,
        name: str,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        starts: list[int],
        begin: Callable[[int], Iterator[Array]],
        notes: Sequence[str] = (),
        identity: list[Any] | None = None,
    ) -> None:
        self.shape = shape
        self.dtype = known_dtype(dtype)
        self.files = [(name, 0)]
        self.notes = notes
        self.identity = identity
        self._starts = starts
        self._begin = begin
        self._lock = threading.Lock()
        self._arrays: Iterator[Array] | None = None
        self._rest: Array = np.empty((0, shape[1]), dtype)
        self._position = 0

    def read(self, start: int, out: Array) -> None:
        with self._lock:
            try:
                self._read(start, out)
            except BaseException:
                self._arrays = None
                raise

    def _read(self, start: int, out: Array) -> None:
        piece = bisect_right(self._starts, start) - 1
        if self._arrays is None or not self._starts[piece] <= self._position <= start:
            self._arrays, self._position = self._begin(piece), self._starts[piece]
            self._rest = self._rest[:0]
        done = 0
        while done < len(out):
            while not len(self._rest):
                self._rest = next(self._arrays)
            # Skip rows before `start`.
            passed = min(len(self._rest), start + done - self._position)
            taken = self._rest[passed : passed + len(out) - done]
            out[done : done + len(taken)] = taken
            done += len(taken)
            self._rest = self._rest[passed + len(taken) :]
            self._position += passed + len(taken)
        if self._position == self.shape[0]:
            next(self._arrays, None)  # raises if there are more rows than at first
            self._arrays = None


def parquet_reader(path: PathLike, columns: Columns | None = None) -> ForwardReader:
    """Read rows of a `.parquet` file, from the beginning of any of its row groups.

    Row groups may be larger than memory: they are decoded a few thousand rows at a time, which
    takes a page, a megabyte or two, of each column.
    """
    name = os.fspath(path)
    with opened_parquet(path, columns) as table:
        meta, shape, dtype = table.file.metadata, table.shape, table.dtype
        claimed_bytes(dtype, shape)
        groups = [meta.row_group(i).num_rows for i in range(meta.num_row_groups)]
        status = os.stat(path)
    before = stamp(status)
    identity = [*file_identity(path, status), *shape, dtype.str, list(table.fields)]
    starts = [0, *accumulate(groups)][:-1]
    step = max(1, STRETCH // (shape[1] * dtype.itemsize))
    # Without a buffer for each column pyarrow would read a whole row group.
    options = {
        "pre_buffer": False,
        "buffer_size": min(1 << 20, max(1 << 14, (1 << 25) // len(table.fields))),
    }

    def check() -> None:
        if not os.path.exists(path) or stamp(os.stat(path)) != before:
            raise changed()

    def begin(first: int) -> Iterator[Array]:
        row = starts[first]
        with opened_parquet(path, columns, **options) as table:
            batches = table.file.iter_batches(
                step, row_groups=range(first, len(groups)), columns=table.to_read,
                use_threads=False,
            )  # fmt: skip
            try:
                for batch in batches:
                    check()
                    rows = np.empty((batch.num_rows, shape[1]), dtype)
                    table.copy(batch, rows, row)
                    row += len(rows)
                    yield rows
                if row != shape[0]:
                    raise Fault(f"is damaged: it promises {shape[0]} rows and holds {row}")
            except Exception:
                check()  # a changed file explains any other error
                raise

    return ForwardReader(name, shape, dtype, starts, begin, table.notes, identity)


def batches_reader(batches: Iterable[Any]) -> ForwardReader:
    """Read rows of an iterable of arrays, which is iterated once now to learn their shapes."""
    if iter(batches) is batches:
        raise DatasetError(
            f"Batches are read several times, and this {type(batches).__name__} is used up after "
            "the first: give a list, or an object whose __iter__ restarts."
        )
    lengths: list[int] = []
    width: int | None = None
    dtypes = set()
    for number, batch in enumerate(batches):
        rows = _batch(number, batch)
        if width not in (None, rows.shape[1]):
            raise DatasetError(
                f"Batch {number} has {rows.shape[1]} columns, but batch 0 has {width}."
            )
        width = rows.shape[1]
        lengths.append(len(rows))
        dtypes.add(rows.dtype)
    if width is None or not sum(lengths) * width:
        raise DatasetError("Batches hold no rows, or rows without columns.")
    shape, dtype = (sum(lengths), width), np.result_type(*dtypes)
    others = "Batches are not those of the first pass: {}; they must be the same each time."

    def begin(_: int) -> Iterator[Array]:
        number = -1
        for number, batch in enumerate(batches):
            if number == len(lengths):
                raise DatasetError(others.format(f"there are more than {number}"))
            rows = _batch(number, batch)
            if rows.shape != (lengths[number], width) or rows.dtype not in dtypes:
                raise DatasetError(
                    others.format(
                        f"batch {number} (counted from 0) now is {rows.dtype} of shape {rows.shape}"
                    )
                )
            yield rows
        if number + 1 < len(lengths):
            raise DatasetError(others.format(f"only {number + 1} of {len(lengths)} came"))

    return ForwardReader("batches", shape, dtype, [0], begin)


def _batch(number: int, batch: Any) -> Array:
    from sklearn.utils import check_array

    try:
        try:
            # check_array also takes data frames that NumPy would hold as objects.
            rows = check_array(
                as_numpy(batch), accept_sparse="csr", dtype=None, ensure_all_finite=False,
                allow_nd=True, ensure_2d=False, ensure_min_samples=0, ensure_min_features=0,
            )  # fmt: skip
        except (TypeError, ValueError) as error:
            raise Fault(
                f"is no array of numbers ({brief(str(error).partition(chr(10))[0])})"
            ) from error
        rows = rows.toarray() if hasattr(rows, "toarray") else rows
        rows = rows.reshape(matrix_shape(rows.shape))
        if rows.dtype.kind not in "biuf" or rows.dtype.itemsize > 8:
            raise Fault(f"holds {rows.dtype}, not real numbers of up to 64 bits")
    except Fault as fault:
        raise DatasetError(f"Batch {number} (counted from 0) {fault}.") from None
    return rows
