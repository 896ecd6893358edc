"""The experiment log: one line of JSON for every fit, in the user's state folder."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.experiment.shapes import Maybe, fits

_ENTRY: dict[str, Any] = {
    "date": str,
    "n_clusters": int,
    "seconds": float,
    "train_accuracy": Maybe(float),
    "test_accuracy": Maybe(float),
    "device": str,
    "machine": Maybe(str),
}


def log_path() -> Path:
    """Return the default file of the log."""
    from platformdirs import user_state_path

    return user_state_path("mnist-kmeans-mlx", appauthor=False) / "experiments.jsonl"


def append_log(entry: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> Path:
    """Append one entry as one line, in a single write, so that two fits at once lose nothing.

    Parameters
    ----------
    entry : Mapping
        As `Result.log_entry` returns it.
    path : path-like, optional
        `log_path` if None. Its folder is made.

    Raises
    ------
    OSError
        The log cannot be written.
    """
    path = log_path() if path is None else Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(entry, allow_nan=False).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISFIFO(status.st_mode):
            raise OSError(errno.EINVAL, "is a pipe, which keeps nothing", os.fspath(path))
        size = status.st_size
        # A line cut short by a crash must not swallow this one.
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        if os.write(descriptor, line) != len(line):
            raise OSError(errno.ENOSPC, "the line was cut short", os.fspath(path))
    finally:
        os.close(descriptor)
    return path


def read_log(path: str | os.PathLike[str] | None = None) -> tuple[list[dict[str, Any]], int]:
    """Read all entries, oldest first.

    Parameters
    ----------
    path : path-like, optional
        `log_path` if None. A log that does not exist is empty.

    Returns
    -------
    entries : list of dict
    damaged : int
        Number of lines passed over because they are not entries.

    Raises
    ------
    OSError
        The log cannot be read.
    """
    return read_lines(log_path() if path is None else path, lambda entry: fits(entry, _ENTRY))


def read_lines(
    path: str | os.PathLike[str], is_entry: Callable[[Any], bool]
) -> tuple[list[dict[str, Any]], int]:
    """Read a file of one JSON value to a line, as `append_log` writes it; see `read_log`."""
    entries: list[dict[str, Any]] = []
    damaged = 0
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        return entries, damaged
    with file:
        for line in file:
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if is_entry(entry):
                entries.append(entry)
            else:
                damaged += 1
    return entries, damaged
