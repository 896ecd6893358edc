"""Scores of rows with centres, and the two smallest of many."""

import numpy as np
import oracle
import pytest

from mnist_kmeans_mlx.device import host_rounding, resolve
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.host.comparison import (
    Comparison,
    two_smallest,
    two_smallest_of_columns,
    two_smallest_of_pairs,
)
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.points import Points


def smallest(scores):
    """By sorting: a stable sort puts the first of equals first."""
    order = np.argsort(scores, axis=1, kind="stable")
    values = np.take_along_axis(scores, order, axis=1)
    return order[:, 0], values[:, 0], values[:, 1]


@pytest.mark.parametrize("n", [0, 1, 500])
def test_the_two_smallest(n):
    rng = np.random.default_rng(0)
    # Whole numbers, so that many are equal.
    scores = rng.integers(0, 30, size=(n, 40)).astype(np.float32)
    label, best, second = smallest(scores)
    for found in (
        two_smallest(scores.copy()),
        two_smallest_of_columns(scores.T.copy(), np.zeros(n, dtype=np.int32)),
    ):
        np.testing.assert_array_equal(found[1], best)
        np.testing.assert_array_equal(found[2], second)
    np.testing.assert_array_equal(two_smallest(scores.copy())[0], label)
    # A right guess stands; of equals any is right.
    guess = rng.integers(0, 40, size=n).astype(np.int32)
    found, _, _ = two_smallest_of_columns(scores.T.copy(), guess)
    np.testing.assert_array_equal(scores[np.arange(n), found], best)


@pytest.mark.parametrize("n", [0, 1, 500])
def test_the_two_smallest_of_some(n):
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 30, size=(n, 40)).astype(np.float32)
    some = rng.random((n, 40)) < 0.1
    some[:, 7] = True
    starts = np.cumsum(some.sum(axis=1)) - some.sum(axis=1)
    place, best, second = two_smallest_of_pairs(scores[some], starts)
    expected = smallest(np.where(some, scores, np.inf))
    np.testing.assert_array_equal(np.nonzero(some)[1][place], expected[0])
    np.testing.assert_array_equal(best, expected[1])
    np.testing.assert_array_equal(second, expected[2])


@pytest.mark.parametrize("n", [0, 1, 300])
def test_what_scores_leave_open(n, device):
    rows = oracle.make_rows("normal", 300, 20, seed=0)
    points = Points(rows, resolve(device))
    compared = Comparison.whole(HostRows(points), Centers(points, rows[:40], host_rounding()))
    block = compared.rows(np.arange(n))
    norms_sq = HostRows(points).norms_sq[:n].astype(np.float32)
    scores = compared.scores(block, by_row=True)
    limit = np.quantile(scores, 0.1, axis=1).astype(np.float32)
    near = scores <= limit[:, None]
    lengths, centers, others = compared.within(scores, limit, norms_sq)
    np.testing.assert_array_equal(lengths, near.sum(axis=1))
    np.testing.assert_array_equal(centers, np.nonzero(near)[1])
    distances = np.sqrt(oracle.distances_sq(rows[:n], rows[:40])) * points.scale
    nearest = np.where(near, np.inf, distances).min(axis=1, initial=np.inf)
    assert (others <= nearest).all()
    np.testing.assert_allclose(others, nearest, rtol=1e-4)


@pytest.mark.parametrize("k", [5, 60])
def test_scores_are_those_of_float64_but_for_their_error(k, device):
    rows = oracle.make_rows("normal", 300, 20, seed=0)
    points = Points(rows, resolve(device))
    kept = HostRows(points)
    compared = Comparison.whole(kept, Centers(points, rows[:k], host_rounding()))
    index = np.arange(0, 300, 2)
    norms_sq = kept.norms_sq[index]
    exact = oracle.distances_sq(rows[index], rows[:k]) * points.scale**2 - norms_sq[:, None]
    error = compared.error(norms_sq.astype(np.float32))[:, None]
    block = compared.rows(index)
    by_row = compared.scores(block, by_row=True)
    assert by_row.shape == (150, k)
    some, own = np.array([3, 1]), np.arange(150, dtype=np.int32) % k
    assert (abs(by_row - exact) <= error).all()
    assert (abs(compared.scores(block, by_row=False).T - exact) <= error).all()
    scores = compared.of_some(some).scores(block, by_row=False)
    assert (abs(scores.T - exact[:, some]) <= error).all()
    assert (abs(compared.scores_with_own(block, own) - exact[np.arange(150), own]) <= error.T).all()
