import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnist_kmeans_mlx.engine.exact import BLOCK, Exact, joined

values = st.lists(st.floats(-1, 1), min_size=1, max_size=60)


@given(values=values, exponent=st.integers(-300, 280), seed=st.integers(0, 99))
def test_any_order_gives_the_same_bits(values, exponent, seed):
    a = np.array(values) * 2.0**exponent
    exact = Exact(float(np.abs(a).max()), len(a))
    rng = np.random.default_rng(seed)
    shuffled, cut = rng.permutation(a), rng.integers(0, len(a) + 1)
    pieces = exact.sums(shuffled[:cut]) + exact.sums(shuffled[cut:])
    assert exact.sums(a).tobytes() == pieces.tobytes()
    # The parts below the second unit are all that is lost.
    lost = len(a) * float(np.abs(a).max()) * 2.0**-80
    assert joined(exact.sums(a)) == pytest.approx(math.fsum(a), rel=1e-15, abs=lost)


def test_long_sums_and_sums_of_few_among_many():
    a = np.random.default_rng(0).normal(size=3 * BLOCK + 7)
    exact = Exact(float(np.abs(a).max()), len(a))
    assert joined(exact.sums(a)) == math.fsum(a)
    # Taken away again, nothing stays behind.
    some = exact.sums(a) - exact.sums(a[5:]) - exact.sums(a[:5])
    assert (some == 0).all()
    np.testing.assert_array_equal(exact.split(a).sum(axis=0), a)
    assert np.abs(exact.rough(a) - a).max() <= exact.split(a)[1].max()


def test_whole_numbers_need_one_part():
    a = np.array([3.0, -255.0, 7.0])
    exact = Exact(255, 10**6, whole=True)
    assert exact.width == 1
    assert exact.sums(a).tolist() == [-245.0]
    assert exact.split(a)[0].tobytes() == exact.rough(a).tobytes() == a.tobytes()
    assert Exact(2.0**40, 10**6, whole=True).width == 2


@pytest.mark.parametrize("bound", [0.0, 5e-324, 1e-310])
def test_nothing_and_next_to_nothing(bound):
    exact = Exact(bound, 4)
    assert joined(exact.sums(np.full(3, bound))) == 3 * bound
    assert joined(exact.sums(np.zeros(0))) == 0
