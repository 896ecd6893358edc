#!/usr/bin/env python
"""Kill fits and writers of answers with SIGKILL, resume them, and compare the results.

Every fit runs in a process of its own, `mnist-kmeans-mlx fit --checkpoint C --resume --save M`,
that is killed after a random time and started again until it is through. Its model must then be
that of a fit that nobody disturbed, to the last bit: labels, centres, inertia and iterations.

What writes answers is killed as well, and before it goes on one thing is changed that answers
depend on: see `_changes.py`.

Exit status 1 if one differs.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import _changes
import check_ranks
import numpy as np

from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.persistence.record import read_snapshot

CASES = {
    "uint8": (np.uint8, 1, []),
    "float32": (np.float32, 255, ["--algorithm", "lloyd"]),
    "float64": (np.float64, 255, ["--algorithm", "elkan"]),
    "float64, random": (np.float64, 255, ["--init", "random"]),
}


def start(folder, words):
    """Start a fit in one process."""
    (process,) = check_ranks.start(folder, 1, words)
    return process


def finish(process):
    """Wait for a fit, which must end well."""
    ((status, words),) = check_ranks.finish([process])
    if status:
        raise SystemExit(f"exit status {status}: {words}")


def torture(folder, words, kills, rng):
    """Kill until there were `kills` kills; returns counts."""
    reference, checkpoint, model = (folder / name for name in ("reference", "checkpoint", "model"))
    began = time.monotonic()
    finish(start(folder, [*words, "--save", reference]))
    duration = time.monotonic() - began
    counts, places = Counter(), set()
    while True:
        ways = ["--checkpoint", checkpoint, "--resume", "--save", model]
        process = start(folder, [*words, *ways])
        if counts["kills"] < kills and killed(process, checkpoint, duration, rng):
            counts["kills"] += 1
            if checkpoint.exists():  # and is whole, whenever the kill came
                standing = read_snapshot(checkpoint).standing
                places.add((standing.restart, standing.state and standing.state.n_iter))
                counts["resumed"] += 1
            continue
        finish(process)
        counts["fits"] += 1
        counts["identical"] += check_ranks.same(reference, model)
        counts["places"] = len(places)
        if counts["kills"] == kills:
            return counts
        checkpoint.unlink()


def killed(process, checkpoint, duration, rng):
    """Kill at any moment of the process, or any soon after it wrote the checkpoint."""
    try:
        if rng.random() < 0.3:
            process.wait(rng.uniform(0, duration))
        else:
            before = written(checkpoint)
            while process.poll() is None and written(checkpoint) == before:
                time.sleep(0.002)
            process.wait(rng.uniform(0, duration / 20))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    return False


def written(path):
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, help="kills in all [50]")
    parser.add_argument("--rows", type=int, default=8000, help="rows of MNIST [8000]")
    parser.add_argument("--clusters", type=int, default=40, help="clusters [40]")
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="[all]")
    parser.add_argument(
        "--changes", nargs="*", choices=_changes.CHANGES, default=_changes.CHANGES,
        help="of what answers depend on [all]",
    )  # fmt: skip
    options = parser.parse_args()
    rng = random.Random(options.seed)
    rows = load_mnist().x_train[: options.rows].reshape(options.rows, -1)
    total = Counter()
    print(f"{'data':17}{'kills':>7}{'resumed':>9}{'at places':>11}{'fits':>6}{'identical':>11}")
    for number, name in enumerate(options.cases):
        dtype, unit, extra = CASES[name]
        rest = options.kills % len(options.cases)
        share = options.kills // len(options.cases) + (number < rest)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            np.save(folder / "rows.npy", rows if unit == 1 else (rows / unit).astype(dtype))
            words = ["--data", folder / "rows.npy", "-k", options.clusters, "--seed", 7]
            counts = torture(folder, [*words, "--n-init", 6, *extra], share, rng)
        print(
            f"{name:17}{counts['kills']:7}{counts['resumed']:9}{counts['places']:11}"
            f"{counts['fits']:6}{counts['identical']:11}",
            flush=True,
        )
        total += counts
    print(
        f"\n{total['kills']} kills, after {total['resumed']} of which the fit went on from a "
        f"checkpoint and else from its start; {total['identical']} of {total['fits']} fits found "
        "what an undisturbed one finds, bit for bit"
    )
    print()
    failed = _changes.report(options.changes, rng)
    return int(failed > 0 or total["identical"] < total["fits"])


if __name__ == "__main__":
    sys.exit(main())
