"""Rows that are not held give what held ones give."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from commands import run
from doubles import taken_for_gpu, traced
from oracle import assert_same_bits
from scipy import sparse

from mnist_kmeans_mlx import BisectingKMeans, DatasetError, KMeans, MiniBatchKMeans, open_rows
from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine.csr import DENSE_BYTES
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.strategy import sketch_bytes, sketch_pays
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.memory import PROCESS_BYTES, ROW_BYTES, Plan, centers_bytes, limit, plan


def little(k):
    """What a fit of `table` takes at least, and next to nothing for copies of its rows."""
    return PROCESS_BYTES + 1500 * ROW_BYTES + centers_bytes(k, 12, resolve("cpu")) + 1000


def table(kind, dtype):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1500, 12)) * 9 + rng.integers(0, 4, (1500, 1)) * 30
    return (np.rint(rows) if kind == "whole" else rows).astype(dtype)


@pytest.fixture
def few_blocks(monkeypatch):
    """Several blocks even of little data."""
    monkeypatch.setattr("mnist_kmeans_mlx.engine.points.HOST_BLOCK", 1 << 14)


@pytest.mark.parametrize(
    ("dtype", "each", "on_gpu"), [("uint8", 0, 1), ("int16", 0, 2), ("float64", 4, 12)]
)
def test_copies_are_counted(dtype, each, on_gpu):
    rows, needed = np.zeros((70, 30), dtype), PROCESS_BYTES + 70 * ROW_BYTES
    for device, copies in ((resolve("cpu"), 70 * 30 * each), (taken_for_gpu(), 70 * 30 * on_gpu)):
        most = needed + centers_bytes(4, 30, device) + copies
        on_device = device.kind != "cpu"
        assert plan(rows, 4, device, most, on_device) == Plan(True, 0)
        if copies:
            assert plan(rows, 4, device, most - 1, on_device) == Plan(False, copies - 1)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("whole", "int16"), ("whole", "int64"), ("", "float16"), ("", "float32"), ("", "float64")],
)
def test_any_way_to_hand_over_rows(kind, dtype, metric, tmp_path, device, few_blocks):
    rows = table(kind, dtype)
    for number, part in enumerate(np.array_split(rows, 3)):
        np.save(tmp_path / f"rows-{number}.npy", part)
    np.save(tmp_path / "all.npy", rows)
    options = {"n_clusters": 9, "random_state": 0, "metric": metric, "device": device}
    expected = KMeans(**options).fit(rows)
    without = KMeans(**options, memory=little(9))
    source = open_rows(tmp_path / "rows-*.npy", block_bytes=5000)
    assert not plan(source, 9, resolve(device), little(9)).keep
    files = sorted(tmp_path.glob("rows-*.npy"))
    for X in (rows, source, files, str(tmp_path / "rows-*.npy"), tmp_path / "all.npy"):
        assert_same_bits(without.fit(X), expected)
    assert_same_bits(without.fit(np.load(tmp_path / "all.npy", mmap_mode="r")), expected)
    assert_same_bits(without.fit_batches(np.array_split(rows, 7)), expected)
    assert_same_bits(KMeans(**options).fit(source), expected)  # loaded
    np.testing.assert_array_equal(without.predict(source), expected.labels_)


@pytest.mark.parametrize("init", ["k-means++", "k-means||", "random"])
@pytest.mark.parametrize("algorithm", ["auto", "lloyd", "elkan"])
def test_every_strategy(algorithm, init, device, few_blocks):
    rows = table("", "float32")
    weights = np.random.default_rng(1).integers(0, 3, 1500)
    options = {"algorithm": algorithm, "init": init, "n_init": 2, "random_state": 3}
    found = [
        KMeans(50, device=device, memory=memory, **options).fit(rows, sample_weight=weights)
        for memory in ("auto", little(50))
    ]
    assert_same_bits(*found)


def test_other_estimators_read_files(tmp_path, device):
    rows = table("", "float64")
    np.save(tmp_path / "rows.npy", rows)
    for make in (MiniBatchKMeans, BisectingKMeans):
        options = {"n_clusters": 5, "random_state": 0, "device": device}
        if make is MiniBatchKMeans:
            options |= {"tol": 1e-3, "batch_size": 100}
        a, b = make(**options).fit(rows), make(**options).fit(tmp_path / "rows.npy")
        np.testing.assert_array_equal(a.cluster_centers_, b.cluster_centers_)
        np.testing.assert_array_equal(a.labels_, b.labels_)


def test_what_cannot_be(tmp_path, device):
    rows = table("", "float32")
    with pytest.raises(MemoryError, match=r"too little for 1500 rows: .* which is 0\.40 GB\.$"):
        KMeans(2, memory="300 MB", device=device).fit(rows)
    for wrong in ("much", "2XB", "0", "-1GB"):
        with pytest.raises(ValueError, match="memory must be a number of bytes"):
            KMeans(2, memory=wrong, device=device).fit(rows)
    np.save(tmp_path / "rows.npy", rows)
    few = KMeans(2, init=lambda X, *a, **k: X[:2], memory=little(2), device=device)
    with pytest.raises(ValueError, match="callable init is shown all rows"):
        few.fit(tmp_path / "rows.npy")
    with pytest.raises(DatasetError, match="used up"):
        KMeans(2, device=device).fit_batches(iter([rows]))
    rows[1234, 5] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    with pytest.raises(DatasetError, match="1 of its 18000 values, the first in row 1234"):
        KMeans(2, memory=little(2), device=device).fit(tmp_path / "rows.npy")


@pytest.mark.parametrize(
    ("text", "number"),
    [("2GB", 2e9), ("1.5 gib", 1.5 * 2**30), ("800mb", 8e8), (4096, 4096), ("4096", 4096)],
)
def test_sizes(text, number):
    assert limit(text) == number


def test_half_of_what_is_free():
    assert 0 < limit("auto") < 1e15


def peak(folder, n, init, monkeypatch):
    """Most bytes that the fit of `n` rows out of a file held at a time."""
    for block in ("points.HOST_BLOCK", "host.nearest.ROWS", "host.nearest.SCORES"):
        monkeypatch.setattr(f"mnist_kmeans_mlx.engine.{block}", 1 << 14)
    rng = np.random.default_rng(0)
    np.save(folder / "rows.npy", rng.integers(0, 9, (n, 1)) * 30 + rng.normal(size=(n, 4)))
    rows = open_rows(folder / "rows.npy", block_bytes=1 << 14)
    least = PROCESS_BYTES + n * ROW_BYTES + centers_bytes(4, 4, resolve("cpu")) + 1000
    # Two of the centres start far away: clusters run empty.
    centers = np.array([[0.0] * 4, [99.0] * 4, [1e4] * 4, [2e4] * 4])
    model = KMeans(
        4,
        init=centers if init == "far" else init,
        n_init=1 if init == "far" else 2,
        max_iter=3,
        random_state=0,
        memory=least,
        device="cpu",
    )
    with traced() as memory:
        model.fit(rows)
    return memory.peak


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random", "far"])
def test_what_is_kept_of_each_row(init, tmp_path, monkeypatch):
    # One thread: when others hold their blocks is left to chance.
    small = replace(resolve("cpu"), chunk_bytes=1 << 16, workers=1)
    monkeypatch.setattr("mnist_kmeans_mlx.device.resolve", lambda name: small)
    few, many = (peak(tmp_path, n, init, monkeypatch) for n in (70_000, 130_000))
    assert (many - few) / 60_000 <= ROW_BYTES


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems tell no peak of their own")
def test_the_limit_is_kept(tmp_path):
    """400 MB of rows under 600 MB, of which the process itself is a part."""
    path = tmp_path / "rows.npy"
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, 64)) * 4
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (1_600_000, 64))
    for start in range(0, len(rows), 100_000):
        part = rows[start : start + 100_000]
        part[:] = centers[rng.integers(0, 40, len(part))] + rng.normal(size=part.shape)
    del rows
    code = f"""
from mnist_kmeans_mlx import KMeans
KMeans(40, init="k-means||", random_state=0, max_iter=3, memory="600MB").fit({str(path)!r})
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""
    assert int(run("-W", "ignore", "-c", code).stdout) * 1024 <= 600_000_000


# What is wide


def sparse_rows(n, d, seed=0):
    return sparse.random_array((n, d), density=80 / d, format="csr", rng=seed)


MAKERS = {
    "kmeans": lambda k: KMeans(k, random_state=0),
    "minibatch": lambda k: MiniBatchKMeans(k, random_state=0, batch_size=64),
    "bisecting": lambda k: BisectingKMeans(k, random_state=0),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_what_is_more_than_free_is_refused_before_any_is_taken(kind, device, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.memory.free_bytes", lambda: 64 << 20)
    rows = sparse_rows(500, 1 << 18)
    model = MAKERS[kind](40).set_params(device=device)
    refused = pytest.raises(MemoryError, match=r"GiB, and 0\.1 GiB are free: reduce the")
    with traced() as memory, refused:
        model.fit(rows)
    assert memory.peak < 10 << 20


@pytest.mark.parametrize("kind", MAKERS)
def test_no_more_is_held_of_wide_rows_than_is_counted(kind, device):
    (n, d), k = (64, 1 << 17), 4
    rows, counted = sparse_rows(n, d), centers_bytes(k, d, resolve("cpu"))
    with traced() as memory:
        MAKERS[kind](k).set_params(device=device).fit(rows)
    # And a block of rows made dense; all of them would take 64 MB.
    assert memory.peak <= counted + 2 * DENSE_BYTES


def test_no_sketch_where_it_takes_longer_than_it_saves():
    assert sketch_pays(60_000, 784, 20)
    assert not sketch_pays(4200, 20_000, 8)
    assert not sketch_pays(4200, 60_000, 8)
    rows = sparse_rows(4200, 3000).toarray()
    with traced() as memory:
        KMeans(3, random_state=0, max_iter=2, device="cpu").fit(rows)
    # Of d x d there is nothing.
    assert memory.peak < 4 * 4200 * 3000 + 4 * 3000**2


def test_a_sketch_counts_in_what_is_left():
    rows = np.random.default_rng(0).normal(size=(5000, 6)) @ np.ones((6, 200))
    rows += np.arange(200)
    taken = sketch_bytes(5000, 200)
    for spare, made in ((taken, True), (taken - 1, False)):
        kept = HostRows(Points(rows, resolve("cpu"), spare=spare))
        assert (kept.sketch(1000) is not None) == made
    found = kept.sketch(1000), HostRows(Points(rows, resolve("cpu"))).sketch(1000)
    assert found[0] is None
    assert found[1].columns.nbytes <= taken
