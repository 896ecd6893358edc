"""What comes back from the device: each call waits for it, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np


def fetch(*arrays: mx.array, keep: Sequence[mx.array] = ()) -> list[np.ndarray[Any, Any]]:
    """Arrays on the host, after they and those to `keep` on the device were computed in one go."""
    mx.eval(*arrays, *keep)
    return [np.array(array, copy=False) for array in arrays]
