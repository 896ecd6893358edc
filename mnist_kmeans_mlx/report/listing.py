"""The experiment log, the data and the environment, as lists for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from mnist_kmeans_mlx.report.parts import TABLE, facts, percent, readable, safe, seconds

# Columns of the log that are left out on terminals narrower than this.
_NEEDS = {"Machine": 80, "Data": 60, "Date": 50}


def log_view(entries: Iterable[Mapping[str, Any]], width: int) -> RenderableType:
    """Lay out the experiment log, oldest first; on a narrow terminal with fewer columns."""
    entries = list(entries)
    numbers: dict[str, Any] = {"justify": "right", "no_wrap": True}
    columns: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("K", "Seconds", "Train", "Test"), numbers),
        "Device": {"no_wrap": True},
        "Machine": {},
        "Data": {"overflow": "fold"},
        "Date": {"no_wrap": True},
    }
    if {str(entry.get("data") or "") for entry in entries} == {"mnist"}:
        del columns["Data"]
    columns = {name: how for name, how in columns.items() if width >= _NEEDS.get(name, 0)}
    table = Table(**TABLE)
    for name, how in columns.items():
        table.add_column(name, **how)
    for entry in entries:
        cells = {
            "K": str(entry["n_clusters"]),
            "Seconds": seconds(entry["seconds"]),
            "Train": percent(entry["train_accuracy"]),
            "Test": percent(entry["test_accuracy"]),
            "Device": safe(entry["device"]),
            "Machine": safe(entry["machine"] or ""),
            "Data": safe(str(entry.get("data") or "")),
            "Date": _local(entry["date"]),
        }
        table.add_row(*(Text(cells[name]) for name in columns))
    return table


def data_view(data: Mapping[str, Any]) -> RenderableType:
    """Lay out what data is loaded, and from where."""
    shown = {
        "Name": data["name"],
        "Source": data.get("source"),
        "Origin": data.get("origin"),
        "Train": f"{data['n_train']:,} rows",
        "Test": f"{data['n_test']:,} rows" if data["n_test"] else None,
        "Features": f"{data['n_features']:,} ({data['dtype']})",
        "SHA-256": data.get("sha256"),
        "Licence": data.get("licence"),
    }
    counts = data.get("class_counts")
    if counts and len(counts) <= 30:
        shown["Labels"] = "  ".join(f"{label}: {size:,}" for label, size in counts.items())
    elif counts:
        shown["Labels"] = f"{len(counts):,} classes"
    return facts({key: str(value) for key, value in shown.items() if value is not None})


def environment_view(environment: Mapping[str, Any]) -> RenderableType:
    """Lay out hardware, device and versions."""
    return facts(readable(environment))


def _local(date: str) -> str:
    try:
        return datetime.fromisoformat(date).astimezone().strftime("%Y-%m-%d")
    except (ValueError, OverflowError):
        return safe(date)
