"""Time fits and answers beside scikit-learn, over the shapes of data that people have.

Each arm is a process that has the rows; calls of both take turns. The ratio is scikit-learn's time
divided by ours, round by round: its median and range. Above 1 we are quicker.

    python scripts/bench_shapes.py --quick
    python scripts/bench_shapes.py --cases 'digits*' --calls fit,predict --out shapes.json
    python scripts/bench_shapes.py --show shapes.json
"""

import argparse
import itertools
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
from _bench import SLOWING, ratio, save, say, show, spread, surroundings, table
from _bench_arms import peak_bytes, reset_peak

from mnist_kmeans_mlx.benchmark.process import Worker
from mnist_kmeans_mlx.system import same_package

# Rows


def sklearn_set(name, scale=1):
    from sklearn import datasets

    return getattr(datasets, f"load_{name}")().data / scale


def picture(name):
    from sklearn.datasets import load_sample_image

    return load_sample_image(f"{name}.jpg").reshape(-1, 3)


def blobs(n, d, centers, dtype=float):
    from sklearn.datasets import make_blobs

    return make_blobs(n, d, centers=centers, random_state=0)[0].astype(dtype)


def normal(n, d, dtype=float):
    return np.random.default_rng(0).standard_normal((n, d)).astype(dtype)


def spending(n, d):
    """Sums that customers spent, as their logarithms."""
    return np.log1p(np.random.default_rng(0).lognormal(size=(n, d)))


def prices(n, d):
    """Prices in units, with cents."""
    return np.random.default_rng(0).lognormal(2, 1, size=(n, d)).round(2)


def genes(n, d):
    """Counts as cells have them, as logarithms: most are zero."""
    rng = np.random.default_rng(0)
    return np.log1p(rng.poisson(rng.gamma(0.3, 1, d), (n, d))).astype(np.float32)


def text():
    """TF-IDF of the documentation strings of Python's own library."""
    import ast
    import sysconfig

    from sklearn.feature_extraction.text import TfidfVectorizer

    documented, found = (ast.Module, ast.ClassDef, ast.FunctionDef), []
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted([*folder.glob("*.py"), *folder.glob("[a-z]*/*.py")]):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_text(errors="replace"))
        nodes = [node for node in ast.walk(tree) if type(node) in documented]
        found += filter(None, map(ast.get_docstring, nodes))
    return TfidfVectorizer().fit_transform(found)


def mnist(dtype=np.uint8, scale=1, rows=None):
    from mnist_kmeans_mlx.datasets import load_mnist

    pixels = load_mnist().x_train[:rows].reshape(-1, 784).astype(dtype)
    return pixels if scale == 1 else pixels / np.asarray(scale, dtype)


@dataclass(frozen=True)
class Shape:
    """Rows and what is fitted to them; `quick` if `--quick` has it."""

    make: Callable
    k: int
    n_init: int = 1
    estimator: str = "KMeans"
    quick: bool = True


Big = partial(Shape, quick=False)
CASES = {
    "iris": Shape(partial(sklearn_set, "iris"), 3),
    "iris, n_init=10": Shape(partial(sklearn_set, "iris"), 3, 10),
    "wine, n_init=10": Shape(partial(sklearn_set, "wine"), 3, 10),
    "breast cancer, n_init=10": Shape(partial(sklearn_set, "breast_cancer"), 2, 10),
    "digits": Shape(partial(sklearn_set, "digits"), 10),
    "digits, n_init=10": Shape(partial(sklearn_set, "digits"), 10, 10),
    "digits / 16": Shape(partial(sklearn_set, "digits", 16), 10),
    "digits, MiniBatch": Shape(partial(sklearn_set, "digits"), 10, 1, "MiniBatchKMeans"),
    "digits, Bisecting": Shape(partial(sklearn_set, "digits"), 10, 1, "BisectingKMeans"),
    "100 x 2": Shape(partial(blobs, 100, 2, 2), 2),
    "1000 x 2": Shape(partial(blobs, 1000, 2, 5), 5),
    "2000 x 2, n_init=100": Shape(partial(blobs, 2000, 2, 15), 15, 100),
    "4338 customers x 3, n_init=10": Shape(partial(spending, 4338, 3), 4, 10),
    "4096 weights x 1": Shape(partial(normal, 4096, 1), 16),
    "1000 x 50": Shape(partial(normal, 1000, 50), 20),
    "500 x 100 float32": Shape(partial(normal, 500, 100, np.float32), 8),
    "5000 x 10": Shape(partial(blobs, 5000, 10, 10), 10),
    "10,000 x 2": Shape(partial(blobs, 10_000, 2, 8), 8),
    "2000 x 20, K = 100": Shape(partial(normal, 2000, 20), 100),
    "20,000 prices x 4": Shape(partial(prices, 20_000, 4), 8),
    "50,000 x 8": Shape(partial(blobs, 50_000, 8, 12), 12),
    "china.jpg, K = 16": Shape(partial(picture, "china"), 16),
    "flower.jpg, K = 64": Big(partial(picture, "flower"), 64),
    "flower.jpg, MiniBatch": Shape(partial(picture, "flower"), 16, 1, "MiniBatchKMeans"),
    "1,000,000 weights x 1": Big(partial(normal, 1_000_000, 1, np.float32), 16),
    "1,000,000 x 2": Big(partial(blobs, 1_000_000, 2, 8), 8),
    "500,000 x 16 float32": Big(partial(blobs, 500_000, 16, 16, np.float32), 16),
    "100,000 x 32 float32, K = 100": Big(partial(blobs, 100_000, 32, 50, np.float32), 100),
    "20,000 embeddings x 384, K = 100": Big(partial(normal, 20_000, 384, np.float32), 100),
    "embeddings, MiniBatch": Big(
        partial(normal, 20_000, 384, np.float32), 100, 1, "MiniBatchKMeans"
    ),
    "embeddings, Bisecting": Big(
        partial(normal, 20_000, 384, np.float32), 100, 1, "BisectingKMeans"
    ),
    "20,000 x 2000 float32": Big(partial(normal, 20_000, 2000, np.float32), 8),
    "genes 4200 x 20,000 float32": Big(partial(genes, 4200, 20_000), 8),
    "text, CSR, K = 4": Shape(text, 4),
    "text, CSR, K = 20": Shape(text, 20),
    "text, CSR, MiniBatch": Shape(text, 20, 1, "MiniBatchKMeans"),
    "text, CSR, Bisecting": Shape(text, 20, 1, "BisectingKMeans"),
    "MNIST, 5000 bytes": Shape(partial(mnist, rows=5000), 10),
    "MNIST, bytes": Big(mnist, 20),
    "MNIST, bytes, K = 256": Big(mnist, 256),
    "MNIST, float64": Big(partial(mnist, np.float64), 20),
    "MNIST / 255, float64": Big(partial(mnist, np.float64, 255), 20),
    "MNIST / 255, float64, n_init=10": Big(partial(mnist, np.float64, 255), 20, 10),
    "MNIST / 255, float32": Big(partial(mnist, np.float32, 255), 20),
    "MNIST / 255, float16": Big(partial(mnist, np.float16, 255), 20),
    "MNIST, MiniBatch": Big(mnist, 20, 1, "MiniBatchKMeans"),
    "MNIST, Bisecting": Big(mnist, 20, 1, "BisectingKMeans"),
}
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
    held = {}
    for line in sys.stdin:
        name, call, seed, times = json.loads(line)["job"]
        case = CASES[name]
        if name not in held:
            held = {name: (case.make(), {})}
        X, fitted = held[name]
        if call == "fit" or seed not in fitted:
            fitted[seed] = getattr(import_module(module), case.estimator)(
                case.k, n_init=case.n_init, random_state=seed
            )
            if call != "fit":
                fitted[seed].fit(X)
        if not hasattr(fitted[seed], call.split()[0]) and call != "one row":
            print(json.dumps({"seconds": None}), flush=True)
            continue
        reset_peak()
        start = time.perf_counter()
        for _ in range(times):
            CALLS[call](fitted[seed], X)
        seconds = (time.perf_counter() - start) / times
        facts = {"inertia": float(fitted[seed].inertia_)}
        if hasattr(fitted[seed], "n_iter_"):
            facts["n_iter"] = int(fitted[seed].n_iter_)
        print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), **facts}), flush=True)


def start(module):
    """The process of an arm, with the kernel that BLAS finds by itself."""
    environment = {name: value for name, value in same_package().items() if name not in SLOWING}
    return Worker([sys.executable, __file__, "--work", module], environment)


def measure(arms, case, call, seeds, seconds):
    """Rounds of a call of each arm, for about so many seconds; None where one has no such call."""
    found = {arm: [] for arm in arms}
    # What a call is repeated to, so that the clock tells it; the first also warms up.
    first = [worker.ask({"job": [case, call, 0, 1]})["seconds"] for worker in arms.values()]
    if None in first:
        return None
    times, end, turn = max(1, int(0.005 / min(first))), time.perf_counter() + seconds, 0
    fewest = 3 if sum(first) < 20 else 2
    while turn < fewest or (time.perf_counter() < end and turn < 25):
        for arm in list(arms)[:: 1 if turn % 2 == 0 else -1]:
            found[arm].append(arms[arm].ask({"job": [case, call, turn % seeds, times]}))
        turn += 1
    taken = {arm: [each["seconds"] for each in answers] for arm, answers in found.items()}
    peak = {arm: max(each["peak_bytes"] for each in answers) for arm, answers in found.items()}
    same = [
        a.get("n_iter") == b.get("n_iter") and np.isclose(a["inertia"], b["inertia"], rtol=1e-6)
        for a, b in zip(*found.values(), strict=True)
    ]
    return {
        "case": case,
        "call": call,
        "milliseconds": {arm: 1e3 * statistics.median(all_) for arm, all_ in taken.items()},
        "spread": {arm: spread(all_) for arm, all_ in taken.items()},
        "ratio": ratio(taken["scikit-learn"], taken["ours"]),
        "peak_bytes": peak,
        "same": sum(map(bool, same)) / len(same),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small cases, in two minutes")
    parser.add_argument("--cases", default="*", help="shell patterns, with | between them")
    parser.add_argument("--calls", default=",".join(CALLS), help="of " + ", ".join(CALLS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", help="JSON file for the result")
    parser.add_argument("--show", metavar="FILE", help="print what --out wrote, as Markdown")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work)
    if options.show:
        return print(markdown(json.loads(Path(options.show).read_text())["results"]))
    wanted, seconds = options.cases.split("|"), 0.25 if options.quick else 3
    chosen = [
        name
        for name, case in CASES.items()
        if any(fnmatchcase(name, pattern) for pattern in wanted) and case.quick >= options.quick
    ]
    if not chosen or not set(options.calls.split(",")) <= set(CALLS):
        parser.error(f"there are the cases {', '.join(CASES)} and the calls {', '.join(CALLS)}")
    results = []
    # A large case in processes of its own: memory that it leaves behind is no later one's peak.
    for _, names in itertools.groupby(chosen, lambda name: "" if CASES[name].quick else name):
        with start(ARMS["scikit-learn"]) as theirs, start(ARMS["ours"]) as ours:
            arms = dict(zip(ARMS, (theirs, ours), strict=True))
            for name, call in itertools.product(names, options.calls.split(",")):
                found = measure(arms, name, call, options.seeds, seconds)
                if found is not None:
                    results.append(found)
                    say(f"{name}: {call}", show(found["ratio"]))
    lines = [
        [r["case"], r["call"], *r["milliseconds"].values(), r["ratio"], *megabytes(r), r["same"]]
        for r in results
    ]
    times, peaks = ([f"{arm}, {unit}" for arm in ARMS] for unit in ("ms", "MB"))
    print(table(["case", "call", *times, "ratio", *peaks, "same"], lines))
    for call in options.calls.split(","):
        ratios = [r["ratio"]["median"] for r in results if r["call"] == call]
        if ratios:
            print(f"{call}: median {show(statistics.median(ratios))}, least {show(min(ratios))}")
    if options.out:
        save(options.out, {"surroundings": surroundings(), "results": results})
    return None


def markdown(results):
    """Table of the ratios: a row for each case, and the medians and least of all."""
    calls = list(dict.fromkeys(r["call"] for r in results))
    ratios = {call: {} for call in calls}
    for r in results:
        ratios[r["call"]][r["case"]] = r["ratio"]["median"]
    fits = {r["case"]: r["milliseconds"]["ours"] for r in results if r["call"] == "fit"}
    lines = [["data", "our fit, ms", *calls], ["---", *["--:"] * (1 + len(calls))]]
    for case in dict.fromkeys(r["case"] for r in results):
        each = [f"{ratios[call][case]:.2f}" if case in ratios[call] else "" for call in calls]
        lines.append([case, f"{fits[case]:,.1f}" if case in fits else "", *each])
    for name, of in ("median", statistics.median), ("least", min):
        lines.append([f"**{name}**", "", *(f"{of(ratios[call].values()):.2f}" for call in calls)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def megabytes(result):
    return [peak >> 20 for peak in result["peak_bytes"].values()]


if __name__ == "__main__":
    main()
