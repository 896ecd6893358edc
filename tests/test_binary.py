import gzip
import io
import struct
import warnings
import zipfile

import numpy as np
import pytest
from damage import put_together, refusal, safetensors_bytes
from doubles import traced

from mnist_kmeans_mlx.datasets import faults
from mnist_kmeans_mlx.datasets.binary import read_idx, read_npy, read_npz, read_safetensors

MATRIX = np.random.default_rng(0).normal(size=(6, 4))


def npy_bytes(array=MATRIX, header=None, version=(1, 0)):
    """An .npy file, with a header of our own if one is given."""
    if header is None:
        file = io.BytesIO()
        np.lib.format.write_array(file, array, version)
        return file.getvalue()
    size = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + size + header.encode() + array.tobytes()


def zipped(data, name="a.npy", method=zipfile.ZIP_DEFLATED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def claiming(shape, dtype="<f8"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n"


def little_memory(read, path, **kwargs):
    with traced() as memory:
        sentence = refusal(read, path, **kwargs)
    assert memory.peak < 5e6
    return sentence


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_npy_versions(version, write):
    assert np.array_equal(read_npy(write(npy_bytes(version=version))), MATRIX)
    assert np.array_equal(read_npz(write(zipped(npy_bytes(version=version)))), MATRIX)


def test_npy_by_mlx(tmp_path):
    mx = pytest.importorskip("mlx.core")
    single = MATRIX.astype(np.float32)
    array = mx.array(single)
    half = array.astype(mx.bfloat16)
    npy, npz, safe = (tmp_path / f"a.{suffix}" for suffix in ("npy", "npz", "safetensors"))
    mx.save(str(npy), array)
    mx.savez(str(npz), a=array)
    mx.save_safetensors(str(safe), {"a": array, "b": half})
    assert np.array_equal(read_npy(npy), single)
    assert np.array_equal(read_npz(npz), single)
    assert np.array_equal(read_safetensors(safe, "a"), single)
    assert np.array_equal(read_safetensors(safe, "b"), np.array(half.astype(mx.float32)))


def test_npy_from_python_2(write):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_npy(write(npy_bytes(header=claiming("(6L, 4L)")))).shape == (6, 4)


@pytest.mark.parametrize("length", [20, 200])
def test_npy_cut_short(length, write):
    assert "is cut short" in refusal(read_npy, write(npy_bytes()[:length]))
    assert "is cut short" in refusal(read_npz, write(zipped(npy_bytes()[:length])))


def test_npy_too_long(write):
    sentence = "is damaged: its header claims 192 bytes of data, but "
    assert refusal(read_npy, write(npy_bytes() + b"xyz")) == sentence + "195 follow"
    assert refusal(read_npz, write(zipped(npy_bytes() + b"xyz"))) == sentence + "more follow"


@pytest.mark.parametrize("shape", ["(10**12,)", (2**40, 4), (2**62, 2**62), "(True, 2**70)"])
def test_npy_claims_are_checked_before_memory_is_taken(shape, write):
    header = claiming(shape if isinstance(shape, tuple) else tuple(eval(shape)))
    assert "its header claims" in little_memory(read_npy, write(npy_bytes(header=header)))
    data = npy_bytes(np.zeros(10**6), header=header)
    assert "its header claims" in little_memory(read_npz, write(zipped(data)))
    assert "its header claims" in little_memory(read_npz, write(zipped(data, method=0)))


@pytest.mark.parametrize(
    "shape", [(-1, 4), (3, -2**70), (1,) * 40, (2,) * 33]
)  # fmt: skip
def test_npy_impossible_shapes(shape, write):
    for read, data in ((read_npy, npy_bytes(header=claiming(shape))),
                       (read_npz, zipped(npy_bytes(header=claiming(shape))))):  # fmt: skip
        assert "claims an impossible shape, " in refusal(read, write(data))


@pytest.mark.parametrize(
    "header",
    [
        "", "{", "{}", "[1, 2]", "3", "None", "\0" * 50, "(" * 5000, "-" * 9000 + "1", "[" * 90,
        "{'descr': '<f8', 'fortran_order': False, 'shape': (6, 4)",
        "{'descr': '<f8', 'fortran_order': 2, 'shape': (6, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (6.0, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': 24}",
        "{'descr': '<x8', 'fortran_order': False, 'shape': (6, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (6, " + "9" * 5000 + ")}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (6, 4), 'extra': 1}",
        "{'descr': '\\d', 'fortran_order': False, 'shape': (6, 4)}",
        "__import__('os').abort()",
    ],
)  # fmt: skip
def test_npy_headers_that_are_none(header, write):
    assert refusal(read_npy, write(npy_bytes(header=header))) == (
        "is damaged: its npy header cannot be parsed"
    )


def test_npy_header_of_gigabytes(write):
    data = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b" " * 30_000_000
    for path, read in ((write(data), read_npy), (write(zipped(data), "b"), read_npz)):
        assert "is cut short within its header" in little_memory(read, path)


def test_npy_of_another_version(write):
    assert "npy version" in refusal(read_npy, write(b"\x93NUMPY\3\0" + bytes(100)))


def test_npz_ignores_what_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("README", "hello")
        archive.writestr("a.npy", npy_bytes())
    assert np.array_equal(read_npz(tmp_path / "a.npz"), MATRIX)


def test_npz_without_arrays(write):
    assert refusal(read_npz, write(zipped(b"hello", "README"))) == "holds no array"


def test_npz_cut_short(write):
    data = zipped(npy_bytes())
    assert "is damaged" in refusal(read_npz, write(data[:-30]))
    assert "is damaged" in refusal(read_npz, write(b"PK"))


def test_npz_with_a_flipped_bit(write):
    data = bytearray(zipped(npy_bytes(), method=zipfile.ZIP_STORED))
    data[200] ^= 1
    assert "is damaged (Bad CRC-32" in refusal(read_npz, write(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_npz_compressed_in_other_ways(method, write):
    assert refusal(read_npz, write(zipped(npy_bytes(), method=method))) == (
        "is compressed in a way that numpy.savez does not use"
    )


def test_npz_with_a_password(write):
    data = bytearray(zipped(npy_bytes()))
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "is damaged (" in refusal(read_npz, write(data))


def test_more_than_the_machine_has(write, monkeypatch):
    path = write(zipped(npy_bytes(np.zeros((1000, 1000)))))
    monkeypatch.setattr(faults.os, "sysconf", lambda _: 2000)
    assert refusal(read_npz, path) == (
        "needs 8000000 bytes of memory, where this machine has 4000000"
    )


IDX_CODES = {"u1": 8, "i1": 9, ">i2": 11, ">i4": 12, ">f4": 13, ">f8": 14}


def idx(array, code=8):
    return struct.pack(f">2xBB{array.ndim}I", code, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(("dtype", "code"), IDX_CODES.items())
def test_idx_dtypes(dtype, code, pack, write):
    array = (MATRIX * 9).astype(dtype)
    assert np.array_equal(read_idx(write(pack(idx(array, code)))), array)


IDX = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\0\0\x08", "is not an IDX file: its magic number is 00 00 08"),
        (b"\0\0\x07\3" + IDX[4:], "is not an IDX file: its magic number is 00 00 07 03"),
        (b"\0\1\x08\3" + IDX[4:], "is not an IDX file: its magic number is 00 01 08 03"),
        (IDX[:9], "is cut short within its header"),
        (IDX[:-1], "is cut short or damaged: its header claims 24 bytes of data, "
                   "but no more than 23 follow"),
        (IDX + b"!", "is damaged: its header claims 24 bytes of data, but more follow"),
        (b"\0\0\x08\2" + bytes(8), "is empty: its array has the shape (0, 0)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_refused(data, sentence, pack, write):
    assert refusal(read_idx, write(pack(data))) == sentence


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_claims_are_checked_before_memory_is_taken(pack, write):
    data = b"\0\0\x08\3" + struct.pack(">3I", 60000, 2800, 2800) + bytes(10**6)
    assert "its header claims 470400000000 bytes" in little_memory(read_idx, write(pack(data)))


def test_gzip_cut_short(write):
    data = gzip.compress(idx(np.random.default_rng(0).integers(256, size=9999).astype(np.uint8)))
    assert refusal(read_idx, write(data[:5000])) == (
        "is damaged (Compressed file ended before the end-of-stream marker was reached)"
    )
    assert "is damaged" in refusal(read_idx, write(data[:4]))
    assert "is damaged" in refusal(read_idx, write(data[:-1]))
    assert "CRC check failed" in refusal(read_idx, write(data[:-8] + bytes(8)))


SAFE = {"BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4",
        "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"}  # fmt: skip


@pytest.mark.parametrize(("code", "dtype"), SAFE.items())
def test_safetensors(code, dtype, write):
    array = (abs(MATRIX) * 9).astype(dtype)
    # Three bytes before it: a tensor may lie at any offset.
    tensors = {"pad": ("U8", np.zeros(3, np.uint8)), "a": (code, array)}
    loaded = read_safetensors(write(safetensors_bytes(tensors, {"by": "test"})), "a")
    assert np.array_equal(loaded, array)
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable


def test_safetensors_bfloat16(write):
    wide = np.array([[1.5, -2.0], [3e38, 2.0**-130], [np.inf, -0.0]], np.float32)
    halves = (wide.view(np.uint32) >> 16).astype("<u2")
    loaded = read_safetensors(write(safetensors_bytes({"a": ("BF16", halves)})))
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, (halves.astype(np.uint32) << 16).view(np.float32))
    assert loaded[0].tolist() == [1.5, -2.0]


def safe_header(header, body=bytes(16)):
    return put_together(header, body)


GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
BAD = "is not a safetensors file, or is damaged ("


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\2\0", BAD),
        (struct.pack("<Q", 2**63) + b"{}", BAD),
        (struct.pack("<Q", 3) + b"{}", BAD),
        (safe_header({}, b""), "holds no array"),
        (safe_header({"__metadata__": {}}, b""), "holds no array"),
        (safe_header(b"[1]"), BAD),
        (safe_header(b"{{{{"), BAD),
        (safe_header(b'{"a": \xff}'), BAD),
        (safe_header(b"[" * 100_000), BAD),
        (safe_header(b'{"a": ' + b"9" * 5000 + b"}"), BAD),
        (safe_header({"a": 3}), BAD),
        (safe_header({"a": {"shape": [1, 4]}}), BAD),
        (safe_header({"a": GOOD | {"data_offsets": [16]}}), BAD),
        (safe_header({"a": GOOD | {"data_offsets": [0.0, 16.0]}}), BAD),
        (safe_header({"a": GOOD | {"dtype": ["F32"]}}), BAD),
        (safe_header({"a": GOOD | {"dtype": "F8_E4M3", "shape": [16]}}),
         "of dtype 'F8_E4M3', which NumPy"),
        (safe_header({"a": GOOD | {"shape": [2.0, 2]}}), BAD),
        (safe_header({"a": GOOD | {"shape": [2, 3]}}), BAD),
        # MLX's reader, which counts in 32 bits, takes this for (2, 2).
        (safe_header({"a": GOOD | {"shape": [2**32 + 2, 2]}}), BAD),
        (safe_header({"a": GOOD | {"shape": [-2, -2]}}), BAD),
        (safe_header({"a": GOOD | {"shape": [0, 2], "data_offsets": [0, 0]}}, b""), "is empty"),
        (safe_header({"a": GOOD | {"data_offsets": [-16, 0]}}), BAD),
        (safe_header({"a": GOOD | {"data_offsets": [1, 17]}}), BAD),
        (safe_header({"a": GOOD}, bytes(15)), BAD),
        (safe_header({"a": GOOD | {"shape": [2**30, 2**30], "data_offsets": [0, 2**62]}}), BAD),
    ],
)  # fmt: skip
def test_safetensors_refused(data, sentence, write):
    assert sentence in little_memory(read_safetensors, write(data))
