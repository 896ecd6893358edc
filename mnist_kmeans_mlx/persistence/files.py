"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from typing import IO


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now the OSError that writing `path` would raise later."""
    descriptor, temporary, _ = _open_beside(path)
    os.close(descriptor)
    os.unlink(temporary)


@contextlib.contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Write a temporary file that replaces `path` on success, and is removed on failure.

    Parameters
    ----------
    path : path-like
        A link is followed; the permissions of an existing file are kept.

    Raises
    ------
    OSError
        The file cannot be written, or `path` is a folder or a device.
    """
    descriptor, temporary, target = _open_beside(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        put_in_place(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            # The caller does not know the temporary file, and a full disk names no file.
            raise OSError(error.errno, error.strerror, os.fspath(path)) from None
        raise


def put_in_place(temporary: str, target: str) -> None:
    """Rename a file that is whole, with the permissions of the one it replaces."""
    if os.path.exists(target):
        os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
    os.replace(temporary, target)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove temporary files that killed writers of `path` left behind.

    Those of the last minute stay: they may be in use.
    """
    folder, name = os.path.split(os.path.realpath(path))
    temporary = re.compile(re.escape(f".{name[:60]}.") + r"[0-9a-f]{8}\.tmp")
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if temporary.fullmatch(entry.name) and entry.stat().st_mtime < time.time() - 60:
                os.unlink(entry)


def file_to_replace(path: str | os.PathLike[str]) -> str:
    """Return the file behind any links, which need not exist; refuse a folder or a device."""
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        # Renaming over a device would replace the device.
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return target


def _open_beside(path: str | os.PathLike[str]) -> tuple[int, str, str]:
    """Open a temporary file in the folder of `path`: descriptor, its name, the file to replace."""
    target = file_to_replace(path)
    remove_leftovers(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name[:60]}.{secrets.token_hex(4)}.tmp")
    try:
        return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), temporary, target
    except OSError as error:
        # The caller knows its own file, not the temporary one.
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(path)) from None
