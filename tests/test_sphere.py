import numpy as np
import pytest
from scipy import sparse

from mnist_kmeans_mlx.engine import sphere
from mnist_kmeans_mlx.engine.sphere import unit_centers, unit_rows


@pytest.fixture
def rows():
    """Rows of every magnitude that float64 has, also one of zeros."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 9)) * 10.0 ** rng.integers(-160, 150, (200, 1))
    rows[5] = 0
    rows[7, 3:] = 0
    rows[8] = 5e-324
    rows[9] = 1e308
    return rows


def test_unit_rows_keep_their_direction(rows):
    found = unit_rows(rows)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.arange(200) != 5, rtol=1e-15)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    some = rows / np.where(largest > 0, largest, 1)
    expected = some / np.maximum(np.linalg.norm(some, axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twice_is_once(rows, dtype):
    found = unit_rows(rows).astype(dtype)
    np.testing.assert_array_equal(unit_rows(found), found)


def test_sparse_rows_are_the_same(rows, monkeypatch):
    expected = unit_rows(rows)
    monkeypatch.setattr(sphere, "STEP_BYTES", 7 * 8 * 9)
    np.testing.assert_array_equal(unit_rows(rows), expected)
    found = unit_rows(sparse.csr_matrix(rows))
    assert sparse.issparse(found)
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-15)
    np.testing.assert_array_equal(unit_rows(found).toarray(), found.toarray())


def test_whole_numbers_become_float64():
    found = unit_rows(np.array([[3, 4]], dtype=np.uint8))
    assert found.dtype == np.float64
    assert found.tolist() == [[0.6, 0.8]]


def test_a_centre_without_direction_gets_one():
    assert unit_centers(np.array([[0.0, 0.0], [0.0, 2.0]])).tolist() == [[1, 0], [0, 1]]
