#!/usr/bin/env python
"""Time of this package and of others for the same clustering.

Every arm runs in its own process, holds the rows in its preferred form, and is timed in turn with
the others. Four comparisons, named in the column "mode":

fit     The whole job: k-means++, restarts, scikit-learn's stopping rule. For arms that have these.
given   From the same given centres (rows that k-means++ chose), the same number of iterations.
own     The same for arms that take no given centres: all start from what such an arm had after its
        first iteration. That iteration and its preparations are not counted against it.
budget  What SSE an arm reaches in the time of our whole fit, seeding as it likes.

    python scripts/bench_peers.py --install               # once: a virtual environment per peer
    python scripts/bench_peers.py --json peers.json       # everything; takes hours on two cores
    python scripts/bench_peers.py --cases 'mnist-k20-*' --arms 'sklearn-*,faiss*' --repeat 5
"""

import subprocess
import sys
import tempfile
import venv
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import _bench as bench
from _bench import Arm, ArmFailed, TimeLimit, Worker

# On Linux PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu avoids torch's gigabytes of
# CUDA.
PEERS = {
    "scikit-learn-intelex": ["scikit-learn-intelex"],
    "faiss-cpu": ["faiss-cpu"],
    "superkmeans": ["superkmeans"],
    "fastkmeans": ["fastkmeans", "torch==2.13.0"],
    "flash-kmeans-mlx": ["flash-kmeans-mlx", "mlx" if sys.platform == "darwin" else "mlx[cpu]"],
}


def make_arms(device, kernel):
    """All arms, ours first. `kernel` is the one that NumPy's OpenBLAS chose."""
    dtypes, whole = ("float32", "float64"), ("fit", "given")
    scikit_learn = [
        Arm(
            f"sklearn-{name}-{dtype}",
            "ScikitLearn",
            {"algorithm": name, "dtype": dtype},
            modes=whole,
        )
        for name in ("lloyd", "elkan")
        for dtype in dtypes
    ]
    peer = "scikit-learn-intelex"
    intelex = [
        Arm(f"sklearnex-{dtype}", "ScikitLearnIntelex", {"dtype": dtype}, peer, whole)
        for dtype in dtypes
    ]
    # The old OpenBLAS inside faiss-cpu may not recognise a new processor.
    told = {"OPENBLAS_CORETYPE": kernel} if kernel else {}
    both = ("given", "budget")
    return [
        Arm("ours", "Ours", {"device": device}, modes=("fit", "given", "own")),
        *scikit_learn,
        *intelex,
        Arm("faiss", "Faiss", {}, "faiss-cpu", both),
        Arm("faiss-kernel", "Faiss", {}, "faiss-cpu", both, told),
        Arm("faiss-plus-plus", "Faiss", {"plus_plus": True}, "faiss-cpu", ("budget",), told),
        Arm("superkmeans", "SuperKMeans", {}, "superkmeans", ("own", "budget")),
        Arm("superkmeans-hierarchical", "SuperKMeans", {"hierarchical": True}, "superkmeans",
            ("budget",)),
        Arm("fastkmeans", "FastKMeans", {}, "fastkmeans", both),
        Arm("flash-mlx", "FlashKMeansMlx", {}, "flash-kmeans-mlx", both),
        Arm("flash-mlx-scaled", "FlashKMeansMlx", {"divide": 255}, "flash-kmeans-mlx", both),
    ]  # fmt: skip


@dataclass(frozen=True)
class Task:
    name: str
    data: str
    k: int
    n_init: int = 1
    max_iter: int = 300

    def job(self, **changes):
        job = {"k": self.k, "n_init": self.n_init, "max_iter": self.max_iter, "tol": 1e-4}
        return job | {"seed": 0} | changes


CASES = [
    *[Task(f"mnist-k{k}-r{r}", "mnist", k, r) for k in (10, 20, 100, 256) for r in (1, 10)],
    Task("embeddings-k1000", "embeddings", 1000, max_iter=25),
]
QUICK_CASES = [
    Task("mnist-k10-r1", "mnist", 10),
    Task("mnist-k10-r2", "mnist", 10, 2),
    Task("embeddings-k30", "embeddings", 30, max_iter=5),
]


# Peers' environments


def python_of(arm, venvs):
    if not arm.peer:
        return sys.executable
    return venvs / arm.peer / "bin" / "python"


def install(peer, venvs):
    """Make the peer's virtual environment, unless it is there."""
    folder = venvs / peer
    if (folder / "ready").exists():
        return
    bench.say(f"installing {peer}")
    venv.create(folder, clear=True, with_pip=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "-q", *PEERS[peer]]
    done = subprocess.run([*command, "threadpoolctl"], capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise ArmFailed((errors or ["ERROR: pip failed"])[0])
    (folder / "ready").touch()


def available(arms, args, folder):
    """Versions of each arm, and why others cannot run."""
    found, missing, broken = {}, {}, {}
    if args.install:
        for peer in {arm.peer for arm in arms} - {""}:
            try:
                install(peer, args.venvs)
            except ArmFailed as reason:
                broken[peer] = str(reason)
    for arm in arms:
        if arm.peer and not (args.venvs / arm.peer / "ready").exists():
            missing[arm.name] = broken.get(arm.peer, f"{arm.peer} is not installed: see --install")
            continue
        worker = Worker(arm, folder, python_of(arm, args.venvs))
        try:
            found[arm.name] = worker.ask("describe", bench.START_LIMIT)
        except ArmFailed as reason:
            missing[arm.name] = str(reason)
        finally:
            worker.close()
    return found, missing


def numpy_kernel(folder):
    """Name of the kernel that NumPy's OpenBLAS chose, if NumPy has OpenBLAS."""
    worker = Worker(Arm("kernel", "Library"), folder)
    pools = worker.ask("describe")["threadpools"]
    worker.close()
    kernels = [pool.split(": ")[1].split(" ")[0] for pool in pools if "openblas" in pool]
    return kernels[0] if kernels else None


# Comparisons


class Match:
    """A case: its rows, its arms, and what came out."""

    def __init__(self, case, data, arms, args, folder):
        self.case, self.data, self.arms, self.args, self.folder = case, data, arms, args, folder
        self.rows = []
        self.start = [int(row) for row in bench.pick_rows(data.rows, case.k)]

    def run(self):
        self.fit()
        if self.case.n_init == 1:
            self.given()
            for arm in [arm for arm in self.arms if "own" in arm.modes and arm.name != "ours"]:
                self.own(arm)
        self.budget()
        return self.rows

    def open(self, stack, mode, arms):
        """Workers of a mode, with the rows in memory and warmed up, by name."""
        workers = {}
        for arm in arms:
            worker = Worker(arm, self.folder, python_of(arm, self.args.venvs))
            stack.callback(worker.close)
            try:
                worker.ask("load", bench.START_LIMIT, **self.data.job())
                takes_centers = "given" in arm.modes
                worker.fit(
                    self.args.time_limit,
                    **self.case.job(n_init=1, max_iter=1, tol=0),
                    **(self.given_start() if takes_centers else {}),
                )
            except ArmFailed as reason:
                self.note(mode, arm.name, f"cannot: {reason}")
            else:
                workers[arm.name] = worker
        return workers

    def given_start(self):
        return {"init": self.data.rows[self.start], "rows": self.start}

    def fit(self):
        with ExitStack() as stack:
            workers = self.open(stack, "fit", [arm for arm in self.arms if "fit" in arm.modes])
            jobs = {name: self.case.job() for name in workers}
            series = self.compete("fit", workers, jobs)
            for name, answers in series.items():
                if answers and self.worth_another(name, series):
                    self.row("fit", name)["stages"] = self.stages(
                        workers[name], jobs[name], [answer["seconds"] for answer in answers]
                    )

    def stages(self, worker, job, seconds):
        """Seconds per stage, from a further fit that says when each one ends."""
        try:
            stages = worker.fit(self.args.time_limit, **job, staged=True)["stages"]
        except ArmFailed:
            return {}
        if stages:
            whole = bench.spread(seconds)["median"]
            stages["iterations"] = max(0.0, whole - sum(stages.values()))
        return stages

    def given(self):
        with ExitStack() as stack:
            workers = self.open(stack, "given", [arm for arm in self.arms if "given" in arm.modes])
            if "ours" in workers:
                count = self.iterations(workers["ours"], self.given_start())
                job = self.case.job(max_iter=count, tol=0) | self.given_start()
                self.compete("given", workers, {name: job for name in workers})

    def own(self, arm):
        """Compare from the centres that the arm has after its first iteration."""
        ours = next(arm for arm in self.arms if arm.name == "ours")
        with ExitStack() as stack:
            workers = self.open(stack, "own", [ours, arm])
            if len(workers) < 2:
                return
            first = [
                workers[arm.name].fit(self.args.time_limit, **self.case.job(max_iter=1))
                for _ in range(max(3, self.args.repeat))
            ]
            start = {"init": first[0]["centers"]}
            count = self.iterations(workers["ours"], start)
            jobs = {
                "ours": self.case.job(max_iter=count, tol=0) | start,
                arm.name: self.case.job(max_iter=count + 1),
            }
            unpaid = bench.spread([answer["seconds"] for answer in first])["median"]
            self.compete("own", workers, jobs, {arm.name: unpaid})

    def iterations(self, ours, start):
        """How many iterations we take from a start, by scikit-learn's rule."""
        try:
            return ours.fit(self.args.time_limit, **self.case.job(), **start)["n_iter"]
        except TimeLimit:
            return 10

    def compete(self, mode, workers, jobs, unpaid=None):
        """Time the jobs in turn, each round in another order, and note what came out."""
        series = {name: [] for name in jobs}
        failed = {}
        for turn in range(self.args.repeat):
            for name in bench.rotated(list(jobs), turn):
                if name in failed or (turn and not self.worth_another(name, series)):
                    continue
                bench.say(f"{self.case.name} {mode} round {turn + 1} {name}")
                try:
                    answer = workers[name].fit(self.args.time_limit, **jobs[name])
                except ArmFailed as reason:
                    failed[name] = reason
                    continue
                answer["seconds"] -= (unpaid or {}).get(name, 0)
                series[name].append(answer)
        ours = [answer["seconds"] for answer in series.get("ours", [])]
        for name, answers in series.items():
            row = self.note(mode, name, f"stopped: {failed[name]}" if name in failed else "")
            if answers:
                self.fill(row, answers)
                row["ratio"] = bench.ratio(row["seconds"], ours)
            elif isinstance(failed.get(name), TimeLimit) and ours:
                row["ratio_at_least"] = self.args.time_limit / bench.spread(ours)["median"]
        return series

    def worth_another(self, name, series):
        """Whether to repeat an arm: fast ones, ours, and scikit-learn's fastest."""
        first = {n: answers[0]["seconds"] for n, answers in series.items() if answers}
        rivals = [n for n in first if n.startswith("sklearn-")]
        return (
            first[name] <= self.args.long
            or name == "ours"
            or name == min(rivals, key=first.get, default=None)
        )

    def budget(self):
        """SSE that others reach in the time of our whole fit."""
        whole = self.row("fit", "ours")
        if not whole or not whole.get("seconds"):
            return
        seconds = bench.spread(whole["seconds"])["median"]
        for arm in [arm for arm in self.arms if "budget" in arm.modes]:
            with ExitStack() as stack:
                for name, worker in self.open(stack, "budget", [arm]).items():
                    bench.say(f"{self.case.name} budget {name}")
                    try:
                        runs = self.spend(worker, seconds)
                    except ArmFailed as reason:
                        self.note("budget", name, str(reason))
                        continue
                    row = self.note("budget", name, f"best of {len(runs)}" * (len(runs) > 1))
                    self.fill(row, runs)
                    row["seconds"] = [sum(row["seconds"])]
                    row["ratio"] = bench.ratio(row["seconds"], [seconds])

    def spend(self, worker, seconds):
        """Run as many iterations as fit into the seconds, in as many restarts as our fit has."""

        def run(count, seed=0):
            job = self.case.job(n_init=1, max_iter=count, tol=0, seed=seed)
            return worker.fit(self.args.time_limit, **job)

        first, sixth = run(1)["seconds"], run(6)["seconds"]
        each = max((sixth - first) / 5, 1e-6)
        for restarts in (self.case.n_init, 1):
            count = 1 + int((seconds / restarts - first) // each)
            if count >= 5:
                break
        if count < 1:
            raise ArmFailed(f"one iteration takes {first:.2f} s, our whole fit {seconds:.2f} s")
        return [run(min(count, 300), seed) for seed in range(restarts)]

    # The record

    def row(self, mode, name):
        found = [row for row in self.rows if row["mode"] == mode and row["arm"] == name]
        return found[0] if found else None

    def note(self, mode, name, words):
        row = {"case": self.case.name, "mode": mode, "arm": name, "note": words}
        self.rows.append(row)
        return row

    def fill(self, row, answers):
        """Write down the best of an arm's answers: lowest SSE, all times, highest memory."""
        scores = [self.data.score(answer["centers"]) for answer in answers]
        best = min(range(len(answers)), key=lambda i: scores[i]["sse"])
        ours = self.row(row["mode"] if row["mode"] != "budget" else "fit", "ours")
        row |= scores[best]
        row["sse_to_ours"] = row["sse"] / ours["sse"] - 1 if ours and "sse" in ours else None
        row["n_iter"] = answers[best]["n_iter"]
        row["seconds"] = [answer["seconds"] for answer in answers]
        row["peak_bytes"] = max(answer["peak_bytes"] for answer in answers)
        row["device_peak_bytes"] = answers[best]["device_peak_bytes"]


def show_table(rows):
    header = ["case", "arm", "mode", "seeding", "iterations", "final", "seconds", "iter", "SSE",
              "to ours", "accuracy", "MB", "times ours", "note"]  # fmt: skip
    lines = []
    for row in rows:
        stages, seconds = row.get("stages", {}), bench.spread(row.get("seconds"))
        gap = row.get("sse_to_ours")
        times = row.get("ratio")
        if "ratio_at_least" in row:
            times = f"> {row['ratio_at_least']:.1f}"
        lines.append(
            [
                row["case"],
                row["arm"],
                row["mode"],
                *[stages.get(stage) for stage in ("seeding", "iterations", "final")],
                seconds and seconds["median"],
                row.get("n_iter"),
                f"{row['sse']:.7g}" if "sse" in row else None,
                None if gap is None else f"{gap:+.1e}",
                row.get("accuracy"),
                bench.megabytes(row.get("peak_bytes")),
                times,
                row["note"],
            ]
        )
    return bench.table(header, lines)


def summary(rows):
    """Per case and mode, the fastest scikit-learn arm and the fastest other arm at our SSE."""
    lines = []
    for case, mode in dict.fromkeys((row["case"], row["mode"]) for row in rows):
        rivals = [r for r in rows if (r["case"], r["mode"]) == (case, mode) and r["arm"] != "ours"]
        for group, own in (("scikit-learn", True), ("any other", False)):
            arms = [row for row in rivals if row["arm"].startswith("sklearn-") == own]
            equal = [r for r in arms if r.get("ratio") and abs(r["sse_to_ours"]) <= 1e-5]
            if equal and mode != "budget":
                best = min(equal, key=lambda row: row["ratio"]["median"])
                lines.append([case, mode, group, best["arm"], best["ratio"]])
            elif limited := [row for row in arms if "ratio_at_least" in row]:
                least = f"> {limited[0]['ratio_at_least']:.1f}"
                lines.append([case, mode, group, "all took too long", least])
    return bench.table(["case", "mode", "of", "fastest at our SSE", "times ours"], lines)


def parse(argv):
    parser = bench.parser(__doc__)
    home = Path.home() / ".cache" / "mnist-kmeans-mlx" / "peers"
    names = ", ".join(case.name for case in CASES)
    arms = ", ".join(arm.name for arm in make_arms("", None))
    parser.add_argument("--cases", default="*", help=f"patterns, with commas; there are {names}")
    parser.add_argument("--arms", default="*", help=f"patterns; there are {arms}")
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default 3)")
    parser.add_argument(
        "--time-limit", type=float, default=300, help="seconds for one fit (default 300)"
    )
    parser.add_argument(
        "--long",
        type=float,
        default=60,
        help="fits of more seconds are repeated only for us and scikit-learn's best (default 60)",
    )
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--install", action="store_true", help="install the peers that are not")
    parser.add_argument("--venvs", type=Path, default=home, help=f"where (default {home})")
    args = parser.parse_args(argv)
    for option, known in (
        ("cases", QUICK_CASES if args.quick else CASES),
        ("arms", make_arms(args.device, None)),
    ):
        for pattern in getattr(args, option).split(","):
            if not bench.pick(known, pattern):
                names = ", ".join(each.name for each in known)
                parser.error(f"--{option}: nothing is called {pattern!r}; there are {names}.")
    return args


def main(argv=None):
    args = parse(argv)
    with tempfile.TemporaryDirectory() as folder:
        kernel = numpy_kernel(folder)
        arms = bench.pick(make_arms(args.device, kernel), f"ours,{args.arms}")
        found, missing = available(arms, args, folder)
        for name, reason in missing.items():
            bench.say(f"{name} cannot run: {reason}")
        result = bench.surroundings(args.device) | {"arms": found, "missing": missing, "rows": []}
        sizes = (5000, (5000, 16)) if args.quick else ()
        data = {}
        for case in bench.pick(QUICK_CASES if args.quick else CASES, args.cases):
            if case.data not in data:
                data[case.data] = bench.load(case.data, folder, *sizes)
            able = [arm for arm in arms if arm.name in found]
            result["rows"] += Match(case, data[case.data], able, args, folder).run()
            if args.json:
                bench.save(args.json, result)
    print(show_table(result["rows"]))
    print("\n" + summary(result["rows"]))
    print("\n" + bench.table(["arm", "cannot run here"], list(missing.items())))
    print("\n" + bench.table(["arm", "runs on"], [
        [name, "; ".join([*(f"{k} {v}" for k, v in what["versions"].items() if isinstance(v, str)),
                          *what["threadpools"]])]
        for name, what in found.items()
    ]))  # fmt: skip


if __name__ == "__main__":
    main()
