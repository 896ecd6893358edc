"""The MLX way does what the host's way does, to the last bit, and asks the device seldom."""

from collections import Counter

import mlx.core as mx
import numpy as np
import oracle
import pytest
from doubles import MULTIPLIERS, make_device, taken_for_gpu

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.device import Device, resolve
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.lloyd import iterate, lloyd, side_by_side
from mnist_kmeans_mlx.engine.mlx import crossing, rows, seeding, step, way
from mnist_kmeans_mlx.engine.mlx.way import MlxWay
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.memory import plan


def both(given, weights=None, multiplier="float32", **changes):
    """The same rows in both ways."""
    device = make_device("cpu", multiplier, **changes)
    points = Points(given, device, weights)
    return HostWay(Points(given, resolve("cpu"), weights)), MlxWay(points, lambda: HostWay(points))


def assert_same(a, b):
    assert (a.n_iter, a.converged, a.shift) == (b.n_iter, b.converged, b.shift)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.centers, b.centers)
    assert a.inertia == pytest.approx(b.inertia, rel=1e-12)


@pytest.mark.parametrize("weights", ["none", "whole", "any"])
@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_it_takes_the_same_steps_to_the_same_bits(kind, multiplier, weights):
    given = oracle.make_rows(kind, 700, 30, seed=3)
    rng = np.random.default_rng(0)
    heavy = {"none": None, "whole": rng.integers(0, 9, 700) * 1.0, "any": rng.uniform(0, 2, 700)}
    host, device = both(given, heavy[weights], multiplier)
    limits = {"max_iter": 40, "tol": 1e-4 * host.mean_variance}
    assert_same(lloyd(host, given[:11], **limits), lloyd(device, given[:11], **limits))
    assert device.norm_sq == pytest.approx(host.norm_sq, rel=1e-14)
    assert device.mean_variance == pytest.approx(host.mean_variance, rel=1e-12)


@pytest.mark.parametrize("chunk_bytes", [1, 20_000])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int16, np.uint16, np.int64, np.float32])
def test_neither_blocks_nor_dtypes_show(dtype, keep, chunk_bytes):
    high = {np.bool_: 2, np.uint8: 256, np.uint16: 60_000}.get(dtype, 3000)
    given = np.random.default_rng(0).integers(0, high, (150, 20)).astype(dtype)
    host, _ = both(given)
    points = Points(given, make_device("cpu", chunk_bytes=chunk_bytes), keep=keep)
    device = MlxWay(points, lambda: HostWay(points))
    start, limits = given[:9].astype(float), {"max_iter": 30, "tol": 0}
    assert_same(lloyd(host, start, **limits), lloyd(device, start, **limits))


def test_a_buffer_that_is_too_small_is_made_larger(monkeypatch):
    assign = MlxWay.assign

    def with_small_buffers(self, asked):
        for clusters, _ in asked:
            clusters._doubts = clusters._changes = 1
        assign(self, asked)

    monkeypatch.setattr(MlxWay, "assign", with_small_buffers)
    monkeypatch.setattr(step, "FEWEST", 1)
    given = oracle.make_rows("grid", 2000, 3, seed=0)
    host, device = both(given)
    limits = {"max_iter": 60, "tol": 0}
    assert_same(lloyd(host, given[:25], **limits), lloyd(device, given[:25], **limits))


def test_restarts_side_by_side_are_restarts_one_by_one():
    given = oracle.make_rows("normal", 900, 6, seed=0)
    host, device = both(given)
    limits = {"max_iter": 50, "tol": 1e-4 * host.mean_variance}
    starts = [given[7 * number :][:8] for number in range(5)]
    together = side_by_side(device, [iterate(device, start, **limits) for start in starts])
    assert len({run.n_iter for run in together}) > 1  # some drop out before others
    for start, run in zip(starts, together, strict=True):
        assert_same(lloyd(host, start, **limits), run)


def test_centres_far_off_and_clusters_that_run_empty():
    given = oracle.make_rows("normal", 300, 4, seed=0)
    host, device = both(given)
    for far in (1e3, 1e18, 1e200):
        start = np.concatenate([given[:3], np.full((3, 4), far) + np.arange(3)[:, None]])
        limits = {"max_iter": 50, "tol": 0}
        assert_same(lloyd(host, start, **limits), lloyd(device, start, **limits))


@pytest.mark.parametrize("multiplier", MULTIPLIERS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float32, np.float64])
def test_it_seeds_with_the_same_rows(dtype, multiplier):
    rng = np.random.default_rng(0)
    high = 100_000 if dtype == np.int32 else 256
    given = rng.integers(0, high, (3000, 40)).astype(dtype)
    given = given if given.dtype.kind in "iu" else given / dtype(255)
    host, device = both(given, multiplier=multiplier)
    device._otherwise = None  # it has no need of it

    def sources():
        return [np.random.RandomState(seed) for seed in range(4)]

    for (a, near_a), (b, near_b) in zip(
        host.seed(25, sources(), 5), device.seed(25, sources(), 5), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(near_a, np.asarray(near_b))


def test_where_digits_do_not_suffice_the_host_seeds(monkeypatch):
    given = oracle.make_rows("normal", 500, 4, seed=0)
    host, device = both(given)
    monkeypatch.setattr(seeding.Differences, "_slack", lambda self, potential: potential)
    (found,) = device.seed(9, [np.random.RandomState(0)], 4)
    (expected,) = host.seed(9, [np.random.RandomState(0)], 4)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def crossed(monkeypatch):
    """What crosses to the host: how often, how many numbers at a time, and the longest axis."""
    count = Counter()

    def fetch(*arrays, keep=()):
        count["times"] += 1
        count["longest"] = max(count["longest"], *(max(array.shape, default=1) for array in arrays))
        count["numbers"] = max(count["numbers"], sum(array.size for array in arrays))
        return crossing.fetch(*arrays, keep=keep)

    for module in (rows, seeding, way):
        monkeypatch.setattr(module, "fetch", fetch)
    return count


@pytest.mark.parametrize("convert", [np.uint8, lambda x: x / 255], ids=["bytes", "float64"])
@pytest.mark.slow
def test_the_host_waits_once_in_an_iteration(convert, mnist, crossed, monkeypatch):
    given = convert(mnist.x_train.reshape(60_000, -1))
    monkeypatch.setattr("mnist_kmeans_mlx.device.resolve", lambda name="auto": taken_for_gpu())
    model, steps = KMeans(20, random_state=0), []

    def observed(state):
        steps.append(crossed["times"])

    monkeypatch.setattr("mnist_kmeans_mlx.estimator.announcer", lambda points, cost: observed)
    model.set_params(verbose=1)
    model.fit(given)
    assert model.n_iter_ == len(steps)
    assert set(np.diff(steps)) == {1}
    # Preparing, the first seed, and two for each of the others.
    assert steps[0] <= 1 + 2 + 2 * 19 + 1
    # Sums in four slices, counts and the rows in doubt: nothing that is as long as the rows.
    assert crossed["longest"] < 2000
    assert crossed["numbers"] < 4 * 20 * 784 + 4000


def test_too_little_memory_is_one_clear_sentence(monkeypatch):
    def full(*arrays):
        raise RuntimeError("[malloc] Unable to allocate 999 bytes.")

    monkeypatch.setattr(mx, "eval", full)
    with pytest.raises(MemoryError, match=r"^The GPU has too little memory .* device='cpu'\.$"):
        crossing.fetch(mx.array(1))


def test_rows_that_a_device_does_not_hold_are_sent_in_parts(monkeypatch):
    rows = np.zeros((1000, 50))
    device = taken_for_gpu()
    assert plan(rows, 4, device, "8GB", on_device=True).keep
    monkeypatch.setattr(Device, "room", 1000 * 50 * 8)
    assert not plan(rows, 4, device, "8GB", on_device=True).keep
