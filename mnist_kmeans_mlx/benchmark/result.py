"""The result of a comparison, frozen, and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.benchmark.arms import Arm
from mnist_kmeans_mlx.experiment.result import plain

# In the order in which they happen. "start" is the interpreter and its imports, "load" reads the
# data, "upload" checks and converts the rows and brings them to the device.
STAGES = ("start", "load", "upload", "seeding", "iterations", "final")

# Figures from the log of the original notebook.
QUOTED: tuple[Mapping[str, Any], ...] = tuple(
    {
        "n_clusters": n_clusters,
        "seconds": seconds,
        "train_accuracy": accuracy,
        "machine": "MacBook Air (M2)",
        "library": "scikit-learn",
    }
    for n_clusters, seconds, accuracy in ((15, 37.6, 0.67643), (20, 28.8, 0.71753))
)


@dataclass(frozen=True)
class Spread:
    """Measurements of the same thing, in the order in which they were made."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The one in the middle."""
        return statistics.median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return median, least, most and all of them."""
        low, high = min(self.values), max(self.values)
        return {"median": self.median, "low": low, "high": high, "values": list(self.values)}


def spread(values: Iterable[float]) -> Spread | None:
    """Spread of the values, or None where there are none."""
    found = tuple(values)
    return Spread(found) if found else None


@dataclass(frozen=True)
class Row:
    """One arm at one number of clusters.

    Attributes
    ----------
    arm : Arm
    verdict : str
        "reference"; "same" answer as the reference; "own seeds" or "differs", of an arm of
        scikit-learn; "as elkan", of one of ours where scikit-learn's algorithms part, or
        "MISMATCH"; "failed"; "cannot run".
    reason : str
        Why it failed or cannot run.
    cold, warm : Spread or None
        Seconds of the first fit in a fresh process and of the next one.
    stages : dict of str to float
        Median seconds of those of `STAGES` that could be measured, in warm fits.
    speedup : Spread or None
        How many times as long the fastest arm of scikit-learn took, round by round; None where
        the answer is wrong.
    speedup_same : Spread or None
        The same against the fastest whose answer is that of the reference.
    n_iter : int or None
    inertia, reported_inertia : float or None
        SSE, recomputed in float64 from labels and centres, and as the arm has it.
    inertia_gap : float or None
        How far, relatively, `inertia` lies above that of the reference.
    agreement, ari : float or None
        Share of rows in the same cluster as in the reference, and adjusted Rand index.
    differing, ties : int or None
        Rows in another cluster than in the reference, and how many of them are equally near to
        both.
    train_accuracy, test_accuracy : float or None
    repeatable : bool
        Whether every fit found the same labels in the same number of iterations.
    failures : tuple of str
        What must not be.
    """

    arm: Arm
    verdict: str
    reason: str = ""
    cold: Spread | None = None
    warm: Spread | None = None
    stages: Mapping[str, float] = field(default_factory=dict)
    speedup: Spread | None = None
    speedup_same: Spread | None = None
    n_iter: int | None = None
    inertia: float | None = None
    reported_inertia: float | None = None
    inertia_gap: float | None = None
    agreement: float | None = None
    ari: float | None = None
    differing: int | None = None
    ties: int | None = None
    train_accuracy: float | None = None
    test_accuracy: float | None = None
    repeatable: bool = True
    failures: tuple[str, ...] = ()

    @property
    def comparable(self) -> bool:
        """Whether it gives the answer of the reference."""
        return self.verdict in ("reference", "same")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it; the arm as its name and device."""
        found: dict[str, Any] = {"arm": self.arm.name, "device": self.arm.device}
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            found[entry.name] = value.to_dict() if isinstance(value, Spread) else value
        return found


@dataclass(frozen=True)
class Case:
    """All arms at one number of clusters.

    Attributes
    ----------
    n_clusters : int
    rows : tuple of Row
    fastest, fastest_same : str or None
        Names of the fastest arm of scikit-learn, and of that with the answer of the reference.
    notes : tuple of str
    """

    n_clusters: int
    rows: tuple[Row, ...]
    fastest: str | None
    fastest_same: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes
    ----------
    data, machine : Mapping
    arms : tuple of Arm
    unavailable : dict of str to str
        Why arms cannot run here, by name.
    cases : tuple of Case
    settings : Mapping
        ``n_init``, ``repeat``, ``seed``, ``max_iter``, ``tol``: the same for every arm.
    failures, notes : tuple of str
        What must not be, and what one must know to read the numbers.
    quoted : tuple of Mapping
        What others measured elsewhere.
    started, command : str
    """

    data: Mapping[str, Any]
    machine: Mapping[str, Any]
    arms: tuple[Arm, ...]
    unavailable: Mapping[str, str]
    cases: tuple[Case, ...]
    settings: Mapping[str, Any]
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    quoted: tuple[Mapping[str, Any], ...]
    started: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return plain(
            {
                "kind": "comparison",
                "failures": list(self.failures),
                "cases": [
                    {**vars(case), "rows": [row.to_dict() for row in case.rows]}
                    for case in self.cases
                ],
                "arms": [
                    {**vars(arm), "unavailable": self.unavailable.get(arm.name)}
                    for arm in self.arms
                ],
                "quoted": [dict(figure) for figure in self.quoted],
                "settings": dict(self.settings),
                "data": dict(self.data),
                "machine": dict(self.machine),
                "notes": list(self.notes),
                "started": self.started,
                "version": __version__,
                "command": self.command,
            }
        )
