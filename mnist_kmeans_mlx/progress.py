"""Progress of a fit: the output of ``verbose=1``, as scikit-learn's, and inertia by iteration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mnist_kmeans_mlx.engine.lloyd import Observer, Run, State
from mnist_kmeans_mlx.engine.means import inertia_of_sums
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import Way


def announcer(points: Points, cost: Callable[[float], float]) -> Observer:
    """Printer of each iteration's inertia, in the metric's units."""

    def announce(state: State) -> None:
        value = cost(points.squared(points.inertia(state.previous, np.asarray(state.labels))))
        print(f"Iteration {state.n_iter - 1}, inertia {value}.")

    return announce


def announce_end(points: Points, run: Run, tol: float) -> None:
    """Say why a restart ended."""
    if run.converged == "strict":
        print(f"Converged at iteration {run.n_iter - 1}: strict convergence.")
    elif run.converged == "tol":
        print(
            f"Converged at iteration {run.n_iter - 1}: center shift {points.squared(run.shift)} "
            f"within tolerance {points.squared(tol)}."
        )


class History:
    """The inertia of each iteration of each restart of one fit.

    Costs no pass over the rows.
    """

    def __init__(self) -> None:
        self._restarts: dict[int, dict[int, float]] = {}

    def observer(self, way: Way, restart: int, cost: Callable[[float], float]) -> Observer:
        """Follower of one restart."""
        curve = self._restarts.setdefault(restart, {})

        def note(state: State) -> None:
            sums, counts = state.sums, state.counts
            value = inertia_of_sums(way.points, way.norm_sq, state.previous, sums, counts)
            curve[state.n_iter] = cost(way.points.squared(value))

        return note

    @property
    def restarts(self) -> list[list[float]] | None:
        """Curves from the first restart to the last; None of a fit that was resumed on its way."""
        for i, (restart, curve) in enumerate(sorted(self._restarts.items())):
            if [restart, *curve] != [i, *range(1, len(curve) + 1)]:
                return None
        return [list(curve.values()) for _, curve in sorted(self._restarts.items())] or None
