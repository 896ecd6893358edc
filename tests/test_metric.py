import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from mnist_kmeans_mlx.engine.metric import METRICS


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_distances_are_as_named(name, kind):
    metric = METRICS[name]
    rows, centers = np.random.default_rng(0).normal(size=(2, 7, 5))
    found = metric.rows(kind(rows))
    found = found.toarray() if sparse.issparse(found) else found
    if metric.project is not None:
        centers = metric.project(centers)
    expected = cdist(rows, centers, name)
    squared = cdist(found, centers, "sqeuclidean")
    np.testing.assert_allclose(metric.of_squares(squared), expected, rtol=1e-13)
    np.testing.assert_allclose(metric.of_lengths(np.sqrt(squared)), expected, rtol=1e-13)
    costs = expected if name == "cosine" else expected**2
    np.testing.assert_allclose(metric.cost(squared), costs, rtol=1e-13)


def test_rows_that_are_not_kept_are_made_as_asked_for():
    rows = np.array([[3, 4], [5, 12]])
    assert METRICS["cosine"].rows(rows, keep=False)[1:].tolist() == [[5 / 13, 12 / 13]]
    assert METRICS["euclidean"].rows(rows, keep=False) is rows
