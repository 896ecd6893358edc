#!/usr/bin/env python
"""What an iteration of the MLX way asks of the device, and what it leaves to the host.

For each case and stage: how often the host waits for the device, how many bytes come back, seconds
spent waiting, and seconds of the host besides. Where MLX finds no GPU, the CPU is taken for one:
its seconds say nothing about a GPU, but waits, bytes and the host's part are the same.

    python scripts/bench_mlx_way.py [--quick] [--json PATH] [CASE ...]
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from doubles import taken_for_gpu

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine.mlx import crossing, rows, seeding, way

CASES = [
    (dtype, k, n_init)
    for dtype in ("uint8", "float64", "float32")
    for k, n_init in ((20, 1), (100, 1), (256, 1), (20, 10))
]
QUICK = [("uint8", 20, 1), ("float64", 20, 1)]


class Crossings:
    """Counts what crosses and clocks who works, by stage of the fit."""

    def __init__(self):
        self.stage_name, self.depth = None, 0
        self.stages = defaultdict(lambda: dict.fromkeys(("waits", "bytes", "device", "all"), 0))

    @contextmanager
    def stage(self, name):
        before, began = self.stage_name, time.perf_counter()
        self.stage_name = name
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.stages[name]["all"] += seconds
            if before is not None:
                self.stages[before]["all"] -= seconds
            self.stage_name = before

    def waiting(self, function):
        """A function whose time is the device's."""

        def call(*arguments, **options):
            self.depth += 1
            began = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.depth -= 1
                if self.depth == 0:
                    self.stages[self.stage_name]["device"] += time.perf_counter() - began

        return call

    def fetch(self, *arrays, keep=()):
        found = self.waiting(crossing.fetch)(*arrays, keep=keep)
        stage = self.stages[self.stage_name]
        stage["waits"] += 1
        stage["bytes"] += sum(array.nbytes for array in found)
        return found


def measure(given, k, n_init):
    """Fit once, watched."""
    watch = Crossings()
    for module in (rows, seeding, way):
        module.fetch = watch.fetch
    originals = Device.matmul, Device.addmm, mx.eval
    # On the CPU products leave the graph, for a faster BLAS: that is the device's time too.
    Device.matmul, Device.addmm = (watch.waiting(function) for function in originals[:2])
    mx.eval = watch.waiting(mx.eval)
    model = KMeans(k, n_init=n_init, random_state=0, device="gpu")
    try:
        with watch.stage("other"):
            model._fit(given, stage=watch.stage)
    finally:
        Device.matmul, Device.addmm, mx.eval = originals
    return model, {name: dict(stage) for name, stage in watch.stages.items()}


def main(argv=None):
    """Print a table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help="such as uint8-20 or float64-20-10 (default all)"
    )
    parser.add_argument("--quick", action="store_true", help="two cases of 6,000 images")
    parser.add_argument("--json", metavar="PATH")
    arguments = parser.parse_args(argv)
    if not (mx.metal.is_available() or mx.cuda.is_available()):
        print("MLX finds no GPU: the CPU is taken for one, and its seconds say nothing of a GPU")
        resolve = devices.resolve
        devices.resolve = lambda name="auto": resolve("cpu") if name == "cpu" else taken_for_gpu()
    pixels = load_mnist().x_train.reshape(60_000, -1)[:: 10 if arguments.quick else 1]
    layout = "{:8}{:>5}{:>7}  {:11}{:>7}{:>10}{:>10}{:>8}{:>11}"
    columns = ("rows", "K", "n_init", "stage", "waits", "KB back", "device s", "host s")
    print(layout.format(*columns, "host ms/it"))
    table = []
    for dtype, k, n_init in QUICK if arguments.quick else CASES:
        names = {f"{dtype}-{k}-{n_init}", *([f"{dtype}-{k}"] if n_init == 1 else [])}
        if arguments.cases and not names & set(arguments.cases):
            continue
        given = pixels if dtype == "uint8" else (pixels / 255).astype(dtype)
        model, stages = measure(given, k, n_init)
        for name in ("upload", "seeding", "iterations", "final", "other"):
            stage = stages.get(name)
            if stage is None:
                continue
            host = stage["all"] - stage["device"]
            each = 1e3 * host / stage["waits"] if name == "iterations" else float("nan")
            facts = {"rows": dtype, "k": k, "n_init": n_init, "stage": name, **stage}
            table.append(facts | {"host": host, "n_iter": model.n_iter_})
            print(
                layout.format(
                    dtype, k, n_init, name, stage["waits"], f"{stage['bytes'] / 1e3:.0f}",
                    f"{stage['device']:.2f}", f"{host:.3f}", f"{each:.2f}",
                ),
                flush=True,
            )  # fmt: skip
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(table, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
