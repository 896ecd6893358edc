"""E-step and M-step as operations on the device.

Scores stand as (restarts, clusters, rows): reductions then go along columns, where a GPU reads
numbers side by side. What the host must know of single rows is compacted: the running count of a
flag is where the number of its row is scattered to.
"""

from __future__ import annotations

import mlx.core as mx

from mnist_kmeans_mlx.device import Device

# Fewest rows that a buffer is made for.
FEWEST = 256


def nearest(scores: mx.array, error: mx.array) -> tuple[mx.array, mx.array]:
    """What scores tell, and what they leave open.

    Parameters
    ----------
    scores : mx.array of shape (r, k, n)
    error : mx.array of shape (r, n)
        How far the scores of a row can be off.

    Returns
    -------
    labels : mx.array of shape (r, n), int32
        Where the smallest score is; anything where that is in doubt.
    doubtful : mx.array of shape (r, n), bool
        Whether another may be as small.
    """
    k = scores.shape[1]
    # Of the scores that may be the smallest one sum tells how many there are, and which if one.
    shift, dtype = (15, mx.int32) if k < 1 << 15 else (31, mx.int64)
    reach = mx.min(scores, axis=1, keepdims=True) + 2 * error[:, None]
    number = mx.arange(k, dtype=dtype)[:, None] + (1 << shift)
    packed = mx.sum(mx.where(scores <= reach, number, mx.zeros_like(number)), axis=1)
    labels = (packed & ((1 << shift) - 1)).astype(mx.int32)
    # Of what is not a number none is.
    return labels, (packed >> shift) != 1


def compact(flag: mx.array, size: int) -> mx.array:
    """Numbers of the first `size` rows whose flag is set; n where there are fewer."""
    n = flag.shape[0]
    number = mx.arange(n, dtype=mx.int32)
    place = mx.cumsum(flag.astype(mx.int32)) - 1
    # The others each to a place of their own: no two threads of a GPU write to the same.
    place = mx.where(mx.logical_and(flag, place < size), place, size + number)
    found = mx.full((size + n,), n, dtype=mx.int32)
    found[place] = number
    return found[:size]


def larger(n: int) -> int:
    """How many rows to make a buffer for where there were so many."""
    return n + n // 4 + FEWEST


def membership(new: mx.array, old: mx.array, k: int) -> mx.array:
    """Matrix ``(k, m)`` that adds rows to their new cluster and takes them from the old one."""
    number = mx.arange(k, dtype=mx.int32)[:, None]
    return (new == number).astype(mx.float32) - (old == number).astype(mx.float32)


def sums_by(matrix: mx.array, slices: list[mx.array], rows: int, device: Device) -> mx.array:
    """Sums ``(slices, k, ...)`` of rows as a matrix says, exact: see `Slices`."""
    found = []
    for each in slices:
        total = mx.zeros((matrix.shape[0], *each.shape[1:]), dtype=mx.int64)
        for start in range(0, each.shape[0], rows):
            part = slice(start, start + rows)
            total = total + device.matmul(matrix[:, part], each[part]).astype(mx.int64)
        found.append(total)
    return mx.stack(found)
