from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mnist_kmeans_mlx.engine.decision import decide_pairs, power_of_two, squared_distances

numbers = st.floats(allow_nan=False, allow_infinity=False)


def exact_square(row, center):
    return sum((Fraction(x) - Fraction(c)) ** 2 for x, c in zip(row, center, strict=True))


@given(pairs=st.lists(st.tuples(numbers, numbers, numbers, numbers), min_size=1, max_size=8))
def test_no_square_overflows_or_vanishes(pairs):
    rows, centers = np.array(pairs)[:, :2], np.array(pairs)[:, 2:]
    fractions, exponents = squared_distances(rows, centers)
    for row, center, fraction, exponent in zip(rows, centers, fractions, exponents, strict=True):
        truth = exact_square(row, center)
        if truth == 0:
            assert fraction == 0
            assert exponent < -10_000
        else:
            found = Fraction(float(fraction)) * Fraction(2) ** int(exponent)
            assert abs(found / truth - 1) < Fraction(1, 10**14)


def test_ordinary_squares_are_what_numpy_makes_of_them():
    rng = np.random.default_rng(0)
    rows, centers = rng.normal(size=(2, 500, 30))
    expected = np.square(rows - centers).sum(axis=1)
    np.testing.assert_array_equal(np.ldexp(*squared_distances(rows, centers)), expected)


@given(
    row=st.lists(numbers, min_size=2, max_size=2),
    centers=st.lists(st.lists(numbers, min_size=2, max_size=2), min_size=1, max_size=5),
)
def test_the_first_of_the_nearest(row, centers):
    k = len(centers)
    [found] = decide_pairs(np.array([row]), np.zeros(k, dtype=int), np.array(centers), np.arange(k))
    squares = [exact_square(row, center) for center in centers]
    least = min(squares)
    # Float64 tells apart what differs by more than its rounding, and equals take the first.
    assert squares[found] <= least * (1 + Fraction(1, 10**13))
    first = next(i for i, center in enumerate(centers) if center == centers[found])
    assert found == first


def test_powers_of_two_stay_within_float64():
    for reach in (5e-324, 1e-310, 1e-160, 0.7, 1.0, 3e10, 1.7e308):
        factor = power_of_two(reach)
        assert 2.0**-75 < reach * factor < 1
        assert np.frexp(factor)[0] == 0.5
