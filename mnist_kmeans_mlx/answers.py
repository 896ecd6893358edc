"""What a fitted estimator answers, written to a file as it is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from mnist_kmeans_mlx.base import BaseKMeans
from mnist_kmeans_mlx.datasets.faults import PathLike
from mnist_kmeans_mlx.persistence.record import checksum
from mnist_kmeans_mlx.persistence.sinks import open_sink

__all__ = ["predict_to", "transform_to", "write_answers"]

# Bytes of float32 rows, or of answers, at a time.
BLOCK = 32 << 20

Answer = Callable[[Any], npt.NDArray[Any]]


def predict_to(estimator: BaseKMeans, X: Any, path: PathLike, *, resume: bool = True) -> None:
    """Write the nearest centre of each row to a file.

    Parameters
    ----------
    estimator : KMeans, MiniBatchKMeans or BisectingKMeans
        Fitted.
    X : array-like of shape (n_samples, n_features), source of rows or paths
        Rows as `KMeans.fit` takes them, read in parts.
    path : path-like
        An ``.npy`` file for int32 of shape (n_samples,), or a ``.parquet`` file with a column
        ``label``. It appears when it is whole.
    resume : bool, default=True
        Go on where an earlier call with the same centres and rows was interrupted.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    ValueError
        If `X` does not have the features seen in `fit`, or the suffix is unknown.
    DatasetError
        If rows cannot be read, or pyarrow is needed and not installed.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from mnist_kmeans_mlx import KMeans, predict_to
    >>> kmeans = KMeans(2, random_state=0).fit([[0.0], [1.0], [10.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels.npy")
    ...     predict_to(kmeans, [[2.0], [9.0]], path)
    ...     np.load(path)
    array([0, 1], dtype=int32)
    """
    write_answers(estimator, X, path, estimator.predict, (), np.int32, resume=resume)


def transform_to(estimator: BaseKMeans, X: Any, path: PathLike, *, resume: bool = True) -> None:
    """Write the distances of each row to all centres to a file.

    As `predict_to`: an ``.npy`` file of shape (n_samples, n_clusters) in the precision of the
    centres, or a ``.parquet`` file with columns ``distance_0`` and so on.
    """
    check_is_fitted(estimator)
    centers = estimator.cluster_centers_
    answer = estimator.transform
    write_answers(estimator, X, path, answer, (len(centers),), centers.dtype, resume=resume)


def write_answers(
    estimator: BaseKMeans,
    X: Any,
    path: PathLike,
    answer: Answer,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    *,
    resume: bool = True,
    also: Any = None,
) -> None:
    """Write what `answer` says of each block of rows.

    Parameters
    ----------
    estimator, X, path, resume
        As for `predict_to`.
    answer : callable
        Called with some rows; gives an array of `shape` and `dtype` for each.
    shape, dtype
        Of the answer to one row.
    also : object, optional
        What else answers depend on, as JSON can hold it.
    """
    check_is_fitted(estimator)
    rows = estimator._validate_rows(X, reset=False)
    n, d = rows.shape
    identity = {
        "answer": getattr(answer, "__name__", "answer"),
        "also": also,
        "centers": checksum(estimator.cluster_centers_),
        "shape": [n, d],
        "dtype": str(rows.dtype),
        "ends": checksum(rows[:1], rows[n - 1 :]),
    }
    step = max(1, BLOCK // (4 * max(d, *shape, 1)))
    with open_sink(path, (n, *shape), dtype, identity, resume=resume) as sink:
        while sink.rows_done < n:
            start = sink.rows_done
            sink.append(answer(rows[start : min(start + step, n)]))
