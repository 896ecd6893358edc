from fractions import Fraction

import numpy as np
import oracle
import pytest
from doubles import MULTIPLIERS, make_device
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from test_decision import exact_square

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine import nearest as room
from mnist_kmeans_mlx.engine.nearest import Nearest

# From the least that float64 holds to the largest.
SCALES = (5e-324, 1e-310, 1e-200, 1e-160, 1e-40, 1e-8, 1.0, 1e8, 1e30, 1e160, 1e200, 1e307)


@pytest.mark.parametrize("kind", oracle.KINDS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float16, np.float32, np.float64])
def test_labels_are_those_of_float64(kind, dtype, backend):
    rows = oracle.make_rows(kind, 500, 9, seed=1)
    rows = np.clip(rows, 0, 255).astype(dtype) if np.dtype(dtype).kind in "iu" else rows
    rows = np.clip(rows, -6e4, 6e4).astype(dtype)
    centers = rows[::50].astype(np.float64) + 0.25
    expected = oracle.distances_sq(rows, centers)
    nearest = Nearest(centers, backend)
    labels = nearest.labels(rows)
    np.testing.assert_array_equal(labels, expected.argmin(axis=1))
    own = expected[np.arange(500), labels]
    np.testing.assert_array_equal(nearest.costs(rows, labels), own)
    weights = np.arange(500.0)
    assert nearest.inertia(rows, labels, weights) == pytest.approx(own @ weights, rel=1e-14)


@pytest.mark.parametrize("d", [1, 16, 300])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_inertia_of_float32(kind, d, device):
    """Differences of neighbours lose nothing, and what squares in float32 lose no sum shows."""
    rows = oracle.make_rows(kind, 500, d, seed=3).astype(np.float32)
    centers = rows[::50].astype(np.float64)
    expected = oracle.distances_sq(rows, centers)
    labels, nearest = expected.argmin(axis=1), Nearest(centers, device)
    own = expected[np.arange(500), labels]
    assert nearest.inertia(rows, labels) == pytest.approx(own.sum(), rel=1e-7)


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e5, 1e18, 1e22])
def test_inertia_of_float32_out_of_its_range(scale, device):
    rows = (oracle.make_rows("normal", 300, 5, seed=4) * scale).astype(np.float32)
    for some in (rows, rows[:1] / np.float32(scale)):
        centers = some[:1].astype(np.float64)
        labels, expected = np.zeros(300, np.int32), oracle.distances_sq(rows, centers).sum()
        assert Nearest(centers, device).inertia(rows, labels) == pytest.approx(expected, rel=1e-6)


def test_inertia_of_squares_that_float32_has_not(device):
    rows = np.array([[1, 1e-25], [1, 3e-25]], dtype=np.float32)
    centers, expected = np.array([[1.0, 0.0]]), np.square(rows[:, 1].astype(np.float64)).sum()
    found = Nearest(centers, device).inertia(rows, np.zeros(2, np.int32))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
def test_also_where_products_are_rough(multiplier, device):
    rows = oracle.make_rows("normal", 3000, 12, seed=2)
    centers = rows[:40]
    found = Nearest(centers, make_device(device, multiplier)).labels(rows)
    np.testing.assert_array_equal(found, oracle.distances_sq(rows, centers).argmin(axis=1))


@given(
    seed=st.integers(0, 999),
    own=st.sampled_from(SCALES),
    others=st.lists(st.sampled_from(SCALES), min_size=12, max_size=12),
)
def test_no_row_depends_on_its_company(seed, own, others, backend):
    rng = np.random.default_rng(seed)
    centers = rng.uniform(-1, 1, size=(4, 2)) * own
    rows = rng.uniform(-1, 1, size=(12, 2)) * np.array(others)[:, None]
    nearest = Nearest(centers, backend)
    labels = nearest.labels(rows)
    for row, label in zip(rows, labels, strict=True):
        assert nearest.labels(row[None]) == [label]
        squares = [exact_square(row, center) for center in centers]
        # Equal up to the rounding of float64 is equal.
        assert float(squares[label] / (min(squares) or 1)) <= 1 + 1e-13


def test_equal_distances_take_the_first_in_any_company(backend):
    # Nearer to one another than float64 can see from these rows.
    centers = np.array([[1e-20, 0.0], [0.0, 0.0]])
    nearest = Nearest(centers, backend)
    assert nearest.labels(np.array([[1.0, 0.0]])).tolist() == [0]
    assert nearest.labels(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])).tolist() == [0, 0, 1]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("n", "k"), [(1, 4), (3, 4), (500, 4), (500, 1)])
@pytest.mark.parametrize("d", [1, 4, 9, 40])
def test_what_is_not_finite_is_refused(bad, n, k, d, backend):
    rows = oracle.make_rows("normal", n, d, seed=0).astype(np.float32)
    nearest = Nearest(oracle.make_rows("normal", k, d, seed=1), backend)
    nearest.labels(rows)
    rows[n // 2, d // 2] = bad
    with pytest.raises(ValueError, match="Input X contains NaN or infinity"):
        nearest.labels(rows)


@pytest.mark.parametrize("d", [2, 9, 40])
def test_one_row_far_off_leaves_the_others_theirs(d, backend):
    rows = oracle.make_rows("normal", 400, d, seed=0)
    rows[7] = 1e12
    rows[8] = -1e30
    centers = oracle.make_rows("normal", 20, d, seed=1)
    expected = oracle.distances_sq(rows, centers).argmin(axis=1)
    np.testing.assert_array_equal(Nearest(centers, backend).labels(rows), expected)


def test_sparse_rows_equal_dense(backend):
    dense = np.random.default_rng(0).poisson(0.3, size=(200, 11)).astype(np.float64)
    nearest = Nearest(dense[:7] + 0.5, backend)
    labels = nearest.labels(dense)
    np.testing.assert_array_equal(nearest.labels(sparse.csr_array(dense)), labels)
    assert nearest.inertia(sparse.csr_array(dense), labels) == nearest.inertia(dense, labels)


def test_many_rows_in_blocks(backend):
    rows = np.random.default_rng(0).normal(size=(200_000, 3))
    centers = rows[:9]
    found = Nearest(centers, backend).labels(rows)
    np.testing.assert_array_equal(found, oracle.distances_sq(rows, centers).argmin(axis=1))


# Distances


@pytest.fixture
def distances(device):
    def measure(rows, centers):
        out = np.empty((rows.shape[0], len(centers)))
        Nearest(centers, resolve(device)).distances(rows, out)
        return out

    return measure


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_distances_are_those_of_differences(kind, distances, monkeypatch):
    rows = oracle.make_rows(kind, 300, 20, seed=0)
    expected = np.sqrt(oracle.distances_sq(rows, rows[:9]))
    monkeypatch.setattr(room, "BLOCK", 8 * 20 * 17)
    for same in (rows, sparse.csr_matrix(rows)):
        found = distances(same, rows[:9])
        np.testing.assert_allclose(found, expected, rtol=1e-9)
        assert (found.diagonal() == 0).all()


def test_neighbours_are_told_apart(distances):
    center = np.random.default_rng(0).normal(size=(3, 40)) + 1000
    rows = center[[1]] + 1e-9
    exact = sum((Fraction(x) - Fraction(c)) ** 2 for x, c in zip(rows[0], center[1], strict=True))
    assert distances(rows, center)[0, 1] == pytest.approx(float(exact) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_squares_need_not_be_numbers(scale, distances):
    rows = oracle.make_rows("normal", 50, 4, seed=0)
    found = distances(rows * scale, rows[:3] * scale)
    np.testing.assert_allclose(found, distances(rows, rows[:3]) * scale, rtol=1e-9)


def test_a_distance_that_no_number_holds_is_refused(distances):
    centers = np.array([[1.7e308, -1.7e308]])
    assert distances(np.array([[1.7e308, 0.0]]), centers).tolist() == [[1.7e308]]
    with pytest.raises(ValueError, match=r"larger than float64 holds, 1.8e\+308"):
        distances(-centers, centers)
    with pytest.raises(ValueError, match=r"larger than float32 holds, 3.4e\+38"):
        Nearest(centers, resolve("cpu")).distances(centers * 0, np.empty((1, 1), np.float32))
    # Squares that float64 holds, of a distance that float32 does not.
    with pytest.raises(ValueError, match=r"larger than float32 holds, 3.4e\+38"):
        Nearest(np.array([[3e38]]), resolve("cpu")).distances(
            np.array([[-3e38]], np.float32), np.empty((1, 1), np.float32)
        )
