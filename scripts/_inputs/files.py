"""The same matrix in files of every format."""

import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

import mnist_kmeans_mlx as mk
from _inputs.doors import KMEANS, blobs, fit
from _inputs.verdicts import Check, Outcome, tried
from mnist_kmeans_mlx.datasets.mnist import idx_bytes

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from damage import safetensors_bytes


def file_cases(quick, rng):
    """The same matrix in files of every format: the same rows, and the same fit."""
    whole = blobs(rng)
    matrices = {
        "whole": whole,
        "fractions": whole / 7,
        "large and small": whole * 10.0 ** rng.integers(-300, 300, whole.shape),
        "float32": (whole / 7).astype(np.float32),
        "float16": (whole / 8).astype(np.float16),
        "uint8": whole.astype(np.uint8),
        "int64 near its end": whole.astype(np.int64) + np.iinfo(np.int64).min,
        "uint64 near its end": whole.astype(np.uint64) + np.uint64(2**63),
        "bool": whole > 20,
    }
    with tempfile.TemporaryDirectory() as place:
        for number, (name, matrix) in enumerate(matrices.items()):
            for suffix, write in WRITERS.items():
                path = Path(place, f"{number}{suffix}")
                try:
                    write(path, matrix)
                except TypeError:
                    continue  # a format without this type
                yield from cases_of_file(f"{name} in *{suffix}", path, matrix)


def cases_of_file(name, path, matrix):
    as_text = path.suffix in (".csv", ".tsv")
    expected = Outcome({"rows": matrix, "dtype": matrix.dtype.str})
    if as_text:
        expected = Outcome({"rows": matrix.astype(float), "dtype": "<f8"})
    yield Check(
        f"load_matrix of {name}",
        partial(loaded, mk.load_matrix, path),
        expected,
        rtol=0,
        beyond=as_text and matrix.dtype == bool,  # words
    )
    if path.suffix in (".npy", ".parquet") and "fortran" not in path.name:
        yield Check(f"open_rows of {name}", partial(loaded, mk.open_rows, path), expected, rtol=0)
        if matrix.dtype.kind == "f" and np.abs(matrix).max().astype(float) > 1e100:
            return
        theirs = tried(partial(fit, KMEANS.ours, matrix, None))
        yield Check(f"KMeans.fit of {name}", partial(fit, KMEANS.ours, path, None), theirs, rtol=0)


def loaded(load, path):
    rows = np.asarray(load(path)[:])
    return {"rows": rows, "dtype": rows.dtype.str}


def write_safetensors(path, matrix):
    codes = {
        "f8": "F64", "f4": "F32", "f2": "F16", "u1": "U8", "i8": "I64", "u8": "U64", "b1": "BOOL",
    }  # fmt: skip
    path.write_bytes(safetensors_bytes({"a": (codes[matrix.dtype.str[1:]], matrix)}))


def write_idx(path, matrix):
    if matrix.dtype != np.uint8:
        raise TypeError("bytes only")
    path.write_bytes(idx_bytes(matrix))


def write_text(path, matrix, comma, **options):
    # All digits of its value, not the shortest that tell a float32 from others.
    matrix = matrix.astype(float) if matrix.dtype.kind == "f" else matrix
    named = pd.DataFrame(matrix, columns=[f"column {i}" for i in range(matrix.shape[1])])
    named.to_csv(path, sep=comma, index=False, **options)


WRITERS = {
    ".npy": np.save,
    "fortran.npy": lambda path, a: np.save(path, np.asfortranarray(a)),
    "swapped.npy": lambda path, a: np.save(path, a.astype(a.dtype.newbyteorder(">"))),
    ".npz": lambda path, a: np.savez(path, a=a),
    "packed.npz": lambda path, a: np.savez_compressed(path, a=a),
    ".csv": partial(write_text, comma=","),
    "crlf.csv": partial(write_text, comma=",", lineterminator="\r\n"),
    "bare.csv": partial(write_text, comma=",", header=False),
    ".tsv": partial(write_text, comma="\t"),
    ".safetensors": write_safetensors,
    ".parquet": lambda path, a: pd.DataFrame(a).add_prefix("c").to_parquet(path),
    "-images-idx2-ubyte": write_idx,
}
