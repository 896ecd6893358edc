"""A table of texts, for a terminal of any width and for Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mnist_kmeans_mlx.report.parts import TABLE, safe

Line = Mapping[str, str]


@dataclass(frozen=True)
class Grid:
    """Rows of texts by column.

    Attributes
    ----------
    columns : dict of str to str
        Titles by name; columns in which no row has a text are left out.
    rows : list of dict
    keys : tuple of str
        Columns that name a row: every part of the table begins with them. A line is drawn where
        the first of them changes.
    left : tuple of str
        Columns of words; the others are of numbers.
    style : callable
        Gives the style of a row.
    """

    columns: Mapping[str, str]
    rows: list[Line]
    keys: tuple[str, ...]
    left: tuple[str, ...] = ()
    style: Callable[[Line], str] = field(default=lambda row: "")

    def spaced(self, width: int) -> list[RenderableType]:
        """The tables for a terminal, with a line after each."""
        return [part for table in self.tables(width) for part in (table, "")]

    def tables(self, width: int) -> Iterator[Table]:
        """Tables for a terminal: one, or several below each other where it is narrow."""
        used = self._used()
        widths = {
            name: max(len(title), *(len(row.get(name, "")) for row in self.rows)) + 2
            for name, title in used.items()
        }
        room = width + 2 - sum(widths[name] for name in self.keys)
        part: list[str] = []
        for name in (name for name in used if name not in self.keys):
            if part and sum(widths[other] for other in (*part, name)) > room:
                yield self._table(used, part)
                part = []
            part.append(name)
        if part:
            yield self._table(used, part)

    def markdown(self) -> list[str]:
        """Lines of a table in GitHub's Markdown."""
        used = self._used()
        lines: list[Iterable[str]] = [
            used.values(),
            ("---" if name in self.left else "--:" for name in used),
            *([escaped(row.get(name, "")) for name in used] for row in self.rows),
        ]
        return [f"| {' | '.join(line)} |" for line in lines]

    def _used(self) -> dict[str, str]:
        return {
            name: title
            for name, title in self.columns.items()
            if any(row.get(name) for row in self.rows)
        }

    def _table(self, used: Mapping[str, str], part: list[str]) -> Table:
        names = [*self.keys, *part]
        table = Table(**TABLE)
        for name in names:
            side = "left" if name in self.left else "right"
            table.add_column(used[name], justify=side, no_wrap=True)  # type: ignore[arg-type]
        before = None
        for row in self.rows:
            if self.left and before not in (None, row[self.keys[0]]):
                table.add_section()
            before = row[self.keys[0]]
            table.add_row(*(Text(safe(row.get(name, ""))) for name in names), style=self.style(row))
        return table


def to_text(header: Iterable[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Write lines for a spreadsheet; what a line lacks stays empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(header), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return file.getvalue()


def escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    for char in "\\|<>*`[]":
        text = text.replace(char, f"\\{char}")
    return safe(text)


def spread(median: float, low: float, high: float, write: Callable[[float], str]) -> str:
    """A median with the range around it, unless there is none."""
    if low == high:
        return write(median)
    return f"{write(median)} ({write(low)}–{write(high)})"


def share(value: float) -> str:
    """Percent, without the sign; only all is 100."""
    text = f"{100 * value:.2f}"
    return text if value == 1 or text != "100.00" else "99.99"


def sse(value: float) -> str:
    """A sum of squares, to one decimal or six digits."""
    return f"{value:,.1f}" if value >= 1000 else f"{value:.6g}"
