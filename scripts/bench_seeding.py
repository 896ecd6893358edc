#!/usr/bin/env python
"""SSE after cheaper seedings, relative to greedy k-means++.

Prints, for each K, the mean over some seeds of the SSE after the fit relative to that of k-means++,
with its spread, and the number of iterations.

    python scripts/bench_seeding.py [-k 20 100] [--seeds 5]
"""

import argparse
import warnings

import numpy as np

from mnist_kmeans_mlx import KMeans, MiniBatchKMeans, load_mnist


def fits(rows, k, seed):
    """SSE and iterations of each way."""
    full = {"n_clusters": k, "n_init": 1, "random_state": seed}
    for init in ("k-means++", "k-means||", "random"):
        model = KMeans(**full, init=init).fit(rows)
        yield f'`init="{init}"`'.replace("|", "\\|"), model.inertia_, model.n_iter_
    model = MiniBatchKMeans(**full).fit(rows)
    yield "`MiniBatchKMeans`", model.inertia_, model.n_iter_


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-k", type=int, nargs="+", default=[20, 100], help="clusters [20 100]")
    parser.add_argument("--seeds", type=int, default=5, help="[5]")
    parser.add_argument("--rows", type=int, default=60_000, help="rows of MNIST [60000]")
    options = parser.parse_args()
    rows = load_mnist().x_train[: options.rows].reshape(options.rows, -1)
    print("| K | Seeding | SSE, relative | from | to | Iterations |")
    print("| --: | --- | --: | --: | --: | --: |")
    for k in options.k:
        found = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for seed in range(options.seeds):
                ways = list(fits(rows, k, seed))
                for name, inertia, n_iter in ways:
                    found.setdefault(name, []).append((inertia / ways[0][1], n_iter))
        for name, values in found.items():
            ratio, iterations = np.array(values).T
            print(
                f"| {k} | {name} | {ratio.mean():.4f} | {ratio.min():.4f} | {ratio.max():.4f} "
                f"| {iterations.mean():.0f} |"
            )


if __name__ == "__main__":
    main()
