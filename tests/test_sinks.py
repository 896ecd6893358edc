"""Rows that are written as they come: whole at the end, or to be gone on with."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx.datasets import DatasetError
from mnist_kmeans_mlx.persistence import sinks
from mnist_kmeans_mlx.persistence.sinks import open_sink

MODEL = {"model": "ab12", "shape": [100, 7], "dtype": "uint8", "method": "predict"}
LABELS = np.random.default_rng(0).integers(0, 20, 100).astype(np.int32)
DISTANCES = np.random.default_rng(1).normal(size=(100, 3)).astype(np.float32)


@pytest.fixture(params=["npy", "csv", "parquet"])
def path(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow")
    return tmp_path / f"out.{request.param}"


@pytest.fixture
def eager(monkeypatch):
    """Every block is recorded at once."""
    monkeypatch.setattr(sinks, "_EVERY", 0.0)


def write(path, rows, *, step=7, identity=MODEL, resume=True, most=10**9):
    """Append what is missing, by `step` rows; break off after `most` blocks."""
    with open_sink(path, rows.shape, rows.dtype, identity, resume=resume) as sink:
        begun = sink.rows_done
        while sink.rows_done < len(rows):
            if not most:
                raise KeyboardInterrupt
            sink.append(rows[sink.rows_done : sink.rows_done + step])
            most -= 1
    return begun


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    import pandas as pd

    table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    if list(table) == ["label"]:
        return table["label"].to_numpy()
    assert list(table) == [f"distance_{i}" for i in range(len(table.columns))]
    return table.to_numpy()


def check(path, rows):
    found = read(path)
    # Text has no precision of its own.
    found = found.astype(rows.dtype) if path.suffix == ".csv" else found
    assert_array_equal(found, rows, strict=True)


@pytest.mark.parametrize("rows", [LABELS, DISTANCES, DISTANCES.astype(np.float16), LABELS[:0]])
@pytest.mark.parametrize("group", [1 << 25, 40])
def test_what_is_written_is_read(rows, group, path, monkeypatch):
    monkeypatch.setattr(sinks, "_GROUP", group)
    assert write(path, rows) == 0
    check(path, rows)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("rows", [LABELS, DISTANCES])
def test_it_goes_on_where_it_was_broken_off(rows, path, eager):
    path.write_bytes(b"before")
    for begun in (0, 14, 28):
        with pytest.raises(KeyboardInterrupt):
            assert write(path, rows, most=2) == begun
        assert path.read_bytes() == b"before"
    assert write(path, rows) == 42
    check(path, rows)
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    "other",
    [
        {"identity": MODEL | {"model": "cd34"}},
        {"rows": LABELS.astype(np.int64)},
        {"rows": LABELS[:90]},
        {"resume": False},
    ],
)
def test_something_else_begins_anew(other, path):
    with pytest.raises(KeyboardInterrupt):
        write(path, LABELS[::-1], most=5)
    arguments = {"rows": LABELS, **other}
    assert write(path, **arguments) == 0
    check(path, arguments["rows"])


def test_bytes_that_were_not_recorded_are_not_trusted(tmp_path, eager):
    path = tmp_path / "out.npy"
    with pytest.raises(KeyboardInterrupt):
        write(path, LABELS, most=3)
    with open(tmp_path / ".out.npy.partial", "ab") as file:
        file.write(b"\xff" * 50)
    assert write(path, LABELS) == 21
    assert_array_equal(np.load(path), LABELS)


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"7",
        b"{}",
        json.dumps({"identity": MODEL, "rows": 22}).encode(),
        json.dumps({"identity": MODEL, "rows": -1}).encode(),
        json.dumps({"identity": MODEL, "rows": "21"}).encode(),
        json.dumps({"identity": MODEL, "rows": 10**30}).encode(),
    ],
)
def test_a_damaged_journal_begins_anew(journal, tmp_path, eager):
    path = tmp_path / "out.npy"
    with pytest.raises(KeyboardInterrupt):
        write(path, LABELS, most=3)
    (tmp_path / ".out.npy.partial.json").write_bytes(journal)
    assert write(path, LABELS) == 0
    assert_array_equal(np.load(path), LABELS)


@given(blocks=st.lists(st.integers(0, 30)), breaks=st.lists(st.integers(0, 3), max_size=5))
@settings(max_examples=15)
def test_any_blocks_and_breaks(blocks, breaks, tmp_path_factory):
    path = tmp_path_factory.mktemp("sink") / "out.npy"
    for most in breaks:
        try:
            write(path, DISTANCES, step=5, most=most)
        except KeyboardInterrupt:
            continue
    with open_sink(path, DISTANCES.shape, DISTANCES.dtype, MODEL) as sink:
        for length in (*blocks, 100):
            sink.append(DISTANCES[sink.rows_done : sink.rows_done + length])
    assert_array_equal(np.load(path), DISTANCES)


def test_what_does_not_fit_is_refused(path):
    def too_few():
        with open_sink(path, (100,), np.int32, MODEL) as sink:
            sink.append(LABELS[:10])
            with pytest.raises(ValueError, match=r"\(91,\) do not fit .* which has 10 rows so far"):
                sink.append(LABELS[:91])
            with pytest.raises(ValueError, match=r"\(5, 3\) do not fit"):
                sink.append(DISTANCES[:5])
            with pytest.raises(TypeError, match="same_kind"):
                sink.append(np.zeros(5))

    with pytest.raises(ValueError, match="is not complete: 10 of 100 rows came"):
        too_few()
    assert not path.exists()
    with pytest.raises(ValueError, match=r"name it \.npy, \.csv or \.parquet"):
        write(path.with_suffix(".csv.gz"), LABELS)


def test_a_full_disk_leaves_what_was_there_and_is_gone_on_from(path, eager, full_disk):
    path.write_bytes(b"before")
    rows = np.random.default_rng(0).normal(size=(1000, 8))
    with pytest.raises(OSError, match=r".") as caught, full_disk(8000):
        write(path, rows, step=100)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert write(path, rows, step=100) == 100
    assert_array_equal(read(path), rows)
    assert os.listdir(path.parent) == [path.name]


def test_a_disk_that_is_full_at_the_end(tmp_path, full_disk, monkeypatch):
    pytest.importorskip("pyarrow")
    path = tmp_path / "out.parquet"
    rows = np.random.default_rng(0).normal(size=(1000, 2))

    def fill():
        with open_sink(path, rows.shape, rows.dtype, MODEL) as sink:
            sink.append(rows)
            with full_disk(10_000):
                sink.finish()

    with pytest.raises(OSError, match=r".") as caught:
        fill()
    assert caught.value.filename == str(path)
    assert sorted(os.listdir(tmp_path)) == [".out.parquet.partial", ".out.parquet.partial.json"]
    assert write(path, rows) == 1000
    assert_array_equal(read(path), rows)


def test_what_is_not_writable_is_named(tmp_path):
    for path in (tmp_path / "no" / "out.npy", tmp_path / "folder.npy"):
        (tmp_path / "folder.npy").mkdir(exist_ok=True)
        with pytest.raises(OSError, match=r".") as caught:
            write(path, LABELS)
        assert caught.value.filename == str(path)


def test_two_cannot_write_one_file(path):
    with open_sink(path, LABELS.shape, LABELS.dtype, MODEL) as sink:
        with pytest.raises(OSError, match="is being written by another process"):
            write(path, LABELS)
        sink.append(LABELS)
    assert_array_equal(read(path), LABELS)


def test_permissions_are_kept(path):
    path.write_bytes(b"before")
    path.chmod(0o640)
    write(path, LABELS)
    assert path.stat().st_mode & 0o777 == 0o640


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DatasetError, match=r"out\.parquet' is a Parquet file, which needs pyarrow"):
        write(tmp_path / "out.parquet", LABELS)
    assert os.listdir(tmp_path) == []


def test_killed_at_any_moment(path):
    """The target is the old one or the whole new one, and the work goes on."""
    code = f"""
import sys, numpy as np
from mnist_kmeans_mlx.persistence import sinks
sinks._EVERY = 0.0
if {path.suffix!r} == ".parquet":
    sinks.arrow()
rows = np.arange(60_000, dtype=np.int32)
print(flush=True)
with sinks.open_sink({str(path)!r}, rows.shape, rows.dtype, {MODEL!r}) as sink:
    print(sink.rows_done, flush=True)
    while sink.rows_done < len(rows):
        sink.append(rows[sink.rows_done : sink.rows_done + 100])
"""
    rows = np.arange(60_000, dtype=np.int32)
    rng = random.Random(0)
    path.write_bytes(b"before")
    begun, killed = [], 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        ) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.1))
            process.send_signal(signal.SIGKILL)
            begun += map(int, process.stdout.read().split())
        killed += process.returncode == -signal.SIGKILL
        if path.read_bytes() != b"before":
            break
    else:
        assert write(path, rows, step=500) >= max(begun, default=0)
    assert killed
    assert begun == sorted(begun)
    assert_array_equal(read(path), rows)


def test_killed_at_every_step(path):
    """Before each flush, renaming and removal, of which the last ones are those of the end."""
    code = f"""
import os, signal, numpy as np
from mnist_kmeans_mlx.persistence import sinks
sinks.arrow() if {path.suffix!r} == ".parquet" else None
sinks._EVERY = 0.0
rows = np.arange(60, dtype=np.int32)

def write(moment):
    def deadly(function):
        def call(*arguments):
            nonlocal moment
            moment -= 1
            if moment == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)
        return call
    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))
    with sinks.open_sink({str(path)!r}, rows.shape, rows.dtype, {MODEL!r}) as sink:
        sink.append(rows[sink.rows_done :])

moment, done = 0, False
while not done:
    moment += 1
    with open({str(path)!r}, "wb") as file:
        file.write(b"before")
    child = os.fork()
    if not child:
        write(moment)
        os._exit(0)
    done = not os.waitpid(child, 0)[1]
    with open({str(path)!r}, "rb") as file:
        print(moment, done, file.read() == b"before", flush=True)
    if not done:
        with sinks.open_sink({str(path)!r}, rows.shape, rows.dtype, {MODEL!r}) as sink:
            sink.append(rows[sink.rows_done :])
        print(sorted(os.listdir({str(path.parent)!r})))
        saved = open({str(path)!r}, "rb").read()
print(saved == open({str(path)!r}, "rb").read())
"""
    *steps, same = run("-W", "ignore", "-c", code).stdout.splitlines()
    assert same == "True"
    assert len(steps) > 14
    assert set(steps[1::2]) == {f"['{path.name}']"}
    untouched = [line.endswith("False True") for line in steps[:-1:2]]
    assert untouched == sorted(untouched, reverse=True)
    assert untouched[0]
    assert not untouched[-1]  # killed when all was done but to tidy up
    assert_array_equal(read(path), np.arange(60, dtype=np.int32))
