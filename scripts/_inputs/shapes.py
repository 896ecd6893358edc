"""Rows that are none, few, equal, of another width, or hold NaN."""

import itertools
from functools import partial

import mlx.core as mx
import numpy as np
import pandas as pd
import polars as pl
from scipy import sparse

from _inputs.doors import (
    ASKS,
    COSINE,
    DOORS,
    FITS,
    KMEANS,
    MINIBATCH,
    PLAIN,
    K,
    blobs,
    fit,
    learnt,
    name_of,
    some,
    through,
)
from _inputs.verdicts import REFUSED, Check


def finite_cases(quick, rng):
    """NaN and infinity in the first and the last row, at every entry point and in every type."""
    rows = blobs(rng)

    bad_ones = itertools.product((np.nan, np.inf, -np.inf), (0, -1))
    for value, place in list(bad_ones)[:: 4 if quick else 1]:
        bad = rows.copy()
        bad[place, 1] = value
        for name, make in some(NOT_FINITE, quick, 3).items():
            form = make(bad)
            for door, arm, ours, _ in through(DOORS, form, rows, seen=rows):
                yield refused(f"{name_of(door, arm)} of {name} with {value} in row {place}", ours)
        for arm in (KMEANS, COSINE, MINIBATCH):
            starts = bad[[0, 1, -1]]
            for name, init in {
                "init": starts,
                "init of float32": starts.astype(np.float32),
                "init of bfloat16": mx.array(starts.astype(np.float32)).astype(mx.bfloat16),
                "init by a function": lambda *a, starts=starts, **k: starts,
            }.items():
                call = partial(fit, partial(arm.ours, init=init, n_init=1), rows, None)
                yield refused(f"{arm.name} with {value} in its {name}", call)
        batches = [rows[:10], rows[10:], bad]
        call = partial(lambda bs: learnt(KMEANS.ours().fit_batches(bs)), batches)
        yield refused(f"KMeans.fit_batches with {value} in the last", call)
        call = partial(partial_fit_second, rows, bad)
        yield refused(f"MiniBatchKMeans.partial_fit, {value} in the second", call)


def refused(name, call):
    """A call that must be refused with ValueError."""
    return Check(name, call, REFUSED, refusals=(ValueError,))


NOT_FINITE = {
    "float16": lambda a: a.astype(np.float16),
    "float32": lambda a: a.astype(np.float32),
    "float64": lambda a: a,
    "longdouble": lambda a: a.astype(np.longdouble),
    "big-endian": lambda a: a.astype(">f4"),
    "Fortran": np.asfortranarray,
    "bfloat16": lambda a: mx.array(a.astype(np.float32)).astype(mx.bfloat16),
    "mx.array float16": lambda a: mx.array(a.astype(np.float16)),
    "a list": lambda a: a.tolist(),
    "pandas": lambda a: pd.DataFrame(a, columns=list("abc")),
    "polars": lambda a: pl.DataFrame(a, schema=list("abc")),
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_array,
    "csr float32": lambda a: sparse.csr_array(a.astype(np.float32)),
}


def partial_fit_second(good, bad):
    return learnt(MINIBATCH.ours().partial_fit(good).partial_fit(bad))


def shape_cases(quick, rng):
    """Rows that are none, one, equal, or of other features than before."""
    rows = blobs(rng)
    fits = {
        "no rows": rows[:0],
        "no columns": rows[:, :0],
        "one row": rows[:1],
        "fewer rows than clusters": rows[: K - 1],
        "as many rows as clusters": rows[:K],
        "one more": rows[: K + 1],
        "one column": rows[:, :1] ** 1.5,
        "a vector": rows[0],
        "a number": np.float64(3),
        "three dimensions": rows.reshape(4, -1, 3),
        "duplicates": rows[np.arange(24) % 5],
        "fewer distinct than clusters": rows[np.arange(24) % 2],
        "all equal": rows[np.zeros(24, int)],
        "zeros": np.zeros((24, 3)),
        "a constant column": rows * [1, 0, 1] + [0, 3.3, 0],
        "broadcast": np.broadcast_to(rows[:1], (24, 3)),
        "sparse without entries": sparse.csr_matrix((24, 3)),
        "sparse without rows": sparse.csr_matrix((0, 3)),
        "fewer sparse rows than clusters": sparse.csr_matrix(rows[: K - 1]),
        "an empty list": [],
        "lists that are empty": [[], []],
        "an empty frame": pd.DataFrame(),
    }
    asks = {
        "no rows": rows[:0],
        "one row": rows[:1],
        "one column": rows[:, :1],
        "a column more": np.hstack([rows, rows[:, :1]]),
        "a vector": rows[0],
        "a number": np.float64(3),
        "three dimensions": rows.reshape(4, -1, 3),
        "sparse of another width": sparse.csr_matrix(rows[:, :2]),
        "an empty list": [],
    }
    for name, form in some(fits, quick, 5).items():
        for door, arm, ours, expected in through(FITS, form):
            if door.name == "fit_batches":
                continue  # which takes images as well
            if arm is COSINE and name == "fewer distinct than clusters":
                continue  # relocation of empty clusters is not tested here
            title, warns = f"{name_of(door, arm)} of {name}", arm in PLAIN
            yield Check(title, ours, expected, atol=1e-7, same_warnings=warns)
    for name, form in some(asks, quick, 4).items():
        for door, arm, ours, expected in through(ASKS, form, seen=rows):
            yield Check(f"{name_of(door, arm)} of {name}", ours, expected, atol=1e-7)
    frame = pd.DataFrame(rows, columns=list("abc"))
    renamed = {
        "other names": frame.rename(columns={"c": "d"}),
        "names in another order": frame[["c", "a", "b"]],
        "no names": rows,
        "a name less": frame[["a", "b"]],
    }
    for name, form in some(renamed, quick, 2).items():
        for door, arm, ours, expected in through(ASKS, form, seen=frame):
            if door.name.endswith("_to") or arm not in PLAIN:
                continue
            yield Check(f"{name_of(door, arm)} of {name}", ours, expected, same_warnings=True)
