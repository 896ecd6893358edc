"""Exact arithmetic, for what float64 does not hold."""

import math
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np


def exact_distances_sq(rows, centers):
    """Fractions of shape (n, k)."""
    rows, centers = ([[Fraction(float(x)) for x in row] for row in a] for a in (rows, centers))
    return [
        [sum((x - c) ** 2 for x, c in zip(row, center, strict=True)) for center in centers]
        for row in rows
    ]


def nearest_float(value, *, root=False):
    """A fraction, or its root, as the nearest float."""
    context = Context(prec=40, Emax=10**6, Emin=-(10**6))
    number = context.divide(Decimal(value.numerator), Decimal(value.denominator))
    return float(context.sqrt(number) if root else number)


def exact_answers(rows, centers):
    """Labels, distances and inertia of rows, each rounded once."""
    distances_sq = exact_distances_sq(rows, centers)
    nearest = [min(row) for row in distances_sq]
    return {
        "distances": np.array([[nearest_float(v, root=True) for v in row] for row in distances_sq]),
        "inertia": -nearest_float(sum(nearest)),
    }


def are_nearest(rows, centers, labels):
    """Whether no centre is nearer than that of the label, but for what float64 cannot tell."""
    distances_sq = exact_distances_sq(rows, centers)
    slack = 1 + Fraction(1, 10**12)
    return [row[label] <= min(row) * slack for row, label in zip(distances_sq, labels, strict=True)]


def beyond_float64(rows):
    """Whether squares of the rows leave the range in which float64 keeps its digits.

    Or whether distances are larger than float32, of which the centres are.
    """
    largest = float(np.max(np.abs(np.asarray(rows, dtype=np.float64)), initial=0))
    if largest == 0:
        return False
    if getattr(rows, "dtype", None) == np.float32 and largest > 1e38:
        return True
    return not -500 < math.frexp(largest)[1] < 500
