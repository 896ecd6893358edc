"""The loop: E-step and M-step in turn until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_kmeans_mlx.engine.means import inertia, means
from mnist_kmeans_mlx.engine.points import Float64, Labels, Points
from mnist_kmeans_mlx.engine.ways import Clusters, Way


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


@dataclass(frozen=True)
class State:
    """Where a restart stands after an iteration; `lloyd` goes on from it to the same `Run`.

    Attributes
    ----------
    n_iter : int
        Iterations done.
    labels : ndarray or mx.array of shape (n,), int32
        Where the way keeps them; `np.asarray` brings them to the host.
    sums : ndarray of shape (k, d), float64
    counts : ndarray of shape (k,), float64
        What the last one found. To go on it takes none of these: they are exact, and found again.
    previous, centers : ndarray of shape (k, d), float64
        The centres that the last one found labels with, and where it moved these.
    converged, shift, rechecked
        As in `Run`, so far.
    """

    n_iter: int
    labels: Any
    sums: Float64
    counts: Float64
    previous: Float64
    centers: Float64
    converged: str
    shift: float
    rechecked: int

    @classmethod
    def first(cls, centers: Float64, labels: Any = None) -> State:
        """Before the first iteration; `labels` are the nearest of the centres, where known."""
        none = np.zeros(0)
        return cls(0, labels, none, none, centers, centers, "", np.inf, 0)


Observer = Callable[[State], None]
# What asks for rows to be assigned to the centres that it yields, until it has found its `Run`.
Restart = Generator[tuple[Clusters, Float64] | None, None, Run]


def lloyd(way: Way, start: Float64 | State, **options: Any) -> Run:
    """One restart of K-means: `iterate` to its end.

    Parameters
    ----------
    way : Way
        The rows, and how they find their nearest centres.
    start : ndarray of shape (k, d), float64, or State
    **options
        As for `iterate`.
    """
    (run,) = side_by_side(way, [iterate(way, start, **options)])
    return run


def side_by_side(way: Way, restarts: Sequence[Restart]) -> list[Run]:
    """Several restarts, a step of all at a time, until each has found its `Run`."""
    going = dict(enumerate(restarts))
    with way.points.stage("iterations"):
        _advance(way, going)
    with way.points.stage("final"):
        runs = _advance(way, going)
    return [runs[number] for number in going]


def _advance(way: Way, restarts: Mapping[int, Restart]) -> dict[int, Run]:
    """Assign what restarts ask for until each has paused or found its `Run`."""
    going, runs = dict(restarts), {}
    while going:
        asked = []
        for number, restart in list(going.items()):
            try:
                wish = next(restart)
            except StopIteration as end:
                runs[number], wish = end.value, None
            if wish is None:
                del going[number]
            else:
                asked.append(wish)
        if asked:
            way.assign(asked)
    return runs


def iterate(
    way: Way,
    start: Float64 | State,
    *,
    max_iter: int,
    tol: float,
    dtype: Any = np.float64,
    project: Callable[[Float64], Float64] | None = None,
    observe: Observer | None = None,
) -> Restart:
    """One restart of K-means, which yields centres for all rows to be assigned to.

    Parameters
    ----------
    way : Way
        The rows, and how they find their nearest centres. Does not change the result.
    start : ndarray of shape (k, d), float64, or State
        The centres to start from, or where to go on: the result is then the same to the last bit
        as if the restart had never stopped, except that `Run.rechecked` counts the rows of the
        first comparison after the stop, which has no bounds yet.
    max_iter : int
        Most iterations.
    tol : float
        Stop when the summed squared shift of the moved and scaled centres is no larger.
    dtype : numpy dtype
        Precision that centres are rounded to.
    project : callable, optional
        Brings the means of an M-step to where centres may be, such as the unit sphere. The
        centres to start from are there already.
    observe : callable, optional
        Called with the `State` after each iteration. Nothing writes to its arrays later.

    Yields
    ------
    clusters, centers
        What is to be assigned, and to which centres, before it is resumed. None once, after the
        last iteration: it then asks for nothing but the labels of the centres that it found.

    Returns
    -------
    Run

    References
    ----------
    S. Lloyd, *Least squares quantization in PCM*, IEEE Trans. Inf. Theory 28 (1982). The stopping
    rule is that of scikit-learn's ``KMeans``.
    """
    points = way.points
    if not isinstance(start, State):
        start = State.first(start)
    known = start.n_iter == 0 and start.labels is not None
    previous, centers = start.previous, rounded(start.centers, dtype)
    n_iter, converged, shift = start.n_iter, start.converged, start.shift
    rechecked = start.rechecked

    clusters = way.clusters(len(centers), settled=known or n_iter > 0)
    if n_iter > 0:
        yield clusters, previous
        rechecked += _of_all(points, clusters.rechecked)
    while not converged and n_iter < max_iter:
        if known and n_iter == 0:
            clusters.begin(start.labels)
        else:
            yield clusters, centers
        found = means(points, clusters, centers)
        if project is not None:
            found = project(found)
        previous, centers = centers, rounded(found, dtype)
        n_iter += 1
        changed, doubts = points.group.sum([clusters.changed, clusters.rechecked]).tolist()
        rechecked += doubts
        if changed == 0:
            converged = "strict"
        else:
            with np.errstate(over="ignore"):  # from given centres far off
                difference = centers - previous
                if points.scale != 1:
                    difference *= points.scale
                shift = float(np.square(difference, out=difference).sum())
            converged = "tol" if shift <= tol else ""
        if observe is not None:
            seen = clusters.labels, clusters.sums, clusters.counts
            observe(State(n_iter, *seen, previous, centers, converged, shift, rechecked))
    yield None
    if converged != "strict" or not np.array_equal(centers, previous):
        yield clusters, centers
        rechecked += _of_all(points, clusters.rechecked)
    return Run(
        labels=np.array(clusters.labels),
        inertia=inertia(way, clusters, centers),
        centers=centers,
        n_iter=n_iter,
        converged=converged,
        shift=shift,
        rechecked=rechecked,
    )


def rounded(centers: Float64, dtype: Any) -> Float64:
    """Centres in the precision that they are kept in, as float64; not copied if that is it."""
    return centers.astype(dtype, copy=False).astype(np.float64, copy=False)


def _of_all(points: Points, number: int) -> int:
    """The sum of a number of each rank."""
    return int(points.group.sum(number))
