"""Any file of numbers -> the matrix that K-means clusters."""

from __future__ import annotations

import math
import os
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnist_kmeans_mlx.datasets.columns import Columns, Table
from mnist_kmeans_mlx.datasets.faults import DatasetWarning, Fault, PathLike, blaming, opened
from mnist_kmeans_mlx.formats import Format, format_of, no_option, suffixes

_CHUNK = 2**24


def load_matrix(
    path: PathLike,
    *,
    key: str | None = None,
    header: bool | None = None,
    columns: Columns | None = None,
    min_rows: int = 2,
) -> NDArray[Any]:
    r"""Read a matrix of real, finite numbers from a file.

    Parameters
    ----------
    path : path-like
        Its suffix names the format: ``.npy`` (mapped, not copied), ``.npz``, ``.safetensors``
        (mapped), ``.csv`` and ``.tsv`` (UTF-8, also gzipped as ``.csv.gz``; semicolons between
        cells and decimal commas are recognised), ``.parquet`` (needs pyarrow; a column of lists of
        equal length is a matrix), or an IDX file such as ``train-images-idx3-ubyte.gz``.
    key : str, optional
        The name of the array in an ``.npz`` or ``.safetensors`` file that holds several.
    header : bool, optional
        Whether the first line of a text is a header. If None: where it holds no number, or the
        names that pandas gives to columns without names, 0, 1, 2 to d - 1, or whole numbers such
        as years that no row below is like.
    columns : str, or iterable of int and str, optional
        The columns of a text or of Parquet to read, in this order: names; numbers, counted from
        0; ranges ``"1-784"`` or ``"first-last"``, which include both ends, and ``"1:785"`` as in
        Python; in a single text with commas between. If None: all but an index that pandas wrote,
        and but a column of labels beside those of 28 x 28 pixels.
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
        complex numbers, dates, NaN or infinity; it has no such columns. Objects are refused
        unopened, and what a header claims is compared with the size of the file before memory is
        taken.

    Warns
    -----
    DatasetWarning
        In one sentence that names the file: what was taken for a header, an index, labels or
        decimal commas, and the parameter that says otherwise.

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
    return load_table(path, key=key, header=header, columns=columns, min_rows=min_rows).matrix


def load_table(path: PathLike, *, min_rows: int = 2, **options: Any) -> Table:
    """Do as `load_matrix`, and return a column of labels besides, if one was left out."""
    table = read_table(path, **options)
    with blaming(path):
        matrix = table.matrix.reshape(matrix_shape(table.matrix.shape))
        if len(matrix) < min_rows:
            rows = "one row" if len(matrix) == 1 else f"{len(matrix)} rows"
            raise Fault(f"has {rows} only, and K-means needs at least {min_rows}")
        check_finite(matrix)
    matrix.flags.writeable = False
    return Table(matrix, table.labels)


def read_table(path: PathLike, **options: Any) -> Table:
    """Read an array of any shape by the reader that the suffix names; options as `load_matrix`."""
    with opened(path):  # a missing file before an unknown suffix
        kind = format_of(path)
        if kind is None:
            raise Fault(f"is of an unknown kind: the suffixes read are {suffixes(last='and')}")
        found = kind.function("read")(path, **taken(kind, options))
    table = found if isinstance(found, Table) else Table(found)
    for note in table.notes:
        warnings.warn(f"{os.fspath(path)!r} {note}.", DatasetWarning, stacklevel=4)
    return replace(table, matrix=_native(table.matrix))


def taken(kind: Format, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are given; refuse those that a format does not take."""
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if name not in kind.takes:
            raise Fault(no_option(name, value))
    return given


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """Return an aligned array in native byte order, with booleans of 0 or 1."""
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
    # In chunks, so that a mapped file larger than memory is never held whole.
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
