"""Mini-batch K-means: centres that move a little with every batch of rows.

After D. Sculley, *Web-scale k-means clustering*, WWW 2010. Draws, reassignment and stopping rules
are those of scikit-learn's ``MiniBatchKMeans``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, issparse

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Float64


def step(
    batch: Any, weights: Float64 | None, centers: Float64, counts: Float64, device: Device
) -> tuple[Float64, Float64, float]:
    """Move centres towards the rows of a batch that are nearest to them.

    Parameters
    ----------
    batch : ndarray of shape (n, d) or CSR matrix
        The rows.
    weights : ndarray of shape (n,), float64, or None
        Weight of each; all one if None.
    centers : ndarray of shape (k, d), float64
        Each the mean of all rows that it has seen.
    counts : ndarray of shape (k,), float64
        The weight of those rows.
    device : Device
        Where rows and centres are multiplied.

    Returns
    -------
    centers, counts : ndarray
        The same with the rows of the batch counted in.
    inertia : float
        Of the batch, before the centres moved.
    """
    (k, _), n = centers.shape, batch.shape[0]
    nearest = Nearest(centers, device)
    labels = nearest.labels(batch)
    shares = np.ones(n) if weights is None else weights
    gained = np.bincount(labels, weights=shares, minlength=k)
    total, found = counts + gained, gained > 0
    with np.errstate(over="ignore"):  # where inertia leaves float64 as well
        sums = centers * counts[:, None]
        if issparse(batch):
            values = batch.data * csr.along(batch, shares)
            csr.add(sums[None], batch, labels, values[None])
        else:
            by_label = csr_matrix((shares, (labels, np.arange(n))), shape=(k, n))
            sums += by_label @ batch.astype(np.float64)
        sums /= np.where(found, total, 1)[:, None]
    sums[~found] = centers[~found]
    return sums, total, nearest.inertia(batch, labels, weights)


def reassign(
    batch: Any,
    centers: Float64,
    counts: Float64,
    ratio: float,
    random_state: np.random.RandomState,
) -> int:
    """Put centres that hardly saw a row on random rows of a batch, in place.

    Parameters
    ----------
    batch : ndarray of shape (n, d) or CSR matrix
        The rows; at most half of them become centres.
    centers : ndarray of shape (k, d), float64
        The centres.
    counts : ndarray of shape (k,), float64
        The weight that each has seen. Those of moved centres rise to the smallest of the others,
        or the next step would move them again.
    ratio : float
        Of the largest count, the share below which a centre is moved.
    random_state : numpy.random.RandomState
        Source of the draws.

    Returns
    -------
    int
        How many centres were moved.
    """
    rare = counts < ratio * counts.max()
    # With a ratio above one all would be rare: one must stay, for its count is what others get.
    rare[np.argmax(counts)] = False
    n = batch.shape[0]
    most = int(0.5 * n)
    if rare.sum() > 0.5 * n:
        rare[np.argsort(counts)[most:]] = False
    moved = int(rare.sum())
    if moved:
        rows = random_state.choice(n, replace=False, size=moved)
        chosen = batch[rows]
        centers[rare] = chosen.toarray() if issparse(batch) else chosen
        counts[rare] = counts[~rare].min()
    return moved


@dataclass
class Progress:
    """When to stop: centres hardly move, or a smoothed inertia no longer falls.

    Attributes
    ----------
    tol : float
        Stop at a summed squared shift of the centres of at most this, if above zero.
    patience : int or None
        Stop after so many batches in a row without a new lowest average.
    smoothing : float
        Share of the last batch in the moving average.
    average : float or None
        Exponentially weighted average of the inertia per row.
    """

    tol: float
    patience: int | None
    smoothing: float
    average: float | None = None
    lowest: float = np.inf
    in_vain: int = 0

    def add(self, inertia: float, shift: float) -> str:
        """Count a batch in; why to stop, or nothing."""
        if self.average is None:
            self.average = inertia
        else:
            self.average = self.average * (1 - self.smoothing) + inertia * self.smoothing
        if self.tol > 0 and shift <= self.tol:
            return "small centers change"
        self.in_vain = 0 if self.average < self.lowest else self.in_vain + 1
        self.lowest = min(self.average, self.lowest)
        if self.patience is not None and self.in_vain >= self.patience:
            return "lack of improvement in inertia"
        return ""
