"""Seeding: where the centres start."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from operator import itemgetter

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import FLOAT32_ROUNDOFF, host_view, slices
from mnist_kmeans_mlx.engine.assignment import FullAssignment
from mnist_kmeans_mlx.engine.comparison import Comparison
from mnist_kmeans_mlx.engine.distances import Codebook
from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined
from mnist_kmeans_mlx.engine.points import Float32, Float64, Index, Labels, Points
from mnist_kmeans_mlx.engine.sampling import WeightedSampling, first_row
from mnist_kmeans_mlx.engine.sketch import Sketch

# Rounds of k-means||, and how many rows each draws for every centre.
ROUNDS, OVERSAMPLING = 5, 2
# Random numbers drawn at once.
DRAWS = 1 << 16

# Of one block, the rows that a candidate comes closer to, how close, and what that saves.
Gain = tuple[Index, Float64, Float64]


def parallel(points: Points, k: int, random_state: np.random.RandomState) -> Index:
    """k-means||: a few rounds of many draws each, in place of one pass for every centre.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.

    Returns
    -------
    ndarray of int, shape (k,)
        Numbers of the chosen rows, among those of all ranks.

    Notes
    -----
    Each of five rounds draws about ``2 * k`` rows, every row by itself with a chance in proportion
    to its squared distance from those drawn before. Of all that were drawn, each with the weight of
    the rows nearest to it, greedy k-means++ keeps `k`. It takes two passes for every round.

    References
    ----------
    B. Bahmani, B. Moseley, A. Vattani, R. Kumar and S. Vassilvitskii, *Scalable k-means++*,
    VLDB 2012.
    """
    candidates = first_row(points, random_state)
    rows = points.pick(candidates)
    nearest = np.zeros(points.n, dtype=np.int32)
    closest = points.distances_sq(None, rows, nearest)
    for _ in range(ROUNDS):
        drawn = points.group.gather(_hits(points, closest, OVERSAMPLING * k, random_state))
        if len(drawn) == 0:
            continue
        found = points.pick(drawn)
        _approach(points, found, len(candidates), closest, nearest)
        candidates, rows = np.concatenate([candidates, drawn]), np.concatenate([rows, found])
    del closest
    if len(candidates) < k:
        return plus_plus(points, k, random_state)
    behind = _weight_behind(points, nearest, len(candidates))
    del nearest
    kept = plus_plus(Points(rows, points.device, behind), k, random_state)
    return candidates[kept]


def _approach(
    points: Points, found: Float64, first: int, closest: Float64, nearest: Labels
) -> None:
    """Renew the distances of all rows, and to which candidate, by those just `found`."""
    labels = FullAssignment(points)(Codebook(points, found))
    distances = points.distances_sq(None, found, labels)
    closer = distances < closest
    labels += first
    np.copyto(closest, distances, where=closer)
    np.copyto(nearest, labels, where=closer)


def _weight_behind(points: Points, nearest: Labels, count: int) -> Float64:
    """Weight of the rows nearest to each candidate, of all ranks."""
    exact = points.exact(1, whole=True)
    parts = np.zeros((exact.width, count))
    for part in slices(points.n, BLOCK):
        own = nearest[part]
        weights = np.ones(len(own)) if points.weights is None else points.weights[part]
        parts += [np.bincount(own, share, count) for share in exact.split(weights)]
    return joined(points.group.sum(parts))


def _hits(
    points: Points, shares: Float64, expected: int, random_state: np.random.RandomState
) -> Index:
    """Numbers of this rank's rows that are hit, each by itself, in proportion to its share.

    About as many as `expected` are, on all ranks. Numbers are drawn for all rows, so that which
    are hit does not depend on the rank that holds them.
    """
    total, hits = points.sum(shares, points.integer), []
    for start in range(0, points.total, DRAWS):
        draws = random_state.random_sample(min(DRAWS, points.total - start))
        first = max(points.offset - start, 0)
        own = draws[first : max(points.offset + points.n - start, 0)]
        place = start + first - points.offset
        part = slice(place, place + len(own))
        weighted = shares[part] if points.weights is None else shares[part] * points.weights[part]
        hits.append(points.offset + place + np.flatnonzero(own * total < weighted * expected))
    return np.concatenate(hits)


def default_trials(k: int) -> int:
    """Candidates per step of greedy k-means++."""
    return 2 + int(np.log(k))


def split(random_state: np.random.RandomState, k: int) -> np.random.RandomState:
    """Source of the draws that `plus_plus` would take from another, which then go on after them.

    How many these are does not depend on the rows: several can be seeded at a time.
    """
    own = deepcopy(random_state)
    random_state.random_sample(1 + (k - 1) * default_trials(k))
    return own


def plus_plus(
    points: Points,
    k: int,
    random_state: np.random.RandomState,
    trials: int | None = None,
    nearest: Labels | None = None,
) -> Index:
    """Greedy k-means++, with scikit-learn's draws in scikit-learn's order.

    Parameters
    ----------
    points : Points
        The rows.
    k : int
        How many to choose.
    random_state : numpy.random.RandomState
        Source of the draws.
    trials : int, optional
        Candidates per step; ``2 + int(log(k))`` if None.
    nearest : ndarray of int32, shape (n,), optional
        Becomes the place, among the chosen, of the one that is nearest to each of this rank's
        rows, as float64 decides it; of equally near ones the first.

    Returns
    -------
    ndarray of int, shape (k,)
        Numbers of the chosen rows, among those of all ranks.

    Notes
    -----
    Of a few candidates, drawn in proportion to the squared distance from the rows chosen so far,
    each step keeps the one that leaves the smallest potential. The device finds which rows a
    candidate may come closer to; their distances, the potential and so the draws are float64.

    References
    ----------
    D. Arthur and S. Vassilvitskii, *k-means++: the advantages of careful seeding*, SODA 2007.
    """
    trials = default_trials(k) if trials is None else trials
    weights = points.weights
    chosen = np.empty(k, dtype=np.intp)
    chosen[:1] = first_row(points, random_state)
    closest = np.empty(points.n)
    if nearest is not None:
        nearest[:] = 0
    center = points.pick(chosen[:1])[0]

    def measure(part: slice) -> None:
        closest[part] = points.distances_sq_to(part, center)

    points.host.map(measure, points.host_parts())
    exact, sketch = exact_distances(points), points.sketch(k)
    for step in range(1, k):
        sampling = WeightedSampling(
            points, exact, closest if weights is None else closest * weights
        )
        draws = random_state.uniform(size=trials) * joined(sampling.sums)
        drawn = sampling.find(draws)
        candidates = _Candidates(points, exact, closest, points.pick(drawn), sketch)
        best, gains = candidates.best(sampling.sums)
        chosen[step] = drawn[best]
        for rows, distances, _ in gains:
            closest[rows] = distances
            if nearest is not None:
                nearest[rows] = step
    return chosen


def exact_distances(points: Points) -> Exact:
    """How to sum weighted squared distances between rows."""
    # No two rows are further from one another than twice the largest norm.
    reach = 4 * float(points.group.max(points.largest_norm_sq)) * (1 + 1e-9)
    return points.exact(reach, points.integer, 2 * points.depth)


class _Candidates:
    """Candidates of one step, and what each would save.

    Bounds of what they save rule most of them out before a distance is measured.

    Parameters
    ----------
    points : Points
        The rows.
    exact : Exact
        How to sum.
    closest : ndarray of shape (n,), float64
        Squared distances of the rows to those chosen so far.
    rows : ndarray of shape (t, d), float64
        The candidates.
    sketch : Sketch or None
        Of the rows.
    """

    def __init__(
        self,
        points: Points,
        exact: Exact,
        closest: Float64,
        rows: Float64,
        sketch: Sketch | None,
    ) -> None:
        self.points, self.exact, self.closest, self.rows = points, exact, closest, rows
        self._codebook, self._sketch = Codebook(points, rows), sketch
        self._compared = Comparison.whole(self._codebook)
        self._tolerance = self._codebook.tolerance
        if self._sketch is not None:
            sketched = self._codebook.sketched(self._sketch)
            self._factor, self._tolerance = sketched.factor, sketched.tolerance
        self._scores: Float32 | None = None
        if self._sketch is None and points.keep and points.device.kind != "cpu":
            self._scores = self._on_device()

    def best(self, sums: Float64) -> tuple[int, list[Gain]]:
        """Which one leaves the smallest potential, the first if several do, and what rows gain.

        `sums` are parts of the potential so far.
        """
        points, group = self.points, self.points.group
        parts = points.host.parts(points.n, max(64, len(self.rows)))
        # To look again takes less memory than to keep the near rows of all candidates, their
        # numbers and distances.
        keep = points.keep or 24 * len(self.rows) * points.n <= points.spare

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
                return [self._measure(near[number], self.rows[number]) for number in numbers]

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

    def _on_device(self) -> Float32:
        """Scores ``(t, n)`` of all rows, for it takes a GPU no time to read these."""
        points, scores = self.points, np.empty((len(self.rows), self.points.n), dtype=np.float32)

        def compare(part: slice) -> None:
            found = self._codebook.scores(points.block(part))
            scores[:, part] = host_view(mx.contiguous(found.T))

        points.device.map(compare, points.device.parts(points.n, len(self.rows)))
        return scores

    def _look(self, part: slice) -> tuple[list[Index], Float64]:
        """For each candidate the rows that it may be closer to; least and most that it saves."""
        points, own = self.points, self.closest[part]
        if self._sketch is not None:
            lower = self._sketch.lower_scores(self._factor, part)
        elif self._scores is not None:
            lower = self._scores[:, part]
        else:
            lower = self._compared.scores(points.float32(part), by_row=False)
        norms_sq, (slope, constant) = points.norms_sq[part], self._tolerance
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
            distances[block] = points.distances_sq_to(near[block], row)
        before = self.closest[near]
        closer = distances < before
        near, before, distances = near[closer], before[closer], distances[closer]
        after = distances
        if points.weights is not None:
            heavy = points.weights[near]
            before, after = before * heavy, after * heavy
        return near, distances, self.exact.sums(before) - self.exact.sums(after)
