"""Columns of numbers -> a file: a writer for each format, given rows a block at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.datasets.faults import PathLike
from mnist_kmeans_mlx.datasets.tables import arrow
from mnist_kmeans_mlx.formats import format_of
from mnist_kmeans_mlx.persistence.files import write_atomically

Blocks = Iterable[npt.NDArray[Any]]


def save_columns(path: PathLike, columns: Mapping[str, npt.ArrayLike]) -> None:
    """Write columns of the same length to a file, whole or not at all.

    Parameters
    ----------
    path : path-like
        Its suffix names the format.
    columns : mapping of str to array-like of shape (n,)
    """
    kind = format_of(path, "write")
    assert kind is not None
    with write_atomically(path) as file:
        kind.function("write")(file, list(columns), [np.column_stack(list(columns.values()))])


def write_npy(file: IO[bytes], names: Sequence[str], blocks: Blocks) -> None:
    """Write an array: a vector if there is one column, which has no name."""
    rows = np.concatenate(list(blocks))
    np.save(file, rows[:, 0] if len(names) == 1 else rows, allow_pickle=False)


def write_csv(file: IO[bytes], names: Sequence[str], blocks: Blocks) -> None:
    """Write text with a header."""
    file.write(f"{','.join(names)}\n".encode())
    for rows in blocks:
        lines = (",".join(map(str, row)) for row in rows)
        file.write("".join(f"{line}\n" for line in lines).encode())


def write_parquet(file: IO[bytes], names: Sequence[str], blocks: Blocks) -> None:
    """Write a row group for each block."""
    pa, pq = arrow()
    tables = (pa.table(list(map(np.ascontiguousarray, rows.T)), names) for rows in blocks)
    first = next(tables)
    with pq.ParquetWriter(file, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
