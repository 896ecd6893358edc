"""Rows are drawn as NumPy draws them."""

import numpy as np
import oracle

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine.exact import Exact, joined
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.seeding.sampling import WeightedSampling, random_rows


def test_finds_where_the_running_sum_reaches_a_draw(device):
    rng = np.random.default_rng(0)
    n = 100_000
    shares = rng.integers(0, 5, n).astype(np.float64)
    points = Points(np.zeros((n, 1), dtype=np.uint8), resolve(device))
    sampling = WeightedSampling(points, Exact(5, n, whole=True), shares)
    ends = np.cumsum(shares)
    assert joined(sampling.sums) == ends[-1]
    draws = np.concatenate([rng.uniform(0, ends[-1], 500), ends[::9999], [0, ends[-1]]])
    np.testing.assert_array_equal(sampling.find(draws), np.searchsorted(ends, draws))
    passed = np.minimum(np.searchsorted(ends, draws, side="right"), n - 1)
    np.testing.assert_array_equal(sampling.find(draws, side="right"), passed)


def test_random_rows_are_different_and_sklearns(device):
    points = Points(oracle.make_rows("normal", 50, 3, 0), resolve(device))
    chosen = random_rows(points, 50, np.random.RandomState(5))
    assert len(set(chosen)) == 50
    expected = np.random.RandomState(5).choice(50, 50, replace=False, p=np.full(50, 1 / 50))
    np.testing.assert_array_equal(chosen, expected)
