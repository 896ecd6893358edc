"""BisectingKMeans beside scikit-learn's."""

import numpy as np
import oracle
import pytest
from sklearn.cluster import BisectingKMeans as SklearnBisectingKMeans

from mnist_kmeans_mlx import BisectingKMeans


def assert_same(ours, theirs):
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-9)
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.labels_.dtype == theirs.labels_.dtype


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("strategy", ["biggest_inertia", "largest_cluster"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"n_clusters": 2},
        {"n_clusters": 9},
        {"n_clusters": 9, "init": "k-means++", "algorithm": "elkan"},
        {"n_clusters": 9, "n_init": 3},
        {"n_clusters": 30, "tol": 0.1, "max_iter": 3},
        {"init": lambda X, k, random_state: X[random_state.permutation(len(X))[:k]]},
    ],
    ids=str,
)
def test_gives_what_sklearn_gives(parameters, strategy, weighted, device):
    rows = oracle.make_rows("normal", 400, 5, seed=0)
    new = 3 * oracle.make_rows("normal", 300, 5, seed=1)
    weights = np.random.default_rng(0).integers(1, 4, 400) if weighted else None
    parameters = {**parameters, "bisecting_strategy": strategy, "random_state": 2}
    ours = BisectingKMeans(device=device, **parameters).fit(rows, sample_weight=weights)
    theirs = SklearnBisectingKMeans(**parameters).fit(rows, sample_weight=weights)
    assert_same(ours, theirs)
    np.testing.assert_array_equal(ours.predict(rows), ours.labels_)
    np.testing.assert_array_equal(ours.predict(new), theirs.predict(new))
    assert ours.score(new) == pytest.approx(theirs.score(new), rel=1e-9)
    assert ours.device_ == device


@pytest.mark.slow
def test_gives_what_sklearn_gives_on_mnist(mnist, device):
    pixels = mnist.x_train[::20].reshape(3000, -1)
    ours = BisectingKMeans(10, random_state=0, device=device).fit(pixels)
    theirs = SklearnBisectingKMeans(10, random_state=0).fit(pixels.astype(np.float64))
    assert_same(ours, theirs)


def test_one_cluster_is_the_weighted_mean(device):
    # Not so in scikit-learn.
    rows = oracle.make_rows("normal", 100, 3, seed=0)
    weights = np.random.default_rng(0).integers(1, 4, 100)
    weighted = BisectingKMeans(1, device=device).fit(rows, sample_weight=weights)
    repeated = BisectingKMeans(1, device=device).fit(np.repeat(rows, weights, axis=0))
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_)
    assert set(weighted.predict(rows)) == {0}


def test_duplicates_are_split_before_single_rows(device):
    rows = np.array([[0.0], [1.0], [1.0], [1.0]])
    kmeans = BisectingKMeans(3, random_state=0, device=device).fit(rows)
    assert kmeans.inertia_ == 0
    np.testing.assert_array_equal(kmeans.predict(rows), kmeans.labels_)


def test_a_long_chain_of_splits_needs_no_stack(device):
    # One row after the other comes off: a tree as deep as it has leaves.
    rows = (2.0 ** np.arange(60))[:, None]
    kmeans = BisectingKMeans(50, init="k-means++", random_state=0, device=device).fit(rows)
    np.testing.assert_array_equal(kmeans.predict(rows), kmeans.labels_)
    assert len(set(kmeans.labels_)) == 50


def test_verbose_tells_of_each_split(capsys, device):
    rows = oracle.make_rows("normal", 50, 3, seed=0)
    BisectingKMeans(3, random_state=0, verbose=1, device=device).fit(rows)
    printed = capsys.readouterr().out
    assert printed.count("New centroids from bisection:") == 2
    assert printed.count("Converged at iteration") == 2


@pytest.mark.parametrize("parameters", [{"init": np.eye(2)}, {"n_init": "auto"}], ids=str)
def test_bad_parameters_are_named(parameters):
    with pytest.raises(ValueError, match="parameter of BisectingKMeans must be"):
        BisectingKMeans(2, **parameters).fit(np.eye(2))
