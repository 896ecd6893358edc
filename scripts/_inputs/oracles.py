"""Oracles besides scikit-learn, with its interface."""

import numpy as np
from scipy import sparse
from sklearn import cluster
from sklearn.preprocessing import normalize


class Spherical:
    """Spherical k-means: every centre is the normalised sum of its members."""

    def __init__(self, **parameters):
        self.parameters = parameters

    def fit(self, X, sample_weight=None):
        # What scikit-learn refuses is refused here.
        self.euclidean = cluster.KMeans(**self.parameters).fit(X, sample_weight=sample_weight)
        rows = unit(X)
        weights = np.ones(len(rows)) if sample_weight is None else sample_weight
        k = self.parameters["n_clusters"]
        seed = self.parameters["random_state"]
        centers = cluster.kmeans_plusplus(rows, k, sample_weight=weights, random_state=seed)[0]
        for _ in range(300):
            labels = (rows @ centers.T).argmax(axis=1)
            sums = np.zeros_like(centers)
            np.add.at(sums, labels, rows * np.asarray(weights)[:, None])
            # Where members cancel out, any direction will do; where none weighs, the heaviest's.
            sums[~sums.any(axis=1), 0] = 1
            shares = np.bincount(labels, weights, k)
            sums[shares == 0] = sums[shares.argmax()]
            before, centers = centers, normalize(sums)
            if np.array_equal(before, centers):
                break
        self.cluster_centers_ = centers
        self.labels_ = self.predict(X)
        self.inertia_ = -self.score(X, sample_weight=sample_weight)
        return self

    def fit_predict(self, X, sample_weight=None):
        return self.fit(X, sample_weight=sample_weight).labels_

    def fit_transform(self, X, sample_weight=None):
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def transform(self, X):
        self.euclidean.predict(X)
        rows = unit(X)
        # Half the squared distance: 1 - cos, but for a row without a direction.
        return (1 + np.square(rows).sum(axis=1, keepdims=True)) / 2 - rows @ self.cluster_centers_.T

    def predict(self, X):
        return self.transform(X).argmin(axis=1).astype(np.int32)

    def score(self, X, sample_weight=None):
        return -np.sum(
            self.transform(X).min(axis=1) * (1 if sample_weight is None else sample_weight)
        )


def unit(X):
    X = np.asarray(X.toarray() if sparse.issparse(X) else X, dtype=np.float64)
    return normalize(X / np.maximum(np.abs(X).max(axis=1, keepdims=True), 5e-324))


class Majority:
    """Every cluster stands for the class that has most weight in it."""

    def __init__(self, clusterer):
        self.estimator_ = clusterer

    def fit(self, X, y, sample_weight=None):
        self.estimator_.fit(X, sample_weight=sample_weight)
        counts = np.zeros((self.estimator_.n_clusters, 2))
        np.add.at(
            counts, (self.estimator_.labels_, y), 1 if sample_weight is None else sample_weight
        )
        counts[~counts.any(axis=1)] = counts.sum(axis=0)
        self.cluster_shares_ = counts / counts.sum(axis=1, keepdims=True)
        return self

    def predict(self, X):
        return self.cluster_shares_.argmax(axis=1)[self.estimator_.predict(X)]

    def predict_proba(self, X):
        return self.cluster_shares_[self.estimator_.predict(X)]


class Classified:
    """A classifier whose classes are made up, with the interface of a clusterer."""

    def __init__(self, model):
        self.model = model

    def fit(self, X, sample_weight=None):
        n = X.shape[0] if getattr(X, "shape", ()) else len(X)
        self.model.fit(X, np.arange(n) % 3 // 2, sample_weight=sample_weight)
        self.labels_ = self.model.estimator_.labels_
        self.cluster_centers_ = self.model.estimator_.cluster_centers_
        self.inertia_ = self.model.estimator_.inertia_
        return self

    def predict(self, X):
        return self.model.predict(X)

    def predict_proba(self, X):
        return self.model.predict_proba(X)
