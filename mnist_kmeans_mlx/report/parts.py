"""Shared by all views: formatted numbers, and two plain tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

TABLE: dict[str, Any] = {
    "box": box.SIMPLE_HEAD,
    "pad_edge": False,
    "show_edge": False,
    "collapse_padding": True,
}


def facts(values: Mapping[str, str]) -> Table:
    """List names and values."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values.items():
        table.add_row(Text(name), Text(safe(value)))
    return table


def safe(text: str) -> str:
    """Replace control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "�" for char in text)


def data_name(data: Mapping[str, Any]) -> str:
    """Name of the data, as people write it."""
    name = str(data.get("name", "data"))
    return "MNIST" if name == "mnist" else name


def missing_words(missing: Iterable[Any] | None) -> str | None:
    """Say which classes no cluster stands for; None if there are none."""
    *names, last = (str(label) for label in missing or ("",))
    listed = " or ".join(filter(None, [", ".join(names), last]))
    return f"No cluster stands for {listed}: try more clusters." if listed else None


def readable(environment: Mapping[str, Any]) -> dict[str, str]:
    """Facts about a machine, with sizes in GiB; tables are left out."""
    shown = {}
    for key, value in environment.items():
        if isinstance(value, Mapping):
            continue
        if isinstance(value, list):
            value = "; ".join(map(str, value))
        if key.endswith("_bytes") and isinstance(value, int | float):
            key, value = key.removesuffix("_bytes"), f"{value / 2**30:.1f} GiB"
        shown[key.replace("_", " ")] = str(value)
    return shown


def percent(share: float | None) -> str:
    """Write a share in percent, or a dash for none."""
    return "–" if share is None else f"{100 * share:.2f} %"


def seconds(value: float) -> str:
    """Write seconds with about three digits."""
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def short(value: float) -> str:
    """Write a large number with its prefix.

    Examples
    --------
    >>> short(2115800.74), short(950.0)
    ('2.116 M', '950')
    """
    for factor, prefix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{prefix}"
    return f"{value:.4g}"
