#!/usr/bin/env python3
"""Time of one K-means iteration on MNIST, compared with the limits of the machine.

Measures the device's matrix product and memory rates, counts the operations and bytes of one full
comparison of all rows with all centres, and times the engine's iterations. For an Apple M2 the same
count is divided by the vendor's figures: a model, not a measurement.

    python scripts/roofline.py [--device gpu] [--json PATH] [K ...]
"""

from __future__ import annotations

import argparse
import os
import time
from statistics import median

os.environ.setdefault("MLX_ENABLE_TF32", "0")  # float32 is what is to be measured
import mlx.core as mx
import numpy as np
from _bench import save

from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.device import describe, resolve
from mnist_kmeans_mlx.engine.lloyd import lloyd
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.seeding.start import draw
from mnist_kmeans_mlx.engine.ways import choose

# Apple's figures for the 10-core GPU of an M2: float32 operations and bytes per second.
M2 = {"flops": 3.6e12, "bytes": 100e9}


def best_seconds(function, repeat=5):
    """Shortest of a few runs, because a rate is a limit of the machine."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def machine_rates(device, edge=4096, numbers=1 << 27):
    """Operations per second of a float32 matrix product, bytes per second of reading."""
    rng = np.random.default_rng(0)
    square, long = rng.random((edge, edge), np.float32), np.ones(numbers, dtype=np.float32)
    if device.kind == "cpu":
        seconds = best_seconds(lambda: square @ square), best_seconds(lambda: long @ long)
    else:
        with mx.stream(device.mlx):
            a, b = mx.array(square), mx.array(long)
            seconds = (
                best_seconds(lambda: mx.eval(device.matmul(a, a))),
                best_seconds(lambda: mx.eval(mx.sum(b))),
            )
    return {"flops": 2 * edge**3 / seconds[0], "bytes": long.nbytes / seconds[1]}


def full_pass(n, d, k):
    """Operations and bytes of comparing all rows, as float32, with all centres once."""
    return {"flops": 2 * n * d * k, "bytes": 4 * n * (d + k)}


def floor_seconds(work, rates):
    """What the slower of computing and reading takes."""
    return max(work[name] / rates[name] for name in ("flops", "bytes"))


def measured_iteration(points, start, algorithm):
    """Median seconds of one iteration, and how many there were."""
    way = choose(points, len(start), algorithm)
    ticks = [time.perf_counter()]
    run = lloyd(
        way,
        start,
        max_iter=300,
        tol=1e-4 * way.mean_variance,
        observe=lambda *_: ticks.append(time.perf_counter()),
    )
    return median(np.diff(ticks).tolist()), (ticks[-1] - ticks[0]) / run.n_iter, run.n_iter


def main(argv=None):
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("k", type=int, nargs="*", default=[20, 100, 256], metavar="K")
    parser.add_argument("--device", choices=("auto", "gpu", "cpu"), default="cpu")
    parser.add_argument("--rows", type=int, default=60_000, help="of MNIST (default all)")
    parser.add_argument("--json", metavar="PATH")
    arguments = parser.parse_args(argv)
    rows = load_mnist().x_train[: arguments.rows].reshape(-1, 784)
    device = resolve(arguments.device)
    rates = machine_rates(device)
    points = Points(rows, device)
    print(f"{rates['flops'] / 1e9:.0f} GFLOP/s, {rates['bytes'] / 1e9:.1f} GB/s (float32)")
    header = ("K", "GFLOP", "MB", "floor ms", "lloyd ms", "auto ms", "mean", "iterations", "M2 ms")
    print(("{:>6}" + "{:>11}" * 8).format(*header))
    table = []
    for k in arguments.k:
        work = full_pass(*rows.shape, k)
        start = points.raw(draw(choose(points, k), "k-means++", k, np.random.RandomState(0))[0])
        lloyd_median, _, _ = measured_iteration(points, start, "lloyd")
        auto_median, auto_mean, n_iter = measured_iteration(points, start, "auto")
        row = {
            "k": k,
            **work,
            "floor_ms": 1e3 * floor_seconds(work, rates),
            "lloyd_ms": 1e3 * lloyd_median,
            "auto_ms": 1e3 * auto_median,
            "auto_mean_ms": 1e3 * auto_mean,
            "n_iter": n_iter,
            "m2_floor_ms_modelled": 1e3 * floor_seconds(work, M2),
        }
        table.append(row)
        cells = (work["flops"] / 1e9, work["bytes"] / 1e6, *list(row.values())[3:7])
        numbers = "".join(f"{x:11.1f}" for x in cells)
        print(f"{k:6}{numbers}{n_iter:11}{row['m2_floor_ms_modelled']:11.1f}")
    if arguments.json:
        save(arguments.json, {"machine": describe(device.name), "rates": rates, "rows": table})


if __name__ == "__main__":
    main()
