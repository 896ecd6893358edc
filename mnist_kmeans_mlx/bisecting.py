"""BisectingKMeans: clusters from splitting one cluster in two, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.base import (
    BaseKMeans,
    all_or_nothing,
    blocks,
    center_dtype,
    checked_inertia,
    checked_weights,
    on_threads,
)
from mnist_kmeans_mlx.engine.lloyd import Run, State, lloyd
from mnist_kmeans_mlx.engine.means import means
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Index, Labels, Points
from mnist_kmeans_mlx.engine.ways import Way, choose
from mnist_kmeans_mlx.memory import held
from mnist_kmeans_mlx.progress import announce_end, announcer


class BisectingKMeans(BaseKMeans):
    """K-means by splitting clusters in two, with scikit-learn's results.

    Parameters, attributes, seeds and stopping rule are those of
    :class:`sklearn.cluster.BisectingKMeans`. `device`, `device_` and `n_rechecked_` are
    additional.

    Parameters
    ----------
    n_clusters : int, default=8
        Number of clusters.
    init : {"k-means++", "random"} or callable, default="random"
        Where the two centres of a split start: greedy k-means++, random rows of the cluster, or
        what ``init(X, 2, random_state=...)`` returns for its rows, which are given minus the mean
        of all rows.
    n_init : int, default=1
        Number of tries per split, of which the one with the lowest inertia is kept.
    random_state : int, RandomState instance or None, default=None
        Source of the draws. The same integer draws the same seeds as scikit-learn does.
    max_iter : int, default=300
        Most iterations of one try.
    verbose : int, default=0
        Print the progress of each split.
    tol : float, default=1e-4
        A try ends when the centres' summed squared shift is at most this, in the units of the rows
        squared.
    copy_x : bool, default=True
        Has no effect: the rows given are never changed.
    algorithm : {"lloyd", "elkan", "auto"}, default="auto"
        How the nearest centres are found, as in `KMeans`. Does not change the result.
    bisecting_strategy : {"biggest_inertia", "largest_cluster"}, default="biggest_inertia"
        Which cluster to split next: that with the largest sum of squared distances, or that with
        the most rows. Only clusters of two rows and more are split.
    device : {"auto", "gpu", "cpu"}, default="auto"
        Where to compute. "auto" takes Metal, then CUDA, then the CPU.

    Attributes
    ----------
    cluster_centers_ : ndarray of shape (n_clusters, n_features)
        Centres, float32 if `X` is and float64 otherwise.
    labels_ : ndarray of shape (n_samples,), int32
        Cluster of each row, found by going to the nearer centre at each split.
    inertia_ : float
        Weighted sum of squared distances of the rows to the centres of their clusters.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the features, where `X` has string names.
    device_ : {"gpu", "cpu"}
        Where `fit` ran.
    n_rechecked_ : int
        Rows that float64 had to decide, summed over the iterations of the tries that were kept.

    Notes
    -----
    With a single cluster and weights, the centre is the weighted mean; scikit-learn's is not.

    References
    ----------
    M. Steinbach, G. Karypis and V. Kumar, *A comparison of document clustering techniques*, KDD
    Workshop on Text Mining 2000.

    Examples
    --------
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import BisectingKMeans
    >>> X = np.array([[1, 1], [2, 1], [3, 1], [10, 0], [10, 1], [10, 2], [10, 8], [10, 9]])
    >>> kmeans = BisectingKMeans(n_clusters=3, random_state=0).fit(X)
    >>> len(set(kmeans.labels_[:3])), len(set(kmeans.labels_))
    (1, 3)
    """

    _answering = (*BaseKMeans._answering, "_node_centers", "_node_children", "_node_labels")

    _parameter_constraints: dict[str, list[Any]] = {  # noqa: RUF012 (scikit-learn's protocol)
        **BaseKMeans._parameter_constraints,
        "init": [StrOptions({"k-means++", "random"}), callable],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "copy_x": ["boolean"],
        "algorithm": [StrOptions({"auto", "lloyd", "elkan"})],
        "bisecting_strategy": [StrOptions({"biggest_inertia", "largest_cluster"})],
    }

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "random",
        n_init: int = 1,
        random_state: int | np.random.RandomState | None = None,
        max_iter: int = 300,
        verbose: int = 0,
        tol: float = 1e-4,
        copy_x: bool = True,
        algorithm: str = "auto",
        bisecting_strategy: str = "biggest_inertia",
        device: str = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.random_state = random_state
        self.max_iter = max_iter
        self.verbose = verbose
        self.tol = tol
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.bisecting_strategy = bisecting_strategy
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    @all_or_nothing
    @on_threads
    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Split the rows of `X` until there are `n_clusters` clusters.

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
        BisectingKMeans
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If `X` is empty, not numeric, not finite or has fewer rows than clusters, or if a
            parameter is out of range.
        DeviceError
            If ``device="gpu"`` and MLX finds no GPU.
        MemoryError
            If the machine cannot hold the rows a second time, or the centres.
        """
        self._alone()
        device = devices.resolve(self.device)
        X = held(self._validate_rows(X, reset=True))
        self._check_number(X.shape[0])
        # All rows in float32, and those of the cluster that is split.
        self._check_memory(X, 2, X.shape[0], 8)
        random_state = check_random_state(self.random_state)
        points = Points(X, device, checked_weights(sample_weight, X))
        way = choose(points, 2, self.algorithm)
        checked_inertia(points.squared(way.norm_sq))  # which is no less
        mean = self._mean_for(self.init, X)
        self.n_rechecked_ = 0

        nodes = [_root(way, center_dtype(X))]
        leaves = [0]
        for _ in range(self.n_clusters - 1):
            place = self._next_to_split([nodes[leaf] for leaf in leaves])
            node = nodes[leaves[place]]
            node.children = len(nodes), len(nodes) + 1
            leaves[place : place + 1] = node.children
            nodes += self._split(way, node.rows, random_state, mean)

        self.cluster_centers_ = np.stack([nodes[leaf].center for leaf in leaves])
        self._n_features_out = self.n_clusters
        self.labels_ = np.empty(points.n, dtype=np.int32)
        for label, leaf in enumerate(leaves):
            self.labels_[nodes[leaf].rows] = label
        self.inertia_ = points.squared(sum(nodes[leaf].inertia for leaf in leaves))
        self.device_ = device.name
        # For predict: parents come before their children, leaves have none but a label.
        self._node_centers = np.stack([node.center for node in nodes])
        self._node_children = np.array([node.children for node in nodes])
        self._node_labels = np.full(len(nodes), -1)
        self._node_labels[leaves] = np.arange(len(leaves))
        return self

    def predict(self, X: Any) -> npt.NDArray[np.int32]:
        """Cluster of each row: where it arrives by going to the nearer centre at each split.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,), int32
            Indices of clusters. A row between two clusters may lie nearer to a centre that it did
            not come by.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If `X` does not have the features seen in `fit`.
        """
        check_is_fitted(self)
        X = self._validate_rows(X, reset=False)
        device = devices.resolve(self.device)
        centers = self._node_centers.astype(np.float64)
        labels = np.empty(X.shape[0], dtype=np.int32)
        for part in blocks(X):
            arrived = {0: np.arange(part.start, part.stop)}
            for node, children in enumerate(self._node_children):
                index = arrived.pop(node)
                if children[0] < 0:
                    labels[index] = self._node_labels[node]
                    continue
                side = index[:0]
                if len(index):
                    side = Nearest(centers[children], device).labels(X[index])
                for number, child in enumerate(children):
                    arrived[child] = index[side == number]
        return labels

    def _check_state(self) -> None:
        """Refuse a tree in which `predict` would lose its way."""
        centers, children, labels = self._node_centers, self._node_children, self._node_labels
        n_nodes, n_clusters = 2 * len(self.cluster_centers_) - 1, len(self.cluster_centers_)
        sound = (
            (centers.shape, centers.dtype.kind) == ((n_nodes, self.n_features_in_), "f")
            and (children.shape, children.dtype.kind) == ((n_nodes, 2), "i")
            and (labels.shape, labels.dtype.kind) == ((n_nodes,), "i")
            and np.isfinite(centers).all()
        )
        if sound:
            split = children[:, 0] >= 0
            # Every node but the root is the child of one that comes before it.
            sound = (
                np.array_equal(np.sort(children[split], axis=None), np.arange(1, n_nodes))
                and (children[split] > np.flatnonzero(split)[:, None]).all()
                and np.array_equal(np.sort(labels[~split]), np.arange(n_clusters))
            )
        if not sound:
            raise ValueError("its tree of clusters cannot be")

    def _next_to_split(self, leaves: list[_Node]) -> int:
        """Place of the leaf that `bisecting_strategy` names; of equal ones the first."""

        def rank(place: int) -> tuple[bool, float]:
            leaf = leaves[place]
            by_inertia = self.bisecting_strategy == "biggest_inertia"
            return len(leaf.rows) > 1, leaf.inertia if by_inertia else len(leaf.rows)

        return max(range(len(leaves)), key=rank)

    def _split(
        self, way: Way, rows: Index, random_state: np.random.RandomState, mean: Any
    ) -> list[_Node]:
        """The two parts of some rows, from the best of `n_init` tries."""
        whole = points = way.points
        if len(rows) < points.n:
            weights = None if points.weights is None else points.weights[rows]
            points = Points(points.rows[rows], points.device, weights, spare=points.spare)
            way = choose(points, 2, self.algorithm)
        dtype, tol = center_dtype(points.rows), self.tol * points.scale * points.scale
        best: Run | None = None
        for _ in range(int(self.n_init)):
            centers, labels = self._seed(way, self.init, 2, random_state, mean)
            run = lloyd(
                way,
                State.first(centers, labels),
                max_iter=self.max_iter,
                tol=tol,
                dtype=dtype,
                observe=announcer(points, self._metric.cost) if self.verbose else None,
            )
            if self.verbose:
                announce_end(points, run, tol)
            # Scikit-learn's margin, so that rounding does not choose.
            if best is None or run.inertia < best.inertia * (1 - 1e-6):
                best = run
        assert best is not None
        if self.verbose:
            print(f"New centroids from bisection: {best.centers}")
        self.n_rechecked_ += best.rechecked
        unit = (whole.scale / points.scale) ** 2
        return _nodes(points, rows, best.labels, best.centers.astype(dtype), unit)


@dataclass
class _Node:
    """A cluster, which may have been split in two; its inertia is in the frame of all rows."""

    center: npt.NDArray[Any]
    rows: Index
    inertia: float
    children: tuple[int, int] = (-1, -1)


def _root(way: Way, dtype: Any) -> _Node:
    """All rows and their mean."""
    points, clusters = way.points, way.clusters(1)
    labels = np.zeros(points.n, dtype=np.int32)
    clusters.begin(labels)
    mean = means(points, clusters, np.zeros((1, points.d)))
    return _nodes(points, np.arange(points.n), labels, mean.astype(dtype))[0]


def _nodes(
    points: Points, rows: Index, labels: Labels, centers: npt.NDArray[Any], unit: float = 1.0
) -> list[_Node]:
    """Clusters of `points`, whose places among all rows `rows` tells, and what inertia counts."""
    costs = points.distances_sq(None, centers.astype(np.float64), labels) * unit
    if points.weights is not None:
        costs *= points.weights
    inertias = np.bincount(labels, weights=costs, minlength=len(centers))
    return [
        _Node(center, rows[labels == label], float(inertias[label]))
        for label, center in enumerate(centers)
    ]
