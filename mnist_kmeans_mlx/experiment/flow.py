"""The experiment itself: cluster, name the clusters, score the names."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_kmeans_mlx.engine.metric import METRICS
from mnist_kmeans_mlx.experiment.data import (
    Array,
    Data,
    ExperimentError,
    check_clusters,
    load,
    unit_of,
)
from mnist_kmeans_mlx.experiment.result import STAGES, Cluster, Evaluation, Result

if TYPE_CHECKING:
    from mnist_kmeans_mlx.checkpoint import Checkpoint
    from mnist_kmeans_mlx.datasets.columns import Columns
    from mnist_kmeans_mlx.persistence import Model
    from mnist_kmeans_mlx.scores import Scores

Observer = Callable[[str], None]

# Bytes of rows at a time in passes over all rows.
_BLOCK = 1 << 25


def run(
    source: str | os.PathLike[str] | Data = "auto",
    *,
    n_clusters: int = 20,
    seed: int | None = None,
    device: str = "auto",
    key: str | None = None,
    labels: str | os.PathLike[str] | None = None,
    header: bool | None = None,
    columns: Columns | None = None,
    command: str = "",
    observe: Observer | None = None,
    checkpoint: Checkpoint | None = None,
    gather: bool = True,
    **parameters: Any,
) -> Result:
    """Cluster, name the clusters, and score the names.

    Of several ranks each takes its share of the training rows, and has the same result.

    Parameters
    ----------
    source : str, path-like or Data
        What `load` takes, or what it returned.
    n_clusters : int
    seed : int, optional
        Drawn if None, and told in the result either way.
    device : {"auto", "gpu", "cpu"}
    key, labels, header, columns
        As for `load`.
    command : str
        Kept in the result.
    observe : callable, optional
        Called with the name of each of `STAGES` as it begins.
    checkpoint : Checkpoint, optional
        Resumes the fit that it holds, and records the progress of this one.
    gather : bool, default=True
        Whether the estimator's ``labels_`` are to be those of all ranks. They are also gathered if
        there is anything to score.
    **parameters
        Further parameters of `KMeans`.

    Raises
    ------
    DatasetError, DeviceError
    ExperimentError
        The data cannot be clustered so, or the checkpoint is of another fit.
    OSError
        The checkpoint cannot be written during the fit. For a failure after the fit, see
        `Checkpoint.failure`.
    KeyboardInterrupt
        If nothing was reached, or without a checkpoint. Otherwise the result so far is returned,
        marked `interrupted`.
    """
    from mnist_kmeans_mlx.device import describe
    from mnist_kmeans_mlx.distributed import current
    from mnist_kmeans_mlx.estimator import KMeans
    from mnist_kmeans_mlx.labeling import infer_cluster_labels, infer_data_labels
    from mnist_kmeans_mlx.progress import History
    from mnist_kmeans_mlx.scores import score_labels

    started = datetime.now(UTC).isoformat(timespec="seconds")
    timings = dict.fromkeys(STAGES, 0.0)
    clock = _clock(timings, observe or (lambda stage: None))
    environment = describe(device)
    seed = secrets.randbits(32) if seed is None else seed
    with clock("load"):
        if isinstance(source, Data):
            data = source
        else:
            memory = parameters.get("memory", "auto")
            data = load(
                source, key=key, labels=labels, header=header, columns=columns, memory=memory
            )
    group = current()
    check_clusters(n_clusters, len(data.train))
    rows = data.of_rank(group).train
    estimator = KMeans(n_clusters, random_state=seed, device=device, **parameters)
    history = History()
    interrupted = False
    with clock("fit"):
        try:
            if checkpoint is None:
                estimator._fit(rows, history=history)
            else:
                timings["fit"] += checkpoint.earlier
                checkpoint.fit(estimator, rows, history=history)
        except ValueError as error:
            raise ExperimentError(_sentence(error)) from error
        except (KeyboardInterrupt, OSError) as error:
            if not hasattr(estimator, "labels_"):
                raise
            interrupted = isinstance(error, KeyboardInterrupt)
    sizes = group.sum(np.bincount(estimator.labels_, minlength=n_clusters))
    own = estimator.labels_
    if group.size > 1 and (gather or data.y_train is not None):
        estimator.labels_ = group.gather(own)
    digits = train = test = None
    if data.y_train is not None:
        with clock("label"):
            digits = infer_cluster_labels(estimator, data.y_train)
            named = infer_data_labels(estimator.labels_, digits)
        with clock("score"):
            train = score_labels(data.y_train, estimator.labels_, named)
        if data.test is not None and data.y_test is not None:
            with clock("predict"):
                clusters = estimator.predict(data.test)
            with clock("score"):
                test = score_labels(data.y_test, clusters, infer_data_labels(clusters, digits))
    if not gather:
        estimator.labels_ = own
    scale = METRICS[estimator.metric].unit(data.unit) ** 2
    curves = history.restarts
    return Result(
        data=data.to_dict(),
        parameters=estimator.get_params(),
        seed=seed,
        n_clusters=n_clusters,
        n_features=data.train.shape[1],
        n_iter=int(estimator.n_iter_),
        inertia=float(estimator.inertia_) / scale,
        device=str(estimator.device_),
        way=str(getattr(estimator, "way_", "")),
        rechecked=int(estimator.n_rechecked_),
        clusters=_clusters(sizes, estimator.labels_, digits, data.y_train),
        train=train,
        test=test,
        missing=() if train is None else tuple(int(label) for label in train.missing),
        timings=timings,
        environment=environment,
        started=started,
        command=command,
        unit=data.unit,
        estimator=estimator,
        cluster_labels=digits,
        interrupted=interrupted,
        history=curves and [[value / scale for value in curve] for curve in curves],
    )


def predict(
    model: Model, rows: Array, *, device: str = "auto", scale: float | None = None
) -> tuple[Array, Array | None]:
    """Find the cluster of every row and, where the model knows digits, the digit.

    Parameters
    ----------
    model : Model
    rows : ndarray of shape (n, n_features)
        For a model of images: pixels of 0 to 255, or of 0 to 1 in floating point.
    device : {"auto", "gpu", "cpu"}
        Need not be the one that the model was fitted on.
    scale : float, optional
        Factor that brings the rows to the unit of the model; `scale_of` if None.

    Returns
    -------
    clusters : ndarray of shape (n,), int
    labels : ndarray of shape (n,), or None

    Raises
    ------
    DeviceError
    ExperimentError
        The rows do not fit the model.
    """
    from mnist_kmeans_mlx.labeling import infer_data_labels

    if scale is None:
        scale = scale_of(model, rows)
    estimator = model.estimator.set_params(device=device)
    try:
        if scale == 1:
            clusters = estimator.predict(rows)
        else:
            parts = [estimator.predict(block * scale) for block in _blocks(rows)]
            clusters = np.concatenate(parts)
    except ValueError as error:
        raise ExperimentError(_sentence(error)) from error
    if model.cluster_labels is None:
        return clusters, None
    return clusters, infer_data_labels(clusters, model.cluster_labels)


def predict_to(
    model: Model, rows: Any, path: str, *, digits: bool = True, device: str = "auto"
) -> None:
    """Write the digit of every row to a file, in parts, or its cluster number.

    Parameters
    ----------
    model : Model
    rows : ndarray of shape (n, n_features) or source of rows
        As for `predict`.
    path : str
        A file in any format that can be written. It appears when it is complete; an interrupted
        call is resumed.
    digits : bool, default=True
        Write digits, where the model knows them.
    device : {"auto", "gpu", "cpu"}
    """
    from mnist_kmeans_mlx.labeling import infer_data_labels

    names = model.cluster_labels if digits else None

    def answer(block: Array) -> Array:
        clusters = model.estimator.predict(block if scale == 1 else block * scale)
        return clusters if names is None else infer_data_labels(clusters, names)

    scale = scale_of(model, rows)
    dtype = np.int32 if names is None else np.int64
    _write(model, rows, path, answer, (), dtype, device, {"unit": scale, "names": names})


def transform_to(model: Model, rows: Any, path: str, *, device: str = "auto") -> None:
    """Write the distances of every row to all centres to a file, in parts; see `predict_to`."""

    def answer(block: Array) -> Array:
        return model.estimator.transform(block if scale == 1 else block * scale)

    scale, centers = scale_of(model, rows), model.estimator.cluster_centers_
    _write(model, rows, path, answer, (len(centers),), centers.dtype, device, {"unit": scale})


def _write(
    model: Model,
    rows: Any,
    path: str,
    answer: Callable[[Array], Array],
    shape: tuple[int, ...],
    dtype: Any,
    device: str,
    also: dict[str, Any],
) -> None:
    from mnist_kmeans_mlx.answers import write_answers

    estimator = model.estimator.set_params(device=device)
    try:
        write_answers(estimator, rows, path, answer, shape, dtype, also=also)
    except ValueError as error:
        if type(error).__module__.startswith("mnist_kmeans_mlx."):
            raise
        raise ExperimentError(_sentence(error)) from error


def scale_of(model: Model, *parts: Any) -> float:
    """Find the factor that brings rows to the unit of a model.

    A model of images takes pixels unscaled, unless all are floats of at most 1. All rows of all
    parts are checked, because the first ones may be blank.

    Parameters
    ----------
    model : Model
    *parts : ndarray of shape (n, n_features) or source of rows
        From one source, such as training and test rows, which have the same unit.

    Raises
    ------
    ExperimentError
        The rows do not have the columns of the model.
    """
    expected = model.estimator.n_features_in_
    for rows in parts:
        if rows.shape[1] != expected:
            raise ExperimentError(
                f"the data has {rows.shape[1]} columns, the model needs {expected}."
            )
    unit = unit_of(model)
    if unit == 1 or any(rows.dtype.kind != "f" for rows in parts):
        return 1.0
    above = any(np.any(block > 1) for rows in parts for block in _blocks(rows))
    return 1.0 if above else unit


def _blocks(rows: Any) -> Iterator[Array]:
    """Rows in parts, of an array or of a source."""
    step = max(1, _BLOCK // (rows.shape[1] * rows.dtype.itemsize))
    for start in range(0, max(1, len(rows)), step):
        yield rows[start : min(start + step, len(rows))]


def evaluate(
    model: Model, data: Data, *, device: str = "auto", observe: Observer | None = None
) -> Evaluation:
    """Score a model on data with labels.

    Parameters
    ----------
    observe : callable, optional
        Called with ``"predict"`` and ``"score"`` as they begin.

    Raises
    ------
    DeviceError
    ExperimentError
        The data has no labels, the model knows no digits, or they do not fit each other.
    """
    from mnist_kmeans_mlx.scores import score_labels

    if data.y_train is None:
        raise ExperimentError("to evaluate takes labels, and this data has none: see --labels.")
    if model.cluster_labels is None:
        raise ExperimentError("this model was fitted without labels and names no digits.")
    timings = {"predict": 0.0, "score": 0.0}
    clock = _clock(timings, observe or (lambda stage: None))
    scale = scale_of(model, *(rows for rows in (data.train, data.test) if rows is not None))
    scores: list[Scores | None] = []
    for rows, truth in ((data.train, data.y_train), (data.test, data.y_test)):
        if rows is None or truth is None:
            scores.append(None)
            continue
        with clock("predict"):
            clusters, named = predict(model, rows, device=device, scale=scale)
        with clock("score"):
            scores.append(score_labels(truth, clusters, named))
    train, test = scores
    assert train is not None
    return Evaluation(data.to_dict(), train, test, sum(timings.values()))


def _clusters(
    sizes: Array, labels: Array, digits: Mapping[int, list[int]] | None, truth: Array | None
) -> tuple[Cluster, ...]:
    n_clusters = len(sizes)
    if digits is None or truth is None:
        return tuple(Cluster(index, int(size)) for index, size in enumerate(sizes))
    named = digit_of(digits)
    digit = np.array([named.get(cluster, -1) for cluster in range(n_clusters)])
    right = np.bincount(labels[digit[labels] == truth], minlength=n_clusters)
    return tuple(
        Cluster(index, int(sizes[index]), named.get(index), right[index] / max(1, sizes[index]))
        for index in range(n_clusters)
    )


def digit_of(digits: Mapping[int, list[int]] | None) -> dict[int, int]:
    """Digit of each cluster that stands for one."""
    return {cluster: digit for digit, part in (digits or {}).items() for cluster in part}


def _clock(timings: dict[str, float], observe: Observer) -> Any:
    @contextmanager
    def stage(name: str) -> Iterator[None]:
        observe(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            timings[name] += time.perf_counter() - start

    return stage


def _sentence(error: ValueError) -> str:
    """Shorten scikit-learn's message of several lines to its first."""
    return str(error).partition("\n")[0].rstrip(".") + "."
