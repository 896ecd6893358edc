"""Ranks are real processes on a ring through the loopback device, or threads with a double."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from ranks import on_ranks, shares

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.distributed import LOST, DistributedError, Group

pytestmark = pytest.mark.skipif(
    not mx.distributed.is_available("ring"), reason="MLX was built without its ring of sockets"
)
START = """
import json, os, signal, sys, time
import numpy as np
from mnist_kmeans_mlx import distributed
from mnist_kmeans_mlx.distributed import Group

def say(*words):
    print(*words, flush=True)

ranks = Group.init(timeout={joining})
ranks.timeout = {timeout}
with ranks as group:
    rank = group.rank
"""


class Job:
    """As many processes as there are `ranks`, of a group of `size`, with a pause after each.

    They join with a timeout of its own: on a busy machine three starts take longer than the few
    seconds after which some tests want a rank to be given up.
    """

    def __init__(self, folder, body, size, timeout, joining=60, ranks=None, pause=0):
        code = START.format(timeout=timeout, joining=joining) + body
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
        hosts = [[f"127.0.0.1:{each.getsockname()[1]}"] for each in sockets]
        for each in sockets:
            each.close()
        hostfile = folder / "hosts.json"
        hostfile.write_text(json.dumps(hosts))
        self.ranks = []
        for rank in ranks or range(size):
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                env={**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hostfile)},
                cwd=folder,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            self.ranks.append(process)
            time.sleep(pause)

    def hear(self, rank):
        """Wait for what a rank says next."""
        return self.ranks[rank].stdout.readline().strip()

    def end(self, within=60):
        """Exit status, output and last line of errors of every rank, but for what MLX adds."""
        found = []
        limit = time.monotonic() + within
        for rank in self.ranks:
            out, err = rank.communicate(timeout=max(0.1, limit - time.monotonic()))
            # A thread of MLX tells of its sockets, before or after the rank has its last word.
            errors = [line for line in err.strip().splitlines() if not line.startswith("[ring]")]
            found.append((rank.returncode, out.strip(), ["", *errors][-1:]))
        return found


@pytest.fixture
def job(tmp_path):
    jobs = []

    def start(body, size=3, timeout=30, **options):
        jobs.append(Job(tmp_path, body, size, timeout, **options))
        return jobs[-1]

    yield start
    for rank in [rank for job in jobs for rank in job.ranks]:
        rank.kill()
        rank.communicate()


def test_alone():
    with Group.solo() as group:
        assert (group.rank, group.size) == (0, 1)
        for a in np.float64([[0.1, np.nan]]), np.int64(-3), np.empty((0, 2), np.uint8):
            for same in group.max(a), group.min(a), group.gather(np.atleast_1d(a)):
                np.testing.assert_array_equal(same, np.asarray(a).reshape(same.shape))
            np.testing.assert_array_equal(group.broadcast(a), a)
        assert group.sum(np.uint8([255])).dtype == np.int64
        assert group.sum(np.float32([0.1])) == np.float64(np.float32(0.1))
        group.barrier()
        group.agree("The fit", {"shape": [3, 4]})
        with pytest.raises(TypeError, match="objects"):
            group.gather(np.array([None]))
        with pytest.raises(TypeError, match="U1"):
            group.sum(np.array(["a"]))


@pytest.mark.parametrize("hosts", ["\n", '[["127.0.0.1:1"]]'])
def test_a_launcher_may_start_one_process(tmp_path, monkeypatch, hosts):
    (tmp_path / "hosts").write_text(hosts)
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "hosts"))
    assert Group.init().size == 1


def test_what_cannot_be_joined(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.delenv("MLX_HOSTFILE", raising=False)
    with pytest.raises(DistributedError, match="MLX_HOSTFILE"):
        Group.init()
    monkeypatch.setenv("NCCL_HOST_IP", "127.0.0.1")
    with pytest.raises(DistributedError, match="--backend ring"):
        Group.init()


@pytest.mark.parametrize("size", [2, 3])
def test_every_rank_gets_the_same(job, size):
    body = """
    distributed._BLOCK = 3000  # several blocks
    size = group.size
    def rows(rank, dtype, *shape):
        draw = np.random.RandomState(rank).normal(scale=1e3, size=shape)
        return draw.astype(dtype)

    big = 2**62 // size - np.arange(1000).reshape(10, 100)
    assert (group.sum(big + rank) == big * size + sum(range(size))).all()
    assert group.sum(np.full(3, 255, np.uint8)).tolist() == [255 * size] * 3
    assert group.sum(rank == 0) == 1
    assert group.sum(np.uint64(2**63 if rank else 1)) == (1 if size == 3 else 2**63 + 1)
    for dtype in np.float64, np.float32:
        total = rows(0, dtype, 7, 200).astype(np.float64)
        for other in range(1, size):
            total += rows(other, dtype, 7, 200)
        assert group.sum(rows(rank, dtype, 7, 200)).tobytes() == total.tobytes()
    for dtype in np.float64, np.float16, np.int8, np.uint64:
        all_rows = [rows(other, dtype, 999) for other in range(size)]
        assert group.max(all_rows[rank]).tobytes() == np.max(all_rows, axis=0).tobytes()
        assert group.min(all_rows[rank]).tobytes() == np.min(all_rows, axis=0).tobytes()
    assert np.isnan(group.max([np.nan if rank == 1 else 1.0, np.inf])).tolist() == [True, False]

    lengths = [5, 0, 4000][:size]
    for dtype in "<f8", ">f4", "<f2", "?", "<i8", "<U3", "<M8[s]":
        parts = [rows(other, np.int64, n, 2).astype(dtype) for other, n in enumerate(lengths)]
        got = group.gather(parts[rank])
        assert got.dtype == dtype and got.tobytes() == b"".join(part.tobytes() for part in parts)
    bits = np.array([0x7FF8000000000123, 1 << 63, 1], np.uint64).view(np.float64)
    assert group.gather(bits[:rank]).tobytes() == b"".join(bits[:r].tobytes() for r in range(size))
    for a in bits, np.float64(0.1), np.empty((0, 3), np.int8), rows(1, np.float32, 50, 60):
        for root in range(size):
            got = group.broadcast(a if rank == root else None, root)
            assert (got.dtype, got.shape, got.tobytes()) == (a.dtype, a.shape, a.tobytes())
    group.agree("The fit", {"n_clusters": 20})
    say("done")
"""
    assert job(body, size).end() == [(0, "done", [""])] * size


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (
            """
    group.agree("The fit", {"n_clusters": 20, "shape": [5, 3 if rank == 2 else 2]})
""",
            "The fit is not the same on every rank: shape is [5, 2] on rank 0, but [5, 3] on rank "
            "2.",
        ),
        (
            """
    group.sum(np.zeros(2)) if rank < 2 else group.gather(np.zeros((2, 3), np.uint8))
""",
            "The ranks are not at the same step: rank 0 is to sum <f8 (2,), rank 2 to gather |u1 "
            "('any', 3).",
        ),
        (
            """
    if rank < 2:
        group.barrier()
""",
            "The ranks are not at the same step: rank 0 is to wait for one another, rank 2 to "
            "leave.",
        ),
    ],
    ids=["agree", "step", "leave"],
)
def test_ranks_that_differ_say_so_alike(job, body, sentence):
    for status, _, errors in job(body).end():
        assert (status, errors) == (
            1,
            [f"mnist_kmeans_mlx.distributed.DistributedError: {sentence}"],
        )


def test_a_rank_that_fails_tells_the_others(job):
    body = """
    if rank == 1:
        raise ValueError("bad rows")
    if rank == 2:
        time.sleep(60)
    group.barrier()
"""
    began = time.monotonic()
    found = job(body, timeout=5).end()
    assert time.monotonic() - began < 20
    assert [status for status, _, _ in found] == [1, 1, 1]
    told = "mnist_kmeans_mlx.distributed.DistributedError: Rank 1 failed: ValueError: bad rows"
    assert [errors for _, _, errors in found] == [[told], ["ValueError: bad rows"], [told]]


def test_slow_is_not_lost(job):
    body = """
    if rank == 1:
        time.sleep(5)
    say(group.sum(rank))
"""
    assert job(body, timeout=3).end() == [(0, "3", [""])] * 3


def test_a_rank_that_is_killed(job):
    body = """
    try:
        group.barrier()
        say("ready")
        if rank == 2:
            time.sleep(60)
        while True:
            group.sum(1.0)
    finally:
        say("cleaned up")
"""
    running = job(body, size=4, timeout=10)
    assert [running.hear(rank) for rank in range(4)] == ["ready"] * 4
    running.ranks[1].kill()
    found = running.end(within=10)
    assert found.pop(1)[0] == -signal.SIGKILL
    for status, out, (error,) in found:
        assert (status, out) == (1, "cleaned up")
        assert error.endswith("lost the connection to another rank, which died or left.")


def test_a_rank_that_is_stopped(job, tmp_path):
    body = """
    open(f"half-{rank}", "w").close()
    group.at_abort(lambda: os.remove(f"half-{rank}"))
    group.barrier()
    say("ready")
    if rank == 2:
        time.sleep(60)
    while True:
        group.sum(1)
"""
    running = job(body, timeout=3)
    assert [running.hear(rank) for rank in range(3)] == ["ready"] * 3
    running.ranks[1].send_signal(signal.SIGSTOP)
    others = [running.ranks.pop(rank) for rank in (2, 0)]
    stopped, running.ranks = running.ranks, others
    try:
        found = running.end(within=10)
    finally:
        running.ranks += stopped
    # The first to leave by the clock breaks the connection of the other.
    assert {status for status, _, _ in found} <= {LOST, 1}
    assert LOST in {status for status, _, _ in found}
    for status, _, (error,) in found:
        assert ("heard nothing" if status == LOST else "lost the connection") in error
    stopped[0].send_signal(signal.SIGCONT)
    running.ranks = stopped
    assert running.end(within=10)[0][0] == 1
    assert (tmp_path / "half-1").exists()
    for rank, (status, _, _) in zip((2, 0), found, strict=True):
        assert status == 1 or not (tmp_path / f"half-{rank}").exists()


@pytest.mark.parametrize(
    ("rank", "says"),
    [
        (0, "through ring: [ring] Accept failed (error: 4)."),
        (1, "Error: This rank cannot reach the others through ring within 3.75 s."),
    ],
    ids=["called", "calling"],
)
def test_a_rank_that_never_starts(job, rank, says):
    began = time.monotonic()
    ((status, _, (error,)),) = job("", size=2, joining=5, ranks=[rank]).end(within=30)
    assert status == 1
    assert error.endswith(says)
    assert time.monotonic() - began < 15  # MLX itself tries for 31 s


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_rank_that_starts_late(job, order):
    running = job("    say(group.sum(1))\n", size=2, ranks=order, pause=2)
    assert running.end() == [(0, "2", [""])] * 2


def test_a_launcher_that_ends_the_job(job):
    body = """
    try:
        group.barrier()
        say("ready")
        time.sleep(60)
    finally:
        say("cleaned up")
"""
    running = job(body, size=2)
    assert [running.hear(rank) for rank in range(2)] == ["ready"] * 2
    for rank in running.ranks:
        rank.terminate()
    for status, out, (error,) in running.end(within=15):
        assert (status, out) == (1, "cleaned up")
        assert error.startswith("mnist_kmeans_mlx.distributed.DistributedError: ")


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("init", ["k-means++", "random"])
@pytest.mark.parametrize("kind", ["pixels", "fractions", "weighted", "duplicates", "cosine"])
def test_ranks_find_what_one_process_finds(kind, init, size, device):
    rng = np.random.default_rng(size)
    rows, options = rng.normal(size=(600, 7)) * 3 + 100, {}
    weights = None
    if kind == "pixels":
        rows = rng.integers(0, 256, (600, 40)).astype(np.uint8)
        options = {"n_init": 4}  # as many as are seeded together
    elif kind == "weighted":
        weights = rng.uniform(0, 2, 600) * (rng.uniform(size=600) < 0.9)
    elif kind == "duplicates":
        rows = np.repeat(rows[:12], 50, axis=0).astype(np.float32)
    elif kind == "cosine":
        options = {"metric": "cosine"}

    def fit(part):
        parameters = {"n_init": 3, **options}
        model = KMeans(9, init=init, random_state=0, device=device, **parameters)
        return model.fit(rows[part], sample_weight=None if weights is None else weights[part])

    whole = fit(slice(None))
    parts = shares(600, size, seed=size)
    found = on_ranks(size, lambda rank: fit(parts[rank]))
    for part, model in zip(parts, found, strict=True):
        assert model.cluster_centers_.tobytes() == whole.cluster_centers_.tobytes()
        assert model.labels_.tobytes() == whole.labels_[part].tobytes()
        assert (model.inertia_, model.n_iter_) == (whole.inertia_, whole.n_iter_)


def test_ranks_that_are_not_at_the_same_fit(device):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    for differ, what in (
        (lambda rank: (KMeans(2 + rank, device=device), rows), "n_clusters is 2 on rank 0, but 3"),
        (lambda rank: (KMeans(2, device=device), rows[:, rank:]), "n_features is 3 on rank 0"),
        (
            lambda rank: (KMeans(2, device=device), rows.astype(["f4", "f8"][rank])),
            "dtype is float32 on rank 0",
        ),
    ):
        with pytest.raises(DistributedError, match=what):
            on_ranks(2, lambda rank, differ=differ: (lambda m, X: m.fit(X))(*differ(rank)))
    with pytest.raises(ValueError, match="callable init sees the rows of one rank only"):
        on_ranks(2, lambda rank: KMeans(2, init=lambda *a, **k: rows[:2]).fit(rows))
    with pytest.raises(ValueError, match="n_samples=4 should be >= n_clusters=5"):
        on_ranks(2, lambda rank: KMeans(5).fit(rows[:2]))


def test_without_a_seed_all_ranks_draw_alike(device):
    rows = np.random.default_rng(0).normal(size=(300, 3))
    parts = shares(300, 3)
    models = on_ranks(3, lambda rank: KMeans(5, device=device).fit(rows[parts[rank]]))
    assert len({model.cluster_centers_.tobytes() for model in models}) == 1
