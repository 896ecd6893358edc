"""Seeds found together are those found one after the other."""

import numpy as np
import pytest
from ranks import on_ranks, shares

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.distributed import current
from mnist_kmeans_mlx.engine.host import joint
from mnist_kmeans_mlx.engine.host.plus_plus import plus_plus
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.points import Points


@pytest.mark.parametrize("weights", ["none", "whole", "any"])
@pytest.mark.parametrize(
    ("low", "high", "d"), [(0, 30, 40), (0, 256, 784), (-120, 120, 784), (0, 3, 4)]
)
def test_together_it_chooses_what_it_chooses_alone(low, high, d, weights, backend):
    rng = np.random.default_rng(0)
    rows = rng.integers(low, high, size=(700, d)).astype(np.int16 if low < 0 else np.uint8)
    given = {"none": None, "whole": rng.integers(0, 3, 700).astype(float), "any": rng.random(700)}
    kept = HostRows(Points(rows, backend, given[weights]))
    assert kept.products_are_exact
    # Of such long rows only parts have exact products.
    assert (kept.largest_norm_sq > 1 << 24) == (high == 256)
    found = joint.plus_plus(kept, 15, [np.random.RandomState(seed) for seed in range(5)], 4)
    assert len(found) == 5
    for seed, (chosen, nearest) in enumerate(found):
        expected, alone = plus_plus(kept, 15, np.random.RandomState(seed), 4)
        np.testing.assert_array_equal(chosen, expected)
        np.testing.assert_array_equal(nearest, alone)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("offset", "step"), [(0.0, 0.0), (1e6, 0.0), (-3e-5, 0.25), (0.5, 1e-9)], ids=str
)
@pytest.mark.parametrize("d", [1, 2, 8])
def test_by_column_it_chooses_what_bounds_choose(d, offset, step, weighted, backend):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(900, d)) * 10.0 ** rng.integers(-3, 3, size=(900, 1))
    if step:  # many are equal, and many nearly
        rows = np.round(rows / step) * step
    rows += offset
    weights = rng.random(900) if weighted else None
    kept = HostRows(Points(rows, backend, weights))
    if not kept.by_column:
        pytest.skip("no memory is counted for a copy of the rows")
    for seed in range(4):
        ((chosen, nearest),) = joint.plus_plus(kept, 12, [np.random.RandomState(seed)], 4)
        expected, alone = plus_plus(kept, 12, np.random.RandomState(seed), 4)
        np.testing.assert_array_equal(chosen, expected)
        np.testing.assert_array_equal(nearest, alone)


def test_together_only_where_it_is_exact_and_fits():
    rows = np.random.default_rng(0).integers(0, 256, size=(500, 16)).astype(np.uint8)
    kept = HostRows(Points(rows, resolve("cpu")))
    assert joint.pays(kept, 20, 10)
    assert not joint.pays(kept, 20, 3)
    kept.points.spare = 8 * 500 * 10 * 6 - 1
    assert not joint.pays(kept, 20, 10)
    assert not joint.pays(HostRows(Points(rows / 255, resolve("cpu"))), 20, 10)


@pytest.mark.parametrize("short", [[], [1], [0, 1]])
def test_ranks_seed_alike_where_memory_is_short_on_some(short):
    rows = np.random.default_rng(0).normal(size=(900, 3))
    parts = shares(len(rows), 2)
    (expected,) = HostWay(Points(rows, resolve("cpu"))).seed(6, [np.random.RandomState(0)], 3)

    def seed(rank):
        keep = rank not in short
        points = Points(rows[parts[rank]], resolve("cpu"), group=current(), keep=keep)
        return HostWay(points).seed(6, [np.random.RandomState(0)], 3)

    found = [seeds for (seeds,) in on_ranks(2, seed)]
    for chosen, _ in found:
        np.testing.assert_array_equal(chosen, expected[0])
    np.testing.assert_array_equal(np.concatenate([near for _, near in found]), expected[1])
