"""Decision whether the first line of a text is a header or a row."""

from __future__ import annotations

import re
from itertools import chain, pairwise

# A number with a decimal comma, or with marks between thousands.
MARKED = re.compile(r"\s*[+-]?[0-9][0-9.]*(,[0-9]+)+(\.[0-9]+)?(e[+-]?[0-9]+)?\s*", re.IGNORECASE)

_YEARS = range(1900, 2101)


def header_of(first: list[str], below: list[list[str]]) -> tuple[list[str] | None, str | None]:
    """Decide whether the first line is a header, from that line and some rows below.

    A line without any number is a header, and so are the numbers that pandas gives to columns
    without names: 0, 1, 2 to d - 1. Other whole numbers, such as years, are one if they ascend
    and the rows below are unlike them: all have fractions, or lie far away.

    Parameters
    ----------
    first : list of str
        Cells of the first line.
    below : list of list of str
        As many cells.

    Returns
    -------
    names : list of str, or None
        None if the line is a row.
    note : str or None
        What was guessed where it could be the other, as the rest of a sentence that begins with
        the name of the file.
    """
    cells = [cell.strip() for cell in first]
    named = not is_number(cells[0])
    if any(cells) and not any(is_number(cell) or MARKED.fullmatch(cell) for cell in cells):
        return cells, None
    if not below:
        return None, None
    numbers = cells[named:]
    if not all(re.fullmatch("0|[1-9][0-9]{0,17}", cell) for cell in numbers):
        return None, None
    values = [int(cell) for cell in numbers]
    d = len(values)
    columns = list(zip(*below, strict=False))
    counted = d > 1 and values == list(range(d))
    if named:
        is_index = all(map(_whole, columns[0])) and len(set(columns[0])) == len(below)
        no_name = not cells[0] and len(set(values)) == d and is_index
        return (cells if counted or no_name else None), None
    fractions = all(is_number(cell) and not _whole(cell) for cell in chain(*columns))
    if counted and fractions and d > 2:
        return cells, None
    shown = f"{','.join(cells[:4])}{',...' if d > 4 else ''}"
    ascending = all(a < b for a, b in pairwise(values)) and (d > 1 or values == [0])
    alike = len(below) < 2 or not (fractions or _far(values, columns))
    if counted or (ascending and not alike):
        return cells, (
            f"has {shown} in its first line, which is taken for a header: header=False "
            "(--no-header) makes it a row"
        )
    consecutive = d > 1 and values == list(range(values[0], values[0] + d))
    if consecutive and (d > 2 or (values[0] in _YEARS and values[-1] in _YEARS)):
        return None, (
            f"has {shown} in its first line, which is taken for a row: header=True (--header) "
            "makes it a header"
        )
    return None, None


def is_number(cell: str) -> bool:
    """Whether NumPy reads this as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell and cell.isascii()


def _whole(cell: str) -> bool:
    """Whether a number is written without a fraction and an exponent."""
    return re.fullmatch(r"\s*[+-]?[0-9]+\s*", cell) is not None


def _far(values: list[int], columns: list[tuple[str, ...]]) -> bool:
    """Whether each value is farther from those below it than these are from each other."""
    if len(values) < 2 or not all(map(is_number, chain(*columns))):
        return False
    ranges = [(min(map(float, column)), max(map(float, column))) for column in columns]
    return all(
        max(low - value, value - high) > high - low
        for value, (low, high) in zip(values, ranges, strict=False)
    )
