"""Arithmetic of sparse rows, a block at a time; none of it makes more than a block dense."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mnist_kmeans_mlx.device import Device, slices

Float64 = npt.NDArray[np.float64]
Index = npt.NDArray[np.intp]
Labels = npt.NDArray[np.int32]
Result = TypeVar("Result")

# Entries of rows times columns of a product that a thread works on at once, and how few entries at
# least: with less, what Python does in between counts.
WORK, ENTRIES = 1 << 22, 1 << 16
# Numbers of a product that are made at once.
PRODUCTS = 1 << 20
# Bytes of rows that are made dense at once.
DENSE_BYTES = 4 << 20
# Below this share of what was added and subtracted, cancellation has cost a square too many digits.
CANCELLED = 1e-4


def canonical(rows: Any) -> Any:
    """CSR rows that name each column once, in order: a copy where they do not."""
    if not rows.has_canonical_format:
        # Twice a counting sort, which is quicker than to sort each row.
        rows = rows.copy() if rows.has_sorted_indices else rows.tocsc().tocsr()
        rows.sum_duplicates()
    return rows


def merged(rows: Any) -> Any:
    """CSR rows that name each column once, in any order: a copy where they do not."""
    apart = rows.has_canonical_format or rows.tocsc().has_canonical_format
    return rows if apart else canonical(rows)


def like(rows: Any, data: npt.NDArray[Any]) -> Any:
    """Rows with other numbers where these have theirs."""
    return sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape, copy=False)


def scaled(rows: Any, scale: float) -> Any:
    """Rows times a number, copied unless it is one."""
    return rows if scale == 1 else like(rows, rows.data * scale)


def parts(rows: Any, width: int = 1) -> list[slice]:
    """Slices of rows that are worth a thread's while, for products of this width."""
    n, most, entries = rows.shape[0], max(1, PRODUCTS // width), max(ENTRIES, WORK // width)
    # About even, so that there is no small one at the end.
    even = rows.nnz // max(1, -(-rows.nnz // entries))
    entries = min(entries, even + even // 64 + 1)
    found, start = [], 0
    while start < n:
        full = int(np.searchsorted(rows.indptr, rows.indptr[start] + entries, side="right")) - 1
        stop = min(n, start + most, max(full, start + 1))
        found.append(slice(start, stop))
        start = stop
    return found


def each(
    function: Callable[[slice], Result], rows: Any, host: Device, width: int = 1
) -> list[Result]:
    """Results of a function of parts of rows, which threads share if there is more than one."""
    found = parts(rows, width)
    return [function(found[0])] if len(found) == 1 else host.map(function, found)


def block(rows: Any, index: slice | Index) -> Any:
    """Some of the rows, in float64; a slice is not copied where it need not be."""
    if not isinstance(index, slice):
        return rows[index].astype(np.float64, copy=False)
    start, stop, _ = index.indices(rows.shape[0])
    if (start, stop) == (0, rows.shape[0]) and rows.dtype == np.float64:
        return rows
    entries = slice(rows.indptr[start], rows.indptr[stop])
    data = rows.data[entries].astype(np.float64, copy=False)
    ends = rows.indptr[start : stop + 1] - rows.indptr[start]
    return sparse.csr_matrix(
        (data, rows.indices[entries], ends), shape=(stop - start, rows.shape[1]), copy=False
    )


def of_rows(ufunc: np.ufunc, rows: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What an operation makes of the values of each row's entries; zero where it has none."""
    found = np.zeros(rows.shape[0], dtype=values.dtype)
    full = np.flatnonzero(np.diff(rows.indptr))
    if len(full) > 0:
        found[full] = ufunc.reduceat(values, rows.indptr[full])
    return found


def along(rows: Any, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A value of each row, for each of its entries."""
    return np.repeat(values, np.diff(rows.indptr))


def norms_sq(rows: Any) -> Float64:
    """Squared norms of rows, as they are multiplied with themselves."""
    found: Float64 = like(rows, np.square(rows.data)) @ np.ones(rows.shape[1])
    return found


def no_longer(rows: Any) -> Float64:
    """What no norm of a row is larger than, even where entries are to be merged."""
    entries = np.diff(rows.indptr)
    times = np.sqrt(entries) if rows.has_canonical_format else entries
    longest: Float64 = times * float(max(rows.data.max(initial=0), -rows.data.min(initial=0)))
    return longest


def add(
    total: Float64,
    rows: Any,
    labels: npt.NDArray[Any],
    values: Float64,
    change: np.ufunc = np.add,
) -> None:
    """Add values of the entries of rows to the sums that these are labelled with, or subtract them.

    Sums ``(width, k, d)`` and values ``(width, entries)`` may each be of several parts.
    """
    place = along(rows, labels.astype(np.intp) * rows.shape[1])
    place += rows.indices
    for own, some in zip(total, values, strict=True):
        change.at(own.reshape(-1), place, some)


def distances_sq(rows: Any, centers: Float64, owner: npt.NDArray[Any], host: Device) -> Float64:
    """Squared distances ``(n,)`` of CSR rows, each to its own centre, as differences give them.

    Parameters
    ----------
    rows : CSR matrix of shape (n, d)
    centers : ndarray of shape (k, d), float64
    owner : ndarray of int, shape (n,)
        For each row the centre to measure to.
    host : Device
        Whose threads share the work.
    """
    found = np.empty(rows.shape[0])
    with np.errstate(over="ignore"):
        squares = np.vecdot(centers, centers)

    def measure(part: slice) -> None:
        some = block(rows, part)
        place = along(some, owner[part].astype(np.intp) * centers.shape[1])
        place += some.indices
        beside = centers.reshape(-1).take(place)
        with np.errstate(over="ignore", invalid="ignore"):
            # |x - c|^2 = |c|^2 + x (x - 2 c)
            beside *= -2
            beside += some.data
            beside *= some.data
            size = squares[owner[part]]
            result = size + of_rows(np.add, some, beside)
            lost = np.flatnonzero(~(result > CANCELLED * size) & (size != 0))
        if len(lost) > 0:
            used, center = np.unique(owner[part][lost], return_inverse=True)
            result[lost] = pairs_sq(some, lost, sparse.csr_matrix(centers[used]), center)
        found[part] = result

    each(measure, rows, host)
    return found


def pairs_sq(rows: Any, row: Index, centers: Any, center: Index) -> Float64:
    """Squared distances of pairs of rows and centres, both CSR matrices, from their differences."""
    found = np.empty(len(row))
    longest = np.diff(rows.indptr).max(initial=0) + np.diff(centers.indptr).max(initial=0)
    for part in slices(len(row), max(1, PRODUCTS // max(1, int(longest)))):
        difference = rows[row[part]] - centers[center[part]]
        found[part] = of_rows(np.add, difference, np.square(difference.data))
    return found


def dense_parts(n: int, d: int) -> list[slice]:
    """Slices of `n` rows that may be made dense at once."""
    return slices(n, max(1, DENSE_BYTES // (8 * d)))
