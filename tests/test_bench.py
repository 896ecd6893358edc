"""The benchmarks run and count right; how fast anything is, no test asks."""

import json
from pathlib import Path

import numpy as np
import oracle
import pytest
from commands import run_script


@pytest.mark.slow
def test_peers(tmp_path):
    path = tmp_path / "peers.json"
    argv = ["--quick", "--cases", "mnist-k10-r1", "--repeat", 1, "--json", path]
    arms = "sklearn-lloyd-float32,faiss"
    done = run_script("bench_peers.py", *argv, "--arms", arms, "--venvs", tmp_path / "none")
    result = json.loads(path.read_text())
    assert "not installed" in result["missing"]["faiss"]
    assert result["missing"]["faiss"] in done.stdout
    rows = {(row["mode"], row["arm"]): row for row in result["rows"]}
    assert set(rows) == {
        (mode, arm) for mode in ("fit", "given") for arm in ("ours", "sklearn-lloyd-float32")
    }
    for row in rows.values():
        assert len(row["seconds"]) == 1
        assert row["note"] == ""
        assert abs(row["sse_to_ours"]) <= 1e-5
        assert 0 < row["accuracy"] < 1
        assert row["peak_bytes"] > 1 << 20
    for arm in ("ours", "sklearn-lloyd-float32"):
        assert set(rows["fit", arm]["stages"]) == {"seeding", "iterations", "final"}
    assert rows["fit", "ours"]["n_iter"] == rows["fit", "sklearn-lloyd-float32"]["n_iter"]


@pytest.mark.parametrize(
    ("option", "known"), [("--cases", "embeddings-k1000"), ("--arms", "superkmeans")]
)
def test_a_name_that_there_is_not(option, known):
    done = run_script("bench_peers.py", option, "fais", code=2)
    assert f"{option}: nothing is called 'fais'" in done.stderr
    assert known in done.stderr
    assert "Traceback" not in done.stderr


def test_lloyd(tmp_path):
    path = tmp_path / "lloyd.json"
    options = ["--rows", 600, "--repeat", 1, "--cases", "*K = 20", "--out", path]
    run_script("bench_lloyd.py", *options)
    results = json.loads(path.read_text())["results"]
    assert [each["case"].split(",")[0] for each in results] == [
        "mnist bytes", "mnist / 255 float64", "mnist / 255 float32", "mnist standardized",
        "normal x 32",
    ]  # fmt: skip
    assert all(set(each["milliseconds"]) == {"scikit-learn", "ours"} for each in results)


def test_shapes(tmp_path):
    path = tmp_path / "shapes.json"
    done = run_script("bench_shapes.py", "--quick", "--cases", "iris|100 x 2", "--out", path)
    results = json.loads(path.read_text())["results"]
    calls = ["fit", "predict", "one row", "score", "transform"]
    assert [each["call"] for each in results] == 2 * calls
    for each in results:
        assert each["same"] == 1
        assert each["ratio"]["low"] > 0
        assert set(each["peak_bytes"]) == {"scikit-learn", "ours"}
    assert "fit: median" in done.stdout
    rows = run_script("bench_shapes.py", "--show", path).stdout.splitlines()
    assert [row.split(" | ")[0].strip("| ") for row in rows[2:4]] == ["iris", "100 x 2"]


def test_the_shapes_that_are_shown_are_those_that_were_measured():
    docs = Path(__file__).parents[1] / "docs"
    shown = run_script("bench_shapes.py", "--show", docs / "shapes.json").stdout
    assert shown in (docs / "performance.md").read_text()


def test_a_shape_that_there_is_not():
    done = run_script("bench_shapes.py", "--cases", "irises", code=2)
    assert "there are the cases iris, " in done.stderr


@pytest.mark.slow
def test_scaling(tmp_path):
    pytest.importorskip("matplotlib")
    path, figure = tmp_path / "scaling.json", tmp_path / "scaling.png"
    argv = ["--quick", "--sweeps", "n", "--algorithms", "lloyd", "--iterations", 3]
    run_script("bench_scaling.py", *argv, "--json", path, "--figure", figure)
    assert figure.read_bytes().startswith(b"\x89PNG")
    points = json.loads(path.read_text())["points"]
    assert [(p["n"], p["size"]) for p in points] == [(500, 500), (1000, 1000), (2000, 2000)]
    assert all(p["peak_bytes"] > 1 << 20 for p in points)
    assert all("seconds" in p or p["note"] == "too quick to time" for p in points)


@pytest.mark.slow
def test_gpu(tmp_path):
    done = run_script("bench_gpu.py", tmp_path / "out", "--quick", "--device", "cpu", "--repeat", 1)
    result = json.loads((tmp_path / "out" / "bench_gpu.json").read_text())
    assert len(result["checks"]) == 6
    assert all(check["passed"] for check in result["checks"])
    assert "missing" in result["arms"]["flash-kmeans"]
    assert done.stdout == (tmp_path / "out" / "bench_gpu.txt").read_text()


@pytest.mark.slow
def test_roofline(tmp_path, device):
    run_script("roofline.py", "--device", device, "--rows", 900, "--json", tmp_path / "out", 5, 20)
    result = json.loads((tmp_path / "out").read_text())
    assert result["machine"]["device"] == device
    for k, row in zip((5, 20), result["rows"], strict=True):
        assert (row["k"], row["flops"], row["bytes"]) == (k, 2 * 900 * 784 * k, 3600 * (784 + k))
        computing, reading = (row[name] / result["rates"][name] for name in ("flops", "bytes"))
        assert row["floor_ms"] == pytest.approx(1e3 * max(computing, reading))
        assert row["auto_ms"] > 0


def test_the_judge_is_right(load_script):
    rows = oracle.make_rows("pixels", 500, 7, 0).astype(np.uint8)
    centers = oracle.make_rows("pixels", 9, 7, 1)
    labels, sse = load_script("_bench").nearest(rows, centers)
    distances = oracle.distances_sq(rows, centers)
    assert sse == pytest.approx(distances.min(axis=1).sum(), rel=1e-12)
    assert np.array_equal(labels, distances.argmin(axis=1))


def test_accuracy_counts_the_commonest_class(load_script):
    data = load_script("_bench").Stored("", None, np.array([1, 1, 0, 2, 2]), None)
    assert data.accuracy(np.array([0, 0, 0, 3, 3])) == pytest.approx(4 / 5)


def test_a_broken_arm_says_why(load_script, tmp_path):
    bench = load_script("_bench")
    worker = bench.Worker(bench.Arm("broken", "Faiss", {"no_such_option": 1}), tmp_path)
    with pytest.raises(bench.ArmFailed, match=r"No module|no_such_option"):
        worker.ask("fit")
    worker.close()


def test_a_slow_arm_is_stopped(load_script, tmp_path):
    bench = load_script("_bench")
    worker = bench.Worker(bench.Arm("slow", "Library"), tmp_path)
    with pytest.raises(bench.TimeLimit, match="longer than"):
        worker.ask("describe", limit=0)
    assert worker.process.returncode is not None


def test_stages_are_read_from_verbose_fits(load_script):
    watch = load_script("_bench_arms").Listener()
    watch.lines = [
        (2, "Initialization complete"),
        (5, "Iteration 0, inertia 1."),
        (6, "Converged at iteration 0"),
        (9, "Initialization complete"),  # the end of one restart, then a seeding
        (10, "Converged at iteration 0"),
    ]
    assert watch.stages(0, 11) == {"seeding": 2 + 3 - 1, "final": 1}


def test_exponents_and_crossings(load_script):
    scaling = load_script("bench_scaling")
    points = [
        {"along": "k", "size": k, "algorithm": name, "seconds": seconds}
        for k in (1, 4, 16, 64)
        for name, seconds in (("lloyd", k**2), ("elkan", 64 * k**0.5))
    ]
    assert scaling.exponent(*scaling.curve(points, "k", "lloyd", "seconds")) == pytest.approx(2)
    [crossing] = scaling.crossings(points, "lloyd", "elkan")
    assert crossing["faster_above"] == "elkan"
    assert crossing["size"] == pytest.approx(16)


def test_numbers_are_short(load_script):
    bench = load_script("_bench")
    numbers = (None, 3, 0.0, 0.12345, 1.2345, 123.45)
    assert list(map(bench.show, numbers)) == ["·", "3", "0.000", "0.123", "1.23", "123"]
    assert bench.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert bench.ratio([2.0, 9.0], [1.0, 3.0]) == {"median": 2.5, "low": 2.0, "high": 3.0}
