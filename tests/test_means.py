import numpy as np
import oracle
import pytest

from mnist_kmeans_mlx.engine.means import inertia, inertia_of_sums, means


def expected_means(rows, labels, k, weights=None):
    return np.stack([np.average(rows[labels == c], axis=0, weights=None if weights is None else
                                weights[labels == c]) for c in range(k)])  # fmt: skip


class Average:
    """Clusters that are given their labels."""

    def __init__(self, way, k):
        self.points, self.way = way.points, way
        self.clusters = self.way.clusters(k)

    def __call__(self, labels, centers):
        self.clusters.begin(labels.astype(np.int32))
        return means(self.points, self.clusters, centers)


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_means_follow_moving_labels(kind, weighted, make_way):
    rng = np.random.default_rng(0)
    rows = oracle.make_rows(kind, 700, 9, seed=0)
    weights = rng.uniform(0.1, 3, 700) if weighted else None
    average = Average(make_way(rows, weights), 11)
    labels = np.arange(700) % 11
    for moved in (0, 700, 5, 60, 1, 300, 0):
        labels = labels.copy()
        labels[11:][rng.integers(0, 689, moved)] = rng.integers(0, 11, moved)
        found = average(labels, rows[:11])
        atol = 1e-13 * np.abs(rows).max()
        expected = expected_means(rows, labels, 11, weights)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_means_of_whole_numbers_are_exact(dtype, mnist, make_way):
    rows = mnist.x_train[:8000].reshape(8000, -1)
    labels = mnist.y_train[:8000].astype(np.intp)
    found = Average(make_way(rows.astype(dtype)), 10)(labels, np.zeros((10, 784)))
    expected = [rows[labels == c].sum(axis=0, dtype=np.int64) / np.sum(labels == c)
                for c in range(10)]  # fmt: skip
    np.testing.assert_array_equal(found, expected)


def test_an_empty_cluster_takes_the_furthest_row(make_way):
    rows = np.array([[0.0], [1.0], [2.0], [50.0]])
    average = Average(make_way(rows), 2)
    found = average(np.zeros(4, dtype=np.intp), np.array([[1.0], [999.0]]))
    np.testing.assert_allclose(found, [[1.0], [50.0]])


def test_an_empty_cluster_among_equal_rows_sits_on_the_largest(make_way):
    average = Average(make_way(np.full((6, 2), 4.0)), 3)
    found = average(np.array([0, 0, 0, 0, 2, 2]), np.full((3, 2), 4.0))
    np.testing.assert_array_equal(found, np.full((3, 2), 4.0))


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_tell_the_inertia(kind, weighted, make_way):
    rng = np.random.default_rng(1)
    rows = oracle.make_rows(kind, 700, 9, seed=0)
    way = make_way(rows, rng.uniform(0.1, 3, 700) if weighted else None)
    points, average = way.points, Average(way, 11)
    labels, centers = rng.integers(0, 11, 700), rows[:11].astype(float)
    for _ in range(2):
        following = average(labels, centers)
        sums, counts = average.clusters.sums, average.clusters.counts
        found = inertia_of_sums(points, average.way.norm_sq, centers, sums, counts)
        assert found == pytest.approx(points.inertia(centers, labels), rel=1e-9)
        centers = following


@pytest.mark.parametrize("spread", [1e-6, 1e-2, 1e2])
def test_inertia_keeps_its_digits_where_sums_cancel(spread, make_way):
    rng = np.random.default_rng(2)
    labels = np.arange(900, dtype=np.int32) % 3
    rows = 10.0 * labels[:, None] + spread * rng.normal(size=(900, 5))
    way = make_way(rows)
    points, average = way.points, Average(way, 3)
    centers = average(labels, rows[:3])
    expected = np.square(rows.astype(np.longdouble) - centers[labels]).sum()
    found = points.squared(inertia(average.way, average.clusters, centers))
    assert found == pytest.approx(float(expected), rel=1e-13)
