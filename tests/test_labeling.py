from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._test_common.instance_generator import _get_expected_failed_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from mnist_kmeans_mlx import ClusterClassifier, KMeans, infer_cluster_labels, infer_data_labels


def fitted(labels, n_clusters):
    return SimpleNamespace(labels_=np.array(labels), n_clusters=n_clusters)


def notebook_cluster_labels(kmeans, y):
    """The rule in words: for each cluster the class that most members have."""
    named = {}
    for cluster in range(kmeans.n_clusters):
        members = [int(c) for c, own in zip(y, kmeans.labels_, strict=True) if own == cluster]
        if members:
            best = min(set(members), key=lambda c: (-members.count(c), c))
            named.setdefault(best, []).append(cluster)
    return named


@pytest.mark.parametrize("seed", range(20))
def test_names_clusters_as_the_notebook_does(seed):
    rng = np.random.default_rng(seed)
    kmeans = fitted(rng.integers(0, 9, 40), 12)
    y = rng.integers(0, 5, 40)
    named = infer_cluster_labels(kmeans, y)
    assert named == notebook_cluster_labels(kmeans, y)
    predicted = infer_data_labels(kmeans.labels_, named)
    for cluster, label in zip(kmeans.labels_, predicted, strict=True):
        assert cluster in named[label]


def test_empty_single_and_tied_clusters():
    kmeans = fitted([0, 1, 1, 3, 3, 3, 3], 5)
    assert infer_cluster_labels(kmeans, [9, 4, 2, 6, 6, 1, 1]) == {1: [3], 2: [1], 9: [0]}


def test_data_labels():
    labels = infer_data_labels(np.array([2, 0, 1, 2]), {3: [0, 2], 300: [1]})
    np.testing.assert_array_equal(labels, [3, 3, 300, 3])
    assert infer_data_labels([0, 1], {5: [1]}).tolist() == [0, 5]
    assert infer_data_labels([], {5: [1]}).shape == (0,)
    assert infer_data_labels([1], {5: [1]}).dtype == np.uint8


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        ([1, 2], "was fitted on 3 rows: pass one label per row"),
        ([1, 2, -1], "non-negative integers"),
        (["a", "b", "c"], "LabelEncoder"),
        ([0.5, 1.0, 2.0], "non-negative integers"),
    ],
)
def test_refuses_labels_that_are_none(y, sentence):
    with pytest.raises(ValueError, match=sentence):
        infer_cluster_labels(fitted([0, 1, 1], 2), y)


def test_refuses_clusters_that_are_none():
    with pytest.raises(ValueError, match="non-negative integers"):
        infer_data_labels([-1, 0], {0: [0]})


@parametrize_with_checks(
    [ClusterClassifier(KMeans(n_clusters=3, random_state=0))],
    # Expected of KMeans itself: weights draw other random numbers.
    expected_failed_checks=lambda _: _get_expected_failed_checks(SklearnKMeans()),
)
def test_sklearn_checks(estimator, check):
    check(estimator)


def test_classifier_predicts_what_the_functions_infer(mnist):
    X, y = mnist.x_train[:3000].reshape(3000, -1), mnist.y_train[:3000]
    model = ClusterClassifier(KMeans(n_clusters=20, random_state=0)).fit(X, y)
    named = infer_cluster_labels(model.estimator_, y)
    clusters = model.estimator_.predict(X[:500])
    np.testing.assert_array_equal(model.predict(X[:500]), infer_data_labels(clusters, named))
    shares = model.predict_proba(X)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert model.score(X, y) == np.mean(model.classes_[shares.argmax(axis=1)] == y)


def test_classifier_in_a_pipeline_and_a_search():
    X, y = make_blobs(300, centers=4, random_state=0)
    pipeline = make_pipeline(StandardScaler(), ClusterClassifier(KMeans(random_state=0)))
    search = GridSearchCV(pipeline, {"clusterclassifier__estimator__n_clusters": [1, 8]}).fit(X, y)
    assert search.best_params_ == {"clusterclassifier__estimator__n_clusters": 8}
    assert search.best_score_ > 0.8


def test_classifier_weighs_rows():
    X, y = [[0.0], [0.0], [0.0], [9.0]], [0, 0, 1, 1]
    model = ClusterClassifier(KMeans(2, random_state=0)).fit(X, y, sample_weight=[1, 1, 6, 1])
    np.testing.assert_allclose(model.predict_proba([[0.0], [9.0]]), [[0.25, 0.75], [0, 1]])


def test_classifier_takes_other_clusterers():
    X, y = make_blobs(300, centers=4, random_state=0)
    names = np.array(["north", "east", "south", "west"])[y]
    model = ClusterClassifier(SklearnKMeans(8, random_state=0)).fit(X, names)
    assert model.score(X, names) > 0.8
