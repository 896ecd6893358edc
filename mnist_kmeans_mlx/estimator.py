"""KMeans: scikit-learn's contract on MLX's arithmetic."""

from __future__ import annotations

import warnings
from numbers import Integral, Real
from typing import Any, Self

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
    _fit_context,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import (
    _check_sample_weight,
    _is_arraylike_not_scalar,
    check_is_fitted,
    validate_data,
)

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.engine import seeding
from mnist_kmeans_mlx.engine.assignment import FullAssignment
from mnist_kmeans_mlx.engine.distances import Codebook, inertia
from mnist_kmeans_mlx.engine.lloyd import Run, lloyd
from mnist_kmeans_mlx.engine.points import Float64, Index, Points

# Kept as they come: the engine converts a block at a time, and narrow rows stay narrow.
NARROW = (np.bool_, np.uint8, np.int8, np.uint16, np.int16)


class KMeans(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClusterMixin,
    BaseEstimator,
):
    """K-means clustering on the GPU through MLX, with scikit-learn's results.

    Parameters, attributes, seeds and stopping rule are those of
    :class:`sklearn.cluster.KMeans`; `device` and `device_` come on top.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "random"}, callable or array of shape (n_clusters, n_features), \
default="k-means++"
        Where the centres start: greedy k-means++, random rows, given centres, or what
        ``init(X, n_clusters, random_state=...)`` returns for the centred rows.
    n_init : "auto" or int, default="auto"
        Number of restarts, of which the one with the lowest inertia is kept. "auto" is 1 for
        "k-means++" and given centres, 10 otherwise.
    max_iter : int, default=300
        Most iterations of one restart.
    tol : float, default=1e-4
        Stop when the centres' summed squared shift is at most `tol` times the mean variance of
        the features.
    verbose : int, default=0
        Print the progress of each restart.
    random_state : int, RandomState instance or None, default=None
        Source of the draws. The same integer draws the same seeds as scikit-learn does.
    copy_x : bool, default=True
        Has no effect: the rows given are never changed.
    algorithm : {"auto", "lloyd", "elkan"}, default="auto"
        How the nearest centres are found: by comparing all ("lloyd"), or by skipping rows that
        the triangle inequality decides ("elkan"). Does not change the result.
    device : {"auto", "gpu", "cpu"}, default="auto"
        Where to compute. "auto" takes Metal, then CUDA, then the CPU.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centres, float32 if `X` is and float64 otherwise.
    labels_ : ndarray of shape (n_samples,), int32
        Cluster of each row: the centre that is nearest in float64 arithmetic.
    inertia_ : float
        Weighted sum of squared distances of the rows to their centres, summed in float64.
    n_iter_ : int
        Iterations of the best restart.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where `X` has string names.
    device_ : {"gpu", "cpu"}
        Where `fit` ran.
    n_rechecked_ : int
        Rows whose two nearest centres were too close for float32 and that float64 decided, summed
        over the iterations of the best restart.

    See Also
    --------
    sklearn.cluster.KMeans : The same on the CPU, through Cython.

    References
    ----------
    S. Lloyd, *Least squares quantization in PCM*, IEEE Trans. Inf. Theory 28 (1982);
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import KMeans
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> kmeans = KMeans(n_clusters=2, random_state=0).fit(X)
    >>> kmeans.labels_
    array([1, 1, 1, 0, 0, 0], dtype=int32)
    >>> kmeans.cluster_centers_
    array([[10.,  2.],
           [ 1.,  2.]])
    >>> kmeans.predict([[0, 0], [12, 3]])
    array([1, 0], dtype=int32)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"k-means++", "random"}), callable, "array-like"],
        "n_init": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
        "copy_x": ["boolean"],
        "algorithm": [StrOptions({"auto", "lloyd", "elkan"})],
        "device": [StrOptions({"auto", "gpu", "cpu"})],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        copy_x: bool = True,
        algorithm: str = "auto",
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters of the rows of `X`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows: NumPy of any numeric dtype, `mx.array`, a data frame or a CSR matrix.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.

        Returns
        -------
        KMeans
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If `X` is empty, not numeric, not finite or has fewer rows than clusters, or if a
            parameter is out of range.
        DeviceError
            If ``device="gpu"`` and MLX finds no GPU.
        """
        device = devices.resolve(self.device)
        X = self._validate_rows(X, reset=True)
        if X.shape[0] < self.n_clusters:
            raise ValueError(f"n_samples={X.shape[0]} should be >= n_clusters={self.n_clusters}.")
        algorithm = self._checked_algorithm()
        restarts = self._restarts()
        random_state = check_random_state(self.random_state)
        dtype = _center_dtype(X)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        init = self._checked_init(X, dtype)

        points = Points(X, device, weights)
        tol = self.tol * points.mean_variance
        best: Run | None = None
        for _ in range(restarts):
            centers = self._seed(points, init, random_state)
            if self.verbose:
                print("Initialization complete")
            run = lloyd(
                points,
                centers,
                max_iter=self.max_iter,
                tol=tol,
                algorithm=algorithm,
                dtype=dtype,
                observe=self._announce(points) if self.verbose else None,
            )
            if self.verbose:
                self._announce_end(run, tol)
            if best is None or (
                run.inertia < best.inertia and not _same_clustering(run.labels, best.labels)
            ):
                best = run
        assert best is not None

        distinct = len(np.unique(best.labels))
        if distinct < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({distinct}) found smaller than "
                f"n_clusters ({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.cluster_centers_ = best.centers.astype(dtype)
        self._n_features_out = self.n_clusters
        self.labels_ = best.labels.astype(np.int32)
        self.inertia_ = best.inertia
        self.n_iter_ = best.n_iter
        self.n_rechecked_ = best.rechecked
        self.device_ = device.name
        return self

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
        labels, _ = self._assign(self._validate_rows(X, reset=False))
        return labels.astype(np.int32)

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[Any]:
        """Fit and return ``labels_``. See `fit`."""
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
            Euclidean distances, in the units and the precision of the centres.
        """
        check_is_fitted(self)
        return self._transform(self._validate_rows(X, reset=False))

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> npt.NDArray[Any]:
        """Fit and return the distances of `X` to the centres. See `fit` and `transform`."""
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
            Minus the weighted sum of squared distances of the rows to their nearest centres.
        """
        check_is_fitted(self)
        X = self._validate_rows(X, reset=False)
        labels, points = self._assign(X)
        if sample_weight is not None:
            points.weights = _check_sample_weight(sample_weight, X, dtype=np.float64)
        return -inertia(points, self.cluster_centers_.astype(np.float64), labels)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    # Validation

    def _validate_rows(self, X: Any, *, reset: bool) -> Any:
        if isinstance(X, mx.array):
            X = _from_mlx(X)
        keep = getattr(X, "dtype", None) in NARROW
        return validate_data(
            self,
            X,
            reset=reset,
            accept_sparse="csr",
            dtype=None if keep else [np.float64, np.float32],
            order="C",
            accept_large_sparse=False,
        )

    def _checked_algorithm(self) -> str:
        if self.algorithm == "elkan" and self.n_clusters == 1:
            warnings.warn(
                "algorithm='elkan' doesn't make sense for a single cluster. Using 'lloyd' instead.",
                RuntimeWarning,
                stacklevel=3,
            )
            return "lloyd"
        return self.algorithm

    def _restarts(self) -> int:
        given = _is_arraylike_not_scalar(self.init)
        if self.n_init == "auto":
            one = given or (isinstance(self.init, str) and self.init == "k-means++")
            return 1 if one else 10
        if given and self.n_init != 1:
            warnings.warn(
                "Explicit initial center position passed: performing only one init in "
                f"{type(self).__name__} instead of n_init={self.n_init}.",
                RuntimeWarning,
                stacklevel=3,
            )
            return 1
        return int(self.n_init)

    def _checked_init(self, X: Any, dtype: Any) -> Any:
        if not _is_arraylike_not_scalar(self.init):
            return self.init
        init = _from_mlx(self.init) if isinstance(self.init, mx.array) else self.init
        init = check_array(init, dtype=dtype, copy=True, order="C")
        self._check_center_shape(X, init)
        return init

    def _check_center_shape(self, X: Any, centers: Any) -> None:
        for axis, what, expected in (
            (0, "the number of clusters", self.n_clusters),
            (1, "the number of features of the data", X.shape[1]),
        ):
            if centers.shape[axis] != expected:
                raise ValueError(
                    f"The shape of the initial centers {centers.shape} does not match "
                    f"{what} {expected}."
                )

    # Steps of fit and predict

    def _seed(self, points: Points, init: Any, random_state: np.random.RandomState) -> Float64:
        if isinstance(init, str):
            draw = seeding.plus_plus if init == "k-means++" else seeding.random_rows
            return points.raw(draw(points, self.n_clusters, random_state))
        if callable(init):
            return self._call_init(points.rows, init, random_state)
        return np.asarray(init, dtype=np.float64)

    def _call_init(self, X: Any, init: Any, random_state: np.random.RandomState) -> Float64:
        """Centres from a callable, which sees what scikit-learn shows it: centred rows."""
        dtype = _center_dtype(X)
        mean = np.zeros(X.shape[1], dtype=dtype)
        if not issparse(X):
            X = X.astype(dtype)
            mean = X.mean(axis=0)
            X -= mean
        centers = init(X, self.n_clusters, random_state=random_state)
        centers = check_array(centers, dtype=dtype, copy=False, order="C")
        self._check_center_shape(X, centers)
        return np.asarray(centers + mean, dtype=np.float64)

    def _assign(self, X: Any) -> tuple[Index, Points]:
        points = Points(X, devices.resolve(self.device))
        codebook = Codebook(points, self.cluster_centers_.astype(np.float64))
        return FullAssignment(points)(codebook), points

    def _transform(self, X: Any) -> npt.NDArray[Any]:
        points = Points(X, devices.resolve(self.device))
        centers = self.cluster_centers_.astype(np.float64)
        result = np.empty((points.n, len(centers)), dtype=self.cluster_centers_.dtype)
        for column, center in enumerate(centers):
            result[:, column] = np.sqrt(points.distances_sq(None, center)) / points.scale
        return result

    def _announce(self, points: Points) -> Any:
        def announce(iteration: int, labels: Any, centers: Float64) -> None:
            print(f"Iteration {iteration}, inertia {inertia(points, centers, labels)}.")

        return announce

    def _announce_end(self, run: Run, tol: float) -> None:
        if run.converged == "strict":
            print(f"Converged at iteration {run.n_iter - 1}: strict convergence.")
        elif run.converged == "tol":
            print(
                f"Converged at iteration {run.n_iter - 1}: center shift {run.shift} within "
                f"tolerance {tol}."
            )


def _center_dtype(X: Any) -> Any:
    return np.float32 if X.dtype == np.float32 else np.float64


def _from_mlx(a: mx.array) -> npt.NDArray[Any]:
    """NumPy array of an MLX array; bfloat16, which NumPy lacks, as float32."""
    if a.dtype == mx.bfloat16:
        a = a.astype(mx.float32)
    return devices.host_view(a)


def _same_clustering(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Whether two labelings agree up to the names of the clusters."""
    pairs = np.unique(np.stack([a, b]), axis=1).shape[1]
    return bool(pairs == len(np.unique(a)) == len(np.unique(b)))
