"""Restarts side by side end as if each had followed the one before."""

import threading

import numpy as np
import pytest
from doubles import make_device
from oracle import assert_same_bits

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine.lloyd import Run
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.restarts import Restarts, Standing
from mnist_kmeans_mlx.engine.ways import choose
from mnist_kmeans_mlx.progress import History

INERTIAS = [5.0, 3.0, 4.0, 3.0, 2.0]


def make_run(inertia):
    return Run(np.zeros(1, np.int32), inertia, np.zeros((1, 1)), 1, "strict", 0.0, 0)


class Fit:
    """Restarts with the given outcomes; what is told of them is kept."""

    def __init__(self, inertias, solve=None, standing=None):
        self.inertias, self.told, self.seeded = inertias, [], []
        self.restarts = Restarts(
            standing or Standing(),
            len(inertias),
            seed=self.seed,
            solve=lambda starts: [(solve or self.solve)(*one) for one in starts],
            better=lambda run, best: run.inertia < best.inertia,
            tell=lambda standing, position: self.told.append((standing, position)),
        )

    def seed(self, restart):
        self.seeded.append(restart)
        return np.full((1, 1), restart), f"after {restart}"

    def solve(self, restart, start, observe):
        assert start == restart
        observe(f"state of {restart}")
        return make_run(self.inertias[restart])

    def steps(self):
        return [
            (told.restart, told.state, told.best and told.best.inertia, position)
            for told, position in self.told
        ]


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_the_best_is_found_and_told_of_in_order(workers):
    fit = Fit(INERTIAS)
    best = fit.restarts.run(make_device("cpu", workers=workers), workers)
    assert best.inertia == 2
    assert fit.seeded == [0, 1, 2, 3, 4]
    done = [step for step in fit.steps() if step[1] is None]
    bests = np.minimum.accumulate(INERTIAS)
    assert done == [(i + 1, None, bests[i], f"after {i}") for i in range(5)]
    for restart, state, _, position in fit.steps():
        if state is not None:
            assert (state, position) == (f"state of {restart}", f"after {restart}")


def test_what_comes_later_waits_for_its_turn():
    later = threading.Event()

    def solve(restart, start, observe):
        if restart == 0:
            assert later.wait(30)
        observe(f"state of {restart}")
        if restart == 1:
            later.set()
        return make_run(INERTIAS[restart])

    fit = Fit(INERTIAS[:2], solve)
    fit.restarts.run(make_device("cpu", workers=2), 2)
    assert fit.steps() == [
        (0, "state of 0", None, "after 0"),
        (1, None, 5.0, "after 0"),
        (2, None, 3.0, "after 1"),
    ]


def test_of_equal_runs_the_first_is_kept():
    runs = {i: make_run(1.0) for i in range(4)}
    fit = Fit([1.0] * 4, lambda restart, start, observe: runs[restart])
    assert fit.restarts.run(make_device("cpu", workers=2), 2) is runs[0]


def test_goes_on_from_where_it_stood():
    best = make_run(2.5)
    fit = Fit(INERTIAS, standing=Standing(restart=3, best=best))
    assert fit.restarts.run(make_device("cpu", workers=2), 2).inertia == 2
    assert fit.seeded == [3, 4]
    ended = Fit(INERTIAS, standing=Standing(restart=5, best=best))
    assert ended.restarts.run(make_device("cpu", workers=2), 2) is best
    assert ended.seeded == []


def test_an_error_stops_the_others():
    failed, stopped = threading.Event(), threading.Event()

    def solve(restart, start, observe):
        if restart == 1:
            failed.set()
            raise OSError("no room")
        assert failed.wait(30)
        try:
            for _ in range(10_000):
                observe("state")
                threading.Event().wait(0.001)
        finally:
            stopped.set()

    fit = Fit([1.0] * 6, solve)
    with pytest.raises(OSError, match="no room"):
        fit.restarts.run(make_device("cpu", workers=2), 2)
    assert stopped.wait(30)
    assert fit.seeded == [0, 1]


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_side_by_side_changes_nothing(init, device, monkeypatch):
    way = type(choose(Points(np.zeros((5, 2)), resolve(device)), 2))
    rows = np.random.default_rng(0).normal(size=(900, 5))
    fits = []
    for side_by_side in ((1, 1), (3, 1), (1, 4)):
        monkeypatch.setattr(way, "side_by_side", lambda self, k, n=side_by_side: n)
        model = KMeans(7, init=init, n_init=6, random_state=3, device=device)
        history = History()
        fits.append((model._fit(rows, history=history), history.restarts))
    one, curves = fits[0]
    assert len(curves) == 6
    for other, same_curves in fits[1:]:
        assert_same_bits(one, other)
        assert curves == same_curves
