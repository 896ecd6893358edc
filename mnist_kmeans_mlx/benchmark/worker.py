"""The process of one arm: it reads a job from stdin and writes timings to stdout.

Every answer is a line of JSON. It ends when its stdin does, and so never outlives who started it.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.benchmark.arms import Arm
from mnist_kmeans_mlx.benchmark.clock import Stopwatch
from mnist_kmeans_mlx.system import multiply_as_float32

Say = Callable[[dict[str, Any]], None]


class _ScikitLearn:
    """Fits with scikit-learn: rows are converted first, and an extra fit measures the stages."""

    def __init__(self, arm: Arm) -> None:
        import sklearn.cluster

        self.arm, self.cluster = arm, sklearn.cluster

    def hold(self, rows: Any) -> dict[str, float]:
        start = time.perf_counter()
        self.rows = rows.astype(self.arm.dtype)
        return {"upload": time.perf_counter() - start}

    def fit(
        self, job: dict[str, Any], init: Any = "k-means++"
    ) -> tuple[Any, float, dict[str, float]]:
        model = self.cluster.KMeans(
            job["n_clusters"], init=init, algorithm=self.arm.algorithm, **_parameters(job)
        )
        start = time.perf_counter()
        model.fit(self.rows)
        return model, time.perf_counter() - start, {}

    def staged(self, job: dict[str, Any]) -> tuple[dict[str, float], list[int]]:
        """Stages of one more fit, and the rows that its first restart drew.

        The same seeding as within `fit`, for it is given to it as a function.
        """
        seeding = 0.0
        first: list[int] = []

        def seed(rows: Any, n_clusters: int, random_state: Any) -> Any:
            nonlocal seeding, first
            start = time.perf_counter()
            centers, drawn = self.cluster.kmeans_plusplus(
                rows, n_clusters, random_state=random_state
            )
            seeding += time.perf_counter() - start
            first = first or [int(row) for row in drawn]
            return centers

        _, whole, _ = self.fit(job, seed)
        return {"seeding": seeding, "iterations": whole - seeding}, first

    def predict(self, model: Any, rows: Any) -> Any:
        return model.predict(rows.astype(self.arm.dtype))


class _Ours:
    """Fits with this package: rows are taken as they come, and the clock is in the engine."""

    def __init__(self, arm: Arm) -> None:
        multiply_as_float32()
        import mlx.core as mx

        from mnist_kmeans_mlx import device, estimator

        self.arm, self.estimator = arm, estimator.KMeans
        stream = mx.default_stream(device.resolve(arm.device).mlx)
        self.settle = lambda: mx.synchronize(stream)
        self.stopwatch = Stopwatch(self.settle)

    def hold(self, rows: Any) -> dict[str, float]:
        self.rows = rows
        return {}

    def fit(self, job: dict[str, Any]) -> tuple[Any, float, dict[str, float]]:
        model = self.estimator(
            job["n_clusters"], init="k-means++", device=self.arm.device, **_parameters(job)
        )
        self.stopwatch.seconds = {}
        start = time.perf_counter()
        self.stopwatch.switch("upload")
        model._fit(self.rows, stage=self.stopwatch.stage)
        self.stopwatch.switch(None)
        return model, time.perf_counter() - start, self.stopwatch.seconds

    def predict(self, model: Any, rows: Any) -> Any:
        return model.predict(rows)


def _parameters(job: dict[str, Any]) -> dict[str, Any]:
    """What is the same for every arm."""
    same = {name: job[name] for name in ("n_init", "max_iter", "tol")}
    return {"random_state": job["seed"], **same}


def measure(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Load, fit the given number of times, and save the answer of the last fit in a folder."""
    import numpy as np

    from mnist_kmeans_mlx.datasets import DatasetWarning
    from mnist_kmeans_mlx.experiment.data import load
    from mnist_kmeans_mlx.persistence.checksum import checksum

    arm = Arm(**job["arm"])
    fitter = _Ours(arm) if arm.ours else _ScikitLearn(arm)
    say({"event": "ready"})
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)  # which were said when the arms began
        data = load(job["source"], **{name: job[name] for name in ("key", "header", "columns")})
    stages = {"load": time.perf_counter() - start}
    if checksum(data.train, data.test) != job["checksum"]:
        raise RuntimeError("its data is not what the others got: did the file change?")
    stages |= fitter.hold(data.train)
    fits: list[dict[str, Any]] = []
    answers = set()
    model: Any = None
    for _ in range(job["fits"]):
        model = None
        gc.collect()
        say({"event": "fit"})
        model, seconds, inside = fitter.fit(job)
        fits.append({"seconds": seconds, "stages": {**stages, **inside}})
        answers.add(checksum(np.asarray(model.labels_, np.int32), np.array([model.n_iter_])))
    seeds: list[int] = []
    if job["staged"] and isinstance(fitter, _ScikitLearn):
        say({"event": "stages"})
        inside, seeds = fitter.staged(job)
        fits[-1]["stages"] |= inside
    folder = Path(job["folder"])
    np.save(folder / "labels.npy", np.asarray(model.labels_, dtype=np.int32))
    np.save(folder / "centers.npy", np.asarray(model.cluster_centers_, dtype=np.float64))
    if data.test is not None:
        np.save(folder / "test.npy", np.asarray(fitter.predict(model, data.test), dtype=np.int32))
    return {
        "fits": fits,
        "answers": sorted(answers),
        "seeds": seeds,
        "n_iter": int(model.n_iter_),
        "inertia": float(model.inertia_) / data.unit**2,
    }


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    """Do the one job that is read from stdin."""
    # The parent ends this process; Ctrl-C on a terminal reaches both.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Keep what libraries print out of the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=answers, flush=True)

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if job.pop("do") == "survey":
            from mnist_kmeans_mlx.benchmark.machine import survey

            answer = survey()
        else:
            answer = measure(job, say)
    except MemoryError:
        answer = {"error": "there is not enough memory for it"}
    except Exception as error:
        answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    say(answer)
    answers.close()
    # Threads of libraries may hang at interpreter shutdown.
    os._exit(0)


if __name__ == "__main__":
    main()
