import mlx.core as mx
import numpy as np
import oracle
import pytest
from scipy import sparse
from sklearn import cluster

from mnist_kmeans_mlx import k_means, kmeans_plusplus

ROWS = oracle.make_rows("normal", 200, 4, seed=0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_kmeans_plusplus_chooses_what_sklearn_chooses(weighted, seed, device):
    weights = np.random.default_rng(0).integers(0, 2, 200).astype(float) if weighted else None
    centers, indices = kmeans_plusplus(
        ROWS, 40, sample_weight=weights, random_state=seed, device=device
    )
    _, expected = cluster.kmeans_plusplus(ROWS, 40, sample_weight=weights, random_state=seed)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(centers, ROWS[indices])
    assert weights is None or (weights[indices] > 0).all()


def test_kmeans_plusplus_keeps_the_kind_of_rows(device):
    whole = np.rint(ROWS * 10)
    for rows in (whole.astype(np.int16), whole.astype(np.float32), sparse.csr_matrix(whole)):
        centers, indices = kmeans_plusplus(rows, 5, random_state=0, device=device)
        assert centers.dtype == rows.dtype
        np.testing.assert_array_equal(centers, whole[indices])
    centers, _ = kmeans_plusplus(mx.array(ROWS.astype(np.float32)), 5, device=device)
    assert centers.dtype == np.float32


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"n_clusters": 0}, "The 'n_clusters' parameter of kmeans_plusplus"),
        ({"n_clusters": 201}, "n_samples=200 should be >= n_clusters=201"),
        ({"n_clusters": 2, "x_squared_norms": [1.0]}, "The length of x_squared_norms 1 should be"),
        ({"n_clusters": 2, "sample_weight": [1.0]}, "shape"),
    ],
    ids=str,
)
def test_kmeans_plusplus_names_bad_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        kmeans_plusplus(ROWS, **parameters)


def test_k_means_gives_what_sklearn_gives(device):
    weights = np.random.default_rng(0).random(200)
    parameters = {"sample_weight": weights, "random_state": 0, "n_init": 2, "return_n_iter": True}
    ours = k_means(ROWS, 6, **parameters, device=device)
    theirs = cluster.k_means(ROWS, 6, **parameters)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, expected)
    assert len(k_means(ROWS, 6, device=device)) == 3


@pytest.mark.parametrize("trials", [0, -1, 1.5, "many"])
def test_the_number_of_trials_is_checked(trials):
    with pytest.raises(ValueError, match="'n_local_trials' parameter"):
        kmeans_plusplus([[0.0], [1.0]], 2, n_local_trials=trials)
