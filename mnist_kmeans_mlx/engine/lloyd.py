"""The loop: E-step and M-step in turn until nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_kmeans_mlx.engine.assignment import make_assignment
from mnist_kmeans_mlx.engine.centroids import Centroids
from mnist_kmeans_mlx.engine.distances import Codebook
from mnist_kmeans_mlx.engine.points import Float64, Labels, Points


@dataclass(frozen=True)
class Run:
    """Outcome of one restart.

    Attributes
    ----------
    labels : ndarray of shape (n,), int32
        Of this rank's rows.
    inertia : float
        Weighted sum of squared distances of the moved and scaled rows to their centres.
    centers : ndarray of shape (k, d), float64
    n_iter : int
    converged : {"strict", "tol", ""}
        Whether labels no longer changed, centres hardly moved, or iterations ran out.
    shift : float
        Summed squared shift of the moved and scaled centres in the last step that moved them.
    rechecked : int
        Rows that float64 decided, over all E-steps.
    """

    labels: Labels
    inertia: float
    centers: Float64
    n_iter: int
    converged: str
    shift: float
    rechecked: int


NO_LABELS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class State:
    """Where a restart stands after an iteration; `lloyd` goes on from it to the same `Run`.

    Attributes
    ----------
    n_iter : int
        Iterations done.
    labels : ndarray of shape (n,), int32
    sums : ndarray of shape (k, d), float64
    counts : ndarray of shape (k,), float64
        What the last one found. To go on it takes none of these: they are exact, and found again.
    previous, centers : ndarray of shape (k, d), float64
        The centres that the last one found labels with, and where it moved these.
    converged, shift, rechecked
        As in `Run`, so far.
    """

    n_iter: int
    labels: Labels
    sums: Float64
    counts: Float64
    previous: Float64
    centers: Float64
    converged: str
    shift: float
    rechecked: int

    @classmethod
    def first(cls, centers: Float64, labels: Labels = NO_LABELS) -> State:
        """Before the first iteration; `labels` are the nearest of the centres, where known."""
        none = np.zeros(0)
        return cls(0, labels, none, none, centers, centers, "", np.inf, 0)


Observer = Callable[[State], None]


def lloyd(
    points: Points,
    start: Float64 | State,
    *,
    max_iter: int,
    tol: float,
    algorithm: str = "auto",
    dtype: Any = np.float64,
    project: Callable[[Float64], Float64] | None = None,
    observe: Observer | None = None,
) -> Run:
    """One restart of K-means.

    Parameters
    ----------
    points : Points
        The rows.
    start : ndarray of shape (k, d), float64, or State
        The centres to start from, or where to go on: the result is then the same to the last bit
        as if the restart had never stopped, except that `Run.rechecked` counts the rows of the
        first comparison after the stop, which has no bounds yet.
    max_iter : int
        Most iterations.
    tol : float
        Stop when the summed squared shift of the moved and scaled centres is no larger.
    algorithm : {"auto", "lloyd", "elkan"}
        How the E-step finds the nearest centres. Does not change the result.
    dtype : numpy dtype
        Precision that centres are rounded to.
    project : callable, optional
        Brings the means of an M-step to where centres may be, such as the unit sphere. The
        centres to start from are there already.
    observe : callable, optional
        Called with the `State` after each iteration. Nothing writes to its arrays later.

    Returns
    -------
    Run

    References
    ----------
    S. Lloyd, *Least squares quantization in PCM*, IEEE Trans. Inf. Theory 28 (1982). The stopping
    rule is that of scikit-learn's ``KMeans``.
    """
    group = points.group
    if not isinstance(start, State):
        start = State.first(start)
    k, known = len(start.centers), start.labels is not NO_LABELS
    previous, centers = start.previous, start.centers.astype(dtype).astype(np.float64)
    n_iter, converged, shift = start.n_iter, start.converged, start.shift
    rechecked = start.rechecked

    with points.stage("iterations"):
        assign = make_assignment(points, k, algorithm, settled=known)
        average = Centroids(points, k)
        labels = np.full(points.n, -1, dtype=np.int32)
        if n_iter > 0:
            labels = assign(Codebook(points, previous))
            average.update(labels)
        while not converged and n_iter < max_iter:
            before = labels
            labels = start.labels if n_iter == 0 and known else assign(Codebook(points, centers))
            means = average(labels, centers)
            if project is not None:
                means = project(means)
            previous, centers = centers, means.astype(dtype).astype(np.float64)
            n_iter += 1
            changed = np.count_nonzero(labels != before)
            changed, doubts = group.sum([changed, assign.rechecked]).tolist()
            rechecked = start.rechecked + doubts
            if changed == 0:
                converged = "strict"
            else:
                with np.errstate(over="ignore"):  # from given centres far off
                    shift = float(np.sum(np.square((centers - previous) * points.scale)))
                converged = "tol" if shift <= tol else ""
            if observe is not None:
                found = labels, average.sums, average.counts
                observe(State(n_iter, *found, previous, centers, converged, shift, rechecked))
    with points.stage("final"):
        if converged != "strict" or not np.array_equal(centers, previous):
            labels = assign(Codebook(points, centers))
            average.update(labels)
            rechecked = start.rechecked + int(group.sum(assign.rechecked))
        cost = average.inertia(labels, centers)
    return Run(
        labels=labels,
        inertia=cost,
        centers=centers,
        n_iter=n_iter,
        converged=converged,
        shift=shift,
        rechecked=rechecked,
    )
