"""The nearest centre of any row, whatever other rows come with it.

A fit knows all its rows and finds a frame that suits them (`points`). Rows that fitted centres are
asked about may be few, far off, or one of them a million times as large as the next. The frame is
therefore that of the centres. Rows for which float32 does not do there are rows in doubt like any
others: float64 decides them, each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import issparse

from mnist_kmeans_mlx.device import Device, dots, product, slices
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.decision import (
    HUGE,
    TINY,
    decide_pairs,
    euclidean,
    power_of_two,
    product_error,
)
from mnist_kmeans_mlx.engine.differences import NARROW, to_own
from mnist_kmeans_mlx.engine.points import Float64, Labels
from mnist_kmeans_mlx.engine.ways import Compared, ComparedSparse, comparing
from mnist_kmeans_mlx.threads import scratch

# Bytes of float64 rows, or of their distances, that a core works on at once, in its cache. With
# fewer, threads wait for the interpreter.
BLOCK = 1 << 21
# Below this share of what the product adds and subtracts, cancellation has cost it six digits.
CANCELLED = 1e-6
# Between these float32 holds squares of centres, and of rows a good deal farther off.
NEAR, FAR = 1e-10, 1e10
# Squares in float32 that are added before float64 goes on.
FLOAT32_TERMS = 256
# With a smaller mean of them, too many may have been too small.
LEAST_SQUARE = 1e-30
# Smaller numbers are no infinity in float32.
HELD = 1e38
# To bring so few rows and the centres to float32 takes longer than to compare them in float64.
FEW = 3


class Nearest:
    """Centres, ready to be compared with any rows.

    Parameters
    ----------
    centers : ndarray of shape (k, d), float64
        Finite.
    device : Device
        Where rows and centres are multiplied.
    """

    def __init__(self, centers: Float64, device: Device) -> None:
        self.centers, self.device = centers, device
        self._made: dict[type[Compared], Compared] = {}

    def _compared(self, n: int) -> Compared:
        """The centres as `n` dense rows are compared with."""
        k, d = self.centers.shape
        kind = comparing(self.device, n, d, k)
        if kind not in self._made:
            self._made[kind] = kind(self.device, self._moved_centers)
        return self._made[kind]

    @cached_property
    def _moved_centers(self) -> Float64:
        """The centres in the frame of both, and with this the frame."""
        centers = self.centers
        d = centers.shape[1]
        origin, largest = _middle(centers), float(np.abs(centers).max())
        reach = float(np.abs(centers - origin).max())
        # Centres around zero, such as pixels, stay where they are: to move rows costs a pass.
        if largest <= 4 * reach:
            origin, reach = np.zeros(d), largest
        self._origin = origin if origin.any() else None
        self._scale = 1.0
        if reach and not NEAR < reach < FAR:
            self._scale = power_of_two(reach)
        # What float32 holds is moved with a single rounding.
        self._moves_narrow = self._scale == 1 and largest < HELD
        moved: Float64 = (centers - origin) * self._scale
        return moved

    @cached_property
    def _of_sparse(self) -> ComparedSparse:
        return ComparedSparse(self.centers, self.device)

    def labels(self, rows: Any) -> Labels:
        """The nearest centre of each row in float64 arithmetic; of equally near ones the first.

        Parameters
        ----------
        rows : ndarray of shape (n, d) or CSR matrix
            Numbers of any real dtype; sparse ones are finite.

        Returns
        -------
        ndarray of shape (n,), int32

        Raises
        ------
        ValueError
            There is NaN or infinity among the rows, which takes no pass over them to see.
        """
        if issparse(rows):
            return self._of_sparse.labels(rows)[0]
        n, k = rows.shape[0], len(self.centers)
        if k == 1 or n <= FEW:
            _check_finite(rows)
            return np.zeros(n, dtype=np.int32) if k == 1 else self._labels_of_few(rows)
        labels, compared = np.empty(n, dtype=np.int32), self._compared(n)

        def decide(part: slice) -> None:
            block = rows[part]
            label, doubtful, close = compared.nearest(self._moved(block))
            if len(doubtful) > 0:
                some, (row, center) = block[doubtful], np.nonzero(close)
                _check_finite(some)  # what is not a number is always in doubt
                label[doubtful] = decide_pairs(some, row, self.centers, center)
            labels[part] = label

        compared.each(decide, n)
        return labels

    def _labels_of_few(self, rows: npt.NDArray[Any]) -> Labels:
        """The same of so few rows that products are made in float64."""
        centers, wide = self.centers, rows.astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):
            norms_sq, own = np.vecdot(centers, centers), np.vecdot(wide, wide)
            scores = norms_sq - 2 * product(wide, centers.T)
            error = product_error(centers.shape[1], own, norms_sq.max())
            # Whatever is not a number may be nearest.
            row, center = np.nonzero(~(scores > (scores.min(axis=1) + 2 * error)[:, None]))
        return decide_pairs(rows, row, centers, center)

    def costs(self, rows: Any, labels: Labels) -> Float64:
        """Squared distances ``(n,)`` of rows to the centres of their labels, in float64.

        In the units of the rows squared; infinite where float64 does not reach.
        """
        if issparse(rows):
            return csr.distances_sq(csr.merged(rows), self.centers, labels, self.device.host)
        n, d = rows.shape
        costs = np.empty(n)

        def measure(part: slice) -> None:
            costs[part] = to_own(rows[part], self.centers, labels[part])

        self._each(measure, n, BLOCK // (8 * d) if d > NARROW else BLOCK // 8)
        return costs

    def inertia(self, rows: Any, labels: Labels, weights: Float64 | None = None) -> float:
        """Weighted sum of `costs`.

        Of rows and centres in float32 differences and a few squares at a time are float32 as well,
        as scikit-learn's are; their sums are float64.
        """
        if weights is not None or issparse(rows):
            costs = self.costs(rows, labels)
            with np.errstate(over="ignore"):
                return float(costs.sum() if weights is None else (costs * weights).sum())
        if rows.dtype == np.float32 and self._in_float32 is not None:
            found = self._summed(rows, labels, self._in_float32)
            if LEAST_SQUARE * rows.size < found < np.inf:
                return found
        return self._summed(rows, labels, self.centers)

    @cached_property
    def _in_float32(self) -> npt.NDArray[np.float32] | None:
        """The centres in float32, if it holds them and the squares of what is near."""
        with np.errstate(over="ignore"):
            narrow = self.centers.astype(np.float32)
        fits = NEAR < np.abs(self.centers).max() < FAR and np.array_equal(narrow, self.centers)
        return narrow if fits else None

    def _summed(self, rows: npt.NDArray[Any], labels: Labels, centers: npt.NDArray[Any]) -> float:
        """Sum of squared differences, made in the precision of the centres."""
        (n, d), dtype, sums = rows.shape, centers.dtype, {}

        def measure(part: slice) -> None:
            difference = scratch("difference", (part.stop - part.start, d), dtype)
            # "clip" writes to `out`, rather than to a copy of it.
            centers.take(labels[part], axis=0, out=difference, mode="clip")
            with np.errstate(over="ignore"):
                np.subtract(rows[part], difference, out=difference)
                sums[part.start] = _sum_of_squares(difference.reshape(-1))

        self._each(measure, n, BLOCK // (dtype.itemsize * d))
        return sum(sums[start] for start in sorted(sums))

    def _each(self, function: Callable[[slice], None], n: int, step: int) -> None:
        """Call a function with slices of `n` rows, which threads share where there are several."""
        parts = slices(n, max(1, step))
        if len(parts) == 1:
            function(parts[0])
        else:
            self.device.host.map(function, parts)

    def distances(self, rows: Any, out: npt.NDArray[Any]) -> None:
        """Euclidean distances of each row to each centre, in float64 on the host.

        They are answers rather than steps to one, so they are the same on every device. A product
        in float32 would have lost the distance of two neighbours before float64 could look again.

        Parameters
        ----------
        rows : ndarray of shape (n, d) or CSR matrix
            Finite numbers of any real dtype.
        out : ndarray of shape (n, k)
            Takes the distances, in the units of the rows. Where row and centre are equal, they are
            exactly zero.

        Raises
        ------
        ValueError
            A distance is larger than the dtype of `out` holds.
        """
        if issparse(rows):
            self._of_sparse.distances(rows, out)
            _check_held(out)
            return
        k, d = self.centers.shape
        origin = _middle(self.centers)
        moved = self.centers - origin
        with np.errstate(over="ignore"):
            norms_sq = np.vecdot(moved, moved)
        factors, longest = np.column_stack([-2 * moved, norms_sq, np.ones(k)]).T, norms_sq.max()

        def measure(part: slice) -> None:
            block, found = rows[part], out[part]
            with np.errstate(over="ignore", invalid="ignore"):
                shifted = scratch("shifted", (len(block), d + 2), np.float64)
                np.subtract(block, origin, out=shifted[:, :-2])
                shifted[:, -2] = 1
                shifted[:, -1] = own = dots(shifted[:, :-2], shifted[:, :-2])
                squared = scratch("squared", found.shape, np.float64)
                product(shifted, factors, out=squared)
                # What left the range of squares, or lost its digits where these cancelled.
                least = CANCELLED * (own + longest)
                least[~((own + longest > TINY) & (own + longest < HUGE))] = np.inf
                lost = np.flatnonzero(~(squared > least[:, None]))
                np.sqrt(squared, out=found, casting="same_kind")
                for some in slices(len(lost), len(block)):
                    row, center = np.divmod(lost[some], k)
                    found[row, center] = euclidean(block[row], self.centers[center])
                # No distance is longer than the longest row and centre together.
                if len(lost) > 0 or not 2 * np.sqrt(own.max() + longest) < np.finfo(out.dtype).max:
                    _check_held(found)

        self._each(measure, rows.shape[0], BLOCK // (8 * max(k, d)))

    def _moved(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Rows in the frame of the centres; in float32 they are infinite if too far out."""
        with np.errstate(over="ignore"):
            if self._origin is None and self._scale == 1:
                return block  # rounded to float32 where it is multiplied
            if not self._moves_narrow or not np.can_cast(block.dtype, np.float32):
                block = block.astype(np.float64, copy=False)
            else:
                block = block.astype(np.float32, copy=False)
            if self._origin is not None:
                block = block - self._origin.astype(block.dtype)
            if self._scale != 1:
                block = block * self._scale
            return block.astype(np.float32, copy=False)


def _sum_of_squares(flat: npt.NDArray[Any]) -> float:
    """In float64, but for `FLOAT32_TERMS` at a time of float32."""
    if flat.dtype == np.float64:
        return float(np.einsum("i,i->", flat, flat))
    stop = len(flat) - len(flat) % FLOAT32_TERMS
    wide, rest = flat[:stop].reshape(-1, FLOAT32_TERMS), flat[stop:].astype(np.float64)
    return float(dots(wide, wide).sum(dtype=np.float64) + rest @ rest)


def _check_finite(rows: npt.NDArray[Any]) -> None:
    if not np.isfinite(rows).all():
        raise ValueError("Input X contains NaN or infinity.")


def _check_held(distances: npt.NDArray[Any]) -> None:
    """Refuse distances that are no numbers of their dtype."""
    if not np.isfinite(distances).all():
        raise ValueError(
            f"Distances of these rows to the centers are larger than {distances.dtype} holds, "
            f"{np.finfo(distances.dtype).max:.2g}: divide X and the centers by a large number."
        )


def _middle(centers: Float64) -> Float64:
    """The middle of the range of centres, as float32 holds it where it can."""
    middle: Float64 = centers.min(axis=0) / 2 + centers.max(axis=0) / 2
    if np.abs(middle).max() < HELD:
        middle = middle.astype(np.float32).astype(np.float64)
    return middle
