"""Threads share work, and what fails in one ends the others."""

import threading

import numpy as np
import pytest

from mnist_kmeans_mlx.threads import Helpers

MANY = 2_000_000


def test_results_come_in_order():
    for n in (0, 1, 3):
        helpers = Helpers(n)
        assert helpers.map(lambda x: x * x, range(50)) == [x * x for x in range(50)]
        assert helpers.map(lambda x: x, []) == []
        assert helpers.idle == n


def test_idle_threads_help():
    meeting = threading.Barrier(3, timeout=30)
    threads = Helpers(2).map(lambda _: (meeting.wait(), threading.get_ident())[1], range(3))
    assert len(set(threads)) == 3


def test_busy_threads_are_not_waited_for():
    helpers = Helpers(1)
    meeting = threading.Barrier(2, timeout=30)

    def outer(x):
        meeting.wait()
        inner = helpers.map(lambda y: (10 * x + y, threading.get_ident()), range(5))
        meeting.wait()
        return [value for value, _ in inner], {thread for _, thread in inner}

    (first, on_first), (second, on_second) = helpers.map(outer, range(2))
    assert (first, second) == ([0, 1, 2, 3, 4], [10, 11, 12, 13, 14])
    assert len(on_first) == len(on_second) == 1
    assert on_first != on_second


def test_a_thread_that_is_done_helps_the_other():
    helpers, caller = Helpers(1), threading.get_ident()
    meeting = threading.Barrier(2, timeout=30)

    def outer(_):
        meeting.wait()
        if threading.get_ident() != caller:
            return 0
        while helpers.idle == 0:
            pass
        return len(set(helpers.map(lambda _: (meeting.wait(), threading.get_ident())[1], range(2))))

    assert 2 in helpers.map(outer, range(2))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_an_error_ends_the_others_wherever_they_are(failing, error):
    helpers = Helpers(1)
    meeting = threading.Barrier(2, timeout=30)
    caller, steps = threading.get_ident(), []

    def outer(_):
        meeting.wait()
        if (threading.get_ident() == caller) == (failing == "caller"):
            raise error("this")
        return helpers.map(steps.append, range(MANY))

    with pytest.raises(error, match="this"):
        helpers.map(outer, range(2))
    assert len(steps) < MANY
    assert helpers.idle == 1
    assert helpers.map(abs, range(3)) == [0, 1, 2]


def test_what_numpy_warns_of_is_the_callers_choice():
    meeting = threading.Barrier(2, timeout=30)

    def divide(x):
        meeting.wait()
        return np.float64(x) / np.zeros(1)[0]

    with np.errstate(divide="ignore"):
        assert Helpers(1).map(divide, [1, 1]) == [np.inf, np.inf]
