"""Time fit and answers beside scikit-learn, over the shapes of data that people have.

Arms are called in turn, each in its own process, on the same arrays: round by round the ratio of
scikit-learn's time to ours, its median and its range. Above 1 we are quicker.

    python scripts/bench_shapes.py --quick
    python scripts/bench_shapes.py --cases 'digits*' --seeds 5 --out shapes.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from fnmatch import fnmatchcase

import numpy as np
from _bench import ROOT, UNWANTED, ratio, save, say, show, spread, surroundings, table
from _bench_arms import peak_bytes, reset_peak


def sklearn_set(name):
    def load():
        from sklearn import datasets

        return getattr(datasets, f"load_{name}")().data

    return load


def blobs(n, d, centers, dtype=float):
    def make():
        from sklearn.datasets import make_blobs

        return make_blobs(n, d, centers=centers, random_state=0)[0].astype(dtype)

    return make


def lognormal(n, d):
    return lambda: np.log1p(np.random.default_rng(0).lognormal(size=(n, d)))


def normal(n, d, dtype=float):
    return lambda: np.random.default_rng(0).standard_normal((n, d)).astype(dtype)


# Rows, number of clusters, and of restarts.
CASES = {
    "iris": (sklearn_set("iris"), 3, 1),
    "iris, n_init=10": (sklearn_set("iris"), 3, 10),
    "wine, n_init=10": (sklearn_set("wine"), 3, 10),
    "breast cancer, n_init=10": (sklearn_set("breast_cancer"), 2, 10),
    "digits": (sklearn_set("digits"), 10, 1),
    "digits, n_init=10": (sklearn_set("digits"), 10, 10),
    "digits, bytes": (lambda: sklearn_set("digits")().astype(np.uint8), 10, 1),
    "digits / 16": (lambda: sklearn_set("digits")() / 16, 10, 1),
    "100 x 2": (blobs(100, 2, 2), 2, 1),
    "1000 x 2": (blobs(1000, 2, 5), 5, 1),
    "2000 x 2, n_init=100": (blobs(2000, 2, 15), 15, 100),
    "customers 4338 x 3, n_init=10": (lognormal(4338, 3), 4, 10),
    "weights 4096 x 1": (normal(4096, 1), 16, 1),
    "1000 x 50": (normal(1000, 50), 20, 1),
    "500 x 100 float32": (normal(500, 100, np.float32), 8, 1),
    "5000 x 10": (blobs(5000, 10, 10), 10, 1),
    "10,000 x 2": (blobs(10_000, 2, 8), 8, 1),
    "2000 x 20, K = 100": (normal(2000, 20), 100, 1),
}
# Rows, features and clusters between which the crossing lies.
SHAPES = [
    (1000, 2, 5),
    (10_000, 2, 8),
    (30_000, 2, 8),
    (100_000, 2, 8),
    (5000, 10, 10),
    (20_000, 10, 10),
    (1797, 64, 10),
    (5000, 50, 20),
    (2000, 20, 100),
    (10_000, 16, 50),
    (1000, 200, 10),
    (3000, 200, 20),
]
CALLS = {
    "fit": lambda model, X: model.fit(X),
    "predict": lambda model, X: model.predict(X),
    "one row": lambda model, X: model.predict(X[:1]),
    "score": lambda model, X: model.score(X),
    "transform": lambda model, X: model.transform(X),
}
ARMS = {"scikit-learn": "sklearn.cluster", "ours": "mnist_kmeans_mlx"}


def work(module):
    """One arm: reads a case, a call, a seed and a number of calls from each line, and times it."""
    from importlib import import_module

    warnings.simplefilter("ignore")
    estimator, held, model = import_module(module).KMeans, {}, None
    for line in sys.stdin:
        case, call, seed, times = json.loads(line)
        make, k, n_init = CASES[case]
        if case not in held:
            held = {case: make()}
            X = held[case]
        if call == "fit" or model is None or model.n_features_in_ != X.shape[1]:
            model = estimator(k, n_init=n_init, random_state=seed)
        if call != "fit" and not hasattr(model, "labels_"):
            model.fit(X)
        reset_peak()
        start = time.perf_counter()
        for _ in range(times):
            CALLS[call](model, X)
        seconds = (time.perf_counter() - start) / times
        facts = {"inertia": float(model.inertia_), "n_iter": int(model.n_iter_)}
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), **facts}), flush=True)


def start(module):
    environment = {name: value for name, value in os.environ.items() if name not in UNWANTED}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--work", module]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def ask(process, *job):
    process.stdin.write(json.dumps(job) + "\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def measure(arms, case, call, seeds, seconds):
    """Rounds of a call of each arm, for at most so many seconds."""
    found = {arm: [] for arm in arms}
    # What a call is repeated to, so that the clock tells it; the first also warms up.
    least = min(ask(process, case, call, 0, 1)["seconds"] for process in arms.values())
    times, end, turn = max(1, int(0.005 / least)), time.perf_counter() + seconds, 0
    while turn < 3 or (time.perf_counter() < end and turn < 25):
        order = list(arms) if turn % 2 == 0 else list(arms)[::-1]
        for arm in order:
            found[arm].append(ask(arms[arm], case, call, turn % seeds, times))
        turn += 1
    taken = {arm: [each["seconds"] for each in answers] for arm, answers in found.items()}
    peak = {arm: max(each["peak_bytes"] for each in answers) for arm, answers in found.items()}
    steps = [
        (a["n_iter"], round(a["inertia"] / max(b["inertia"], 1e-300), 9)) == (b["n_iter"], 1.0)
        for a, b in zip(found["scikit-learn"], found["ours"], strict=True)
    ]
    return {
        "case": case,
        "call": call,
        "milliseconds": {arm: 1e3 * statistics.median(all_) for arm, all_ in taken.items()},
        "spread": {arm: spread(all_) for arm, all_ in taken.items()},
        "ratio": ratio(taken["scikit-learn"], taken["ours"]),
        "peak_bytes": peak,
        "same": sum(steps) / len(steps),
    }


def crossing():
    """Where the host's way overtakes the plain way: both fit the same rows, in turn."""
    from unittest import mock

    from mnist_kmeans_mlx import KMeans

    warnings.simplefilter("ignore")
    lines = []
    for n, d, k in SHAPES:
        X, seconds = blobs(n, d, k)(), {True: [], False: []}
        for seed in range(5):
            for plain in (True, False):
                with mock.patch("mnist_kmeans_mlx.engine.ways.is_small", return_value=plain):
                    begun = time.perf_counter()
                    KMeans(k, n_init=3, random_state=seed).fit(X)
                    seconds[plain].append(time.perf_counter() - begun)
        size = float(np.log2(n * max(k, d)))
        lines.append([f"{n} x {d}", f"K = {k}", size, ratio(seconds[False], seconds[True])])
    lines.sort(key=lambda line: line[2])
    print(table(["rows", "", "log2 n max(K, d)", "host / plain"], lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="under two minutes")
    parser.add_argument("--cases", default="*", help="shell pattern of the cases to run")
    parser.add_argument("--calls", default=",".join(CALLS), help="of " + ", ".join(CALLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="JSON file for the result")
    parser.add_argument("--crossing", action="store_true", help="host against plain, instead")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work)
    if options.crossing:
        return crossing()
    results = []
    arms = {name: start(module) for name, module in ARMS.items()}
    try:
        for case in (case for case in CASES if fnmatchcase(case, options.cases)):
            for call in options.calls.split(","):
                seconds = 0.5 if options.quick else 3
                found = measure(arms, case, call, options.seeds, seconds)
                results.append(found)
                say(case, call, show(found["ratio"]))
    finally:
        for process in arms.values():
            process.kill()
            process.wait()
    lines = [
        [r["case"], r["call"], *r["milliseconds"].values(), r["ratio"], r["same"]] for r in results
    ]
    print(table(["case", "call", *(f"{arm}, ms" for arm in ARMS), "ratio", "same steps"], lines))
    if options.out:
        save(options.out, {"surroundings": surroundings(), "results": results})
    return None


if __name__ == "__main__":
    main()
