"""The functions that scikit-learn offers beside its estimators."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.base import checked_weights
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.seeding.sampling import default_trials
from mnist_kmeans_mlx.engine.ways import choose
from mnist_kmeans_mlx.estimator import KMeans


@validate_params(  # type: ignore[untyped-decorator]
    {"sample_weight": ["array-like", None], "return_n_iter": ["boolean"]},
    prefer_skip_nested_validation=False,
)
def k_means(
    X: Any,
    n_clusters: int,
    *,
    sample_weight: Any = None,
    return_n_iter: bool = False,
    **parameters: Any,
) -> tuple[Any, ...]:
    """Cluster rows without an estimator, as :func:`sklearn.cluster.k_means` does.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows, as `KMeans.fit` takes them.
    n_clusters : int
        Number of clusters.
    sample_weight : array-like of shape (n_samples,), optional
        Weight of each row; all one if None.
    return_n_iter : bool, default=False
        Whether to return the number of iterations.
    **parameters
        Any other parameter of `KMeans`.

    Returns
    -------
    centroid : ndarray of shape (n_clusters, n_features)
        Centres.
    label : ndarray of shape (n_samples,), int32
        Cluster of each row.
    inertia : float
        Weighted sum of squared distances of the rows to their centres.
    best_n_iter : int
        Iterations of the best restart; only with `return_n_iter`.

    Examples
    --------
    >>> centroid, label, inertia = k_means([[1.0], [2.0], [9.0]], 2, random_state=0)
    >>> label, inertia
    (array([0, 0, 1], dtype=int32), 0.5)
    """
    kmeans = KMeans(n_clusters, **parameters).fit(X, sample_weight=sample_weight)
    found = kmeans.cluster_centers_, kmeans.labels_, kmeans.inertia_
    return (*found, kmeans.n_iter_) if return_n_iter else found


@validate_params(  # type: ignore[untyped-decorator]
    {
        "n_clusters": [Interval(Integral, 1, None, closed="left")],
        "sample_weight": ["array-like", None],
        "x_squared_norms": ["array-like", None],
        "random_state": ["random_state"],
        "n_local_trials": [Interval(Integral, 1, None, closed="left"), None],
        "device": [StrOptions({"auto", "gpu", "cpu"})],
    },
    prefer_skip_nested_validation=True,
)
def kmeans_plusplus(
    X: Any,
    n_clusters: int,
    *,
    sample_weight: Any = None,
    x_squared_norms: Any = None,
    random_state: int | np.random.RandomState | None = None,
    n_local_trials: int | None = None,
    device: str = "auto",
) -> tuple[npt.NDArray[Any], npt.NDArray[np.intp]]:
    """Choose rows to start from by greedy k-means++.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows: NumPy of any numeric dtype, `mx.array`, a data frame or a CSR matrix.
    n_clusters : int
        How many to choose.
    sample_weight : array-like of shape (n_samples,), optional
        Weight of each row; all one if None.
    x_squared_norms : array-like of shape (n_samples,), optional
        Ignored; accepted for compatibility with :func:`sklearn.cluster.kmeans_plusplus`.
    random_state : int, RandomState instance or None, default=None
        Source of the draws. The same integer chooses the same rows as scikit-learn does.
    n_local_trials : int, optional
        Candidates per step, of which the best is kept; ``2 + int(log(n_clusters))`` if None.
    device : {"auto", "gpu", "cpu"}, default="auto"
        Where to compute.

    Returns
    -------
    centers : ndarray of shape (n_clusters, n_features)
        The rows, in the dtype of `X`.
    indices : ndarray of int, shape (n_clusters,)
        Where they are in `X`.

    Raises
    ------
    ValueError
        If there are fewer rows than clusters.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.

    Examples
    --------
    >>> X = np.array([[1, 2], [1, 4], [1, 0], [10, 2], [10, 4], [10, 0]])
    >>> centers, indices = kmeans_plusplus(X, n_clusters=2, random_state=0)
    >>> indices
    array([3, 2])
    """
    rows = check_array(as_numpy(X), accept_sparse="csr")
    if rows.dtype.kind not in "biuf":
        raise TypeError(f"X holds {rows.dtype}, not real numbers.")
    n = rows.shape[0]
    if n < n_clusters:
        raise ValueError(f"n_samples={n} should be >= n_clusters={n_clusters}.")
    if x_squared_norms is not None:
        norms = check_array(as_numpy(x_squared_norms), ensure_2d=False)
        if len(norms) != n:
            raise ValueError(
                f"The length of x_squared_norms {len(norms)} should be equal to the length of "
                f"n_samples {n}."
            )
    points = Points(rows, devices.resolve(device), checked_weights(sample_weight, rows))
    draws = check_random_state(random_state)
    trials = n_local_trials or default_trials(n_clusters)
    ((indices, _),) = choose(points, n_clusters).seed(n_clusters, [draws], trials)
    return points.raw(indices, rows.dtype), indices
