"""Files to read, files to refuse, and random damage; ``python tests/damage.py 10000`` does more."""

import gzip
import json
import random
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from mnist_kmeans_mlx.datasets import DatasetError, load_matrix, load_mnist
from mnist_kmeans_mlx.datasets.mnist import idx_bytes

# What a header says where it lies, and bytes that parsers stumble over.
SPLINTERS = [
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\0" * 64,
    b"-1", b"99999999999", b"0", b"1e999", b"nan", b"inf", b'"', b",", b",,", b"\n", b"\r", b"\0",
    b"(", b")", b"[" * 300, b"{", b"}", b":", b"True", b"L", b"|O", b"<M8[s]", b"<U9", b"<c8",
    b">f8", b"F64", b"BF16", b"BOOL", b"\xef\xbb\xbf", b"\xf0\x9f", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\x93NUMPY",
]  # fmt: skip


def refusal(load, path, *args, **kwargs):
    """The one sentence with which a file is refused."""
    try:
        result = load(path, *args, **kwargs)
    except DatasetError as error:
        sentence = str(error)
    else:
        raise AssertionError(f"{path} is accepted: {result!r}")
    assert sentence.startswith(repr(str(path))), sentence
    assert sentence.endswith(".")
    assert sentence.isprintable()  # hence one line
    assert len(sentence) < len(str(path)) + 500
    return sentence.removeprefix(repr(str(path))).removesuffix(".").strip()


def safetensors_bytes(tensors, metadata=None):
    """A safetensors file of ``name -> (dtype code, array)``, written as its format says."""
    header, body = {} if metadata is None else {"__metadata__": metadata}, b""
    for name, (code, array) in tensors.items():
        data = array.tobytes()
        header[name] = {
            "dtype": code,
            "shape": list(array.shape),
            "data_offsets": [len(body), len(body) + len(data)],
        }
        body += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def small_mnist(n=3):
    """MNIST's four arrays, short and made up."""
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(256, size=(n, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(10, size=n, dtype=np.uint8),
        "x_test": rng.integers(256, size=(2, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(10, size=2, dtype=np.uint8),
    }


def write_idx_folder(folder, arrays, names=("-idx{}-ubyte",) * 4, pack=bytes):
    stems = ("train-images", "train-labels", "t10k-images", "t10k-labels")
    folder.mkdir(exist_ok=True)
    for stem, name, array in zip(stems, names, arrays.values(), strict=True):
        (folder / (stem + name.format(array.ndim))).write_bytes(pack(idx_bytes(array)))
    return folder


def write_samples(folder):
    """One small good file of every kind: ``path -> (loader, keyword arguments)``."""
    folder = Path(folder)
    matrix = np.random.default_rng(0).normal(size=(6, 4))
    found = {}

    def add(name, data, load=load_matrix, **kwargs):
        (folder / name).write_bytes(data)
        found[folder / name] = load, kwargs

    np.save(folder / "a.npy", matrix)
    add("a.npy", (folder / "a.npy").read_bytes())
    np.save(folder / "f.npy", np.asfortranarray(matrix.astype(">f4")))
    add("f.npy", (folder / "f.npy").read_bytes())
    np.savez(folder / "a.npz", a=matrix)
    add("a.npz", (folder / "a.npz").read_bytes())
    np.savez_compressed(folder / "b.npz", a=matrix, b=matrix > 0)
    add("b.npz", (folder / "b.npz").read_bytes(), key="b")
    np.savez_compressed(folder / "mnist.npz", **small_mnist())
    add("mnist.npz", (folder / "mnist.npz").read_bytes(), load_mnist)
    text = "\n".join(",".join(map(repr, row)) for row in matrix.tolist())
    add("a.csv", ("a,b,c,d\n" + text).encode())
    add("a.tsv", text.replace(",", "\t").encode() + b"\r\n")
    half = (matrix.astype("<f4").view("<u4") >> 16).astype("<u2")
    tensors = {"a": ("F64", matrix), "b": ("BF16", half)}
    add("a.safetensors", safetensors_bytes(tensors, {"x": "y"}), key="b")
    add("c.safetensors", safetensors_bytes({"c": ("BOOL", matrix > 0)}))
    image = small_mnist()["x_train"]
    add("train-images-idx3-ubyte", idx_bytes(image))
    add("train-images-idx3-ubyte.gz", gzip.compress(idx_bytes(image)))
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return found
    pq.write_table(pa.table({"a": [1, 2, 3], "b": [0.5, 1.5, 2.5]}), folder / "a.parquet")
    add("a.parquet", (folder / "a.parquet").read_bytes())
    return found


def mutate(data, rng):
    """Damage bytes the way disks, downloads and people do; early bytes, the headers, most."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        end = len(data) if rng.random() < 0.5 else min(len(data), 128)
        at = rng.randrange(end + 1)
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + rng.choice([1, 2, 8, 64])]
            case 2:
                data[at:at] = rng.choice(SPLINTERS)
            case 3:
                splinter = rng.choice(SPLINTERS)
                data[at : at + len(splinter)] = splinter
            case 4 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at:at] = data[at : at + rng.choice([1, 8, 64])]
    return bytes(data)


def check_damaged(path, load, kwargs):
    """A damaged file is refused in one sentence, or read as what its loader promises."""
    try:
        result = load(path, **kwargs)
    except DatasetError:
        return refusal(load, path, **kwargs)
    if load is load_mnist:
        assert result.x_train.shape[1:] == result.x_test.shape[1:] == (28, 28)
        assert len(result.x_train) == len(result.y_train) > 0
        assert len(result.x_test) == len(result.y_test) > 0
        assert max(result.y_train.max(), result.y_test.max()) <= 9
    else:
        assert result.ndim == 2
        assert result.shape[0] >= 2
        assert result.shape[1] >= 1
        assert result.dtype.kind in "biuf"
        assert result.dtype.isnative
        assert not result.flags.writeable
        assert np.isfinite(result).all()
    return "read"


def fuzz(folder, rounds, seed=0):
    """Damage the samples in turn; returns how often each answer was given for each suffix."""
    samples = [(path, path.read_bytes(), *how) for path, how in write_samples(folder).items()]
    answers = Counter()
    for number in range(rounds):
        path, data, load, kwargs = samples[number % len(samples)]
        victim = path.with_name("x" + path.name)
        victim.write_bytes(mutate(data, random.Random(f"{seed} {number}")))
        try:
            answer = check_damaged(victim, load, kwargs)
        except BaseException:
            print(f"seed {seed}, round {number}: {path.name}", file=sys.stderr)
            raise
        answers[path.name, answer[:40]] += 1
    return answers


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        told = fuzz(place, *map(int, sys.argv[1:]))
    for (name, answer), count in sorted(told.items()):
        print(f"{count:6}  {name:28}{answer}")
