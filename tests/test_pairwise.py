from fractions import Fraction

import numpy as np
import oracle
import pytest
from scipy import sparse

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine import pairwise


@pytest.fixture
def distances(device):
    def measure(rows, centers):
        out = np.empty((rows.shape[0], len(centers)))
        pairwise.distances(rows, centers, resolve(device), out)
        return out

    return measure


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_distances_are_those_of_differences(kind, distances, monkeypatch):
    rows = oracle.make_rows(kind, 300, 20, seed=0)
    expected = np.sqrt(oracle.distances_sq(rows, rows[:9]))
    monkeypatch.setattr(pairwise, "STEP_BYTES", 8 * 20 * 17)
    for given in (rows, sparse.csr_matrix(rows)):
        found = distances(given, rows[:9])
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
