import numpy as np
import oracle
import pytest
from doubles import make_device
from ranks import on_ranks, shares
from scipy import sparse

from mnist_kmeans_mlx.distributed import ALONE, current
from mnist_kmeans_mlx.engine import points as points_
from mnist_kmeans_mlx.engine.fingerprint import fingerprint
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import choose


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_moved_rows_keep_distances(kind, backend):
    rows = oracle.make_rows(kind, 300, 7, seed=0)
    points = Points(rows, backend)
    narrow = points.narrow(slice(None)).astype(np.float64)
    spread = np.ptp(rows, axis=0).max()
    np.testing.assert_allclose(
        narrow / points.scale + points.origin, rows, rtol=0, atol=1e-6 * spread
    )
    assert np.abs(narrow).max() <= points.limit * (1 + 1e-7)
    way, squares = choose(points, 3), (points.moved(slice(None)) ** 2).sum(axis=1)
    assert way.norm_sq == pytest.approx(squares.sum(), rel=1e-12)
    variance = points.squared(way.mean_variance)
    assert variance == pytest.approx(rows.var(axis=0).mean(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_stay_whole(dtype, backend):
    rows = np.random.default_rng(0).integers(0, 2 if dtype is np.bool_ else 120, size=(400, 33))
    points = Points(rows.astype(dtype), backend)
    assert points.integer
    assert points.scale == 1
    np.testing.assert_array_equal(points.narrow(slice(None)) + points.origin, rows)
    expected = oracle.distances_sq(rows, rows[[7]])[:, 0]
    row, kept = points.pick(np.array([7]))[0], HostRows(points)
    np.testing.assert_array_equal(kept.distances_sq_to(slice(0, 400), row), expected)
    chosen = np.array([399, 0, 7])
    np.testing.assert_array_equal(kept.distances_sq_to(chosen, row), expected[chosen])


@pytest.mark.parametrize("scale", [1e-30, 1e-150, 1e30, 1e150])
def test_extreme_scales(scale, backend):
    rows = oracle.make_rows("normal", 50, 3, seed=0)
    points, plain = Points(rows * scale, backend), Points(rows, backend)
    ways = choose(points, 3), choose(plain, 3)
    assert ways[0].norm_sq / points.limit**2 == pytest.approx(ways[1].norm_sq / plain.limit**2)


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
    np.testing.assert_array_equal(a.narrow(slice(None)), b.narrow(slice(None)))


def test_constant_rows(backend):
    points = Points(np.full((5, 2), 0.1), backend)
    assert points.limit == 0
    assert choose(points, 1).mean_variance == 0


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.uint8, np.int64, "csr"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_fingerprint_is_that_of_all_rows_on_any_ranks(kind, weighted, monkeypatch, backend):
    """Blocks of 16 rows, which ranks cut anywhere; one of them may hold less than a block."""
    monkeypatch.setattr("mnist_kmeans_mlx.engine.points.HOST_BLOCK", 16 * 8 * 3)
    rng = np.random.default_rng(0)
    given = rng.integers(0, 200, (150, 3)).astype(np.float64 if kind == "csr" else kind)
    rows = sparse.csr_matrix(given) if kind == "csr" else given
    weights = rng.uniform(size=150) if weighted else None

    def of(rows, weights, group=ALONE, part=slice(None)):
        own = None if weights is None else weights[part]
        return fingerprint(Points(rows[part], backend, own, group))

    expected = of(rows, weights)
    assert of(rows.copy(), weights) == expected
    for size in (2, 3, 7):
        parts = shares(150, size, seed=size)
        found = on_ranks(size, lambda rank, p=parts: of(rows, weights, current(), p[rank]))
        assert set(found) == {expected}
    swapped = np.arange(150)
    swapped[[40, 80]] = 80, 40
    changed = given.copy()
    changed[77, 1] += 1
    for other in (given[swapped], changed):
        assert of(sparse.csr_matrix(other) if kind == "csr" else other, weights) != expected
    assert of(rows, np.ones(150) if weights is None else weights[swapped]) != expected


def test_few_rows_are_left_to_one_thread(monkeypatch):
    monkeypatch.setattr(points_, "ONE_THREAD", 5_000_000)
    device = make_device("cpu", workers=3)
    few, many = np.zeros((1000, 784)), np.zeros((200_000, 1))
    assert Points(few, device).host.workers == 1
    assert Points(many, device).host.workers == 3
    assert Points(sparse.csr_matrix(few), device).host.workers == 3
