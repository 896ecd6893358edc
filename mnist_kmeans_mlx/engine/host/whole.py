"""E-step on the host: all rows are compared with all centres, as Lloyd's algorithm has it."""

from __future__ import annotations

import numpy as np

from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.host.nearest import HostComparison
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.points import Labels


class WholeAssignment:
    """Compare all rows with all centres, and remember nothing.

    Parameters
    ----------
    rows : HostRows
        The rows.
    """

    def __init__(self, rows: HostRows) -> None:
        self.rows, self.rechecked = rows, 0

    def __call__(self, centers: Centers) -> Labels:
        points = self.rows.points
        compared = HostComparison(points.host, centers.moved, centers.off)
        labels, doubts = np.empty(points.n, dtype=np.int32), []

        def assign(part: slice) -> None:
            longest = float(np.sqrt(self.rows.norms_sq[part].max())) * (1 + 1e-6)
            labels[part], doubtful, _ = compared.nearest(self.rows.float32(part), longest)
            doubts.append(part.start + doubtful)

        compared.each(assign, points.n)
        rows = np.concatenate(doubts)
        labels[rows] = centers.nearest(rows)
        self.rechecked = len(rows)
        return labels

    def expect(self, labels: Labels) -> None:
        """Labels that most rows will have are of no use."""
