"""Rows on a lattice: numbers that are ``origin + whole / scale``, to within rounding.

Pixels / 255, samples of sound / 32768, prices with cents, any of these less a mean and divided by a
deviation, or whole numbers that came as floats. As whole numbers of one or two bytes they take an
eighth of the memory, and their products and sums are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

# Numbers of a sample that tell the unit, and of these a few that rule most rows out.
SAMPLE, FEW = 1 << 16, 1 << 12
# Most units between the lowest and the highest number.
SPAN = (1 << 16) - 1
# Farther off their points, as a share of the unit, rows would be given other seeds than theirs.
CLOSE = 2.0**-28
# Roundings that a number has suffered: in a difference, a quotient and what these are made of.
ROUNDINGS = 8
DTYPES = (np.uint8, np.int8, np.int16, np.uint16)


@dataclass(frozen=True)
class Lattice:
    """Where the points of a lattice are: ``origin + whole / scale``.

    Attributes
    ----------
    origin : ndarray of shape (d,), float64
    scale : float
    slack : float
        How far a number may lie from its point, as a share of the unit.
    roundoff : float
        How far it may seem to lie off by the rounding of `whole`.
    dtypes : tuple
        In which the whole numbers may be kept, the narrowest first.
    """

    origin: Float64
    scale: float
    slack: float
    roundoff: float
    dtypes: tuple[Any, ...]

    @classmethod
    def guess(cls, sample: Float64, dtype: Any) -> Lattice | None:
        """The lattice that some rows ``(m, d)`` lie on, or None.

        Parameters
        ----------
        sample : ndarray of shape (m, d), float64
        dtype : numpy dtype
            As which the rows were given.
        """
        sample = sample[:: -(-len(sample) // max(8, SAMPLE // sample.shape[1]))]
        largest = float(np.abs(sample).max(initial=0))
        if not (0 < largest < 1e300 and largest > 1e-300):
            return None
        # What float32 has rounded off would be seen in means and seeds: such rows have to lie on
        # their points exactly.
        is_narrow = dtype.kind == "f" and dtype.itemsize < 8
        noise = 0.0 if is_narrow else ROUNDINGS * largest * 2.0**-53
        low = sample.min(axis=0)
        apart = sample - low
        if apart.max() <= SPAN and np.array_equal(sample, np.rint(sample)):
            scale, origin = 1.0, np.zeros(sample.shape[1])
        else:
            numbers = apart.ravel()
            unit = _unit(numbers[:: -(-len(numbers) // FEW)], noise) and _unit(numbers, noise)
            if not unit:
                return None
            scale = _plain(1 / unit, noise / largest)
            origin = low + (apart - np.rint(apart * scale) / scale).mean(axis=0)
        slack = noise * scale
        # About zero if that is a point of it.
        phase = origin * scale - np.rint(origin * scale)
        if np.abs(phase).max() <= slack:
            origin = np.zeros(len(origin))
        whole = np.rint((sample - origin) * scale)
        middle = np.rint(whole.mean(axis=0))
        if np.abs(whole).max() > 2 * np.abs(whole - middle).max():
            origin = origin + middle / scale
            whole -= middle
        least, most = whole.min(), whole.max()
        dtypes = [t for t in DTYPES if np.iinfo(t).min <= least and most <= np.iinfo(t).max]
        roundoff = 4 * 2.0**-53 * largest * scale
        if roundoff > CLOSE or most - least > SPAN or not dtypes:
            return None
        return cls(origin, scale, min(slack + roundoff, CLOSE), roundoff, tuple(dtypes))

    def whole(self, rows: Float64) -> tuple[Float64, float]:
        """Whole numbers of the points that numbers lie on, and how far off these are at most.

        `rows` are overwritten.
        """
        with np.errstate(invalid="ignore", over="ignore"):
            if self.origin.any():
                rows -= self.origin
            if self.scale != 1:
                rows *= self.scale
            whole = np.rint(rows)
            rows -= whole
        return whole, max(float(rows.max(initial=0)), -float(rows.min(initial=0)))


def _unit(values: Float64, noise: float) -> float:
    """What all values, none below zero, are whole multiples of; zero if nothing is."""
    values = np.unique(values)
    values = values[values > 4 * noise]
    if len(values) == 0:
        return 0.0
    steps = np.diff(values, prepend=0.0)
    unit, span = float(steps[steps > 4 * noise].min(initial=np.inf)), float(values[-1])
    # Euclid's algorithm; what is left of multiples of a rounded unit is rounded as often.
    while unit * SPAN >= span:
        times = np.rint(values / unit)
        rest = np.abs(values - times * unit)
        real = rest > 4 * noise * (times + 1)
        if not real.any():
            return _refined(values, unit, noise)
        unit = float(rest[real].min())
    return 0.0


def _refined(values: Float64, unit: float, noise: float) -> float:
    """A unit, fitted to as many of its multiples as it tells apart, and then to twice as many."""
    reach = max(values[0], unit, unit * unit / (16 * noise)) if noise else np.inf
    while True:
        near = values[values <= reach * 1.5]
        times = np.rint(near / unit)
        unit = float(times @ near / (times @ times))
        if reach >= values[-1]:
            return unit
        reach *= 2


def _plain(scale: float, error: float) -> float:
    """A scale, or the whole number or its inverse that it is to within an error."""
    for plain in (np.rint(scale), 1 / max(1.0, np.rint(1 / scale))):
        if abs(plain - scale) <= error * scale:
            return float(plain)
    return scale
