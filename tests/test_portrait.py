import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.experiment import Data, ExperimentError
from mnist_kmeans_mlx.experiment.portrait import portray
from mnist_kmeans_mlx.labeling import infer_cluster_labels
from mnist_kmeans_mlx.persistence import Model


@pytest.fixture(scope="module")
def data(mnist):
    rows = mnist.x_train.reshape(-1, 784)
    return Data("some", rows[:400], mnist.y_train[:400], rows[400:450], mnist.y_train[400:450],
                unit=255.0)  # fmt: skip


@pytest.fixture(scope="module", params=["euclidean", "cosine"])
def model(request, data, device):
    estimator = KMeans(9, random_state=0, metric=request.param, device=device).fit(data.train)
    digits = infer_cluster_labels(estimator, data.y_train)
    return Model(estimator, digits, {"unit": 255.0})


def test_faces_are_those_of_the_clusters(model, data, device):
    portrait = portray(model, data, members=4, device=device)
    estimator, unit = model.estimator, 255.0
    distances = estimator.transform(data.train)
    if portrait.metric == "euclidean":
        distances = distances / unit
    for face in portrait.faces:
        rows = np.flatnonzero(estimator.labels_ == face.index)
        own = distances[rows, face.index]
        truth = data.y_train[rows]
        assert face.size == len(rows)
        assert face.index in model.cluster_labels[face.digit]
        assert face.purity == pytest.approx(np.mean(truth == face.digit))
        assert sum(face.counts.values()) == face.size
        assert next(iter(face.counts)) == face.digit or face.counts[face.digit] == max(
            face.counts.values()
        )
        assert_allclose([m.distance for m in face.nearest], np.sort(own)[:4], rtol=1e-9)
        wrong = np.sort(own[truth != face.digit])[:4]
        assert_allclose([m.distance for m in face.mistakes], wrong, rtol=1e-9)
        off = np.abs([m.distance - np.median(own) for m in face.typical])
        assert off.max() <= np.sort(np.abs(own - np.median(own)))[:4].max() + 1e-9
        for member in (*face.nearest, *face.typical, *face.mistakes):
            assert member.label == data.y_train[member.row]
            assert_array_equal(portrait.images[member.row], data.train[member.row])
        assert all(member.label != face.digit for member in face.mistakes)


def test_scores_are_those_of_evaluate(model, data, device):
    from mnist_kmeans_mlx.experiment import evaluate

    portrait = portray(model, data, device=device)
    found = evaluate(model, data, device=device)
    assert portrait.train.to_dict() == found.train.to_dict()
    assert portrait.test.to_dict() == found.test.to_dict()


def test_the_map_is_that_of_the_principal_axes(model, data, device):
    from sklearn.decomposition import PCA

    chart = portray(model, data, device=device).map
    rows = data.train.astype(float)
    if model.estimator.metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pca = PCA(2, svd_solver="full").fit(rows)
    assert_allclose(np.abs(chart.rows), np.abs(pca.transform(rows)), atol=1e-6)
    expected = pca.transform(model.estimator.cluster_centers_)
    assert_allclose(np.abs(chart.centers), np.abs(expected), atol=1e-6)
    assert_allclose(chart.explained, pca.explained_variance_ratio_, rtol=1e-6)


def test_names_are_inferred_where_the_model_has_none(model, data, device):
    nameless = Model(model.estimator, None, model.metadata)
    named, found = portray(model, data, device=device), portray(nameless, data, device=device)
    assert [face.digit for face in found.faces] == [face.digit for face in named.faces]


def test_without_data_there_are_centroids_and_sizes(model):
    portrait = portray(model)
    sizes = np.bincount(model.estimator.labels_, minlength=9)
    assert [face.size for face in portrait.faces] == sizes.tolist()
    assert portrait.map is None
    assert portrait.train is None


def test_an_empty_cluster_has_an_empty_face(device):
    import warnings

    rows = np.zeros((5, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = KMeans(2, random_state=0, device=device).fit(rows)
    portrait = portray(Model(estimator, None, {}), Data("same", rows), device=device)
    assert sorted(face.size for face in portrait.faces) == [0, 5]
    assert np.isfinite(portrait.map.centers).all()
    assert portrait.map.explained == (0, 0)


def test_other_data_is_refused(model, data):
    other = Data("other", data.train[:300], data.y_train[:300])
    with pytest.raises(ExperimentError, match="not fitted on other"):
        portray(model, other)
    with pytest.raises(ExperimentError, match="has 3 columns"):
        portray(model, Data("narrow", np.zeros((400, 3))))
    signed = Model(model.estimator, None, {"data": {"sha256": "a"}})
    with pytest.raises(ExperimentError, match="not fitted on some"):
        portray(signed, Data("some", data.train, facts={"sha256": "b"}))


def test_other_rows_of_the_same_shape_are_refused(model, data, device):
    """The labels of a fit say nothing about other rows, however many these are."""
    nameless = Model(model.estimator, None, {})
    other = Data("other", data.train[::-1], data.y_train, unit=255.0)
    with pytest.raises(ExperimentError, match="not fitted on other"):
        portray(nameless, other, device=device)


def test_shares_of_white_are_brought_to_the_unit_of_the_model(model, data, device):
    shares = Data("shares", data.train / 255, data.y_train, data.test / 255, data.y_test)
    found, expected = (portray(model, part, device=device) for part in (shares, data))
    for a, b in zip(found.faces, expected.faces, strict=True):
        assert a.counts == b.counts
        far = [[member.distance for member in face.nearest] for face in (a, b)]
        assert_allclose(*far, rtol=1e-9)
    assert found.test.to_dict() == expected.test.to_dict()
