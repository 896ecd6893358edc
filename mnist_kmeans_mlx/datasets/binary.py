"""Binary files -> NumPy arrays: one reader per format. No reader trusts a header.

Every reader compares what a header claims with what the file can hold before it takes memory,
opens no pickle, and maps the file instead of copying it where the format allows.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import warnings
import zipfile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from mnist_kmeans_mlx.datasets.faults import (
    Fault,
    PathLike,
    brief,
    check_memory,
    claimed_bytes,
    file_size,
    opened,
    start_of,
)

Array = NDArray[Any]

_CHUNK = 2**22
_FIRST = 2**16
# Deflate never expands a byte to more than this many (zlib's technical notes).
_DEFLATE_AT_MOST = 1032
_NPY_MAGIC = b"\x93NUMPY"
_NPY_LONGEST_HEADER = 10_000  # NumPy's own limit
_IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
# It has no NumPy dtype: its two bytes are the upper half of a float32. `mx.save` writes it as
# "<V2"; NumPy itself writes untyped two-byte items as "|V2", without a byte order.
BFLOAT16 = np.dtype("<u2", metadata={"is": "bfloat16"})
_SAFETENSORS_DTYPES: dict[str, Any] = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
    "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": BFLOAT16,
}  # fmt: skip


class _Bytes(Protocol):
    """A file, or a decompressing stream."""

    def read(self, size: int, /) -> bytes: ...


def read_npy(path: PathLike) -> Array:
    """Map the array of an `.npy` file, read-only; bfloat16, as of `mx.save`, is read as float32.

    Returns
    -------
    memmap of any real dtype and shape, or ndarray of float32

    Raises
    ------
    DatasetError
        The file is not an `.npy` file, is longer or shorter than its header says, or holds
        anything but real numbers.
    """
    with opened(path) as file:
        dtype, shape, order = npy_header(file)
        check_rest(file, dtype, shape)
        return widened(np.memmap(file, dtype, "r", file.tell(), shape, order), dtype)


def read_npz(path: PathLike, key: str | None = None) -> Array:
    """Read one array of an `.npz` file; its name may be left out where the file holds only one.

    Raises
    ------
    DatasetError
        The file is damaged, has no array of this name, or several and no name is given, or
        claims more data than it can hold.
    """
    with opened(path) as file:
        size = file_size(file)
        if start_of(file, 2) != b"PK":
            raise Fault(f"is not an .npz file (it starts with {start_of(file)!r})")
        with zipfile.ZipFile(file) as archive:
            members = {
                info.filename.removesuffix(".npy"): info
                for info in archive.infolist()
                if info.filename.endswith(".npy")
            }
            info = members[_choose(list(members), key)]
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Fault("is compressed in a way that numpy.savez does not use")
            stored = info.compress_type == zipfile.ZIP_STORED
            with archive.open(info) as member:
                dtype, shape, order = npy_header(member)
                raw = _filled(member, claimed_bytes(dtype, shape), size * _growth(not stored))
    return widened(raw.view(dtype).reshape(shape, order=order), dtype)


def read_idx(path: PathLike) -> Array:
    """Read an IDX file, the format of MNIST's four files, plain or gzipped by its first bytes.

    Returns
    -------
    ndarray of uint8, int8, int16, int32, float32 or float64, of any shape

    Raises
    ------
    DatasetError
        The magic number is not one of IDX, or the file is longer or shorter than its header
        says.
    """
    with opened(path) as file:
        zipped = start_of(file, 2) == b"\x1f\x8b"
        most = file_size(file) * _growth(zipped)
        with gzip.GzipFile(fileobj=file) if zipped else file as content:
            magic = content.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_DTYPES:
                raise Fault(f"is not an IDX file: its magic number is {magic.hex(' ')}")
            sizes = content.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise Fault("is cut short within its header")
            dtype, shape = np.dtype(_IDX_DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)
            raw = _filled(content, claimed_bytes(dtype, shape), most)
    return raw.view(dtype).reshape(shape)


def read_safetensors(path: PathLike, key: str | None = None) -> Array:
    """Map one tensor of a `.safetensors` file, read-only; bfloat16 is read as float32.

    The safetensors package checks the header, but it would copy the tensor, and has no bfloat16.
    The tensor's name may be left out where the file holds only one.

    Returns
    -------
    memmap of any real dtype and shape, or ndarray of float32

    Raises
    ------
    DatasetError
        The header is damaged or does not fit the file, or there is no such tensor, or
        several and no name is given.
    """
    with opened(path) as file:
        try:
            with safe_open(path, "np"):
                pass  # its header fits the file
        except SafetensorError as error:
            raise Fault(f"is not a safetensors file, or is damaged ({brief(error)})") from error
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensor = header[_choose(list(header), key)]
        if tensor["dtype"] not in _SAFETENSORS_DTYPES:
            raise Fault(f"holds a tensor of dtype {tensor['dtype']!r}, which NumPy does not have")
        dtype, shape = np.dtype(_SAFETENSORS_DTYPES[tensor["dtype"]]), tuple(tensor["shape"])
        claimed_bytes(dtype, shape)
        start = 8 + length + tensor["data_offsets"][0]
        return widened(np.memmap(file, dtype, "r", start, shape), dtype)


def widened(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return float32 for an array that was read as `BFLOAT16`, and any other as it is."""
    if dtype is not BFLOAT16:
        return array
    wide = array.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _growth(deflated: bool) -> int:
    return _DEFLATE_AT_MOST if deflated else 1


def _choose(keys: list[str], key: str | None) -> str:
    listed = ", ".join(repr(k[:40]) for k in keys[:8]) + (", ..." if len(keys) > 8 else "")
    if not keys:
        raise Fault("holds no array")
    if key is None and len(keys) > 1:
        raise Fault(f"holds {len(keys)} arrays, choose one by its key: {listed}")
    if key is not None and key not in keys:
        raise Fault(f"has no array {key!r}, but {listed}")
    return keys[0] if key is None else key


def _short(claim: int, most: int) -> Fault:
    return Fault(
        f"is cut short or damaged: its header claims {claim} bytes of data, "
        f"but no more than {most} follow"
    )


def _filled(file: _Bytes, claim: int, most: int) -> NDArray[np.uint8]:
    """Read the `claim` bytes that must be all the rest of `file`, which has `most` at most."""
    if claim > most:
        raise _short(claim, most)
    check_memory(claim)
    # Grow with the data read: a small file may unpack, or claim to, a thousand times its size.
    raw = np.empty(min(claim, _FIRST), np.uint8)
    done = 0
    while done < claim:
        if done == len(raw):
            raw.resize(min(claim, 2 * done), refcheck=False)
        chunk = file.read(min(_CHUNK, len(raw) - done))
        if not chunk:
            raise _short(claim, done)
        raw[done : done + len(chunk)] = np.frombuffer(chunk, np.uint8)
        done += len(chunk)
    if file.read(1):
        raise Fault(f"is damaged: its header claims {claim} bytes of data, but more follow")
    return raw


def check_rest(file: io.BufferedReader, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Check that an array of this kind is all that is left of `file`."""
    claim, rest = claimed_bytes(dtype, shape), file_size(file) - file.tell()
    if claim > rest:
        raise _short(claim, rest)
    if claim < rest:
        raise Fault(f"is damaged: its header claims {claim} bytes of data, but {rest} follow")


def npy_header(file: _Bytes) -> tuple[np.dtype[Any], tuple[int, ...], Any]:
    """Read dtype, shape and order; NumPy itself would read a header of 4 GB before refusing it."""
    prefix = file.read(8)
    if prefix[:6] != _NPY_MAGIC:
        raise Fault(f"is not an .npy file (it starts with {prefix!r})")
    # 3.0 differs in the names of records only.
    if prefix[6:] not in (b"\1\0", b"\2\0"):
        raise Fault("is damaged or holds records: its npy version is neither 1.0 nor 2.0")
    width = 2 * prefix[6]
    size = file.read(width)
    length = int.from_bytes(size, "little")
    header = file.read(min(length, _NPY_LONGEST_HEADER))
    if len(size) < width or len(header) < length:
        raise Fault("is cut short within its header, or its header is damaged")
    formats = np.lib.format
    parse = formats.read_array_header_1_0 if width == 2 else formats.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files from Python 2, which are fine
            shape, fortran, dtype = parse(io.BytesIO(size + header))
    # Whatever ast, tokenize and dtype raise on bytes that are no header.
    except Exception as error:
        raise Fault("is damaged: its npy header cannot be parsed") from error
    if dtype == "V2" and b"'<V2'" in header:
        dtype = BFLOAT16
    return dtype, shape, "F" if fortran else "C"
