"""What MLX holds, as NumPy arrays: the one conversion, at every door where rows come in."""

from __future__ import annotations

import sys
from typing import Any


def as_numpy(a: Any) -> Any:
    """NumPy array of an MLX array, or of a list or tuple of these; anything else as it is.

    NumPy has no bfloat16: such numbers become float32, which holds them all.

    Parameters
    ----------
    a : object
        Where it is an MLX array, an evaluated one is not copied where memory is shared.

    Returns
    -------
    object

    Raises
    ------
    ValueError
        The array is still to be computed on a stream of another thread.
    """
    # Whoever has no mlx loaded has no array of it.
    mx = sys.modules.get("mlx.core")
    if mx is None:
        return a
    if isinstance(a, list | tuple) and any(isinstance(part, mx.array) for part in a):
        return [as_numpy(part) for part in a]
    return _evaluated(mx, a) if isinstance(a, mx.array) else a


def _evaluated(mx: Any, a: Any) -> Any:
    import numpy as np

    try:
        mx.eval(a)
    except RuntimeError as error:
        if "Stream" not in str(error):
            raise
        raise ValueError(
            "this mx.array is not computed yet, and its stream belongs to another thread: call "
            "mx.eval(X) in the thread that made it, before it is handed over."
        ) from error
    return np.array(a.astype(mx.float32) if a.dtype == mx.bfloat16 else a, copy=False)
