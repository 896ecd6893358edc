"""Kill processes that write answers, change an input, and resume them.

Each call starts in its own process, which is killed once some answers are on disk. Then
one thing is changed, the same call is made again, and its file must be that of a call that began
with the change. Where nothing was changed, the call must resume rather than start again.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np

from mnist_kmeans_mlx import BisectingKMeans, KMeans, answers, experiment
from mnist_kmeans_mlx.persistence import load_model, save_model, sinks
from mnist_kmeans_mlx.system import same_package

N, D, K = 6000, 20, 6
# Rows per block; the process to be killed records each block.
STEP = 50
UNITS = {"unit": 255.0}
METHODS = ("predict", "transform")
SUFFIXES = (".npy", ".parquet")
CHANGES = ("nothing", "cell in memory", "cell in a file", "rows in a file", "metric", "centers",
           "tree", "names", "unit")  # fmt: skip
DATA, MODEL = "rows.npy", "model.safetensors"


def prepare(folder, change):
    """A model, and rows of pixels for it."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 256, (N, D)).astype(np.float32)
    np.save(folder / DATA, rows)
    make = BisectingKMeans if change == "tree" else KMeans
    estimator = make(K, random_state=0, device="cpu").fit(rows)
    names = {digit: [digit] for digit in range(K)}
    save_model(folder / MODEL, estimator, cluster_labels=names, metadata=UNITS)
    return rows


def alter(folder, change, rows, place):
    """Change one thing; if it is a row, one that is answered already."""
    if change.endswith(("memory", "file")):
        rows = rows.copy()
        if change.startswith("rows"):  # two that change places: all sums stay
            rows[[place, place + 1]] = rows[[place + 1, place]]
        else:
            rows[place, D // 2] += 5000
        path = folder / DATA
        before = os.stat(path)
        with open(path, "r+b") as file:  # the inode stays, and the time is set back
            np.save(file, rows)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return
    model = load_model(folder / MODEL)
    estimator, names, metadata = model.estimator, model.cluster_labels, dict(model.metadata)
    if change == "metric":
        estimator.set_params(metric="cosine")
    elif change == "centers":
        estimator.cluster_centers_[0] += 40
    elif change == "tree":
        estimator._node_centers[1:3] = estimator._node_centers[2:0:-1].copy()
    elif change == "names":
        names = {digit + 1: clusters for digit, clusters in names.items()}
    elif change == "unit":
        metadata = {"unit": 1.0}
    save_model(folder / MODEL, estimator, cluster_labels=names, metadata=metadata)


def write(folder, change, out, wait=lambda: None):
    """Write the answers that a file is named for; returns how many rows were computed."""
    answers.BLOCK = 4 * D * STEP
    method, model = out.stem, load_model(folder / MODEL)
    estimator, asked = model.estimator, 0
    answer = getattr(estimator, method)

    def count(rows):
        nonlocal asked
        asked += len(rows)
        wait()
        return answer(rows)

    count.__qualname__ = answer.__qualname__
    setattr(estimator, method, count)
    rows = folder / DATA if change.endswith("file") else np.load(folder / DATA)
    if change in ("names", "unit"):
        if change == "unit":
            rows /= 255
        getattr(experiment, f"{method}_to")(model, rows, str(out), device="cpu")
    else:
        getattr(answers, f"{method}_to")(estimator, rows, out)
    return asked


def kill(folder, change, outs, rng):
    """Start in another process and kill it midway; returns the recorded rows of each file.

    The process writes all files at once, a block of each in turn.
    """
    command = [sys.executable, __file__, folder, change, *outs]
    process = subprocess.Popen(command, env=same_package())
    enough = rng.randrange(N // 4, N // 2)
    while process.poll() is None and min(map(certain, outs)) < enough:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return [certain(out) for out in outs]


def begin(folder, change, outs):
    """The work of the process that is killed."""
    sinks._EVERY = 0.0
    together = threading.Barrier(len(outs))
    with ThreadPoolExecutor(len(outs)) as pool:
        for out in outs:
            pool.submit(write, folder, change, out, together.wait)


def certain(out):
    try:
        return json.loads(out.with_name(f".{out.name}.partial.json").read_text())["rows"]
    except FileNotFoundError:
        return 0


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    from pyarrow import parquet

    return np.stack([column.to_numpy() for column in parquet.read_table(path).columns], axis=1)


def check(change, rng):
    """Kill, change and go on; returns counts."""
    # Distances have no names, and do not go down a tree.
    methods = ["predict"] if change in ("names", "tree") else METHODS
    names = [method + suffix for method, suffix in product(methods, SUFFIXES)]
    counts = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in ("out", "before", "fresh"):
            (folder / name).mkdir()
        rows = prepare(folder, change)
        for name in names:
            write(folder, change, folder / "before" / name)
        outs = [folder / "out" / name for name in names]
        done = kill(folder, change, outs, rng)
        alter(folder, change, rows, rng.randrange(1, max(2, min(done) - 2)))
        for out, certainly in zip(outs, done, strict=True):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                asked = write(folder, change, out)
            fresh = folder / "fresh" / out.name
            write(folder, change, fresh)
            before, found, expected = map(read, (folder / "before" / out.name, out, fresh))
            told = any("starts again" in str(warning.message) for warning in caught)
            counts += Counter(
                files=1,
                killed=0 < certainly < N,
                anew=asked == N and told,
                equal=found.tobytes() == expected.tobytes(),
                # The recorded rows would have been wrong: the check can fail.
                wrong=(before[:certainly] != expected[:certainly]).any(),
            )
    return counts


def report(changes, rng):
    """Check all changes and print counts; returns how many failed."""
    print(f"{'changed':17}{'files':>7}{'killed':>9}{'anew':>11}{'equal':>6}")
    failed, total = 0, Counter()
    for change in changes:
        counts = check(change, rng)
        print(
            f"{change:17}{counts['files']:7}{counts['killed']:9}{counts['anew']:11}"
            f"{counts['equal']:6}",
            flush=True,
        )
        anew = 0 if change == "nothing" else counts["files"]
        good = counts["killed"] == counts["equal"] == counts["files"]
        failed += not (good and counts["anew"] == counts["wrong"] == anew)
        total += counts
    print(
        f"\n{total['killed']} killed calls that write answers; {total['equal']} of "
        f"{total['files']} files are those of calls that began with the change"
    )
    return failed


if __name__ == "__main__":
    begin(Path(sys.argv[1]), sys.argv[2], list(map(Path, sys.argv[3:])))
