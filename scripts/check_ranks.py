#!/usr/bin/env python
"""Fit on several ranks, kill some of them, and compare results with one process.

Ranks are processes on a ring through this machine's loopback device, as `mlx.launch` starts them:

    mlx.launch -n 4 --backend ring -- mnist-kmeans-mlx fit --save M --labels-out L.npy ...

Labels, centres, inertia and iterations must be those of one process to the last bit, in memory and
with rows that stay in their file. Then ranks are killed with SIGKILL at random moments: the others
must end within the time that is given, each with one sentence, and leave nothing half-written; a
new job, of another number of ranks, resumes from the checkpoint.

Exit status 1 if anything differs.
"""

import argparse
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.memory import PROCESS_BYTES, ROW_BYTES, centers_bytes
from mnist_kmeans_mlx.persistence import load_model
from mnist_kmeans_mlx.system import same_package

FOUND = ("labels_", "cluster_centers_", "inertia_", "n_iter_")
PATIENCE = 600  # seconds, for a job that is not killed


def start(folder, size, words):
    """Start `size` ranks, or one process if that is 1."""
    environment = same_package()
    command = [sys.executable, "-m", "mnist_kmeans_mlx", "fit", "--no-log", *map(str, words)]
    if size > 1:
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
        hosts = [[f"127.0.0.1:{each.getsockname()[1]}"] for each in sockets]
        for each in sockets:
            each.close()
        (folder / "hosts.json").write_text(json.dumps(hosts))
        environment["MLX_HOSTFILE"] = str(folder / "hosts.json")
    return [
        subprocess.Popen(
            command,
            env={**environment, **({"MLX_RANK": str(rank)} if size > 1 else {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def finish(job, within=PATIENCE):
    """Wait for all; exit statuses, and each one's error or else the last line it wrote."""
    limit = time.monotonic() + within
    found = []
    try:
        for process in job:
            words = process.communicate(timeout=max(0.1, limit - time.monotonic()))[1]
            lines = ["", *words.strip().splitlines()]
            # MLX may remark on the same from a thread of its own.
            said = [line for line in lines if line.startswith("Error: ")]
            found.append((process.returncode, (said or lines)[-1]))
    finally:
        for process in job:
            process.kill()
    return found


def same(a, b):
    """Whether two models agree to the last bit."""
    a, b = (load_model(path).estimator for path in (a, b))
    pairs = [(np.asarray(getattr(a, name)), np.asarray(getattr(b, name))) for name in FOUND]
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


def compare(folder, rows, clusters, sizes):
    """Fit in all ways; returns how many were not as in one process."""
    (n, d), wrong = rows.shape, 0
    print(f"{'K':>4}  {'rows':12}{'ranks':>6}{'seconds':>9}  result")
    for k in clusters:
        reference = folder / f"reference-{k}"
        words = ["--data", folder / "rows.npy", "-k", k, "--seed", 0]
        centers = centers_bytes(k, d, resolve("cpu"))
        little = PROCESS_BYTES + n * ROW_BYTES + centers + 1_000_000
        for held, memory in (("in memory", "auto"), ("in a file", little)):
            for size in sizes:
                first = not reference.exists()
                model = reference if first else folder / "model"
                began = time.monotonic()
                ways = ["--memory", memory, "--save", model, "--labels-out", folder / "labels.npy"]
                found = finish(start(folder, size, [*words, *ways]))
                seconds = time.monotonic() - began
                right = not any(status for status, _ in found) and same(reference, model)
                labels = np.load(folder / "labels.npy")
                right = right and np.array_equal(labels, load_model(reference).estimator.labels_)
                wrong += not right
                result = "reference" if first else "identical" if right else f"DIFFERS {found}"
                print(f"{k:4}  {held:12}{size:6}{seconds:9.1f}  {result}", flush=True)
    return wrong


def same_if_there(reference, model):
    """Whether a model was written, and is the reference to the last bit."""
    return model.exists() and same(reference, model)


def complaints(found, victim, whole):
    """What is wrong with how the others ended after `victim` was killed.

    Each has to fail with one sentence, unless the job was over by then: the result is `whole`.
    """
    return [
        f"rank {rank}: {status} {words!r}"
        for rank, (status, words) in enumerate(found)
        if rank != victim
        and not (status in (1, 75) and words.startswith("Error: "))
        and not (status == 0 and whole)
    ]


def kill(job, victim, reference, model, within):
    """Kill a rank; returns after how long the last of the others ended, and what was wrong."""
    job[victim].send_signal(signal.SIGKILL)
    began = time.monotonic()
    try:
        found = finish(job)
    except subprocess.TimeoutExpired:
        return time.monotonic() - began, ["others did not end at all"]
    seconds = time.monotonic() - began
    wrong = complaints(found, victim, same_if_there(reference, model))
    if seconds > within:
        wrong.append(f"that took more than {within:g} s")
    left = sorted({path.name for path in model.parent.iterdir()} - KNOWN)
    return seconds, wrong + [f"{name} was left" for name in left]


def torture(folder, k, options, rng):
    """Kill ranks and resume with others; returns how often anything was wrong."""
    reference, model, checkpoint = (folder / x for x in ("undisturbed", "model", "checkpoint"))
    sizes = [size for size in options.ranks if size > 1]
    words = ["--data", folder / "rows.npy", "-k", k, "--seed", 7, "--n-init", 3]
    began = time.monotonic()
    finish(start(folder, max(sizes), [*words, "--save", reference]))
    latest = options.latest or time.monotonic() - began
    words += ["--checkpoint", checkpoint, "--resume", "--save", model]
    failures = done = 0
    slowest = 0.0
    print(f"\n{'kill':>4}{'ranks':>7}{'killed':>8}{'after s':>9}{'others end in s':>17}  result")
    model.unlink(missing_ok=True)
    while True:
        size = rng.choice(sizes)
        job = start(folder, size, words)
        victim, moment = rng.randrange(size), rng.uniform(0, latest)
        try:
            if done < options.kills:
                job[victim].wait(moment)
        except subprocess.TimeoutExpired:
            done += 1
            seconds, wrong = kill(job, victim, reference, model, options.within)
            slowest = max(slowest, seconds)
            failures += bool(wrong)
            result = f"WRONG: {'; '.join(wrong)}" if wrong else "clear"
            print(f"{done:4}{size:7}{victim:8}{moment:9.1f}{seconds:17.1f}  {result}", flush=True)
            continue
        found = finish(job)
        identical = not any(status for status, _ in found) and same_if_there(reference, model)
        failures += not identical
        print(f"{'':4}{size:7}  {'identical' if identical else f'DIFFERS {found}'}", flush=True)
        for path in (checkpoint, model):
            path.unlink(missing_ok=True)
        if done == options.kills:
            print(f"\n{done} kills; the slowest of the others ended after {slowest:.1f} s")
            return failures


KNOWN = {"rows.npy", "labels.npy", "hosts.json", "undisturbed", "model", "checkpoint"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 3, 4], help="[1 2 3 4]")
    parser.add_argument("-k", type=int, nargs="+", default=[20, 100], help="clusters [20 100]")
    parser.add_argument("--rows", type=int, default=60_000, help="rows of MNIST [60000]")
    parser.add_argument("--kills", type=int, default=10, help="[10]")
    parser.add_argument("--within", type=float, default=30, help="seconds for others to end [30]")
    parser.add_argument(
        "--latest", type=float, help="seconds after which kills end [as long as a fit takes]"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments [0]")
    options = parser.parse_args()
    rows = load_mnist().x_train[: options.rows].reshape(options.rows, -1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.save(folder / "rows.npy", rows)
        KNOWN.update(f"reference-{k}" for k in options.k)
        wrong = compare(folder, rows, options.k, options.ranks)
        if options.kills:
            wrong += torture(folder, min(options.k), options, random.Random(options.seed))
    print("all as in one process" if not wrong else f"{wrong} were wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
