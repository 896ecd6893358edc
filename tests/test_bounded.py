"""Labels are those of float64, however poorly the device multiplies."""

import numpy as np
import oracle
import pytest
from doubles import make_device, traced
from scipy.spatial.distance import cdist

from mnist_kmeans_mlx.device import host_rounding, resolve
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.host.bounded import BoundedAssignment
from mnist_kmeans_mlx.engine.host.comparison import sketched
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.sketch import TurningSketch
from mnist_kmeans_mlx.engine.points import Points


def ready(points, centers):
    return Centers(points, centers, host_rounding())


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_labels_are_those_of_float64(kind):
    rows = oracle.make_rows(kind, 2000, 50, seed=0)
    rng = np.random.default_rng(1)
    centers = rows[rng.choice(2000, 40, replace=False)]
    centers[1] = centers[0]
    # Midpoints lie as near to one centre as to another, up to the last bit.
    rows = np.concatenate([rows, (centers[2:] + centers[:-2]) / 2])
    points = Points(rows, resolve("cpu"))
    expected = oracle.distances_sq(rows, centers).argmin(axis=1)
    assign = BoundedAssignment(HostRows(points), 40)
    np.testing.assert_array_equal(assign(ready(points, centers)), expected)
    assert assign.rechecked >= 38


# With 200 centres those that moved farthest come first, with 130 features all have bounds.
@pytest.mark.parametrize(("k", "d"), [(30, 8), (200, 8), (50, 130)])
def test_bounds_stay_bounds_while_centres_move(k, d):
    rng = np.random.default_rng(0)
    rows = oracle.make_rows("normal", 1500, d, seed=0)
    points = Points(rows, resolve("cpu"))
    centers = rows[:k].copy()
    bounded = BoundedAssignment(HostRows(points), k)
    for step in range(60):
        expected = oracle.distances_sq(rows, centers).argmin(axis=1)
        np.testing.assert_array_equal(bounded(ready(points, centers)), expected)
        step_size = 10.0 ** -rng.integers(0, 7) * (rng.random((k, 1)) < 0.4)
        centers = centers + step_size * rng.normal(size=centers.shape)
        if step == 20:
            centers[3] = centers[4]
    assert bounded.compared < 60 * 1500 * 0.5


def test_what_hardly_moves_is_not_compared():
    rng = np.random.default_rng(0)
    rows = oracle.make_rows("normal", 3000, 6, seed=0)
    points, centers = Points(rows, resolve("cpu")), rows[:160].copy()
    bounded = BoundedAssignment(HostRows(points), 160)
    bounded(ready(points, centers))
    for _ in range(5):
        # A few move far, as in the first steps of a fit, and would open nearly all rows.
        movers = rng.choice(160, 20, replace=False)
        centers = centers.copy()
        centers[movers] = rows[rng.choice(3000, 20, replace=False)]
        before = bounded.compared
        expected = oracle.distances_sq(rows, centers).argmin(axis=1)
        np.testing.assert_array_equal(bounded(ready(points, centers)), expected)
        assert bounded.compared - before < 0.4 * 3000


@pytest.mark.parametrize("chunk_bytes", [1, 10_000, 1 << 28])
def test_chunks_do_not_show(chunk_bytes):
    rows = oracle.make_rows("pixels", 150, 20, seed=0).astype(np.uint8)
    centers = rows[:9].astype(np.float64)
    points = Points(rows, make_device("cpu", chunk_bytes=chunk_bytes))
    expected = oracle.distances_sq(rows, centers).argmin(axis=1)
    assign = BoundedAssignment(HostRows(points), 9)
    np.testing.assert_array_equal(assign(ready(points, centers)), expected)


def test_a_sketch_bounds_scores_from_below():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 6)) @ rng.normal(size=(6, 200)) + rng.normal(size=(5000, 200))
    points = Points(rows, resolve("cpu"))
    centers = rows[:30] * rng.uniform(0.5, 2, size=(30, 1))
    near, kept = ready(points, centers), HostRows(points)
    sketch = kept.sketch(200)
    assert sketch is not None
    factor, (slope, constant) = sketched(kept, near, sketch)
    exact = (
        oracle.distances_sq(rows, centers) - oracle.distances_sq(rows, points.origin[None])
    ) * (points.scale**2)
    lower = sketch.lower_scores(factor, slice(0, 5000)).T.astype(np.float64)
    error = slope * np.sqrt(kept.norms_sq) + constant
    assert (lower <= exact + error[:, None]).all()
    # It is of use: far closer to the truth than the trivial bound by the triangle inequality.
    trivial = near.constant - 2 * np.outer(np.sqrt(kept.norms_sq), np.sqrt(near.constant))
    assert np.median(exact - lower) < 0.2 * np.median(exact - trivial)


def assert_bounds(bounded, distances, labels):
    """What a wrong bound spoils may come to light only many steps later."""
    rounding = 1e-5 * distances.max()
    upper = bounded._upper + bounded._drift[labels]
    nearest_other = bounded._nearest_other - bounded._largest_drift
    rows = np.arange(len(labels))
    # Those that were in doubt are compared again whatever it is.
    certain = bounded._nearest_other > 0
    assert (distances[rows, labels] <= upper + rounding)[certain].all()
    distances[rows, labels] = np.inf
    assert (nearest_other <= distances.min(axis=1) + rounding).all()


@pytest.mark.parametrize("rank", [6, 200])
# With 130 centres all have bounds as well.
@pytest.mark.parametrize(("k", "d"), [(8, 200), (100, 200), (130, 260)])
def test_axes_turn_to_where_the_centres_are(k, d, rank, monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4200, rank)) @ rng.normal(size=(rank, d))
    rows += 0.1 * rng.normal(size=rows.shape)
    points = Points(rows, resolve("cpu"))
    turns, turn = [], TurningSketch.turn
    monkeypatch.setattr(TurningSketch, "turn", lambda *which: turns.append(turn(*which)))
    # Some are built of so many axes that stay, and of so many that turn.
    monkeypatch.setattr("mnist_kmeans_mlx.engine.host.rows.sketch_pays", lambda *which: True)
    kept = HostRows(points)
    assert d > 200 or (kept.sketch(k) is None) == (rank == 200)
    bounded = BoundedAssignment(kept, k)
    for step in range(12):
        if step % 4 == 0:
            centers = rows[rng.choice(len(rows), k)]
            centers[1] = centers[0]
        distances = cdist(rows, centers)
        labels = bounded(ready(points, centers))
        np.testing.assert_array_equal(labels, distances.argmin(axis=1))
        assert_bounds(bounded, distances * points.scale, labels)
        centers = centers + 10.0 ** -(step % 4) * rng.normal(size=centers.shape)
    assert len(turns) >= (2 if rank == 200 else 1)


def test_axes_that_do_not_pay_rest_until_centres_move_half_as_far(monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4200, 200))
    turns, turn = [], TurningSketch.turn
    monkeypatch.setattr(TurningSketch, "turn", lambda *which: turns.append(turn(*which)))
    points, far = Points(rows, resolve("cpu")), np.zeros((8, 200))
    bounded, far[0] = BoundedAssignment(HostRows(points), 8, settled=True), rng.normal(size=200)

    def turns_after(*places):
        for place in places:
            centers = rows[:8] + place * far
            expected = oracle.distances_sq(rows, centers).argmin(axis=1)
            np.testing.assert_array_equal(bounded(ready(points, centers)), expected)
        return len(turns)

    assert turns_after(0) == 1
    # Each of these leaves all rows open, to be compared in full as well.
    assert turns_after(1, 2, 3, 4) == 1
    assert turns_after(4.4) == 2


def test_a_crowd_of_centres_takes_no_more_memory():
    rows = oracle.make_rows("normal", 4096, 260, seed=0)
    points, centers = Points(rows, resolve("cpu")), rows[:130].copy()
    # As near to every row as one another, and nearer than the others to all but these.
    centers[20:] = 0
    expected = oracle.distances_sq(rows, centers).argmin(axis=1)
    assert np.mean(expected == 20) > 0.9
    bounded = BoundedAssignment(HostRows(points), 130, settled=True)
    with traced() as memory:
        for _ in range(2):
            np.testing.assert_array_equal(bounded(ready(points, centers)), expected)
    # A copy of a row for each of 110 centres would be 469 MB; blocks are some 12 MB for each core.
    assert memory.peak < 300e6


def test_rows_without_structure_have_no_sketch():
    rows = np.random.default_rng(0).normal(size=(5000, 200))
    assert HostRows(Points(rows, resolve("cpu"))).sketch(200) is None


def test_most_rows_are_left_to_float32(mnist):
    rows = mnist.x_train[:5000].reshape(5000, -1)
    points = Points(rows, resolve("cpu"))
    assign = BoundedAssignment(HostRows(points), 20)
    assign(ready(points, rows[:20].astype(np.float64)))
    assert assign.rechecked < 50
