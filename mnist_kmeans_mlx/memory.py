"""How much memory a fit may take, and what it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from scipy.sparse import issparse

from mnist_kmeans_mlx.device import Device
from mnist_kmeans_mlx.engine.sums import SPLIT_BYTES
from mnist_kmeans_mlx.system import free_bytes

# What a fit holds of each row at its worst, besides the row itself and its weight: the norm, in
# float64 (8) and in float32 (4); labels, of the E-step, of this step and the last one, and of the
# best restart (16); bounds for the nearest and the second nearest centre (8); and where a cluster
# ran empty, how far the row is (8) and its place in that order (8).
ROW_BYTES = 52
# The interpreter, MLX, scikit-learn, blocks of rows that are read and worked on.
PROCESS_BYTES = 400_000_000
# How often a fit holds centres or sums of clusters in float64: those of this step and the last, of
# the rows' frame and of the units they are summed in; and each thread those of what it sums. In
# how many forms it has the rows that it sums.
CENTERS, CENTERS_OF_THREAD, FORMS = 12, 4, 4
# What is free at any rate: to find out what else is takes longer than to cluster a few rows.
UNASKED = 8 << 20

_UNITS = {"": 1, "b": 1}
_UNITS |= {f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)}
_UNITS |= {f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)}


@dataclass(frozen=True)
class Plan:
    """How to go about the rows of a fit.

    Attributes
    ----------
    keep : bool
        Whether to hold all rows, and copies as the device wants them.
    spare : int
        Bytes that are left for bounds.
    """

    keep: bool
    spare: int


def limit(memory: int | str) -> int:
    """Bytes that ``memory`` stands for.

    Parameters
    ----------
    memory : int or str
        Bytes, also as ``"1.5GB"`` or ``"800 MiB"``; "auto" is half of what is free.

    Raises
    ------
    ValueError
        It is no size.

    Examples
    --------
    >>> limit("1.5GB"), limit("2 GiB")
    (1500000000, 2147483648)
    """
    if memory == "auto":
        return free_bytes() // 2
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", str(memory).lower())
    if found is None or found[2] not in _UNITS or float(found[1]) == 0:
        raise ValueError(
            f"memory must be a number of bytes such as 2000000000, '2GB' or '1.5 GiB', or 'auto', "
            f"not {memory!r}."
        )
    return int(float(found[1]) * _UNITS[found[2]])


def plan(
    rows: Any,
    n_clusters: int,
    device: Device,
    memory: int | str,
    on_device: bool = False,
    weighted: bool = False,
) -> Plan:
    """What to hold of the rows of a fit.

    Parameters
    ----------
    rows : ndarray, CSR matrix or source of rows
    n_clusters : int
    device : Device
    memory : int or str
        As for `limit`. An array that is in memory already is not counted, for it is the caller's.
    on_device : bool, default=False
        Whether rows go the MLX way.
    weighted : bool, default=False
        Whether they have weights.

    Raises
    ------
    MemoryError
        Not even what is kept of each row and of the centres fits.
    """
    n, d = rows.shape
    centers = centers_bytes(n_clusters, d, device)
    narrow = rows.dtype.kind in "biu" and rows.dtype.itemsize <= 2 and not issparse(rows)
    # In float32 on the host; on a device as bytes or two float32, of what weights make of them too.
    each, there = 0 if narrow else 4, 0
    if issparse(rows):  # which stay as they are
        each = 0
    elif on_device:
        there = (rows.dtype.itemsize if narrow else 8) + (8 if weighted else 0)
        each += there
    if is_source(rows):
        each += rows.dtype.itemsize
    copies = each * n * d
    if memory == "auto" and copies + centers + n * (ROW_BYTES + 8 * n_clusters) <= UNASKED:
        return Plan(True, UNASKED)
    room = _room(n, memory) - centers
    if room < 0 and memory != "auto":
        needed = (PROCESS_BYTES + n * ROW_BYTES + centers) / 1e9
        raise MemoryError(
            f"memory={memory!r} is too little for {n} rows: a fit takes {ROW_BYTES} bytes of each "
            f"besides the row itself, {centers / 1e6:.0f} MB for {n_clusters} centers of {d} "
            f"features, and {PROCESS_BYTES / 1e6:.0f} MB for all, which is {needed:.2f} GB."
        )
    check_free(n * ROW_BYTES + centers, f"to fit {n} rows of {d} features to {n_clusters} centers")
    # What is worked on takes a part of a device.
    keep = copies <= room and there * n * d <= device.room // 2
    return Plan(keep, max(0, room - copies if keep else room))


def centers_bytes(n_clusters: int, d: int, device: Device) -> int:
    """What a fit holds of centres and of sums of clusters."""
    threads, each = device.host.workers, 8 * n_clusters * d
    rows = FORMS * min(2 * each, SPLIT_BYTES)
    return CENTERS * each + threads * (CENTERS_OF_THREAD * each + rows)


def check_free(nbytes: int, what: str) -> None:
    """Refuse what memory does not hold, before any of it is taken.

    Raises
    ------
    MemoryError
        Names what is to be done, and what is free.
    """
    if nbytes > UNASKED and nbytes > (free := free_bytes()):
        raise MemoryError(
            f"{what} takes {nbytes / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free: reduce "
            "the number of features first, for example with sklearn.decomposition.TruncatedSVD."
        )


def fits(nbytes: int, n: int, memory: int | str) -> bool:
    """Whether `n` rows of so many bytes can be held, besides what a fit keeps of each."""
    return nbytes <= _room(n, memory)


def _room(n: int, memory: int | str) -> int:
    """Bytes that are left for what a fit of `n` rows can do without."""
    return limit(memory) - PROCESS_BYTES - n * ROW_BYTES


def is_source(rows: Any) -> bool:
    """Whether rows are read when they are asked for, rather than held."""
    return bool(getattr(rows, "streams", False))


def held(rows: Any) -> Any:
    """Rows of a source, in memory.

    Raises
    ------
    MemoryError
        They would take more than half of what is free.
    """
    if not is_source(rows):
        return rows
    needed = rows.shape[0] * rows.shape[1] * (rows.dtype.itemsize + 4)
    if needed > limit("auto"):
        raise MemoryError(
            f"these rows would take {needed / 1e9:.1f} GB, more than half of the memory that is "
            "free: KMeans and MiniBatchKMeans read them in parts."
        )
    return rows[:]
