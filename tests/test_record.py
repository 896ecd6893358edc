import dataclasses
import json

import numpy as np
import pytest
from commands import run
from damage import put_together, taken_apart
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx.datasets.faults import Fault
from mnist_kmeans_mlx.engine.lloyd import Run, State
from mnist_kmeans_mlx.engine.restarts import Standing
from mnist_kmeans_mlx.persistence import tensors as tensor_files
from mnist_kmeans_mlx.persistence.record import FOUND_AGAIN, Snapshot, read_snapshot

N, D, K = 6, 3, 2


def make_record(**changes):
    rng = np.random.default_rng(0)
    none = FOUND_AGAIN["sums"]
    labels = FOUND_AGAIN["labels"]
    best = Run(labels, 0.1 + 0.2, rng.normal(size=(K, D)), 5, "strict", 0.0, 3)
    previous, centers = rng.normal(size=(2, K, D))
    state = State(4, labels, none, none, previous, centers, "", float("inf"), 0)
    generator = np.random.RandomState(3)
    generator.normal(size=7)  # an odd number leaves one in store
    fields = {
        "identity": {"n_clusters": K, "n_init": 3, "shape": [N, D], "tol": 0.1},
        "seconds": 1 / 3,
        "generator": generator.get_state(legacy=False),
        "standing": Standing(1, best, state),
    }
    return Snapshot(**{**fields, **changes})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record"


def write(path, record):
    path.write_bytes(record.pack())
    return path


@pytest.mark.parametrize("parts", ["both", "best", "state", "none"])
def test_everything_comes_back_to_the_last_bit(parts, path):
    record = make_record()
    standing = record.standing
    if parts in ("best", "none"):
        standing = dataclasses.replace(standing, state=None)
    if parts in ("state", "none"):
        standing = dataclasses.replace(standing, best=None, restart=0)
    record = make_record(standing=standing)
    back = read_snapshot(write(path, record))
    for name in ("identity", "seconds"):
        assert getattr(back, name) == getattr(record, name)
    generators = [np.random.RandomState() for _ in range(2)]
    for generator, state in zip(generators, (back, record), strict=True):
        generator.set_state(dict(state.generator))
    assert_array_equal(*(generator.normal(size=9) for generator in generators))
    assert back.standing.restart == standing.restart
    for found, expected in (
        (back.standing.best, standing.best),
        (back.standing.state, standing.state),
    ):
        if expected is None:
            assert found is None
            continue
        for field in dataclasses.fields(expected):
            a, b = getattr(found, field.name), getattr(expected, field.name)
            assert type(a) is type(b), field.name
            assert_array_equal(a, b)
            assert np.asarray(a).dtype == np.asarray(b).dtype


def forged(path, tensors=None, texts=None, progress=None, identity=None):
    """A checkpoint with some of its parts replaced and its checksum right."""
    arrays, words = tensor_files.unpack(write(path, make_record()).read_bytes())
    for key, changes in (("progress", progress), ("identity", identity)):
        value = json.loads(words[key])
        for place, item in (changes or {}).items():
            *outer, last = place.split(".")
            part = value
            for name in outer:
                part = part[name]
            part[last] = item
        words[key] = json.dumps(value)
    arrays |= {key: np.asarray(array) for key, array in (tensors or {}).items()}
    arrays = {key: array for key, array in arrays.items() if array.size}
    path.write_bytes(tensor_files.pack(arrays, {**words, **(texts or {})}))
    return path


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"texts": {"format": "x"}}, "not a checkpoint of mnist-kmeans-mlx"),
        ({"texts": {"package_version": "0.0.9"}}, "was written by mnist-kmeans-mlx '0.0.9'"),
        ({"texts": {"format_version": "1"}}, "finish it with that version, or start again"),
        ({"texts": {"progress": "{"}}, "is damaged"),
        ({"texts": {"progress": "[]"}}, "is damaged"),
        ({"texts": {"identity": "{}"}}, "lacks 'shape'"),
        ({"identity": {"shape": [N]}}, "is damaged"),
        ({"identity": {"shape": [N, "x"]}}, "cannot be"),
        ({"identity": {"n_clusters": 3}}, "its centers cannot be"),
        ({"progress": {"restart": -1}}, "number of restarts"),
        ({"progress": {"restart": 4}}, "number of restarts"),
        ({"progress": {"restart": 0}}, "best restart"),
        ({"progress": {"best": None}}, "best restart"),
        ({"progress": {"best": []}}, "is damaged"),
        ({"progress": {"state.shell": "rm"}}, "unexpected keyword"),
        ({"progress": {"state.converged": "never"}}, "its iterations"),
        ({"progress": {"state.n_iter": 0}}, "its iterations"),
        ({"progress": {"state.n_iter": True}}, "its n_iter"),
        ({"progress": {"best.inertia": "0"}}, "its inertia"),
        ({"progress": {"seconds": "x"}}, "is damaged"),
        ({"progress": {"generator.bit_generator": "PCG64"}}, "MT19937"),
        ({"progress": {"generator.state.pos": 625}}, "random state"),
        ({"progress": {"generator.state.pos": -1}}, "random state"),
        ({"tensors": {"generator": np.zeros(3, np.uint32)}}, "random state"),
        ({"tensors": {"state.centers": np.zeros((D, K))}}, "its centers"),
        ({"tensors": {"state.previous": np.full((K, D), np.nan)}}, "its previous"),
        ({"tensors": {"best.centers": np.zeros((K, D), np.float32)}}, "its centers"),
        ({"tensors": {"state.labels": np.zeros(N, np.int32)}}, "multiple values"),
        ({"tensors": {"state.previous": np.zeros(0)}}, "missing"),
        ({"tensors": {"state.converged": np.zeros(3)}}, "multiple values|its converged"),
    ],
)
def test_a_forged_file_is_refused(changes, match, path):
    with pytest.raises(Fault, match=match) as caught:
        read_snapshot(forged(path, **changes))
    assert "\n" not in str(caught.value)


def test_forging_as_such_does_no_damage(path):
    assert read_snapshot(forged(path)).seconds == 1 / 3


def test_a_file_cut_or_changed_anywhere_is_refused(path):
    good = write(path, make_record()).read_bytes()
    for at in range(0, len(good), 61):
        path.write_bytes(good[:at])
        with pytest.raises(Fault):
            read_snapshot(path)
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(Fault):
            read_snapshot(path)


def test_a_claim_of_terabytes_takes_no_memory(path):
    header, body = taken_apart(write(path, make_record()).read_bytes())
    header["state.previous"]["shape"] = [2**20, 2**20]
    path.write_bytes(put_together(header, body))
    with pytest.raises(Fault, match=r"damaged .*invalid"):
        read_snapshot(path)


def test_reading_a_checkpoint_runs_no_pickle(path):
    code = f"""
import sys
def hear(event, arguments):
    assert not event.startswith(("pickle", "marshal", "subprocess", "socket", "import")), arguments
from mnist_kmeans_mlx.persistence.record import read_snapshot
read_snapshot({str(path)!r})
sys.addaudithook(hear)
read_snapshot({str(path)!r})
"""
    write(path, make_record())
    run("-c", code)
