"""A table of numbers as text, `.csv` or `.tsv`, plain or gzipped -> one matrix."""

from __future__ import annotations

import csv
import gzip
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import IO, Any, cast

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.columns import Columns, Table, called, chosen, features
from mnist_kmeans_mlx.datasets.faults import (
    Fault,
    PathLike,
    brief,
    check_memory,
    opened,
    start_of,
)
from mnist_kmeans_mlx.datasets.headers import MARKED, header_of, is_number

# Limits of the sample that decides delimiter and header.
_FIRST_CELLS = 10_000
_FIRST_ROWS = 100
_PACKED_BYTES = 1 << 22


@dataclass
class _Text:
    """A text file, and what its first rows show: delimiter, names, width."""

    file: io.BufferedReader
    delimiter: str
    names: list[str] | None = None
    skip: int = 0
    width: int = 0
    places: list[int] | None = None

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        return _rows(self.file, self.delimiter)

    def plain(self, cell: str) -> str:
        """Return a cell with a point for a decimal comma, where commas are no delimiters."""
        return cell if self.delimiter == "," else cell.replace(",", ".")

    def number(self, cell: str) -> bool:
        """Whether a cell is a number, perhaps with a decimal comma."""
        return is_number(self.plain(cell))


def read_text(
    path: PathLike, delimiter: str, *, header: bool | None = None, columns: Columns | None = None
) -> Table:
    """Read a table of numbers from text, such as `.csv`, in UTF-8, plain or gzipped.

    Empty lines are passed over. Semicolons, tabs or commas are taken for the delimiter where they
    make more cells numbers than `delimiter` does. Where it is no comma, decimals may have one.

    Parameters
    ----------
    path : path-like
    delimiter : str
        One character.
    header : bool, optional
        Whether the first line is a header; if None, `header_of` tells.
    columns : str, or iterable of int and str, optional
        As `chosen` takes them; cells of others need not be numbers. If None, all but what looks
        like an index or like labels.

    Returns
    -------
    Table
        Of float64.

    Raises
    ------
    DatasetError
        A cell is not a number or rows differ in length; names the line, counted from 1, and the
        column of the cell, by its name or counted from 0.
    """
    with opened(path) as file:
        try:
            text = _Text(file, _delimiter(file, delimiter))
            notes = _look(text, header, columns)
            table, commas = _numbers(text)
        except UnicodeDecodeError as error:
            raise Fault("is not text in UTF-8") from error
        except ValueError as error:
            raise Fault(_fault(text, header) or brief(error)) from error
        if table.size == 0:
            raise Fault("has no row of numbers")
        if text.places is None and table.shape[1] != text.width:
            cells = _cells(text.width)
            raise Fault(f"has {cells} in its header, but {table.shape[1]} in each row")
        if commas:
            notes.append("has commas in its numbers, which are read as decimal points")
    return Table(table, None, notes) if text.places is not None else _table(table, text, notes)


read_csv, read_tsv = partial(read_text, delimiter=","), partial(read_text, delimiter="\t")


def _delimiter(file: io.BufferedReader, delimiter: str) -> str:
    """Return the delimiter with which most cells of the first rows are numbers."""

    def share(other: str) -> float:
        text = _Text(file, other)
        rows = [row for _, row in _first(text)]
        rows = rows[1:] or rows
        cells = [cell for row in rows for cell in row]
        # Rows with a single cell say nothing: another delimiter may split them.
        marked = other != "," and len(cells) > len(rows)
        numbers = [is_number(cell) or bool(marked and MARKED.fullmatch(cell)) for cell in cells]
        return sum(numbers) / max(1, len(numbers))

    shares = {delimiter: share(delimiter)}
    for other in ",;\t" if shares[delimiter] < 1 else "":
        with suppress(Fault):  # of a cell that is too long
            shares.setdefault(other, share(other))
    return max(shares, key=lambda other: shares[other])


def _look(text: _Text, header: bool | None, columns: Columns | None) -> list[str]:
    """Find names, width and the columns to read; return notes about the header."""
    rows = _first(text)
    if not rows:
        raise Fault("has no row of numbers")
    (line, first), note = rows[0], None
    if header is None:
        below = [[text.plain(cell) for cell in row] for _, row in rows[1:]]
        text.names, note = header_of(first, below)
    elif header:
        text.names = first
    text.width, text.skip = len(first), 0 if text.names is None else line
    if columns is not None:
        text.places = chosen(columns, text.names, text.width)
    return [] if note is None else [note]


def _numbers(text: _Text) -> tuple[NDArray[np.float64], bool]:
    """Read all rows; also tells whether numbers have decimal commas."""
    commas = points = False

    def lines(stream: IO[str]) -> Iterator[str]:
        nonlocal commas, points
        for number, line in enumerate(stream):
            if number >= text.skip:
                points, commas = points or "." in line, commas or "," in line
            yield line.replace(",", ".")

    with _decoded(text.file, None) as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about empty input, which is reported below
        table = np.loadtxt(
            stream if text.delimiter == "," else lines(stream), delimiter=text.delimiter,
            comments=None, quotechar='"', skiprows=text.skip, ndmin=2, usecols=text.places,
        )  # fmt: skip
    return table, commas and _decimal_commas(text, points)


def _decimal_commas(text: _Text, points: bool) -> bool:
    """Whether commas are within numbers; points within others would not mean the same."""
    if not points and text.places is None:
        return True
    comma = point = None
    for line, row in text.rows():
        if line > text.skip:
            for place in range(len(row)) if text.places is None else text.places:
                cell = row[place]
                comma = cell if comma is None and "," in cell else comma
                point = cell if point is None and "." in cell else point
        if comma and point:
            raise Fault(
                f"has {comma[:40]!r} and {point[:40]!r}, of which one is not meant as a decimal: "
                "write decimals with a point, and thousands without a mark"
            )
    return comma is not None


def _table(table: NDArray[np.float64], text: _Text, notes: list[str]) -> Table:
    """Leave out what looks like an index or like labels."""

    def whole(place: int) -> bool:
        column = table[:, place]
        return bool(np.all((np.abs(column) < 2**53) & (column == np.rint(column))))

    def distinct(place: int) -> bool:
        return len(np.unique(table[:, place])) == len(table)

    def pixels(place: int) -> bool:
        rest = table[:, place:]
        in_range = bool(rest.min() >= 0 and rest.max() <= 255)
        return in_range and np.array_equal(rest, rest.astype(np.uint8))

    choice = features(text.names, text.width, whole, distinct, pixels)
    notes = notes + choice.notes
    n, first = len(table), choice.places[0]
    if first == 0 < text.width - 1 and n > 2 and np.array_equal(table[:, 0], np.arange(n)):
        notes.append(
            f"counts from 0 to {n - 1} in its first column, which is taken for a feature: "
            "columns='1-' (--columns 1-) leaves it out"
        )
    labels = None if choice.label is None else table[:, choice.label].astype(np.int64)
    return Table(_packed(table, choice.places), labels, notes)


def _packed(table: NDArray[np.float64], places: list[int]) -> NDArray[np.float64]:
    """Move some columns to the front of the same memory, without a copy."""
    n, d = len(table), len(places)
    if d == table.shape[1]:
        return table
    packed = table.reshape(-1)[: n * d].reshape(n, d)
    step = max(1, _PACKED_BYTES // (8 * d))
    for start in range(0, n, step):
        # Rows move to the front, never over rows that are still to be read.
        packed[start : start + step] = table[start : start + step, places]
    return packed


class _Unpacked(io.RawIOBase):
    """Stream of a gzipped file, which fails once it exceeds the memory of the machine."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = gzip.GzipFile(fileobj=file)
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer)
        self._total += count
        check_memory(self._total)
        return count


@contextmanager
def _decoded(file: io.BufferedReader, newline: str | None) -> Iterator[IO[str]]:
    """Read a text from its start; gzip is recognised by its first bytes."""
    zipped = start_of(file, 2) == b"\x1f\x8b"
    content = io.BufferedReader(_Unpacked(file)) if zipped else file
    text = io.TextIOWrapper(content, encoding="utf-8-sig", newline=newline)
    try:
        yield text
    finally:
        text.detach()


def _rows(file: io.BufferedReader, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that are not empty, each with the number of its last line."""
    with _decoded(file, "") as text:
        try:
            reader = csv.reader(text, delimiter=delimiter)
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            where = f"at line {reader.line_num}"
            raise Fault(f"cannot be split into cells {where} ({error})") from error


def _first(text: _Text) -> list[tuple[int, list[str]]]:
    """Return some rows: three at least, if there are, and not too many cells."""
    found: list[tuple[int, list[str]]] = []
    rows, cells = text.rows(), 0
    for numbered in rows:
        found.append(numbered)
        cells += len(numbered[1])
        if len(found) >= 3 and (cells > _FIRST_CELLS or len(found) > _FIRST_ROWS):
            break
    cast(Any, rows).close()  # which lets go of the file
    return found


def _fault(text: _Text, header: bool | None) -> str | None:
    """Find the cell that NumPy could not read, and name its line; NumPy counts rows."""
    width = first = 0
    for line, row in text.rows():
        width, first = width or len(row), first or line
        if len(row) != width:
            return f"has {_cells(len(row))} in line {line}, but {width} in line {first}"
        if line <= text.skip:
            continue
        for place in range(width) if text.places is None else text.places:
            cell = row[place]
            if text.number(cell):
                continue
            what = repr(cell[:40]) if cell.strip() else "an empty cell"
            return (
                f"has {what} in line {line}, column {called(place, text.names)}, where a number "
                f"is expected{_remedy(text, header, line == first, place, cell)}"
            )
    return None


def _remedy(text: _Text, header: bool | None, in_first: bool, place: int, cell: str) -> str:
    if MARKED.fullmatch(cell):
        return ": write decimals with a point, and thousands without a mark"
    below = [cell for _, row in _first(text)[1:] for cell in row[place : place + 1]]
    if below and not any(map(text.number, below)):
        return ": columns=... (--columns) reads others"
    if in_first and header is None:
        return ": header=True (--header) takes that line for names"
    return ""


def _cells(number: int) -> str:
    return f"{number} cell" if number == 1 else f"{number} cells"
