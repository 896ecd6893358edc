"""Finished cells of sweeps: a line of JSON for each, in the user's state folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.experiment.log import append_log, log_path, read_lines

__all__ = ["Cell", "Cells", "cells_path"]

Cell = dict[str, Any]

_KIND = "sweep cell"


def cells_path() -> Path:
    """Return where finished cells are kept, unless a command says otherwise."""
    return log_path().with_name("sweep.jsonl")


class Cells:
    """A file of finished cells, of this sweep and of others.

    Parameters
    ----------
    path : Path
        Made, with its folder, if it is not there.

    Raises
    ------
    OSError
        The file cannot be written: now rather than after the first cell.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab"):
            pass
        self.path = path

    def add(self, cell: Cell, of: Mapping[str, Any]) -> None:
        """Append a cell, and what it is a cell of, in a single write."""
        append_log({"kind": _KIND, "of": of, "cell": cell}, self.path)

    def finished(self, of: Mapping[str, Any]) -> tuple[dict[tuple[int, int], Cell], int]:
        """Cells by number of clusters and seed, the last of each, and the lines passed over."""
        lines, damaged = read_lines(self.path, _is_cell)
        cells = [line["cell"] for line in lines if line["of"] == of]
        return {(cell["n_clusters"], cell["seed"]): cell for cell in cells}, damaged


def _is_cell(line: Any) -> bool:
    if not isinstance(line, dict) or line.get("kind") != _KIND:
        return False
    cell = line.get("cell")
    if not (isinstance(cell, dict) and isinstance(line.get("of"), dict)):
        return False
    scores = ("train_accuracy", "test_accuracy", "nmi", "silhouette")
    return (
        all(type(cell.get(name)) is int for name in ("n_clusters", "seed", "n_iter"))
        and all(type(cell.get(name)) is float for name in ("inertia", "seconds"))
        and all(isinstance(cell.get(name, ""), float | int | None) for name in scores)
        and isinstance(cell.get("missing_digits"), list)
        and all(isinstance(cell.get(name), str) for name in ("device", "started"))
    )
