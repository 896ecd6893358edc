"""A chart as data: the page, SVG, PNG and PDF draw the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """One of the two directions of a chart.

    Attributes
    ----------
    label : str
        What it is, with its unit.
    low, high : float
    at : sequence of float
        Where its ticks are.
    write : callable
        A tick as text.
    log : bool
    """

    label: str
    low: float
    high: float
    at: Sequence[float]
    write: Callable[[float], str] = "{:g}".format
    log: bool = False

    def place(self, value: float) -> float:
        """Where a value lies, in percent."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(part) for part in (value, low, high))
        return 100 * (value - low) / (high - low)


@dataclass(frozen=True)
class Series:
    """Points that belong together; with `band`, the least and the most at each of them."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    band: Sequence[tuple[float, float, float]] = ()
    marks: bool = True
    faint: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over two axes; `marked` are vertical lines, with what they say."""

    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    marked: Sequence[tuple[float, str]] = ()


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round numbers from at or below `low` to at or above `high`.

    Examples
    --------
    >>> ticks(0.58, 0.92)
    [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round numbers as `ticks` does, for a logarithmic axis.

    Examples
    --------
    >>> log_ticks(30, 400)
    [20.0, 50.0, 100.0, 200.0, 500.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) < 5 else (1,)
    found = [step * 10.0**power for power in powers for step in steps]
    first = max(i for i, at in enumerate(found) if at <= low)
    return found[first : 1 + next(i for i, at in enumerate(found) if at >= high)]
