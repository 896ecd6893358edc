"""The result of an experiment, frozen, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mnist_kmeans_mlx import __version__

if TYPE_CHECKING:
    from mnist_kmeans_mlx.scores import Scores

STAGES = ("load", "fit", "label", "predict", "score")


@dataclass(frozen=True)
class Cluster:
    """One cluster after the fit: the digit it stands for and the share of it that is right."""

    index: int
    size: int
    digit: int | None = None
    purity: float | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """What one experiment found.

    Attributes
    ----------
    data : dict
        As `Data.to_dict` returns it.
    parameters : dict
        Of the estimator; its ``random_state`` is `seed`.
    seed : int
        Given, or drawn: with it the experiment can be repeated.
    n_clusters, n_features, n_iter : int
    inertia : float
        SSE of the training data; of MNIST, in units of pixels / 255.
    device : str
        Where it was computed.
    way : str
        How the nearest centres were found, and why so.
    rechecked : int
        Rows that were decided again in float64.
    clusters : tuple of Cluster
    train, test : Scores or None
        None where there are no labels.
    missing : tuple of int
        Classes that no cluster stands for.
    timings : dict of str to float
        Seconds of wall clock for each of `STAGES`; 0 where there was nothing to do.
    environment : dict
        Hardware, device and versions.
    started : str
        ISO 8601, UTC.
    command : str
        What repeats the experiment in a shell.
    unit : float
        What the features were divided by for `inertia`; `estimator` saw them undivided.
    estimator, cluster_labels
        The fitted estimator and its digits, to be saved or drawn.
    interrupted : bool
        Whether the fit was stopped before it was done.
    history : list of list of float, or None
        Inertia that each iteration of each restart found, in the units of `inertia`. None where
        it is not known from the beginning.
    """

    data: Mapping[str, Any]
    parameters: Mapping[str, Any]
    seed: int
    n_clusters: int
    n_features: int
    n_iter: int
    inertia: float
    device: str
    way: str
    rechecked: int
    clusters: tuple[Cluster, ...]
    train: Scores | None
    test: Scores | None
    missing: tuple[int, ...]
    timings: Mapping[str, float]
    environment: Mapping[str, Any]
    started: str
    command: str
    unit: float
    estimator: Any = field(repr=False)
    cluster_labels: Mapping[int, list[int]] | None = field(repr=False)
    interrupted: bool = False
    history: list[list[float]] | None = field(default=None, repr=False)

    @property
    def train_accuracy(self) -> float | None:
        """Share of the training rows whose cluster stands for their label."""
        return None if self.train is None else float(self.train.accuracy)

    @property
    def test_accuracy(self) -> float | None:
        """Share of the test rows whose cluster stands for their label."""
        return None if self.test is None else float(self.test.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the estimator, as JSON holds it."""
        return plain(
            {
                "train_accuracy": self.train_accuracy,
                "test_accuracy": self.test_accuracy,
                "inertia": self.inertia,
                "n_iter": self.n_iter,
                "n_clusters": self.n_clusters,
                "n_features": self.n_features,
                "seed": self.seed,
                "device": self.device,
                "way": self.way,
                "rechecked_rows": self.rechecked,
                "timings": self.timings,
                "missing_digits": self.missing,
                "parameters": self.parameters,
                "clusters": [vars(cluster) for cluster in self.clusters],
                "scores": {"train": self.train, "test": self.test},
                "history": self.history,
                "data": self.data,
                "environment": self.environment,
                "started": self.started,
                "version": __version__,
                "command": self.command,
            }
        )

    def log_entry(self) -> dict[str, Any]:
        """Return what the experiment log keeps."""
        return plain(
            {
                "date": self.started,
                "n_clusters": self.n_clusters,
                "seconds": self.timings["fit"],
                "train_accuracy": self.train_accuracy,
                "test_accuracy": self.test_accuracy,
                "inertia": self.inertia,
                "n_iter": self.n_iter,
                "device": self.device,
                "machine": self.environment.get("machine"),
                "data": self.data.get("name"),
                "seed": self.seed,
                "version": __version__,
                "command": self.command,
            }
        )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a saved model names the digits of some data."""

    data: Mapping[str, Any]
    train: Scores
    test: Scores | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as JSON holds them."""
        return plain(
            {
                "train_accuracy": self.train.accuracy,
                "test_accuracy": None if self.test is None else self.test.accuracy,
                "seconds": self.seconds,
                "scores": {"train": self.train, "test": self.test},
                "data": self.data,
                "version": __version__,
            }
        )


def plain(value: Any) -> Any:
    """Turn NumPy's numbers and arrays, tuples and keys into what JSON holds; NaN into None."""
    if hasattr(value, "to_dict"):
        return plain(value.to_dict())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)
