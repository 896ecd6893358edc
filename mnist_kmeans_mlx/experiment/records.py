"""Results that commands wrote as JSON, read back and checked before anything relies on them."""

from __future__ import annotations

import json
import os
import stat
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from mnist_kmeans_mlx.experiment.data import ExperimentError
from mnist_kmeans_mlx.experiment.shapes import Entries, Maybe, check, expect

# What a sweep measures, as least, median and most over its seeds.
MEASURES = ("inertia", "train_accuracy", "test_accuracy", "nmi", "silhouette", "seconds")
# More than any command writes.
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Record:
    """What ``fit``, ``sweep`` or ``compare`` found.

    Attributes
    ----------
    kind : {"fit", "sweep", "compare"}
    values : dict
        The JSON, with all required keys present and of the right type.
    """

    kind: str
    values: Mapping[str, Any]


_SCORES: dict[str, Any] = {
    "accuracy": float,
    "classes": [int],
    "confusion": [[int]],
    "per_class_accuracy": Entries(float),
    "missing?": [int],
}
_DATA: dict[str, Any] = {"name": str, "n_train?": int, "n_test?": int}
_FIT: dict[str, Any] = {
    "n_clusters": int,
    "n_iter": int,
    "inertia": float,
    "seed": int,
    "device": str,
    "timings": {"fit": float},
    "clusters": [
        {"index": int, "size": int, "digit": Maybe(int), "purity": Maybe(float)},
    ],
    "scores": {"train": Maybe(_SCORES), "test": Maybe(_SCORES)},
    "history?": Maybe([[float]]),
    "data": _DATA,
    "environment": Entries(object),
    "started": str,
    "command": str,
}
_SPREAD: dict[str, Any] = {"median": float, "low": float, "high": float}
_COMPARE: dict[str, Any] = {
    "failures": [str],
    "notes?": [str],
    "cases": [
        {
            "n_clusters": int,
            "notes?": [str],
            "rows": [
                {
                    "arm": str,
                    "device": str,
                    "verdict": str,
                    "reason": str,
                    "cold": Maybe(_SPREAD),
                    "warm": Maybe(_SPREAD),
                    "speedup": Maybe(_SPREAD),
                    "failures": [str],
                }
            ],
        }
    ],
    "quoted?": [{"n_clusters": int, "seconds": float, "machine": str, "library": str}],
    "settings?": Entries(object),
    "data": _DATA,
    "machine": Entries(object),
    "started": str,
    "command": str,
}
_SWEEP: dict[str, Any] = {
    "curve": [
        {
            "n_clusters": int,
            "seeds?": [int],
            **{name: Maybe(_SPREAD) for name in MEASURES},
        }
    ],
    "elbow": Maybe({"n_clusters": int}),
    "cells": [{"seed": int}],
    "data": _DATA,
    "environment?": Entries(object),
    "started": str,
    "command": str,
}
_SHAPES = {"fit": _FIT, "sweep": _SWEEP, "compare": _COMPARE}


def curve_of(
    cells: Sequence[Mapping[str, Any]], measures: Sequence[str] = MEASURES
) -> list[dict[str, Any]]:
    """For each number of clusters the seeds, and median, least and most of each measure."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for cell in cells:
        found.setdefault(cell["n_clusters"], []).append(cell)
    return [
        {
            "n_clusters": n_clusters,
            "seeds": [cell["seed"] for cell in alike],
            **{name: _spread(cell[name] for cell in alike) for name in measures},
        }
        for n_clusters, alike in sorted(found.items())
    ]


def _spread(found: Iterable[float | None]) -> dict[str, float] | None:
    values = [value for value in found if value is not None]
    if not values:
        return None
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def looks_like_json(path: str | os.PathLike[str]) -> bool:
    """Whether a file is to be read as JSON: by its name, or because it begins like JSON."""
    if os.fspath(path).lower().endswith((".json", ".jsonl")):
        return True
    if not stat.S_ISREG(os.stat(path).st_mode):
        return False
    with open(path, "rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read what a command printed with ``--json``.

    Raises
    ------
    ExperimentError
        The file is not JSON, or not what one of the three commands writes.
    OSError
        The file cannot be read.
    """
    name = os.fspath(path)
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ExperimentError(f"{name} is not a regular file.")
    with open(path, "rb") as file:
        text = file.read(_MOST_BYTES + 1)
    if len(text) > _MOST_BYTES:
        raise ExperimentError(f"{name} is too large to be a result.")
    try:
        values = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ExperimentError(f"{name} is not JSON, or is cut short ({reason}).") from error
    kind = _kind(values)
    if kind is None:
        raise ExperimentError(f"{name} is JSON, but not what fit, sweep or compare prints.")
    try:
        check(values, _SHAPES[kind], "")
        if kind == "fit":
            _check_scores(values["scores"])
    except ValueError as error:
        raise ExperimentError(f"{name} is no result of {kind}: {error}.") from error
    return Record(kind, values)


def _kind(values: Any) -> str | None:
    if not isinstance(values, dict):
        return None
    if values.get("kind") in ("comparison", "compare") or "cases" in values:
        return "compare"
    if values.get("kind") == "sweep" or "cells" in values:
        return "sweep"
    return "fit" if {"clusters", "inertia"} <= values.keys() else None


def _check_scores(scores: Mapping[str, Any]) -> None:
    for part, score in scores.items():
        if score is not None:
            n = len(score["classes"])
            square = len(score["confusion"]) == n and all(len(r) == n for r in score["confusion"])
            expect(square, f"scores.{part}.confusion", "as wide and high as there are classes")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
