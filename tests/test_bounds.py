"""Lower bounds in two bytes each."""

import numpy as np
import pytest

from mnist_kmeans_mlx.engine.host.bounds import MOST, LowerBounds

N, K, D = 40, 7, 3


def distances(rows, centers):
    return np.linalg.norm(rows[:, None] - centers, axis=2)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
@pytest.mark.parametrize("step", [1e-3, 0.1, 3])
def test_bounds_stay_bounds(step, scale):
    rng = np.random.default_rng(0)
    rows, centers = scale * rng.normal(size=(N, D)), scale * rng.normal(size=(K, D))
    reach, way = 20 * scale, np.zeros(K)
    bounds = LowerBounds(N, K, reach)
    assert (bounds.nearest(np.arange(N)) == 0).all()
    for _ in range(50):
        true = distances(rows, centers)
        lower = (true * (1 - 1e-6)).astype(np.float32)
        kept = rng.choice(N, 10, replace=False)
        bounds.keep(kept, lower[kept])
        row, center = rng.integers(N, size=10), rng.integers(K, size=10)
        bounds.keep_some(row, center, lower[row, center])
        # Just kept, they are as near as two units.
        fits = way.max() + true[kept].max() < 0.9 * reach
        gap = true[kept].min(axis=1) - bounds.nearest(kept)
        assert not fits or (gap <= 4 * 2 * reach / MOST + 1e-5 * scale).all()
        move = step * scale * rng.normal(size=(K, D)) * (rng.random((K, 1)) < 0.5)
        centers = centers + move
        way += np.linalg.norm(move, axis=1) * (1 + 1e-9)
        bounds.move(way)
        assert (bounds.nearest(np.arange(N)) <= distances(rows, centers).min(axis=1)).all()
    # In the end centres have come farther than two bytes hold.
    assert (way.max() > reach) == (step == 3)


def test_a_rows_own_centre_is_left_out():
    bounds = LowerBounds(2, 3, 100.0)
    bounds.keep(np.array([0, 1]), np.array([[np.inf, 5, 7], [2, np.inf, 9]], dtype=np.float32))
    np.testing.assert_allclose(bounds.nearest(np.array([1, 0])), [2, 5], atol=0.05)
    bounds.keep_some(np.array([0]), np.array([1]), np.array([np.inf], dtype=np.float32))
    np.testing.assert_allclose(bounds.nearest(np.array([0])), [7], atol=0.05)
    bounds.drop(np.array([0]))
    np.testing.assert_allclose(bounds.nearest(np.array([0, 1])), [0, 2], atol=0.05)


def test_rows_at_one_place():
    bounds = LowerBounds(1, 2, 0.0)
    bounds.keep(np.array([0]), np.zeros((1, 2), dtype=np.float32))
    assert bounds.nearest(np.array([0])) <= 0
