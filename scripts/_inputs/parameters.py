"""Values at and beyond the ends of what a parameter may be."""

from functools import partial

import numpy as np
from sklearn import cluster

import mnist_kmeans_mlx as mk
from _inputs.doors import PLAIN, K, blobs, fit, some
from _inputs.verdicts import REFUSALS, REFUSED, Check, tried


def parameter_cases(quick, rng):
    """Values at and beyond the ends of what a parameter may be."""
    rows = blobs(rng)
    few = rows[[0, 1, 2]]
    table = {
        "n_clusters": [0, -1, True, 1.0, np.int64(3), np.float64(3), "3", None, 25, 2**70],
        "tol": [-1, np.nan, np.inf, "a", None, 0, 1, np.float32(1e-4)],
        "max_iter": [0, -1, 1.5, None, np.int32(5), 1],
        "n_init": [0, -1, 1.5, "auto", "x", None],
        "random_state": [-1, 1.5, "a", 2**32, 2**70, np.int64(3), np.random.default_rng(0)],
        "verbose": [-1, None, "a", False],
        "copy_x": [None, "a", 2, False],
        "algorithm": ["full", "x", None, "elkan"],
        "batch_size": [0, -1, 1.5, None, 1, 2**70],
        "compute_labels": [None, "a", False],
        "max_no_improvement": [-1, None, 0, 1.5],
        "init_size": [0, None, 1.5, 10],
        "reassignment_ratio": [-1, np.inf, 0, None, "a"],
        "bisecting_strategy": ["x", None, "largest_cluster"],
        "init": [
            "x", None, 5, few[:2], few[:, :2], few[0], few.tolist(), [["a"] * 3] * 3, few * np.nan,
            few.astype(np.float16), few * 1e30, few * 1e150, lambda *a, **k: few.copy(),
            lambda *a, **k: few[:2].copy(), lambda *a, **k: None, lambda *a, **k: 3,
        ],
    }  # fmt: skip
    for arm in PLAIN:
        for name, values in table.items():
            if name not in arm.theirs().get_params():
                continue
            for value in some(values, quick, 3):
                parameters = {name: value}
                if name == "init" and not callable(value) and not isinstance(value, str):
                    parameters["n_init"] = 1
                yield from parameter_case(arm, rows, parameters)
    more = {
        "device": ["x", None, 0],
        "metric": ["x", None, "Cosine"],
        "memory": ["x", None, 0, -1, "-1GB", "10 bananas", 1.5, "1B", 1, "inf", "nan", ""],
    }
    for name, values in more.items():
        for value in values:
            call = partial(lambda p: fit(partial(mk.KMeans, K, **p), rows, None), {name: value})
            yield Check(f"KMeans({name}={value!r})", call, REFUSED)
    yield from function_cases(rows)


def parameter_case(arm, rows, parameters):
    theirs = tried(lambda: labels_of(arm.theirs(**parameters), rows))
    refusals = REFUSALS
    if theirs.error is not None:
        refusals = tuple(kind for kind in REFUSALS if isinstance(theirs.error, kind)) or REFUSALS
    ((name, value), *_) = parameters.items()
    shown = " ".join(repr(value).split())[:40]
    call = partial(lambda p: labels_of(arm.ours(**p), rows), parameters)
    yield Check(f"{arm.name}({name}={shown})", call, theirs, refusals=refusals)


def labels_of(model, rows):
    model.fit(rows)
    return {"labels": getattr(model, "labels_", None)}


def function_cases(rows):
    norms = np.square(rows).sum(axis=1)
    table = {
        "n_local_trials": [0, -1, 1.5, "a", None, 1, np.int64(2), 50],
        "n_clusters": [0, -1, 1.5, "a", None, np.int64(2), 25],
        "x_squared_norms": [norms, norms[:-1], 5, "a", norms.tolist()],
        "random_state": [-1, 1.5, "a", np.int64(1)],
        "sample_weight": [2.0, np.float64(2), "a"],
    }
    for name, values in table.items():
        for function in ("k_means", "kmeans_plusplus"):
            if function == "k_means" and name in ("n_local_trials", "x_squared_norms"):
                continue
            for value in values:
                parameters = {"n_clusters": K, "random_state": 0, name: value}
                outcomes = [
                    partial(called, getattr(module, function), rows, parameters)
                    for module in (mk, cluster)
                ]
                shown = " ".join(repr(value).split())[:40]
                yield Check(f"{function}({name}={shown})", outcomes[0], tried(outcomes[1]))


def called(function, rows, parameters):
    return {"found": function(rows, **parameters)[1]}
