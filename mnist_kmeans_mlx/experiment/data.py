"""The name of a source -> rows of features, with labels if there are any."""

from __future__ import annotations

import glob
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_kmeans_mlx.formats import format_of, no_option

if TYPE_CHECKING:
    from mnist_kmeans_mlx.datasets.columns import Columns
    from mnist_kmeans_mlx.distributed import Group
    from mnist_kmeans_mlx.persistence import Model

Array = np.ndarray[Any, Any]

# MNIST is clustered as bytes and reported in units of pixels / 255. The clusters are the same:
# seeds do not depend on the unit, and `tol` scales with the variance. Bytes take an eighth of
# the memory of float64, and their sums are exact on every device.
WHITE = 255.0
_MOST_LABELS = 2**20


class ExperimentError(ValueError):
    """Data, labels and parameters that do not go together."""


@dataclass(frozen=True, eq=False)
class Data:
    """What an experiment clusters.

    Attributes
    ----------
    name : str
    train, test : ndarray of shape (n, n_features); `test` may be None
        Features as the estimator sees them; `train` may be a source of rows.
    y_train, y_test : ndarray of shape (n,), or None
        Labels.
    unit : float
        Results are reported for ``train / unit``: 255 for pixels, else 1.
    facts : Mapping
        Where the data comes from, as JSON holds it.
    """

    name: str
    train: Array = field(repr=False)
    y_train: Array | None = field(default=None, repr=False)
    test: Array | None = field(default=None, repr=False)
    y_test: Array | None = field(default=None, repr=False)
    unit: float = 1.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    def of_rank(self, group: Group) -> Data:
        """Return the training rows that one of several ranks is to fit, with all labels."""
        rows: Any = self.train
        edges = [len(rows) * rank // group.size for rank in (group.rank, group.rank + 1)]
        return replace(self, train=rows.part(*edges) if self.streams else rows[slice(*edges)])

    @property
    def streams(self) -> bool:
        """Whether the training rows are read from files when they are needed."""
        from mnist_kmeans_mlx.memory import is_source

        return is_source(self.train)

    def held(self, remedy: str) -> Data:
        """Return the data if its rows are in memory; otherwise raise, with a remedy."""
        if self.streams:
            raise ExperimentError(
                f"{self.name} is larger than half of the free memory, and all of it would have to "
                f"be there: {remedy}."
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return names, counts and origin as JSON holds them."""
        counts = None
        if self.y_train is not None:
            classes, sizes = np.unique(self.y_train, return_counts=True)
            counts = {str(label): int(size) for label, size in zip(classes, sizes, strict=True)}
        return {
            "name": self.name,
            **self.facts,
            "n_train": len(self.train),
            "n_test": 0 if self.test is None else len(self.test),
            "n_features": self.train.shape[1],
            "dtype": str(self.train.dtype),
            "class_counts": counts,
        }


def load(
    source: str | os.PathLike[str] = "auto",
    *,
    key: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool | None = None,
    columns: Columns | None = None,
    memory: int | str = "auto",
    min_rows: int = 2,
) -> Data:
    """Find the data behind a name or path.

    Parameters
    ----------
    source : str or path-like
        ``"auto"``, ``"bundled"`` or ``"keras"`` for MNIST; the path of a folder of IDX files or
        of an `.npz` file with ``x_train``, which are MNIST too, as all that `load_mnist` reads;
        any matrix `load_matrix` reads; or a pattern for several ``.npy`` or ``.parquet`` files.
    key : str, optional
        Name of an array in a file that holds several; the file is then a matrix.
    labels : path-like, optional
        For a matrix: the file with one whole number per row. If None, a column of labels that
        `load_matrix` leaves out.
    header, columns
        For a matrix in a table, as for `load_matrix`.
    memory : int or str
        What the process may hold: a matrix for which that is too little stays in its files.
    min_rows : int, default=2
        Fewer rows of a matrix are refused. To predict, one is enough.

    Raises
    ------
    DatasetError
        A file cannot be used.
    ExperimentError
        Labels do not fit the rows.
    """
    from mnist_kmeans_mlx.datasets import load_mnist
    from mnist_kmeans_mlx.datasets.matrix import load_table

    if key is None and _is_mnist(source):
        if header is not None or columns is not None:
            raise ExperimentError("MNIST has no header and no columns to choose: they are pixels.")
        if labels is not None:
            raise ExperimentError("MNIST brings its own labels; --labels is for a matrix.")
        mnist = load_mnist(source)
        return Data(
            name=mnist.name,
            train=features(mnist.x_train),
            y_train=mnist.y_train,
            test=features(mnist.x_test),
            y_test=mnist.y_test,
            unit=WHITE,
            facts={
                "source": str(mnist.source),
                "origin": mnist.origin,
                "sha256": mnist.checksum,
                "licence": mnist.licence,
            },
        )
    rows = _rows(source, memory, header, columns) if key is None else None
    truth = None
    if rows is None:
        table = load_table(source, key=key, header=header, columns=columns, min_rows=min_rows)
        rows, truth = np.asarray(table.matrix), table.labels
    if labels is not None:
        truth = _labels(labels, len(rows))
    elif truth is not None:
        _check_labels(truth, source)
    facts = {"source": os.fspath(source)}
    return Data(Path(source).name, rows, truth, facts=facts)


def _rows(
    source: str | os.PathLike[str],
    memory: int | str,
    header: bool | None,
    columns: Columns | None,
) -> Any:
    """Rows of a pattern, or of a file too large to be loaded, or None."""
    from mnist_kmeans_mlx.datasets.sources import check_finite, open_rows
    from mnist_kmeans_mlx.memory import fits

    if os.path.exists(source):
        in_blocks = format_of(source, "blocks")
        if not in_blocks or fits(os.path.getsize(source), 0, memory):
            return None
    elif not glob.has_magic(os.fspath(source)):
        return None
    if header is not None:
        raise ExperimentError(f"{source!r} {no_option('header', header)}.")
    rows = open_rows(source, columns=columns)
    n, d = rows.shape
    if not fits(n * d * rows.dtype.itemsize, n, memory):
        return rows
    check_finite(rows)
    return rows[:]


def check_clusters(n_clusters: int, n: int) -> None:
    """Refuse more clusters than rows."""
    if n_clusters > n:
        raise ExperimentError(
            f"{n_clusters} clusters are more than the {n} rows: choose fewer with -k (n_clusters)."
        )


def features(images: Array) -> Array:
    """Rows of pixels, still as bytes: (n, height, width) -> (n, height * width)."""
    return images.reshape(len(images), -1)


def unit_of(model: Model) -> float:
    """255 for a model of images; 1 if its metadata name no valid unit."""
    unit = model.metadata.get("unit")
    return float(unit) if isinstance(unit, int | float) and 0 < unit < math.inf else 1.0


def _is_mnist(source: str | os.PathLike[str]) -> bool:
    from mnist_kmeans_mlx.datasets.mnist import is_idx_set

    if source in ("auto", "bundled", "keras") or is_idx_set(source):
        return True
    if not os.path.isfile(source):
        return False  # opening a named pipe would block until another process writes
    try:
        with zipfile.ZipFile(source) as archive:
            return {"x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"} <= set(
                archive.namelist()
            )
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False  # load_matrix reports the error


def _labels(path: str | os.PathLike[str], n: int) -> Array:
    from mnist_kmeans_mlx.datasets.matrix import read_table

    labels = read_table(path).matrix
    if labels.size != n:
        doubt = " (is the first line of one of them a header?)" * (abs(labels.size - n) == 1)
        raise ExperimentError(f"{str(path)!r} holds {labels.size} labels for {n} rows{doubt}.")
    labels = labels.reshape(n)
    _check_labels(labels, path)
    return labels.astype(np.int64)


def _check_labels(labels: Array, path: str | os.PathLike[str]) -> None:
    with np.errstate(invalid="ignore"):
        wrong = ~((labels >= 0) & (labels < _MOST_LABELS) & (labels == np.rint(labels)))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ExperimentError(
            f"{str(path)!r} holds the label {labels[row]} in row {row} (counted from 0), where "
            f"labels are whole numbers from 0 to {_MOST_LABELS - 1}."
        )
