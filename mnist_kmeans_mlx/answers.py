"""Labels and distances of a fitted estimator, written to a file as they are computed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_is_fitted

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.base import BaseKMeans
from mnist_kmeans_mlx.datasets.faults import PathLike
from mnist_kmeans_mlx.datasets.sources import from_memmap
from mnist_kmeans_mlx.memory import is_source
from mnist_kmeans_mlx.persistence import owned
from mnist_kmeans_mlx.persistence.checksum import checksum
from mnist_kmeans_mlx.persistence.sinks import open_sink

# Bytes of float32 rows, or of answers, at a time.
BLOCK = 32 << 20

# What results depend on, as messages call what has changed.
_OTHER = {
    "rows": "other rows",
    "model": "another model",
    "method": "another method",
    "names": "other names of clusters",
    "unit": "another unit",
    "version": "another version of this package",
}

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
        An ``.npy`` file for int32 of shape (n_samples,), or a ``.csv`` or ``.parquet`` file with a
        column ``label``. It appears when it is whole.
    resume : bool, default=True
        Resume an interrupted call, if model, rows and version of this package are the same. Rows in
        memory are identified by a checksum, which takes a pass over them after some seconds and
        when a partial file exists; rows in files by name, size, inode and times of change of each
        file. `Batches` have no identity: they always start again.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator is not fitted.
    TypeError
        If the estimator is not one of this package.
    ValueError
        If `X` does not have the features seen in `fit`, or the suffix is unknown.
    DatasetError
        If rows cannot be read, or pyarrow is needed and not installed.
    OSError
        If the file cannot be written.

    Warns
    -----
    UserWarning
        The partial file of an interrupted call belongs to other rows or another model: it is
        discarded.

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
    _check_ours(estimator)
    write_answers(estimator, X, path, estimator.predict, (), np.int32, resume=resume)


def transform_to(estimator: BaseKMeans, X: Any, path: PathLike, *, resume: bool = True) -> None:
    """Write the distances of each row to all centres to a file.

    Parameters
    ----------
    estimator : KMeans, MiniBatchKMeans or BisectingKMeans
        Fitted.
    X : array-like of shape (n_samples, n_features), source of rows or paths
        Rows as `KMeans.fit` takes them, read in parts.
    path : path-like
        An ``.npy`` file of shape (n_samples, n_clusters) in the precision of the centres, or a
        ``.parquet`` file with columns ``distance_0`` and so on. It appears when it is whole.
    resume : bool, default=True
        As for `predict_to`, which also says what is raised.
    """
    _check_ours(estimator)
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
    also: Mapping[str, Any] | None = None,
) -> None:
    """Write the answer to each block of rows.

    Parameters
    ----------
    estimator, X, path, resume
        As for `predict_to`.
    answer : callable
        Called with some rows; gives an array of `shape` and `dtype` for each.
    shape, dtype
        Of the answer to one row.
    also : mapping, optional
        What else answers depend on, as JSON can hold it.
    """
    check_is_fitted(estimator)
    # A mapped file is identified by its stamp, if it is read as a file.
    rows = estimator._validate_rows(from_memmap(X) or X, reset=False)
    n, d = rows.shape

    stamps = getattr(rows, "identity", None)
    resume = resume and not (is_source(rows) and stamps is None)

    def identity() -> dict[str, Any]:
        return {
            "method": getattr(answer, "__qualname__", "answer"),
            "model": _model(estimator),
            "rows": [n, d, str(rows.dtype), checksum(rows) if stamps is None else stamps],
            "version": __version__,
            **(also or {}),
        }

    step = max(1, BLOCK // (4 * max(d, *shape, 1)))
    with open_sink(path, (n, *shape), dtype, identity, resume=resume) as sink:
        if sink.other:
            others = " and ".join(_OTHER.get(key, key) for key in sink.other)
            warnings.warn(
                f"{sink.path!r} starts again: the partial file of an interrupted call belongs to "
                f"{others}.",
                stacklevel=3,
            )
        while sink.rows_done < n:
            start = sink.rows_done
            sink.append(answer(rows[start : min(start + step, n)]))


def _check_ours(estimator: Any) -> None:
    if not isinstance(estimator, BaseKMeans):
        raise TypeError(
            "predict_to and transform_to need an estimator of mnist_kmeans_mlx, not "
            f"{owned(estimator)}: KMeans.from_sklearn converts scikit-learn's KMeans."
        )


def _model(estimator: BaseKMeans) -> list[str]:
    """Identity of a fitted estimator: everything that its answers depend on."""
    kind = type(estimator)
    arrays = [getattr(estimator, name) for name in estimator._answering]
    return [f"{kind.__module__}.{kind.__qualname__}", estimator.metric, checksum(*arrays)]
