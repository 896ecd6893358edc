#!/usr/bin/env python
"""Time an iteration of algorithm="lloyd" on the CPU beside scikit-learn's Lloyd.

What 21 iterations from given rows take more than one, divided by 20. Arms take turns in one
process. The ratio is our time divided by scikit-learn's: below 1 we are quicker.

    python scripts/bench_lloyd.py [--repeat 5] [--cases 'mnist*'] [--out lloyd.json]
"""

import argparse
import time
import warnings
from fnmatch import fnmatchcase

import numpy as np
from _bench import ratio, save, say, show, spread, surroundings, table
from sklearn import cluster

import mnist_kmeans_mlx
from mnist_kmeans_mlx.datasets import load_mnist

STEPS = 20
ARMS = {"scikit-learn": (cluster.KMeans, {}), "ours": (mnist_kmeans_mlx.KMeans, {"device": "cpu"})}


def cases(rows):
    """Names, rows and numbers of clusters; of MNIST so many rows at most."""
    pixels = load_mnist().x_train[:rows].reshape(-1, 784)
    for k in (20, 100):
        yield f"mnist bytes, K = {k}", pixels, k
        yield f"mnist / 255 float64, K = {k}", pixels / 255, k
        yield f"mnist / 255 float32, K = {k}", (pixels / 255).astype(np.float32), k
    yield "mnist standardized, K = 20", (pixels - pixels.mean(0)) / (pixels.std(0) + 1), 20
    normal = np.random.default_rng(0).standard_normal
    yield "normal x 384 float32, K = 100", normal((min(rows, 20_000), 384), np.float32), 100
    yield "normal x 32, K = 20", normal((min(rows, 100_000), 32)), 20


def seconds(arm, rows, k, steps):
    """One fit of so many iterations."""
    kind, options = ARMS[arm]
    model = kind(k, init=rows[:k], n_init=1, max_iter=steps, tol=0, algorithm="lloyd", **options)
    began = time.perf_counter()
    model.fit(rows)
    return time.perf_counter() - began


def iteration(arm, rows, k):
    """Seconds of one iteration; a first fit makes ready."""
    first = min(seconds(arm, rows, k, 1) for _ in range(2))
    return (seconds(arm, rows, k, 1 + STEPS) - first) / STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--cases", default="*", help="a shell pattern")
    parser.add_argument("--rows", type=int, default=1_000_000, help="at most")
    parser.add_argument("--out", help="JSON file for the result")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # fits that stop early
    lines, results = [], []
    for name, rows, k in cases(options.rows):
        if not fnmatchcase(name, options.cases):
            continue
        taken = {arm: [] for arm in ARMS}
        for _ in range(options.repeat):
            for arm, each in taken.items():
                each.append(iteration(arm, rows, k))
        found = ratio(taken["ours"], taken["scikit-learn"])
        times = {arm: spread([1e3 * s for s in each]) for arm, each in taken.items()}
        results.append({"case": name, "milliseconds": times, "ratio": found})
        lines.append([name, "", *times.values(), found])
        say(name, show(found))
    print(table(["case", "", *(f"{arm}, ms" for arm in ARMS), "ratio"], lines))
    if options.out:
        save(options.out, {"surroundings": surroundings("cpu"), "results": results})


if __name__ == "__main__":
    main()
