"""Small files to read, and the sentence with which others are refused."""

import json
import struct

import numpy as np

from mnist_kmeans_mlx.datasets import DatasetError
from mnist_kmeans_mlx.datasets.mnist import idx_bytes


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
    return put_together(text + b" " * (-len(text) % 8), body)


def put_together(header, body):
    """A safetensors file of any header, or any bytes in its place."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def taken_apart(data):
    """Header and body of a safetensors file."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def npy_header(shape, dtype="<f4"):
    """What comes before the numbers of an .npy file that claims a shape: 128 bytes."""
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode()


def part_of(mnist, n_train, n_test):
    """Arrays of the first images, as an .npz file of MNIST holds them."""
    sizes = {"x_train": n_train, "y_train": n_train, "x_test": n_test, "y_test": n_test}
    return {name: getattr(mnist, name)[:size] for name, size in sizes.items()}


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
