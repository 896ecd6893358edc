"""Finished fits of sweeps (cells): one line of JSON each, in the user's state folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.experiment.log import append_log, log_path, read_lines
from mnist_kmeans_mlx.experiment.shapes import Entries, Maybe, fits

Cell = dict[str, Any]

_KIND = "sweep cell"
_CELL: dict[str, Any] = {
    **dict.fromkeys(("n_clusters", "seed", "n_iter"), int),
    **dict.fromkeys(("inertia", "seconds"), float),
    **dict.fromkeys(("train_accuracy?", "test_accuracy?", "nmi?", "silhouette?"), Maybe(float)),
    "missing_digits": [int],
    "device": str,
    "started": str,
}
_LINE: dict[str, Any] = {"kind": str, "of": Entries(object), "cell": _CELL}


def cells_path() -> Path:
    """Return the default file of finished cells."""
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
        """Append a cell, with its data and settings, in a single write."""
        append_log({"kind": _KIND, "of": of, "cell": cell}, self.path)

    def finished(self, of: Mapping[str, Any]) -> tuple[dict[tuple[int, int], Cell], int]:
        """Cells by number of clusters and seed, the last of each, and the lines passed over."""
        lines, damaged = read_lines(self.path, _is_cell)
        cells = [line["cell"] for line in lines if line["of"] == of]
        return {(cell["n_clusters"], cell["seed"]): cell for cell in cells}, damaged


def _is_cell(line: Any) -> bool:
    return fits(line, _LINE) and line["kind"] == _KIND
