"""Checkpoints on disk: how far a fit has come, as one safetensors file, never as a pickle."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from scipy.sparse import issparse

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.engine.lloyd import Run, State
from mnist_kmeans_mlx.engine.restarts import Standing
from mnist_kmeans_mlx.persistence import safetensors
from mnist_kmeans_mlx.persistence.safetensors import Array, Damage

FORMAT = "mnist_kmeans_mlx.checkpoint"
FORMAT_VERSION = 3

_TWISTER_WORDS = 624
# What the file leaves out, as it stands in a `Run` or `State` that was read.
FOUND_AGAIN: Mapping[str, Array] = {
    "labels": np.zeros(0, np.int32),
    "sums": np.zeros(0),
    "counts": np.zeros(0),
}
# Bytes of rows that the checksum takes at once.
BLOCK = 16 << 20


@dataclass(frozen=True, eq=False)
class Record:
    """What a checkpoint holds.

    Attributes
    ----------
    identity : dict
        What two fits share that find the same: parameters, shape and checksum of the data.
    seconds : float
        How long the fit has taken so far.
    generator : dict
        ``RandomState.get_state(legacy=False)`` of a Mersenne Twister.
    standing : Standing
        How far the fit has come. Labels and sums are not kept: the centres tell what they are.
    """

    identity: Mapping[str, Any]
    seconds: float
    generator: Mapping[str, Any]
    standing: Standing

    def pack(self) -> list[bytes]:
        """Lay out the file: its bytes, in pieces to write in turn."""
        twister = dict(self.generator["state"])
        tensors: dict[str, Array] = {"generator": twister.pop("key")}
        progress = {
            "seconds": self.seconds,
            "restart": self.standing.restart,
            "best": _without_arrays("best", self.standing.best, tensors),
            "state": _without_arrays("state", self.standing.state, tensors),
            "generator": {**self.generator, "state": twister},
        }
        texts = {
            "format": FORMAT,
            "format_version": str(FORMAT_VERSION),
            "package_version": __version__,
            "identity": json.dumps(self.identity),
            "progress": json.dumps(progress),
        }
        return safetensors.pack(tensors, texts)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Read a checkpoint.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Record
        Fit to be gone on from: shapes, indices and numbers are what they must be.

    Raises
    ------
    Damage
        The file is damaged, is not a checkpoint, or is one of another version, whose fits may
        find something else.
    OSError
        The file cannot be opened.
    """
    return _parse(*safetensors.read(path, FORMAT, "checkpoint"))


def unpack_record(file: IO[bytes]) -> Record:
    """Read a checkpoint from an open file, as `read_record` does."""
    return _parse(*safetensors.unpack(file, FORMAT, "checkpoint"))


def _parse(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> Record:
    version = texts.get("package_version", "")
    if version != __version__ or texts.get("format_version") != str(FORMAT_VERSION):
        raise Damage(
            f"was written by mnist-kmeans-mlx {version[:20]!r} and this is {__version__}: finish "
            "it with that version, or begin anew"
        )
    try:
        identity, progress = json.loads(texts["identity"]), json.loads(texts["progress"])
        (_, d), k = identity["shape"], identity["n_clusters"]
        seconds, generator = float(progress["seconds"]), progress["generator"]
        key = generator["state"]["key"] = tensors["generator"]
        _require(key.dtype == np.uint32 and key.shape == (_TWISTER_WORDS,), "its random state")
        _require(0 <= generator["state"]["pos"] <= _TWISTER_WORDS, "its random state")
        np.random.RandomState().set_state(generator)  # refuses what else may be wrong with it
        standing = Standing(
            progress["restart"],
            _with_arrays(Run, "best", progress["best"], tensors),
            _with_arrays(State, "state", progress["state"], tensors),
        )
        _require(0 <= standing.restart <= identity["n_init"], "its number of restarts")
        _require((standing.restart == 0) == (standing.best is None), "its best restart")
        for run in (standing.best, standing.state):
            if run is not None:
                _check(run, d, k)
        return Record(identity, seconds, generator, standing)
    except KeyError as error:
        raise Damage(f"is damaged: it lacks {error.args[0]!r}") from error
    except (ArithmeticError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise Damage(f"is damaged: {str(error).partition(chr(10))[0].rstrip('.')}") from error


def _without_arrays(name: str, part: Run | State | None, tensors: dict[str, Array]) -> Any:
    """What JSON holds of a part; its arrays move to `tensors`, named for where they belong."""
    if part is None:
        return None
    fields = [field.name for field in dataclasses.fields(part) if field.name not in FOUND_AGAIN]
    values = {field: getattr(part, field) for field in fields}
    for key in [key for key, value in values.items() if isinstance(value, np.ndarray)]:
        tensors[f"{name}.{key}"] = values.pop(key)
    return values


def _with_arrays(kind: Any, name: str, values: Any, tensors: Mapping[str, Array]) -> Any:
    if values is None:
        return None
    start = f"{name}."
    arrays = {key.removeprefix(start): a for key, a in tensors.items() if key.startswith(start)}
    fields = [field.name for field in dataclasses.fields(kind)]
    found_again = {key: a for key, a in FOUND_AGAIN.items() if key in fields}
    return kind(**values, **arrays, **found_again)


def _check(run: Run | State, d: int, k: int) -> None:
    """Refuse what would let a fit compute nonsense or crash."""
    for field in dataclasses.fields(run):
        value, what = getattr(run, field.name), f"its {field.name}"
        if field.name in ("centers", "previous"):
            _require(value.dtype == np.float64 and value.shape == (k, d), what)
            _require(bool(np.isfinite(value).all()), what)
        elif field.name not in FOUND_AGAIN:
            kinds = {"converged": str, "shift": float, "inertia": float}
            _require(type(value) is kinds.get(field.name, int), what)
    _require(run.converged in ("", "tol", "strict") and run.n_iter > 0, "its iterations")


def _require(sound: bool, what: str) -> None:
    if not sound:
        raise ValueError(f"{what} cannot be")


def checksum(*tables: Any) -> str:
    """SHA-256 of arrays and CSR matrices, with their dtypes and shapes."""
    digest = hashlib.sha256()
    for table in tables:
        if table is None:
            digest.update(b"none\n")
            continue
        for array in (table.data, table.indices, table.indptr) if issparse(table) else (table,):
            digest.update(f"{array.dtype} {array.shape}\n".encode())
            step = max(1, BLOCK // max(1, array[:1].nbytes))
            for start in range(0, len(array), step):
                digest.update(np.ascontiguousarray(array[start : start + step]).data)
    return digest.hexdigest()
