"""Models on disk: an estimator and its digits as one safetensors file, never as a pickle.

Every array is a tensor; everything else is JSON in the file's metadata. What is read is
checked before it is used, for a gather on MLX does not check its indices.
"""

from __future__ import annotations

import importlib
import json
import math
import operator
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.datasets.faults import Fault
from mnist_kmeans_mlx.persistence import tensors as store
from mnist_kmeans_mlx.persistence.files import write_atomically
from mnist_kmeans_mlx.persistence.tensors import Array, require

FORMAT = "mnist_kmeans_mlx"
FORMAT_VERSION = 1

# Class name in the file -> its module. A file never chooses a module.
_CLASSES = {
    "KMeans": "mnist_kmeans_mlx.estimator",
    "MiniBatchKMeans": "mnist_kmeans_mlx.minibatch",
    "BisectingKMeans": "mnist_kmeans_mlx.bisecting",
}

_NAME = re.compile(r"(?!__)[A-Za-z_]\w*", re.ASCII)


class ModelError(ValueError):
    """A model that cannot be written, or a file that is not a model this version reads."""


@dataclass(frozen=True, eq=False)
class Model:
    """A fitted estimator as it came back from a file.

    Attributes
    ----------
    estimator : estimator
        With the parameters and fitted attributes it was saved with.
    cluster_labels : dict of int to list of int, or None
        For each label the clusters that stand for it.
    metadata : Mapping
        What the caller of `save_model` wanted to keep.
    package_version, created : str
        The version that wrote the file, and when (ISO 8601, UTC).
    """

    estimator: Any
    cluster_labels: dict[int, list[int]] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    package_version: str = ""
    created: str = ""


def save_model(
    path: str | os.PathLike[str],
    estimator: Any,
    *,
    cluster_labels: Mapping[int, list[int]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fitted estimator to one safetensors file, atomically.

    Parameters
    ----------
    path : path-like
        An existing file is replaced in one step; a failed write leaves it as it was.
    estimator : KMeans, MiniBatchKMeans or BisectingKMeans
        Fitted. A `random_state` that is a generator is saved as None, with a warning, for
        the fit has advanced it; an `init` that is a function is refused.
    cluster_labels : dict of int to list of int, optional
        As `infer_cluster_labels` returns it.
    metadata : dict, optional
        Anything that JSON and arrays can hold, such as the checksum of the data.

    Returns
    -------
    Path
        Where the model is.

    Raises
    ------
    ModelError
        The estimator is not fitted, of a class without a file format, or holds something
        that cannot be written.
    OSError
        The file cannot be written.
    """
    name = type(estimator).__name__
    if name not in _CLASSES or type(estimator) is not _class(name):
        raise ModelError(f"cannot save {owned(estimator)}; {_remedy(estimator)}.")
    parameters = dict(estimator.get_params(deep=False))
    # scikit-learn's routing requests belong to the pipeline around a model, not to the model.
    attributes = {
        key: value
        for key, value in vars(estimator).items()
        if key not in parameters and key != "_metadata_request"
    }
    if not hasattr(estimator, "cluster_centers_"):
        raise ModelError(f"cannot save this {name}: it is not fitted yet.")
    if callable(parameters.get("init")):
        raise ModelError(
            "cannot save a model whose init is a function, for a model file holds no code: "
            "set init to a name or an array first."
        )
    if hasattr(parameters.get("random_state"), "random_sample"):
        warnings.warn("random_state is a generator; it is saved as None.", stacklevel=2)
        parameters["random_state"] = None
    tensors: dict[str, Array] = {}
    labels = None
    if cluster_labels is not None:
        labels = {
            operator.index(label): [operator.index(cluster) for cluster in clusters]
            for label, clusters in cluster_labels.items()
        }
    texts = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "package_version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "class": name,
        "parameters": json.dumps(_encode(parameters, "parameters", tensors)),
        "attributes": json.dumps(_encode(attributes, "attributes", tensors)),
        "cluster_labels": json.dumps(_encode(labels, "cluster_labels", tensors)),
        "metadata": json.dumps(_encode(dict(metadata or {}), "metadata", tensors)),
    }
    packed = store.pack(tensors, texts)
    with write_atomically(path) as file:
        file.write(packed)
    return Path(path)


def load_model(path: str | os.PathLike[str]) -> Model:
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Model
        Its estimator predicts what the saved one predicted: arrays come back bit for bit.

    Raises
    ------
    ModelError
        The file is damaged, is not a model, or is one of a later format version.
    OSError
        The file cannot be opened.
    """
    try:
        return _model(*store.read(path, FORMAT, "model"))
    except Fault as fault:
        raise ModelError(f"{os.fspath(path)} {fault}.") from None


def owned(estimator: Any) -> str:
    """Name an estimator so that scikit-learn's is not mistaken for ours.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> owned(KMeans())
    "scikit-learn's KMeans"
    """
    kind = type(estimator)
    theirs = kind.__module__.partition(".")[0] == "sklearn"
    return f"scikit-learn's {kind.__name__}" if theirs else f"a {kind.__name__}"


def _remedy(estimator: Any) -> str:
    if owned(estimator) == "scikit-learn's KMeans":
        return "save mnist_kmeans_mlx.KMeans.from_sklearn(estimator)"
    return f"what can be saved: {', '.join(_CLASSES)} of mnist_kmeans_mlx"


def _model(tensors: Mapping[str, Array], texts: Mapping[str, str]) -> Model:
    version = texts.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", version):
        raise Fault("is damaged: its format version is not a number")
    if int(version) > FORMAT_VERSION:
        raise Fault(
            f"was written by a later version (format {int(version)}; this one reads up to "
            f"{FORMAT_VERSION}): upgrade mnist-kmeans-mlx to read it"
        )
    with store.parsing():
        name = texts["class"]
        if name not in _CLASSES:
            raise Fault(f"holds a {name[:40]!r}, which this version does not know")
        read = {
            key: _decode(json.loads(texts[key]), tensors)
            for key in ("parameters", "attributes", "cluster_labels", "metadata")
        }
        tables = all(isinstance(read[key], dict) for key in ("parameters", "metadata"))
        require(tables, "parameters and metadata must be tables")
        estimator = _class(name)(**read["parameters"])
        estimator._validate_params()
        for key, value in read["attributes"].items():
            fitted = _NAME.fullmatch(key) and not hasattr(type(estimator), key)
            require(bool(fitted), f"{key[:40]!r} is no fitted attribute")
            setattr(estimator, key, value)
        _check(estimator, read["cluster_labels"])
        return Model(
            estimator,
            read["cluster_labels"],
            read["metadata"],
            texts["package_version"],
            texts["created"],
        )


def _check(estimator: Any, cluster_labels: Any) -> None:
    """Refuse a fitted state that would let `predict` compute nonsense or crash."""
    centers = estimator.cluster_centers_
    matrix = isinstance(centers, np.ndarray) and centers.ndim == 2 and centers.size > 0
    require(matrix, "its centres are not a matrix")
    finite = centers.dtype.kind == "f" and bool(np.isfinite(centers).all())
    require(finite, "its centres are not finite numbers")
    k, d = centers.shape
    require(estimator.n_features_in_ == d, "its centres and its number of features differ")
    labels = getattr(estimator, "labels_", np.zeros(0, np.int32))
    whole = isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu"
    require(whole, "its labels are not whole numbers")
    clusters = [labels]
    if cluster_labels is not None:
        whole = all(type(label) is int and 0 <= label < 2**63 for label in cluster_labels)
        require(whole, "a digit is not a whole number from 0")
        clusters += [np.array(part, dtype=np.int64) for part in cluster_labels.values()]
    for part in clusters:
        known = not part.size or 0 <= part.min() <= part.max() < k
        require(known, f"a label is not one of its {k} clusters")
    for name, kind in (("inertia_", Real), ("n_iter_", Integral)):
        require(isinstance(getattr(estimator, name, 0), kind), f"its {name} is not a number")
    outputs = getattr(estimator, "_n_features_out", k)
    require(outputs == k, "its centres and its number of outputs differ")
    estimator._check_state()


def _encode(value: Any, name: str, tensors: dict[str, Array]) -> Any:
    """Convert to JSON types; arrays move to `tensors`, named for their place."""
    if value is None or isinstance(value, bool | str) or type(value) is int:
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, list):
        return [_encode(item, f"{name}.{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, tuple):
        return {"$tuple": _encode(list(value), name, tensors)}
    if isinstance(value, dict):
        items = {key: _encode(item, f"{name}.{key}", tensors) for key, item in value.items()}
        if all(isinstance(key, str) and not key.startswith("$") for key in items):
            return items
        return {"$items": [[_encode(key, name, tensors), item] for key, item in items.items()]}
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype.kind in "OU" and all(isinstance(text, str) for text in array.flat):
            kind = "object" if array.dtype.kind == "O" else "str"
            return {"$strings": array.tolist(), "dtype": kind}
        if store.is_storable(array):
            tensors[name] = array
            return {"$scalar" if isinstance(value, np.generic) else "$array": name}
    raise ModelError(f"cannot save {name}: a model file does not hold a {type(value).__name__}.")


def _decode(value: Any, tensors: Mapping[str, Array]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value), "")
    if mark == "$array":
        return tensors[value[mark]]
    if mark == "$scalar":
        return tensors[value[mark]][()]
    if mark == "$float":
        return float(value[mark])
    if mark == "$tuple":
        return tuple(_decode(value[mark], tensors))
    if mark == "$items":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in value[mark]}
    if mark == "$strings":
        return np.array(value[mark], dtype=object if value["dtype"] == "object" else np.str_)
    return {key: _decode(item, tensors) for key, item in value.items()}


def _class(name: str) -> Any:
    return getattr(importlib.import_module(_CLASSES[name]), name)
