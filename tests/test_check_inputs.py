"""The script that tries inputs of every kind, and that it would notice wrong answers."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from commands import run_script


@pytest.fixture
def verdicts(load_script):
    return load_script("_inputs.verdicts")


@pytest.fixture
def exact(load_script):
    return load_script("_inputs.exact")


def raising(error):
    def call():
        raise error

    return call


def stumbling():
    return {"labels": np.max(np.empty(0))}


def warning():
    return {"labels": np.array([1.0]) / 0}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda: {"labels": np.array([0, 1])}, ""),
        (lambda: {"labels": np.array([1, 0])}, "labels"),
        (lambda: {"labels": np.array([0])}, "labels"),
        (raising(ValueError("is too large.")), "is refused"),
        (warning, "NumPy warns: divide by zero"),
    ],
)
def test_an_answer_is_compared(verdicts, answer, fault):
    case = verdicts.Check("", answer, verdicts.Outcome({"labels": np.array([0, 1])}))
    kind, found = verdicts.verdict(case)
    assert (kind == "right") == (found == "") == (fault == "")
    assert found.startswith(fault)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (raising(ValueError("is too large.")), ""),
        (raising(ValueError("is\ntoo large.")), "not a sentence of ours"),
        (raising(ZeroDivisionError("float division by zero")), "ZeroDivisionError"),
        (stumbling, "not a sentence of ours"),
        (lambda: {"labels": 0}, "is not refused"),
    ],
)
def test_a_refusal_is_judged(verdicts, answer, fault):
    kind, found = verdicts.verdict(verdicts.Check("", answer, verdicts.REFUSED))
    assert (kind == "refused") == (found == "") == (fault == "")
    assert fault in found


def test_its_exact_answers_are_those_of_float64_where_that_holds_them(exact):
    rows = oracle.make_rows("normal", 30, 4, seed=0)
    expected = np.sqrt(oracle.distances_sq(rows, rows[:3]))
    found = exact.exact_answers(rows, rows[:3])
    np.testing.assert_allclose(found["distances"], expected, rtol=1e-14)
    np.testing.assert_allclose(found["inertia"], -np.square(expected.min(axis=1)).sum())
    assert all(exact.are_nearest(rows, rows[:3], expected.argmin(axis=1)))
    assert not all(exact.are_nearest(rows, rows[:3], expected.argmax(axis=1)))


def test_exact_answers_reach_beyond_float64(exact):
    far = exact.exact_answers(np.array([[3e200, 4e200], [3e-200, 4e-200]]), np.zeros((1, 2)))
    np.testing.assert_allclose(far["distances"], [[5e200], [5e-200]], rtol=1e-15)
    assert exact.nearest_float(Fraction(10) ** 400, root=True) == 1e200


@pytest.mark.slow
def test_no_input_is_answered_wrong():
    assert " 0 wrong" in run_script("check_inputs.py", "--quick").stdout
