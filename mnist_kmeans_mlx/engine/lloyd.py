"""The loop: E-step and M-step in turn until nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_kmeans_mlx.engine.assignment import make_assignment
from mnist_kmeans_mlx.engine.centroids import Centroids
from mnist_kmeans_mlx.engine.distances import Codebook, inertia
from mnist_kmeans_mlx.engine.points import Float64, Index, Points


@dataclass(frozen=True)
class Run:
    """Outcome of one restart.

    Attributes
    ----------
    labels : ndarray of int, shape (n,)
    inertia : float
        Weighted sum of squared distances of the rows to their centres.
    centers : ndarray of shape (k, d), float64
    n_iter : int
    converged : {"strict", "tol", ""}
        Whether labels no longer changed, centres hardly moved, or iterations ran out.
    shift : float
        Summed squared shift of the centres in the last step that moved them.
    rechecked : int
        Rows that float64 decided, over all E-steps.
    """

    labels: Index
    inertia: float
    centers: Float64
    n_iter: int
    converged: str
    shift: float
    rechecked: int


Observer = Callable[[int, Index, Float64], None]


def lloyd(
    points: Points,
    centers: Float64,
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
    centers : ndarray of shape (k, d), float64
        Where to start.
    max_iter : int
        Most iterations.
    tol : float
        Stop when the summed squared shift of the centres, in the units of the rows squared, is no
        larger.
    algorithm : {"auto", "lloyd", "elkan"}
        How the E-step finds the nearest centres. Does not change the result.
    dtype : numpy dtype
        Precision that centres are rounded to.
    project : callable, optional
        Brings the means of an M-step to where centres may be, such as the unit sphere. The
        centres to start from are there already.
    observe : callable, optional
        Called after each iteration with its number, the labels and the centres they were found
        with.

    Returns
    -------
    Run

    References
    ----------
    S. Lloyd, *Least squares quantization in PCM*, IEEE Trans. Inf. Theory 28 (1982). The stopping
    rule is that of scikit-learn's ``KMeans``.
    """
    assign = make_assignment(points, len(centers), algorithm)
    average = Centroids(points, len(centers))
    centers = centers.astype(dtype).astype(np.float64)
    labels = np.full(points.n, -1)
    converged, shift = "", np.inf
    for iteration in range(max_iter):
        before, labels = labels, assign(Codebook(points, centers))
        means = average(labels, centers)
        if project is not None:
            means = project(means)
        previous, centers = centers, means.astype(dtype).astype(np.float64)
        if observe is not None:
            observe(iteration, labels, previous)
        if np.array_equal(labels, before):
            converged = "strict"
            break
        shift = float(np.sum((centers - previous) ** 2))
        if shift <= tol:
            converged = "tol"
            break
    if converged != "strict" or not np.array_equal(centers, previous):
        labels = assign(Codebook(points, centers))
    return Run(
        labels=labels,
        inertia=inertia(points, centers, labels),
        centers=centers,
        n_iter=iteration + 1,
        converged=converged,
        shift=shift,
        rechecked=assign.rechecked,
    )
