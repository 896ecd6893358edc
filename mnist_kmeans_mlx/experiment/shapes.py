"""What JSON must look like before anything relies on it.

A shape is a type, [shape of each item], or a table of keys; a key that may be left out ends in a
question mark. `float` stands for any finite number, `int` for a whole one from 0.
"""

from __future__ import annotations

import math
from typing import Any


class Maybe:
    """None, or what it holds."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


class Entries:
    """A JSON object with any keys."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


def check(value: Any, shape: Any, where: str = "") -> None:
    """Raise a ValueError that says where a value is not of a shape."""
    if isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.shape, where)
    elif isinstance(shape, Entries):
        expect(isinstance(value, dict), where, "a table")
        for key, item in value.items():
            check(item, shape.shape, f"{where}.{key}")
    elif isinstance(shape, dict):
        expect(isinstance(value, dict), where, "a table")
        for key, part in shape.items():
            name = key.removesuffix("?")
            if name in value:
                check(value[name], part, f"{where}.{name}")
            elif name == key:
                raise ValueError(f"it lacks {f'{where}.{name}'.lstrip('.')!r}")
    elif isinstance(shape, list):
        expect(isinstance(value, list), where, "a list")
        for i, item in enumerate(value):
            check(item, shape[0], f"{where}.{i}")
    elif shape is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        expect(number and abs(value) < 1e300 and math.isfinite(value), where, "a number")
    elif shape is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        expect(whole and 0 <= value < 2**63, where, "a whole number")
    elif shape is str:
        expect(isinstance(value, str), where, "a text")


def fits(value: Any, shape: Any) -> bool:
    """Whether a value is of a shape."""
    try:
        check(value, shape)
    except ValueError:
        return False
    return True


def expect(right: bool, where: str, what: str) -> None:
    if not right:
        raise ValueError(f"{where.lstrip('.') or 'it'!s} is not {what}")
