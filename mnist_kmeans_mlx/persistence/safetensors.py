"""The safetensors container: named NumPy arrays and texts in one file, checked when read.

Written with NumPy, for MLX neither saves nor loads float64 ("unsupported dtype F64"), and
centres in float32 would not give back the labels they were fitted with. The file is plain
safetensors all the same: any reader that knows float64 opens it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

Array = np.ndarray[Any, Any]

_DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {np.dtype(kind): code for code, kind in _DTYPES.items()}
_MAX_HEADER = 16 * 2**20


class Damage(Exception):
    """What is wrong with a file, as the rest of a sentence that starts with its name."""


def is_storable(array: Array) -> bool:
    """Whether the container has a code for the dtype of `array`."""
    return array.dtype.newbyteorder("<") in _CODES


def pack(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> list[bytes]:
    """Lay out a file that holds `tensors` and `texts`: its bytes, in pieces to write in turn.

    A checksum over everything is added to the texts.
    """
    header: dict[str, Any] = {}
    blobs: list[bytes] = []
    end = 0
    # Widest items first: every array then starts at a multiple of its item size.
    for key, array in sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize):
        code = _CODES[array.dtype.newbyteorder("<")]
        blob = array.astype(_DTYPES[code], copy=False).tobytes()
        begin, end = end, end + len(blob)
        header[key] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
        blobs.append(blob)
    signed = {**texts, "sha256": _checksum(texts, header, blobs)}
    text = json.dumps({"__metadata__": signed, **header}).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text, *blobs]


def read(
    path: str | os.PathLike[str], marker: str, kind: str
) -> tuple[dict[str, Array], dict[str, str]]:
    """Read arrays and texts of a file that `pack` wrote with ``texts["format"] == marker``.

    Of a file that holds something else no more than the header is read.

    Raises
    ------
    Damage
        The file is not what `pack` writes, to the last byte, or not a `kind`.
    OSError
        It cannot be opened.
    """
    # Before open(), which would wait for a writer at a named pipe.
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise Damage("is not a regular file")
    with open(path, "rb") as file:
        return unpack(file, marker, kind)


def unpack(file: IO[bytes], marker: str, kind: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Do what `read` does, with an open file."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(size - 8, _MAX_HEADER):
        raise Damage("is not a safetensors file, or is cut short")
    try:
        header = json.loads(file.read(length).decode())
    except (ValueError, RecursionError):
        header = None
    texts = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise Damage("is not a safetensors file, or its header is damaged")
    if texts.get("format") != marker:
        raise Damage(f"is a safetensors file, but not a {kind} of mnist-kmeans-mlx")
    end = 0
    for entry in sorted(header.values(), key=_offsets):
        end = _checked_end(entry, end)
    found = size - 8 - length
    if end != found:
        raise Damage(f"is damaged: it holds {found} bytes of arrays and announces {end}")
    data = file.read(end)
    checksum = texts.pop("sha256", "")
    if checksum != _checksum(texts, header, [data]):
        raise Damage("is damaged: its checksum does not match its contents")
    return {key: _array(entry, data) for key, entry in header.items()}, texts


def _offsets(entry: Any) -> tuple[int, int]:
    try:
        begin, end = entry["data_offsets"]
        return int(begin), int(end)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Damage("is damaged: an array has no place in it") from None


def _checked_end(entry: Any, begin: int) -> int:
    """Where an array ends that must start at `begin`: arrays leave no gap and do not overlap."""
    kind, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(kind, str) or kind not in _DTYPES or not isinstance(shape, list):
        raise Damage("is damaged: an array has no known dtype and shape")
    if len(shape) > 8 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise Damage("is damaged: an array has an impossible shape")
    end = begin + math.prod(shape) * np.dtype(_DTYPES[kind]).itemsize
    if entry["data_offsets"] != [begin, end]:
        raise Damage("is damaged: the place of an array does not fit its shape")
    return end


def _array(entry: dict[str, Any], data: bytes) -> Array:
    begin, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if dtype.kind == "b" and data[begin:end].translate(None, b"\0\1"):
        raise Damage("is damaged: a truth value is neither 0 nor 1")
    array = np.frombuffer(data, dtype, (end - begin) // dtype.itemsize, begin)
    # A copy in native byte order: writable and aligned, as a fit leaves it.
    return array.reshape(entry["shape"]).astype(dtype.newbyteorder("="), copy=True)


def _checksum(texts: Mapping[str, str], header: Mapping[str, Any], blobs: list[bytes]) -> str:
    digest = hashlib.sha256(json.dumps([texts, header], sort_keys=True).encode())
    for blob in blobs:
        digest.update(blob)
    return digest.hexdigest()
