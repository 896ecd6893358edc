"""MiniBatchKMeans beside scikit-learn's."""

import pickle

import numpy as np
import oracle
import pytest
from sklearn.cluster import MiniBatchKMeans as SklearnMiniBatchKMeans

from mnist_kmeans_mlx import MiniBatchKMeans, load_model, save_model


def assert_same(ours, theirs):
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-9)
    assert ours.n_steps_ == theirs.n_steps_
    assert getattr(ours, "n_iter_", None) == getattr(theirs, "n_iter_", None)
    assert hasattr(ours, "labels_") == hasattr(theirs, "labels_")
    if hasattr(theirs, "labels_"):
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        assert ours.labels_.dtype == theirs.labels_.dtype
    if hasattr(theirs, "inertia_"):
        assert ours.inertia_ == pytest.approx(theirs.inertia_, rel=1e-9)


# None moves two centres onto the same row: scikit-learn's product decides such ties by rounding.
VARIANTS = [
    {},
    {"init": "random"},
    {"n_init": 3},
    {"tol": 0.01},
    {"batch_size": 50, "reassignment_ratio": 0.5},
    {"batch_size": 20, "n_clusters": 30},
    {"init_size": 30},
    {"compute_labels": False},
    {"max_no_improvement": None, "max_iter": 3},
    {"init": "array"},
]


def both(rows, parameters, device):
    """The same model of ours and of scikit-learn."""
    if parameters.get("init") == "array":
        parameters = {"init": rows[:8]}
    ours = MiniBatchKMeans(random_state=1, device=device, **parameters)
    return ours, SklearnMiniBatchKMeans(random_state=1, **parameters)


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
def test_gives_what_sklearn_gives(parameters, weighted, device):
    rows = oracle.make_rows("normal", 600, 5, seed=0)
    weights = np.random.default_rng(0).integers(0, 4, 600).astype(float) if weighted else None
    ours, theirs = both(rows, parameters, device)
    assert_same(ours.fit(rows, sample_weight=weights), theirs.fit(rows, sample_weight=weights))
    assert ours.score(rows) == pytest.approx(theirs.score(rows), rel=1e-9)


@pytest.mark.parametrize("fitted", [False, True], ids=["anew", "after fit"])
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
def test_partial_fit_gives_what_sklearn_gives(parameters, fitted, device):
    rows = oracle.make_rows("normal", 600, 5, seed=0)
    weights = np.random.default_rng(0).integers(1, 4, 600).astype(float)
    ours, theirs = both(rows, parameters, device)
    if fitted:
        ours.fit(rows)
        theirs.fit(rows)
    for start in range(0, 600, 100):
        part = slice(start, start + 100)
        ours.partial_fit(rows[part], sample_weight=weights[part])
        theirs.partial_fit(rows[part], sample_weight=weights[part])
        assert_same(ours, theirs)


@pytest.mark.parametrize("way", ["pickle", "file"])
def test_a_copy_goes_on_where_the_original_stopped(way, tmp_path, device):
    rows = oracle.make_rows("normal", 600, 5, seed=0)
    kmeans = MiniBatchKMeans(random_state=1, reassignment_ratio=0.9, device=device)
    kmeans.partial_fit(rows[:100])
    if way == "pickle":
        copy = pickle.loads(pickle.dumps(kmeans))
    else:
        copy = load_model(save_model(tmp_path / "model", kmeans)).estimator
    for start in range(100, 600, 100):
        kmeans.partial_fit(rows[start : start + 100])
        copy.partial_fit(rows[start : start + 100])
    np.testing.assert_array_equal(copy.cluster_centers_, kmeans.cluster_centers_)


def test_a_generator_is_drawn_from_as_in_sklearn(device):
    rows = oracle.make_rows("normal", 600, 5, seed=0)
    found = []
    for make in (lambda **p: MiniBatchKMeans(device=device, **p), SklearnMiniBatchKMeans):
        generator = np.random.RandomState(1)
        kmeans = make(random_state=generator, reassignment_ratio=0.9)
        for start in range(0, 600, 100):
            kmeans.partial_fit(rows[start : start + 100])
        found.append((kmeans.cluster_centers_, generator.random_sample()))
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-9)
    assert found[0][1] == found[1][1]


def test_float32_is_close_to_sklearn(device):
    rows = oracle.make_rows("normal", 600, 5, seed=0).astype(np.float32)
    ours = MiniBatchKMeans(random_state=0, device=device).fit(rows)
    theirs = SklearnMiniBatchKMeans(random_state=0).fit(rows)
    assert ours.cluster_centers_.dtype == np.float32
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, atol=1e-4)
    ours.partial_fit(rows[:50].astype(np.float64))
    assert ours.cluster_centers_.dtype == np.float32


@pytest.mark.slow
def test_gives_what_sklearn_gives_on_mnist(mnist, device):
    pixels = mnist.x_train[::10].reshape(6000, -1)
    ours = MiniBatchKMeans(20, random_state=0, device=device).fit(pixels)
    theirs = SklearnMiniBatchKMeans(20, random_state=0).fit(pixels.astype(np.float64))
    assert_same(ours, theirs)


def test_verbose_prints_what_sklearn_prints(capsys, device):
    rows = oracle.make_rows("normal", 300, 3, seed=0)
    for parameters in (
        {"batch_size": 20},
        {"batch_size": 20, "tol": 1.0, "n_init": 2},
        {"batch_size": 20, "n_clusters": 30},
    ):
        ours = MiniBatchKMeans(device=device, **parameters)
        theirs = SklearnMiniBatchKMeans(**parameters)
        assert oracle.words_of(capsys, ours, rows) == oracle.words_of(capsys, theirs, rows)


def test_all_centres_may_be_rare(device):
    # With a ratio above one scikit-learn stops at the minimum of nothing.
    rows = oracle.make_rows("normal", 100, 3, seed=0)
    kmeans = MiniBatchKMeans(3, random_state=0, reassignment_ratio=2.0, device=device).fit(rows)
    assert np.isfinite(kmeans.cluster_centers_).all()


@pytest.mark.parametrize(
    "name",
    ["batch_size", "init_size", "max_no_improvement", "compute_labels", "reassignment_ratio"],
)
def test_bad_parameters_are_named(name):
    with pytest.raises(ValueError, match=f"The '{name}' parameter of MiniBatchKMeans"):
        MiniBatchKMeans(**{name: -1}).fit(np.eye(9))


def test_a_small_init_size_warns(device):
    with pytest.warns(RuntimeWarning, match="init_size=3 should be larger than n_clusters") as seen:
        MiniBatchKMeans(init_size=3, device=device).fit(np.random.default_rng(0).random((50, 2)))
    assert seen[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="only one init in MiniBatchKMeans") as seen:
        MiniBatchKMeans(2, init=np.eye(2), n_init=2, device=device).partial_fit(np.eye(2))
    assert seen[0].filename == __file__
