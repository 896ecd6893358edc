"""What was before, and what happens beside."""

import contextlib
import copy
import pickle
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path

import mlx.core as mx
import numpy as np
from sklearn.base import clone
from threadpoolctl import threadpool_info

import mnist_kmeans_mlx as mk
from _inputs.doors import (
    ASKS,
    CLASSIFIER,
    EVERY,
    FITS,
    MINIBATCH,
    blobs,
    fit,
    fitted,
    learnt,
    name_of,
    some,
    through,
)
from _inputs.verdicts import REFUSALS, Check, Outcome, tried


def state_cases(quick, rng):
    """Failures leave no trace, copies behave the same, and threads do not interfere."""
    rows = blobs(rng)
    for name, faulty in some(failures(rows), quick, 4).items():
        for arm in EVERY:
            for before in (None, rows[:, :2]):
                call = partial(left_by_failure, arm, before, faulty)
                start = "" if before is None else ", fitted before"
                yield Check(f"{arm.name}{start} after {name}", call, Outcome({"changed": []}))
                call = partial(fit_after_failure, arm, before, faulty, rows)
                expected = tried(partial(fit, arm.ours, rows, None))
                yield Check(f"{arm.name}{start} fitted after {name}", call, expected)
    call = partial(left_by_second_batch, rows)
    yield Check("MiniBatchKMeans after a failed second batch", call, Outcome({"changed": []}))
    for arm in EVERY:
        model = fitted(arm, True, rows)
        for name, copied in COPIES.items():
            if name == "saved model" and arm is CLASSIFIER:
                continue
            for door in ASKS:
                if arm not in door.arms:
                    continue
                expected = tried(partial(door.ours, model, rows, None))
                call = partial(answer_of_copy, door.ours, copied, model, rows)
                yield Check(f"{name_of(door, arm)} of a {name}", call, expected)
        if arm is not CLASSIFIER:
            call = partial(lambda arm: learnt(clone(fitted(arm, True, rows)).fit(rows)), arm)
            yield Check(f"a clone of {arm.name}", call, tried(partial(fit, arm.ours, rows, None)))
            call = partial(lambda arm: learnt(arm.ours().set_params(n_clusters=2).fit(rows)), arm)
            make = partial(arm.ours, n_clusters=2)
            yield Check(f"{arm.name}.set_params", call, tried(partial(fit, make, rows, None)))
    for arm in EVERY:
        yield Check(
            f"two fits of {arm.name} at once",
            partial(threads_after_two_fits, arm.ours, rng.normal(size=(1500, 24))),
            Outcome({"changed": []}),
        )
    lazy = of_another_thread(lambda: mx.array(rows.astype(np.float32)) * 1)
    for door, arm, ours, expected in through(FITS + ASKS, lazy, rows, seen=rows):
        # Some builds of MLX compute it, others cannot.
        yield Check(
            f"{name_of(door, arm)} of an mx.array of another thread",
            ours,
            expected,
            rtol=1e-4,
            atol=1e-6,
            beyond=True,
        )


def failures(rows):
    """Name -> parameters, rows and weights with which a fit fails."""
    bad = rows.copy()
    bad[-1, -1] = np.nan

    def init(X, n_clusters, random_state):
        raise ValueError("no idea where to start")

    return {
        "NaN": ({}, bad, None),
        "fewer rows than clusters": ({}, rows[:2], None),
        "a negative weight": ({}, rows, np.r_[-1, np.ones(len(rows) - 1)]),
        "all weights zero": ({}, rows, np.zeros(len(rows))),
        "weights too few": ({}, rows, np.ones(3)),
        "a wrong parameter": ({"max_iter": 0}, rows, None),
        "an init that fails": ({"init": init, "n_init": 1}, rows, None),
        "an init of another shape": ({"init": lambda *a, **k: rows[:5], "n_init": 1}, rows, None),
        "text": ({}, rows.astype(str).astype(object) + "x", None),
    }


def failed(arm, before, faulty):
    """An estimator whose fit has failed, and its attributes just before."""
    parameters, X, weights = faulty
    model = arm.ours(**parameters)
    if before is not None:
        model = arm.ours().fit(before)
        for name, value in parameters.items():
            setattr(estimator_of(arm, model), name, value)
    then = copy.deepcopy(attributes(model))
    try:
        model.fit(X, sample_weight=weights)
    except REFUSALS:
        return model, then
    raise AssertionError("the fit did not fail")


def attributes(model):
    return vars(getattr(model, "model", model))


def left_by_failure(arm, before, faulty):
    model, then = failed(arm, before, faulty)
    return {"changed": changed(then, attributes(model))}


def changed(then, now):
    """Names of attributes that differ."""
    return sorted(
        name for name in then.keys() | now.keys() if text(then.get(name)) != text(now.get(name))
    )


def text(value):
    with np.printoptions(threshold=sys.maxsize, precision=17):
        if hasattr(value, "get_params"):
            return f"{type(value)} { ({n: text(v) for n, v in vars(value).items()}) }"
        return repr(value)


def fit_after_failure(arm, before, faulty, rows):
    model, _ = failed(arm, before, faulty)
    fresh = arm.ours()
    for name in faulty[0]:
        setattr(estimator_of(arm, model), name, getattr(estimator_of(arm, fresh), name))
    return learnt(model.fit(rows))


def estimator_of(arm, model):
    """The estimator that clusters: a classifier holds one."""
    return model.model.estimator if arm is CLASSIFIER else model


def left_by_second_batch(rows):
    model = MINIBATCH.ours().partial_fit(rows)
    then = copy.deepcopy(vars(model))
    with contextlib.suppress(ValueError):
        model.partial_fit(np.full_like(rows, np.nan))
    with contextlib.suppress(ValueError):
        model.partial_fit(rows[:, :1])
    with contextlib.suppress(ValueError):
        model.partial_fit(rows, sample_weight=-np.ones(len(rows)))
    return {"changed": changed(then, vars(model))}


def saved(model):
    with tempfile.TemporaryDirectory() as folder:
        mk.save_model(Path(folder, "model"), model)
        return mk.load_model(Path(folder, "model")).estimator


COPIES = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "deep copy": copy.deepcopy,
    "saved model": saved,
}


def answer_of_copy(ask, copied, model, rows):
    return ask(copied(model), rows, None)


def threads_after_two_fits(make, rows):
    """Pools of threads whose sizes two fits that overlap leave other than they were."""
    before = pools()
    barrier = threading.Barrier(2)

    def work():
        barrier.wait()
        for _ in range(3):
            make(n_clusters=8).fit(rows)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = pools()
    return {"changed": sorted(name for name in before if before[name] != after.get(name))}


def pools():
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}


def of_another_thread(make):
    made = []
    thread = threading.Thread(target=lambda: made.append(make()))
    thread.start()
    thread.join()
    return made[0]
