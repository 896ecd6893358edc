"""What the estimators share: rows checked on the way in, and what fitted centres can answer.

Here NumPy meets MLX: rows come as whatever scikit-learn takes, answers leave as NumPy arrays.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import assert_all_finite, check_array
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_feature_names,
    _check_n_features,
    _check_sample_weight,
    _is_arraylike_not_scalar,
    check_is_fitted,
    validate_data,
)

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.datasets.sources import open_rows
from mnist_kmeans_mlx.device import slices
from mnist_kmeans_mlx.distributed import current
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.metric import METRICS, Metric
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Float64
from mnist_kmeans_mlx.engine.seeding import start
from mnist_kmeans_mlx.engine.ways import Way
from mnist_kmeans_mlx.memory import centers_bytes, check_free, is_source

Method = TypeVar("Method", bound=Callable[..., Any])

# Kept as they come: the engine converts a block at a time, and narrow rows stay narrow.
NARROW = (np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.float16)

# The bits of infinity and of its negative in float16; those of NaN are larger.
INFINITE_HALF, NEGATIVE_HALF = 0x7C00, 0xFC00

# What fitted centres are asked about goes to the device in blocks of this size.
BLOCK_BYTES = 256 << 20


def on_threads(method: Method) -> Method:
    """Let the threads of the estimator's device have the cores, for as long as a method runs."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with devices.resolve(self.device).host.threads():
            return method(self, *args, **kwargs)

    return cast(Method, call)


def all_or_nothing(method: Method) -> Method:
    """Leave the estimator as it was where a method that fits it fails, unless by Ctrl-C.

    A `Checkpoint` fits what was interrupted with as much as was reached.
    """

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = vars(self).copy()
        try:
            return method(self, *args, **kwargs)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise

    return cast(Method, call)


class BaseKMeans(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClusterMixin,
    BaseEstimator,
):
    """Validation, `predict`, `transform` and `score` for any estimator with centres."""

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions(set(start.NAMES)), callable, "array-like"],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "device": [StrOptions({"auto", "gpu", "cpu"})],
    }

    n_clusters: int
    init: Any
    n_init: int | str
    device: str
    metric: str = "euclidean"
    cluster_centers_: npt.NDArray[Any]
    labels_: npt.NDArray[np.int32]
    # The fitted arrays that `predict` and `transform` look at.
    _answering: tuple[str, ...] = ("cluster_centers_",)

    def predict(self, X: Any) -> npt.NDArray[np.int32]:
        """Nearest centre of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,), int32
            Index of the centre that is nearest in float64 arithmetic; of equally near the first.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `X` does not have the features seen in `fit`.
        """
        check_is_fitted(self)
        X = self._validate_rows(X, reset=False, finite=False)
        with self._told_of_nan(X):
            return self._labels(X)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[Any]:
        """Fit, and return the cluster of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, as `fit` takes them.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.

        Returns
        -------
        ndarray of shape (n_samples,), int32
            The attribute ``labels_``.
        """
        return self.fit(X, sample_weight=sample_weight).labels_

    def transform(self, X: Any) -> npt.NDArray[Any]:
        """Distances of each row to each centre.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            Euclidean distances, in the units and the precision of the centres; ``1 - cos`` where
            the metric is cosine. Computed in float64 on every device.
        """
        check_is_fitted(self)
        return self._transform(self._validate_rows(X, reset=False))

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[Any]:
        """Fit, and return the distances of each row to each centre.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, as `fit` takes them.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.

        Returns
        -------
        ndarray of shape (n_samples, n_clusters)
            As `transform` returns them.
        """
        self.fit(X, sample_weight=sample_weight)
        return self._transform(self._validate_rows(X, reset=False))

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Negative inertia of `X`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.

        Returns
        -------
        float
            Minus the weighted sum of the rows' squared distances to their nearest centres (see
            ``inertia_``).
        """
        check_is_fitted(self)
        X = self._validate_rows(X, reset=False, finite=False)
        with self._told_of_nan(X):
            return -self._labels_and_inertia(X, checked_weights(sample_weight, X))[1]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # Validation

    def _check_state(self) -> None:
        """Raise ValueError if what a file holds besides centres and labels cannot be."""

    def _validate_rows(self, X: Any, *, reset: bool, finite: bool = True) -> Any:
        """Rows as the engine takes them, and unless not to be, dense ones are checked for NaN."""
        X = as_numpy(X)
        if _are_paths(X):
            X = open_rows(X)
        if is_source(X):
            _check_feature_names(self, X, reset=reset)
            _check_n_features(self, X, reset=reset)
            return X
        keep = getattr(X, "dtype", None) in NARROW
        X = validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=None if keep else [np.float64, np.float32],
            order="C",
            ensure_all_finite=finite and not _is_finite_half(X),
        )
        if not finite and issparse(X):
            assert_all_finite(X, estimator_name=type(self).__name__, input_name="X")
        return csr.canonical(X) if reset and issparse(X) else X

    @contextmanager
    def _told_of_nan(self, X: Any) -> Iterator[None]:
        """Say what is not finite, where the engine refuses rows that were not checked."""
        try:
            yield
        except ValueError:
            if not is_source(X):
                assert_all_finite(X, estimator_name=type(self).__name__, input_name="X")
            raise

    def _check_number(self, n: int) -> None:
        """Refuse fewer rows than clusters, and truth values, which Python takes for numbers."""
        if isinstance(self.n_clusters, bool):
            raise TypeError(f"n_clusters must be a whole number, not {self.n_clusters}.")
        if n < self.n_clusters:
            raise ValueError(f"n_samples={n} should be >= n_clusters={self.n_clusters}.")

    def _check_memory(self, X: Any, n_centers: int, dense_rows: int, each: int) -> None:
        """Refuse what takes more memory than is free: `each` byte of numbers of dense rows."""
        n, d = X.shape
        needed = centers_bytes(n_centers, d, devices.resolve(self.device))
        if not issparse(X):
            needed += each * dense_rows * d
        check_free(needed, f"{type(self).__name__} of {n} rows of {d} features")

    def _alone(self) -> None:
        """Refuse to share the work with other ranks."""
        if current().size > 1:
            raise ValueError(
                f"{type(self).__name__} works on one rank: of the estimators, KMeans is the one "
                "that several share."
            )

    def _restarts(self, default: int) -> int:
        given = _is_arraylike_not_scalar(self.init)
        if self.n_init == "auto":
            one = given or (isinstance(self.init, str) and self.init != "random")
            return 1 if one else default
        if given and self.n_init != 1:
            warn(
                "Explicit initial center position passed: performing only one init in "
                f"{type(self).__name__} instead of n_init={self.n_init}.",
                RuntimeWarning,
            )
            return 1
        return int(self.n_init)

    def _checked_init(self, X: Any) -> Any:
        if not _is_arraylike_not_scalar(self.init):
            return self.init
        init = check_array(as_numpy(self.init), dtype=center_dtype(X), copy=True, order="C")
        self._check_center_shape(X, init, self.n_clusters)
        return init.astype(np.float64)

    def _check_center_shape(self, X: Any, centers: Any, n_clusters: int) -> None:
        for axis, what, expected in (
            (0, "the number of clusters", n_clusters),
            (1, "the number of features of the data", X.shape[1]),
        ):
            if centers.shape[axis] != expected:
                raise ValueError(
                    f"The shape of the initial centers {centers.shape} does not match "
                    f"{what} {expected}."
                )

    # Steps of fit and predict

    def _seed(
        self,
        way: Way,
        init: Any,
        n_clusters: int,
        random_state: Any,
        mean: Any = 0,
    ) -> tuple[Float64, Any | None]:
        """Centres to start from, and labels: which is nearest to each row, where that is known.

        A callable `init` is shown rows that `mean` is taken from.
        """
        points = way.points
        if isinstance(init, str):
            chosen, labels = start.draw(way, init, n_clusters, random_state)
            return points.pick(chosen), labels
        if not callable(init):
            return init, None
        rows, dtype = points.rows, center_dtype(points.rows)
        if not issparse(rows):
            rows = rows.astype(dtype) - mean
        centers = init(rows, n_clusters, random_state=random_state)
        centers = check_array(as_numpy(centers), dtype=dtype, order="C").astype(np.float64)
        self._check_center_shape(rows, centers, n_clusters)
        return centers + mean, None

    def _mean_for(self, init: Any, rows: Any) -> Any:
        """Mean of the rows, which scikit-learn takes from those that it shows to a callable."""
        if not callable(init) or issparse(rows) or self._metric.project:
            return 0
        return rows.mean(axis=0, dtype=center_dtype(rows))

    @property
    def _metric(self) -> Metric:
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}, and not one of {', '.join(METRICS)}.")
        return METRICS[self.metric]

    def _nearest(self) -> Nearest:
        return Nearest(
            self.cluster_centers_.astype(np.float64, copy=False), devices.resolve(self.device)
        )

    def _labels(self, X: Any) -> npt.NDArray[np.int32]:
        nearest, parts = self._nearest(), list(blocks(X))
        if len(parts) == 1:
            return nearest.labels(self._metric.rows(_some(X, parts[0])))
        labels = np.empty(X.shape[0], dtype=np.int32)
        for part in parts:
            labels[part] = nearest.labels(self._metric.rows(_some(X, part)))
        return labels

    def _labels_and_inertia(
        self, X: Any, weights: Float64 | None
    ) -> tuple[npt.NDArray[np.int32], float]:
        nearest, labels, total = self._nearest(), np.empty(X.shape[0], dtype=np.int32), 0.0
        for part in blocks(X):
            rows = self._metric.rows(_some(X, part))
            labels[part] = found = nearest.labels(rows)
            total += nearest.inertia(rows, found, None if weights is None else weights[part])
        return labels, self._metric.cost(checked_inertia(total))

    def _transform(self, X: Any) -> npt.NDArray[Any]:
        nearest, centers = self._nearest(), self.cluster_centers_
        result = np.empty((X.shape[0], len(centers)), dtype=centers.dtype)
        for part in blocks(X):
            nearest.distances(self._metric.rows(_some(X, part)), result[part])
        return self._metric.of_lengths(result)


def checked_inertia(inertia: float) -> float:
    """Refuse a sum of squared distances that float64 does not hold."""
    if np.isfinite(inertia):
        return inertia
    raise ValueError(
        "The squared distances of these rows add up to more than float64 holds, about 1.8e308: "
        "divide X by a large number, such as 1e200; the clusters are the same."
    )


def warn(message: str, category: type[Warning]) -> None:
    """Warn at the line that called this package, however many calls and decorators lie between."""
    frame, level = sys._getframe(1), 2
    inside = __name__.partition(".")[0], "sklearn"
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] in inside:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def blocks(X: Any) -> Iterator[slice]:
    """Slices of rows of which each takes at most `BLOCK_BYTES` on the device; all sparse ones."""
    if issparse(X):
        return iter([slice(0, X.shape[0])])
    step = max(1, BLOCK_BYTES // (4 * X.shape[1]))
    return iter(slices(X.shape[0], step))


def _some(X: Any, part: slice) -> Any:
    """One of its `blocks`."""
    return X if issparse(X) else X[part]


def _is_finite_half(X: Any) -> bool:
    """Whether `X` is of float16 and finite, which scikit-learn takes ten times as long to see."""
    if not isinstance(X, np.ndarray) or X.dtype != np.float16:
        return False
    signed, unsigned = (X.view(X.dtype.str.replace("f", kind)) for kind in "iu")
    # Negative numbers are the smallest as signed ones, and the largest as unsigned ones.
    positive = signed.max(initial=0) < INFINITE_HALF
    return bool(positive and unsigned.max(initial=0) < NEGATIVE_HALF)


def _are_paths(X: Any) -> bool:
    first = X[0] if isinstance(X, list | tuple) and X else X
    return isinstance(first, str | os.PathLike)


def center_dtype(X: Any) -> Any:
    """Precision of the centres of rows `X`."""
    return np.float32 if X.dtype == np.float32 else np.float64


def checked_weights(sample_weight: Any, X: Any) -> Float64 | None:
    """Weights in float64; None where all rows weigh the same.

    Raises
    ------
    ValueError
        There is not one for each row, all are zero, any is negative, NaN or infinite, or what they
        are multiplied with would leave float64.
    """
    if sample_weight is None:
        return None
    weights: Float64 = _check_sample_weight(
        as_numpy(sample_weight), X, dtype=np.float64, ensure_non_negative=True
    )
    largest = float(weights.max())
    if not 1e-290 < largest < 1e300 / (X.shape[1] * len(weights) ** 2):
        raise ValueError(
            f"sample_weight goes up to {largest:.2g}, which takes sums out of the range of "
            "float64: divide all weights by that, which changes no cluster."
        )
    return weights
