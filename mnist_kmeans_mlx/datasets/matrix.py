"""Any file of numbers -> the matrix that K-means clusters."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.binary import read_idx, read_npy, read_npz, read_safetensors
from mnist_kmeans_mlx.datasets.faults import Fault, PathLike, blaming, opened
from mnist_kmeans_mlx.datasets.tables import read_parquet, read_text

__all__ = ["check_finite", "load_matrix", "matrix_shape"]

_WITH_KEYS = {".npz": read_npz, ".safetensors": read_safetensors}
_WITHOUT_KEYS = {
    ".npy": read_npy,
    ".csv": lambda path: read_text(path, ","),
    ".tsv": lambda path: read_text(path, "\t"),
    ".parquet": read_parquet,
}
_CHUNK = 2**24


def load_matrix(path: PathLike, *, key: str | None = None, min_rows: int = 2) -> NDArray[Any]:
    r"""Read a matrix of real, finite numbers from a file.

    Parameters
    ----------
    path : path-like
        Its suffix names the format: ``.npy`` (mapped, not copied), ``.npz``, ``.safetensors``
        (mapped), ``.csv`` and ``.tsv`` (UTF-8; a first line without any number is a header),
        ``.parquet`` (needs pyarrow), or an IDX file such as ``train-images-idx3-ubyte.gz``.
    key : str, optional
        The name of the array in an ``.npz`` or ``.safetensors`` file that holds several.
    min_rows : int, default=2
        Fewer are refused: K-means needs at least two, to predict one is enough.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        Read-only, at least `min_rows` rows, of the file's own bool, integer or float dtype in
        native byte order; float64 from text, float32 from bfloat16. An array of more dimensions,
        such as images of shape (n, 28, 28), is flattened to (n, 784).

    Raises
    ------
    DatasetError
        In one sentence that names the file: it is missing, unreadable, empty, damaged or of an
        unknown kind; it has fewer than two dimensions or too few rows; it holds text, objects,
        complex numbers, dates, NaN or infinity. Objects are refused unopened, and what a header
        claims is compared with the size of the file before memory is taken.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import load_matrix
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "points.csv")
    ...     _ = path.write_text("x,y\n0,1.5\n2,3\n")
    ...     load_matrix(path)
    array([[0. , 1.5],
           [2. , 3. ]])
    """
    array = _native(_read(path, key))
    with blaming(path):
        matrix = array.reshape(matrix_shape(array.shape))
        if len(matrix) < min_rows:
            rows = "one row" if len(matrix) == 1 else f"{len(matrix)} rows"
            raise Fault(f"has {rows} only, and K-means needs at least {min_rows}")
        check_finite(matrix)
    matrix.flags.writeable = False
    return matrix


def _read(path: PathLike, key: str | None) -> NDArray[Any]:
    with opened(path):  # a missing file before an unknown suffix
        suffix = Path(path).suffix.lower()
        if suffix in _WITH_KEYS:
            return _WITH_KEYS[suffix](path, key)
        is_idx = re.search(r"ubyte(\.gz)?$", Path(path).name)
        read = read_idx if is_idx else _WITHOUT_KEYS.get(suffix)
        if read is None:
            known = ", ".join([*_WITHOUT_KEYS, *_WITH_KEYS])
            raise Fault(f"is of an unknown kind: the suffixes read are {known}, and IDX files")
        if key is not None:
            raise Fault(f"holds a single array, so that key={key!r} has no meaning")
        return read(path)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return what every library can compute with: aligned, native, booleans 0 or 1."""
    if array.dtype.kind == "b":
        return np.not_equal(array.view(np.uint8), 0)
    if not array.dtype.isnative or not array.flags.aligned:
        return np.array(array, array.dtype.newbyteorder("="))
    return array


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (n_samples, n_features) of an array whose samples may have any shape."""
    if len(shape) < 2:
        raise Fault(
            f"holds an array of shape {shape}, not a matrix of (n_samples, n_features): "
            "save array.reshape(-1, 1) if each number is a sample"
        )
    return shape[0], math.prod(shape[1:])


def check_finite(matrix: Any, start: int = 0, stop: int | None = None, origin: int = 0) -> None:
    """Refuse NaN and infinity in the rows from `start` to `stop`.

    Parameters
    ----------
    matrix : ndarray or Rows, of shape (n, d)
    start, stop : int
        All rows if left out.
    origin : int
        The row that the message counts as 0.
    """
    if matrix.dtype.kind != "f":
        return
    stop = len(matrix) if stop is None else stop
    # By chunks: a file larger than memory is read, but never all of it held.
    step = max(1, _CHUNK // (matrix.shape[1] * matrix.dtype.itemsize))
    count, first = 0, None
    for chunk in range(start, stop, step):
        bad = ~np.isfinite(matrix[chunk : min(chunk + step, stop)])
        found = int(np.count_nonzero(bad))
        if found and first is None:
            first = chunk + int(np.argmax(bad.any(axis=1))) - origin
        count += found
    if count:
        raise Fault(
            f"holds NaN or infinity ({count} of its {(stop - start) * matrix.shape[1]} values, "
            f"the first in row {first} counted from 0)"
        )
