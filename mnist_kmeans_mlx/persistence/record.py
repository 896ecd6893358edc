"""Checkpoints on disk: the progress of a fit, as one safetensors file, never as a pickle."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.datasets.faults import Fault
from mnist_kmeans_mlx.engine.lloyd import Run, State
from mnist_kmeans_mlx.engine.restarts import Standing
from mnist_kmeans_mlx.persistence import tensors as store
from mnist_kmeans_mlx.persistence.tensors import Array

FORMAT = "mnist_kmeans_mlx.checkpoint"
FORMAT_VERSION = 3

_TWISTER_WORDS = 624
# Fields that the file leaves out, and their values after reading.
FOUND_AGAIN: Mapping[str, Array] = {
    "labels": np.zeros(0, np.int32),
    "sums": np.zeros(0),
    "counts": np.zeros(0),
}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a checkpoint holds.

    Attributes
    ----------
    identity : dict
        What determines the result: parameters, shape and checksum of the data.
    seconds : float
        How long the fit has taken so far.
    generator : dict
        ``RandomState.get_state(legacy=False)`` of a Mersenne Twister.
    standing : Standing
        Progress of the fit. Labels and sums are left out: they are recomputed from the centres.
    """

    identity: Mapping[str, Any]
    seconds: float
    generator: Mapping[str, Any]
    standing: Standing

    def pack(self) -> bytes:
        """Return the file."""
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
        return store.pack(tensors, texts)


def read_snapshot(path: str | os.PathLike[str]) -> Snapshot:
    """Read a checkpoint whose shapes, dtypes and ranges are such that a fit can resume from it.

    Raises
    ------
    Fault
        The file is damaged, is not a checkpoint, or is one of another version, whose fits may
        find something else.
    OSError
        The file cannot be opened.
    """
    return _parse(*store.read(path, FORMAT, "checkpoint"))


def unpack_snapshot(data: bytes) -> Snapshot:
    """Read a checkpoint from what `Snapshot.pack` returned."""
    return _parse(*store.unpack(data))


def _parse(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> Snapshot:
    version = texts.get("package_version", "")
    if version != __version__ or texts.get("format_version") != str(FORMAT_VERSION):
        raise Fault(
            f"was written by mnist-kmeans-mlx {version[:20]!r} and this is {__version__}: finish "
            "it with that version, or start again"
        )
    with store.parsing():
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
        return Snapshot(identity, seconds, generator, standing)


def _without_arrays(name: str, part: Run | State | None, tensors: dict[str, Array]) -> Any:
    """Fields of a part in JSON types; arrays move to `tensors`, named for their place."""
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
    store.require(sound, f"{what} cannot be")
