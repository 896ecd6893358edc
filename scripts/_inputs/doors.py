"""Entry points for rows (doors): estimators, functions and methods, each with a reference."""

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn import cluster

import mnist_kmeans_mlx as mk
from _inputs.oracles import Classified, Majority, Spherical
from _inputs.verdicts import tried

K = 3
# In memory if possible: the delays of a disk do not matter here.
IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Pair(NamedTuple):
    """An estimator of ours, and a reference that must give the same results."""

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    unit_free: bool = False


def arm(name, ours, theirs, unit_free=False, **common):
    common = {"n_clusters": K, "random_state": 0} | common
    return Pair(
        name,
        functools.partial(ours, **common, device="cpu"),
        functools.partial(theirs, **common),
        unit_free,
    )


KMEANS = arm("KMeans", mk.KMeans, cluster.KMeans, n_init=2)
COSINE = arm(
    "KMeans cosine", functools.partial(mk.KMeans, metric="cosine"), Spherical, True, n_init=1
)
# Without the rules to stop that do not scale with the rows.
MINIBATCH = arm(
    "MiniBatchKMeans",
    mk.MiniBatchKMeans,
    cluster.MiniBatchKMeans,
    batch_size=16,
    max_iter=4,
    max_no_improvement=None,
)
BISECTING = arm("BisectingKMeans", mk.BisectingKMeans, cluster.BisectingKMeans, tol=0)
CLASSIFIER = Pair(
    "ClusterClassifier",
    lambda **more: Classified(mk.ClusterClassifier(KMEANS.ours(**more))),
    lambda **more: Classified(Majority(KMEANS.theirs(**more))),
)
PLAIN = (KMEANS, MINIBATCH, BISECTING)
CLUSTERERS = (*PLAIN, COSINE)
EVERY = (*CLUSTERERS, CLASSIFIER)


def learnt(model):
    return function((model.cluster_centers_, model.labels_, model.inertia_))


def fit(make, X, w):
    return learnt(make().fit(X, sample_weight=w))


def function(result):
    """What functions return, by name."""
    return dict(zip(("centers", "labels", "inertia"), result, strict=False))


def in_halves(make, X, w):
    half = (X.shape[0] if getattr(X, "shape", ()) else len(X)) // 2
    return learnt(make().fit_batches([X[:half], X[half:]]))


def with_checkpoint(make, X, w):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        return learnt(mk.Checkpoint(Path(folder, "c")).fit(make(), X, sample_weight=w))


def written(write, name, model, X):
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        write(model, X, Path(folder, "a.npy"))
        return {name: np.load(Path(folder, "a.npy"))}


class Door(NamedTuple):
    """An entry point: of estimators to be fitted, or of fitted ones."""

    name: str
    arms: tuple
    ours: Callable[[Any, Any, Any], dict]
    theirs: Callable[[Any, Any, Any], dict]
    asks: bool = False
    weighted: bool = False


def door(name, arms, ours, theirs=None, **kind):
    return Door(name, arms, ours, theirs or ours, **kind)


def fits(name, key):
    """A method that fits and returns one array."""

    def use(make, X, w):
        return {key: getattr(make(), name)(X, sample_weight=w)}

    return door(name, CLUSTERERS, use, weighted=True)


def calls(name, **options):
    """A function of the package, and scikit-learn's."""

    def use(module, **more):
        given = {"random_state": 0, **options, **more}
        call = getattr(module, name)
        return lambda make, X, w: function(call(X, K, sample_weight=w, **given))

    return door(name, (KMEANS,), use(mk, device="cpu"), use(cluster), weighted=True)


def answers(name, key, arms=CLUSTERERS):
    """A method that is asked about rows."""
    return door(name, arms, lambda model, X, w: {key: getattr(model, name)(X)}, asks=True)


def writes(name, key):
    """The function that writes what a method answers."""
    write, answer = getattr(mk, f"{name}_to"), answers(name, key).ours
    ours = functools.partial(written, write, key)
    return door(f"{name}_to", CLUSTERERS, lambda model, X, w: ours(model, X), answer, asks=True)


FITS = (
    door("fit", EVERY, fit, weighted=True),
    fits("fit_predict", "labels"),
    fits("fit_transform", "distances"),
    door(
        "partial_fit",
        (MINIBATCH,),
        lambda make, X, w: learnt(
            make().partial_fit(X, sample_weight=w).partial_fit(X, sample_weight=w)
        ),
        weighted=True,
    ),
    door("fit_batches", (KMEANS, COSINE), in_halves, fit),
    door("Checkpoint.fit", (KMEANS, COSINE), with_checkpoint, fit, weighted=True),
    calls("k_means", n_init=2),
    calls("kmeans_plusplus"),
)
ASKS = (
    answers("predict", "labels", EVERY),
    answers("predict_proba", "shares", (CLASSIFIER,)),
    answers("transform", "distances"),
    door(
        "score",
        CLUSTERERS,
        lambda model, X, w: {"inertia": model.score(X, sample_weight=w)},
        asks=True,
        weighted=True,
    ),
    writes("predict", "labels"),
    writes("transform", "distances"),
)
DOORS = FITS + ASKS


def through(doors, X, plain=None, *, seen=None, weights=None, plain_weights=None, arms=EVERY):
    """Every door and estimator: (door, arm, our call with X, outcome of theirs with `plain`).

    Those that are asked were fitted on `seen`, by default the rows that they are asked about.
    """
    plain = X if plain is None else plain
    plain_weights = weights if plain_weights is None else plain_weights
    for way in doors:
        for one in way.arms:
            if one not in arms:
                continue
            theirs = one.theirs
            ours = one.ours
            if way.asks:
                ours = functools.partial(fitted, one, True, X if seen is None else seen)
                theirs = functools.partial(fitted, one, False, plain if seen is None else seen)
            call = functools.partial(passed, way.asks, way.ours, ours, X, weights)
            answer = functools.partial(passed, way.asks, way.theirs, theirs, plain, plain_weights)
            outcome = remembered((way.name, one.name), answer, plain, seen, plain_weights)
            yield way, one, call, outcome


def passed(asks, use, source, X, weights):
    return use(source() if asks else source, X, weights)


_outcomes: dict = {}
_models: dict = {}


def remembered(names, answer, *inputs):
    """Outcome of their call, which is the same for the same rows."""
    marks = [mark(rows) for rows in inputs]
    if any(one is None for one, rows in zip(marks, inputs, strict=True) if rows is not None):
        return tried(answer)
    key = (*names, *marks)
    if key not in _outcomes:
        _outcomes[key] = tried(answer)
    return _outcomes[key]


def fitted(one, of_ours, rows):
    """An estimator that was fitted on some rows."""
    make = one.ours if of_ours else one.theirs
    if mark(rows) is None:
        return make().fit(rows)
    key = one.name, of_ours, mark(rows)
    if key not in _models:
        _models[key] = make().fit(rows)
    return _models[key]


def mark(rows):
    """What tells an array of numbers from others; None for anything else."""
    if not isinstance(rows, np.ndarray) or rows.dtype.hasobject:
        return None
    return rows.shape, rows.dtype.str, rows.tobytes()


def name_of(door, arm):
    return f"{arm.name}.{door.name}" if arm.name not in door.name else door.name


def blobs(rng, n=24, d=3):
    """Whole numbers from 0 to 63 in three heaps, so that rounding decides no label."""
    middles = np.array([[10, 12, 50], [50, 30, 10], [20, 52, 14]])
    repeated = np.tile(middles, (1, d // 3 + 1))[:, :d]
    heap = rng.permutation(np.arange(n) % 3)
    return (repeated[heap] + rng.integers(-9, 10, (n, d))).astype(np.float64)


def some(table, quick, step):
    """Of a table all, or one entry of so many."""
    if isinstance(table, dict):
        return dict(some(table.items(), quick, step))
    return list(table)[:: step if quick else 1]
