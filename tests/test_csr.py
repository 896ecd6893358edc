import numpy as np
import oracle
import pytest
from scipy import sparse

from mnist_kmeans_mlx.engine import csr


def make(kind="normal", n=200, d=13):
    rows = oracle.make_rows(kind, n, d, seed=0)
    rows[np.random.default_rng(1).random((n, d)) < 0.5] = 0
    rows[[0, 7, -1]] = 0
    return rows


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_distances_are_those_of_differences(kind, backend, monkeypatch):
    monkeypatch.setattr(csr, "ENTRIES", 100)
    monkeypatch.setattr(csr, "WORK", 100)
    monkeypatch.setattr(csr, "DENSE_BYTES", 8 * 13 * 3)
    rows = make(kind)
    centers, owner = rows[:9], np.arange(200) % 9
    expected = oracle.distances_sq(rows, centers)[np.arange(200), owner]
    found = csr.distances_sq(sparse.csr_matrix(rows), centers, owner, backend.host)
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert (found[:9] == 0).all()


@pytest.mark.parametrize("width", [1, 7, 10**6])
def test_parts_hold_each_row_once(width, monkeypatch):
    monkeypatch.setattr(csr, "ENTRIES", 40)
    monkeypatch.setattr(csr, "WORK", 100)
    monkeypatch.setattr(csr, "PRODUCTS", 300)
    rows = sparse.csr_matrix(make())
    parts = csr.parts(rows, width)
    assert [n for part in parts for n in range(part.start, part.stop)] == list(range(200))
    for part in parts:
        size = part.stop - part.start
        assert size == 1 or size * width <= 300
        assert size == 1 or rows[part].nnz <= max(40, 100 // width)
        np.testing.assert_array_equal(csr.block(rows, part).toarray(), rows[part].toarray())
    assert csr.parts(rows[:0]) == []


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_sums_and_norms_of_rows(dtype):
    rows = make("pixels").astype(dtype)
    block = csr.block(sparse.csr_matrix(rows), slice(3, 150))
    assert block.dtype == np.float64
    dense = rows[3:150].astype(np.float64)
    np.testing.assert_array_equal(csr.norms_sq(block), np.square(dense).sum(axis=1))
    np.testing.assert_array_equal(csr.of_rows(np.maximum, block, block.data), dense.max(axis=1))
    labels, total = np.arange(147) % 4, np.ones((4, 13))
    csr.add(total[None], block, labels, block.data[None])
    expected = 1 + np.stack([dense[labels == label].sum(axis=0) for label in range(4)])
    np.testing.assert_array_equal(total, expected)


def test_entries_of_one_column_are_merged():
    rows = sparse.csr_matrix((np.array([1.0, 2, 4]), [5, 1, 5], [0, 3]), shape=(1, 8))
    merged = csr.canonical(rows)
    assert (merged.indices.tolist(), merged.data.tolist()) == ([1, 5], [2, 5])
    assert rows.indices.tolist() == [5, 1, 5]
    assert csr.canonical(merged) is merged
