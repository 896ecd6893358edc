"""Choice of the columns that are features: the requested ones, or a guess."""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.faults import Fault

Columns = str | Iterable[int | str]

# `to_csv` writes an index without a name; `pandas.read_csv` calls it so.
_NAMELESS = re.compile(r"(Unnamed: 0(\.\d+)*)?")
_LABELS = ("label", "labels", "class", "target")
_PIXELS = 28 * 28


@dataclass(frozen=True)
class Table:
    """Contents of a file of numbers.

    Attributes
    ----------
    matrix : ndarray
        The features.
    labels : ndarray of shape (n,), int64, or None
        A column of labels that is none of the features.
    notes : list of str
        What was guessed, as the rest of sentences that begin with the name of the file.
    """

    matrix: NDArray[Any]
    labels: NDArray[np.int64] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Choice:
    """Columns of a table by position: the features, and perhaps a column of labels."""

    places: list[int]
    label: int | None = None
    notes: list[str] = field(default_factory=list)


def chosen(columns: Columns, names: Sequence[str] | None, width: int) -> list[int]:
    """Return the positions of the requested columns, in the requested order.

    Parameters
    ----------
    columns : str, or iterable of int and str
        Names; numbers, counted from 0; ranges ``"1-784"`` or ``"first-last"``, which include both
        ends, and ``"1:785"`` as in Python. A single text may hold several with commas between, and
        quotes around a name that has a comma itself. What is a name is not taken for a number.
    names : sequence of str, or None
        None where the table has no header.
    width : int
        How many columns there are.
    """
    words = columns
    if isinstance(columns, str):
        words = next(csv.reader([columns], skipinitialspace=True), [])
    places = [place for word in words for place in _places(word, names, width)]
    if not places:
        raise Fault("has columns, but none is asked for")
    counts = np.bincount(places)
    if counts.max() > 1:
        raise Fault(f"is asked for column {called(int(counts.argmax()), names)} more than once")
    return places


def called(place: int, names: Sequence[str] | None) -> str:
    """Return the name of a column for messages."""
    return f"{place} (counted from 0)" if names is None else repr(names[place].strip()[:40])


def features(
    names: Sequence[str] | None,
    width: int,
    whole: Callable[[int], bool],
    distinct: Callable[[int], bool],
    pixels: Callable[[int], bool],
) -> Choice:
    """Leave out columns that look like an index or labels, with a note about each.

    Parameters
    ----------
    names : sequence of str, or None
        None where the table has no header.
    width : int
        How many columns there are.
    whole, distinct : callable
        Whether a column, by its place, holds whole numbers, and whether no two are the same.
    pixels : callable
        Whether all columns from a place on hold whole numbers from 0 to 255.
    """
    notes = []
    first = 0
    while names is not None and first < width - 1 and _NAMELESS.fullmatch(names[first].strip()):
        if not (whole(first) and distinct(first)):
            notes.append(
                "has a first column without a name, which is taken for a feature: "
                f"columns='{first + 1}-' (--columns {first + 1}-) leaves it out"
            )
            break
        first += 1
    if first:
        notes.append(
            "has an index in its first column, which is left out: columns=... (--columns) reads it"
        )
    places = list(range(first, width))
    suspects = [p for p in places if names and names[p].strip().casefold() in _LABELS]
    if len(places) == _PIXELS + 1:
        at_ends = [p for p in suspects if p in (first, width - 1) and whole(p)]
        # An index is distinct, and classes are not.
        if not suspects and pixels(first) and not distinct(first):
            at_ends = [first]
        if len(at_ends) == 1:
            places.remove(at_ends[0])
            notes.append(
                f"has labels in column {called(at_ends[0], names)}, which is none of the "
                "features: columns=... (--columns) chooses others"
            )
            return Choice(places, at_ends[0], notes)
    for place in suspects if len(places) > 1 else []:
        notes.append(
            f"has a column {called(place, names)}, which is taken for a feature: columns=... "
            "(--columns) chooses others"
        )
    return Choice(places, None, notes)


def _places(word: int | str, names: Sequence[str] | None, width: int) -> Iterable[int]:
    if not isinstance(word, str):
        if 0 <= operator.index(word) < width:
            return [operator.index(word)]
    else:
        single = _place(word, names, width)
        if single is not None:
            return [single]
        if found := re.fullmatch(r"\s*([0-9]{0,9}):([0-9]{0,9})\s*", word):
            start, stop = int(found[1] or 0), int(found[2] or width)
            if start < stop <= width:
                return range(start, stop)
        # A name may have a dash itself.
        for dash in re.finditer("-", word):
            first = _place(word[: dash.start()], names, width)
            rest = word[dash.end() :]
            last = _place(rest, names, width) if rest.strip() else width - 1
            if first is not None and last is not None and first <= last:
                return range(first, last + 1)
    has = f"has no column {str(word)[:40]!r}, but {f'0 to {width - 1}' if width > 1 else '0'}"
    if names is None:
        raise Fault(f"{has}, and no header that names them")
    shown = ", ".join(repr(name.strip()[:40]) for name in names[:8])
    raise Fault(f"{has}: {shown}{', ...' if width > 8 else ''}")


def _place(word: str, names: Sequence[str] | None, width: int) -> int | None:
    """Return the place of a single name or number, or None."""
    word = word.strip()
    same = [place for place, name in enumerate(names or ()) if name.strip() == word]
    if len(same) > 1:
        raise Fault(f"has several columns {word[:40]!r}: choose by number, counted from 0")
    if same:
        return same[0]
    number = int(word) if re.fullmatch("[0-9]{1,9}", word) else width
    return number if number < width else None
