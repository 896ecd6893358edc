"""Which way a fit takes, and why."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from doubles import make_device, taken_for_gpu

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.device import DeviceError, Speed, resolve
from mnist_kmeans_mlx.engine import ways
from mnist_kmeans_mlx.engine.host.nearest import HostComparison
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.mlx import probe
from mnist_kmeans_mlx.engine.mlx.nearest import MlxComparison
from mnist_kmeans_mlx.engine.mlx.way import MlxWay
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import choose, comparing, decide

FREE = replace(taken_for_gpu(), optional=True)


@pytest.mark.parametrize(
    ("device", "algorithm", "name"),
    [
        (resolve("cpu"), "auto", "host"),
        (resolve("cpu"), "lloyd", "host"),
        (resolve("cpu"), "elkan", "host"),
        (taken_for_gpu(), "auto", "mlx"),
        (taken_for_gpu(), "elkan", "host"),
        (taken_for_gpu(), "lloyd", "mlx"),
        (FREE, "lloyd", "mlx"),
    ],
)
def test_what_is_asked_for_is_taken(device, algorithm, name):
    assert decide(device, algorithm, 60_000, 784, 20).name == name
    points = Points(oracle.make_rows("normal", 20_000, 50, seed=0), device)
    way = choose(points, 20, algorithm)
    assert type(way) is {"host": HostWay, "mlx": MlxWay}[name]
    assert name == "mlx" or way.bounded == (algorithm != "lloyd")
    assert way.why.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("n", "d", "k", "name"),
    [(150, 4, 3, "plain"), (1_000_000, 2, 8, "host"), (1999, 784, 9, "host")],
)
def test_small_and_narrow_data_stay_on_the_host(n, d, k, name):
    assert decide(FREE, "auto", n, d, k).name == name


def test_few_rows_are_compared_on_the_host_if_that_is_free():
    rows = oracle.make_rows("normal", 300, 40, seed=0)
    expected = oracle.distances_sq(rows, rows[:9]).argmin(axis=1)
    for device, compared in ((FREE, HostComparison), (taken_for_gpu(), MlxComparison)):
        assert comparing(device, 300, 40, 9) is compared
        np.testing.assert_array_equal(Nearest(rows[:9], device).labels(rows), expected)
    assert comparing(FREE, 60_000, 784, 20) is MlxComparison
    assert comparing(resolve("cpu"), 60_000, 784, 20) is HostComparison


def test_little_goes_in_one_piece_if_it_is_one():
    rows = oracle.make_rows("normal", 60, 3, seed=0)
    assert type(choose(Points(rows, resolve("cpu")), 3)) is PlainWay
    assert type(choose(Points(rows, resolve("cpu"), keep=False), 3)) is HostWay


@pytest.mark.parametrize(("factor", "name"), [(30, "mlx"), (0.3, "host")])
def test_the_quicker_one_is_taken(factor, name, monkeypatch):
    host = Speed(1e11, 2e10, 0.0)
    monkeypatch.setattr(ways, "host_speed", lambda: host)
    device = Speed(factor * host.flops, factor * host.bytes, 2e-4)
    monkeypatch.setattr(ways, "speed", lambda device_: device)
    choice = decide(FREE, "auto", 60_000, 784, 100, n_init=10)
    assert choice.name == name
    assert choice.name == min(choice.seconds, key=choice.seconds.get)
    for each in ("host", "mlx"):
        assert f"{each} {choice.seconds[each]:.2g} s" in choice.why


@pytest.mark.parametrize(
    ("case", "n", "d", "k", "n_init"),
    [
        ("500,000 x 16 float32", 500_000, 16, 16, 1),
        ("100,000 x 32 float32, K = 100", 100_000, 32, 100, 1),
        ("20,000 x 2000 float32", 20_000, 2000, 8, 1),
        ("MNIST, bytes", 60_000, 784, 20, 1),
        ("MNIST, bytes, K = 256", 60_000, 784, 256, 1),
        ("MNIST / 255, float64, n_init=10", 60_000, 784, 20, 10),
    ],
)
def test_the_estimate_is_near_what_was_measured(case, n, d, k, n_init, monkeypatch):
    results = json.loads((Path(__file__).parents[1] / "docs/shapes.json").read_text())["results"]
    (measured,) = (r for r in results if (r["case"], r["call"]) == (case, "fit"))
    # Rates of the machine that measured.
    monkeypatch.setattr(ways, "host_speed", lambda: Speed(1.7e11, 8.3e10, 0.0))
    monkeypatch.setattr(ways, "speed", lambda device: Speed(1e13, 1e11, 2e-4))
    estimated = decide(FREE, "auto", n, d, k, n_init).seconds["host"]
    assert 0.4 < estimated / (measured["milliseconds"]["ours"] / 1e3) < 2.5


@pytest.mark.parametrize("kind", ["far", "tiny"])
def test_sums_of_many_digits_stay_on_the_host(kind):
    rows = oracle.make_rows("normal", 200, 3, seed=0)
    if kind == "far":
        rows[7] = 1e9
    else:  # no power of two brings these near one
        rows *= 5e-323
    way = choose(Points(rows, taken_for_gpu()), 3)
    assert type(way) is HostWay
    assert "a few far larger" in way.why


def test_a_fit_tells_how_it_went(device):
    model = KMeans(3, device=device, algorithm="elkan").fit(oracle.make_rows("normal", 60, 3, 0))
    assert model.way_ == "host: algorithm='elkan' keeps bounds, on the host"
    assert model.device_ == "cpu"


def test_rates_are_positive(device):
    for rate in (probe.speed(resolve(device)), ways.host_speed()):
        assert rate.flops > 0
        assert rate.bytes > 0
        assert rate.wait >= 0


@pytest.mark.parametrize("multiplier", ["float32", "tf32", "bf16"])
def test_a_device_that_only_rounds_passes(multiplier):
    probe.check(make_device("cpu", multiplier))


def test_a_device_that_multiplies_wrongly_is_refused():
    class Wrong(type(taken_for_gpu())):
        """As ml-explore/mlx#3586: beyond so many rows products are of others."""

        def matmul(self, a, b):
            product = np.array(super().matmul(a, b))
            product[8:] = product[8:][::-1]
            return type(a)(product)

    cpu = resolve("cpu")
    wrong = Wrong("cuda", cpu.mlx, cpu.host_matmul)
    points = Points(oracle.make_rows("pixels", 50, 3, seed=0), wrong)
    with pytest.raises(DeviceError, match=r"multiplies wrongly .* Take device='cpu'"):
        choose(points, 2)
