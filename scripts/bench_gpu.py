#!/usr/bin/env python
"""Whether we are right on the GPU that MLX finds, and how fast, beside others.

Runs in ten minutes and needs no package index: arms whose packages are not here are listed with
the reason. Without a GPU all runs on the CPU, which proves the script and measures nothing else.

given   From the same given centres, the same number of iterations: flash-kmeans, a plain loop in
        torch, scikit-learn and we. "cold" is the first fit of a fresh process (kernels compiled,
        the device woken up, not the import), "warm" the median of later ones. The rows start in
        NumPy: their upload is part of every fit.
fit     The whole job with k-means++ and scikit-learn's stopping rule: scikit-learn and we.

    python scripts/bench_gpu.py OUTDIR          # writes OUTDIR/bench_gpu.json and .txt
"""

import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import _bench as bench
import numpy as np
from _bench import Arm, ArmFailed, Worker

TOTAL = 570  # seconds: what is left of ten minutes goes to the last score and the report


def make_arms(device):
    return [
        Arm("ours", "Ours", {"device": device}, modes=("given", "fit")),
        # The other way of the same machine: bounds on the host.
        Arm("ours-cpu", "Ours", {"device": "cpu"}, modes=("check", "given", "fit")),
        Arm("torch", "Torch", {"device": device}, modes=("given",)),
        Arm("torch-tf32", "Torch", {"device": device, "tf32": True}, modes=("given",)),
        Arm("flash-kmeans", "FlashKMeans", {"device": device}, modes=("given",)),
        Arm("flash-kmeans-half", "FlashKMeans", {"device": device, "half": True, "divide": 255},
            modes=("given",)),
        Arm("sklearn-lloyd-float32", "ScikitLearn", {}, modes=("given",)),
        # In float32 the same seed draws other rows to start from.
        Arm("sklearn-lloyd-float64", "ScikitLearn", {"dtype": "float64"}, modes=("fit",)),
    ]  # fmt: skip


@dataclass(frozen=True)
class Case:
    name: str
    data: str
    k: int
    iterations: int
    budget: float  # seconds
    modes: tuple = ("given", "fit")


CASES = [
    *[Case(f"mnist-k{k}", "mnist", k, 20, 75) for k in (20, 100, 256)],
    Case("embeddings-k1000", "embeddings", 1000, 5, 300, ("given",)),
]
QUICK_CASES = [
    Case("mnist-k20", "mnist", 20, 5, 60),
    Case("embeddings-k20", "embeddings", 20, 3, 60, ("given",)),
]


class Trial:
    """One case: times, and whether the results are right."""

    def __init__(self, case, data, args, folder, deadline):
        self.case, self.data, self.args, self.folder = case, data, args, folder
        self.deadline = min(deadline, time.monotonic() + case.budget)
        self.rows, self.checks = [], []
        self.start = data.rows[bench.pick_start(len(data.rows), case.k)]

    def left(self):
        left = self.deadline - time.monotonic()
        if left < 1:
            raise ArmFailed("no time was left")
        return left

    def run(self, arms):
        for mode in self.case.modes:
            with ExitStack() as stack:
                answers = self.time(mode, [arm for arm in arms if mode in arm.modes], stack)
            if mode == "given" and "ours" in answers:
                self.check_labels(answers["ours"])
                self.check_sse(mode, answers)
                self.check_devices(answers["ours"], arms)
            elif mode == "fit":
                self.check_sse(mode, answers)

    def job(self, mode):
        job = {"k": self.case.k, "n_init": 1, "seed": 0}
        if mode == "fit":
            return job | {"max_iter": 300, "tol": 1e-4}
        return job | {"max_iter": self.case.iterations, "tol": 0, "init": self.start}

    def time(self, mode, arms, stack):
        """Cold once and warm in turn; the last answer of each arm."""
        workers, series = {}, {}
        for arm in arms:
            bench.say(f"{self.case.name} {mode} {arm.name} cold")
            row = {"case": self.case.name, "mode": mode, "arm": arm.name, "note": ""}
            self.rows.append(row)
            worker = Worker(arm, self.folder)
            stack.callback(worker.close)
            try:
                row["import"] = worker.ask("describe", self.left())["versions"]["import_seconds"]
                worker.ask("load", self.left(), **self.data.job())
                series[arm.name] = [worker.fit(self.left(), **self.job(mode))]
                workers[arm.name] = worker
            except ArmFailed as reason:
                row["note"] = f"cannot: {reason}"
        for turn in range(self.args.repeat):
            for name in bench.rotated(list(workers), turn):
                # Who is slow when cold would leave no time for the others.
                if turn and series[name][0]["seconds"] > self.case.budget / 10:
                    continue
                bench.say(f"{self.case.name} {mode} {name} warm {turn + 1}")
                try:
                    series[name].append(workers[name].fit(self.left(), **self.job(mode)))
                except ArmFailed as reason:
                    self.row(mode, name)["note"] = f"stopped: {reason}"
        self.fill(mode, series)
        return {name: answers[-1] for name, answers in series.items()}

    def row(self, mode, name):
        return next(r for r in self.rows if (r["mode"], r["arm"]) == (mode, name))

    def fill(self, mode, series):
        warm = {name: [a["seconds"] for a in answers[1:]] for name, answers in series.items()}
        for name, answers in series.items():
            row, last = self.row(mode, name), answers[-1]
            row |= self.data.score(last["centers"])
            row |= {
                "cold": answers[0]["seconds"],
                "warm": warm[name],
                "n_iter": last["n_iter"],
                "ratio": bench.ratio(warm[name], warm.get("ours", [])),
                "peak_bytes": last["peak_bytes"],
                "device_peak_bytes": last["device_peak_bytes"],
            }

    # Is it right?

    def check(self, name, passed, detail):
        self.checks.append(
            {"case": self.case.name, "check": name, "passed": bool(passed), "detail": detail}
        )

    def check_labels(self, ours, size=2000):
        """Labels of a sample of rows are those that float64 gives for our centres."""
        sample = bench.pick_start(len(self.data.rows), min(size, len(self.data.rows)), seed=1)
        wrong = 0
        for row in sample:
            difference = self.data.rows[row].astype(np.float64) - ours["centers"]
            distances = np.square(difference).sum(axis=1)
            # Of centres equally near but for float64's own rounding either is right.
            nearest = distances[ours["labels"][row]]
            wrong += nearest > distances.min() * (1 + 1e-12)
        self.check("labels as in float64", wrong == 0, f"{wrong} of {len(sample)} rows differ")

    def check_sse(self, mode, answers):
        """Our SSE is scikit-learn's, from the same centres or the same seed."""
        sse = {name: self.data.score(a["centers"])["sse"] for name, a in answers.items()}
        for name, theirs in sse.items():
            if name.startswith("sklearn-") and "ours" in sse:
                gap = sse["ours"] / theirs - 1
                self.check(f"SSE as {name}'s, {mode}", abs(gap) <= 1e-5, f"differs by {gap:+.1e}")

    def check_devices(self, ours, arms):
        """Integer rows give the same bits on every device."""
        arm = next(arm for arm in arms if "check" in arm.modes)
        if self.data.rows.dtype.kind not in "iu":
            return
        worker = Worker(arm, self.folder)
        try:
            worker.ask("load", self.left(), **self.data.job())
            theirs = worker.fit(self.left(), **self.job("given"))
        except ArmFailed as reason:
            self.check("same bits as on the CPU", False, str(reason))
        else:
            same = [np.array_equal(ours[key], theirs[key]) for key in ("centers", "labels")]
            self.check("same bits as on the CPU", all(same), f"centres, labels: {same}")
        finally:
            worker.close()


def report(rows, checks):
    header = ["case", "arm", "mode", "cold", "warm", "iter", "SSE", "accuracy", "host MB",
              "device MB", "warm, times ours", "note"]  # fmt: skip
    yield bench.table(
        header,
        [
            [
                row["case"],
                row["arm"],
                row["mode"],
                row.get("cold"),
                (bench.spread(row.get("warm")) or {}).get("median"),
                row.get("n_iter"),
                f"{row['sse']:.7g}" if "sse" in row else None,
                row.get("accuracy"),
                bench.megabytes(row.get("peak_bytes")),
                bench.megabytes(row.get("device_peak_bytes")),
                row.get("ratio"),
                row["note"],
            ]
            for row in rows
        ],
    )
    verdict = {True: "passed", False: "FAILED"}
    lines = [[c["case"], c["check"], verdict[c["passed"]], c["detail"]] for c in checks]
    yield bench.table(["case", "check", "", "detail"], lines)


def parse(argv):
    parser = bench.parser(__doc__)
    parser.add_argument("outdir", type=Path, help="folder for the results")
    parser.add_argument("--repeat", type=int, default=3, help="warm fits (default 3)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    deadline = time.monotonic() + TOTAL
    result = bench.surroundings(args.device) | {"arms": {}, "rows": [], "checks": []}
    arms = make_arms(args.device)
    sizes = (3000, (5000, 64)) if args.quick else (None, (1_000_000, 768))
    with tempfile.TemporaryDirectory() as folder:
        for arm in arms:
            worker = Worker(arm, folder)
            try:
                result["arms"][arm.name] = worker.ask("describe", bench.START_LIMIT)
            except ArmFailed as reason:
                result["arms"][arm.name] = {"missing": str(reason)}
            worker.close()
        able = [arm for arm in arms if "missing" not in result["arms"][arm.name]]
        data = {}
        for case in QUICK_CASES if args.quick else CASES:
            if case.data not in data:
                data[case.data] = bench.load(case.data, folder, *sizes)
            trial = Trial(case, data[case.data], args, folder, deadline)
            trial.run(able)
            result["rows"] += trial.rows
            result["checks"] += trial.checks
            bench.save(args.outdir / "bench_gpu.json", result)
    missing = [[n, a["missing"]] for n, a in result["arms"].items() if "missing" in a]
    text = "\n\n".join(
        [
            *report(result["rows"], result["checks"]),
            bench.table(["arm", "cannot run here"], missing),
            f"device: {result['machine']['device_name']} ({result['machine']['backend']})",
        ]
    )
    (args.outdir / "bench_gpu.txt").write_text(text + "\n")
    print(text)
    return 0 if all(check["passed"] for check in result["checks"]) else 1


if __name__ == "__main__":
    sys.exit(main())
