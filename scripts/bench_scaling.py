#!/usr/bin/env python
"""Growth of time and memory with rows, clusters and features.

Every point runs in a fresh process. The time of an iteration is the mean of those after the first,
from given centres and with a fixed number of iterations; "setup" is all else that such a fit does
(reading the rows, the first iteration, the end). Prints the fitted exponents, where one
`algorithm` overtakes another, and what "auto" loses against the better one.

    python scripts/bench_scaling.py --json scaling.json --figure scaling.png
"""

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _bench as bench
import numpy as np
from _bench import Arm, ArmFailed, TimeLimit, Worker

# What is drawn, and in which unit.
QUANTITIES = {"seconds": ("seconds per iteration", 1), "peak_bytes": ("peak memory in GB", 1e9)}


@dataclass(frozen=True)
class Scale:
    """Sizes of which one varies, `along`."""

    along: str
    sizes: tuple
    n: int = 60_000
    k: int = 20
    d: int = 784

    def points(self):
        return [vars(self) | {self.along: size} for size in self.sizes]


SWEEPS = [
    Scale("n", tuple(20_000 * 2**i for i in range(7))),
    Scale("k", (10, 20, 50, 100, 256, 1024, 4096)),
    Scale("d", (16, 32, 64, 128, 256, 512, 1024, 2048), k=100),
]
QUICK_SWEEPS = [
    Scale("n", (500, 1000, 2000), k=5),
    Scale("k", (5, 10, 20), n=1000),
    Scale("d", (16, 32, 64), n=1000, k=5),
]


def repeated_mnist(folder, n):
    """MNIST repeated, with noise that makes all rows distinct."""
    from mnist_kmeans_mlx.datasets import load_mnist

    images = load_mnist().x_train.reshape(-1, 784)
    rng = np.random.default_rng(0)
    rows = np.empty((n, 784), dtype=np.uint8)
    for part in bench.blocks(n, 784):
        block = images[np.arange(part.start, part.stop) % len(images)].astype(np.int16)
        block += rng.integers(-8, 9, block.shape, dtype=np.int8)
        rows[part] = np.clip(block, 0, 255)
    return bench.store("repeated-mnist", rows, None, folder)


def prepare(sweeps, folder):
    """Rows for each sweep: one long file of images; each point reads its beginning."""
    longest = max(point["n"] for sweep in sweeps for point in sweep.points())
    images = repeated_mnist(folder, longest)
    data = {}
    for sweep in sweeps:
        for point in sweep.points():
            key = sweep.along, point[sweep.along]
            narrow = sweep.along == "d"
            data[key] = bench.embeddings(folder, point["n"], point["d"]) if narrow else images
    return data


def measure(algorithm, point, data, args, folder):
    """Seconds of setup and of an iteration, and peak memory, in a fresh process."""
    start = bench.pick_start(point["n"], point["k"])
    job = {"k": point["k"], "n_init": 1, "tol": 0, "seed": 0, "init": data.rows[start]}
    worker = Worker(Arm(algorithm, "Ours", {"algorithm": algorithm, "device": args.device}), folder)
    try:
        shape = {"shape": (point["n"], point["d"])}
        worker.ask("load", bench.START_LIMIT, **data.job() | shape)
        one = [worker.fit(args.time_limit, **job, max_iter=1)["seconds"] for _ in range(2)]
        more = worker.fit(args.time_limit, **job, max_iter=1 + args.iterations)
    finally:
        worker.close()
    found = {name: more[name] for name in ("n_iter", "peak_bytes", "device_peak_bytes")}
    found["setup"] = min(one)
    gap = more["seconds"] - min(one)
    if gap > 0 and more["n_iter"] > 1:
        return found | {"seconds": gap / (more["n_iter"] - 1)}
    return found | {"note": "too quick to time"}


def run(sweeps, args, folder):
    """Measure all points, small ones first; mark those for which no time is left."""
    deadline = time.monotonic() + args.budget
    data = prepare(sweeps, folder)
    found, dropped = [], set()
    plan = [(sweep, point) for sweep in sweeps for point in sweep.points()]
    plan.sort(key=lambda item: item[1]["n"] * item[1]["k"] * item[1]["d"])
    for (sweep, point), algorithm in itertools.product(plan, args.algorithms):
        size = point[sweep.along]
        row = {"along": sweep.along, "size": size, "algorithm": algorithm}
        row |= {name: point[name] for name in ("n", "k", "d")}
        found.append(row)
        if (sweep.along, algorithm) in dropped:
            row["note"] = "a smaller one took too long"
        elif time.monotonic() > deadline:
            row["note"] = "no time was left"
        else:
            bench.say(f"{sweep.along} = {size} {algorithm}")
            try:
                row |= measure(algorithm, point, data[sweep.along, size], args, folder)
            except ArmFailed as reason:
                row["note"] = str(reason)
                if isinstance(reason, TimeLimit):
                    dropped.add((sweep.along, algorithm))
    order = [sweep.along for sweep in sweeps]
    return sorted(found, key=lambda row: (order.index(row["along"]), row["size"]))


def curve(points, along, algorithm, quantity):
    """Sizes and what was measured there."""
    rows = [
        p for p in points if p["along"] == along and p["algorithm"] == algorithm and quantity in p
    ]
    return [p["size"] for p in rows], [p[quantity] for p in rows]


def exponent(sizes, values):
    """Slope in logarithms, by least squares over the larger half, where constants matter less."""
    half = len(sizes) // 2 if len(sizes) > 3 else 0
    if len(sizes) - half < 2:
        return None
    return float(np.polyfit(np.log(sizes[half:]), np.log(values[half:]), 1)[0])


def exponents(points, algorithms):
    return [
        {"along": along, "algorithm": algorithm}
        | {name: exponent(*curve(points, along, algorithm, name)) for name in QUANTITIES}
        for along in dict.fromkeys(p["along"] for p in points)
        for algorithm in algorithms
    ]


def crossings(points, first, second):
    """Sizes between which one algorithm overtakes another."""
    found = []
    for along in dict.fromkeys(p["along"] for p in points):
        one = dict(zip(*curve(points, along, first, "seconds"), strict=True))
        two = dict(zip(*curve(points, along, second, "seconds"), strict=True))
        sizes = [size for size in one if size in two]
        for low, high in itertools.pairwise(sizes):
            gap = [np.log(one[size] / two[size]) for size in (low, high)]
            if (gap[0] > 0) != (gap[1] > 0):
                share = gap[0] / (gap[0] - gap[1])
                size = float(np.exp(np.log(low) + share * np.log(high / low)))
                faster = second if gap[1] > 0 else first
                found.append({"along": along, "size": size, "faster_above": faster})
    return found


def choices(points):
    """How "auto" compares with the fastest forced algorithm."""
    found = []
    for p in points:
        rivals = {
            q["algorithm"]: q["seconds"]
            for q in points
            if (q["along"], q["size"]) == (p["along"], p["size"])
            and q["algorithm"] != "auto"
            and "seconds" in q
        }
        if p["algorithm"] == "auto" and "seconds" in p and rivals:
            best = min(rivals, key=rivals.get)
            p["best"], p["to_best"] = best, p["seconds"] / rivals[best]
            found.append(p)
    return found


def draw(points, algorithms, path):
    """Time and memory along each size, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = {"n": "rows N", "k": "clusters K", "d": "features D"}
    along = list(dict.fromkeys(p["along"] for p in points))
    figure, panels = pyplot.subplots(
        len(QUANTITIES), len(along), figsize=(4 * len(along), 7), squeeze=False, sharey="row"
    )
    for line, (quantity, (title, unit)) in zip(panels, QUANTITIES.items(), strict=True):
        for panel, name in zip(line, along, strict=True):
            for algorithm, marker in zip(algorithms, "os^v", strict=False):
                sizes, values = curve(points, name, algorithm, quantity)
                slope = exponent(sizes, values)
                label = algorithm if slope is None else f"{algorithm}: {name.upper()}^{slope:.2f}"
                panel.loglog(sizes, np.array(values) / unit, marker=marker, label=label)
            fixed = next(p for p in points if p["along"] == name)
            rest = ", ".join(f"{o.upper()} = {fixed[o]}" for o in ("n", "k", "d") if o != name)
            panel.set(xlabel=f"{names[name]} ({rest})", ylabel=title if name == along[0] else "")
            panel.grid(alpha=0.3)
            panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def report(points, slopes, overtakings, chosen):
    header = ["along", "algorithm", "size", "setup s", "s/iteration", "MB", "note"]
    yield bench.table(
        header,
        [
            [
                p["along"],
                p["algorithm"],
                p["size"],
                p.get("setup"),
                f"{p['seconds']:.4f}" if "seconds" in p else None,
                bench.megabytes(p.get("peak_bytes")),
                p.get("note", ""),
            ]
            for p in points
        ],
    )
    yield bench.table(
        ["along", "algorithm", "exponent of time", "exponent of memory"],
        [[s["along"], s["algorithm"], s["seconds"], s["peak_bytes"]] for s in slopes],
    )
    for o in overtakings:
        yield f"{o['faster_above']} is the faster from {o['along'].upper()} = {o['size']:.0f} on"
    if chosen:
        yield bench.table(
            ["along", "fastest forced", "size", "auto takes, times that"],
            [[p["along"], p["best"], p["size"], p["to_best"]] for p in chosen],
        )


def parse(argv):
    parser = bench.parser(__doc__)
    parser.add_argument("--algorithms", default="lloyd,elkan,auto", help="with commas")
    parser.add_argument("--sweeps", default="n,k,d", help="which sizes to vary (default n,k,d)")
    parser.add_argument("--iterations", type=int, default=10, help="after the first (default 10)")
    parser.add_argument("--time-limit", type=float, default=60, help="seconds for one fit")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all (default 540)")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--figure", type=Path, help="draw to this file; needs matplotlib")
    args = parser.parse_args(argv)
    args.algorithms = args.algorithms.split(",")
    return args


def main(argv=None):
    args = parse(argv)
    sweeps = QUICK_SWEEPS if args.quick else SWEEPS
    sweeps = [sweep for sweep in sweeps if sweep.along in args.sweeps.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        points = run(sweeps, args, folder)
    slopes = exponents(points, args.algorithms)
    overtakings, chosen = crossings(points, "lloyd", "elkan"), choices(points)
    print("\n\n".join(report(points, slopes, overtakings, chosen)))
    if args.json:
        found = {"points": points, "exponents": slopes, "crossings": overtakings}
        bench.save(args.json, bench.surroundings(args.device) | found)
    if args.figure:
        draw(points, args.algorithms, args.figure)


if __name__ == "__main__":
    main()
