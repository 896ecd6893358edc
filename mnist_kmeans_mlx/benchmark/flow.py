"""The comparison: arms alternate, and every result is checked against the reference."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.benchmark.arms import ARMS, REFERENCE, SECOND, Arm, BenchmarkError, rotated
from mnist_kmeans_mlx.benchmark.judge import Answer, Judge
from mnist_kmeans_mlx.benchmark.notes import case_notes, general_notes
from mnist_kmeans_mlx.benchmark.process import Worker, WorkerFailed
from mnist_kmeans_mlx.benchmark.result import QUOTED, STAGES, Case, Comparison, Row, Spread, spread
from mnist_kmeans_mlx.experiment.data import Data, check_clusters, load
from mnist_kmeans_mlx.persistence.checksum import checksum

Observer = Callable[[str], None]


@dataclass
class _Series:
    """What one arm did in its rounds."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    stages: list[Mapping[str, float]] = field(default_factory=list)
    answers: set[str] = field(default_factory=set)
    answer: Answer | None = None
    failure: str = ""

    def add(self, told: dict[str, Any], stages: Mapping[str, float]) -> None:
        cold, warm = told["fits"]
        self.cold.append(cold["seconds"])
        self.warm.append(warm["seconds"])
        self.stages.append({**stages, **warm["stages"]})
        self.answers |= set(told["answers"])


def compare(
    source: str | os.PathLike[str] = "auto",
    *,
    n_clusters: Iterable[int] = (15, 20),
    arms: Iterable[Arm] = ARMS,
    n_init: int = 1,
    repeat: int = 3,
    seed: int = 0,
    max_iter: int = 300,
    tol: float = 1e-4,
    command: str = "",
    observe: Observer | None = None,
    **named: Any,
) -> Comparison:
    """Time the same clustering in scikit-learn and here, and check that it is the same.

    Every round and arm has a process of its own, which loads the data and fits twice: the first
    fit is the cold one, the second the warm one. In each round the arms take turns in another
    order. What is timed is the call of ``fit``: arms of scikit-learn have their rows converted
    before it, ours convert and upload inside.

    Parameters
    ----------
    source
        As for `mnist_kmeans_mlx.experiment.load`.
    n_clusters : iterable of int
    arms : iterable of Arm
        Arms that cannot run here are listed with the reason.
    n_init, seed, max_iter, tol
        The same for every arm; the seeding is k-means++.
    repeat : int
        Number of rounds.
    command : str
        Kept in the result.
    observe : callable, optional
        Called with what is being done, in words.
    **named
        ``key``, ``labels``, ``header`` and ``columns``, as for `load`.

    Returns
    -------
    Comparison
        With `Comparison.failures` if an arm of ours does not give scikit-learn's answer, or if
        any arm breaks down.

    Raises
    ------
    BenchmarkError
        Not even the machine can be described.
    DatasetError, ExperimentError
        The data cannot be used, or there are more clusters than rows.
    """
    started = datetime.now(UTC).isoformat(timespec="seconds")
    observe = observe or (lambda words: None)
    if not isinstance(named.get("columns"), str | None):
        named["columns"] = list(named["columns"])  # sent to each process
    observe("Loading data")
    data = load(source, **named).held("compare on a part of it")
    counts = tuple(n_clusters)
    check_clusters(max(counts), len(data.train))
    observe("Looking at the machine")
    try:
        with Worker() as worker:
            found = worker.ask({"do": "survey"})
    except WorkerFailed as error:
        raise BenchmarkError(f"the machine cannot be described: {error}.") from error
    settings = {"n_init": n_init, "seed": seed, "max_iter": max_iter, "tol": tol}
    job = {
        "do": "measure",
        "source": os.fspath(source),
        **{name: named.get(name) for name in ("key", "header", "columns")},
        "checksum": checksum(data.train, data.test),
        **settings,
    }
    chosen = tuple(arms)
    unavailable = {arm.name: found["unavailable"].get(arm.name) for arm in chosen}
    unavailable = {name: reason for name, reason in unavailable.items() if reason}
    cases = tuple(
        _Match(data, chosen, unavailable, {**job, "n_clusters": count}, repeat, observe).run()
        for count in counts
    )
    able = [arm for arm in chosen if arm.name not in unavailable]
    failures = [
        f"K = {case.n_clusters}, {row.arm.name}: {words}."
        for case in cases
        for row in case.rows
        for words in row.failures
    ]
    if not able:
        failures.append("None of these arms can run here.")
    return Comparison(
        data=data.to_dict(),
        machine=found["machine"],
        arms=chosen,
        unavailable=unavailable,
        cases=cases,
        settings={**settings, "repeat": repeat},
        failures=tuple(failures),
        notes=general_notes(able, found["machine"]),
        quoted=tuple(QUOTED) if data.name == "mnist" else (),
        started=started,
        command=command,
    )


class _Match:
    """All arms at one number of clusters."""

    def __init__(
        self,
        data: Data,
        arms: tuple[Arm, ...],
        unavailable: Mapping[str, str],
        job: dict[str, Any],
        repeat: int,
        observe: Observer,
    ) -> None:
        self.data, self.arms, self.unavailable = data, arms, unavailable
        self.job, self.repeat, self.observe = job, repeat, observe
        self.able = [arm for arm in arms if arm.name not in unavailable]
        self.series = {arm: _Series() for arm in self.able}

    def run(self) -> Case:
        """Measure, then judge."""
        for turn in range(self.repeat):
            for arm in rotated(self.able, turn):
                if not self.series[arm].failure:
                    self._measure(arm, turn)
        if self.able:
            self._fetch(REFERENCE)
        return self._case()

    def _measure(self, arm: Arm, turn: int) -> None:
        series = self.series[arm]
        words = f"K = {self.job['n_clusters']}, round {turn + 1} of {self.repeat}: {arm.name}"
        # Stages of scikit-learn take a fit of their own.
        job = {"fits": 2, "staged": turn == 0}
        try:
            told, stages, answer = self._ask(arm, job, words)
        except WorkerFailed as error:
            series.failure = str(error)
            return
        series.add(told, stages)
        series.answer = series.answer or answer

    def _fetch(self, arm: Arm) -> _Series:
        """What an arm found, which is run once, unseen, where it is not among those compared."""
        if arm not in self.series:
            series = self.series[arm] = _Series()
            words = f"K = {self.job['n_clusters']}: {arm.name}, to check the others"
            try:
                series.answer = self._ask(arm, {"fits": 1, "staged": True}, words)[2]
            except WorkerFailed as error:
                series.failure = str(error)
        return self.series[arm]

    def _ask(
        self, arm: Arm, job: dict[str, Any], words: str
    ) -> tuple[dict[str, Any], dict[str, float], Answer]:
        stages: dict[str, float] = {}

        def note(event: str, seconds: float) -> None:
            if event == "ready":
                stages["start"] = seconds

        self.observe(words)
        with tempfile.TemporaryDirectory(prefix="mnist-kmeans-mlx-") as folder, Worker() as worker:
            job = {**self.job, **job, "arm": vars(arm), "folder": folder}
            told = worker.ask(job, note)
            return told, stages, Answer.read(Path(folder), told)

    # What came out

    def _case(self) -> Case:
        reference = self.series.get(REFERENCE, _Series())
        if reference.answer is None:
            rows = [self._unchecked(arm, reference.failure) for arm in self.arms]
        else:
            judge = Judge(self.data, reference.answer)
            rows = [self._row(arm, judge) for arm in self.arms]
        fastest = _fastest(rows, lambda row: True)
        same = _fastest(rows, lambda row: row.comparable)
        rows = [
            replace(row, speedup=_ratio(fastest, row), speedup_same=_ratio(same, row))
            for row in rows
        ]
        return Case(
            self.job["n_clusters"],
            tuple(rows),
            fastest.arm.name if fastest else None,
            same.arm.name if same else None,
            (*case_notes(rows, fastest, same), *self._chosen(rows)),
        )

    def _chosen(self, rows: list[Row]) -> tuple[str, ...]:
        """Which of our arms device="auto" stands for, where there are several."""
        if sum(row.arm.ours and row.arm in self.able for row in rows) < 2:
            return ()
        from mnist_kmeans_mlx.device import resolve
        from mnist_kmeans_mlx.engine.ways import told

        train, job = self.data.train, self.job
        shape = (*train.shape, job["n_clusters"], int(job["n_init"]), train.dtype.itemsize)
        return (f"device='auto' takes {told(resolve('auto'), *shape)}.",)

    def _row(self, arm: Arm, judge: Judge) -> Row:
        if arm not in self.able or self.series[arm].answer is None:
            return self._unchecked(arm, "")
        series = self.series[arm]
        answer = series.answer
        assert answer is not None
        found = judge.examine(answer)
        objections = judge.objections(found)
        verdict = "same"
        if arm == REFERENCE:
            verdict = "reference"
        elif objections and arm.ours:
            verdict = "as elkan" if self._as_second(answer) else "MISMATCH"
        elif objections:
            verdict = "differs" if answer.seeds == judge.reference.seeds else "own seeds"
        failures = list(objections) if verdict == "MISMATCH" else []
        if arm.ours and len(series.answers) > 1:
            verdict = "MISMATCH"
            failures.append("it does not find the same every time")
        if series.failure:
            verdict = "failed"
            failures.append(series.failure)
        measured = {**self._measured(series), "repeatable": len(series.answers) == 1}
        return Row(arm, verdict, series.failure, failures=tuple(failures), **measured, **found)

    def _as_second(self, answer: Answer) -> bool:
        """Whether an answer is that of scikit-learn's other algorithm."""
        second = self._fetch(SECOND).answer
        if second is None:
            return False
        judge = Judge(self.data, second)
        return not judge.objections(judge.examine(answer))

    def _unchecked(self, arm: Arm, why_no_reference: str) -> Row:
        """Row of an arm without a result, or without a reference to check it against."""
        if arm not in self.able:
            return Row(arm, "cannot run", self.unavailable[arm.name])
        series = self.series[arm]
        reason = series.failure
        if not reason:
            reason = f"it could not be checked, for scikit-learn failed: {why_no_reference}"
        measured = self._measured(series)
        return Row(arm, "failed", reason, failures=(reason,), **measured)

    def _measured(self, series: _Series) -> dict[str, Any]:
        stages = {}
        for stage in STAGES:
            times = spread(told[stage] for told in series.stages if stage in told)
            if times is not None:
                stages[stage] = times.median
        return {"cold": spread(series.cold), "warm": spread(series.warm), "stages": stages}


def _fastest(rows: Iterable[Row], wanted: Callable[[Row], bool]) -> Row | None:
    """Fastest arm of scikit-learn among the wanted ones that failed in no round."""
    timed = [
        (row.warm.median, index, row)
        for index, row in enumerate(rows)
        if row.warm is not None and not row.arm.ours and row.verdict != "failed" and wanted(row)
    ]
    return min(timed)[2] if timed else None


def _ratio(base: Row | None, row: Row) -> Spread | None:
    """How many times as long the base took, round by round; a wrong answer is not quick."""
    wrong = row.verdict in ("MISMATCH", "failed")
    if base is None or base.warm is None or row.warm is None or wrong:
        return None
    pairs = zip(base.warm.values, row.warm.values, strict=True)
    return spread(theirs / its for theirs, its in pairs)
