import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus
from sklearn.utils.extmath import row_norms

from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.seeding import (
    plus_plus,
    plus_plus_together,
    random_rows,
    split,
    together_pays,
)


def sklearn_seeds(rows, k, seed, weights=None):
    centered = rows - rows.mean(axis=0)
    _, chosen = kmeans_plusplus(
        centered,
        k,
        sample_weight=weights,
        x_squared_norms=row_norms(centered, squared=True),
        random_state=seed,
    )
    return chosen


@given(
    kind=st.sampled_from([k for k in oracle.KINDS if k not in ("duplicates", "grid")]),
    n=st.integers(2, 300),
    d=st.integers(2, 40),
    seed=st.integers(0, 10_000),
    share=st.floats(0, 1),
    weighted=st.booleans(),
)
def test_draws_what_sklearn_draws(kind, n, d, seed, share, weighted, device):
    rows = oracle.make_rows(kind, n, d, seed)
    k = max(1, int(share * n * 0.5))
    weights = np.random.default_rng(seed).uniform(0.5, 2, n) if weighted else None
    points = Points(rows, resolve(device), weights)
    chosen = plus_plus(points, k, np.random.RandomState(seed))
    expected = sklearn_seeds(rows, k, seed, weights)
    if len(np.unique(rows, axis=0)) < n or np.array_equal(chosen, expected):
        return
    # Two candidates nearest to each other leave the same potential, and rounding chooses.
    first = np.flatnonzero(chosen != expected)[0]
    potentials = [
        oracle.distances_sq(rows, rows[seeds[: first + 1]]).min(axis=1)
        @ (np.ones(n) if weights is None else weights)
        for seeds in (chosen, expected)
    ]
    assert potentials[0] == pytest.approx(potentials[1], rel=1e-12)


@pytest.mark.parametrize("k", [20, 100])
@pytest.mark.parametrize("scale", [1, 255])
def test_draws_what_sklearn_draws_on_mnist(k, scale, mnist, device):
    rows = mnist.x_train[::12].reshape(5000, -1)
    rows = rows if scale == 1 else rows / scale
    chosen = plus_plus(Points(rows, resolve(device)), k, np.random.RandomState(0))
    np.testing.assert_array_equal(chosen, sklearn_seeds(rows.astype(np.float64), k, 0))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_knows_the_nearest_seed_of_every_row(kind, weighted, device):
    rows = oracle.make_rows(kind, 1000, 30, seed=0)
    weights = np.random.default_rng(0).integers(0, 3, 1000).astype(float) if weighted else None
    nearest = np.full(1000, -1, dtype=np.int32)
    points = Points(rows, resolve(device), weights)
    chosen = plus_plus(points, 25, np.random.RandomState(0), nearest=nearest)
    expected = oracle.distances_sq(rows, rows[chosen]).argmin(axis=1)
    np.testing.assert_array_equal(nearest, expected)


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("k", [1, 2, 20])
def test_draws_can_be_taken_before_they_are_needed(k, generator, device):
    points = Points(oracle.make_rows("pixels", 300, 9, seed=0), resolve(device))
    one, other = (np.random.RandomState(generator(5)) for _ in range(2))
    own = split(other, k)
    np.testing.assert_array_equal(plus_plus(points, k, one), plus_plus(points, k, own))
    assert one.random_sample() == other.random_sample() == own.random_sample()


@pytest.mark.parametrize("weights", ["none", "whole", "any"])
@pytest.mark.parametrize(
    ("low", "high", "d"), [(0, 30, 40), (0, 256, 784), (-120, 120, 784), (0, 3, 4)]
)
def test_together_it_chooses_what_it_chooses_alone(low, high, d, weights, device):
    rng = np.random.default_rng(0)
    rows = rng.integers(low, high, size=(700, d)).astype(np.int16 if low < 0 else np.uint8)
    given = {"none": None, "whole": rng.integers(0, 3, 700).astype(float), "any": rng.random(700)}
    points = Points(rows, resolve(device), given[weights])
    assert points.products_are_exact
    # Of such long rows only parts have exact products.
    assert (points.largest_norm_sq > 1 << 24) == (high == 256)
    found = plus_plus_together(points, 15, [np.random.RandomState(seed) for seed in range(5)])
    assert len(found) == 5
    for seed, (chosen, nearest) in enumerate(found):
        alone = np.empty(700, dtype=np.int32)
        expected = plus_plus(points, 15, np.random.RandomState(seed), nearest=alone)
        np.testing.assert_array_equal(chosen, expected)
        np.testing.assert_array_equal(nearest, alone)


def test_together_only_where_it_is_exact_and_fits():
    rows = np.random.default_rng(0).integers(0, 256, size=(500, 16)).astype(np.uint8)
    points = Points(rows, resolve("cpu"))
    assert together_pays(points, 20, 10)
    assert not together_pays(points, 20, 3)
    points.spare = 8 * 500 * 10 * 6 - 1
    assert not together_pays(points, 20, 10)
    assert not together_pays(Points(rows / 255, resolve("cpu")), 20, 10)


def test_zero_weights_never_seed(device):
    rows = oracle.make_rows("normal", 200, 4, 0)
    weights = np.zeros(200)
    weights[::9] = 1
    for seed in range(20):
        points = Points(rows, resolve(device), weights)
        for draw in (plus_plus, random_rows):
            assert (draw(points, 12, np.random.RandomState(seed)) % 9 == 0).all()


def test_random_rows_are_different_and_sklearns(device):
    points = Points(oracle.make_rows("normal", 50, 3, 0), resolve(device))
    chosen = random_rows(points, 50, np.random.RandomState(5))
    assert len(set(chosen)) == 50
    expected = np.random.RandomState(5).choice(50, 50, replace=False, p=np.full(50, 1 / 50))
    np.testing.assert_array_equal(chosen, expected)


def test_more_seeds_than_different_rows(device):
    rows = np.repeat(np.arange(3.0), 4)[:, None]
    chosen = plus_plus(Points(rows, resolve(device)), 8, np.random.RandomState(0))
    assert set(rows[chosen, 0]) == {0, 1, 2}
