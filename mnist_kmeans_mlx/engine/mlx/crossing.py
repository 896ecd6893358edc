"""What comes back from the device: each call waits for it, once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np


def fetch(*arrays: mx.array, keep: Sequence[mx.array] = ()) -> list[np.ndarray[Any, Any]]:
    """Arrays on the host, after they and those to `keep` on the device were computed in one go.

    Raises
    ------
    MemoryError
        The device has too little memory for that.
    """
    try:
        mx.eval(*arrays, *keep)
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in ("alloc", "out of memory")):
            raise
        raise MemoryError(
            "The GPU has too little memory for these rows and centers: close what else uses it, "
            "set memory= to less than it has, so that rows are sent in parts, or take device='cpu'."
        ) from error
    return [np.array(array, copy=False) for array in arrays]
