import numpy as np
import oracle
import pytest
from scipy import sparse

from mnist_kmeans_mlx.device import host_view
from mnist_kmeans_mlx.engine.points import Points


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_moved_rows_keep_distances(kind, backend):
    rows = oracle.make_rows(kind, 300, 7, seed=0)
    points = Points(rows, backend)
    moved = host_view(points.array).astype(np.float64) / points.scale
    spread = np.ptp(rows, axis=0).max()
    np.testing.assert_allclose(moved + points.origin, rows, rtol=0, atol=1e-6 * spread)
    assert np.abs(host_view(points.array)).max() <= points.limit * (1 + 1e-7)
    np.testing.assert_allclose(points.norms_sq, (points.moved(slice(None)) ** 2).sum(axis=1))
    variance = points.squared(points.mean_variance)
    assert variance == pytest.approx(rows.var(axis=0).mean(), rel=1e-9)
    assert (host_view(points.norms) >= np.sqrt(points.norms_sq)).all()


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_stay_whole(dtype, backend):
    rows = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 120, size=(400, 33))
    points = Points(rows.astype(dtype), backend)
    assert points.integer
    assert points.scale == 1
    np.testing.assert_array_equal(host_view(points.array) + points.origin, rows)
    expected = oracle.distances_sq(rows, rows[[7]])[:, 0]
    row = points.pick(np.array([7]))[0]
    np.testing.assert_array_equal(points.distances_sq_to(slice(0, 400), row), expected)
    chosen = np.array([399, 0, 7])
    np.testing.assert_array_equal(points.distances_sq_to(chosen, row), expected[chosen])


@pytest.mark.parametrize("scale", [1e-30, 1e-150, 1e30, 1e150])
def test_extreme_scales(scale, backend):
    rows = oracle.make_rows("normal", 50, 3, seed=0)
    points, plain = Points(rows * scale, backend), Points(rows, backend)
    np.testing.assert_allclose(
        points.norms_sq / points.limit**2, plain.norms_sq / plain.limit**2, rtol=1e-6
    )


def test_distances_to_own_centre(backend):
    rows = oracle.make_rows("offset", 120, 5, seed=1)
    points = Points(rows, backend)
    centers, owner = rows[:4], np.arange(120) % 4
    expected = oracle.distances_sq(rows, centers)[np.arange(120), owner]
    np.testing.assert_allclose(
        points.distances_sq(None, centers, owner) / points.scale**2, expected, rtol=1e-12
    )


def test_sparse_rows_equal_dense(backend):
    dense = np.random.default_rng(0).poisson(0.3, size=(200, 11)).astype(np.float64)
    a = Points(sparse.csr_array(dense), backend)
    b = Points(dense, backend)
    np.testing.assert_array_equal(host_view(a.array), host_view(b.array))


def test_constant_rows(backend):
    points = Points(np.full((5, 2), 0.1), backend)
    assert points.limit == 0
    assert points.mean_variance == 0
