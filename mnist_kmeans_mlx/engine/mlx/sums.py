"""Exact sums on the device: numbers as slices of few bits, which float32 adds without rounding.

A product of whole numbers of a few bits with a one-hot matrix is exact in float32 as long as sums
stay below 2^24, whatever the order in which a device adds. Numbers on the grid of `Points.row_sums`
are such whole numbers after each other, like the digits of a decimal fraction.
"""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.engine.exact import Exact
from mnist_kmeans_mlx.engine.frame import EXACT_FLOAT32
from mnist_kmeans_mlx.engine.points import Float32, Float64

Int64 = npt.NDArray[np.int64]

# Binary digits of a float32, and those of a sum that the host keeps in one int64.
PART, HALF = 24, 24


class Slices:
    """How numbers on a grid are cut into slices.

    Parameters
    ----------
    exact : Exact
        The grid.
    bits : int
        Of a slice: 12, or 8 where a device keeps no more of what it multiplies.

    Attributes
    ----------
    rows : int
        Of so many slices float32 holds the sum.
    width : int
        Into how many whole numbers a sum is put together.
    """

    def __init__(self, exact: Exact, bits: int) -> None:
        digits = PART * 2
        if exact.whole:
            digits = bits if exact.bound <= 2**bits else int(exact.bound).bit_length()
        self._bits, self._last = bits, exact.last
        # Fractions are brought to where float32 holds the least of their digits.
        self._scale = 0 if exact.whole else exact.last + digits
        count, last = -(-digits // bits), exact.last - self._scale
        self._exponents = [last + bits * place for place in reversed(range(count))]
        # A slice is rounded to the nearest: as large as its number of bits allows, or 1 more.
        largest = min(exact.bound, 2**bits) if exact.whole else 2**bits
        self.rows = int(EXACT_FLOAT32 // max(1, largest))
        # After so many slices nothing is left of the first float32 but what the second continues.
        self._second = PART // bits
        self._per_half = HALF // bits
        self.width = -(-count // self._per_half)

    def parts(self, a: Float64) -> list[Float32]:
        """Numbers as two float32 each, which together are these on the grid, scaled."""
        rounder = np.ldexp(1.5, 52 + self._last - self._scale)
        a = np.ldexp(a, -self._scale) if self._scale else a
        first = a.astype(np.float32)
        second = ((a + rounder) - rounder) - first
        return [first, second.astype(np.float32)]

    def split(self, parts: Sequence[mx.array]) -> list[mx.array]:
        """Slices, as whole numbers in float32, of numbers that are given as their parts."""
        rest = parts[0]
        found: list[mx.array] = []
        for place, exponent in enumerate(self._exponents):
            if place == self._second and len(parts) > 1:
                rest = rest + parts[1]
            if exponent == 0:  # the last of whole numbers, of which nothing is left
                return [*found, rest]
            found.append(mx.round(rest * 2.0**-exponent))
            rest = rest - found[-1] * 2.0**exponent
        return found

    def whole(self, a: Float64) -> Int64:
        """Numbers ``(...)`` as whole numbers ``(width, ...)`` that `value` puts together."""
        units = np.rint(np.ldexp(a, -self._last)).astype(np.int64)
        if self.width == 1:
            return units[None]
        high = units >> HALF
        return np.stack([high, units - (high << HALF)])

    def joined(self, sums: Int64) -> Int64:
        """Sums of slices ``(count, ...)`` as ``(width, ...)``."""
        count, each = len(self._exponents), self._per_half
        if count == 1:
            return sums
        halves = []
        for stop in range(count, 0, -each):
            half = np.zeros_like(sums[0])
            for place in range(max(0, stop - each), stop):
                half = (half << self._bits) + sums[place]
            halves.append(half)
        return np.stack(halves[::-1])

    def value(self, sums: Int64) -> Float64:
        """What sums ``(width, ...)`` stand for, rounded once."""
        low = np.ldexp(sums[-1].astype(np.float64), self._last)
        if self.width == 1:
            return low
        total: Float64 = np.ldexp(sums[0].astype(np.float64), self._last + HALF) + low
        return total
