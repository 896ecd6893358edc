"""Text around the tables of a comparison: the machine, and notes for readers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mnist_kmeans_mlx.report.parts import data_name

if TYPE_CHECKING:
    from mnist_kmeans_mlx.benchmark import Comparison

_VERSIONS = {"python": "Python", "numpy": "NumPy", "scikit-learn": "scikit-learn", "mlx": "MLX"}


def machine_facts(comparison: Comparison) -> dict[str, str]:
    """Describe the machine, the data and what was the same for every arm."""
    machine, data, same = comparison.machine, comparison.data, comparison.settings
    memory = machine.get("memory_bytes")
    shown = {
        "Machine": f"{machine.get('machine')}, {machine.get('cores')} cores"
        + (f", {memory / 2**30:.0f} GiB of memory" if memory else ""),
        "System": str(machine.get("system")),
        "GPU": str(machine["device_name"]) if machine.get("device") == "gpu" else "none for MLX",
        "Versions": ", ".join(
            f"{title} {machine[package]}"
            for package, title in _VERSIONS.items()
            if package in machine
        ),
        "BLAS, threads": "; ".join(machine.get("blas", ())),
        "Environment": " ".join(f"{k}={v}" for k, v in machine.get("settings", {}).items()),
        "Load average": " ".join(map(str, machine.get("load_average", ()))) + " before",
        "Data": f"{data_name(data)}, {data['n_train']:,} x {data['n_features']:,} {data['dtype']}",
        "Same for all": f"k-means++, n_init {same['n_init']}, seed {same['seed']}, "
        f"max_iter {same['max_iter']}, tol {same['tol']:g}",
        "Rounds": str(same["repeat"]),
    }
    return {name: value for name, value in shown.items() if value}


def notes(comparison: Comparison) -> Iterator[str]:
    """Notes for readers, each of one or a few sentences."""
    for case in comparison.cases:
        if case.fastest:
            yield f"K = {case.n_clusters}: speed-up is against {case.fastest}."
        for note in case.notes:
            yield f"K = {case.n_clusters}: {note}"
    for name, reason in comparison.unavailable.items():
        yield f"{name} cannot run here: {reason}."
    yield from comparison.notes
    if comparison.quoted:
        logged = " and ".join(
            f"{quote['seconds']} s with {quote['n_clusters']} clusters (train accuracy "
            f"{quote['train_accuracy']})"
            for quote in comparison.quoted
        )
        first = comparison.quoted[0]
        yield (
            "Quoted, not measured here: the log of the notebook that this grew from has "
            f"{first['library']}'s KMeans on a {first['machine']} at {logged}. Versions, seed and "
            "number of restarts are not in that log."
        )
