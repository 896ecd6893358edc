"""Errors about files: each is one sentence that names the file and the reason."""

from __future__ import annotations

import errno
import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

PathLike = str | os.PathLike[str]

_NOT_NUMBERS = {
    "O": "Python objects, which are pickles and never opened",
    "c": "complex numbers",
    "S": "text",
    "U": "text",
    "M": "dates",
    "m": "spans of time",
    "V": "records",
}
# What zipfile, gzip, json, pyarrow and NumPy raise on damaged bytes, besides OSError.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    RuntimeError,
    ValueError,
    OverflowError,
)


class DatasetError(ValueError):
    """Data that cannot be used. The message names the file and the reason."""


class DatasetWarning(UserWarning):
    """A guess about a file: one sentence that also says how to override it."""


class Fault(Exception):
    """What is wrong with a file, as the rest of a sentence that begins with its name."""


@contextmanager
def blaming(path: PathLike) -> Iterator[None]:
    """Turn any error about `path` inside the block into one `DatasetError`, which names it.

    Raises
    ------
    DatasetError
        For a `Fault`, an `OSError`, a `MemoryError` or what decoders raise on damaged bytes.
    """
    try:
        yield
    except DatasetError:
        raise
    except Fault as fault:
        reason, cause = str(fault), fault.__cause__
    except MemoryError as error:
        reason, cause = "needs more memory than there is", error
    except (*_DAMAGE, OSError) as error:
        # Decoders raise OSErrors without a number, or seek to a place before the file (EINVAL).
        number, text = getattr(error, "errno", None), getattr(error, "strerror", None)
        of_system = number not in (None, errno.EINVAL)
        reason = f"cannot be read ({text})" if of_system else f"is damaged ({brief(error)})"
        cause = error
    else:
        return
    raise DatasetError(f"{os.fspath(path)!r} {reason}.") from cause


@contextmanager
def opened(path: PathLike) -> Iterator[io.BufferedReader]:
    """Open a regular file that is not empty, for reading; `blaming` covers the block.

    Raises
    ------
    DatasetError
        As `blaming` does, and when `path` is missing, a folder, a pipe, or empty.
    """
    with blaming(path):
        try:
            status = os.stat(path)
        except (FileNotFoundError, ValueError):  # no file has a NUL in its name
            raise Fault("does not exist") from None
        if stat.S_ISDIR(status.st_mode):
            raise Fault("is a folder where a file is expected")
        # Before open(): on a named pipe it would block until another process writes.
        if not stat.S_ISREG(status.st_mode):
            raise Fault("is not a regular file")
        if status.st_size == 0:
            raise Fault("is empty (0 bytes)")
        # Open by str: np.memmap keeps no other kind of file name.
        with open(os.fspath(path), "rb") as file:
            yield file


def brief(error: object) -> str:
    """Return a foreign message as one short line."""
    text = " ".join(str(error).split()).rstrip(".")
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:160])
    return text or type(error).__name__


def claimed_bytes(dtype: np.dtype[Any], shape: tuple[int, ...]) -> int:
    """Check that dtype and shape can be read, and return the bytes of the array."""
    if dtype.kind not in "biuf":
        raise Fault(f"holds {_NOT_NUMBERS.get(dtype.kind, 'no numbers')}, not real numbers")
    if len(shape) > 32 or any(n < 0 for n in shape):
        raise Fault(f"claims an impossible shape, {str(shape)[:60]}")
    if 0 in shape:
        raise Fault(f"is empty: its array has the shape {str(shape)[:60]}")
    return math.prod(shape) * dtype.itemsize


def check_memory(claim: int) -> None:
    """Refuse an allocation larger than the memory of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if claim > memory:
        raise Fault(f"needs {claim} bytes of memory, where this machine has {memory}")


def file_size(file: io.BufferedReader) -> int:
    """Return the size of a file in bytes."""
    return os.fstat(file.fileno()).st_size


def start_of(file: io.BufferedReader, length: int = 8) -> bytes:
    """Return the first bytes of a file, and go back to its start."""
    file.seek(0)
    start = file.read(length)
    file.seek(0)
    return start
