#!/usr/bin/env python
"""Rows larger than memory, and ranks: time, memory, and whether results are the same.

Makes a file of float16 rows (20 million x 128, 5 GB), reads it with `dd`, fits it in a process that
may hold 1.5 GB, and removes it. The limit is kept twice: `memory=` tells the fit, and RLIMIT_AS
stops the process if it asks for more than that on top of the libraries it maps. A part of the rows
is fitted in memory, out of the file, and on several ranks: the bits must be the same.

    python scripts/bench_scale.py --json scale.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import check_ranks
import numpy as np

from mnist_kmeans_mlx.device import describe
from mnist_kmeans_mlx.persistence import load_model
from mnist_kmeans_mlx.system import same_package

FIT = """
import json, resource, sys, time
import numpy as np
from mnist_kmeans_mlx import KMeans, open_rows
from mnist_kmeans_mlx.engine import lloyd, points
from mnist_kmeans_mlx.engine import sums
from mnist_kmeans_mlx.engine.host import bounded, rows as host_rows
from mnist_kmeans_mlx.engine.seeding import start

path, out, k, memory, iterations = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])

def status(name):
    return int(open("/proc/self/status").read().partition(name + ":")[2].split()[0]) * 1024

rss, mapped = status("VmRSS"), status("VmSize")
resource.setrlimit(resource.RLIMIT_AS, (mapped + memory - rss,) * 2)

def read():
    return int(open("/proc/self/io").read().partition("rchar:")[2].split()[0])

stages = []
def timed(name, function):
    def call(*arguments, **options):
        before, began = read(), time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            stages.append((name, time.perf_counter() - began, read() - before))
    return call

rows = open_rows(path)
step = rows.block_rows
def pass_over():
    for start in range(0, len(rows), step):
        rows[start : start + step]
timed("read only", pass_over)()
del rows
points.Points._range = timed("range", points.Points._range)
host_rows.HostRows._convert = timed("norms", host_rows.HostRows._convert)
start.parallel = timed("k-means||", start.parallel)
nearest = bounded.BoundedAssignment
nearest.__call__ = timed("E-step", nearest.__call__)
sums.HostSums.update = timed("M-step", sums.HostSums.update)
lloyd.inertia = timed("inertia", lloyd.inertia)
began = time.perf_counter()
model = KMeans(k, init="k-means||", random_state=0, max_iter=iterations, tol=0, memory=memory)
import warnings
warnings.simplefilter("ignore")
model.fit(path)
seconds = time.perf_counter() - began
found = {"seconds": seconds, "peak_bytes": status("VmHWM"), "stages": stages}
json.dump(found | {"inertia": model.inertia_, "n_iter": model.n_iter_}, open(out, "w"))
"""


def make_rows(path, n, d):
    """Clusters with noise, the same for every length."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1000, d)).astype(np.float32) * 2
    rows = np.lib.format.open_memmap(path, "w+", np.float16, (n, d))
    for start in range(0, n, 1 << 17):
        part = rows[start : start + (1 << 17)]
        noise = rng.standard_normal(part.shape, np.float32)
        part[:] = centers[rng.integers(0, 1000, len(part))] + noise
    rows.flush()


def forget(path):
    """Drop a file from the system's cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def dd(path):
    """Bytes per second of `dd`, from a file that is not cached."""
    forget(path)
    began = time.perf_counter()
    subprocess.run(
        ["dd", f"if={path}", "of=/dev/null", "bs=32M"], check=True, stderr=subprocess.DEVNULL
    )
    return path.stat().st_size / (time.perf_counter() - began)


def fit(folder, path, k, memory, iterations):
    """Fit a file in a process of its own."""
    forget(path)
    out = folder / "found.json"
    words = [path, out, k, memory, iterations]
    subprocess.run(
        [sys.executable, "-c", FIT, *map(str, words)],
        check=True,
        # One malloc arena: each further one maps 64 MB.
        env={**same_package(), "MALLOC_ARENA_MAX": "1"},
    )
    return json.loads(out.read_text())


def show(found, size, rates):
    print(f"\n{'stage':12}{'calls':>6}{'seconds':>9}{'GB read':>9}{'GB/s':>7}{'of dd':>7}")
    stages = {}
    for name, seconds, read in found["stages"]:
        calls, total, data = stages.get(name, (0, 0.0, 0))
        stages[name] = calls + 1, total + seconds, data + read
    rate = float(np.median(rates))
    for name, (calls, seconds, read) in stages.items():
        speed = read / seconds
        counted = f"{name:12}{calls:6}{seconds:9.1f}{read / 1e9:9.1f}"
        print(f"{counted}{speed / 1e9:7.2f}{speed / rate:7.0%}")
    print(f"dd: {', '.join(f'{each / 1e9:.2f}' for each in rates)} GB/s of {size / 1e9:.2f} GB")
    print(f"the fit took {found['seconds']:.0f} s and held {found['peak_bytes'] / 1e9:.2f} GB")
    return {name: list(values) for name, values in stages.items()}


def part_in_all_ways(folder, k, iterations, sizes):
    """A part of the rows in memory, out of its file, and on ranks."""
    path = folder / "rows.npy"
    words = ["--data", path, "-k", k, "--seed", 0, "--init", "k-means||"]
    words += ["--max-iter", iterations, "--tol", 0]
    n, d = np.load(path, mmap_mode="r").shape
    little = check_ranks.PROCESS_BYTES + n * check_ranks.ROW_BYTES + 50_000_000
    reference, results = folder / "reference", []
    print(f"\n{n} x {d}: rows    ranks  seconds  sent/iteration  SSE")
    for held, memory, size in [
        ("in memory", "auto", 1),
        *(("in a file", little, s) for s in sizes),
    ]:
        model = folder / "model" if reference.exists() else reference
        began = time.perf_counter()
        found = check_ranks.finish(
            check_ranks.start(folder, size, [*words, "--memory", memory, "--save", model])
        )
        seconds = time.perf_counter() - began
        if any(code for code, _ in found):
            raise SystemExit(f"a rank failed: {found}")
        same = check_ranks.same(reference, model)
        # Two parts of each sum and count, and two words; a ring sends 2 (R - 1) / R times that.
        sent = 2 * (size - 1) / size * (2 * k * d + k) * 8 + 3 * (size - 1) * 1024
        sse = load_model(model).estimator.inertia_
        print(
            f"{'':14}{held:10}{size:4}{seconds:9.1f}{sent / 1e3:13.1f} KB  {sse:.6g} "
            f"{'same' if same else 'DIFFERS'}",
            flush=True,
        )
        results.append(
            {"rows": held, "ranks": size, "seconds": seconds, "sent_bytes": sent, "same": same}
        )
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000, help="[20000000]")
    parser.add_argument("--features", type=int, default=128, help="[128]")
    parser.add_argument("-k", type=int, default=256, help="clusters [256]")
    parser.add_argument("--memory", type=int, default=1_500_000_000, help="bytes [1500000000]")
    parser.add_argument("--iterations", type=int, default=5, help="[5]")
    parser.add_argument("--part", type=int, default=1_000_000, help="rows to compare [1000000]")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="[1 2 4]")
    parser.add_argument("--json", metavar="PATH")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / "large.npy"
        make_rows(path, options.rows, options.features)
        size = path.stat().st_size
        rates = [dd(path) for _ in range(3)]
        found = fit(folder, path, options.k, options.memory, options.iterations)
        stages = show(found, size, rates)
        kept = found["peak_bytes"] <= options.memory
        print("the limit was kept" if kept else f"MORE than the limit of {options.memory} bytes")
        part = np.load(path, mmap_mode="r")[: options.part]
        np.save(folder / "rows.npy", part)
        path.unlink()
        ways = part_in_all_ways(folder, options.k, options.iterations, options.ranks)
    if options.json:
        result = {"machine": describe("cpu"), "options": vars(options), "dd": rates}
        result |= {"fit": found | {"stages": stages}, "ways": ways}
        Path(options.json).write_text(json.dumps(result, indent=1))
    return int(not kept or not all(way["same"] for way in ways))


if __name__ == "__main__":
    sys.exit(main())
