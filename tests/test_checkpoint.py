"""A fit that is stopped goes on to the same result, and a checkpoint is whole or not there."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from oracle import assert_same_bits
from sklearn import cluster

from mnist_kmeans_mlx.bisecting import BisectingKMeans
from mnist_kmeans_mlx.checkpoint import Checkpoint, CheckpointError
from mnist_kmeans_mlx.device import Device, resolve
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.estimator import KMeans
from mnist_kmeans_mlx.persistence.record import read_snapshot
from mnist_kmeans_mlx.progress import History

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def rows():
    """Clusters that overlap: many iterations, in which rows change places."""
    return np.random.default_rng(0).normal(size=(800, 5)) * [3, 2, 1, 1, 1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint"


@pytest.fixture
def make(device):
    def make(**changes):
        return KMeans(**{"n_clusters": 9, "n_init": 3, "random_state": 4, **changes}, device=device)

    return make


def stop_after(
    notes, path, estimator, X, sample_weight=None, error=KeyboardInterrupt, side_by_side=1
):
    """Go on with a fit for some iterations; returns the Checkpoint, or None if the fit ended."""
    checkpoint = Checkpoint(path, resume=True, iterations=1)
    note = checkpoint.note

    def count(standing, position):
        nonlocal notes
        checkpoint._cost = 0  # writes are due, however long they take
        note(standing, position)
        notes -= 1
        if notes == 0:
            raise error

    checkpoint.note = count
    try:
        with mock.patch.object(PlainWay, "side_by_side", return_value=(side_by_side, 1)):
            checkpoint.fit(estimator, X, sample_weight)
    except error:
        return checkpoint
    return None


CASES = {
    "float64": (lambda X: X, {}),
    "float32": (lambda X: X.astype(np.float32), {"algorithm": "lloyd"}),
    "uint8": (lambda X: np.clip(10 * X + 128, 0, 255).astype(np.uint8), {}),
    "seeded together": (lambda X: np.rint(10 * X).astype(np.int16), {"n_init": 6}),
    "random": (lambda X: X, {"init": "random", "algorithm": "elkan"}),
    "cosine": (lambda X: X, {"metric": "cosine"}),
    "given": (lambda X: X, {"init": np.eye(9, 5), "n_init": 1}),
    "function": (lambda X: X, {"init": lambda X, k, random_state: X[random_state.choice(800, k)]}),
    "max_iter": (lambda X: X, {"max_iter": 4}),
    "one iteration": (lambda X: X, {"max_iter": 1}),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_stopped_anywhere_it_ends_the_same(case, weighted, rows, path, make):
    convert, parameters = CASES[case]
    X = convert(rows)
    weights = np.random.default_rng(1).uniform(size=len(X)) if weighted else None
    expected = make(**parameters).fit(X, sample_weight=weights)
    rng = np.random.default_rng(2)
    stops = 0
    most = min(12, expected.n_iter_ + 1)
    arguments = path, make(**parameters), X, weights
    # Of restarts side by side, how much is told depends on their pace.
    while stop_after(rng.integers(1, most), *arguments, error=EOFError, side_by_side=2):
        stops += 1
    assert stops > 1
    again = Checkpoint(path, resume=True).fit(make(**parameters), X, weights)
    assert_same_bits(again, expected)


def test_every_iteration_is_a_place_to_stop(rows, path, make):
    expected = make(n_init=2).fit(rows)
    stops = 0
    while stop_after(1, path, make(n_init=2), rows, error=EOFError):
        stops += 1
    assert stops > expected.n_iter_ + 2
    assert_same_bits(Checkpoint(path, resume=True).fit(make(n_init=2), rows), expected)


def test_a_finished_fit_is_found_without_work(rows, path, make, monkeypatch):
    expected = Checkpoint(path).fit(make(), rows)
    monkeypatch.setattr("mnist_kmeans_mlx.estimator.iterate", pytest.fail)
    checkpoint = Checkpoint(path, resume=True)
    again = checkpoint.fit(make(), rows)
    assert_same_bits(again, expected)
    assert again.n_rechecked_ == expected.n_rechecked_
    assert checkpoint.resumed
    assert checkpoint.seed == 4
    assert checkpoint.earlier > 0


def test_a_generator_ends_where_it_would_have(rows, path, make):
    def generator():
        return np.random.RandomState(7)

    whole = generator()
    expected = make(random_state=whole).fit(rows)
    stop_after(20, path, make(random_state=generator()), rows)
    checkpoint = Checkpoint(path, resume=True)
    assert checkpoint.seed is None
    later = generator()
    assert_same_bits(checkpoint.fit(make(random_state=later), rows), expected)
    assert later.randint(2**31) == whole.randint(2**31)
    other = np.random.RandomState(np.random.PCG64(0))
    with pytest.raises(CheckpointError, match="state of a PCG64"):
        Checkpoint(path.with_name("other")).fit(make(random_state=other), rows)


def test_algorithm_and_verbosity_may_change_on_the_way(rows, path, make, capsys):
    expected = make().fit(rows)
    stop_after(20, path, make(algorithm="elkan"), rows)
    again = Checkpoint(path, resume=True).fit(make(algorithm="lloyd", verbose=1), rows)
    assert_same_bits(again, expected)
    assert "Converged" in capsys.readouterr().out


def test_other_hardware_goes_on_to_the_same_result(rows, path, make, monkeypatch):
    stop_after(5, path, make(), rows)
    with monkeypatch.context() as patch:
        other = Device("cpu", resolve("cpu").mlx, True, workers=3)
        patch.setattr("mnist_kmeans_mlx.device.resolve", lambda name: other)
        resumed = Checkpoint(path, resume=True).fit(make(), rows)
    assert_same_bits(resumed, make().fit(rows))


# Ctrl-C


def test_an_interrupt_leaves_the_best_so_far(rows, path, make):
    estimator = make()
    checkpoint = stop_after(3, path, estimator, rows)
    assert checkpoint is not None
    assert estimator.n_iter_ == 3
    assert_array_equal(estimator.predict(rows), estimator.labels_)
    assert estimator.inertia_ == pytest.approx(-estimator.score(rows))
    assert estimator.n_features_in_ == rows.shape[1]

    first = make(n_init=1).fit(rows)
    while read_snapshot(path).standing.restart < 1:
        estimator = make()
        stop_after(10, path, estimator, rows)
    assert_same_bits(estimator, first)
    assert_same_bits(Checkpoint(path, resume=True).fit(make(), rows), make().fit(rows))


@pytest.mark.parametrize("during", ["frame.Frame.of", "plain.PlainWay.seed"])
def test_an_interrupt_before_the_first_iteration_leaves_nothing(
    rows, path, make, monkeypatch, during
):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"mnist_kmeans_mlx.engine.{during}", interrupted)
    estimator = make()
    with pytest.raises(KeyboardInterrupt):
        Checkpoint(path).fit(estimator, rows)
    assert not hasattr(estimator, "labels_")
    monkeypatch.undo()
    assert_same_bits(Checkpoint(path, resume=True).fit(make(), rows), make().fit(rows))


def test_without_a_file_only_the_interrupt_matters(rows, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    estimator = make()
    assert stop_after(3, None, estimator, rows) is not None
    assert estimator.n_iter_ == 3
    assert_same_bits(Checkpoint(None).fit(make(), rows), make().fit(rows))
    assert os.listdir(tmp_path) == []


# What goes wrong


def refused(match, run):
    with pytest.raises(CheckpointError, match=match) as caught:
        run()
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_clusters": 8}, "n_clusters = 9, not 8"),
        ({"n_init": 4}, "n_init = 3, not 4"),
        ({"max_iter": 9}, "max_iter = 300, not 9"),
        ({"tol": 0}, "tol = 0.0001, not 0"),
        ({"init": "random"}, r"init = k-means\+\+, not random"),
        ({"random_state": None}, "random_state = 4, not None"),
        ({"metric": "cosine"}, "metric = euclidean, not cosine"),
    ],
)
def test_other_parameters_are_refused(changes, match, rows, path, make):
    stop_after(3, path, make(), rows)
    before = path.read_bytes()
    refused(match, lambda: Checkpoint(path, resume=True).fit(make(**changes), rows))
    assert path.read_bytes() == before


def test_other_data_are_refused(rows, path, make):
    stop_after(3, path, make(), rows)
    changed = rows.copy()
    changed[500, 3] = np.nextafter(changed[500, 3], 9)
    for X, weights, match in (
        (changed, None, "other rows or weights"),
        (rows[::-1], None, "other rows or weights"),
        (rows, np.full(800, 2.0), "other rows or weights"),
        (rows[:-1], None, r"shape = \[800, 5\], not \[799, 5\]"),
        (rows.astype(np.float32), None, "dtype = float64, not float32"),
    ):
        checkpoint = Checkpoint(path, resume=True)
        refused(match, lambda c=checkpoint, X=X, w=weights: c.fit(make(), X, w))
    given = {"init": np.eye(9, 5), "n_init": 1}
    stop_after(1, path.with_name("given"), make(**given), rows)
    checkpoint = Checkpoint(path.with_name("given"), resume=True)
    given["init"] = np.eye(9, 5) * 2
    refused("other centers", lambda: checkpoint.fit(make(**given), rows))


def test_rows_that_add_up_to_the_same_are_other_rows(path, make):
    """Codes of equal norm in another order; weights that balance around their middle."""
    rng = np.random.default_rng(0)
    codes = np.array([rng.permutation([1] * 4 + [0] * 12) for _ in range(800)], dtype=np.uint8)
    permuted = codes[rng.permutation(800)]
    weights = np.ones(800)
    balanced = weights.copy()
    balanced[[10, 11, 12]] += -0.5, 1, -0.5
    stop_after(3, path, make(), codes, weights)
    before = path.read_bytes()
    for X, w in ((permuted, weights), (codes, balanced)):
        checkpoint = Checkpoint(path, resume=True)
        refused("other rows or weights", lambda c=checkpoint, X=X, w=w: c.fit(make(), X, w))
    assert path.read_bytes() == before
    again = Checkpoint(path, resume=True).fit(make(), codes, weights)
    assert_same_bits(again, make().fit(codes, sample_weight=weights))


def test_another_function_to_start_from_is_refused(rows, path, make):
    def first(X, k, random_state):
        return X[:k]

    def last(X, k, random_state):
        return X[-k:]

    stop_after(1, path, make(init=first, n_init=1), rows)
    checkpoint = Checkpoint(path, resume=True)
    refused("first.* not .*last", lambda: checkpoint.fit(make(init=last, n_init=1), rows))


def test_only_kmeans_has_checkpoints(path):
    refused("BisectingKMeans", lambda: Checkpoint(path).fit(BisectingKMeans(2), np.eye(4)))
    theirs = cluster.KMeans(2)
    refused("not that of scikit-learn's KMeans", lambda: Checkpoint(path).fit(theirs, np.eye(4)))


def test_a_file_in_the_way_is_left_alone(path):
    path.write_text("precious")
    refused("exists: resume it, or remove it", lambda: Checkpoint(path))
    refused("not a safetensors file", lambda: Checkpoint(path, resume=True))
    assert path.read_text() == "precious"


def test_a_damaged_file_is_refused(rows, path, make):
    stop_after(15, path, make(), rows)
    good = path.read_bytes()
    for at in range(0, len(good), 997):
        path.write_bytes(good[:at] + bytes([good[at] ^ 64]) + good[at + 1 :])
        refused("damaged|cut short|not a", lambda: Checkpoint(path, resume=True))
        path.write_bytes(good[:at])
        refused("damaged|cut short", lambda: Checkpoint(path, resume=True))


def test_a_folder_that_is_not_there_is_noticed_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "none" / "x", tmp_path / "file" / "x"):
        with pytest.raises(OSError, match=r".") as caught:
            Checkpoint(path)
        assert caught.value.filename == str(path)


def test_a_full_disk_leaves_the_last_good_file(rows, path, make, full_disk):
    stop_after(5, path, make(), rows)
    before = path.read_bytes()
    assert len(before) > 4096
    estimator = make()
    with full_disk(4096), pytest.raises(OSError, match="File too large") as caught:
        stop_after(5, path, estimator, rows, error=EOFError)
    assert caught.value.filename == str(path)
    assert not hasattr(estimator, "labels_")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["checkpoint"]


def test_a_full_disk_in_the_end_costs_no_result(rows, path, make, full_disk):
    checkpoint = Checkpoint(path, iterations=10**6, seconds=10**6)
    estimator = make()
    with full_disk(1024), pytest.raises(OSError, match="File too large"):
        checkpoint.fit(estimator, rows)
    assert isinstance(checkpoint.failure, OSError)
    assert_same_bits(estimator, make().fit(rows))


def test_leftovers_of_killed_writers_are_swept(path):
    old, new, foreign = (path.with_name(f".checkpoint.{x}.tmp") for x in ("0a" * 4, "ff" * 4, "x"))
    for file in (old, new, foreign):
        file.write_text("")
    for file in (old, foreign):
        os.utime(file, (0, 0))
    Checkpoint(path)
    assert not old.exists()
    assert new.exists()
    assert foreign.exists()


DIES = """
import os, signal, sys
import numpy as np
from mnist_kmeans_mlx import Checkpoint, KMeans
from mnist_kmeans_mlx.engine.plain import PlainWay

moment, path, rows, device = sys.argv[1:]
writes = 0
real = getattr(os, moment)

def die(*args):
    global writes
    writes += 1
    if writes == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

setattr(os, moment, die)
checkpoint = Checkpoint(path, iterations=1)
note = checkpoint.note
PlainWay.side_by_side = lambda self, k: (1, 1)
checkpoint.note = lambda *how_far: (setattr(checkpoint, "_cost", 0), note(*how_far))
checkpoint.fit(KMeans(9, n_init=3, random_state=4, device=device), np.load(rows))
"""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_it_writes(moment, rows, path, make, tmp_path, device):
    np.save(tmp_path / "rows.npy", rows)
    argv = [sys.executable, "-c", DIES, moment, path, tmp_path / "rows.npy", device]
    killed = subprocess.run(argv, check=False)
    assert killed.returncode == -9
    # The rows, the file, and the one it died over.
    assert len(os.listdir(tmp_path)) == 3
    standing = read_snapshot(path).standing
    assert standing.restart > 0 or standing.state is not None
    assert_same_bits(Checkpoint(path, resume=True).fit(make(), rows), make().fit(rows))


def test_a_fit_that_keeps_no_file_is_not_identified(rows, path, make, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.checkpoint._identity", None)  # takes a pass over the rows
    assert_same_bits(Checkpoint(None).fit(make(), rows), make().fit(rows))


def test_a_fit_that_failed_keeps_nothing_of_what_watched_it(rows, path, make):
    estimator, history = make(), History()
    before = set(vars(estimator))
    with pytest.raises(ValueError, match="NaN"):
        Checkpoint(path).fit(estimator, rows * np.nan, history=history)
    assert set(vars(estimator)) == before
    estimator.fit(rows)
    assert history.restarts is None
    assert not path.exists()
