import gzip
import os

import numpy as np
import pytest
from damage import refusal, safetensors_bytes

from mnist_kmeans_mlx.datasets import load_matrix, matrix, open_rows
from mnist_kmeans_mlx.datasets.mnist import idx_bytes

DTYPES = ["?", "u1", "i1", "u2", "i4", "u8", "i8", "f2", "f4", "f8", ">i2", ">f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_numpys_own_files(kind, order, dtype, tmp_path):
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (5, 3)), dtype, order=order)
    path = tmp_path / f"a.{kind[:3]}"
    match kind:
        case "npy":
            np.save(path, array)
        case "npz":
            np.savez(path, array)
        case _:
            path = tmp_path / "a.npz"
            np.savez_compressed(path, array)
    loaded = load_matrix(path)
    assert np.array_equal(loaded, array)
    assert loaded.dtype == np.dtype(dtype).newbyteorder("=")
    assert not loaded.flags.writeable


def test_npy_is_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    loaded = load_matrix(str(tmp_path / "a.NPY".lower()))
    assert isinstance(loaded, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        loaded[0, 0] = 2


def test_suffixes_in_capitals(tmp_path):
    with open(tmp_path / "A.NPY", "wb") as file:
        np.save(file, np.eye(3))
    assert load_matrix(tmp_path / "A.NPY").shape == (3, 3)


@pytest.mark.parametrize("shape", [(4, 28, 28), (4, 2, 3, 5), (2, 1, 1)])
def test_images_are_flattened(shape, tmp_path):
    array = np.arange(np.prod(shape)).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    for name in ("a.npy", "f.npy"):
        loaded = load_matrix(tmp_path / name)
        assert np.array_equal(loaded, array.reshape(len(array), -1))
        assert not loaded.flags.writeable


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "x.idx3-ubyte.gz"])
def test_idx(name, pack, tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    (tmp_path / name).write_bytes(pack(idx_bytes(images)))
    assert np.array_equal(load_matrix(tmp_path / name), images.reshape(2, 784))


@pytest.mark.parametrize("load", [load_matrix, open_rows])
def test_booleans_are_0_or_1(load, tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4), bool))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-4] + b"\0\1\2\xff")
    loaded = load(tmp_path / "a.npy")
    assert loaded[1:].view(np.uint8).tolist() == [[0, 1, 1, 1]]


def test_keys(tmp_path):
    one, two = np.eye(2), np.ones((3, 2))
    np.savez(tmp_path / "a.npz", one=one, two=two)
    tensors = {"one": ("F64", one), "two": ("F64", two)}
    (tmp_path / "a.safetensors").write_bytes(safetensors_bytes(tensors))
    for name in ("a.npz", "a.safetensors"):
        path = tmp_path / name
        assert np.array_equal(load_matrix(path, key="two"), two)
        assert refusal(load_matrix, path) == "holds 2 arrays, choose one by its key: 'one', 'two'"
        assert refusal(load_matrix, path, key="x") == "has no array 'x', but 'one', 'two'"
    np.save(tmp_path / "a.npy", one)
    assert refusal(load_matrix, tmp_path / "a.npy", key="one") == (
        "takes no key='one' (--key): that is for .npz or .safetensors"
    )


def test_many_keys_are_not_all_listed(tmp_path):
    np.savez(tmp_path / "a.npz", **{f"k{i}\n" + "x" * 99: np.eye(2) for i in range(30)})
    assert refusal(load_matrix, tmp_path / "a.npz").endswith(", ...")


@pytest.mark.parametrize("array", [np.float64(3), np.arange(5)])
def test_fewer_than_two_dimensions(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    assert refusal(load_matrix, tmp_path / "a.npy") == (
        f"holds an array of shape {array.shape}, not a matrix of (n_samples, n_features): "
        "save array.reshape(-1, 1) if each number is a sample"
    )


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0,), (2, 0, 4)])
@pytest.mark.parametrize("save", [np.save, np.savez_compressed])
def test_empty_arrays(shape, save, tmp_path):
    path = tmp_path / f"a.np{'y' if save is np.save else 'z'}"
    save(path, np.zeros(shape))
    assert refusal(load_matrix, path) == f"is empty: its array has the shape {shape}"


def test_one_row(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((1, 5)))
    assert refusal(load_matrix, tmp_path / "a.npy") == (
        "has one row only, and K-means needs at least 2"
    )
    assert load_matrix(tmp_path / "a.npy", min_rows=1).shape == (1, 5)
    np.save(tmp_path / "b.npy", np.zeros((2, 5)))
    assert refusal(load_matrix, tmp_path / "b.npy", min_rows=3) == (
        "has 2 rows only, and K-means needs at least 3"
    )


@pytest.mark.parametrize("step", [1, 64, 2**24])
def test_nan_and_infinity_are_counted_by_chunks(step, tmp_path, monkeypatch):
    monkeypatch.setattr(matrix, "_CHUNK", step)
    array = np.zeros((50, 4), np.float32)
    array[17, 2], array[17, 3], array[49, 0] = np.nan, np.inf, -np.inf
    np.save(tmp_path / "a.npy", array)
    assert refusal(load_matrix, tmp_path / "a.npy") == (
        "holds NaN or infinity (3 of its 200 values, the first in row 17 counted from 0)"
    )
    np.save(tmp_path / "b.npy", np.full((3, 2), np.finfo(np.float32).max))
    assert load_matrix(tmp_path / "b.npy").shape == (3, 2)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.eye(2, dtype=complex), "complex numbers"),
        (np.array([["a", "b"]] * 2), "text"),
        (np.array([[b"a", b"b"]] * 2), "text"),
        (np.zeros((2, 2), "M8[s]"), "dates"),
        (np.zeros((2, 2), "m8[s]"), "spans of time"),
        (np.zeros((2, 2), [("a", "f4")]), "records"),
        (np.array([[1, None]] * 2), "Python objects, which are pickles and never opened"),
    ],
)
def test_what_is_not_real_numbers(array, what, tmp_path):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", array)
    for name in ("a.npy", "a.npz"):
        assert refusal(load_matrix, tmp_path / name) == f"holds {what}, not real numbers"


def test_pickles_stay_closed(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.save(tmp_path / "a.npy", np.array([[Trap()]]), allow_pickle=True)
    assert "never opened" in refusal(load_matrix, tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["a.png", "a", "a.txt", "a.gz", ".npy"])
def test_an_unknown_suffix(name, tmp_path):
    (tmp_path / name).write_bytes(b"1,2\n3,4\n")
    assert refusal(load_matrix, tmp_path / name) == (
        "is of an unknown kind: the suffixes read are .npy, .npz, .safetensors, .csv, .csv.gz, "
        ".tsv, .tsv.gz, .parquet, -ubyte and -ubyte.gz"
    )


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("a.npy", r"is not an .npy file (it starts with b'\x89PNG\r\n\x1a\n')"),
        ("a.npz", r"is not an .npz file (it starts with b'\x89PNG\r\n\x1a\n')"),
        ("a.csv", "is not text in UTF-8"),
        ("a.tsv", "is not text in UTF-8"),
        ("a.safetensors", "is not a safetensors file, or is damaged ("),
        ("a.parquet", r"is not a Parquet file (it starts with b'\x89PNG\r\n\x1a\n')"),
        ("a-ubyte", "is not an IDX file: its magic number is 89 50 4e 47"),
    ],
)
def test_a_picture_under_another_name(name, sentence, tmp_path):
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert refusal(load_matrix, tmp_path / name).startswith(sentence)


@pytest.mark.parametrize("save", ["save", "savez"])
def test_bfloat16_of_mlx_is_read_as_float32(save, tmp_path):
    import mlx.core as mx

    array = mx.array(np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32))
    path = str(tmp_path / ("a.npy" if save == "save" else "a.npz"))
    getattr(mx, save)(path, array.astype(mx.bfloat16))
    expected = np.array(array.astype(mx.bfloat16).astype(mx.float32))
    loaded = load_matrix(path)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, expected)
    if save == "save":
        rows = open_rows(path, block_bytes=160)
        assert rows.dtype == np.float32
        assert np.array_equal(rows[:], expected)
        index = [49, 0, 3, 3]
        assert np.array_equal(rows.take(index), expected[index])
        both = tmp_path / "b.npy"
        np.save(both, np.eye(4))
        shards = open_rows([path, both])
        assert np.array_equal(shards[:], np.concatenate([expected, np.eye(4)]))
        assert np.array_equal(shards.take([0, 7, 51]), [*expected[[0, 7]], np.eye(4)[1]])


def test_bytes_of_numpy_are_no_bfloat16(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2), "V2"))
    for load in (load_matrix, open_rows):
        assert refusal(load, tmp_path / "a.npy") == "holds records, not real numbers"
