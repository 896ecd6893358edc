"""Sums that do not depend on their order.

Numbers are rounded to whole multiples of one unit, coarse enough that float64 adds all of them
without error; what that leaves of each is rounded to a second, finer unit and summed apart. Neither
sum is ever rounded, so threads, ranks and changes one by one all come to the same bits.

Reference: J. Demmel and H. D. Nguyen, *Fast reproducible floating-point summation*, ARITH 2013.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.distributed import Group

Float64 = npt.NDArray[np.float64]

EXACT_FLOAT64 = float(1 << 53)
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

    Attributes
    ----------
    width : int
        Number of sums that stand for one: 1 if whole numbers cannot be rounded anyway, 2 otherwise.

    Notes
    -----
    Two units resolve ``bound * n**2 * 2**-105``: 66 binary digits of the largest of a million
    numbers. What lies below is dropped, of each number by itself.
    """

    def __init__(self, bound: float, n: int, whole: bool = False) -> None:
        self.width = 1 if whole and n * bound <= EXACT_FLOAT64 else 2
        # Adding and taking away 1.5 * 2**52 units rounds to a unit: W. Kahan's trick.
        terms = max(2, int(n).bit_length())
        coarse = int(np.frexp(bound)[1]) + terms - 53
        fine = coarse + terms - 53
        self._units = np.array([0] if self.width == 1 else [coarse, fine])
        self._coarse, self._fine = (np.ldexp(1.5, 52 + unit) for unit in (coarse, fine))

    def split(self, a: Float64) -> Float64:
        """The parts of numbers, shape ``(width, *a.shape)``, that are summed each by itself."""
        if self.width == 1:
            return a[None]
        parts = np.empty((2, *a.shape))
        coarse, fine = parts
        np.add(a, self._coarse, out=coarse)
        coarse -= self._coarse
        np.subtract(a, coarse, out=fine)
        fine += self._fine
        fine -= self._fine
        return parts

    def rough(self, a: Float64) -> Float64:
        """The first part of numbers alone, where half the digits of a sum are enough."""
        if self.width == 1:
            return a
        coarse = a + self._coarse
        coarse -= self._coarse
        return coarse

    def sums(self, a: Float64) -> Float64:
        """Sums of the parts of a vector, shape ``(width,)``."""
        if self.width == 1:
            return a.sum(keepdims=True)
        total = np.zeros(2)
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
    return sums[0] if len(sums) == 1 else sums[0] + sums[1]
