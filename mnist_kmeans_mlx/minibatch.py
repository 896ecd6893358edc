"""MiniBatchKMeans: clusters from one small random part of the rows at a time."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from sklearn.utils.sparsefuncs import mean_variance_axis

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.base import (
    BaseKMeans,
    all_or_nothing,
    center_dtype,
    checked_inertia,
    checked_weights,
    on_threads,
    warn,
)
from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine import minibatch
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Float64, Index, Points
from mnist_kmeans_mlx.engine.ways import choose
from mnist_kmeans_mlx.memory import is_source


class MiniBatchKMeans(BaseKMeans):
    """K-means from small random batches of rows, with scikit-learn's results.

    Parameters, attributes, draws and stopping rules are those of
    :class:`sklearn.cluster.MiniBatchKMeans`. `device` and `device_` are additional. Only one batch
    at a time is on the device, and sparse batches stay sparse.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "random"}, callable or array of shape (n_clusters, n_features), \
default="k-means++"
        Where the centres start: greedy k-means++ or random rows, both from `init_size` rows, given
        centres, or what ``init(X, n_clusters, random_state=...)`` returns for those rows.
    max_iter : int, default=100
        Most passes over as many rows as `X` has.
    batch_size : int, default=1024
        Rows in a batch.
    verbose : int, default=0
        Print the progress.
    compute_labels : bool, default=True
        Whether to label all rows at the end.
    random_state : int, RandomState instance or None, default=None
        Source of the draws. The same integer draws the same rows as in scikit-learn.
    tol : float, default=0.0
        Stop when the centres' summed squared shift in a batch is at most `tol` times the mean
        variance of the features. Zero never stops.
    max_no_improvement : int or None, default=10
        Stop after so many batches in a row in which the moving average of the inertia did not fall.
        None never stops.
    init_size : int, default=None
        How many rows, drawn at random, to choose the first centres from; three batches if None.
    n_init : "auto" or int, default="auto"
        Number of starts to choose the best from, by the inertia of `init_size` rows. "auto" is 1
        for "k-means++" and given centres, 3 otherwise.
    reassignment_ratio : float, default=0.01
        A centre that has seen less than this share of the rows that the busiest has seen is moved
        to a random row.
    device : {"auto", "gpu", "cpu"}, default="auto"
        Where to compute. "auto" takes Metal, then CUDA, then the CPU.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centres, float32 if `X` is and float64 otherwise.
    labels_ : ndarray of shape (n_samples,), int32
        Nearest centre of each row, if `compute_labels`; after `partial_fit`, of each row of the
        last batch.
    inertia_ : float
        Weighted sum of squared distances of the rows to their centres. Without `compute_labels`,
        an estimate from the moving average of the batches.
    n_iter_ : int
        Number of passes over as many rows as `X` has; the last may be incomplete.
    n_steps_ : int
        Number of batches.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` has string names.
    device_ : {"gpu", "cpu"}
        Where the last fit ran.

    References
    ----------
    D. Sculley, *Web-scale k-means clustering*, WWW 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import MiniBatchKMeans
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> kmeans = MiniBatchKMeans(n_clusters=2, random_state=0, batch_size=6).fit(X)
    >>> kmeans.predict([[0, 0], [12, 3]])
    array([1, 0], dtype=int32)
    """

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        **BaseKMeans._parameter_constraints,
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "compute_labels": ["boolean"],
        "max_no_improvement": [Interval(Integral, 0, None, closed="left"), None],
        "init_size": [Interval(Integral, 1, None, closed="left"), None],
        "reassignment_ratio": [Interval(Real, 0, None, closed="left")],
    }

    _draws: Any  # where the sequence of random numbers of `partial_fit` stands

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        max_iter: int = 100,
        batch_size: int = 1024,
        verbose: int = 0,
        compute_labels: bool = True,
        random_state: int | np.random.RandomState | None = None,
        tol: float = 0.0,
        max_no_improvement: int | None = 10,
        init_size: int | None = None,
        n_init: int | str = "auto",
        reassignment_ratio: float = 0.01,
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.verbose = verbose
        self.compute_labels = compute_labels
        self.random_state = random_state
        self.tol = tol
        self.max_no_improvement = max_no_improvement
        self.init_size = init_size
        self.n_init = n_init
        self.reassignment_ratio = reassignment_ratio
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @on_threads
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters of the rows of `X` from random batches of them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, as `KMeans.fit` takes them: of files, batches are read row by row.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row, in proportion to which batches are drawn; all one if None.

        Returns
        -------
        MiniBatchKMeans
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If `X` is empty, not numeric, not finite or has fewer rows than clusters, or if a
            parameter is out of range.
        DeviceError
            If ``device="gpu"`` and MLX finds no GPU.
        MemoryError
            If the machine cannot hold one batch, or the centres.
        """
        self._alone()
        device = devices.resolve(self.device)
        X = self._validate_rows(X, reset=True)
        self._check_sizes(X)
        self._n_init = self._restarts(default=3)
        random_state = check_random_state(self.random_state)
        weights = checked_weights(sample_weight, X)
        init, dtype, n = self._checked_init(X), center_dtype(X), X.shape[0]

        centers = self._best_start(X, weights, init, random_state, device)
        self._counts = np.zeros(self.n_clusters)
        self._n_since_reassign = 0
        share = None if weights is None else weights / weights.sum()
        progress = minibatch.Progress(
            tol=self.tol * _mean_variance(X, device) if self.tol > 0 else 0.0,
            patience=self.max_no_improvement,
            smoothing=min(1.0, 2 * self._batch_size / (n + 1)),
        )
        n_steps = self.max_iter * n // self._batch_size
        for number in range(1, n_steps + 1):
            if share is None:  # what `choice` would draw, without a pass over all shares
                index = (random_state.random_sample(self._batch_size) * n).astype(np.intp)
            else:
                index = random_state.choice(n, self._batch_size, p=share, replace=True)
            previous = centers
            centers, value = self._step(
                _rows_at(X, index), None, centers, dtype, random_state, device
            )
            value /= self._batch_size
            # The first batch shows where the centres start, not what they have learnt.
            reason = ""
            if number > 1:
                reason = progress.add(value, float(np.square(centers - previous).sum()))
            if self.verbose:
                average = f", ewa inertia: {progress.average}" if number > 1 else ""
                print(f"Minibatch step {number}/{n_steps}: mean batch inertia: {value}{average}")
                if reason:
                    print(f"Converged ({reason}) at step {number}/{n_steps}")
            if reason:
                break
        self.cluster_centers_ = centers.astype(dtype)
        self._n_features_out = self.n_clusters
        self.n_steps_ = number
        self.n_iter_ = int(np.ceil(number * self._batch_size / n))
        self.device_ = device.name
        if self.compute_labels:
            self.labels_, self.inertia_ = self._labels_and_inertia(X, weights)
        else:
            total = n if weights is None else float(weights.sum())
            self.inertia_ = (value if progress.average is None else progress.average) * total
        return self

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @on_threads
    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Update the centres with one batch.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The batch, as in `fit`. The first centres come from the first one.
        y : None
            Ignored.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row; all one if None.

        Returns
        -------
        MiniBatchKMeans
            The fitted estimator itself.

        Raises
        ------
        ValueError
            As `fit` does; the first batch must have as many rows as there are clusters.
        DeviceError
            If ``device="gpu"`` and MLX finds no GPU.
        """
        first = not hasattr(self, "cluster_centers_")
        device = devices.resolve(self.device)
        X = self._validate_rows(X, reset=first)
        random_state = check_random_state(self.random_state)
        seeded = isinstance(self.random_state, Integral)
        if seeded and hasattr(self, "_draws"):
            # A seed starts a sequence that goes on from batch to batch, also in a loaded model.
            random_state.set_state(self._draws)
        weights = checked_weights(sample_weight, X)
        if first:
            self._check_sizes(X)
            self._n_init = self._restarts(default=3)
            init = self._checked_init(X)
            centers = self._start(X, weights, init, random_state, device)
            dtype = center_dtype(X)
            self._counts = np.zeros(self.n_clusters)
            self._n_since_reassign = 0
        else:
            centers, dtype = self.cluster_centers_.astype(np.float64), self.cluster_centers_.dtype
        X = X[:] if is_source(X) else X
        centers, _ = self._step(X, weights, centers, dtype, random_state, device)
        if seeded:
            self._draws = random_state.get_state()
        self.cluster_centers_ = centers.astype(dtype)
        self._n_features_out = self.n_clusters
        self.n_steps_ = getattr(self, "n_steps_", 0) + 1
        self.device_ = device.name
        if self.compute_labels:
            self.labels_, self.inertia_ = self._labels_and_inertia(X, weights)
        return self

    def _check_state(self) -> None:
        """Refuse what `partial_fit` could not go on from."""
        counts = self._counts
        if counts.shape != self.cluster_centers_.shape[:1] or counts.dtype != np.float64:
            raise ValueError("its counts do not fit its centres")
        if not np.isfinite(counts).all() or counts.min() < 0:
            raise ValueError("its counts are not finite and positive")
        numbers = self._batch_size, self._n_since_reassign, self.n_steps_
        if not all(isinstance(number, Integral) for number in numbers):
            raise ValueError("its numbers of rows and steps are not whole numbers")
        draws = getattr(self, "_draws", None)
        if draws is not None:
            np.random.RandomState().set_state(draws)
            # Which NumPy does not check, and it would read beyond its 624 words.
            if not isinstance(draws, tuple) or not 0 <= draws[2] <= 624:
                raise ValueError("its random state cannot be")

    def _check_sizes(self, X: Any) -> None:
        """Fix how many rows make a batch and a start, and how many starts there are."""
        n = X.shape[0]
        self._batch_size = min(self.batch_size, n)
        size = self.init_size
        if size is None:
            size = 3 * self._batch_size
            if size < self.n_clusters:
                size = 3 * self.n_clusters
        elif size < self.n_clusters:
            warn(
                f"init_size={size} should be larger than n_clusters={self.n_clusters}. Setting it "
                "to min(3*n_clusters, n_samples)",
                RuntimeWarning,
            )
            size = 3 * self.n_clusters
        self._init_size = min(size, n)
        self._check_number(n)
        # A batch as it came, in float64 and less a centre; seeds keep their rows in float32.
        self._check_memory(X, self.n_clusters, max(self._init_size, self._batch_size), 24)

    def _best_start(
        self,
        X: Any,
        weights: Float64 | None,
        init: Any,
        random_state: np.random.RandomState,
        device: Device,
    ) -> Float64:
        """Of several starts the one with the lowest inertia of some rows."""
        index = random_state.randint(0, X.shape[0], self._init_size)
        judges, heavy = _rows_at(X, index), None if weights is None else weights[index]
        best, lowest = None, np.inf
        for number in range(1, self._n_init + 1):
            if self.verbose:
                print(f"Init {number}/{self._n_init} with method {init}")
            centers = self._start(X, weights, init, random_state, device)
            nearest = Nearest(centers, device)
            value = checked_inertia(nearest.inertia(judges, nearest.labels(judges), heavy))
            if self.verbose:
                print(f"Inertia for init {number}/{self._n_init}: {value}")
            if best is None or value < lowest:
                best, lowest = centers, value
        assert best is not None
        return best

    def _start(
        self,
        X: Any,
        weights: Float64 | None,
        init: Any,
        random_state: np.random.RandomState,
        device: Device,
    ) -> Float64:
        """First centres, from `init_size` random rows."""
        if self._init_size < X.shape[0]:
            index = random_state.randint(0, X.shape[0], self._init_size)
            X, weights = _rows_at(X, index), None if weights is None else weights[index]
        way = choose(Points(X, device, weights), self.n_clusters)
        return self._seed(way, init, self.n_clusters, random_state)[0]

    def _step(
        self,
        batch: Any,
        weights: Float64 | None,
        centers: Float64,
        dtype: Any,
        random_state: np.random.RandomState,
        device: Device,
    ) -> tuple[Float64, float]:
        """Centres after a batch, rounded to `dtype`, and the batch's inertia before."""
        # Before the batch is counted: empty clusters are always given another chance.
        self._n_since_reassign += self._batch_size
        due = bool((self._counts == 0).any()) or self._n_since_reassign >= 10 * self.n_clusters
        centers, self._counts, value = minibatch.step(batch, weights, centers, self._counts, device)
        if due:
            self._n_since_reassign = 0
            moved = minibatch.reassign(
                batch, centers, self._counts, self.reassignment_ratio, random_state
            )
            if moved and self.verbose:
                print(f"[MiniBatchKMeans] Reassigning {moved} cluster centers.")
        checked_inertia(value if np.isfinite(centers).all() else np.inf)
        return centers.astype(dtype, copy=False).astype(np.float64, copy=False), value


def _rows_at(X: Any, index: Index) -> Any:
    return X.take(index) if is_source(X) else X[index]


def _mean_variance(X: Any, device: Device) -> float:
    """Mean over the features of their variance."""
    if is_source(X):
        way = choose(Points(X, device, keep=False), 1)
        return way.points.squared(way.mean_variance)
    if issparse(X):
        return float(np.mean(mean_variance_axis(X.astype(np.float64), axis=0)[1]))
    return float(np.mean(np.var(X, axis=0, dtype=np.float64)))
