"""KMeans: scikit-learn's contract on MLX's arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from functools import partial
from numbers import Integral
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
from sklearn import cluster
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.base import (
    BaseKMeans,
    all_or_nothing,
    center_dtype,
    checked_inertia,
    checked_weights,
    on_threads,
    warn,
)
from mnist_kmeans_mlx.datasets.sources import Batches, check_finite, from_memmap
from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.distributed import Group, current
from mnist_kmeans_mlx.engine.lloyd import Observer, Restart, Run, State, iterate, side_by_side
from mnist_kmeans_mlx.engine.metric import METRICS
from mnist_kmeans_mlx.engine.points import Float64, Points, Stage, unwatched
from mnist_kmeans_mlx.engine.restarts import Restarts, Standing, Start
from mnist_kmeans_mlx.engine.seeding.sampling import Draws, Source, default_trials
from mnist_kmeans_mlx.engine.ways import Choice, Way, choose, decide
from mnist_kmeans_mlx.memory import is_source, plan
from mnist_kmeans_mlx.progress import History, announce_end, announcer


class Keeper(Protocol):
    """Keeps how far a fit has come, as `Checkpoint` does."""

    def begin(
        self, estimator: KMeans, X: Any, way: Way, random_state: np.random.RandomState
    ) -> Standing:
        """Where the fit is to go on; sets the random state to its position there."""

    def note(self, standing: Standing, position: Any) -> None:
        """Take note of how far the fit and its random state have come."""


class KMeans(BaseKMeans):
    """K-means clustering on the GPU through MLX, with scikit-learn's results.

    Parameters, attributes, seeds and stopping rule are those of
    :class:`sklearn.cluster.KMeans`. `metric`, `device`, `memory`, `device_` and `n_rechecked_` are
    additional.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "k-means||", "random"}, callable or array of shape (n_clusters, \
n_features), default="k-means++"
        Where the centres start: greedy k-means++, random rows, given centres, or what
        ``init(X, n_clusters, random_state=...)`` returns for the centred rows. "k-means||" passes
        over the rows some ten times instead of once for every cluster: take it for many clusters
        and for rows that are read from files.
    n_init : "auto" or int, default="auto"
        Number of restarts, of which the one with the lowest inertia is kept. "auto" is 10 for
        "random" and callables, and 1 otherwise.
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
    metric : {"euclidean", "cosine"}, default="euclidean"
        The distance. With "cosine" (spherical k-means) rows are scaled to unit length and centres
        stay unit vectors, so that only directions count. A row of zeros has no direction: it stays
        at the origin, equally far from every centre.
    device : {"auto", "gpu", "cpu"}, default="auto"
        Where to compute. "auto" takes Metal, then CUDA, then the CPU.
    memory : int or str, default="auto"
        How much the process may hold, in bytes or as ``"2GB"``. If that is too little, bounds are
        left out, and rows are read again for each pass. An array that you pass does not count, but
        its copies do. "auto" is half of the free memory. Does not change the result.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centres, float32 if `X` is and float64 otherwise.
    labels_ : ndarray of shape (n_samples,), int32
        Cluster of each row: the centre that is nearest in float64 arithmetic.
    inertia_ : float
        Weighted sum of squared distances of the rows to their centres, summed in float64. Where
        the metric is cosine, the weighted sum of ``1 - cos``, which is half of that on the unit
        sphere.
    n_iter_ : int
        Iterations of the best restart.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` has string names.
    way_ : str
        How the nearest centres were found, and why so.
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
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007;
    I. Dhillon and D. Modha, *Concept decompositions for large sparse text data using clustering*,
    Machine Learning 42 (2001), for the cosine metric.

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
        **BaseKMeans._parameter_constraints,
        "copy_x": ["boolean"],
        "algorithm": [StrOptions({"auto", "lloyd", "elkan"})],
        "metric": [StrOptions(set(METRICS))],
        "memory": [str, Interval(Integral, 1, None, closed="left")],
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
        metric: str = "euclidean",
        device: str = "auto",
        memory: int | str = "auto",
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
        self.metric = metric
        self.device = device
        self.memory = memory

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Find the clusters of the rows of `X`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features), source of rows or paths
            Rows: NumPy of any numeric dtype, `mx.array`, a data frame or a CSR matrix; or what
            `open_rows` takes or gives: ``.npy`` and ``.parquet`` files, larger than memory if need
            be.
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
        MemoryError
            If `memory`, or the free memory, is too little for what is kept of each row and centre.
        DatasetError
            If a file cannot be read, or holds NaN or infinity.
        DistributedError
            If the ranks of a group do not make the same fit, or one of them fails.
        """
        return self._fit(X, sample_weight)

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @on_threads
    def _fit(
        self,
        X: Any,
        sample_weight: Any = None,
        *,
        keeper: Keeper | None = None,
        history: History | None = None,
        stage: Stage = unwatched,
    ) -> Self:
        """`fit`, in sight of what keeps how far it has come, collects its inertia, times stages."""
        device, group = devices.resolve(self.device), current()
        X = self._validate_rows(X, reset=True)
        self._check_number(int(group.sum(X.shape[0])))
        self._n_init = self._restarts(default=10)
        algorithm = self._checked_algorithm()
        weights = checked_weights(sample_weight, X)
        init, dtype = self._checked_init(X), center_dtype(X)
        random_state = self._shared(group, X, init, weights)
        project = self._metric.project

        n, d = X.shape
        choice = decide(device, algorithm, n, d, self.n_clusters, self._n_init, X.dtype.itemsize)
        points = self._points(X, device, choice, weights, group, stage)
        way = choose(points, self.n_clusters, algorithm, choice)
        checked_inertia(points.squared(way.norm_sq))  # which is no less
        tol = self.tol * way.mean_variance
        if callable(init) and is_source(points.rows):
            raise ValueError(
                "a callable init is shown all rows, and memory does not hold these: give centers, "
                "'k-means++' or 'random'."
            )
        mean = self._mean_for(init, points.rows)
        at = Standing() if keeper is None else keeper.begin(self, X, way, random_state)

        def position() -> Any:
            return None if keeper is None else random_state.get_state(legacy=False)

        seed = self._starts(way, at, init, random_state, position, mean, project)

        def begin(restart: int, start: Start, observe: Observer) -> Restart:
            observers = [announcer(points, self._metric.cost)] if self.verbose else []
            if history is not None:
                observers.append(history.observer(way, restart, self._metric.cost))

            def follow(state: State) -> None:
                for each in (*observers, observe):
                    each(state)

            state = start() if callable(start) else start
            if self.verbose and state.n_iter == 0:
                print("Initialization complete")
            return iterate(
                way,
                state,
                max_iter=self.max_iter,
                tol=tol,
                dtype=dtype,
                project=project,
                observe=follow,
            )

        def solve(starts: list[tuple[int, Start, Observer]]) -> list[Run]:
            runs = side_by_side(way, [begin(*one) for one in starts])
            if self.verbose:
                announce_end(points, runs[0], tol)
            return runs

        def better(run: Run, best: Run) -> bool:
            return run.inertia < best.inertia and not self._same_clustering(run, best, group)

        tell = None if keeper is None else keeper.note
        restarts = Restarts(at, self._n_init, seed=seed, solve=solve, better=better, tell=tell)
        in_turn = bool(self.verbose) or callable(self.init) or group.size > 1
        threads, together = (1, 1) if in_turn else way.side_by_side(self.n_clusters)
        best = restarts.run(points.device, threads, together)

        distinct = len(_used(best.labels, group, self.n_clusters))
        if distinct < self.n_clusters:
            warn(
                f"Number of distinct clusters ({distinct}) found smaller than "
                f"n_clusters ({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
            )
        self._set_fitted(way, best, dtype)
        return self

    def fit_batches(self, batches: Iterable[Any]) -> Self:
        """Find the clusters of the rows of all batches, which may be larger than memory.

        Parameters
        ----------
        batches : iterable of array-like of shape (m, n_features)
            A list, or an object whose ``__iter__`` starts again and yields the same arrays: it is
            iterated once for each pass over the rows.

        Returns
        -------
        KMeans
            The fitted estimator itself, the same as after `fit` on the concatenated batches.

        Raises
        ------
        DatasetError
            If `batches` can be iterated only once, as a generator can, or changes.

        Examples
        --------
        >>> batches = [np.array([[0.0], [1.0]]), np.array([[10.0]])]
        >>> KMeans(2, random_state=0).fit_batches(batches).labels_
        array([0, 0, 1], dtype=int32)
        """
        return self.fit(Batches(batches))

    def _starts(
        self,
        way: Way,
        at: Standing,
        init: Any,
        random_state: np.random.RandomState,
        position: Callable[[], Any],
        mean: Any,
        project: Callable[[Float64], Float64] | None,
    ) -> Callable[[int], tuple[Start, Any]]:
        """What gives the start of each restart, in order, and the source's position after it."""
        points, k = way.points, self.n_clusters
        plus_plus = isinstance(init, str) and init == "k-means++"

        def first(centers: Float64, labels: Any) -> State:
            if project is not None:
                return State.first(project(centers))
            return State.first(centers, labels)

        def begin(source: Source) -> State:
            with points.stage("seeding"):
                return first(*self._seed(way, init, k, source, mean))

        ready: dict[int, tuple[Start, Any]] = {}
        if at.state is not None:
            ready[at.restart] = at.state, position()
        left = range(at.restart + len(ready), self._n_init)
        if plus_plus and way.seeds_together(k, len(left)):
            drawn = [(Draws(random_state, k), position()) for _ in left]
            with points.stage("seeding"):
                found = way.seed(k, [source for source, _ in drawn], default_trials(k))
            for restart, (_, place), (rows, labels) in zip(left, drawn, found, strict=True):
                ready[restart] = first(points.pick(rows), labels), place

        def seed(restart: int) -> tuple[Start, Any]:
            if restart in ready:
                return ready.pop(restart)
            # Only drawn here: as many can be seeded at a time as iterate.
            start = partial(begin, Draws(random_state, k)) if plus_plus else begin(random_state)
            return start, position()

        return seed

    def _points(
        self,
        X: Any,
        device: Device,
        choice: Choice,
        weights: Float64 | None,
        group: Group,
        stage: Stage,
    ) -> Points:
        """The rows, held as far as memory goes."""
        on_device, weighted = choice.name == "mlx", weights is not None
        chosen = plan(X, self.n_clusters, device, self.memory, on_device, weighted)
        rows = X
        if is_source(X):
            rows = X[:] if chosen.keep else X
        elif not chosen.keep and isinstance(X, np.memmap):
            # Pages of a map that were read would stay, and count.
            rows = from_memmap(X) or X
        try:
            measured = self._metric.rows(rows, chosen.keep)
            return Points(measured, device, weights, group, chosen.keep, chosen.spare, stage)
        except ValueError:
            if is_source(X):
                check_finite(X)  # says where
            raise

    def to_sklearn(self) -> cluster.KMeans:
        """A fitted :class:`sklearn.cluster.KMeans` that predicts the same.

        Returns
        -------
        sklearn.cluster.KMeans
            With copies of the parameters and fitted attributes. After ``metric="cosine"`` it still
            predicts the same, because the nearest unit vector is the one at the smallest angle, but
            its `transform` and `score` are Euclidean.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> X = np.array([[0.0], [1.0], [10.0]])
        >>> KMeans(2, random_state=0).fit(X).to_sklearn().predict(X)
        array([0, 0, 1], dtype=int32)
        """
        check_is_fitted(self)
        parameters = {name: getattr(self, name) for name in cluster.KMeans().get_params()}
        if self.algorithm == "auto":
            parameters["algorithm"] = "lloyd"
        if not isinstance(self.init, str) and not callable(self.init):
            parameters["init"] = np.array(as_numpy(self.init))
        result = cluster.KMeans(**parameters)
        _copy_attributes(self, result)
        # What fit would have found out; predict wants to know.
        result._n_threads = _openmp_effective_n_threads()
        return result

    @classmethod
    def from_sklearn(cls, estimator: cluster.KMeans, *, device: str = "auto") -> Self:
        """The same as a fitted :class:`sklearn.cluster.KMeans`, which it predicts the same as.

        Parameters
        ----------
        estimator : sklearn.cluster.KMeans
            Fitted.
        device : {"auto", "gpu", "cpu"}, default="auto"
            Where to compute from now on.

        Returns
        -------
        KMeans
            With copies of the parameters and fitted attributes.

        Raises
        ------
        TypeError
            If the estimator is anything but a :class:`sklearn.cluster.KMeans`.
        sklearn.exceptions.NotFittedError
            If it is not fitted.
        """
        if not isinstance(estimator, cluster.KMeans):
            raise TypeError(
                f"from_sklearn takes a sklearn.cluster.KMeans, not a {type(estimator).__name__}."
            )
        check_is_fitted(estimator)
        result = cls(**estimator.get_params(deep=False), device=device)
        _copy_attributes(estimator, result)
        result.n_rechecked_ = 0
        result.device_, result.way_ = "cpu", "fitted by scikit-learn"
        return result

    def _shared(
        self, group: Group, X: Any, init: Any, weights: Float64 | None
    ) -> np.random.RandomState:
        """Source of the draws, after all ranks were found to be at the same fit."""
        random_state = check_random_state(self.random_state)
        if group.size == 1:
            return random_state
        if callable(init):
            raise ValueError(
                "a callable init sees the rows of one rank only: give centers, "
                "'k-means++' or 'random'."
            )
        names = set(self.get_params(deep=False)) - {"init", "random_state", "device", "verbose"}
        shared = {name: repr(getattr(self, name)) for name in sorted(names)}
        shared |= {
            "init": init if isinstance(init, str) else init.tolist(),
            "n_features": X.shape[1],
            "dtype": str(X.dtype),
            "sample_weight": "given" if weights is not None else "not given",
        }
        group.agree("The fit", shared)
        name, keys, *rest = random_state.get_state()
        keys, rest = group.broadcast(keys), group.broadcast(np.array(rest)).tolist()
        shared_state = np.random.RandomState()
        shared_state.set_state((name, keys, int(rest[0]), int(rest[1]), rest[2]))
        return shared_state

    def _same_clustering(self, a: Run, b: Run, group: Group) -> bool:
        """Whether two labelings agree up to the names of the clusters."""
        k = self.n_clusters
        pairs = _used(a.labels.astype(np.int64) * k + b.labels, group, k * k)
        return bool(len(pairs) == len(np.unique(pairs // k)) == len(np.unique(pairs % k)))

    def _set_fitted(self, way: Way, run: Run, dtype: Any) -> None:
        self.cluster_centers_ = run.centers.astype(dtype)
        self._n_features_out = self.n_clusters
        self.labels_ = run.labels.astype(np.int32)
        self.inertia_ = self._metric.cost(way.points.squared(run.inertia))
        self.n_iter_ = run.n_iter
        self.n_rechecked_ = run.rechecked
        self.device_, self.way_ = way.device, way.why

    def _checked_algorithm(self) -> str:
        if self.algorithm == "elkan" and self.n_clusters == 1:
            warn(
                "algorithm='elkan' doesn't make sense for a single cluster. Using 'lloyd' instead.",
                RuntimeWarning,
            )
            return "lloyd"
        return self.algorithm


def _copy_attributes(source: Any, target: Any) -> None:
    names = ("cluster_centers_", "labels_", "inertia_", "n_iter_", "n_features_in_")
    for name in (*names, "feature_names_in_", "_n_features_out", "_n_init"):
        if hasattr(source, name):
            setattr(target, name, copy(getattr(source, name)))


def _used(labels: npt.NDArray[Any], group: Group, end: int) -> npt.NDArray[Any]:
    """Labels, all below an end, that occur on any rank."""
    if end <= 2 * len(labels):  # to count them all takes less than to tell them apart
        return np.unique(group.gather(np.flatnonzero(np.bincount(labels))))
    return np.unique(group.gather(np.unique(labels).astype(np.intp)))
