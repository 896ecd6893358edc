"""Named NumPy arrays and texts in one safetensors file, with a checksum over everything.

The safetensors package checks a header against the file before it takes memory. MLX neither saves
nor loads float64, and centres in float32 would not give back the labels they were fitted with.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from mnist_kmeans_mlx.datasets.faults import Fault, brief

Array = np.ndarray[Any, Any]


def is_storable(array: Array) -> bool:
    """Whether the file format has a code for the dtype of `array`."""
    return array.dtype.kind in "biuf" and array.dtype.itemsize <= 8


def pack(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> bytes:
    """Return the file that holds `tensors`, `texts`, and a checksum over both."""
    # save() copies raw memory.
    arrays = {
        key: array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
        for key, array in tensors.items()
    }
    signature = _checksum(dict(texts), *_parts(save(arrays, {}))[1:])
    return save(arrays, {**texts, "sha256": signature})


def read(
    path: str | os.PathLike[str], marker: str, kind: str
) -> tuple[dict[str, Array], dict[str, str]]:
    """Read arrays and texts of a file that `pack` wrote with ``texts["format"] == marker``.

    Of a file that holds something else no more than the header is read.

    Raises
    ------
    Fault
        The file is not what `pack` writes, to the last byte, or not a `kind`.
    OSError
        It cannot be opened.
    """
    # Before open(): on a named pipe it would block until another process writes.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Fault("is not a regular file")
    with open(path, "rb"):  # its errors say more than those of the package
        pass
    try:
        with safe_open(path, "np") as file:
            texts = file.metadata() or {}
    except SafetensorError as error:
        raise Fault(f"is not a safetensors file, or is damaged ({brief(error)})") from error
    if texts.get("format") != marker:
        raise Fault(f"is a safetensors file, but not a {kind} of mnist-kmeans-mlx")
    return unpack(Path(path).read_bytes())


def unpack(data: bytes) -> tuple[dict[str, Array], dict[str, str]]:
    """Return arrays and texts of a file, as `pack` made it."""
    try:
        arrays = load(data)
    except (SafetensorError, ValueError) as error:
        raise Fault(f"is damaged ({brief(error)})") from error
    except KeyError as error:
        raise Fault(f"is damaged: it holds {error}, which NumPy does not have") from error
    texts, header, body = _parts(data)
    if texts.pop("sha256", "") != _checksum(texts, header, body):
        raise Fault("is damaged: its checksum does not match its contents")
    for array in arrays.values():
        if not is_storable(array):
            raise Fault(f"is damaged: it holds {array.dtype}, not real numbers")
        if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
            raise Fault("is damaged: a truth value is neither 0 nor 1")
    return arrays, texts


@contextmanager
def parsing() -> Iterator[None]:
    """Take for damage whatever the contents of a file raise."""
    try:
        yield
    except KeyError as error:
        raise Fault(f"is damaged: it lacks {error.args[0]!r}") from error
    except (
        ArithmeticError,
        AttributeError,
        IndexError,
        TypeError,
        ValueError,
        RecursionError,
    ) as e:
        raise Fault(f"is damaged: {brief(str(e).partition(chr(10))[0])}") from e


def require(sound: bool, words: str) -> None:
    """Raise a ValueError with these words, unless what was read is sound."""
    if not sound:
        raise ValueError(words)


def _parts(data: bytes) -> tuple[dict[str, str], dict[str, Any], memoryview]:
    """Split a file that the package has read or made: texts, places of the arrays, and bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    return header.pop("__metadata__", {}), header, memoryview(data)[end:]


def _checksum(texts: Mapping[str, str], header: Mapping[str, Any], body: Any) -> str:
    digest = hashlib.sha256(json.dumps([texts, header], sort_keys=True).encode())
    digest.update(body)
    return digest.hexdigest()
