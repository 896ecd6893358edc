"""The contents of a report: a model with its data, and results of commands as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mnist_kmeans_mlx.experiment import ExperimentError
from mnist_kmeans_mlx.report.parts import data_name

if TYPE_CHECKING:
    from mnist_kmeans_mlx.experiment import Data
    from mnist_kmeans_mlx.experiment.portrait import Face, Portrait
    from mnist_kmeans_mlx.experiment.records import Record
    from mnist_kmeans_mlx.persistence import Model

Values = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Material:
    """What a report shows.

    Attributes
    ----------
    portrait : Portrait or None
        The model; None of a report about JSON files only.
    fits, sweeps, comparisons : tuple of Mapping
        Checked JSON of each kind.
    steps : tuple of (str, str)
        How to reproduce the files and then the report: in words, and as a command.
    notes : tuple of str
        What is missing, and why.
    """

    portrait: Portrait | None = None
    fits: tuple[Values, ...] = ()
    sweeps: tuple[Values, ...] = ()
    comparisons: tuple[Values, ...] = ()
    steps: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    made_on: Values = field(default_factory=dict)

    @property
    def main(self) -> Values | None:
        """The fit that the page is about: that of the model, or the first where there is none."""
        if self.portrait is None:
            return self.fits[0] if self.fits else None
        return next((fit for fit in self.fits if self._is_of_the_model(fit)), None)

    def _is_of_the_model(self, fit: Values) -> bool:
        portrait = self.portrait
        if portrait is None or portrait.inertia is None:
            return False
        close = abs(fit["inertia"] - portrait.inertia) <= 1e-9 * max(1.0, abs(portrait.inertia))
        return close and [part["size"] for part in fit["clusters"]] == [
            face.size for face in portrait.faces
        ]

    @property
    def faces(self) -> tuple[Face, ...]:
        """The clusters: of the model, or those in the JSON of a fit."""
        if self.portrait is not None:
            return self.portrait.faces
        from mnist_kmeans_mlx.experiment.portrait import Face

        clusters = self.main["clusters"] if self.main else ()
        return tuple(Face(c["index"], c["size"], c["digit"], c["purity"]) for c in clusters)

    def scores(self, part: str) -> Values | None:
        """Scores of ``"train"`` or ``"test"``, as JSON holds them."""
        found = None if self.portrait is None else getattr(self.portrait, part)
        if found is not None:
            scores: Values = found.to_dict()
            return scores
        return self.main["scores"][part] if self.main else None

    @property
    def data(self) -> Values:
        """What was clustered."""
        if self.portrait is not None:
            known = self.portrait.data or self.portrait.metadata.get("data")
            if isinstance(known, Mapping):
                return known
        for values in (self.main, *self.comparisons, *self.sweeps):
            if values is not None and isinstance(values.get("data"), Mapping):
                return values["data"]
        return {}

    @property
    def data_name(self) -> str:
        """The name of the data, as people write it."""
        return data_name(self.data)

    @property
    def inertia(self) -> float | None:
        """SSE of the training data."""
        if self.portrait is not None:
            return self.portrait.inertia
        return self.main["inertia"] if self.main else None

    @property
    def n_iter(self) -> int | None:
        """Iterations of the best restart."""
        if self.portrait is not None:
            return self.portrait.n_iter
        return self.main["n_iter"] if self.main else None

    @property
    def fit_command(self) -> str:
        """The command of the fit; empty if it is unknown."""
        if self.main:
            return str(self.main["command"])
        if self.portrait is not None:
            return str(self.portrait.metadata.get("command") or "")
        return ""

    @property
    def environment(self) -> Values:
        """Where the fit, or else a comparison or sweep, ran."""
        if self.main:
            return self.main["environment"]
        if self.portrait is not None:
            known = self.portrait.metadata.get("environment")
            return known if isinstance(known, Mapping) else {}
        for values in (*self.comparisons, *self.sweeps):
            for key in ("machine", "environment"):
                if isinstance(values.get(key), Mapping):
                    return values[key]
        return {}


def gather(
    paths: Sequence[str],
    *,
    data: str = "auto",
    device: str = "auto",
    command: str = "",
    **named: Any,
) -> Material:
    """Read models and results.

    Parameters
    ----------
    paths : sequence of str
        At most one model; any number of JSON files.
    data : str
        What the model was fitted on: a name or a path. ``"auto"`` is the bundled MNIST,
        if the model was fitted on it.
    device : {"auto", "gpu", "cpu"}
    command : str
        What makes this report again.
    **named
        ``key``, ``labels``, ``header`` and ``columns``, as for `experiment.load`.

    Raises
    ------
    DatasetError, DeviceError, ModelError
    ExperimentError
        A file is no result, there are two models, or the data is not the model's.
    OSError
    """
    from mnist_kmeans_mlx.device import describe
    from mnist_kmeans_mlx.experiment.portrait import portray
    from mnist_kmeans_mlx.experiment.records import looks_like_json, read_record
    from mnist_kmeans_mlx.persistence import load_model

    records, models = {}, {}
    for path in paths:
        if looks_like_json(path):
            records[path] = read_record(path)
        else:
            models[path] = load_model(path)
    if len(models) > 1:
        raise ExperimentError("a report is about one model, and these are several.")
    portrait, note = None, ""
    for model in models.values():
        source, note = _data_of(model, data, **named)
        members = max(3, min(10, 1200 // len(model.estimator.cluster_centers_)))
        portrait = portray(model, source, members=members, device=device)

    def of_kind(kind: str) -> tuple[Values, ...]:
        return tuple(record.values for record in records.values() if record.kind == kind)

    found = Material(
        portrait=portrait,
        fits=of_kind("fit"),
        sweeps=of_kind("sweep"),
        comparisons=of_kind("compare"),
        notes=(note,) if note else (),
        made_on=describe(device),
    )
    return replace(found, steps=_steps(found, list(models), records, command))


def _steps(
    material: Material, models: Sequence[str], records: Mapping[str, Record], command: str
) -> tuple[tuple[str, str], ...]:
    """Commands that write the files, and the report."""
    saves, others = "".join(f" --save {shlex.quote(path)}" for path in models), []
    main = material.fit_command
    for path, record in records.items():
        to_file = f" --json > {shlex.quote(path)}"
        if record.values is material.main:
            saves += to_file
        else:
            others.append((f"{record.kind} again".capitalize(), record.values["command"] + to_file))
    first = [("Find the clusters", main + saves)] if main else []
    return (*first, *others, ("Make this page", command))


def _data_of(model: Model, data: str, **named: Any) -> tuple[Data | None, str]:
    """Data that a model was fitted on, or why there is none."""
    from mnist_kmeans_mlx.experiment import load

    if data != "auto" or any(value is not None for value in named.values()):
        found = load(data, **named)
        return found.held("without --data the report shows the model alone"), ""
    facts = model.metadata.get("data")
    facts = facts if isinstance(facts, Mapping) else {}
    if model.estimator.n_features_in_ == 784:
        mnist = _bundled(model, facts.get("sha256"))
        if mnist is not None:
            return mnist, ""
    name = facts.get("name", "The data")
    return None, (
        f"{name}, on which the model was fitted, is not at hand: name it with --data to see "
        "members, scores and the map."
    )


def _bundled(model: Model, checksum: Any) -> Data | None:
    """The bundled MNIST if a model was fitted on it, in the unit of the fit."""
    from mnist_kmeans_mlx.experiment import load
    from mnist_kmeans_mlx.experiment.data import WHITE

    found = load()
    if checksum is not None:
        return found if checksum == found.facts["sha256"] else None
    # A model saved from Python does not name its data: compare labels instead.
    labels = getattr(model.estimator, "labels_", ())
    if len(labels) != len(found.train):
        return None
    if _alike(model.estimator.predict(found.train), labels):
        return found
    shares = found.train / WHITE
    if not _alike(model.estimator.predict(shares), labels):
        return None
    test = None if found.test is None else found.test / WHITE
    return replace(found, train=shares, test=test, unit=1.0)


def _alike(found: Any, labels: Any) -> bool:
    """Whether labels agree with those of a fit, except a few that differ by rounding."""
    return float((found == labels).mean()) > 0.99
