"""M-step: from sums of clusters to means; empty clusters; inertia."""

from __future__ import annotations

import numpy as np

from mnist_kmeans_mlx.engine.decision import ROUNDOFF
from mnist_kmeans_mlx.engine.points import Float64, Labels, Points
from mnist_kmeans_mlx.engine.ways import Clusters, Way

# Share of the rows' squared norms that inertia must be for their difference to be exact enough.
CANCELLED = 1 / 16


def means(points: Points, clusters: Clusters, centers: Float64) -> Float64:
    """Means ``(k, d)`` of clusters, in the units of the rows.

    Parameters
    ----------
    points : Points
        The rows.
    clusters : Clusters
        Their sums.
    centers : ndarray of shape (k, d), float64
        Centres that labels were found with; rows furthest from them fill empty clusters.
    """
    sums, counts = _relocated(points, clusters, centers)
    if not counts.all():
        # As in scikit-learn, an empty cluster that found no row sits on the largest one.
        source = np.where(counts > 0, np.arange(len(counts)), np.argmax(counts))
        sums, counts = sums[source], counts[source]
    counts, shifts = counts[:, None], points.origin.any()
    if points.integer and points.scale == 1:
        # Exact up to the one division, so the same wherever the origin lies.
        return (sums + counts * points.origin if shifts else sums) / counts
    found: Float64 = sums / counts
    if points.scale != 1:
        found /= points.scale
    if shifts:
        found += points.origin
    return found


def inertia(way: Way, clusters: Clusters, centers: Float64) -> float:
    """Weighted sum of squared distances of the moved and scaled rows to their centres.

    Parameters
    ----------
    way : Way
        With the rows.
    clusters : Clusters
        Their labels and sums.
    centers : ndarray of shape (k, d), float64
    """
    points = way.points
    found = inertia_of_sums(points, way.norm_sq, centers, clusters.sums, clusters.counts)
    if found < CANCELLED * way.norm_sq:
        return points.inertia(centers, np.asarray(clusters.labels))
    return found


def _relocated(points: Points, clusters: Clusters, centers: Float64) -> tuple[Float64, Float64]:
    """Give each empty cluster the row that is furthest from its centre.

    The rule and its order are scikit-learn's.
    """
    empty = np.flatnonzero(clusters.counts == 0)
    if len(empty) == 0:
        return clusters.sums, clusters.counts
    labels = np.asarray(clusters.labels)
    distances = points.group.gather(_distances_sq(points, centers, labels))
    if distances.max() == 0:
        return clusters.sums, clusters.counts
    sums, counts = clusters.sums.copy(), clusters.counts.copy()
    furthest = np.argpartition(distances, -len(empty))[: -len(empty) - 1 : -1]
    weights = np.ones(len(empty))
    if points.weights is not None:
        weights = points.pick(furthest, points.weights)
    moved = points.move_rows(points.pick(furthest)) * weights[:, None]
    owners = points.pick(furthest, labels)
    for cluster, row, owner, weight in zip(empty, moved, owners, weights, strict=True):
        sums[owner] -= row
        sums[cluster] = row
        counts[owner] -= weight
        counts[cluster] = weight
    return sums, counts


def _distances_sq(points: Points, centers: Float64, labels: Labels) -> Float64:
    """Squared distances of rows to their centres; zero where rounding of means is all there is.

    Equal rows would otherwise be moved to and fro between the clusters that they leave empty.
    """
    distances = points.distances_sq(None, centers, labels)
    weights = np.ones(points.n) if points.weights is None else points.weights
    unit = points.row_sums.unit + points.limit * points.weight_sums.unit
    size = (np.abs(centers).max(axis=1) + np.abs(points.origin).max()) * points.scale
    with np.errstate(over="ignore"):  # of the least weights, and of given centres far off
        noise = unit / np.where(weights > 0, weights, 1) + 4 * ROUNDOFF * size[labels]
        distances[distances < points.d * np.square(noise) + points.residual**2] = 0
    return distances


def inertia_of_sums(
    points: Points, norm_sq: float, centers: Float64, sums: Float64, counts: Float64
) -> float:
    """Weighted sum of squared distances of rows to the centres of their clusters.

    From the sums of the clusters alone, without a pass over the rows. Digits cancel as far as it is
    below the squared norms of the moved rows.

    Parameters
    ----------
    points : Points
        The rows.
    norm_sq : float
        The weighted sum of their squared norms.
    centers : ndarray of shape (k, d), float64
        Centres, in the units of the rows.
    sums : ndarray of shape (k, d), float64
    counts : ndarray of shape (k,), float64
        As `Clusters` keeps them for some labels.

    Returns
    -------
    float
        Of the moved and scaled rows.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of given centres far off
        moved = points.move(centers)
        # NumPy sums pairwise: with an error of a few units in the last place.
        total = norm_sq + np.sum(moved * (counts[:, None] * moved - 2 * sums))
    return max(0.0, float(total))
