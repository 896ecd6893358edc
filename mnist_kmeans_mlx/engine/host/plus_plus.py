"""Greedy k-means++ on the host: bounds rule most rows and candidates out."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_rounding
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.exact import Exact, joined
from mnist_kmeans_mlx.engine.host.comparison import Comparison, sketched
from mnist_kmeans_mlx.engine.host.rows import HostRows
from mnist_kmeans_mlx.engine.host.sketch import Sketch
from mnist_kmeans_mlx.engine.points import Float64, Index, Labels
from mnist_kmeans_mlx.engine.seeding.sampling import (
    Source,
    WeightedSampling,
    exact_distances,
    first_row,
)

# Of one block, the rows that a candidate comes closer to, how close, and what that saves.
Gain = tuple[Index, Float64, Float64]


def plus_plus(rows: HostRows, k: int, random_state: Source, trials: int) -> tuple[Index, Labels]:
    """Greedy k-means++, with scikit-learn's draws in scikit-learn's order.

    Parameters
    ----------
    rows : HostRows
        The rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.
    trials : int
        Candidates per step.

    Returns
    -------
    chosen : ndarray of int, shape (k,)
        Numbers of the chosen rows, among those of all ranks.
    nearest : ndarray of int32, shape (n,)
        The place, among the chosen, of the one that is nearest to each of this rank's rows, as
        float64 decides it; of equally near ones the first.

    Notes
    -----
    Of a few candidates, drawn in proportion to the squared distance from the rows chosen so far,
    each step keeps the one that leaves the smallest potential. Products in float32 tell which rows
    a candidate may come closer to; their distances, the potential and so the draws are float64.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    points = rows.points
    chosen = np.empty(k, dtype=np.intp)
    chosen[:1] = first_row(points, random_state)
    closest = np.empty(points.n)
    nearest = np.zeros(points.n, dtype=np.int32)
    center = points.pick(chosen[:1])[0]

    def measure(part: slice) -> None:
        closest[part] = rows.distances_sq_to(part, center)

    points.host.map(measure, points.host_parts())
    exact, sketch = exact_distances(points, rows.largest_norm_sq), rows.sketch(k)
    for step in range(1, k):
        sampling = WeightedSampling(points, exact, points.weighted(closest))
        draws = random_state.uniform(size=trials) * joined(sampling.sums)
        drawn = sampling.find(draws)
        candidates = _Candidates(rows, exact, closest, points.pick(drawn), sketch)
        best, gains = candidates.best(sampling.sums)
        chosen[step] = drawn[best]
        for closer, distances, _ in gains:
            closest[closer] = distances
            nearest[closer] = step
    return chosen, nearest


class _Candidates:
    """Candidates of one step, and what each would save.

    Bounds of what they save rule most of them out before a distance is measured.

    Parameters
    ----------
    rows : HostRows
        The rows.
    exact : Exact
        How to sum.
    closest : ndarray of shape (n,), float64
        Squared distances of the rows to those chosen so far.
    candidates : ndarray of shape (t, d), float64
    sketch : Sketch or None
        Of the rows.
    """

    def __init__(
        self,
        rows: HostRows,
        exact: Exact,
        closest: Float64,
        candidates: Float64,
        sketch: Sketch | None,
    ) -> None:
        self.rows, self.points, self.exact, self.closest = rows, rows.points, exact, closest
        self.candidates, self._sketch = candidates, sketch
        centers = Centers(self.points, candidates, host_rounding())
        self._compared = Comparison.whole(rows, centers)
        self._tolerance = self._compared.tolerance
        if sketch is not None:
            self._factor, self._tolerance = sketched(rows, centers, sketch)

    def best(self, sums: Float64) -> tuple[int, list[Gain]]:
        """Which one leaves the smallest potential, the first if several do, and what rows gain.

        `sums` are parts of the potential so far.
        """
        points, group = self.points, self.points.group
        parts = points.host.parts(points.n, max(64, len(self.candidates)))
        # To look again takes less memory than to keep the near rows of all candidates, their
        # numbers and distances.
        keep = points.keep or 24 * len(self.candidates) * points.n <= points.spare

        def look(part: slice) -> tuple[list[Index] | None, Float64]:
            near, saved = self._look(part)
            return near if keep else None, saved

        nears, bounds = zip(*points.host.map(look, parts), strict=True)
        least, most = group.sum(np.sum(bounds, axis=0))
        # Rounding, of these sums and of the potential.
        most = 1.00001 * most + 1e-15 * joined(sums)

        def measure(numbers: list[int]) -> tuple[float, int, list[Gain]]:
            def gains(place: int) -> list[Gain]:
                near = nears[place] or self._look(parts[place])[0]
                return [self._measure(near[number], self.candidates[number]) for number in numbers]

            gained = zip(*points.host.map(gains, range(len(parts))), strict=True)
            left = [
                (self._potential(sums, gain), number, list(gain))
                for number, gain in zip(numbers, gained, strict=True)
            ]
            return min(left, key=itemgetter(0, 1))

        # The most promising one rules out most of the others.
        first = int(np.argmax(least))
        best = measure([first])
        hopeful = np.flatnonzero(most >= joined(sums) - best[0])
        others = hopeful[hopeful != first].tolist()
        together = [others] if keep else [[number] for number in others]
        for numbers in filter(None, together):
            best = min(best, measure(numbers), key=itemgetter(0, 1))
        return best[1:]

    def _potential(self, sums: Float64, gains: Iterable[Gain]) -> float:
        """What is left of the potential after these gains."""
        saved = np.sum([saved for _, _, saved in gains], axis=0)
        return float(joined(sums - self.exact.over(self.points.group, saved)))

    def _look(self, part: slice) -> tuple[list[Index], Float64]:
        """For each candidate the rows that it may be closer to; least and most that it saves."""
        points, own = self.points, self.closest[part]
        if self._sketch is not None:
            lower = self._sketch.lower_scores(self._factor, part)
        else:
            lower = self._compared.scores(self._compared.rows(part), by_row=False)
        norms_sq, (slope, constant) = self.rows.norms_sq[part], self._tolerance
        reach, norms = (own - norms_sq).astype(np.float32), np.sqrt(norms_sq).astype(np.float32)
        # The squared norm and `own`, no larger than that and `reach` together, are rounded too.
        unit = np.float32(8 * FLOAT32_ROUNDOFF)
        error = norms * (np.float32(slope) + 2 * unit * norms)
        error += unit * np.abs(reach) + np.float32(constant)
        reach += error
        nears = [np.flatnonzero(close) for close in lower < reach]
        number, near = np.repeat(np.arange(len(nears)), [*map(len, nears)]), np.concatenate(nears)
        most = reach[near] - lower[number, near]
        least = most - 2 * error[near]
        near += part.start
        if self._sketch is not None:
            least -= self._sketch.widths(self._factor, number, near)
        np.maximum(least, 0, out=least)
        if points.weights is not None:
            heavy = points.weights[near]
            least, most = least * heavy, most * heavy
        saved: Float64 = np.stack([np.bincount(number, x, len(nears)) for x in (least, most)])
        return np.split(near, np.cumsum([*map(len, nears)])[:-1]), saved

    def _measure(self, near: Index, row: Float64) -> Gain:
        """What a candidate gains of those rows that it may be closer to."""
        points, distances = self.points, np.empty(len(near))
        for block in points.host_parts(len(near)):
            distances[block] = self.rows.distances_sq_to(near[block], row)
        before = self.closest[near]
        closer = distances < before
        near, before, distances = near[closer], before[closer], distances[closer]
        after = distances
        if points.weights is not None:
            heavy = points.weights[near]
            before, after = before * heavy, after * heavy
        return near, distances, self.exact.sums(before) - self.exact.sums(after)
