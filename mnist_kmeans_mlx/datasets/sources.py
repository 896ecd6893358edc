"""Rows that are read in blocks rather than held: data larger than memory."""

from __future__ import annotations

import glob
import mmap
import os
import re
import warnings
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np

from mnist_kmeans_mlx.datasets import matrix
from mnist_kmeans_mlx.datasets.columns import Columns
from mnist_kmeans_mlx.datasets.faults import (
    DatasetError,
    DatasetWarning,
    Fault,
    PathLike,
    blaming,
    opened,
)
from mnist_kmeans_mlx.datasets.forward import batches_reader
from mnist_kmeans_mlx.datasets.readers import FileReader, Reader, ShardsReader
from mnist_kmeans_mlx.datasets.rows import BLOCK_BYTES, Rows
from mnist_kmeans_mlx.formats import format_of, suffixes


class Batches(Rows):
    """Rows of an iterable of arrays that can be iterated any number of times.

    Parameters
    ----------
    batches : iterable of array-like of shape (m, d)
        A list, or an object whose ``__iter__`` restarts; it must give the same arrays each
        time. It is iterated once now, to learn n, d and dtype, and then forward: asking for rows
        that lie before the last ones begins again.
    block_bytes : int, default=32 MiB
        As of `Rows`.

    Raises
    ------
    DatasetError
        It is an iterator, which ends after one pass; it holds no rows, no real numbers, or rows
        of different lengths; or, while rows are read, it gives other arrays than at first.
    """

    def __init__(self, batches: Iterable[Any], *, block_bytes: int = BLOCK_BYTES) -> None:
        super().__init__(batches_reader(batches), block_bytes=block_bytes)


def open_rows(
    paths: PathLike | Iterable[PathLike],
    *,
    columns: Columns | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Rows:
    r"""Open files of numbers whose rows are read in blocks, as data larger than memory must be.

    Parameters
    ----------
    paths : path-like, or iterable of path-like
        ``.npy`` files in C order or ``.parquet`` files (needs pyarrow) of the same number of
        columns. A pattern such as ``"rows-*.npy"`` stands for all files that match, sorted by
        name, with numbers in it by value: 2 before 10.
    columns : str, or iterable of int and str, optional
        Of ``.parquet`` files: as of `load_matrix`, as is what is left out if None.
    block_bytes : int, default=32 MiB
        How much is read at a time; no more than three such blocks are held. A Parquet file takes
        another one, and a page, a megabyte or two, for each column.

    Returns
    -------
    Rows
        Of the dtype that holds those of all files, in native byte order. Arrays of more than two
        dimensions are flattened.

    Raises
    ------
    DatasetError
        In one sentence that names the file: as of `load_matrix`, but NaN and infinity, which take
        a pass to find, are left to `check_finite`; later, when rows are read, also for a file that
        has changed or cannot be read any more.

    Warns
    -----
    DatasetWarning
        As of `load_matrix`, of the first file.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import open_rows
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for i in range(3):
    ...         np.save(Path(folder, f"shard-{i}.npy"), np.full((2, 2), i))
    ...     rows = open_rows(f"{folder}/shard-*.npy")
    ...     print(rows.shape, rows.dtype)
    ...     print(rows[1:4])
    (6, 2) int64
    [[0 0]
     [1 1]
     [1 1]]
    """
    listed = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if columns is not None and not isinstance(columns, str):
        columns = list(columns)  # which each of the files is asked for
    readers: list[Reader] = [_reader(file, columns) for path in listed for file in _files(path)]
    if not readers:
        raise DatasetError("No file is given whose rows could be read.")
    for note in getattr(readers[0], "notes", ()):
        warnings.warn(f"{readers[0].files[0][0]!r} {note}.", DatasetWarning, stacklevel=2)
    if len(readers) > 1:
        return Rows(ShardsReader(readers), block_bytes=block_bytes)
    with blaming(readers[0].files[0][0]):
        if readers[0].shape[0] < 2:
            raise Fault("has one row only, and K-means needs at least 2")
    return Rows(readers[0], block_bytes=block_bytes)


def from_memmap(array: Any, *, block_bytes: int = BLOCK_BYTES) -> Rows | None:
    """Return the rows of a mapped file as a source, which holds only blocks of it.

    Parameters
    ----------
    array : object
        Such as ``np.load(path, mmap_mode="r")`` and what `load_matrix` gives for an ``.npy`` file,
        or consecutive rows of these.
    block_bytes : int, default=32 MiB
        As of `Rows`.

    Returns
    -------
    Rows or None
        None for anything but a read-only, C-contiguous matrix of real numbers in a file that is
        still there.
    """
    if not isinstance(array, np.memmap) or array.ndim != 2 or not array.size:
        return None
    root: Any = array
    while isinstance(root.base, np.memmap):
        root = root.base
    number = array.dtype.kind in "biuf" and array.dtype.itemsize <= 8
    mapped = array.mode == "r" and isinstance(root.base, mmap.mmap) and root.filename is not None
    if not (mapped and number and array.flags.c_contiguous):
        return None
    offset = root.offset + array.ctypes.data - root.ctypes.data
    try:
        reader = FileReader(root.filename, offset, array.shape, array.dtype)
        ends = Rows(reader).take([0, -1])
    except (OSError, DatasetError):
        return None
    # The path may now name another file, while the map still shows the old one.
    if ends.tobytes() != np.asarray(array[[0, -1]], ends.dtype).tobytes():
        return None
    return Rows(reader, block_bytes=block_bytes)


def check_finite(rows: Rows) -> None:
    """Read all rows once, and refuse NaN and infinity.

    Raises
    ------
    DatasetError
        Names the file, how many there are in it, and its first row that has any.
    """
    files = rows.files
    for (name, first), (_, end) in pairwise([*files, ("", len(rows))]):
        with blaming(name):
            matrix.check_finite(rows, max(first, 0), end, first)


def _reader(path: str, columns: Columns | None) -> Reader:
    with opened(path):  # a missing file before an unknown suffix
        kind = format_of(path, "blocks")
        if kind is None:
            raise Fault(
                f"cannot be read in blocks, as {suffixes('blocks')} can: load_matrix reads others"
            )
        options = matrix.taken(kind, {"columns": columns})
        reader: Reader = kind.function("blocks")(path, **options)
        return reader


def _files(path: PathLike) -> list[str]:
    name = os.fspath(path)
    if os.path.exists(name) or not glob.has_magic(name):
        return [name]
    found = glob.glob(name, recursive=True)
    if not found:
        raise DatasetError(f"{name!r} matches no file.")
    return sorted(found, key=_natural)


def _natural(name: str) -> list[str | int]:
    """Key that sorts 2 before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split("([0-9]+)", name)]
