"""Sums that do not depend on their order.

Numbers are rounded to whole multiples of one unit, coarse enough that float64 adds all of them
without error; what that leaves of each is rounded to a second, finer unit and summed apart, and so
on. No sum is ever rounded, so threads, ranks and changes one by one all come to the same bits.

Reference: J. Demmel and H. D. Nguyen, *Fast reproducible floating-point summation*, ARITH 2013.
"""

from __future__ import annotations

from functools import reduce

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.distributed import Group

Float64 = npt.NDArray[np.float64]

EXACT_FLOAT64 = float(1 << 53)
# Binary digits that a sum keeps of a usual number, at least.
DIGITS = 40
# Numbers that are split at once: with what they are split into they stay in a core's cache.
BLOCK = 1 << 15


class Exact:
    """How to sum up to `n` numbers of at most a given size.

    Parameters
    ----------
    bound : float
        Largest absolute value.
    n : int
        Most numbers in a sum. The same for all sums that are to be added or compared.
    whole : bool, default=False
        Whether all are whole numbers.
    depth : float, default=0
        How many binary digits a usual number lies below the largest.
    grid : int, optional
        Number of binary digits of the largest that are kept: what lies below is rounded off.

    Attributes
    ----------
    whole : bool
        Whether whole numbers are summed, none of which is rounded.
    width : int
        Number of sums that stand for one.
    bound : float
    last : int
        Of the last unit, the power of two.

    Notes
    -----
    Two units resolve ``bound * n**2 * 2**-105``: 66 binary digits of the largest of a million
    numbers. What lies below is dropped, of each number by itself. More units are taken where a
    usual number would keep less than `DIGITS` of its own.
    """

    def __init__(
        self,
        bound: float,
        n: int,
        whole: bool = False,
        depth: float = 0,
        grid: int | None = None,
    ) -> None:
        # Adding and taking away 1.5 * 2**52 units rounds to a unit: W. Kahan's trick.
        terms = max(2, int(n).bit_length())
        first, each = int(np.frexp(bound)[1]) + terms - 53, 53 - terms
        self.whole = whole and n * bound <= EXACT_FLOAT64
        if self.whole:
            self._units = np.zeros(1, dtype=np.intp)
        elif grid is not None:
            last = max(int(np.frexp(bound)[1]) - grid, -1074)
            self._units = np.arange(first, last, -each) if first > last else np.zeros(0, np.intp)
            self._units = np.append(self._units, last)
        else:
            wanted = max(2, int(np.ceil((DIGITS + depth) / each)))
            # Below the least number that float64 holds there is nothing to resolve.
            self._units = first - each * np.arange(max(2, min(wanted, (first + 1074) // each)))
        self.bound, self.width, self.last = bound, len(self._units), int(self._units[-1])
        self._rounders = np.ldexp(1.5, 52 + self._units)

    @property
    def unit(self) -> float:
        """What numbers are rounded to a multiple of; zero if they are not rounded."""
        return 0.0 if self.whole else 2.0**self.last

    def split(self, a: Float64) -> Float64:
        """The parts of numbers, shape ``(width, *a.shape)``, that are summed each by itself."""
        if self.whole:
            return a[None]
        parts = np.empty((self.width, *a.shape))
        rest, last = a, parts[-1]
        for part, rounder in zip(parts[:-1], self._rounders[:-1], strict=True):
            np.add(rest, rounder, out=part)
            part -= rounder
            rest = np.subtract(rest, part, out=last)
        np.add(rest, self._rounders[-1], out=last)
        last -= self._rounders[-1]
        return parts

    def rough(self, a: Float64) -> Float64:
        """The first part of numbers alone, where half the digits of a sum are enough."""
        if self.whole:
            return a
        coarse = a + self._rounders[0]
        coarse -= self._rounders[0]
        return coarse

    def sums(self, a: Float64) -> Float64:
        """Sums of the parts of a vector, shape ``(width,)``."""
        if self.whole:
            return a.sum(keepdims=True)
        total = np.zeros(self.width)
        for start in range(0, len(a), BLOCK):
            total += self.split(a[start : start + BLOCK]).sum(axis=1)
        return total

    def over(self, group: Group, sums: Float64) -> Float64:
        """Sums of parts, shape ``(width, ...)``, of all ranks together."""
        if group.size == 1:
            return sums.copy()
        # In whole units, which any network adds exactly.
        units = self._units.reshape(-1, *[1] * (sums.ndim - 1))
        whole = group.sum(np.ldexp(sums, -units).astype(np.int64))
        total: Float64 = np.ldexp(whole.astype(np.float64), units)
        return total


def joined(sums: Float64) -> Float64:
    """What sums of parts, shape ``(width, ...)``, stand for: rounded here and nowhere else."""
    return reduce(np.add, sums[::-1])
