"""Shared by the benchmarks: data, timed worker processes, float64 scores, options, tables."""

import argparse
import json
import math
import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mnist_kmeans_mlx.benchmark import process
from mnist_kmeans_mlx.benchmark.arms import rotated
from mnist_kmeans_mlx.benchmark.judge import blocks, named
from mnist_kmeans_mlx.benchmark.machine import survey
from mnist_kmeans_mlx.benchmark.notes import SLOWING
from mnist_kmeans_mlx.benchmark.process import TimeLimit, WorkerFailed
from mnist_kmeans_mlx.persistence.checksum import checksum
from mnist_kmeans_mlx.system import same_package

__all__ = ["TimeLimit", "blocks", "rotated"]  # for the benchmarks

ArmFailed = WorkerFailed
WORKER = Path(__file__).with_name("_bench_arms.py")
# No TF32 unless an arm asks for it; MLX reads this when it is loaded.
os.environ.setdefault("MLX_ENABLE_TF32", "0")
START_LIMIT = 120  # seconds to import a library, or to read the rows


# Data


@dataclass
class Stored:
    """Rows, in a file for the arms and in memory for scoring."""

    name: str
    rows: np.ndarray
    classes: np.ndarray | None
    path: Path
    unit: float = 1.0  # SSE is told in this unit
    scores: dict = field(default_factory=dict, repr=False)

    def job(self):
        """What a worker needs to read the rows."""
        return {"path": str(self.path), "source": self.rows.dtype.str, "shape": self.rows.shape}

    def score(self, centers):
        """SSE in float64 and train accuracy of the clustering that centres define."""
        key = checksum(centers)
        if key not in self.scores:
            labels, sse = nearest(self.rows, centers)
            self.scores[key] = {"sse": sse / self.unit, "accuracy": self.accuracy(labels)}
        return self.scores[key]

    def accuracy(self, labels):
        """Share of rows that have the class most frequent in their cluster."""
        if self.classes is None:
            return None
        classes = named(labels, self.classes, labels.max() + 1)
        return np.mean(classes[labels] == self.classes)


def nearest(rows, centers):
    """Nearest centres and summed squared distances to them, both in float64."""
    centers = np.asarray(centers, dtype=np.float64)
    norms = np.square(centers).sum(axis=1)
    labels, sse = np.empty(len(rows), dtype=np.intp), 0.0
    for part in blocks(len(rows), max(centers.shape)):
        block = rows[part].astype(np.float64)
        labels[part] = np.argmin(norms - 2 * (block @ centers.T), axis=1)
        block -= centers[labels[part]]
        sse += float(np.square(block, out=block).sum())
    return labels, sse


def store(name, rows, classes, folder, unit=1.0):
    path = Path(folder) / f"{name}.rows"
    rows.tofile(path)
    return Stored(name, rows, classes, path, unit)


def mnist(folder, limit=None):
    """MNIST's training images as bytes; SSE as if pixels went from 0 to 1."""
    from mnist_kmeans_mlx.datasets import load_mnist

    data = load_mnist()
    rows = data.x_train[:limit].reshape(-1, 784)
    return store("mnist", rows, data.y_train[:limit], folder, unit=255.0**2)


def embeddings(folder, n, d, seed=0):
    """Unit vectors around many topics of unequal size, with a spectrum that falls off."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
    spread = (rotation * (1 + np.arange(d)) ** -0.5).T.astype(np.float32)
    topics = rng.standard_normal((2000, d), dtype=np.float32) @ spread
    sizes = rng.dirichlet(np.ones(len(topics)))
    rows = np.empty((n, d), dtype=np.float32)
    for part in blocks(n, d):
        size = part.stop - part.start
        rows[part] = 0.7 * rng.standard_normal((size, d), dtype=np.float32) @ spread
        rows[part] += topics[rng.choice(len(topics), size, p=sizes)]
        rows[part] /= np.linalg.norm(rows[part], axis=1, keepdims=True)
    return store(f"embeddings-{n}x{d}", rows, None, folder)


def load(name, folder, rows=None, shape=(1_000_000, 128)):
    """Images of MNIST, or embeddings of a shape."""
    return mnist(folder, rows) if name == "mnist" else embeddings(folder, *shape)


# Processes


@dataclass(frozen=True)
class Arm:
    """A way to cluster: a class of `_bench_arms` with its options, and where to run it."""

    name: str
    kind: str
    options: dict = field(default_factory=dict)
    peer: str = ""  # its virtual environment; "" for this interpreter
    modes: tuple = ()
    environment: dict = field(default_factory=dict)


class Worker(process.Worker):
    """An arm in its own process."""

    def __init__(self, arm, folder, python=sys.executable):
        self.arm, self.folder = arm, Path(folder)
        # Left alone, OpenBLAS finds the processor's own kernel; packages of this interpreter must
        # not shadow those of a peer's environment.
        unwanted = {*SLOWING, *(["PYTHONPATH"] if arm.peer else [])}
        environment = {k: v for k, v in same_package().items() if k not in unwanted}
        command = [python, WORKER, arm.kind, json.dumps(arm.options)]
        super().__init__(command, environment | arm.environment)

    def ask(self, do, limit=None, **job):
        """Have a job done, within `limit` seconds."""
        return super().ask({"do": do, **job}, limit=limit)

    def fit(self, limit=None, init=None, **job):
        """Fit; ``answer["centers"]`` and, if the arm has them, ``answer["labels"]`` are arrays."""
        out = self.folder / self.arm.name
        if init is not None:
            np.save(f"{out}.init.npy", init)
            job["init"] = f"{out}.init.npy"
        answer = self.ask("fit", limit, out=str(out), **job)
        answer["centers"] = np.load(f"{out}.centers.npy")
        answer["labels"] = np.load(f"{out}.labels.npy") if answer["labels"] else None
        return answer


def pick(arms, patterns):
    """Arms that match one of some shell patterns, separated by commas."""
    return [a for a in arms if any(fnmatchcase(a.name, p) for p in patterns.split(","))]


def pick_rows(rows, k, seed=0):
    """Initial rows by scikit-learn's k-means++ on a sample, so that no arm chose them."""
    from sklearn.cluster import kmeans_plusplus

    rng = np.random.RandomState(seed)
    sample = np.sort(rng.permutation(len(rows))[: max(5000, 10 * k)])
    chosen = kmeans_plusplus(rows[sample].astype(np.float32), k, random_state=rng)[1]
    return sample[chosen]


def pick_start(n, k, seed=0):
    """Initial rows, drawn uniformly: fast for any number of rows."""
    return np.sort(np.random.RandomState(seed).choice(n, size=k, replace=False))


# Words


def parser(text):
    """Options that benchmarks share; their help begins with a script's own text."""
    made = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--device", choices=("auto", "gpu", "cpu"), default="auto")
    made.add_argument("--quick", action="store_true", help="tiny data, to see that it works")
    return made


def spread(values):
    """Median, least and most."""
    if not values:
        return None
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(seconds, ours):
    """Time of an arm divided by ours, round by round: median and range."""
    return spread([theirs / us for theirs, us in zip(seconds, ours, strict=False)])


def show(value, digits=3):
    """A number for people to read; a dot for None."""
    if value is None:
        return "·"
    if isinstance(value, dict):
        low, median, high = (f"{value[key]:.2f}" for key in ("low", "median", "high"))
        return f"{median} ({low}-{high})"
    if isinstance(value, float):
        whole = math.floor(math.log10(abs(value))) + 1 if value else 0
        return f"{value:.{max(0, digits - max(whole, 0))}f}"
    return str(value)


def megabytes(count):
    return None if count is None else count >> 20


def table(header, rows):
    """Aligned columns: the first two to the left, as names are, and numbers to the right."""
    lines = [list(header), *[[show(cell) for cell in row] for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = []
    for line in lines:
        cells = [
            cell.ljust(width) if i < 2 or i == len(widths) - 1 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("  ".join(cells).rstrip())
    text.insert(1, "-" * len(max(text, key=len)))
    return "\n".join(text)


def surroundings(device="auto"):
    """The machine and what it runs, for the record."""
    from mnist_kmeans_mlx import __version__

    return {
        "date": time.strftime("%Y-%m-%d"),
        "mnist-kmeans-mlx": __version__,
        "machine": survey(device)["machine"],
    }


def save(path, result):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(result, indent=1) + "\n")


def say(*words):
    print(*words, file=sys.stderr, flush=True)
