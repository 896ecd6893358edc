#!/usr/bin/env python
"""What half or twice of each constant that chooses a way, or is of the host's, costs.

Fits with the constant as it is and changed take turns; a ratio above one says that the change is
slower. Each constant is tried where it decides anything.

    python scripts/bench_strategy.py [--repeat 3] [--json PATH] [NAME ...]
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.engine import points, sums
from mnist_kmeans_mlx.engine.host import bounded, comparison, sketch, strategy

# Constant, the modules that have it, its values besides its own, and cases that it matters for.
CONSTANTS = {
    "TURNING_WIDTH": ([strategy], (48, 192), ("mnist-20", "mnist-100")),
    "WIDE": ([strategy], (64, 256), ("mnist-20", "mnist-256", "narrow-200")),
    "MANY": ([strategy], (64, 256), ("narrow-100", "narrow-200")),
    "MOVERS": ([strategy], (4, 16), ("narrow-200",)),
    "FEW": ([comparison, bounded], (24, 96), ("mnist-20", "narrow-100")),
    "TURNED": ([bounded], (0.75, 3), ("mnist-20", "shapeless-20")),
    "MOST": ([bounded], (3 / 8, 1.0), ("mnist-20", "shapeless-20")),
    "CHANGED": ([sums], (1 / 4, 3 / 4), ("mnist-20", "shapeless-20")),
    "CROWD": ([bounded], (4, 16), ("mnist-256",)),
    "REACH": ([bounded], (2, 8), ("mnist-256",)),
    "BLOCK": ([bounded], (2 << 20, 8 << 20), ("mnist-20", "narrow-200")),
    "FEWEST_ROWS": ([strategy, sketch], (2048, 8192), ("mnist-20",)),
    "FEWEST_CENTERS": ([strategy], (3, 12), ("mnist-4", "mnist-8", "shapeless-8")),
    "USUAL": ([strategy], (10, 40), ("mnist-20",)),
    "ONE_PIECE": ([points], (500_000, 2_000_000), ("few-20", "few-10")),
    "ONE_THREAD": ([points], (2_500_000, 10_000_000), ("some-12", "some-10", "narrow-100")),
}


def cases():
    """Rows and the number of clusters of each."""
    pixels = load_mnist().x_train.reshape(60_000, -1)
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(200, 16))
    narrow = middles[rng.integers(0, 200, 100_000)] + 0.5 * rng.normal(size=(100_000, 16))
    narrow = narrow.astype(np.float32)
    found = {f"mnist-{k}": (pixels, k) for k in (4, 8, 20, 100, 256)}
    shapeless = rng.normal(size=(20_000, 384)).astype(np.float32)
    found |= {f"shapeless-{k}": (shapeless, k) for k in (8, 20)}
    found["few-20"] = rng.normal(size=(10_000, 50)), 20
    found["some-12"] = rng.normal(size=(100_000, 8)), 12
    found["some-10"] = pixels[::8], 10
    found["few-10"] = rng.normal(size=(40_000, 10)), 10
    return found | {f"narrow-{k}": (narrow, k) for k in (100, 200)}


def seconds(rows, k):
    """One fit from fixed seeds."""
    start = rows[np.random.default_rng(k).choice(len(rows), k, replace=False)]
    model = KMeans(k, init=start, n_init=1, max_iter=60, device="cpu")
    began = time.perf_counter()
    model.fit(rows)
    return time.perf_counter() - began


def main(argv=None):
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of constants (default all)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", metavar="PATH")
    arguments = parser.parse_args(argv)
    data, table = cases(), []
    print(f"{'constant':16}{'value':>10}{'instead':>10}  {'case':12}{'ratio':>7}")
    for name in arguments.names or CONSTANTS:
        modules, values, where = CONSTANTS[name]
        own = getattr(modules[0], name)
        for case in where:
            times = {value: [] for value in (own, *values)}
            for _ in range(arguments.repeat):
                for value, series in times.items():
                    for module in modules:
                        setattr(module, name, value)
                    series.append(seconds(*data[case]))
            for module in modules:
                setattr(module, name, own)
            for value in values:
                ratio = median(times[value]) / median(times[own])
                print(f"{name:16}{own:>10}{value:>10}  {case:12}{ratio:7.2f}", flush=True)
                table.append({"name": name, "own": own, "value": value, "case": case,
                              "ratio": ratio, "seconds": times[value]})  # fmt: skip
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
