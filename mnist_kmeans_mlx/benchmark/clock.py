"""Clocks around a fit: seconds in all, and of each stage where these can be told apart."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cached_property, wraps
from typing import Any

__all__ = ["Stopwatch", "watch_engine"]


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

    def rename(self, stage: str) -> None:
        """Count what was done since the last switch for another stage."""
        self._stage = stage


def watch_engine(stopwatch: Stopwatch) -> None:
    """Tell the stopwatch, from now on in this process, what the engine is doing.

    The estimator runs as it always does: only the functions that seed and iterate, and the moment
    when rows are uploaded, are given a clock. The loop tells its iterations through its observer;
    what follows the last one is the final pass.
    """
    from mnist_kmeans_mlx.engine import lloyd, lots, points, seeding, together

    for seed in (seeding.plus_plus, together.plus_plus, lots.random_rows):
        _replace(seed, _timed(seed, "seeding", stopwatch))
    _replace(lloyd.lloyd, _timed_loop(lloyd.lloyd, stopwatch))
    upload = vars(points.Points).get("array")
    if isinstance(upload, cached_property):
        upload.func = _timed(upload.func, "upload", stopwatch)


def _timed(function: Callable[..., Any], stage: str, stopwatch: Stopwatch) -> Callable[..., Any]:
    @wraps(function)
    def timed(*args: Any, **kwargs: Any) -> Any:
        before = stopwatch.switch(stage)
        try:
            return function(*args, **kwargs)
        finally:
            stopwatch.switch(before)

    return timed


def _timed_loop(loop: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    @wraps(loop)
    def timed(*args: Any, observe: Callable[..., None] | None = None, **kwargs: Any) -> Any:
        def mark(*state: Any) -> None:
            stopwatch.switch("iterations")
            if observe is not None:
                observe(*state)

        stopwatch.switch("iterations")
        run = loop(*args, observe=mark, **kwargs)
        stopwatch.rename("final")
        return run

    return timed


def _replace(function: Callable[..., Any], other: Callable[..., Any]) -> None:
    """Put a function in the place of another wherever a module has it by name."""
    for module in [m for name, m in sys.modules.items() if name.startswith("mnist_kmeans_mlx")]:
        for name, value in list(vars(module).items()):
            if value is function:
                setattr(module, name, other)
