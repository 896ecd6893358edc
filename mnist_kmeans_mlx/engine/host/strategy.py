"""How the host's way goes about rows of a shape: which copies and bounds pay.

| Rows and centres | E-step |
| --- | --- |
| few centres | bounds of the nearest and the next: a comparison costs next to nothing |
| at most half as many centres as features, many rows | a sketch that turns to the centres |
| a comparison, of rows or sketches, is wide | and bounds of the distance to each centre |
| neither, and many centres | those that moved farthest first |
| anything else, or no memory for these | bounds of the nearest and the next |

What half or twice of a constant costs: `scripts/bench_strategy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Widths of sketches, of which the narrowest is taken that captures enough, and what each is at most
# of the features.
WIDTHS, SHARE = (32, 64, 96, 128), 1 / 2
# With fewer centres to compare all of a row takes no longer than to look it up.
FEWEST_CENTERS = 6
# With fewer rows a sketch is not worth its axes; they are also found in so many.
FEWEST_ROWS = 4096
# Iterations that find the axes; and how many a fit usually takes, of which rows are compared in
# each with all centres where there is no sketch.
ITERATIONS, USUAL = 3, 20
# Width to which leading axes fill up those that turn.
TURNING_WIDTH = 96
# A comparison that is wider takes longer than looking a bound up.
WIDE = 128
# From more centres on, those that moved farthest are compared first: one in so many.
MANY, MOVERS = 128, 8


@dataclass(frozen=True)
class Strategy:
    """What the host's way keeps of rows, and how it compares them.

    Attributes
    ----------
    turning : int
        Most columns of a sketch that turns to the centres; zero for none.
    fixed : int
        Most leading axes in it that stay.
    each : bool
        Whether bounds are kept of the distance to each centre.
    movers : int
        How many centres that moved farthest are compared first.
    nbytes : int
        What one restart keeps of all rows.
    """

    turning: int
    fixed: int
    each: bool
    movers: int
    nbytes: int

    @classmethod
    def of(cls, n: int, d: int, k: int, keep: bool, spare: int) -> Strategy:
        """For `n` rows of `d` features and `k` centres, with so many bytes to spare.

        Without `keep` there are no copies of the rows.
        """
        turning = max(k, TURNING_WIDTH) + 2 if keep and n >= FEWEST_ROWS and k <= SHARE * d else 0
        each = (turning or d) > WIDE
        # With label, norm and two bounds.
        nbytes = n * (4 * (4 + turning) + (2 * k if each else 0))
        nbytes += sketch_bytes(n, d) if turning else 0
        if k < FEWEST_CENTERS or nbytes > spare:
            turning, each, nbytes = 0, False, 16 * n
        movers = k // MOVERS if not turning and not each and k > MANY else 0
        return cls(turning, max(0, TURNING_WIDTH - k) if turning else 0, each, movers, nbytes)


def sketch_pays(n: int, d: int, k: int) -> bool:
    """Whether a sketch of `n` rows takes less than it saves where these meet `k` centres.

    Counted in products of numbers: to find the axes in a sample, as `Sketch.make` does, and to
    bring all rows onto them; against those of all rows with candidates and centres.
    """
    if n < FEWEST_ROWS or not widths(d):
        return False
    m = widths(d)[-1]
    stretches = ITERATIONS + 2
    narrow, wide = d * d * (FEWEST_ROWS + stretches * m), 2 * stretches * FEWEST_ROWS * d * m
    return bool(min(narrow, wide) + n * d * m < n * d * k * (2 + np.log(k) + USUAL))


def sketch_bytes(n: int, d: int) -> int:
    """What a sketch of `n` rows takes at most."""
    return 4 * n * (widths(d)[-1] + 2) if widths(d) else 0


def widths(d: int) -> list[int]:
    """Widths that a sketch of rows of `d` features may have."""
    return [m for m in WIDTHS if m <= SHARE * d]
