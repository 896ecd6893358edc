"""What a fitted model looks like: its clusters, their members and mistakes, and a map of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_kmeans_mlx.engine.metric import METRICS, Metric
from mnist_kmeans_mlx.experiment.data import Array, Data, ExperimentError, unit_of
from mnist_kmeans_mlx.experiment.flow import digit_of, predict, scale_of

if TYPE_CHECKING:
    from mnist_kmeans_mlx.persistence import Model
    from mnist_kmeans_mlx.scores import Scores

# Rows that the map is made of and shows.
MAPPED = 1500
# Bytes of float64 differences at once.
STEP_BYTES = 64 << 20
# Rows are those of the fit if at least this share gets the same label.
_ALIKE = 0.99


@dataclass(frozen=True)
class Member:
    """A row of a cluster: its number, its true label, and how far it is from the centroid."""

    row: int
    label: int | None
    distance: float


@dataclass(frozen=True)
class Face:
    """One cluster, with the members that show what it is.

    Attributes
    ----------
    index, size : int
    digit : int or None
        What the cluster stands for.
    purity : float or None
        Share of the members that are this digit.
    counts : dict of int to int
        Members of each class, the most frequent first.
    nearest : tuple of Member
        The members closest to the centroid, the closest first.
    typical : tuple of Member
        The members whose distance is closest to the cluster's median distance.
    mistakes : tuple of Member
        The members of another class that are closest to the centroid.
    """

    index: int
    size: int
    digit: int | None = None
    purity: float | None = None
    counts: Mapping[int, int] = field(default_factory=dict)
    nearest: tuple[Member, ...] = ()
    typical: tuple[Member, ...] = ()
    mistakes: tuple[Member, ...] = ()


@dataclass(frozen=True, eq=False)
class Map:
    """Rows and centroids, projected onto the two axes along which the rows vary most.

    Attributes
    ----------
    origin : ndarray of shape (d,)
        What lies at zero.
    axes : ndarray of shape (2, d)
        Orthonormal.
    centers : ndarray of shape (k, 2)
    rows : ndarray of shape (m, 2)
    labels : ndarray of shape (m,), or None
        True classes of the rows.
    clusters : ndarray of shape (m,)
    explained : tuple of float
        Share of the rows' variance along each axis.
    """

    origin: Array
    axes: Array
    centers: Array
    rows: Array
    labels: Array | None
    clusters: Array
    explained: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Portrait:
    """A model together with the data it was fitted on.

    Attributes
    ----------
    centers : ndarray of shape (k, d), float64
        As the estimator has them, not divided by `unit`.
    metric : {"euclidean", "cosine"}
    unit : float
        Distances are those of ``rows / unit``.
    faces : tuple of Face
    map : Map or None
        None of rows with a single feature.
    images : dict of int to ndarray of shape (d,)
        The rows that the faces name.
    train, test : Scores or None
    inertia, n_iter : float and int, or None where the estimator does not know them
    metadata : Mapping
        What the model file says about its origin.
    """

    centers: Array
    metric: str
    unit: float
    faces: tuple[Face, ...]
    map: Map | None = None
    images: Mapping[int, Array] = field(default_factory=dict)
    train: Scores | None = None
    test: Scores | None = None
    inertia: float | None = None
    n_iter: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


def portray(
    model: Model, data: Data | None = None, *, members: int = 10, device: str = "auto"
) -> Portrait:
    """Describe a model together with the data it was fitted on.

    Parameters
    ----------
    model : Model
        If it names no digits and the data has labels, the clusters are named here.
    data : Data, optional
        What the model was fitted on. Without it the portrait shows centroids and sizes only.
    members : int
        How many members of each kind a face shows.
    device : {"auto", "gpu", "cpu"}
        Where to predict the rows.

    Raises
    ------
    DeviceError
    ExperimentError
        The model was fitted on other data.
    """
    from mnist_kmeans_mlx.labeling import infer_cluster_labels, infer_data_labels
    from mnist_kmeans_mlx.scores import score_labels

    estimator, digits = model.estimator, model.cluster_labels
    k = len(estimator.cluster_centers_)
    known = _known(model)
    if data is None:
        labels = getattr(estimator, "labels_", None)
        sizes = np.bincount(np.zeros(0, int) if labels is None else labels, minlength=k)
        named = digit_of(digits)
        faces = tuple(Face(i, int(size), named.get(i)) for i, size in enumerate(sizes))
        return Portrait(faces=faces, **known)
    scale = scale_of(model, *(rows for rows in (data.train, data.test) if rows is not None))
    if scale != 1:
        scaled = None if data.test is None else data.test * scale
        data = replace(data, train=data.train * scale, test=scaled)
    labels, _ = predict(model, data.train, device=device, scale=1.0)
    _check_same(model, data, labels)
    if digits is None and data.y_train is not None:
        digits = infer_cluster_labels(SimpleNamespace(n_clusters=k, labels_=labels), data.y_train)
    train = test = None
    if data.y_train is not None and digits is not None:
        train = score_labels(data.y_train, labels, infer_data_labels(labels, digits))
        if data.test is not None and data.y_test is not None:
            clusters, _ = predict(model, data.test, device=device, scale=1.0)
            test = score_labels(data.y_test, clusters, infer_data_labels(clusters, digits))
    named = digit_of(digits)
    look = _Beholder(METRICS[known["metric"]], known["unit"], data, members)
    faces = tuple(
        look.at(index, np.flatnonzero(labels == index), center, named.get(index))
        for index, center in enumerate(known["centers"])
    )
    shown = {m.row for face in faces for m in (*face.nearest, *face.typical, *face.mistakes)}
    return Portrait(
        faces=faces,
        map=_map(known["centers"], known["metric"], data, labels),
        images={row: data.train[row] for row in sorted(shown)},
        train=train,
        test=test,
        data=data.to_dict(),
        **known,
    )


def _known(model: Model) -> dict[str, Any]:
    """Facts of a portrait that need no data."""
    estimator, unit = model.estimator, unit_of(model)
    metric = METRICS[estimator.metric]
    inertia, n_iter = (getattr(estimator, name, None) for name in ("inertia_", "n_iter_"))
    return {
        "centers": estimator.cluster_centers_.astype(np.float64),
        "metric": metric.name,
        "unit": unit,
        "inertia": None if inertia is None else float(inertia) / metric.unit(unit) ** 2,
        "n_iter": None if n_iter is None else int(n_iter),
        "metadata": model.metadata,
    }


def _check_same(model: Model, data: Data, found: Array) -> None:
    """Refuse data other than what the model was fitted on, by a checksum or by its labels."""
    fitted_on = model.metadata.get("data")
    expected = fitted_on.get("sha256") if isinstance(fitted_on, Mapping) else None
    checksum = data.facts.get("sha256")
    labels = getattr(model.estimator, "labels_", None)
    other = expected is not None and checksum is not None and expected != checksum
    if labels is not None and not other:
        # Labels of scikit-learn's own arithmetic may differ in a few rows.
        other = len(labels) != len(found) or np.mean(labels == found) < _ALIKE
    if other:
        raise ExperimentError(
            f"the model was not fitted on {data.name}: name the data it was fitted on."
        )


@dataclass(frozen=True)
class _Beholder:
    """Makes faces of clusters, one at a time."""

    metric: Metric
    unit: float
    data: Data
    members: int

    def at(self, index: int, rows: Array, center: Array, digit: int | None) -> Face:
        """Face of the cluster that has these rows."""
        if not len(rows):
            return Face(index, 0, digit)
        distances = self._distances(rows, center)
        order = np.argsort(distances, kind="stable")
        middle = np.argsort(np.abs(distances - np.median(distances)), kind="stable")
        counts: dict[int, int] = {}
        wrong, purity, truth = order[:0], None, self.data.y_train
        if truth is not None:
            classes, sizes = np.unique(truth[rows], return_counts=True)
            ranks = np.argsort(-sizes, kind="stable")
            counts = {int(classes[rank]): int(sizes[rank]) for rank in ranks}
        if truth is not None and digit is not None:
            purity = counts.get(digit, 0) / len(rows)
            wrong = order[truth[rows[order]] != digit]
        nearest, typical, mistakes = (
            tuple(
                Member(int(row), None if truth is None else int(truth[row]), float(distance))
                for row, distance in zip(rows[chosen], distances[chosen], strict=True)
            )
            for chosen in (part[: self.members] for part in (order, middle, wrong))
        )
        return Face(index, len(rows), digit, purity, counts, nearest, typical, mistakes)

    def _distances(self, rows: Array, center: Array) -> Array:
        """Distances to one centre, in the report's units."""
        squares = np.empty(len(rows))
        step = max(1, STEP_BYTES // (8 * len(center)))
        for start in range(0, len(rows), step):
            part = slice(start, start + step)
            block = self.metric.rows(self.data.train[rows[part]]).astype(np.float64)
            block -= center
            squares[part] = np.square(block, out=block).sum(axis=1)
        return self.metric.of_squares(squares) / self.metric.unit(self.unit)


def _map(centers: Array, metric: str, data: Data, labels: Array) -> Map | None:
    """Principal axes of a sample of the rows."""
    n, d = data.train.shape
    if n < 3 or d < 2:
        return None
    chosen = np.sort(np.random.default_rng(0).permutation(n)[:MAPPED])
    rows = METRICS[metric].rows(data.train[chosen]).astype(np.float64)
    origin = rows.mean(axis=0)
    _, spread, axes = np.linalg.svd(rows - origin, full_matrices=False)
    axes = axes[:2]
    # An axis may point either way: the same data give the same map.
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(axis=1)] < 0, -1, 1)[:, None]
    variance = np.square(spread) / (np.square(spread).sum() or 1.0)
    return Map(
        origin=origin,
        axes=axes,
        centers=(centers - origin) @ axes.T,
        rows=(rows - origin) @ axes.T,
        labels=None if data.y_train is None else data.y_train[chosen],
        clusters=labels[chosen],
        explained=(float(variance[0]), float(variance[1])),
    )
