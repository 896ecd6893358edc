"""Threads that share work as far as they have none of their own.

NumPy leaves the interpreter to others while it computes, so threads compute side by side. Between
two steps they wait for it in turn: what pays is few and large steps.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

# Bytes of an array up to which a thread keeps it to work in.
LARGEST_KEPT = 4 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


class Helpers:
    """Threads that help the one that calls them.

    They may call for help themselves: what others are busy with is left to them, and a thread never
    waits for one that has not begun.

    Parameters
    ----------
    n : int
        How many there are.

    Attributes
    ----------
    idle : int
        How many have no work now.
    """

    def __init__(self, n: int) -> None:
        self.idle = n
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(max(1, n), "kmeans")

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of `function`, in order; where a call fails, those that are running end soon."""
        items = list(items)
        sharing = _Sharing(function, items)
        others = self._call(sharing.work, len(items) - 1)
        try:
            sharing.work()
            wait(others)
        except BaseException as own:
            sharing.abandon()
            wait(others)
            if not isinstance(own, _Abandoned):
                raise
        errors = [error for other in others if (error := other.exception()) is not None]
        for error in errors:
            if not isinstance(error, _Abandoned):
                raise error
        if sharing.abandoned:
            raise _Abandoned
        return sharing.results

    def _call(self, work: Callable[[], None], most: int) -> list[Future[None]]:
        """Have idle ones do work, at most so many."""
        with self._lock:
            called = max(0, min(self.idle, most))
            self.idle -= called
        # In the caller's context, which knows of limits and of what NumPy warns of.
        return [self._pool.submit(copy_context().run, self._run, work) for _ in range(called)]

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        finally:
            with self._lock:
                self.idle += 1


@lru_cache
def _helpers(n: int, process: int) -> Helpers:
    return Helpers(n)


def helpers(n: int) -> Helpers:
    """So many helpers, the same ones each time; a forked child does not wait for its parent's."""
    return _helpers(n, os.getpid())


class _Abandoned(BaseException):
    """What this is part of has failed elsewhere."""


class _Sharing:
    """Items that several threads take one after the other."""

    def __init__(self, function: Callable[[Any], Any], items: list[Any]) -> None:
        self.results: list[Any] = [None] * len(items)
        self._function, self._waiting = function, deque(enumerate(items))
        self._within = _current.get()
        self._failed = False

    @property
    def abandoned(self) -> bool:
        """Whether it has failed, or what it is part of has."""
        return self._failed or (self._within is not None and self._within.abandoned)

    def abandon(self) -> None:
        """Have all threads stop at their next item."""
        self._failed = True

    def work(self) -> None:
        """Take items until there are no more."""
        token = _current.set(self)
        try:
            while self._waiting:
                if self.abandoned:
                    raise _Abandoned
                try:
                    number, item = self._waiting.popleft()
                except IndexError:  # another thread took the last one
                    break
                self.results[number] = self._function(item)
        except BaseException:
            self.abandon()
            raise
        finally:
            _current.reset(token)


# What the calling thread is at work for.
_current: ContextVar[_Sharing | None] = ContextVar("_current", default=None)


class _Kept(threading.local):
    """What each thread keeps to work in."""

    def __init__(self) -> None:
        self.arrays: dict[Any, npt.NDArray[Any]] = {}


_kept = _Kept()


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """An array of any values for the calling thread to work in, until it asks for that name again.

    New memory has to be cleared by the system first, which takes as long as to compute with it.
    """
    size, key = math.prod(shape), (name, dtype)
    kept = _kept.arrays.get(key)
    if kept is None or kept.size < size:
        kept = np.empty(size, dtype)
        if kept.nbytes <= LARGEST_KEPT:
            _kept.arrays[key] = kept
    return kept[:size].reshape(shape)
