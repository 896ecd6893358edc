import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_kmeans_mlx.device import Device, resolve
from mnist_kmeans_mlx.engine.lloyd import lloyd
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.seeding.start import draw
from mnist_kmeans_mlx.engine.ways import choose

DTYPES = (np.uint8, np.int64, np.float16, np.float32, np.float64)


@st.composite
def problems(draw):
    """Rows of any dtype and memory order, and rows of them to start from."""
    n = draw(st.integers(1, 60))
    d = draw(st.integers(1, 20))
    k = draw(st.one_of(st.integers(1, n), st.just(n)))
    kind = draw(st.sampled_from(oracle.KINDS))
    seed = draw(st.integers(0, 2**32 - 1))
    dtype = draw(st.sampled_from(DTYPES))
    rows = oracle.make_rows(kind, n, d, seed)
    if np.dtype(dtype).kind in "iu":
        rows = np.rint(np.clip(rows * (1 if kind in ("pixels", "grid") else 20), 0, 255))
    if dtype == np.float16:
        rows = np.clip(rows, -6e4, 6e4)
    rows = rows.astype(dtype, order=draw(st.sampled_from("CF")))
    rows.flags.writeable = False
    start = np.random.default_rng(seed).choice(n, size=k, replace=False)
    return rows, start


def check(rows, start, make_way, weights=None, **limits):
    rows64 = rows.astype(np.float64)
    way = make_way(rows, weights)
    points = way.points
    limits = {"max_iter": 300, "tol": 1e-4, **limits}
    expected = oracle.kmeans(rows, rows64[start], weights=weights, **limits)
    limits["tol"] *= way.mean_variance
    run = lloyd(way, rows64[start], **limits)

    # Labels are those that float64 gives for the centres returned, ties going to the first.
    distances = oracle.distances_sq(rows64, run.centers)
    np.testing.assert_array_equal(run.labels, distances.argmin(axis=1))
    spread = np.abs(rows64 - rows64.mean(axis=0)).max() + np.abs(rows64).max() * 1e-6
    rounding = 1e-15 * len(rows64) * spread**2
    own = distances[np.arange(len(rows64)), run.labels]
    inertia = points.squared(run.inertia)
    assert inertia == pytest.approx(own @ points_weights(points), rel=1e-12, abs=rounding)
    if not np.array_equal(rows64, np.rint(rows64)) and len(np.unique(rows64, axis=0)) < len(rows64):
        return run  # Means of equal fractions differ in their last bit: chance decides from there.
    np.testing.assert_array_equal(run.labels, expected[0])
    np.testing.assert_allclose(run.centers, expected[2], atol=1e-12 * np.abs(rows64).max(), rtol=0)
    assert inertia == pytest.approx(expected[1], rel=1e-9, abs=rounding)
    assert run.n_iter == expected[3]
    return run


def points_weights(points):
    return np.ones(points.n) if points.weights is None else points.weights


@given(problem=problems())
def test_agrees_with_float64(problem, make_way):
    rows, start = problem
    check(rows, start, make_way)


@given(problem=problems(), data=st.data())
def test_agrees_with_float64_weighted(problem, data, make_way):
    rows, start = problem
    weights = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    )
    if weights.sum() == 0:
        weights[0] = 1
    check(rows, start, make_way, weights=weights.astype(np.float64))


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_many_rows(kind, make_way):
    rows = oracle.make_rows(kind, 3000, 30, seed=1)
    check(rows, np.arange(17), make_way)


@pytest.mark.parametrize("limits", [{"max_iter": 1}, {"max_iter": 4}, {"tol": 0.0}, {"tol": 0.3}])
def test_stops_by_the_same_rule(limits, make_way):
    rows = oracle.make_rows("normal", 800, 6, seed=2)
    check(rows, np.arange(9), make_way, **limits)


def test_fills_empty_clusters(make_way):
    rows = oracle.make_rows("normal", 200, 3, seed=3)
    far = np.full((4, 3), 1e3) + np.arange(4)[:, None]
    start = np.concatenate([rows[:3], far])
    way = make_way(rows)
    run = lloyd(way, start, max_iter=300, tol=1e-4 * way.mean_variance)
    labels, inertia, centers, n_iter = oracle.kmeans(rows, start)
    np.testing.assert_array_equal(run.labels, labels)
    np.testing.assert_allclose(run.centers, centers, atol=1e-9)
    assert len(np.unique(run.labels)) == 7
    assert (way.points.squared(run.inertia), run.n_iter) == (pytest.approx(inertia), n_iter)


def test_observer_sees_every_iteration(make_way):
    rows = oracle.make_rows("normal", 300, 4, seed=4)
    way = make_way(rows)
    seen = []
    run = lloyd(way, rows[:5], max_iter=50, tol=0, observe=lambda state: seen.append(state.n_iter))
    assert seen == list(range(1, run.n_iter + 1))
    assert run.converged == "strict"


@pytest.fixture(scope="module")
def pixels(mnist):
    return mnist.x_train[:1500].reshape(1500, -1)


@pytest.fixture(scope="module")
def undivided(pixels):
    """By one thread of the CPU, in a single chunk."""
    return found(pixels, Device("cpu", resolve("cpu").mlx, True, 1 << 30, 1), "lloyd")


def found(rows, device, algorithm, k=15):
    points = Points(rows, device)
    way = choose(points, k, algorithm)
    start = points.raw(draw(way, "k-means++", k, np.random.RandomState(0))[0])
    run = lloyd(way, start, max_iter=12, tol=0)
    return start.tobytes(), run.labels.tobytes(), run.centers.tobytes(), run.inertia, run.n_iter


@pytest.mark.parametrize("algorithm", ["lloyd", "elkan"])
@pytest.mark.parametrize(
    ("chunk_bytes", "workers", "host_matmul"),
    [(1 << 28, 1, False), (50_000, 1, True), (1 << 20, 2, True), (1 << 23, 3, True),
     (77_777, 5, False)],
)  # fmt: skip
def test_whole_numbers_are_clustered_the_same_by_all(
    chunk_bytes, workers, host_matmul, algorithm, pixels, undivided, backend
):
    if backend.name == "gpu":
        workers, host_matmul = 1, backend.host_matmul
    varied = Device(backend.kind, backend.mlx, host_matmul, chunk_bytes, workers)
    assert found(pixels, varied, algorithm) == undivided


@pytest.mark.parametrize("dtype", [np.int16, np.int64, np.float32, np.float64])
def test_whole_numbers_are_clustered_the_same_as_any_dtype(dtype, pixels, undivided, backend):
    assert found(pixels.astype(dtype), backend, "auto") == undivided
