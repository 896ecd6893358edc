"""Ranks that are threads of one process: a double of `Group` that takes no network."""

import itertools
import threading

import numpy as np

from mnist_kmeans_mlx import distributed


class Rank(distributed.Group):
    """One of several; what they share passes through `table`."""

    def __init__(self, rank, table, barrier):
        super().__init__()
        self.rank, self.size = rank, len(table)
        self._table, self._barrier = table, barrier

    def _all(self, a):
        self._table[self.rank] = np.array(a)  # what the others see stays as it is
        self._barrier.wait()
        found = list(self._table)
        self._barrier.wait()
        return found

    def _reduce(self, name, add, collective, a):
        first, *others = self._all(a)
        for other in others:
            first = add(first, other)
        return first

    def gather(self, a):
        return np.concatenate(self._all(a))

    def broadcast(self, a, root=0):
        return self._all(a)[root]

    def __enter__(self):
        self._token = distributed._current.set(self)
        return self

    def __exit__(self, *error):
        distributed._current.reset(self._token)
        if error[0] is not None:
            self._barrier.abort()


def on_ranks(size, task):
    """What ``task(rank)`` returns on each rank, within its group."""
    table, barrier = [None] * size, threading.Barrier(size, timeout=60)
    found, errors = [None] * size, []

    def work(rank):
        try:
            with Rank(rank, table, barrier):
                found[rank] = task(rank)
        except threading.BrokenBarrierError:
            pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return found


def shares(n, size, seed=0):
    """Slices of `n` rows, one of any length for each rank."""
    cuts = np.sort(np.random.default_rng(seed).choice(np.arange(1, n), size - 1, replace=False))
    edges = [0, *cuts.tolist(), n]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]
