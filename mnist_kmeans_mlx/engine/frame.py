"""The frame of the rows: where zero is, and how large is one.

Distances do not change when all rows and centres move or grow together. Rows are therefore compared
as ``(rows - origin) * scale``: the origin is close to where most are, the scale a power of two that
brings values near one, so that neither an offset of 1000 nor a scale of 1e-30 costs precision.
Whole numbers stay whole numbers (an origin of whole numbers, a scale of one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.engine.decision import power_of_two

Float64 = npt.NDArray[np.float64]

# Every integer up to here is a float32, so sums that stay below are exact in any order.
EXACT_FLOAT32 = 1 << 24
# A few rows tell whether the mean of a sample is where most are, rather than more than so many
# times farther off than most reach.
FEW, DISTANT = 64, 1024
# Numbers up to here are near one.
NEAR = 1024


@dataclass(frozen=True)
class Frame:
    """Origin and scale of rows, and what is known of these.

    Attributes
    ----------
    origin : ndarray of shape (d,), float64
    scale : float
    limit : float
        Upper bound of the absolute values of the moved and scaled rows.
    depth : float
        How many binary digits usual numbers lie below `limit`, in the narrowest feature.
    integer : bool
        Whether float32 holds the moved rows exactly, as whole numbers.
    moves_narrow : bool
        Whether float32 holds the rows before they are moved, and moves them with one rounding.
    """

    origin: Float64
    scale: float
    limit: float
    depth: float
    integer: bool
    moves_narrow: bool

    @classmethod
    def about_zero(cls, d: int, reach: Float64, whole: bool) -> Frame:
        """The frame of sparse rows, which stay where they are: moved, they would be dense.

        Parameters
        ----------
        d : int
            Number of features.
        reach : ndarray of float64
            The largest absolute value of each feature, or of all the largest and the smallest.
        whole : bool
            Whether all values are whole numbers.
        """
        limit = float(reach.max(initial=0))
        integer = whole and limit <= EXACT_FLOAT32
        # Where they are near one already, to scale them costs a copy.
        scale = 1.0 if integer or limit == 0 or 0.5 <= limit < NEAR else power_of_two(limit)
        usual = float(reach[reach > 0].min(initial=limit))
        return cls(
            origin=np.zeros(d),
            scale=scale,
            limit=limit * scale,
            depth=float(np.log2(limit) - np.log2(usual)) if limit else 0.0,
            integer=integer,
            moves_narrow=integer,
        )

    @classmethod
    def of(
        cls, low: Float64, high: Float64, whole: bool, sample: Float64, is_narrow: bool
    ) -> Frame:
        """The frame of rows.

        Parameters
        ----------
        low, high : ndarray of shape (d,), float64
            The range of each feature.
        whole : bool
            Whether all values are whole numbers.
        sample : ndarray of shape (m, d), float64
            Some of the rows.
        is_narrow : bool
            Whether they are given as float32 or less.
        """
        zero = np.zeros(len(low))
        origin, usual = _middle(sample)
        origin = np.clip(origin, low, high)
        integer = whole and _reach(low, high, np.rint(origin)) <= EXACT_FLOAT32
        if integer:
            origin = np.rint(origin)
            # Rows near zero, such as pixels, stay where they are: moving them costs a pass.
            if _reach(low, high, zero) <= 2 * _reach(low, high, origin):
                origin = zero
        elif is_narrow:
            origin = origin.astype(np.float32).astype(np.float64)
        limit = _reach(low, high, origin)
        if not np.isfinite(limit):  # a range that is larger than the largest number
            origin, limit = zero, _reach(low, high, zero)
        scale = 1.0 if integer or limit == 0 else power_of_two(limit)
        near = _reach(low, high, zero) <= EXACT_FLOAT32
        return cls(
            origin=origin,
            scale=scale,
            limit=limit * scale,
            depth=max(0.0, np.log2(limit) - np.log2(usual)) if 0 < usual < limit else 0.0,
            integer=integer,
            moves_narrow=near if integer else is_narrow and 1e-30 < limit < 1e30,
        )


def _middle(sample: Float64) -> tuple[Float64, float]:
    """Where most rows of a sample are about, and the least that a usual one reaches from there.

    In each feature the mean, unless a few rows are so far off that the others lie nowhere near it.
    """
    few = sample[:: -(-len(sample) // FEW)]
    median = np.sort(few, axis=0)[len(few) // 2]
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.sort(np.abs(few - median), axis=0)[3 * len(few) // 4]
        reach[~np.isfinite(reach)] = 0
        mean = sample.mean(axis=0)
        near = np.abs(mean - median) <= np.where(reach > 0, DISTANT * reach, reach.max())
    return np.where(near, mean, median), float(reach[reach > 0].min(initial=reach.max()))


def _reach(low: Float64, high: Float64, origin: Float64) -> float:
    """Largest distance from the origin in any feature."""
    with np.errstate(over="ignore"):
        return float(np.max(np.maximum(high - origin, origin - low), initial=0.0))
