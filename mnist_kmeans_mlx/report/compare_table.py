"""A comparison as tables: for a terminal, for a README, for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mnist_kmeans_mlx.report.compare_words import machine_facts, notes
from mnist_kmeans_mlx.report.grid import Grid, Line, escaped, share, spread, sse, to_text
from mnist_kmeans_mlx.report.parts import facts, safe, seconds

if TYPE_CHECKING:
    from mnist_kmeans_mlx.benchmark import Comparison, Row, Spread

# Of the files that hold it.
NAME = "compare"

_COLUMNS = {
    "n_clusters": "K",
    "arm": "Arm",
    "device": "Device",
    "cold": "Cold s",
    "warm": "Warm s",
    "speedup": "Speed-up",
    "n_iter": "Iter.",
    "inertia": "SSE",
    "train_accuracy": "Train %",
    "test_accuracy": "Test %",
    "agreement": "Agree %",
    "ari": "ARI",
    "verdict": "Answer",
}
_STAGES = {
    "start": "Start s",
    "load": "Load s",
    "upload": "Upload s",
    "seeding": "Seeding s",
    "iterations": "Iterations s",
    "final": "Final s",
}
_KEYS = ("n_clusters", "arm")
_LEFT = ("arm", "device", "verdict")
_STYLES = {"MISMATCH": "bold red", "failed": "bold red", "cannot run": "dim", "quoted": "dim"}
_ABOUT_STAGES = "Seconds of each stage, median of warm fits"
_QUOTED = {"arm": "scikit-learn, quoted", "verdict": "quoted"}

_SPREADS = ("cold", "warm", "speedup", "speedup_same")
_NUMBERS = (
    "n_iter",
    "inertia",
    "reported_inertia",
    "inertia_gap",
    "train_accuracy",
    "test_accuracy",
    "agreement",
    "differing",
    "ties",
    "ari",
)


def view(comparison: Comparison, width: int) -> RenderableType:
    """Lay out a comparison for a terminal: a table that does not fit is shown in parts."""
    shown = _main(comparison).spaced(width)
    stages = _stages(comparison)
    if stages.rows:
        shown += [Text(_ABOUT_STAGES, style="bold"), *stages.spaced(width)]
    for failure in comparison.failures:
        shown.append(Text(f"FAILED  {safe(failure)}", style="bold red"))
    if comparison.failures:
        shown.append("")
    shown += [facts(machine_facts(comparison)), ""]
    listed = Table.grid(padding=(0, 1))
    for note in notes(comparison):
        listed.add_row("·", Text(safe(note)), style="dim")
    return Group(*shown, listed)


def to_markdown(comparison: Comparison) -> str:
    """Write a comparison for a README."""
    lines = [*_main(comparison).markdown(), ""]
    stages = _stages(comparison)
    if stages.rows:
        lines += [f"{_ABOUT_STAGES}:", "", *stages.markdown(), ""]
    lines += [f"- **FAILED** {escaped(failure)}" for failure in comparison.failures]
    lines += [f"- {name}: {escaped(value)}" for name, value in machine_facts(comparison).items()]
    lines += [f"- {escaped(note)}" for note in notes(comparison)]
    return "\n".join(lines) + "\n"


def to_csv(comparison: Comparison) -> str:
    """Write one line for each arm and number of clusters, with every number in full."""
    header = [
        *("n_clusters", "arm", "device", "verdict", *_NUMBERS),
        *(f"{name}_{part}" for name in _SPREADS for part in ("median", "low", "high")),
        *(f"{stage}_seconds" for stage in _STAGES),
        "reason",
    ]
    lines: list[Mapping[str, Any]] = []
    for case in comparison.cases:
        lines += ({"n_clusters": case.n_clusters, **_line(row)} for row in case.rows)
        for quote in _quotes(comparison, case.n_clusters):
            line = {
                "n_clusters": case.n_clusters,
                "device": quote["machine"],
                "warm_median": quote["seconds"],
                "train_accuracy": quote["train_accuracy"],
                "reason": "quoted from the notebook's log, not measured here",
            }
            lines.append({**line, **_QUOTED})
    return to_text(header, lines)


def _line(row: Row) -> dict[str, Any]:
    """What the table of a spreadsheet says of an arm."""
    found = row.to_dict()
    line = {name: found[name] for name in ("arm", "device", "verdict", *_NUMBERS, "reason")}
    for name in _SPREADS:
        for part in ("median", "low", "high"):
            line[f"{name}_{part}"] = None if found[name] is None else found[name][part]
    return line | {f"{stage}_seconds": value for stage, value in row.stages.items()}


def _main(comparison: Comparison) -> Grid:
    rows: list[Line] = []
    for case in comparison.cases:
        key = {"n_clusters": str(case.n_clusters)}
        rows += ({**key, **_cells(row)} for row in case.rows)
        for quote in _quotes(comparison, case.n_clusters):
            accuracy = share(quote["train_accuracy"])
            rows.append({**key, **_QUOTED, "device": "M2", "warm": str(quote["seconds"]),
                         "train_accuracy": accuracy})  # fmt: skip
    return Grid(_COLUMNS, rows, _KEYS, _LEFT, lambda row: _STYLES.get(row["verdict"], ""))


def _stages(comparison: Comparison) -> Grid:
    rows: list[Line] = [
        {
            "n_clusters": str(case.n_clusters),
            "arm": row.arm.name,
            **{stage: seconds(value) for stage, value in row.stages.items()},
        }
        for case in comparison.cases
        for row in case.rows
        if row.stages
    ]
    return Grid({"n_clusters": "K", "arm": "Arm", **_STAGES}, rows, _KEYS, _LEFT)


def _quotes(comparison: Comparison, n_clusters: int) -> Iterator[Mapping[str, Any]]:
    return (quote for quote in comparison.quoted if quote["n_clusters"] == n_clusters)


def _cells(row: Row) -> Line:
    cells = {
        "arm": row.arm.name,
        "device": row.arm.device,
        "verdict": row.verdict,
        "cold": _range(row.cold, seconds),
        "warm": _range(row.warm, seconds),
        "speedup": _range(row.speedup, _times),
    }
    for name, write in (
        ("n_iter", str),
        ("inertia", sse),
        ("train_accuracy", share),
        ("test_accuracy", share),
        ("agreement", share),
        ("ari", "{:.4f}".format),
    ):
        value = getattr(row, name)
        cells[name] = "" if value is None else write(value)
    return cells


def _range(found: Spread | None, write: Any) -> str:
    if found is None:
        return ""
    return spread(found.median, min(found.values), max(found.values), write)


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"
