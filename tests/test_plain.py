"""The plain way finds what the host's way finds, to the last bit."""

import numpy as np
import oracle
import pytest
from doubles import host, plain

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.lloyd import iterate, lloyd, side_by_side
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import choose


def assert_same(a, b):
    assert (a.n_iter, a.converged, a.shift) == (b.n_iter, b.converged, b.shift)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.centers, b.centers)
    assert a.inertia == pytest.approx(b.inertia, rel=1e-12)


@pytest.mark.parametrize("weights", ["none", "whole", "any"])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_it_takes_the_same_steps_to_the_same_bits(kind, weights):
    given = oracle.make_rows(kind, 700, 30, seed=3)
    rng = np.random.default_rng(0)
    heavy = {"none": None, "whole": rng.integers(0, 9, 700) * 1.0, "any": rng.uniform(0, 2, 700)}
    a, b = (make(given, heavy[weights]) for make in (host, plain))
    assert (a.norm_sq, a.mean_variance) == (b.norm_sq, b.mean_variance)
    for seed in range(3):
        (one,), (other,) = (w.seed(11, [np.random.RandomState(seed)], 4) for w in (a, b))
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
        limits = {"max_iter": 40, "tol": 1e-4 * a.mean_variance}
        assert_same(*(lloyd(way, given[one[0]], **limits) for way in (a, b)))


def test_restarts_side_by_side_are_restarts_one_by_one():
    given = oracle.make_rows("grid", 900, 3, seed=0)
    way, limits = plain(given), {"max_iter": 50, "tol": 0}
    starts = [given[7 * number :][:8] for number in range(5)]
    together = side_by_side(way, [iterate(way, start, **limits) for start in starts])
    assert len({run.n_iter for run in together}) > 1  # some drop out before others
    for start, run in zip(starts, together, strict=True):
        assert_same(lloyd(way, start, **limits), run)


@pytest.mark.parametrize("far", [1e3, 1e18, 1e200])
def test_centres_far_off_and_clusters_that_run_empty(far):
    given = oracle.make_rows("normal", 300, 4, seed=0)
    start = np.concatenate([given[:3], np.full((3, 4), far) + np.arange(3)[:, None]])
    assert_same(*(lloyd(make(given), start, max_iter=50, tol=0) for make in (host, plain)))


def test_more_equal_centres_than_a_byte_counts():
    given = np.tile(np.arange(3.0), 100)[:, None]
    found = lloyd(plain(given), np.zeros((257, 1)), max_iter=1, tol=0)
    expected = oracle.kmeans(given, np.zeros((257, 1)), max_iter=1)
    np.testing.assert_array_equal(found.labels, expected[0])


def test_few_rows_take_it():
    def chosen(n, d, k, algorithm="auto"):
        return type(choose(Points(np.zeros((n, d)), resolve("cpu")), k, algorithm))

    assert chosen(150, 4, 3) is PlainWay
    assert chosen(200_000, 4, 3) is HostWay
    assert chosen(150, 4, 3, "lloyd") is PlainWay
    assert chosen(150, 4, 3, "elkan") is HostWay


@pytest.mark.parametrize("kind", ["normal", "duplicates", "pixels"])
def test_seeds_found_together_are_those_found_one_by_one(kind):
    way = plain(oracle.make_rows(kind, 400, 6, seed=0))
    found = way.seed(9, [np.random.RandomState(seed) for seed in range(5)], 4)
    for seed, (rows, nearest) in enumerate(found):
        ((expected, labels),) = way.seed(9, [np.random.RandomState(seed)], 4)
        np.testing.assert_array_equal(rows, expected)
        np.testing.assert_array_equal(nearest, labels)
