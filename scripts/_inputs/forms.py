"""The same numbers in every container and of every type."""

import array
import tempfile
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
import pandas as pd
import polars as pl
from scipy import sparse

from _inputs.doors import DOORS, KMEANS, MINIBATCH, blobs, name_of, some, through
from _inputs.verdicts import Check, tried


class Subclass(np.ndarray):
    pass


def forms(rows, folder):
    """Whole numbers from 0 to 63 in every type that may hold them."""
    kinds = "int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 longdouble"
    for kind in [*kinds.split(), ">i2", ">u4", ">i8", ">f2", ">f4", ">f8"]:
        yield kind, rows.astype(kind)
    for kind in (mx.uint8, mx.int32, mx.int64, mx.float16, mx.bfloat16, mx.float32):
        yield f"mx.array {kind}", mx.array(rows.astype(np.float32)).astype(kind)
    yield "lazy mx.array", mx.array(rows.astype(np.float32)) + 0
    yield "strided mx.array", mx.array(np.repeat(rows, 2, 1).astype(np.float32))[:, ::2]
    yield "list", rows.tolist()
    yield "tuple", tuple(map(tuple, rows.tolist()))
    yield "list of arrays", list(rows)
    yield "list of array.array", [array.array("d", row) for row in rows]
    for kind in (mx.float32, mx.bfloat16):
        yield (
            f"list of mx.array {kind}",
            [mx.array(row.astype(np.float32)).astype(kind) for row in rows],
        )
    yield "objects", rows.astype(object)
    yield "Fortran", np.asfortranarray(rows)
    yield "strided", np.repeat(np.repeat(rows, 2, 0), 3, 1)[::2, ::3]
    yield "reversed", rows[::-1, ::-1].copy()[::-1, ::-1]
    yield "unaligned", np.frombuffer(b"x" + rows.tobytes(), offset=1).reshape(rows.shape)
    readonly = rows.copy()
    readonly.flags.writeable = False
    yield "read-only", readonly
    yield "subclass", rows.copy().view(Subclass)
    yield "masked array", np.ma.masked_array(rows)
    np.save(folder / "c.npy", rows)
    np.save(folder / "f.npy", np.asfortranarray(rows))
    np.save(folder / "b.npy", rows.astype(">f4"))
    for name, mode in (("c", "r"), ("c", "c"), ("f", "r"), ("b", "r")):
        yield f"memmap {name} {mode}", np.load(folder / f"{name}.npy", mmap_mode=mode)
    names = [f"column {i}" for i in range(rows.shape[1])]
    mixed = dict(
        zip(names, (rows[:, 0].astype(np.int8), rows[:, 1].astype(np.float32)), strict=False)
    )
    mixed |= {name: rows[:, i] for i, name in enumerate(names) if i > 1}
    for module in (pd, pl):
        yield f"{module.__name__} mixed", module.DataFrame(mixed)
    for kind in ("float32", "Int64", "Float32", "float64[pyarrow]"):
        yield f"pandas {kind}", pd.DataFrame(rows, columns=names).astype(kind)
    yield "pandas of integers as names", pd.DataFrame(rows)
    yield "pandas sparse", pd.DataFrame(rows).astype(pd.SparseDtype("float64", 0))
    yield "polars", pl.DataFrame(rows, schema=names)
    for kind in ("csr", "csc", "coo", "lil", "dok", "dia", "bsr"):
        for style in ("matrix", "array"):
            yield f"{kind}_{style}", getattr(sparse, f"{kind}_{style}")(rows)
    for kind in ("float32", "int64", "uint8"):
        yield f"csr {kind}", sparse.csr_array(rows.astype(kind))
    n, d = rows.shape
    order, columns = np.arange(d)[::-1], np.concatenate([np.arange(d)[::-1], np.arange(d)])
    data = np.concatenate([rows[:, order] - 1, np.ones_like(rows)], axis=1).ravel()
    index = np.tile(columns, n).astype(np.int32)
    starts = np.arange(n + 1, dtype=np.int32) * 2 * d
    yield "csr with duplicates, not sorted", sparse.csr_array((data, index, starts), (n, d))


def natural(form):
    """The same as scikit-learn may be given it."""
    if isinstance(form, mx.array):
        return np.array(form.astype(mx.float32) if form.dtype == mx.bfloat16 else form)
    if isinstance(form, list) and isinstance(form[0], mx.array):
        return [natural(row) for row in form]
    return form


def form_cases(quick, rng):
    """The same numbers in every container and of every type."""
    rows = blobs(rng)
    with tempfile.TemporaryDirectory() as place:
        for name, form in some(forms(rows, Path(place)), quick, 12):
            doors, hard = [door for door in DOORS if door.name != "fit_batches"], False
            if name.split("_")[0] not in ("coo", "dia", "bsr"):  # which have no slices
                doors = DOORS
            for door, arm, ours, expected in through(doors, form, rows, seen=rows):
                if door.name == "fit_batches":
                    hard = sparse.issparse(form) or name in ("longdouble", "objects")
                # Rows that are float32 let centres be rounded after each batch.
                rtol = 1e-4 if arm is MINIBATCH else 1e-6
                yield Check(
                    f"{name_of(door, arm)} of {name}", ours, expected, rtol, 1e-6, beyond=hard
                )
            types = tried(lambda form=form: dtypes(KMEANS.theirs, natural(form)))
            yield Check(f"dtypes of {name}", partial(dtypes, KMEANS.ours, form), types)
        doors = [door for door in DOORS if door.name != "fit_batches"]
        for name, form in some(other_forms(rows), quick, 9):
            plain = rows > 20 if "bool" in name else natural(form)
            plain = plain.astype(float) if "bool" in name else plain
            for door, arm, ours, expected in through(doors, form, plain, seen=rows):
                yield Check(f"{name_of(door, arm)} of {name}", ours, expected, atol=1e-6)


def other_forms(rows):
    """Containers of other numbers, or of nothing that can be used."""
    yield "bool", rows > 20
    yield "mx.array bool", mx.array(rows > 20)
    yield "csr bool", sparse.csr_array(rows > 20)
    yield "zero-strided columns", np.broadcast_to(rows[:, :1] ** 1.5, rows.shape)
    yield "text", np.full(rows.shape, "x")
    yield "bytes", np.full(rows.shape, b"x")
    yield "complex", rows.astype(complex)
    yield "complex mx.array", mx.array(rows.astype(np.complex64))
    yield "dates", rows.astype("M8[s]")
    yield "durations", rows.astype("m8[s]")
    yield "records", np.zeros(len(rows), dtype=[("a", "f8"), ("b", "f8")])
    yield "objects that are no numbers", np.full(rows.shape, object())
    yield "ragged lists", [[1.0], [1.0, 2.0], [1.0], [3.0]]
    yield "None", None
    yield "a number", 3.0
    yield (
        "pandas with text",
        pd.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "c": ["x"] * len(rows)}),
    )
    yield (
        "pandas with NA",
        pd.DataFrame({c: [pd.NA, *map(int, rows[1:, 0])] for c in "abc"}, dtype="Int64"),
    )


def dtypes(make, form):
    model = make().fit(form)
    found = model.labels_, model.cluster_centers_, model.transform(form), model.predict(form)
    return {"dtypes": [str(a.dtype) for a in found]}
