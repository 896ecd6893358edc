"""MNIST, and data sets of its shape, from the package, from Keras or from files."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import sys
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.binary import read_idx, read_npz
from mnist_kmeans_mlx.datasets.faults import DatasetError, Fault, PathLike, blaming, brief, opened

# The four arrays in their order, and the IDX files they came in; EMNIST calls its test files so.
_FILES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
_IDX = re.compile(
    r"((?P<name>.+)-)??(?P<part>train|t10k|test)-(?P<kind>images|labels)[-.]idx[0-9]-ubyte(\.gz)?"
)
# Hints for data that is not of MNIST's shape.
_OTHER_WAYS = {
    "npz": ": load_matrix(path, key='x_train') reads images of any shape (--key x_train, and "
    "--labels FILE for labels)",
    "idx": ": load_matrix reads each of its files (--data FILE of images, --labels FILE)",
}
_BUNDLED = "_data/mnist.npz"
_CHECKSUM = "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a"
_LICENCE = (
    "MNIST, copyright Yann LeCun and Corinna Cortes, a derivative work of NIST data sets; "
    "Creative Commons Attribution-Share Alike 3.0, https://creativecommons.org/licenses/by-sa/3.0/"
)
_KERAS_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images of 28 x 28 pixels, each with a class (a digit in MNIST), for training and testing.

    Attributes
    ----------
    name : str
        ``"mnist"`` if the data are MNIST's to the last bit, else the name of the file.
    x_train, x_test : ndarray of shape (n, 28, 28), uint8, read-only
        Pixels from 0 (paper) to 255 (ink).
    y_train, y_test : ndarray of shape (n,), uint8, read-only
        Digits from 0 to 9; of other data sets, classes from 0 to 255.
    source : {"bundled", "keras", "npz", "idx"}
        The kind of place the data were read from.
    origin : str
        The place itself.
    checksum : str
        SHA-256 of the data as four IDX files one after the other: training images, training
        labels, test images, test labels. The same data have the same checksum from any source,
        and ``cat train-images-idx3-ubyte train-labels-idx1-ubyte t10k-images-idx3-ubyte
        t10k-labels-idx1-ubyte | sha256sum`` gives it.
    licence : str
        Whose the data are, and on what terms.
    """

    name: str
    x_train: NDArray[np.uint8] = field(repr=False)
    y_train: NDArray[np.uint8] = field(repr=False)
    x_test: NDArray[np.uint8] = field(repr=False)
    y_test: NDArray[np.uint8] = field(repr=False)
    source: str
    origin: str
    checksum: str
    licence: str


def load_mnist(source: PathLike = "auto") -> Dataset:
    """Load MNIST, or another data set of its shape.

    Parameters
    ----------
    source : {"auto", "bundled", "keras"} or path-like, default="auto"
        - ``"auto"`` and ``"bundled"``: the copy inside this package.
        - ``"keras"``: the file in Keras' cache if it is there, read without TensorFlow; else
          ``tensorflow.keras.datasets.mnist``, which downloads it.
        - a path to an ``.npz`` file with ``x_train``, ``y_train``, ``x_test`` and ``y_test``.
        - a path to a folder of the four IDX files, plain or gzipped
          (``train-images-idx3-ubyte``, ``train-images.idx3-ubyte``, ``....gz``), or to the folder
          that torchvision keeps them in as ``MNIST/raw``.
        - of a folder with several such sets, as EMNIST's, also what the names of four of them
          begin with: ``"gzip/emnist-letters"``. EMNIST's images lie on their side, and stay so.

    Returns
    -------
    Dataset
        Images and digits, to fit and to test.

    Raises
    ------
    DatasetError
        In one sentence: a file is missing, unreadable or damaged, arrays are not of MNIST's
        shapes, images and labels differ in number, a label is not a whole number from 0 to 255,
        or Keras is not installed or cannot download.

    Examples
    --------
    >>> from mnist_kmeans_mlx import load_mnist
    >>> data = load_mnist()
    >>> data.x_train.shape, data.x_train.dtype, data.y_test.shape
    ((60000, 28, 28), dtype('uint8'), (10000,))
    >>> data.y_train[:5]
    array([5, 0, 4, 1, 9], dtype=uint8)
    >>> data.origin, data.checksum[:8]
    ('mnist_kmeans_mlx/_data/mnist.npz', 'b2d8f5bf')
    """
    if source in ("auto", "bundled"):
        with as_file(files("mnist_kmeans_mlx") / _BUNDLED) as path:
            arrays = _read_npz(path)
        return _dataset(arrays, "bundled", f"mnist_kmeans_mlx/{_BUNDLED}")
    if source == "keras":
        return _dataset(*_from_keras())
    path = Path(source)
    with blaming(path):
        if is_idx_set(path):
            return _dataset(_read_folder(path), "idx", os.fspath(path))
        if not path.exists():
            raise Fault("is no file or folder, nor one of the sources auto, bundled and keras")
    with opened(path) as file:
        start = file.read(3)
        if start[:2] in (b"\0\0", b"\x1f\x8b"):
            raise Fault("is a single IDX file: give the folder that holds all four")
    return _dataset(_read_npz(path), "npz", os.fspath(path))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return an array of bytes as the contents of an IDX file."""
    return _idx_header(array) + array.tobytes()


def _idx_header(array: NDArray[np.uint8]) -> bytes:
    return struct.pack(f">2xBB{array.ndim}I", 8, array.ndim, *array.shape)


def _read_npz(path: Path) -> Arrays:
    return {key: read_npz(path, key) for key in _FILES}


def is_idx_set(path: PathLike) -> bool:
    """Whether a path is a folder, or a folder and the prefix of IDX files in it."""
    path = Path(path)
    with suppress(OSError, ValueError):
        return path.is_dir() or (not path.exists() and path.name in _sets(path.parent))
    return False


def _sets(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the IDX files of a folder by prefix; MNIST's own have the prefix ""."""
    sets: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir(), key=lambda path: (path.suffix == ".gz", path.name)):
        if found := _IDX.fullmatch(path.name):
            kind = "x" if found["kind"] == "images" else "y"
            part = "train" if found["part"] == "train" else "test"
            sets.setdefault(found["name"] or "", {}).setdefault(f"{kind}_{part}", path)
    return sets


def _read_folder(path: Path) -> Arrays:
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    if not name and not _sets(folder):
        # torchvision's are MNIST/raw, and its root may hold others besides.
        others = [other for other in (path / "raw", *sorted(path.glob("*/raw"))) if other.is_dir()]
        others = [other for other in others if _sets(other)]
        if len(others) > 1:
            raise Fault(_several(map(str, others)))
        folder = others[0] if others else path
    sets = _sets(folder)
    if not name and sets and "" not in sets:
        if len(sets) > 1:
            raise Fault(_several(str(folder / other) for other in sets))
        (name,) = sets
    found = sets.get(name, {})
    missing = [f"{name}-{stem}".strip("-") for key, stem in _FILES.items() if key not in found]
    if missing:
        raise Fault(f"is a folder without {', '.join(missing)} (plain or .gz)")
    return {key: read_idx(found[key]) for key in _FILES}


def _several(paths: Iterable[str]) -> str:
    return f"holds several data sets, give one of them: {', '.join(paths)}"


def _dataset(arrays: Arrays, source: str, origin: str) -> Dataset:
    with blaming(origin):
        try:
            arrays = {key: _as_bytes(key, arrays[key]) for key in _FILES}
        except Fault as fault:
            raise Fault(f"{fault}{_OTHER_WAYS.get(source, '')}") from None
        for x, y in (("x_train", "y_train"), ("x_test", "y_test")):
            if len(arrays[x]) != len(arrays[y]):
                raise Fault(
                    f"holds {len(arrays[x])} images in {x}, but {len(arrays[y])} labels in {y}"
                )
    digest = hashlib.sha256()
    for key in _FILES:
        array = np.ascontiguousarray(arrays[key])
        array.flags.writeable = False
        arrays[key] = array
        digest.update(_idx_header(array))
        digest.update(array.data)
    checksum = digest.hexdigest()
    genuine = checksum == _CHECKSUM
    return Dataset(
        **arrays,
        name="mnist" if genuine else _name(Path(origin)),
        source=source,
        origin=origin,
        checksum=checksum,
        licence=_LICENCE if genuine else "unknown: these are not the data of MNIST",
    )


def _name(path: Path) -> str:
    return path.parent.name if path.name == "raw" and path.parent.name else path.stem


def _as_bytes(key: str, array: NDArray[Any]) -> NDArray[np.uint8]:
    """Images or labels, checked."""
    are_images = key.startswith("x")
    shape = (28, 28) if are_images else ()
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = "images are (n, 28, 28)" if are_images else "labels are (n,)"
        raise Fault(f"holds {key} of shape {array.shape}, where {expected}")
    what = "pixels" if are_images else "labels"
    if array.dtype.kind not in "iu":
        raise Fault(f"holds {key} of {array.dtype}, where {what} are whole numbers 0 to 255")
    for value in (array.min(), array.max()):
        if not 0 <= value <= 255:
            raise Fault(f"holds {value} in {key}, where {what} are 0 to 255")
    return array.astype(np.uint8, copy=False)


def _from_keras() -> tuple[Arrays, str, str]:
    for cached in _keras_caches():
        if not os.path.exists(cached):
            continue
        with opened(cached) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            # Keras would fetch it anew, and delete this one where it cannot.
            if found != _KERAS_SHA256:
                raise Fault(
                    "is not the file that Keras expects in its cache, and Keras would delete it: "
                    "move it away, or give its path to read it as it is"
                )
        return _read_npz(cached), "keras", os.fspath(cached)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported
    try:
        # Keras prints its progress; our stdout may be piped into another program.
        with redirect_stdout(sys.stderr):
            # Imported only here: 600 MB that few need.
            import tensorflow as tf

            (x_train, y_train), (x_test, y_test) = tf.keras.datasets.mnist.load_data()
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"source 'keras' needs TensorFlow ({brief(error)}): "
            "pip install 'mnist-kmeans-mlx[tensorflow]', or use the source 'bundled'."
        ) from error
    # Keras raises a bare Exception when it cannot download.
    except Exception as error:
        raise DatasetError(
            f"source 'keras' failed ({brief(error)}): use the source 'bundled', "
            "or the path of a file."
        ) from error
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    return arrays, "keras", "tensorflow.keras.datasets.mnist"


def _keras_caches() -> list[Path]:
    """Where Keras looks: its home, and /tmp where it may not write there."""
    home = Path(os.path.expanduser(os.environ.get("KERAS_HOME", "~/.keras")))
    homes = [home] if os.access(home, os.W_OK) else [home, Path("/tmp/.keras")]
    return [home / "datasets" / "mnist.npz" for home in homes]
