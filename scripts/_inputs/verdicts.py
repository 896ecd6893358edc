"""Outcomes of calls, and whether they are as expected."""

import linecache
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn

# Exceptions with which an input may be refused.
REFUSALS = (ValueError, TypeError, MemoryError)
# What a number changes by where rows are multiplied by two: 2 ** unit.
UNITS = {"labels": 0, "shares": 0, "centers": 1, "distances": 1, "inertia": 2}


class Outcome(NamedTuple):
    """Outcome of a call: arrays by name or an error, and the classes of its warnings."""

    value: Any = None
    error: Exception | None = None
    warned: frozenset = frozenset()
    # The first warning of NumPy, which nobody should see.
    numpy: str = ""


# What has no answer.
REFUSED = Outcome(error=ValueError())


class Check(NamedTuple):
    """A call and its expected outcome."""

    name: str
    ours: Callable[[], dict]
    expected: Outcome
    rtol: float = 1e-6
    atol: float = 0.0
    # The answer, or a square on the way to it, is beyond float64: it may be refused.
    beyond: bool = False
    # With which it must be refused, if it must.
    refusals: tuple = REFUSALS
    # Whether the warnings must be those of the reference.
    same_warnings: bool = False


def tried(call):
    """Outcome of a call."""
    value = error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            value = call()
        except Exception as raised:
            error = raised
    messages = [str(warning.message) for warning in caught]
    loud = [m for m in messages if "encountered in" in m or "slice" in m]
    kinds = frozenset(w.category for w in caught if str(w.message) not in loud)
    return Outcome(value, error, kinds, (*loud, "")[0])


def verdict(case):
    """("right" or "refused", or else None, and what is wrong)."""
    found, expected = tried(case.ours), case.expected
    if expected.error is not None and not isinstance(expected.error, REFUSALS):
        return None, f"is not known: the other side stumbles, {expected.error!r}"
    if found.numpy:
        return None, f"NumPy warns: {found.numpy}"
    if found.error is not None:
        return judged_refusal(case, found.error)
    if isinstance(expected.error, REFUSALS):
        return None, f"is not refused, but answered: {found.value}"
    if expected.error is None:
        for name, value in expected.value.items():
            if not alike(found.value[name], value, case.rtol, case.atol):
                return None, f"{name} {found.value[name]!r}, not {value!r}"
        if case.same_warnings and found.warned != expected.warned:
            return None, f"warns of {set(found.warned)}, not of {set(expected.warned)}"
    return "right", ""


def judged_refusal(case, error):
    said = f"{type(error).__name__}: {error}"
    expected = case.expected.error
    if expected is None and not case.beyond:
        return None, f"is refused: {said}"
    if not isinstance(error, case.refusals):
        return None, said
    if str(error) != str(expected) and not is_sentence(error):
        return None, f"{said} (which is not a sentence of ours)"
    return "refused", ""


def is_sentence(error):
    """Whether it is a deliberate message of one line, not an error inside NumPy."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    file = trace.tb_frame.f_code.co_filename
    # Scikit-learn's words about what it checks are as good as they are.
    if Path(file).is_relative_to(Path(sklearn.__file__).parent):
        return True
    line = linecache.getline(file, trace.tb_lineno)
    return line.lstrip().startswith("raise ") and "\n" not in str(error)


def alike(found, expected, rtol, atol):
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return False
    if expected.dtype.kind not in "fc":
        return np.array_equal(found, expected)
    with np.errstate(all="ignore"):
        return np.allclose(found, expected, rtol=rtol, atol=atol, equal_nan=False)


def scaled(outcome, factor, *, weight=1.0, offset=0.0, unit_free=False):
    """Expected outcome for rows times `factor` plus `offset` and weights times `weight`."""
    if outcome.error is not None:
        return outcome
    value = {}
    with np.errstate(all="ignore"):
        for name, array in outcome.value.items():
            array = np.asarray(array)
            for _ in range(0 if unit_free else UNITS[name]):
                array = array * factor
            if name == "centers":
                array = array + offset
            value[name] = array * weight if name == "inertia" else array
    return outcome._replace(value=value)
