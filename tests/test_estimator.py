"""KMeans beside scikit-learn's."""

from functools import cache

import mlx.core as mx
import numpy as np
import oracle
import pytest
from doubles import taken_for_gpu
from scipy.sparse import csr_matrix
from sklearn import cluster
from sklearn.base import clone
from sklearn.cluster import KMeans as SklearnKMeans
from sklearn.cluster import MiniBatchKMeans as SklearnMiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.metrics.pairwise import cosine_distances

from mnist_kmeans_mlx import BisectingKMeans, KMeans, MiniBatchKMeans, kmeans_plusplus
from mnist_kmeans_mlx import device as devices


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


@pytest.fixture(scope="module")
def pixels(mnist):
    return mnist.x_train[::10].reshape(6000, -1)


@pytest.fixture(scope="module")
def reference(pixels):
    """scikit-learn's fit of the scaled pixels, once for all who ask."""

    @cache
    def fit(n_clusters):
        return SklearnKMeans(n_clusters, random_state=0).fit(pixels / 255.0)

    return fit


@pytest.mark.slow
@pytest.mark.parametrize("n_clusters", [20, 64])
@pytest.mark.parametrize("narrow", [False, True], ids=["scaled", "uint8"])
def test_gives_what_sklearn_gives_on_mnist(n_clusters, narrow, pixels, reference, device):
    kmeans = KMeans(n_clusters, random_state=0, device=device)
    kmeans.fit(pixels if narrow else pixels / 255.0)
    if narrow:
        kmeans.inertia_ /= 255**2
        kmeans.cluster_centers_ /= 255
    assert_same(kmeans, reference(n_clusters), share=0.999)


@pytest.mark.parametrize("memory", ["auto", 405_000_000])
@pytest.mark.parametrize("scale", [1, 255])
def test_a_gpu_gives_what_the_cpu_gives(scale, memory, pixels, monkeypatch):
    rows = pixels[:2500] if scale == 1 else pixels[:2500] / np.float32(scale)

    def fit(device):
        kmeans = KMeans(12, n_init=5, random_state=0, memory=memory, device=device).fit(rows)
        assert kmeans.device_ == device
        found = kmeans.labels_, kmeans.cluster_centers_, kmeans.predict(rows[:99])
        return [kmeans.inertia_, kmeans.n_iter_, *(a.tobytes() for a in found)]

    expected, resolve = fit("cpu"), devices.resolve
    if not mx.is_available(mx.gpu):
        gpu = taken_for_gpu()
        monkeypatch.setattr(
            devices, "resolve", lambda name: gpu if name == "gpu" else resolve(name)
        )
    assert fit("gpu") == expected


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
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_whole_weights_are_repeated_rows(dtype, metric, device):
    rng = np.random.default_rng(0)
    rows = oracle.make_rows("normal", 300, 4, seed=2).astype(dtype)
    weights = rng.integers(0, 4, 300)
    start = rows[np.flatnonzero(weights)[:5]]
    # A start far away empties a cluster: what fills it is weighted too.
    start[0] = [40, 0, 0, 0]
    kmeans = KMeans(5, init=start, metric=metric, tol=0, device=device)
    repeated = kmeans.fit(np.repeat(rows, weights, axis=0))
    expected = repeated.cluster_centers_, repeated.inertia_
    weighted = kmeans.fit(rows, sample_weight=weights)
    np.testing.assert_allclose(weighted.cluster_centers_, expected[0], rtol=1e-5)
    assert weighted.inertia_ == pytest.approx(expected[1])
    assert weighted.score(rows, sample_weight=weights) == pytest.approx(-weighted.inertia_)


@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("seed", range(3))
def test_weights_seed_as_in_sklearn(init, seed, device):
    rng = np.random.default_rng(seed)
    rows, weights = rng.normal(size=(200, 3)), rng.integers(0, 3, 200).astype(float)
    parameters = {"n_clusters": 20, "init": init, "n_init": 2, "random_state": seed}
    ours = KMeans(**parameters, device=device).fit(rows, sample_weight=weights)
    assert_same(ours, SklearnKMeans(**parameters).fit(rows, sample_weight=weights))


def test_empty_clusters_are_filled_as_in_sklearn(device):
    rows = oracle.make_rows("normal", 200, 3, seed=0)
    weights = np.random.default_rng(0).integers(1, 5, 200)
    start = np.concatenate([rows[:4], np.full((3, 3), 90.0)])
    for own_weights in (None, weights):
        ours = KMeans(7, init=start, device=device).fit(rows, sample_weight=own_weights)
        assert_same(ours, SklearnKMeans(7, init=start).fit(rows, sample_weight=own_weights))
        assert len(set(ours.labels_)) == 7


@pytest.mark.parametrize("far", [1e20, 1e160, 1e200, 1e300])
def test_all_centres_far_off(far, device):
    rows = oracle.make_rows("normal", 30, 3, seed=0)
    model = KMeans(2, init=np.full((2, 3), far), device=device).fit(rows)
    assert set(model.labels_) == {0, 1}
    assert model.inertia_ < np.square(rows - rows.mean(axis=0)).sum()


def test_verbose_prints_what_sklearn_prints(capsys, device):
    rows = oracle.make_rows("normal", 200, 3, seed=0)
    for parameters in ({"tol": 0}, {"tol": 0.05}, {"max_iter": 2}):
        ours, theirs = KMeans(4, device=device, **parameters), SklearnKMeans(4, **parameters)
        assert oracle.words_of(capsys, ours, rows) == oracle.words_of(capsys, theirs, rows)


def test_fewer_distinct_rows_than_clusters(device):
    rows = np.repeat([[0.0, 1.0], [5.0, 5.0]], 10, axis=0)
    with pytest.warns(ConvergenceWarning, match=r"distinct clusters \(2\) .* n_clusters \(3\)"):
        KMeans(3, random_state=0, device=device).fit(rows)


@pytest.mark.parametrize("as_csr", [False, True])
@pytest.mark.parametrize("least", [None, 0.1, 1e-200])
@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_equal_rows_do_not_move_to_and_fro(as_csr, least, device):
    """Rounding of means is no distance by which to be the furthest row."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = rng.normal(size=(5, 1 + seed % 8))[rng.integers(0, 5, 20)]
        rows = np.where(rows < 0.3, 0, rows) if as_csr else rows
        weights = None if least is None else np.append(1.0, np.full(19, least))
        model = KMeans(9, init=rows[rng.permutation(20)[:9]], device=device)
        model.fit(csr_matrix(rows) if as_csr else rows, sample_weight=weights)
        assert model.n_iter_ <= 5
        np.testing.assert_allclose(model.cluster_centers_[model.labels_], rows, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"algorithm": "full"}, "The 'algorithm' parameter of KMeans"),
        ({"metric": "manhattan"}, "The 'metric' parameter of KMeans"),
        ({"copy_x": "no"}, "The 'copy_x' parameter of KMeans"),
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


def test_warnings_point_at_the_caller(device):
    rows = oracle.make_rows("normal", 20, 2, seed=0)
    with pytest.warns(RuntimeWarning, match="performing only one init in KMeans") as seen:
        KMeans(2, init=rows[:2], n_init=3, device=device).fit(rows)
    with pytest.warns(RuntimeWarning, match="doesn't make sense for a single cluster") as more:
        KMeans(1, algorithm="elkan", device=device).fit(rows)
    assert {warning.filename for warning in [*seen, *more]} == {__file__}


def spherical(rows, centers, max_iter=300):
    """Spherical K-means in the words of its definition: largest cosine, mean direction."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centers = centers / np.linalg.norm(centers, axis=1, keepdims=True)
    labels = None
    for _ in range(max_iter):
        before, labels = labels, (rows @ centers.T).argmax(axis=1)
        if before is not None and np.array_equal(labels, before):
            break
        sums = np.stack([rows[labels == k].sum(axis=0) for k in range(len(centers))])
        centers = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return labels, centers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_cosine_is_spherical_k_means(dtype, device):
    rng = np.random.default_rng(0)
    rows = (rng.integers(1, 100, (400, 6)) * rng.integers(1, 3, (400, 1))).astype(dtype)
    start = rows[:7].astype(np.float64)
    kmeans = KMeans(7, init=start, metric="cosine", tol=0, device=device).fit(rows)
    labels, centers = spherical(rows.astype(np.float64), start)
    np.testing.assert_array_equal(kmeans.labels_, labels)
    np.testing.assert_allclose(kmeans.cluster_centers_, centers, rtol=1e-5)
    norms = np.linalg.norm(kmeans.cluster_centers_.astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, 1, rtol=1e-7 if dtype == np.float32 else 1e-15)
    distances = cosine_distances(rows.astype(np.float64), kmeans.cluster_centers_)
    np.testing.assert_allclose(kmeans.transform(rows), distances, atol=1e-7)
    assert kmeans.inertia_ == pytest.approx(distances.min(axis=1).sum(), rel=1e-6)
    np.testing.assert_array_equal(kmeans.predict(1000.0 * rows), labels)
    np.testing.assert_array_equal(kmeans.predict(rows), labels)


def test_cosine_draws_its_own_seeds(device):
    rows = oracle.make_rows("normal", 300, 5, seed=0)
    for init in ("k-means++", "random", lambda X, k, random_state: X[:k]):
        kmeans = KMeans(5, init=init, metric="cosine", random_state=0, device=device).fit(rows)
        np.testing.assert_array_equal(kmeans.predict(3 * rows), kmeans.labels_)
        assert len(set(kmeans.labels_)) == 5


def test_cosine_of_rows_without_direction(device):
    # Opposites cancel out and zeros have no direction: neither may become nan.
    rows = np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]])
    kmeans = KMeans(2, init=[[1.0, 0.1], [0.0, 1.0]], metric="cosine", device=device).fit(rows)
    np.testing.assert_allclose(np.linalg.norm(kmeans.cluster_centers_, axis=1), 1)
    assert kmeans.transform(rows)[0] == pytest.approx(0.5)
    opposites = KMeans(1, metric="cosine", device=device).fit(rows[1:3])
    assert opposites.cluster_centers_.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_to_sklearn_and_back(dtype, metric, device):
    rows = oracle.make_rows("normal", 200, 4, seed=0).astype(dtype)
    new = oracle.make_rows("normal", 500, 4, seed=1).astype(dtype)
    kmeans = KMeans(6, random_state=0, tol=1e-3, metric=metric, device=device).fit(rows)
    theirs = kmeans.to_sklearn()
    assert type(theirs) is SklearnKMeans
    assert theirs.get_params()["tol"] == 1e-3
    np.testing.assert_array_equal(theirs.predict(new), kmeans.predict(new))
    np.testing.assert_array_equal(theirs.labels_, kmeans.labels_)
    assert theirs.get_feature_names_out().tolist() == kmeans.get_feature_names_out().tolist()
    theirs.cluster_centers_[:] = 0
    assert kmeans.cluster_centers_.any()

    theirs = SklearnKMeans(6, random_state=0, algorithm="elkan").fit(rows)
    ours = KMeans.from_sklearn(theirs, device=device)
    np.testing.assert_array_equal(ours.predict(new), theirs.predict(new))
    assert vars(ours).keys() == vars(KMeans().fit(rows)).keys()
    assert ours.algorithm == "elkan"
    assert ours.score(new) == pytest.approx(theirs.score(new), rel=1e-6)
    np.testing.assert_allclose(ours.transform(new), theirs.transform(new), rtol=1e-4)
    again = ours.to_sklearn()
    assert again.get_params() == theirs.get_params()
    np.testing.assert_array_equal(again.fit(rows).labels_, theirs.labels_)


def test_from_sklearn_takes_nothing_else():
    with pytest.raises(TypeError, match=r"takes a sklearn.cluster.KMeans, not a MiniBatchKMeans"):
        KMeans.from_sklearn(SklearnMiniBatchKMeans().fit(np.eye(9)))
    with pytest.raises(NotFittedError):
        KMeans.from_sklearn(SklearnKMeans())
    with pytest.raises(NotFittedError):
        KMeans().to_sklearn()


# Extremes

# Powers of two, which round nothing: up to where squares of rows leave float64, and beyond.
EXPONENTS = (-1000, -700, -538, -100, 100, 490)


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("kind", ["normal", "offset", "grid"])
@pytest.mark.parametrize("algorithm", ["lloyd", "elkan"])
def test_the_unit_of_the_rows_changes_nothing(exponent, kind, algorithm, device):
    rows, unit = oracle.make_rows(kind, 400, 6, seed=3), 2.0**exponent
    model = KMeans(7, n_init=3, random_state=0, algorithm=algorithm, device=device)
    plain, scaled = clone(model).fit(rows), clone(model).fit(rows * unit)
    np.testing.assert_array_equal(scaled.labels_, plain.labels_)
    assert scaled.n_iter_ == plain.n_iter_
    # Whole numbers are divided once, fractions where they were moved to.
    np.testing.assert_allclose(scaled.cluster_centers_ / unit, plain.cluster_centers_, rtol=1e-13)
    assert scaled.inertia_ == pytest.approx(plain.inertia_ * unit * unit, rel=1e-12, abs=5e-324)
    np.testing.assert_array_equal(scaled.predict(rows * unit), plain.predict(rows))
    np.testing.assert_allclose(scaled.transform(rows * unit) / unit, plain.transform(rows), 1e-12)


def test_sklearn_fits_small_rows_too(device):
    rows = oracle.make_rows("normal", 200, 4, seed=0) * 1e-160
    ours = KMeans(5, random_state=0, device=device).fit(rows)
    theirs = cluster.KMeans(5, random_state=0, tol=0).fit(rows * 1e160)
    assert len(np.unique(ours.labels_)) == 5
    start = KMeans(5, random_state=0, tol=0, device=device).fit(rows)
    np.testing.assert_array_equal(start.labels_, theirs.labels_)


@pytest.mark.parametrize("scale", [1e154, 1e165, 1e300])
@pytest.mark.parametrize("make", [KMeans, MiniBatchKMeans, BisectingKMeans])
def test_squares_beyond_float64_are_refused_in_a_sentence(scale, make, device):
    rows = oracle.make_rows("normal", 100, 3, seed=0)
    with pytest.raises(ValueError, match="add up to more than float64 holds"):
        make(3, random_state=0, device=device).fit(rows * scale)
    model = make(3, random_state=0, device=device).fit(rows)
    with pytest.raises(ValueError, match="more than float64 holds"):
        model.score(rows * scale)
    # From so far off all centres are equally near in float64.
    assert (model.predict(rows * scale) == 0).all()


@pytest.mark.parametrize("far", [1e6, 1e15, 1e20, 9.96921e36, 1e100, 1e150])
@pytest.mark.parametrize("algorithm", ["lloyd", "elkan"])
def test_one_far_row_costs_the_others_no_digits(far, algorithm, device):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 3))
    rows[500:, 0] += 10
    rows[700] = far
    start = rows[[0, 900, 700]]
    labels, inertia, centers, n_iter = oracle.kmeans(rows, start)
    model = KMeans(3, init=start, n_init=1, algorithm=algorithm, device=device).fit(rows)
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_allclose(model.cluster_centers_, centers, rtol=1e-9)
    assert model.inertia_ == pytest.approx(inertia, rel=1e-9)
    assert model.n_iter_ == n_iter


@pytest.mark.parametrize("wide", [1e3, 1e12, 1e20, 1e60])
def test_a_wide_feature_costs_the_others_no_digits(wide, device):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 3)) * [wide, 1, 1e-3] + np.array(
        [[9 * wide, 5, 7], [0, 5, 7]] * 300
    )
    labels, _, centers, _ = oracle.kmeans(rows, rows[:4])
    model = KMeans(4, init=rows[:4], n_init=1, device=device).fit(rows)
    np.testing.assert_array_equal(model.labels_, labels)
    np.testing.assert_allclose(model.cluster_centers_, centers, rtol=1e-10)


@pytest.mark.parametrize("far", [1e20, 1e100, 1e150])
def test_seeds_of_the_others_are_those_without_the_far_one(far, device):
    # Once it is chosen, as it is first of all, the others are drawn among as if it were not there.
    rows = np.vstack([[far] * 2, oracle.make_rows("normal", 300, 2, seed=0)])
    found = kmeans_plusplus(rows, 12, random_state=0, device=device)[1]
    assert 0 in found[:2]
    assert len(set(found)) == 12


def test_a_far_row_in_a_batch_changes_no_other_answer(device):
    rows = oracle.make_rows("normal", 300, 5, seed=0)
    for model in (KMeans(8), MiniBatchKMeans(8), BisectingKMeans(8), KMeans(8, metric="cosine")):
        model.set_params(random_state=0, device=device).fit(rows)
        labels, distances = model.predict(rows), model.transform(rows)
        for far in (1e20, 1e160, 1e200, 7e307, 5e-324, 1e-200):
            mixed = np.vstack([rows[:150], np.full((1, 5), far), rows[150:]])
            np.testing.assert_array_equal(np.delete(model.predict(mixed), 150), labels)
            found = np.delete(model.transform(mixed), 150, axis=0)
            np.testing.assert_allclose(found, distances, rtol=1e-12, atol=1e-15)


def test_numbers_near_the_largest_are_no_infinity(device):
    model = KMeans(2, random_state=0, metric="cosine", device=device)
    assert len(set(model.fit([[1.7e308, 1.7e308], [-1.7e308, 1.6e308]]).labels_)) == 2
    with pytest.raises(ValueError, match="more than float64 holds"):
        KMeans(1, device=device).fit([[1.7e308], [1.6e308]])
