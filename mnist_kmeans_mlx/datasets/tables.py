"""A `.parquet` table, of numbers or of lists of numbers -> one matrix."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.columns import Columns, Table, chosen, features
from mnist_kmeans_mlx.datasets.faults import (
    Fault,
    PathLike,
    brief,
    check_memory,
    claimed_bytes,
    opened,
    start_of,
)


@dataclass(frozen=True)
class ParquetTable:
    """An open Parquet file, and the columns that make the matrix.

    Attributes
    ----------
    file : pyarrow.parquet.ParquetFile
    names : list of str
        Of all columns.
    fields : dict of int to pyarrow.Field
        Numeric columns by position (names may repeat), or a single column of lists.
    width : int
        Number of features.
    dtype : numpy.dtype
        That holds all of them.
    label : int or None
        The place of a column of labels.
    notes : list of str
        As of `Table`.
    """

    file: Any
    names: list[str]
    fields: dict[int, Any]
    width: int
    dtype: np.dtype[Any]
    label: int | None
    notes: list[str]

    @property
    def shape(self) -> tuple[int, int]:
        return self.file.metadata.num_rows, self.width

    @cached_property
    def to_read(self) -> list[str] | None:
        """Names of the columns to read; None for all, where names do not tell them apart."""
        places = [*self.fields, *([] if self.label is None else [self.label])]
        names = [self.names[place] for place in places]
        # pyarrow reads a dot in a name as a nested column.
        unique = len(set(self.names)) == len(self.names)
        return names if unique and not any("." in name for name in names) else None

    def copy(self, table: Any, out: NDArray[Any], start: int = 0) -> None:
        """Copy the features of an Arrow table or batch that begins at row `start`."""
        for number, (place, field) in enumerate(self.fields.items()):
            cells = self.column(table, place)
            if not _is_list(field.type):
                out[:, number] = cells.to_numpy(zero_copy_only=False)
            else:
                _copy_lists(cells, field.name, out, start)

    def column(self, table: Any, place: int) -> Any:
        """Return a column of what was read; nulls are refused."""
        name = self.names[place]
        cells = table.column(place if self.to_read is None else name)
        if cells.null_count:
            raise _nulls(cells.null_count, name)
        return cells


def read_parquet(path: PathLike, columns: Columns | None = None) -> Table:
    """Read a `.parquet` table of numeric columns, or of a column of lists; needs pyarrow.

    Columns that pandas wrote for its index are left out. Where `columns` are chosen, others may
    hold anything. The matrix has the smallest dtype that holds every column.

    Raises
    ------
    DatasetError
        pyarrow is not installed, a column is not numeric, a cell is null, or lists differ in
        length.
    """
    with opened_parquet(path, columns) as parquet:
        check_memory(claimed_bytes(parquet.dtype, parquet.shape))
        table = parquet.file.read(columns=parquet.to_read)
        matrix = np.empty((table.num_rows, parquet.width), parquet.dtype)
        parquet.copy(table, matrix)
        labels = None
        if parquet.label is not None:
            labels = parquet.column(table, parquet.label).to_numpy().astype(np.int64)
        return Table(matrix, labels, parquet.notes)


@contextmanager
def opened_parquet(
    path: PathLike, columns: Columns | None = None, **options: Any
) -> Iterator[ParquetTable]:
    """Open a `.parquet` table of numeric columns, or of a column of lists; `blaming` covers it.

    Options are those of pyarrow's `ParquetFile`.
    """
    with opened(path) as file:
        if start_of(file, 4) != b"PAR1":
            raise Fault(f"is not a Parquet file (it starts with {start_of(file)!r})")
        pa, pq = arrow()
        try:
            # A Python file object would be read with the GIL held.
            native = pa.OSFile(os.fsencode(path))
            yield _table(pq.ParquetFile(native, **options), columns)
        except pa.ArrowException as error:
            raise Fault(f"is damaged ({brief(error)})") from error


def arrow() -> tuple[Any, Any]:
    """Import pyarrow and its parquet module, which takes a second."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise Fault(
            "is a Parquet file, which needs pyarrow: pip install 'mnist-kmeans-mlx[parquet]'"
        ) from error
    return pa, pq


def _table(file: Any, columns: Columns | None) -> ParquetTable:
    schema = file.schema_arrow
    label: int | None = None
    notes: list[str] = []
    if columns is not None:
        places = chosen(columns, schema.names, len(schema))
    else:
        places, label, notes = _features(schema)
    fields = {place: schema.field(place) for place in places}
    lists = [field for field in fields.values() if _is_list(field.type)]
    if lists and len(fields) > 1:
        raise Fault(
            f"holds lists in column {lists[0].name[:40]!r} and other columns besides: "
            "columns=... (--columns) chooses it or others"
        )
    types = [field.type.value_type if lists else field.type for field in fields.values()]
    for field, kind in zip(fields.values(), types, strict=True):
        if not _is_number(kind):
            shown = f"holds {str(field.type)[:60]} in column {field.name[:40]!r}, not real numbers"
            remedy = ": columns=... (--columns) chooses others" if len(schema) > 1 else ""
            raise Fault(shown + remedy)
    # Without any column the shape is refused below, whatever the dtype.
    dtypes = [np.dtype(kind.to_pandas_dtype()) for kind in types] or [np.dtype(np.float64)]
    dtype = np.result_type(*dtypes)
    table = ParquetTable(file, schema.names, fields, len(fields), dtype, label, notes)
    return replace(table, width=_list_width(table)) if lists else table


def _features(schema: Any) -> tuple[list[int], int | None, list[str]]:
    """Find the columns that are features, by names and types alone."""
    from pyarrow import types

    index = _pandas_index(schema)
    rest = [place for place, name in enumerate(schema.names) if name not in index]
    kinds = [schema.field(place).type for place in rest]

    def whole(number: int) -> bool:
        return bool(types.is_integer(kinds[number]))

    names = [schema.names[place] for place in rest]
    # By names and types only, so that rows read in blocks have the same columns.
    choice = features(names, len(names), whole, lambda _: True, lambda _: False)
    label = None if choice.label is None else rest[choice.label]
    return [rest[number] for number in choice.places], label, choice.notes


def _pandas_index(schema: Any) -> set[str]:
    """Return the names of columns that pandas wrote for the index of a data frame."""
    names = {name for name in schema.names if re.fullmatch(r"__index_level_\d+__", name)}
    told = schema.pandas_metadata
    if isinstance(told, dict) and isinstance(told.get("index_columns"), list):
        names |= {name for name in told["index_columns"] if isinstance(name, str)}
    return names if names < set(schema.names) else set()


def _list_width(table: ParquetTable) -> int:
    """Return how many numbers are in the first list, which all others must have."""
    ((place, field),) = table.fields.items()
    width = getattr(field.type, "list_size", None)
    if width is None:
        batch = next(table.file.iter_batches(1, columns=table.to_read), None)
        width = len(table.column(batch, place)[0]) if batch is not None and len(batch) else 0
    return int(width)


def _copy_lists(cells: Any, name: str, out: NDArray[Any], start: int) -> None:
    import pyarrow.compute as pc

    done = 0
    for chunk in getattr(cells, "chunks", [cells]):
        lengths = pc.list_value_length(chunk).to_numpy(zero_copy_only=False)
        unlike = np.flatnonzero(lengths != out.shape[1])
        if unlike.size:
            row = start + done + int(unlike[0])
            raise Fault(
                f"holds lists of different lengths in column {name[:40]!r}: {out.shape[1]} in row "
                f"0, but {lengths[unlike[0]]} in row {row} (counted from 0)"
            )
        values = chunk.flatten()
        if values.null_count:
            raise _nulls(values.null_count, name)
        rows = values.to_numpy(zero_copy_only=False).reshape(len(chunk), out.shape[1])
        out[done : done + len(chunk)] = rows
        done += len(chunk)


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _is_number(kind: Any) -> bool:
    from pyarrow import types

    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)


def _nulls(count: int, name: str) -> Fault:
    return Fault(f"has empty cells (nulls), {count} of them in column {name[:40]!r}")
