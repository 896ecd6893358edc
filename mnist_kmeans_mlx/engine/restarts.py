"""Restarts: the best of several clusterings, found side by side where cores are free."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine.lloyd import Observer, Run, State

# The state that a restart goes on from, or what finds it.
Start = State | Callable[[], State]


@dataclass(frozen=True)
class Standing:
    """Where a fit of several restarts stands.

    Attributes
    ----------
    restart : int
        Restarts that are done.
    best : Run or None
        The best of them.
    state : State or None
        How far the next one has come; None before its first iteration.
    """

    restart: int = 0
    best: Run | None = None
    state: State | None = None


class Restarts:
    """The restarts of a fit.

    They draw one after the other, for they share a source, and then go on side by side. What is
    told of them is as if each had followed the one before: of those that come later, nothing is
    known until it is their turn.

    Parameters
    ----------
    standing : Standing
        Where to begin.
    n : int
        How many restarts there are in all.
    seed : callable
        ``seed(restart)`` gives the start, and the position of the source of draws after that.
        Called in order.
    solve : callable
        ``solve(starts)`` gives the `Run` of each of some restarts, from the number of one, where it
        begins, and what to call after each of its iterations.
    better : callable
        ``better(run, best)``: whether a run takes the place of an earlier one.
    tell : callable, optional
        ``tell(standing, position)`` is called whenever the fit has come further.
    """

    def __init__(
        self,
        standing: Standing,
        n: int,
        *,
        seed: Callable[[int], tuple[Start, Any]],
        solve: Callable[[list[tuple[int, Start, Observer]]], list[Run]],
        better: Callable[[Run, Run], bool],
        tell: Callable[[Standing, Any], None] | None = None,
    ) -> None:
        self.standing = standing
        self.n = n
        self._seed, self._solve, self._better, self._tell = seed, solve, better, tell
        self._seeding, self._telling = threading.Lock(), threading.Lock()
        self._next = standing.restart
        self._positions: dict[int, Any] = {}
        self._runs: dict[int, Run] = {}
        self._stopped = False

    def run(self, device: Device, threads: int, together: int = 1) -> Run:
        """The best of all, found by so many threads, each of which solves so many together."""
        self._together = together
        try:
            device.map(self._work, range(min(threads, self.n - self._next)))
        except BaseException:
            with self._telling:
                self._stopped = True
            raise
        assert self.standing.best is not None
        return self.standing.best

    def _work(self, worker: int) -> None:
        """Take restarts until there are no more."""
        try:
            while taken := self._take():
                runs = self._solve([(*one, self._observer(one[0])) for one in taken])
                for (restart, _), run in zip(taken, runs, strict=True):
                    self._end(restart, run)
        except _Stopped:
            pass
        except BaseException:
            self._stopped = True
            raise

    def _take(self) -> list[tuple[int, Start]]:
        """The next restarts, and where they begin."""
        taken: list[tuple[int, Start]] = []
        with self._seeding:
            while len(taken) < self._together and self._next < self.n and not self._stopped:
                restart = self._next
                self._next += 1
                start, self._positions[restart] = self._seed(restart)
                taken.append((restart, start))
        return taken

    def _observer(self, restart: int) -> Observer:
        def observe(state: State) -> None:
            with self._telling:
                if self._stopped:
                    raise _Stopped
                if restart == self.standing.restart:
                    self._note(Standing(restart, self.standing.best, state), restart)

        return observe

    def _end(self, restart: int, run: Run) -> None:
        """Count in what is done, in order."""
        with self._telling:
            self._runs[restart] = run
            while not self._stopped and (first := self.standing.restart) in self._runs:
                run, best = self._runs.pop(first), self.standing.best
                if best is None or self._better(run, best):
                    best = run
                self._note(Standing(first + 1, best), first)

    def _note(self, standing: Standing, restart: int) -> None:
        self.standing = standing
        if self._tell is not None:
            self._tell(standing, self._positions[restart])


class _Stopped(Exception):
    """Another restart has failed, or the fit was interrupted."""
