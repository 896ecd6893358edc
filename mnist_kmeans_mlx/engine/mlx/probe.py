"""A device is tried out before it is relied on, and asked how fast it is.

The bound of the error of scores covers rounding, not a kernel that multiplies wrongly: one build of
MLX did beyond eight rows, on one kind of GPU (ml-explore/mlx#3586).
"""

from __future__ import annotations

from functools import lru_cache

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.device import Device, DeviceError, Speed, least_seconds
from mnist_kmeans_mlx.engine.centers import tolerance
from mnist_kmeans_mlx.engine.mlx.crossing import fetch
from mnist_kmeans_mlx.engine.mlx.step import compact, membership, sums_by
from mnist_kmeans_mlx.engine.points import Float32

# Rows, features and clusters: more rows than any tile, and no number a multiple of another.
SHAPES = ((1021, 785, 20), (67, 31, 129), (4099, 3, 7))


@lru_cache
def check(device: Device) -> None:
    """Compare what a device computes with float64, once.

    Raises
    ------
    DeviceError
        It is wrong by more than rounding explains.
    """
    rng = np.random.default_rng(0)
    with mx.stream(device.mlx):
        for n, d, k in SHAPES:
            rows = rng.integers(0, 256, (n, d)).astype(np.float32)
            centers = rng.uniform(-255, 255, (k, d)).astype(np.float32)
            if not (_scores_hold(device, rows, centers) and _sums_hold(device, rows, k)):
                raise DeviceError(
                    f"MLX multiplies wrongly on this {device.kind} device: a product of {n} x {d} "
                    f"and {d} x {k} numbers is off by more than rounding. Take device='cpu', or "
                    "another version of MLX, and report it to github.com/ml-explore/mlx."
                )


@lru_cache
def speed(device: Device) -> Speed:
    """How fast a device is, measured in a few milliseconds."""
    n, d, k, times = 8192, 256, 64, 8
    with mx.stream(device.mlx):
        rows, columns = mx.ones((n, d)), mx.ones((d, k))
        long, one = mx.ones((1 << 22,)), mx.ones((1,))
        mx.eval(rows, columns, long, one)
        # Several at a time, so that waiting hardly counts.
        multiply = least_seconds(
            lambda: mx.eval(*(device.matmul(rows, columns) for _ in range(times)))
        )
        copy = least_seconds(lambda: mx.eval(*(long + i for i in range(times))))
        wait = least_seconds(lambda: mx.eval(one + 1))
    return Speed(times * 2 * n * d * k / multiply, times * 2 * long.nbytes / copy, wait)


def _scores_hold(device: Device, rows: Float32, centers: Float32) -> bool:
    """Whether scores are as near to the truth as their bound says."""
    wide = centers.astype(np.float64)
    norms_sq = np.square(wide).sum(axis=1)
    exact = norms_sq[:, None] - 2 * wide @ rows.T.astype(np.float64)
    constant, factor = mx.array(norms_sq.astype(np.float32)[:, None]), mx.array(-2 * centers)
    (scores,) = fetch(device.addmm(constant, factor, mx.array(rows).T))
    slope, offset = tolerance(device.rounding, rows.shape[1], float(np.sqrt(norms_sq.max())))
    error = slope * np.sqrt(np.square(rows.astype(np.float64)).sum(axis=1)) + offset
    return bool((abs(scores - exact) <= error).all())


def _sums_hold(device: Device, rows: Float32, k: int) -> bool:
    """Whether sums of whole numbers by cluster, and of rows that were picked, are exact."""
    n = len(rows)
    label = np.arange(n, dtype=np.int32) * 7 % k
    new, old = mx.array(label), mx.full((n,), -1, dtype=mx.int32)
    flag = mx.array(label == 1)
    picked, sums = fetch(
        compact(flag, n), sums_by(membership(new, old, k), [mx.array(rows)], 1 << 16, device)
    )
    expected = [rows[label == cluster].sum(axis=0, dtype=np.float64) for cluster in range(k)]
    found = picked[: np.count_nonzero(label == 1)]
    return np.array_equal(sums[0], expected) and np.array_equal(found, np.flatnonzero(label == 1))
