"""From clusters to classes: name each cluster by its most frequent class."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.base import all_or_nothing, checked_weights
from mnist_kmeans_mlx.estimator import KMeans


def infer_cluster_labels(kmeans: Any, y: Any) -> dict[int, list[int]]:
    """Name each cluster by its most frequent class.

    Parameters
    ----------
    kmeans : fitted estimator
        Anything with ``n_clusters`` and ``labels_`` of shape (n_samples,).
    y : array-like of shape (n_samples,)
        True class of each row, a non-negative integer.

    Returns
    -------
    dict of int to list of int
        For each class, in ascending order, the clusters it is most frequent in. Of equally
        frequent classes the smallest is taken; a cluster with no members stands for none.

    Raises
    ------
    ValueError
        If `y` is not as long as ``labels_`` or holds anything but non-negative integers.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> clusters = SimpleNamespace(n_clusters=4, labels_=np.array([0, 0, 0, 1, 1, 2]))
    >>> infer_cluster_labels(clusters, [7, 7, 3, 3, 7, 7])
    {3: [1], 7: [0, 2]}
    """
    shares = _class_counts(kmeans, y)
    named: dict[int, list[int]] = {}
    for cluster in np.flatnonzero(shares.sum(axis=1)):
        named.setdefault(int(np.argmax(shares[cluster])), []).append(int(cluster))
    return dict(sorted(named.items()))


def _class_counts(kmeans: Any, y: Any) -> npt.NDArray[np.intp]:
    """How many members of each cluster (rows) have each class (columns)."""
    truth, clusters = np.asarray(as_numpy(y)), np.asarray(as_numpy(kmeans.labels_))
    if truth.shape != clusters.shape:
        raise ValueError(
            f"y has shape {truth.shape} but the estimator was fitted on {len(clusters)} rows: pass "
            "one label per row that was fitted."
        )
    if truth.dtype.kind not in "biu" or (truth.size and truth.min() < 0):
        raise ValueError(
            f"y must hold non-negative integers, not {truth.dtype}: encode other labels with "
            "sklearn.preprocessing.LabelEncoder, or use ClusterClassifier."
        )
    counts = np.zeros((kmeans.n_clusters, int(truth.max(initial=0)) + 1), dtype=np.intp)
    np.add.at(counts, (clusters, truth.astype(np.intp)), 1)
    return counts


def infer_data_labels(
    clusters: Any, cluster_labels: dict[int, list[int]]
) -> npt.NDArray[np.integer[Any]]:
    """Class of each row, from the cluster it belongs to.

    Parameters
    ----------
    clusters : array-like of int, shape (n_samples,)
        Cluster of each row, as ``predict`` or ``labels_`` give it.
    cluster_labels : dict of int to list of int
        For each class its clusters, as `infer_cluster_labels` gives them.

    Returns
    -------
    ndarray of shape (n_samples,)
        uint8 where all classes fit, else int64. A row of a cluster that stands for no class gets
        class 0, as in a vector that starts with zeros.

    Raises
    ------
    ValueError
        If `clusters` holds anything but non-negative integers.

    Examples
    --------
    >>> infer_data_labels([1, 0, 2], {3: [1], 7: [0, 2]})
    array([3, 7, 7], dtype=uint8)
    """
    index = np.asarray(as_numpy(clusters))
    if index.size and (index.dtype.kind not in "biu" or index.min() < 0):
        raise ValueError(f"clusters must be non-negative integers, not {index.dtype}.")
    index = index.astype(np.intp)
    known = [c for members in cluster_labels.values() for c in members]
    size = max([*known, int(index.max(initial=0))], default=0) + 1
    largest = max(cluster_labels, default=0)
    table = np.zeros(size, dtype=np.uint8 if largest <= 255 else np.int64)
    for name, members in cluster_labels.items():
        table[members] = name
    labels: npt.NDArray[np.integer[Any]] = table[index]
    return labels


class ClusterClassifier(ClassifierMixin, BaseEstimator):
    """Classify by the most frequent class of the nearest cluster.

    Parameters
    ----------
    estimator : clusterer, default=None
        Anything with ``fit``, ``predict`` and ``labels_``; ``KMeans()`` if None.

    Attributes
    ----------
    estimator_ : clusterer
        The fitted clusterer.
    classes_ : ndarray of shape (n_classes,)
        Classes seen in `fit`.
    cluster_shares_ : ndarray of shape (n_clusters, n_classes)
        Share of each class in the weight of each cluster. A cluster with no members has the
        shares of the whole training set.
    n_features_in_ : int
        Number of features seen in `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> from mnist_kmeans_mlx import ClusterClassifier, KMeans
    >>> X = np.array([[0.0], [1.0], [10.0], [11.0]])
    >>> model = ClusterClassifier(KMeans(2, random_state=0)).fit(X, ["low", "low", "high", "high"])
    >>> model.predict([[2.0], [9.0]])
    array(['low', 'high'], dtype='<U4')
    """

    def __init__(self, estimator: Any = None) -> None:
        self.estimator = estimator

    @all_or_nothing
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Cluster the rows and count the classes in each cluster.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Class of each row.
        sample_weight : array-like of shape (n_samples,), optional
            Weight of each row, for the clusterer and for the shares; all one if None.

        Returns
        -------
        ClusterClassifier
            The fitted estimator itself.

        Raises
        ------
        ValueError
            If `X` or `y` are not valid, or `y` holds a continuous target.
        """
        estimator = KMeans() if self.estimator is None else self.estimator
        X = as_numpy(X)
        rows, y = validate_data(self, X, as_numpy(y), accept_sparse="csr", dtype=None)
        check_classification_targets(y)
        self.classes_, encoded = np.unique(y, return_inverse=True)
        weights, passed_on = checked_weights(sample_weight, rows), {}
        if weights is not None:
            passed_on = {"sample_weight": weights}
        self.estimator_ = clone(estimator).fit(X, **passed_on)
        clusters = np.asarray(self.estimator_.labels_)
        n_clusters = max(int(getattr(self.estimator_, "n_clusters", 0)), int(clusters.max()) + 1)
        counts = np.zeros((n_clusters, len(self.classes_)))
        np.add.at(counts, (clusters, encoded), 1 if weights is None else weights)
        counts[counts.sum(axis=1) == 0] = counts.sum(axis=0)
        self.cluster_shares_ = counts / counts.sum(axis=1, keepdims=True)
        return self

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Most frequent class of each row's cluster; of equally frequent ones the first.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Classes.
        """
        check_is_fitted(self)
        names = self.classes_[np.argmax(self.cluster_shares_, axis=1)]
        predicted: npt.NDArray[Any] = names[self._clusters(X)]
        return predicted

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Share of each class in each row's cluster.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            Shares, summing to one; columns in the order of ``classes_``.
        """
        check_is_fitted(self)
        shares: npt.NDArray[np.float64] = self.cluster_shares_[self._clusters(X)]
        return shares

    def _clusters(self, X: Any) -> Any:
        X = as_numpy(X)
        validate_data(self, X, reset=False, accept_sparse="csr", dtype=None)
        return self.estimator_.predict(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        # Clusters need not follow classes.
        tags.classifier_tags.poor_score = True
        return tags
