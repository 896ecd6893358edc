"""Rows written as they are computed, to a file that appears whole or not at all.

Until then they are in `.NAME.partial`, an incomplete `.npy` file; `.NAME.partial.json` records
how many of its rows are safely on disk. Other formats are made from
the partial file at the end, so there must be room for both.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.datasets.faults import PathLike, blaming
from mnist_kmeans_mlx.datasets.tables import arrow
from mnist_kmeans_mlx.formats import format_of, suffixes
from mnist_kmeans_mlx.persistence.files import file_to_replace, put_in_place

# An interruption costs at most so many seconds of work.
_EVERY = 5.0
# Bytes of rows that are held while a file is made from the partial one.
_GROUP = 1 << 25

Identity = Mapping[str, Any] | Callable[[], Mapping[str, Any]]


@contextlib.contextmanager
def open_sink(
    path: PathLike,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    identity: Identity,
    *,
    resume: bool = True,
) -> Iterator[Sink]:
    """Write rows as they come; the file appears when all are there.

    Parameters
    ----------
    path : path-like
        Its suffix names the format: ``.npy``, or ``.csv`` or ``.parquet`` (needs pyarrow) with a
        column ``label``, or columns ``distance_0`` and so on if `shape` has two dimensions.
    shape : tuple (n,) or (n, k)
        Of the whole.
    dtype : dtype
        Of real numbers.
    identity : mapping, or callable that returns it
        All that the rows depend on, as JSON can hold it. A partial file written for a different
        identity is discarded, see `Sink.other`. A callable is called at most once, and not at all
        if the file is written within seconds.
    resume : bool, default=True
        Resume an attempt that Ctrl-C, a full disk or a power failure ended; False starts again.

    Yields
    ------
    Sink
        Append the rows from `Sink.rows_done` on.

    Raises
    ------
    OSError
        The file cannot be written, or another process is writing it.
    ValueError
        The suffix is unknown, rows do not fit, or some are missing at the end.
    DatasetError
        pyarrow is needed and not installed.
    """
    if format_of(path, "write") is None:
        raise ValueError(f"{os.fspath(path)!r} cannot be written: name it {suffixes('write')}.")
    if os.fspath(path).lower().endswith(".parquet"):
        with blaming(path):
            arrow()  # now, not after an hour
    sink = Sink(path, shape, dtype, identity, resume=resume)
    try:
        yield sink
        if sink.rows_done < shape[0]:
            raise ValueError(
                f"{os.fspath(path)!r} is not complete: {sink.rows_done} of {shape[0]} rows came."
            )
        sink.finish()
    except BaseException:
        with contextlib.suppress(OSError):
            if sink.rows_done:
                sink.record()
        raise
    finally:
        sink.close()


class Sink:
    """A file that is being written; see `open_sink`.

    Attributes
    ----------
    rows_done : int
        Rows written so far, including those of an earlier attempt.
    other : tuple of str
        Keys in which the identity of a discarded partial file differs; empty if there was none.
    """

    other: tuple[str, ...] = ()

    def __init__(
        self,
        path: PathLike,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        identity: Identity,
        *,
        resume: bool,
    ) -> None:
        self.path = os.fspath(path)
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.rows_done = 0
        self._row = self.dtype.itemsize * int(np.prod(shape[1:]))
        self._header = _npy_header(self.shape, self.dtype)
        self._target = file_to_replace(path)
        folder, name = os.path.split(self._target)
        self._partial = os.path.join(folder, f".{name}.partial")
        self._journal = Path(f"{self._partial}.json")
        self._identify = identity
        with self._named():
            self._file = os.fdopen(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b", 0)
            try:
                self._begin(resume)
            except BaseException:
                self.close()
                raise

    @cached_property
    def _identity(self) -> Any:
        """The identity, as it comes back from JSON."""
        found = self._identify() if callable(self._identify) else self._identify
        return json.loads(json.dumps(dict(found)))

    def append(self, rows: npt.ArrayLike) -> None:
        """Write the next rows.

        Parameters
        ----------
        rows : array-like of shape (m,) or (m, k)
            Converted to the dtype of the file, but not from fractions to whole numbers.
        """
        rows = np.asarray(rows)
        if rows.shape[1:] != self.shape[1:] or len(rows) > self.shape[0] - self.rows_done:
            raise ValueError(
                f"Rows of shape {rows.shape} do not fit into {self.path!r} of shape {self.shape}, "
                f"which has {self.rows_done} rows so far."
            )
        data = np.ascontiguousarray(rows.astype(self.dtype, casting="same_kind", copy=False))
        with self._named():
            # Not at the current position: a write may have failed within a row.
            self._file.seek(len(self._header) + self.rows_done * self._row)
            _write(self._file, data.reshape(-1).view(np.uint8).data)
        self.rows_done += len(rows)
        if time.monotonic() >= self._due:
            self.record()

    def record(self) -> None:
        """Flush the rows to disk, and record their number."""
        with self._named():
            os.fsync(self._file.fileno())
            note = {"identity": self._identity, "rows": self.rows_done}
            with _whole(str(self._journal)) as file:
                file.write(json.dumps(note).encode())
        self._due = time.monotonic() + _EVERY

    def finish(self) -> None:
        """Put the finished file in place."""
        with self._named():
            if self.path.lower().endswith(".npy"):
                os.fsync(self._file.fileno())
                put_in_place(self._partial, self._target)
            else:
                self.record()  # making the copy takes time
                kind = format_of(self.path, "write")
                assert kind is not None
                with _whole(self._target, f"{self._partial}.copy") as file:
                    kind.function("write")(file, self._names(), self._blocks())
                os.unlink(self._partial)
            self._journal.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the partial file, which stays."""
        self._file.close()

    def _begin(self, resume: bool) -> None:
        if not self._is_ours():
            raise OSError(errno.EBUSY, "is being written by another process", self.path)
        self.rows_done = self._found() if resume else 0
        if not self.rows_done:
            self._journal.unlink(missing_ok=True)  # first: the journal describes the old rows
            self._file.truncate(0)
            self._file.seek(0)
            _write(self._file, memoryview(self._header))
        # Bytes beyond the recorded rows may be incomplete.
        self._file.truncate(len(self._header) + self.rows_done * self._row)
        self._due = time.monotonic() + _EVERY

    def _is_ours(self) -> bool:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network without locks
            pass
        # The previous holder of the lock may have renamed this file into place.
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._partial))
        except FileNotFoundError:
            return False

    def _found(self) -> int:
        """Return how many rows of an earlier attempt with the same identity are on disk."""
        try:
            note = json.loads(self._journal.read_bytes())
            rows, identity = note["rows"], note["identity"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return 0
        size = os.fstat(self._file.fileno()).st_size
        if not (size and isinstance(rows, int) and rows > 0 and isinstance(identity, dict)):
            return 0
        if identity != self._identity:
            keys = {**identity, **self._identity}
            self.other = tuple(key for key in keys if identity.get(key) != self._identity.get(key))
            return 0
        fits = rows <= self.shape[0] and size >= len(self._header) + rows * self._row
        return rows if fits and self._file.read(len(self._header)) == self._header else 0

    def _names(self) -> list[str]:
        """Names of the columns."""
        return [f"distance_{i}" for i in range(self.shape[1])] if len(self.shape) > 1 else ["label"]

    def _blocks(self) -> Iterator[npt.NDArray[Any]]:
        """All rows, from the partial file."""
        self._file.seek(len(self._header))
        step = max(1, _GROUP // max(1, self._row))
        for start in range(0, max(1, self.shape[0]), step):
            rows = np.empty((min(step, self.shape[0] - start), len(self._names())), self.dtype)
            _read(self._file, rows.reshape(-1).view(np.uint8).data)
            yield rows

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Report errors about the internal files under the name that the caller gave."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), self.path) from None


@contextlib.contextmanager
def _whole(path: str, temporary: str | None = None) -> Iterator[IO[bytes]]:
    """Write a file atomically; only the holder of the lock writes it, so its name can be fixed."""
    temporary = temporary or f"{path}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    formats = np.lib.format
    header = io.BytesIO()
    fields = {"descr": formats.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    formats.write_array_header_1_0(header, fields)
    return header.getvalue()


def _write(file: IO[bytes], data: memoryview) -> None:
    while data:
        data = data[file.write(data) :]


def _read(file: Any, data: memoryview) -> None:
    while data:
        count = file.readinto(data)
        if not count:
            raise OSError(errno.EIO, "its partial file was cut short by another process")
        data = data[count:]
