"""Results that commands wrote as JSON, read back and checked before anything relies on them."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from mnist_kmeans_mlx.experiment.data import ExperimentError

__all__ = ["MEASURES", "Record", "looks_like_json", "read_record"]

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
        The JSON, of which all that its shape asks for is there and of the right type.
    """

    kind: str
    values: Mapping[str, Any]


class _Maybe:
    """None, or what it holds."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


class _Table:
    """A JSON object with any keys."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


# A shape is a type, [shape of each item], or a table of keys; a key that may be left out ends in
# a question mark. `float` stands for any finite number, `int` for a whole one from 0.
_SCORES: dict[str, Any] = {
    "accuracy": float,
    "classes": [int],
    "confusion": [[int]],
    "per_class_accuracy": _Table(float),
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
        {"index": int, "size": int, "digit": _Maybe(int), "purity": _Maybe(float)},
    ],
    "scores": {"train": _Maybe(_SCORES), "test": _Maybe(_SCORES)},
    "history?": _Maybe([[float]]),
    "data": _DATA,
    "environment": _Table(object),
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
                    "cold": _Maybe(_SPREAD),
                    "warm": _Maybe(_SPREAD),
                    "speedup": _Maybe(_SPREAD),
                    "failures": [str],
                }
            ],
        }
    ],
    "quoted?": [{"n_clusters": int, "seconds": float, "machine": str, "library": str}],
    "settings?": _Table(object),
    "data": _DATA,
    "machine": _Table(object),
    "started": str,
    "command": str,
}
_SWEEP: dict[str, Any] = {
    "curve": [
        {
            "n_clusters": int,
            "seeds?": [int],
            **{name: _Maybe(_SPREAD) for name in MEASURES},
        }
    ],
    "elbow": _Maybe({"n_clusters": int}),
    "cells": [{"seed": int}],
    "data": _DATA,
    "environment?": _Table(object),
    "started": str,
    "command": str,
}
_SHAPES = {"fit": _FIT, "sweep": _SWEEP, "compare": _COMPARE}


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

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Record

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
        _check(values, _SHAPES[kind], "")
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


def _check(value: Any, shape: Any, where: str) -> None:
    if isinstance(shape, _Maybe):
        if value is not None:
            _check(value, shape.shape, where)
    elif isinstance(shape, _Table):
        _expect(isinstance(value, dict), where, "a table")
        for key, item in value.items():
            _check(item, shape.shape, f"{where}.{key}")
    elif isinstance(shape, dict):
        _expect(isinstance(value, dict), where, "a table")
        for key, part in shape.items():
            name = key.removesuffix("?")
            if name in value:
                _check(value[name], part, f"{where}.{name}")
            elif name == key:
                raise ValueError(f"it lacks {f'{where}.{name}'.lstrip('.')!r}")
    elif isinstance(shape, list):
        _expect(isinstance(value, list), where, "a list")
        for i, item in enumerate(value):
            _check(item, shape[0], f"{where}.{i}")
    elif shape is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        _expect(number and abs(value) < 1e300 and math.isfinite(value), where, "a number")
    elif shape is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        _expect(whole and 0 <= value < 2**63, where, "a whole number")
    elif shape is str:
        _expect(isinstance(value, str), where, "a text")


def _check_scores(scores: Mapping[str, Any]) -> None:
    for part, score in scores.items():
        if score is not None:
            n = len(score["classes"])
            square = len(score["confusion"]) == n and all(len(r) == n for r in score["confusion"])
            _expect(square, f"scores.{part}.confusion", "as wide and high as there are classes")


def _expect(right: bool, where: str, what: str) -> None:
    if not right:
        raise ValueError(f"{where.lstrip('.') or 'it'!s} is not {what}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
