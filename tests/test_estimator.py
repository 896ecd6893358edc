"""The contract with scikit-learn."""

import mlx.core as mx
import numpy as np
import oracle
import pandas as pd
import pytest
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._test_common.instance_generator import _get_expected_failed_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from mnist_kmeans_mlx import KMeans


@parametrize_with_checks(
    [KMeans(n_clusters=3, max_iter=20)],
    # What scikit-learn expects to fail for its own KMeans: weights draw other random numbers.
    expected_failed_checks=lambda _: _get_expected_failed_checks(SklearnKMeans()),
)
def test_sklearn_checks(estimator, check):
    check(estimator)


def assert_same(ours, theirs, share=1.0):
    assert np.mean(ours.labels_ == theirs.labels_) >= share
    assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-6)
    assert ours.labels_.dtype == theirs.labels_.dtype
    assert ours.cluster_centers_.dtype == theirs.cluster_centers_.dtype


@pytest.mark.parametrize("algorithm", ["auto", "lloyd", "elkan"])
@pytest.mark.parametrize(
    "parameters",
    [
        {"n_clusters": 1},
        {"n_clusters": 7},
        {"n_clusters": 12, "n_init": 4},
        {"n_clusters": 9, "init": "random"},
        {"n_clusters": 9, "tol": 0.0},
        {"n_clusters": 9, "max_iter": 2},
        {"n_clusters": 400},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:algorithm='elkan' doesn't make sense:RuntimeWarning")
def test_gives_what_sklearn_gives(parameters, algorithm, device):
    rows = oracle.make_rows("normal", 400, 5, seed=0)
    ours = KMeans(random_state=3, algorithm=algorithm, device=device, **parameters).fit(rows)
    theirs = SklearnKMeans(random_state=3, **parameters).fit(rows)
    assert_same(ours, theirs)
    np.testing.assert_array_equal(ours.predict(rows), ours.labels_)
    assert ours.score(rows) == pytest.approx(theirs.score(rows), abs=1e-9)
    np.testing.assert_allclose(ours.transform(rows), theirs.transform(rows), atol=1e-6)
    assert ours.device_ == device


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [10, 15, 20, 64, 100])
@pytest.mark.parametrize("narrow", [False, True], ids=["scaled", "uint8"])
def test_gives_what_sklearn_gives_on_mnist(n_clusters, narrow, mnist, device):
    pixels = mnist.x_train[::4].reshape(15000, -1)
    scaled = pixels / 255.0
    ours = KMeans(n_clusters, random_state=0, device=device).fit(pixels if narrow else scaled)
    theirs = SklearnKMeans(n_clusters, random_state=0).fit(scaled)
    if narrow:
        ours.inertia_ /= 255**2
        ours.cluster_centers_ /= 255
    assert_same(ours, theirs, share=0.999)


def test_given_centres_and_callables(device):
    rows = oracle.make_rows("offset", 300, 4, seed=1)

    def first(X, n_clusters, random_state):
        assert abs(X.mean()) < 1e-6
        return X[:n_clusters]

    theirs = SklearnKMeans(6, init=rows[:6]).fit(rows)
    for init in (rows[:6], rows[:6].tolist(), mx.array(rows[:6].astype(np.float32))):
        assert_same(KMeans(6, init=init, device=device).fit(rows), theirs)
    assert_same(KMeans(6, init=first, n_init=2, device=device).fit(rows), theirs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sample_weights(dtype, device):
    rng = np.random.default_rng(0)
    rows = oracle.make_rows("normal", 300, 4, seed=2).astype(dtype)
    weights = rng.integers(0, 4, 300)
    start = rows[np.flatnonzero(weights)[:5]]
    weighted = KMeans(5, init=start, device=device).fit(rows, sample_weight=weights)
    repeated = KMeans(5, init=start, device=device).fit(np.repeat(rows, weights, axis=0))
    np.testing.assert_allclose(weighted.cluster_centers_, repeated.cluster_centers_, rtol=1e-5)
    assert weighted.inertia_ == pytest.approx(repeated.inertia_)
    assert weighted.score(rows, sample_weight=weights) == pytest.approx(-weighted.inertia_)


def test_rows_of_every_kind(device):
    rows = oracle.make_rows("pixels", 200, 6, seed=0)
    expected = KMeans(5, random_state=0, device=device).fit(rows)
    for given in (
        rows.astype(np.uint8),
        rows.astype(np.int64),
        rows.astype(np.float16),
        rows.astype(np.float32),
        np.asfortranarray(rows),
        rows.tolist(),
        mx.array(rows.astype(np.uint8)),
        mx.array(rows.astype(np.float32)).astype(mx.bfloat16),
        pd.DataFrame(rows),
    ):
        found = KMeans(5, random_state=0, device=device).fit(given)
        np.testing.assert_array_equal(found.labels_, expected.labels_)
        np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, rtol=1e-6)
        np.testing.assert_array_equal(found.predict(given), found.labels_)


def test_inputs_are_not_changed(device):
    rows = oracle.make_rows("offset", 100, 3, seed=0)
    before = rows.copy()
    rows.flags.writeable = False
    KMeans(4, random_state=0, copy_x=False, device=device).fit(rows).transform(rows)
    np.testing.assert_array_equal(rows, before)


def test_centres_are_their_own_nearest(device):
    for dtype in (np.float32, np.float64):
        rows = oracle.make_rows("offset", 300, 8, seed=0).astype(dtype)
        kmeans = KMeans(20, random_state=0, device=device).fit(rows)
        np.testing.assert_array_equal(kmeans.predict(kmeans.cluster_centers_), np.arange(20))
        assert (np.diag(kmeans.transform(kmeans.cluster_centers_)) == 0).all()


def test_verbose_prints_what_sklearn_prints(capsys, device):
    rows = oracle.make_rows("normal", 200, 3, seed=0)
    for parameters in ({"tol": 0}, {"tol": 0.05}, {"max_iter": 2}):
        printed = []
        for make in (lambda **p: KMeans(device=device, **p), SklearnKMeans):
            make(n_clusters=4, random_state=0, verbose=1, **parameters).fit(rows)
            printed.append(capsys.readouterr().out.splitlines())
        words = [[line.translate(str.maketrans("", "", "0123456789.e-")) for line in lines]
                 for lines in printed]  # fmt: skip
        assert words[0] == words[1]


def test_fewer_distinct_rows_than_clusters(device):
    rows = np.repeat([[0.0, 1.0], [5.0, 5.0]], 10, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\) .* n_clusters \(3\)"):
        KMeans(3, random_state=0, device=device).fit(rows)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_clusters": 0}, "The 'n_clusters' parameter of KMeans must be an int in the range"),
        ({"n_clusters": 21}, "n_samples=20 should be >= n_clusters=21"),
        ({"n_init": 0}, "The 'n_init' parameter"),
        ({"tol": -1}, "The 'tol' parameter"),
        ({"init": "best"}, "The 'init' parameter"),
        ({"algorithm": "full"}, "The 'algorithm' parameter"),
        ({"device": "tpu"}, "The 'device' parameter"),
        ({"init": np.zeros((3, 2))}, r"\(3, 2\) does not match the number of clusters 8"),
        ({"init": np.zeros((8, 3))}, r"\(8, 3\) does not match the number of features"),
        ({"init": lambda X, k, random_state: X[:2]}, "does not match the number of clusters 8"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(parameters, sentence):
    rows = oracle.make_rows("normal", 20, 2, seed=0)
    with pytest.raises(ValueError, match=sentence):
        KMeans(**parameters).fit(rows)


def test_several_inits_of_given_centres_warn(device):
    rows = oracle.make_rows("normal", 20, 2, seed=0)
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans"):
        KMeans(2, init=rows[:2], n_init=3, device=device).fit(rows)


def test_an_unfitted_estimator_says_so():
    with pytest.raises(NotFittedError):
        KMeans().predict([[1.0]])
