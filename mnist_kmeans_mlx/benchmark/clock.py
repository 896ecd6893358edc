"""Clocks around a fit: seconds in all, and of each stage where these can be told apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds time up under the name of the stage at work.

    Parameters
    ----------
    settle : callable, optional
        Waits until the device has done all it was told, so that no work is counted late.

    Attributes
    ----------
    seconds : dict of str to float
    """

    def __init__(self, settle: Callable[[], None] = lambda: None) -> None:
        self.seconds: dict[str, float] = {}
        self._settle = settle
        self._stage: str | None = None
        self._since = 0.0

    def switch(self, stage: str | None) -> str | None:
        """Begin another stage, or none, and return the one that ends."""
        self._settle()
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0) + now - self._since
        before, self._stage, self._since = self._stage, stage, now
        return before

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block as a stage of the engine, then return to the stage before."""
        before = self.switch(name)
        try:
            yield
        finally:
            self.switch(before)
