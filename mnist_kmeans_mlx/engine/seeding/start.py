"""Rows to start from, by the name of what draws them."""

from __future__ import annotations

from typing import Any

from mnist_kmeans_mlx.engine.points import Index
from mnist_kmeans_mlx.engine.seeding.parallel import parallel
from mnist_kmeans_mlx.engine.seeding.sampling import default_trials, random_rows
from mnist_kmeans_mlx.engine.ways import Way

NAMES = ("k-means++", "k-means||", "random")


def draw(way: Way, name: str, k: int, random_state: Any) -> tuple[Index, Any | None]:
    """Numbers ``(k,)`` of rows to start from, among all ranks'.

    Parameters
    ----------
    way : Way
        With the rows.
    name : {"k-means++", "k-means||", "random"}
        How they are chosen.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState, or Draws for k-means++
        Source of the draws.

    Returns
    -------
    chosen : ndarray of int, shape (k,)
    labels : ndarray or mx.array of shape (n,), int32, or None
        Which of them is nearest to each row, where that is known.
    """
    if name == "k-means++":
        ((chosen, labels),) = way.seed(k, [random_state], default_trials(k))
        return chosen, labels
    return {"k-means||": parallel, "random": random_rows}[name](way.points, k, random_state), None
