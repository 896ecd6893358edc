"""What all estimators promise scikit-learn."""

import io
import json
import pickle
import warnings

import joblib
import mlx.core as mx
import numpy as np
import oracle
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy import sparse
from sklearn import cluster
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._test_common.instance_generator import _get_expected_failed_checks
from sklearn.utils.estimator_checks import parametrize_with_checks

from mnist_kmeans_mlx import (
    BisectingKMeans,
    Checkpoint,
    ClusterClassifier,
    DatasetError,
    KMeans,
    MiniBatchKMeans,
    base,
    k_means,
    kmeans_plusplus,
)

THEIRS = {
    KMeans: cluster.KMeans,
    MiniBatchKMeans: cluster.MiniBatchKMeans,
    BisectingKMeans: cluster.BisectingKMeans,
}
ALL = [KMeans(), KMeans(metric="cosine"), MiniBatchKMeans(), BisectingKMeans()]


@parametrize_with_checks(
    [clone(e).set_params(n_clusters=2, max_iter=5) for e in ALL],
    # Only what scikit-learn expects of its own: weights draw other random numbers.
    expected_failed_checks=lambda e: _get_expected_failed_checks(THEIRS[type(e)]()),
)
def test_sklearn_checks(estimator, check):
    check(estimator)


@pytest.fixture(params=ALL, ids=["euclidean", "cosine", "minibatch", "bisecting"])
def estimator(request, device):
    return clone(request.param).set_params(random_state=0, n_clusters=5, device=device)


ROWS = oracle.make_rows("normal", 300, 6, seed=0) + 2


def test_centres_are_their_own_nearest(estimator):
    for dtype in (np.float32, np.float64):
        rows = (ROWS + 1000).astype(dtype)
        if getattr(estimator, "metric", "") == "cosine":
            rows = ROWS.astype(dtype)
        estimator.fit(rows)
        centers = estimator.cluster_centers_
        assert centers.dtype == estimator.transform(rows).dtype == dtype
        np.testing.assert_array_equal(estimator.predict(centers), np.arange(5))
        distances = estimator.transform(centers)
        assert (distances.diagonal() == 0).all()
        assert (distances + np.eye(5) > 0).all()
        np.testing.assert_array_equal(estimator.predict(rows), estimator.labels_)


def test_rows_of_every_kind(estimator):
    rows = oracle.make_rows("pixels", 200, 6, seed=0)
    expected = clone(estimator).fit(rows)
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
        sparse.csr_matrix(rows),
        sparse.csr_array(rows.astype(np.float32)),
        sparse.csc_matrix(rows),
    ):
        found = clone(estimator).fit(given)
        np.testing.assert_array_equal(found.labels_, expected.labels_)
        np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, rtol=1e-6)
        np.testing.assert_array_equal(found.predict(given), found.labels_)
        np.testing.assert_allclose(found.transform(given), expected.transform(rows), rtol=1e-5)


@pytest.mark.parametrize("byteorder", "<>")
@pytest.mark.parametrize(("bad", "said"), [(np.nan, "NaN"), (-np.inf, "infinity")])
def test_bad_numbers_of_float16_are_refused(estimator, byteorder, bad, said):
    rows = ROWS.astype(byteorder + "f2")
    np.testing.assert_array_equal(
        clone(estimator).fit(rows).labels_, clone(estimator).fit(ROWS.astype(np.float16)).labels_
    )
    estimator.fit(rows)
    rows[3, 1] = bad
    for method in (estimator.fit, estimator.predict, estimator.transform, estimator.score):
        with pytest.raises(ValueError, match=f"Input X contains {said}"):
            method(rows)


def test_nan_in_a_sparse_frame_is_refused(estimator):
    pd = pytest.importorskip("pandas")
    estimator.fit(pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(ROWS)))
    rows = sparse.csr_matrix(ROWS)
    rows.data[5] = np.nan
    for method in (estimator.predict, estimator.transform, estimator.score):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            method(pd.DataFrame.sparse.from_spmatrix(rows))


def test_blocks_change_nothing(estimator, monkeypatch):
    weights = np.random.default_rng(0).random(len(ROWS))
    estimator.fit(ROWS)
    answers = estimator.predict(ROWS), estimator.transform(ROWS)
    score = estimator.score(ROWS, sample_weight=weights)
    monkeypatch.setattr(base, "BLOCK_BYTES", 7 * 4 * 6)
    np.testing.assert_array_equal(estimator.predict(ROWS), answers[0])
    np.testing.assert_allclose(estimator.transform(ROWS), answers[1], rtol=1e-12)
    assert estimator.score(ROWS, sample_weight=weights) == pytest.approx(score, rel=1e-12)


def test_inputs_are_not_changed(estimator):
    weights = np.ones(len(ROWS))
    for rows in (ROWS.copy(), sparse.csr_matrix(ROWS)):
        for array in (rows.data if sparse.issparse(rows) else rows, weights):
            array.flags.writeable = False
        if "copy_x" in estimator.get_params():
            estimator.set_params(copy_x=False)
        estimator.fit(rows, sample_weight=weights).transform(rows)
        estimator.score(rows, sample_weight=weights)


def test_sparse_rows_may_be_too_large_to_be_made_dense(estimator):
    # As float32 this would take 400 GB; taking any of it would end the test run.
    n, d, half = 10**6, 10**5, 500
    rows = sparse.csr_matrix(
        (np.ones(2 * half), (np.arange(2 * half), np.repeat([3, d - 1], half))), shape=(n, d)
    )
    estimator.set_params(n_clusters=2, random_state=0)
    if isinstance(estimator, MiniBatchKMeans):
        estimator.set_params(batch_size=10**6, max_iter=2)
    estimator.fit(rows, sample_weight=np.arange(n) < 2 * half)
    assert np.sort(estimator.cluster_centers_[:, [3, d - 1]], axis=0).tolist() == [[0, 0], [1, 1]]
    assert len(set(estimator.labels_[:half])) == len(set(estimator.labels_[half : 2 * half])) == 1
    distances = estimator.transform(rows[:1])
    expected = 1 if estimator.metric == "cosine" else 2**0.5
    np.testing.assert_allclose(np.sort(distances), [[0, expected]], rtol=1e-15)


def test_data_frames_in_and_out(estimator):
    names = [f"pixel{i}" for i in range(6)]
    frame = pd.DataFrame(ROWS, columns=names)
    estimator.fit(frame)
    assert estimator.feature_names_in_.tolist() == names
    out = [f"{type(estimator).__name__.lower()}{i}" for i in range(5)]
    assert estimator.get_feature_names_out().tolist() == out
    for library, kind in (("pandas", pd.DataFrame), ("polars", pl.DataFrame)):
        found = clone(estimator).set_output(transform=library).fit_transform(frame)
        assert isinstance(found, kind)
        assert list(found.columns) == out
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.predict(frame[names[::-1]])


def test_copies_are_as_good(estimator):
    estimator.fit(ROWS)
    file = io.BytesIO()
    joblib.dump(estimator, file)
    file.seek(0)
    for copy in (pickle.loads(pickle.dumps(estimator)), joblib.load(file)):
        np.testing.assert_array_equal(copy.predict(ROWS), estimator.labels_)
        assert copy.get_params() == estimator.get_params()
    assert not hasattr(clone(estimator), "cluster_centers_")


def test_in_a_pipeline_and_a_search(estimator):
    rows, _ = make_blobs(120, centers=4, random_state=0)
    pipeline = make_pipeline(StandardScaler(), estimator)
    name = pipeline.steps[-1][0]
    search = GridSearchCV(pipeline, {f"{name}__n_clusters": [1, 4]}, cv=2).fit(rows)
    assert search.best_params_ == {f"{name}__n_clusters": 4}
    with joblib.parallel_backend("threading", n_jobs=2):
        again = clone(search).fit(rows)
    np.testing.assert_array_equal(
        again.cv_results_["mean_test_score"], search.cv_results_["mean_test_score"]
    )


def test_weights_are_routed(estimator):
    weights = np.random.default_rng(0).integers(1, 5, len(ROWS))
    with sklearn.config_context(enable_metadata_routing=True):
        asking = clone(estimator).set_fit_request(sample_weight=True)
        routed = make_pipeline(asking.set_score_request(sample_weight=True))
        routed.fit(ROWS, sample_weight=weights)
        score = routed.score(ROWS, sample_weight=weights)
    estimator.fit(ROWS, sample_weight=weights)
    np.testing.assert_array_equal(routed[-1].cluster_centers_, estimator.cluster_centers_)
    assert score == estimator.score(ROWS, sample_weight=weights)


def test_rows_without_weight_do_not_count(estimator):
    weights = np.ones(len(ROWS))
    weights[::2] = 0
    rows = ROWS.copy()
    rows[::2] *= -50
    centers = estimator.fit(rows, sample_weight=weights).cluster_centers_
    assert (centers > -5).all()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_clusters": 0}, "The 'n_clusters' parameter of {} must be an int in the range"),
        ({"n_clusters": 2.5}, "The 'n_clusters' parameter of {} must be an int in the range"),
        ({"n_clusters": 301}, "n_samples=300 should be >= n_clusters=301"),
        ({"n_init": 0}, "The 'n_init' parameter of {}"),
        ({"max_iter": 0}, "The 'max_iter' parameter of {}"),
        ({"tol": -1}, "The 'tol' parameter of {}"),
        ({"init": "best"}, "The 'init' parameter of {}"),
        ({"random_state": "x"}, "The 'random_state' parameter of {}"),
        ({"device": "tpu"}, "The 'device' parameter of {}"),
    ],
    ids=str,
)
def test_bad_parameters_are_named(estimator, parameters, sentence):
    with pytest.raises(ValueError, match=sentence.format(type(estimator).__name__)):
        estimator.set_params(**parameters).fit(ROWS)


@pytest.mark.parametrize("weights", [np.ones(3), np.zeros(300), np.full(300, np.nan), "x"], ids=str)
def test_bad_weights_are_refused(estimator, weights):
    with pytest.raises(ValueError, match=r"[Ww]eight|shape|NaN|convert"):
        estimator.fit(ROWS, sample_weight=weights)


def test_an_unfitted_estimator_says_so(estimator):
    for method in (estimator.predict, estimator.transform, estimator.score):
        with pytest.raises(NotFittedError):
            method(ROWS)


def test_parameters_are_sklearns(estimator):
    own = {"device", "memory", "metric"}
    theirs = THEIRS[type(estimator)]().get_params()
    ours = clone(estimator).set_params(n_clusters=8, random_state=None).get_params()
    assert ours.keys() - own == theirs.keys()
    differ = {name for name, value in theirs.items() if ours[name] != value}
    assert differ <= {"algorithm"}, json.dumps(sorted(differ))


WEIGHING = {
    "fit": lambda w: KMeans(2, random_state=0).fit(ROWS, sample_weight=w),
    "random": lambda w: KMeans(2, init="random", random_state=0).fit(ROWS, sample_weight=w),
    "score": lambda w: KMeans(2, random_state=0).fit(ROWS).score(ROWS, sample_weight=w),
    "fit_predict": lambda w: KMeans(2).fit_predict(ROWS, sample_weight=w),
    "k_means": lambda w: k_means(ROWS, 2, sample_weight=w),
    "plusplus": lambda w: kmeans_plusplus(ROWS, 2, sample_weight=w),
    "minibatch": lambda w: MiniBatchKMeans(2).fit(ROWS, sample_weight=w),
    "partial_fit": lambda w: MiniBatchKMeans(2).partial_fit(ROWS, sample_weight=w),
    "bisecting": lambda w: BisectingKMeans(2).fit(ROWS, sample_weight=w),
    "checkpoint": lambda w: Checkpoint(None).fit(KMeans(2), ROWS, w),
    "classifier": lambda w: ClusterClassifier().fit(ROWS, np.arange(300) % 2, sample_weight=w),
}


@pytest.mark.parametrize("door", WEIGHING)
def test_weights_come_in_by_one_door(door):
    for first, message in (
        (-1, "Negative values in data passed to `sample_weight`"),
        (np.nan, "Input sample_weight contains NaN"),
        (np.inf, "Input sample_weight contains infinity"),
        (1.7e308, "sample_weight goes up to 1.7e.308, which takes sums out of the range"),
    ):
        weights = np.ones(300)
        weights[0] = first
        with pytest.raises(ValueError, match=message):
            WEIGHING[door](weights)
    with pytest.raises(ValueError, match="at least one non-zero"):
        WEIGHING[door](np.zeros(300))
    with pytest.raises(ValueError, match=r"sample_weight goes up to 4\.9e-324"):
        WEIGHING[door](np.full(300, 5e-324))
    WEIGHING[door](np.arange(300))


def test_one_heavy_row_does_not_silence_the_others(device):
    weights = np.ones(300)
    weights[7] = 1e200
    _, seeds = kmeans_plusplus(ROWS, 5, sample_weight=weights, random_state=0, device=device)
    _, expected = cluster.kmeans_plusplus(ROWS, 5, sample_weight=weights, random_state=0)
    np.testing.assert_array_equal(seeds, expected)
    for make in (KMeans, BisectingKMeans):
        model = make(5, random_state=0, device=device).fit(ROWS, sample_weight=weights)
        own = oracle.distances_sq(ROWS, model.cluster_centers_).min(axis=1)
        mean = [np.average(ROWS[model.labels_ == label], axis=0) for label in range(5)]
        light = np.delete(np.arange(5), model.labels_[7])
        np.testing.assert_allclose(model.cluster_centers_[light], np.array(mean)[light])
        if make is KMeans:
            assert model.inertia_ == pytest.approx(own @ weights, rel=1e-9)


@pytest.mark.parametrize("far", [1e20, 1e39, 1e150])
def test_centres_far_beyond_the_rows(far, device):
    for make in (KMeans, MiniBatchKMeans):
        for init in (np.full((3, 6), far), ROWS[:3] * [[1], [1], [far]]):
            options = {"n_clusters": 3, "init": init, "n_init": 1, "random_state": 0}
            with warnings.catch_warnings():
                warnings.simplefilter("error", RuntimeWarning)
                warnings.simplefilter("ignore", ConvergenceWarning)
                found = make(device=device, **options).fit(ROWS)
            assert np.abs(found.cluster_centers_).max() <= np.abs(ROWS).max()
            labels = oracle.distances_sq(ROWS, found.cluster_centers_).argmin(axis=1)
            np.testing.assert_array_equal(found.labels_, labels)


@pytest.mark.parametrize("refused", [ROWS[:1], np.full((9, 6), np.nan), np.full((9, 6), "a")])
def test_a_fit_that_failed_leaves_nothing_to_the_next(estimator, refused):
    fresh = clone(estimator).fit(ROWS)
    with pytest.raises(ValueError, match=r"n_samples|NaN|could not convert|numeric"):
        estimator.fit(refused)
    again = estimator.fit(ROWS)
    assert sorted(vars(again)) == sorted(vars(fresh))
    np.testing.assert_array_equal(again.labels_, fresh.labels_)


def test_warnings_name_the_line_that_called(device):
    with pytest.warns(ConvergenceWarning) as caught:
        KMeans(3, device=device).fit(np.zeros((9, 2)))
    with pytest.warns(RuntimeWarning) as also_caught:
        MiniBatchKMeans(3, init=ROWS[:3], n_init=2, device=device).fit(ROWS)
    assert {warning.filename for warning in [*caught, *also_caught]} == {__file__}


@pytest.mark.parametrize("offset", [1e5, 1e8, 2.0**40, 1e12])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_whole_numbers_far_from_zero(estimator, offset, dtype):
    # Such as times, numbers of customers, coordinates in millimetres.
    if getattr(estimator, "metric", "") == "cosine":
        pytest.skip("directions change with the origin")
    rows = np.random.default_rng(0).integers(0, 64, size=(200, 3)).astype(dtype)
    near, far = clone(estimator).fit(rows), clone(estimator).fit(rows + dtype(offset))
    np.testing.assert_array_equal(far.labels_, near.labels_)
    np.testing.assert_allclose(far.cluster_centers_ - offset, near.cluster_centers_, atol=1e-3)
    assert far.inertia_ == pytest.approx(near.inertia_, rel=1e-6)
    np.testing.assert_array_equal(far.predict(rows + dtype(offset)), far.labels_)
    expected = kmeans_plusplus(rows, 5, random_state=0)[1]
    found = kmeans_plusplus(rows + dtype(offset), 5, random_state=0)[1]
    np.testing.assert_array_equal(found, expected)


def test_a_failed_fit_leaves_a_fitted_estimator_as_it_was(estimator):
    estimator.fit(ROWS)
    before = vars(estimator).copy()
    with pytest.raises(ValueError, match="n_samples"):
        estimator.fit(ROWS[:2, :3])
    assert vars(estimator) == before
    np.testing.assert_array_equal(estimator.predict(ROWS), estimator.labels_)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_the_largest_numbers_are_no_warning_of_numpy(device):
    largest = np.array([[1.797e308], [0.9e308], [-1.797e308], [-0.9e308]])
    for make in (KMeans, MiniBatchKMeans, BisectingKMeans):
        for rows in (largest, [[1.7e308], [1.6e308]]):
            with pytest.raises(ValueError, match="more than float64 holds"):
                make(1, device=device).fit(rows)


def test_batches_are_whatever_fit_takes(device):
    frame = pd.DataFrame({"a": [1.0, 2.0, 9.0], "b": [3.0, 4.0, 8.0]})
    expected = KMeans(2, random_state=0, device=device).fit(frame.to_numpy())
    as_sparse = sparse.csr_array(frame.to_numpy())
    for batch in (frame.astype("Int64"), frame.astype("Float32"), frame.values.tolist(), as_sparse):
        found = KMeans(2, random_state=0, device=device).fit_batches([batch])
        np.testing.assert_array_equal(found.labels_, expected.labels_)
    for wrong in ([[1, 2], [3]], [["a", "b"]], [[1 + 2j]]):
        with pytest.raises(DatasetError, match=r"Batch 0 \(counted from 0\) (is no array|holds)"):
            KMeans(2, device=device).fit_batches([wrong])
    for far in (np.inf, -np.inf):
        with pytest.raises(ValueError, match=r"infin|not finite"):
            KMeans(2, metric="cosine", device=device).fit_batches([[[far, 1.0]], [[2.0, 3.0]]])


def test_a_metric_that_there_is_not_is_named(estimator):
    estimator.fit(ROWS).metric = "angle"
    with pytest.raises(ValueError, match="metric is 'angle', and not one of euclidean, cosine"):
        estimator.score(ROWS)
