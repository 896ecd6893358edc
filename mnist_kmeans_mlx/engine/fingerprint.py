"""What tells the rows and weights of a fit from others."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.engine.points import Float64, Points


def fingerprint(points: Points) -> str:
    """What tells these rows and weights from others, however many ranks hold them.

    Blocks of rows are hashed with their place, and the hashes are added. Those that no rank
    holds alone are fetched.
    """
    step, end = points.host_step, points.offset + points.n
    dtype = points.rows.dtype if points.rows.dtype.itemsize < 8 else np.dtype(np.float64)

    def hashed(start: int, rows: Any, weights: Float64 | None) -> npt.NDArray[np.uint64]:
        digest = hashlib.sha256(str(start).encode())
        digest.update(np.ascontiguousarray(rows, dtype).data)
        if weights is not None:
            digest.update(np.ascontiguousarray(weights).data)
        return np.frombuffer(digest.digest(), np.uint64)

    def own(start: int) -> npt.NDArray[np.uint64]:
        part = slice(start - points.offset, min(start + step, end) - points.offset)
        weights = None if points.weights is None else points.weights[part]
        return hashed(start, points.raw(part, dtype), weights)

    cut = sorted({int(at) // step * step for at in points.ends[:-1] if at % step})
    starts = [at for at in range(-(-points.offset // step) * step, end, step) if at not in cut]
    hashes = [np.zeros(4, np.uint64), *points.host.map(own, starts)]
    total = points.group.sum(np.sum(hashes, axis=0))
    for start in cut:
        index = np.arange(start, min(start + step, points.total))
        weights = None if points.weights is None else points.pick(index, points.weights)
        total += hashed(start, points.pick(index), weights)
    facts = f"{points.total} {points.d} {points.rows.dtype}"
    return hashlib.sha256(facts.encode() + total.tobytes()).hexdigest()
