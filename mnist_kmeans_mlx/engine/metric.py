"""The metrics: what each makes of rows, of centres and of Euclidean distances.

The command line asks for them before anything slow is loaded: nothing slow is imported above.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Metric:
    """Euclidean distance, which K-means minimises. Other metrics say how they are reduced to it."""

    name, told = "euclidean", "Euclidean distance"
    meaning = "by the straight line between rows"
    # Brings centres to where they may be; None if that is everywhere.
    project: Callable[[Any], Any] | None = None

    def rows(self, rows: Any, keep: bool = True) -> Any:
        """Rows whose Euclidean distances count. Unless to be kept, they are made as asked for."""
        return rows

    def cost(self, squared: Any) -> Any:
        """What a squared Euclidean distance adds to the inertia."""
        return squared

    def of_squares(self, squared: Any) -> Any:
        """Distances, from squared Euclidean ones."""
        import numpy as np

        return np.sqrt(squared)

    def of_lengths(self, lengths: Any) -> Any:
        """Distances, from Euclidean ones."""
        return lengths

    def unit(self, unit: float) -> float:
        """Unit of the distances of rows that have this unit."""
        return unit


class Cosine(Metric):
    """``1 - cos``: half the squared Euclidean distance on the unit sphere."""

    name, told = "cosine", "1 − cos"
    meaning = "by the angle between rows, whatever their lengths"

    def rows(self, rows: Any, keep: bool = True) -> Any:
        from scipy.sparse import issparse

        from mnist_kmeans_mlx.engine import sphere

        return sphere.unit_rows(rows) if keep or issparse(rows) else sphere.UnitRows(rows)

    def project(self, centers: Any) -> Any:
        from mnist_kmeans_mlx.engine import sphere

        return sphere.unit_centers(centers)

    def cost(self, squared: Any) -> Any:
        return squared / 2

    of_squares = cost

    def of_lengths(self, lengths: Any) -> Any:
        return self.cost(lengths * lengths)

    def unit(self, unit: float) -> float:
        return 1  # angles have none


METRICS = {metric.name: metric for metric in (Metric(), Cosine())}
