import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus
from sklearn.utils.extmath import row_norms

from mnist_kmeans_mlx.engine.seeding.sampling import Draws, random_rows
from mnist_kmeans_mlx.engine.seeding.start import draw


def plus_plus(way, k, random_state):
    return draw(way, "k-means++", k, random_state)[0]


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
def test_draws_what_sklearn_draws(kind, n, d, seed, share, weighted, make_way):
    rows = oracle.make_rows(kind, n, d, seed)
    k = max(1, int(share * n * 0.5))
    weights = np.random.default_rng(seed).uniform(0.5, 2, n) if weighted else None
    way = make_way(rows, weights)
    chosen = plus_plus(way, k, np.random.RandomState(seed))
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
def test_draws_what_sklearn_draws_on_mnist(k, scale, mnist, make_way):
    rows = mnist.x_train[::12].reshape(5000, -1)
    rows = rows if scale == 1 else rows / scale
    chosen = plus_plus(make_way(rows), k, np.random.RandomState(0))
    np.testing.assert_array_equal(chosen, sklearn_seeds(rows.astype(np.float64), k, 0))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_knows_the_nearest_seed_of_every_row(kind, weighted, make_way):
    rows = oracle.make_rows(kind, 1000, 30, seed=0)
    weights = np.random.default_rng(0).integers(0, 3, 1000).astype(float) if weighted else None
    way = make_way(rows, weights)
    chosen, nearest = draw(way, "k-means++", 25, np.random.RandomState(0))
    expected = oracle.distances_sq(rows, rows[chosen]).argmin(axis=1)
    np.testing.assert_array_equal(nearest, expected)


@pytest.mark.parametrize("generator", [np.random.MT19937, np.random.PCG64])
@pytest.mark.parametrize("k", [1, 2, 20])
def test_draws_can_be_taken_before_they_are_needed(k, generator, make_way):
    way = make_way(oracle.make_rows("pixels", 300, 9, seed=0))
    one, other = (np.random.RandomState(generator(5)) for _ in range(2))
    own = Draws(other, k)
    np.testing.assert_array_equal(plus_plus(way, k, one), plus_plus(way, k, own))
    assert one.random_sample() == other.random_sample()


def test_zero_weights_never_seed(make_way):
    rows = oracle.make_rows("normal", 200, 4, 0)
    weights = np.zeros(200)
    weights[::9] = 1
    for seed in range(20):
        way = make_way(rows, weights)
        for chosen in (
            plus_plus(way, 12, np.random.RandomState(seed)),
            random_rows(way.points, 12, np.random.RandomState(seed)),
        ):
            assert (chosen % 9 == 0).all()


def test_more_seeds_than_different_rows(make_way):
    rows = np.repeat(np.arange(3.0), 4)[:, None]
    chosen = plus_plus(make_way(rows), 8, np.random.RandomState(0))
    assert set(rows[chosen, 0]) == {0, 1, 2}
