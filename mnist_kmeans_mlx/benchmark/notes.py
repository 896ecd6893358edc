"""Notes for readers of a comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mnist_kmeans_mlx.benchmark.arms import REFERENCE, SECOND, Arm
from mnist_kmeans_mlx.benchmark.result import Row

# They override OpenBLAS's own choice of kernel and block size.
SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")

# Relative difference of SSE above which other seeds are no sufficient explanation.
_OWN_SEEDS_LIMIT = 0.05


def general_notes(arms: Iterable[Arm], machine: Mapping[str, Any]) -> tuple[str, ...]:
    """Say what is timed, and what each kind of arm is."""
    names = {arm.name for arm in arms}
    libraries = {arm.library for arm in arms}
    notes = []
    if names:
        notes.append(
            "Seconds are those of the call of fit. Every round has a fresh process per arm: its "
            "first fit is cold, its second warm. Arms took turns, each round in another order. "
            "Energy was not measured."
        )
        unseen = "" if REFERENCE.name in names else ", run once for this and not timed"
        notes.append(
            f"Results were checked against {REFERENCE.name}{unseen}: SSE within 1e-5, the same "
            "labels except for exact ties, the same number of iterations. SSE is recomputed in "
            "float64."
        )
    if "scikit-learn" in libraries:
        notes.append(
            "scikit-learn's rows were converted to its precision before fit (upload). Its stages "
            "are those of one more fit, given kmeans_plusplus with a clock as its init; iterations "
            "are what is left, with the final pass."
        )
    if "mnist-kmeans-mlx" in libraries:
        notes.append("Ours takes the rows as they are: it checks, converts and uploads inside fit.")
    if "mlx-cpu" in names:
        notes.append(
            "mlx-cpu computes with NumPy on all cores; bounds and sketches skip most comparisons."
        )
    slowing = [name for name in SLOWING if name in machine.get("settings", {})]
    if slowing:
        notes.append(slowed(slowing))
    return tuple(notes)


def slowed(names: Iterable[str]) -> str:
    """Say what environment variables do to OpenBLAS."""
    return (
        f"{' and '.join(names)} set in the environment may keep OpenBLAS, and so NumPy and "
        "scikit-learn, from the kernel and block size that suit this processor: unset what you can "
        "before you publish figures."
    )


def case_notes(rows: Iterable[Row], fastest: Row | None, same: Row | None) -> tuple[str, ...]:
    """Say what is special about one number of clusters."""
    rows = list(rows)
    notes = []
    if fastest is not None and not fastest.comparable:
        notes.append(_about_the_fastest(rows, fastest, same))
    drawn = [row.arm.name for row in rows if row.verdict == "own seeds"]
    if drawn:
        notes.append(
            f"{' and '.join(drawn)}: own seeds, as scikit-learn draws others in float32 than in "
            "float64, and so another clustering of about the same SSE."
        )
    for row in rows:
        if not row.repeatable:
            notes.append(f"{row.arm.name} does not find the same every time.")
        if row.verdict == "as elkan":
            notes.append(
                f"{row.arm.name} gives the answer of {SECOND.name}, not that of {REFERENCE.name}: "
                "rows of this data are exactly as near to two centres, and rounding decides."
            )
        if row.verdict == "differs":
            notes.append(
                f"{row.arm.name} does not give the answer of the reference: "
                f"{row.differing:,} rows differ, {row.n_iter} iterations."
            )
        elif row.verdict == "own seeds" and abs(row.inertia_gap or 0) > _OWN_SEEDS_LIMIT:
            notes.append(
                f"{row.arm.name} ends with an SSE that is {100 * (row.inertia_gap or 0):+.1f} % "
                "off: more than other seeds usually make."
            )
    return tuple(notes)


def _about_the_fastest(rows: list[Row], fastest: Row, same: Row | None) -> str:
    why = "has seeds of its own" if fastest.verdict == "own seeds" else "differs from the reference"
    words = (
        f"The fastest of scikit-learn, {fastest.arm.name}, {why} and took {fastest.n_iter} "
        "iterations."
    )
    if same is None:
        return words
    ours = [
        f"{row.arm.name} is {row.speedup_same.median:.3g} times as fast"
        for row in rows
        if row.arm.ours and row.speedup_same is not None
    ]
    if not ours:
        return words
    return f"{words} Against {same.arm.name}, with the same answer, {' and '.join(ours)}."
