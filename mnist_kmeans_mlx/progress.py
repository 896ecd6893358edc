"""What ``verbose=1`` prints about a restart, in scikit-learn's words."""

from __future__ import annotations

from collections.abc import Callable

from mnist_kmeans_mlx.engine.distances import inertia
from mnist_kmeans_mlx.engine.lloyd import Observer, Run, State
from mnist_kmeans_mlx.engine.points import Points


def announcer(points: Points, cost: Callable[[float], float]) -> Observer:
    """Printer of each iteration's inertia, in the metric's units."""

    def announce(state: State) -> None:
        value = cost(inertia(points, state.previous, state.labels))
        print(f"Iteration {state.n_iter - 1}, inertia {value}.")

    return announce


def announce_end(run: Run, tol: float) -> None:
    """Say why a restart ended."""
    if run.converged == "strict":
        print(f"Converged at iteration {run.n_iter - 1}: strict convergence.")
    elif run.converged == "tol":
        print(
            f"Converged at iteration {run.n_iter - 1}: center shift {run.shift} within "
            f"tolerance {tol}."
        )
