"""A table of rows and columns, as text or Parquet -> one matrix of numbers."""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.faults import (
    Fault,
    PathLike,
    brief,
    check_memory,
    claimed_bytes,
    opened,
    start_of,
)

__all__ = ["arrow", "copy_columns", "opened_parquet", "read_parquet", "read_text"]


def read_text(path: PathLike, delimiter: str) -> NDArray[np.float64]:
    """Read a table of numbers from text, such as `.csv`, in UTF-8.

    A first line without any number is a header. Empty lines are passed over.

    Parameters
    ----------
    path : path-like
    delimiter : str
        One character.

    Returns
    -------
    ndarray of shape (n_rows, n_columns), float64

    Raises
    ------
    DatasetError
        A cell is not a number or rows differ in length; names the line, and the column of
        the cell, both counted from 1.
    """
    with opened(path) as file:
        try:
            width, lines = _text_header(file, delimiter)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an input without data: said below
                # By its absolute path, which NumPy cannot take for a URL.
                table = np.loadtxt(
                    os.path.abspath(path), delimiter=delimiter, comments=None, quotechar='"',
                    skiprows=lines, ndmin=2, encoding="utf-8-sig",
                )  # fmt: skip
        except UnicodeDecodeError as error:
            raise Fault("is not text in UTF-8") from error
        except ValueError as error:
            raise Fault(_text_fault(file, delimiter) or brief(error)) from error
        if table.size == 0:
            raise Fault("has no row of numbers")
        if lines and table.shape[1] != width:
            raise Fault(f"has {_cells(width)} in its header, but {table.shape[1]} in each row")
        return table


def read_parquet(path: PathLike) -> NDArray[Any]:
    """Read a `.parquet` table of numeric columns; needs pyarrow.

    Columns that pandas wrote for its index are left out.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    ndarray of shape (n_rows, n_columns), of the smallest dtype that holds every column

    Raises
    ------
    DatasetError
        pyarrow is not installed, a column is not numeric, or a cell is null.
    """
    with opened_parquet(path) as (parquet, columns, dtype):
        check_memory(claimed_bytes(dtype, (parquet.metadata.num_rows, len(columns))))
        table = parquet.read()
        matrix = np.empty((table.num_rows, len(columns)), dtype)
        copy_columns(table, columns, matrix)
        return matrix


@contextmanager
def opened_parquet(
    path: PathLike, **options: Any
) -> Iterator[tuple[Any, dict[int, Any], np.dtype[Any]]]:
    """Open a `.parquet` table of numeric columns; `blaming` covers the block.

    Parameters
    ----------
    path : path-like
    **options
        For pyarrow's `ParquetFile`.

    Yields
    ------
    ParquetFile, its numeric columns by their places, and the dtype that holds them all
    """
    with opened(path) as file:
        if start_of(file, 4) != b"PAR1":
            raise Fault(f"is not a Parquet file (it starts with {start_of(file)!r})")
        pa, pq = arrow()
        try:
            # Through a file of Python's it would be read with the GIL held.
            native = pa.OSFile(os.fsencode(path))
            parquet = pq.ParquetFile(native, **options)
            columns = _numeric_columns(parquet.schema_arrow)
            dtypes = [np.dtype(field.type.to_pandas_dtype()) for field in columns.values()]
            # With no column at all the shape is refused, whatever the dtype.
            yield parquet, columns, np.result_type(*dtypes) if dtypes else np.dtype(np.float64)
        except pa.ArrowException as error:
            raise Fault(f"is damaged ({brief(error)})") from error


def arrow() -> tuple[Any, Any]:
    """Import pyarrow and its parquet module; a second that only Parquet files are worth."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise Fault(
            "is a Parquet file, which needs pyarrow: pip install 'mnist-kmeans-mlx[parquet]'"
        ) from error
    return pa, pq


def copy_columns(table: Any, columns: dict[int, Any], out: NDArray[Any]) -> None:
    """Copy the columns of an Arrow table or batch into a matrix; nulls are refused."""
    for place, (number, field) in enumerate(columns.items()):
        cells = table.column(number)
        if cells.null_count:
            raise Fault(
                f"has empty cells (nulls), {cells.null_count} of them in column {field.name[:40]!r}"
            )
        out[:, place] = cells.to_numpy(zero_copy_only=False)


def _numeric_columns(schema: Any) -> dict[int, Any]:
    """Return the fields of an Arrow schema by their places; several may share a name."""
    from pyarrow import types

    numeric = (types.is_integer, types.is_floating, types.is_boolean)
    columns = {}
    for number, field in enumerate(schema):
        if re.fullmatch(r"__index_level_\d+__", field.name):  # the index of a pandas table
            continue
        if not any(is_one(field.type) for is_one in numeric):
            raise Fault(
                f"holds {str(field.type)[:60]} in column {field.name[:40]!r}, not real numbers"
            )
        columns[number] = field
    return columns


def _rows(file: io.BufferedReader, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its last line."""
    file.seek(0)
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        reader = csv.reader(text, delimiter=delimiter)
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise Fault(f"cannot be split into cells at line {reader.line_num} ({error})") from error
    finally:
        text.detach()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def _text_header(file: io.BufferedReader, delimiter: str) -> tuple[int, int]:
    """Return how many cells a header has and how many lines to skip; (0, 0) without one."""
    for line, row in _rows(file, delimiter):
        is_header = any(map(str.strip, row)) and not any(map(_is_number, row))
        return (len(row), line) if is_header else (0, 0)
    return 0, 0


def _text_fault(file: io.BufferedReader, delimiter: str) -> str | None:
    """Find what NumPy stumbled over; NumPy counts rows, people look for lines."""
    rows = _rows(file, delimiter)
    skip = _text_header(file, delimiter)[1]
    width = first = 0
    for line, row in rows:
        width, first = width or len(row), first or line
        if len(row) != width:
            return f"has {_cells(len(row))} in line {line}, but {width} in line {first}"
        for column, cell in enumerate(row if line > skip else (), 1):
            if not _is_number(cell):
                what = repr(cell[:40]) if cell.strip() else "an empty cell"
                return f"has {what} in line {line}, column {column}, where a number is expected"
    return None


def _cells(number: int) -> str:
    return f"{number} cell" if number == 1 else f"{number} cells"
