"""Numbers of every size, also beside each other."""

import itertools
from functools import partial

import numpy as np
from sklearn import cluster

import mnist_kmeans_mlx as mk
from _inputs.doors import (
    ASKS,
    BISECTING,
    CLUSTERERS,
    COSINE,
    DOORS,
    EVERY,
    FITS,
    KMEANS,
    MINIBATCH,
    PLAIN,
    K,
    blobs,
    fitted,
    learnt,
    name_of,
    some,
    through,
)
from _inputs.exact import are_nearest, beyond_float64, exact_answers
from _inputs.verdicts import Check, Outcome, scaled, tried

TINY = {2: 2.0**-24, 4: 2.0**-149, 8: 2.0**-1074}


def scales():
    """dtype, factor, offset: whole numbers stay exact, so that the answer is known."""
    for exponent in (-1074, -1060, -1054, -1030, -1000, *range(-960, 1000, 80), 1000, 1017):
        yield "float64", 2.0**exponent, 0.0
    for exponent in (-149, -140, -129, -110, -60, -20, 20, 60, 110, 121):
        yield "float32", 2.0**exponent, 0.0
    for exponent in (-24, -14, 9):
        yield "float16", 2.0**exponent, 0.0
    for exponent in range(-300, 306, 55):
        yield "float64", 10.0**exponent, 0.0
    for offset in (1e8, 2.0**40, 1e15):
        yield "float64", 1.0, offset
        yield "float64", 1.0, -offset
        yield "float64", 2.0**30, offset * 2.0**30
    yield "float32", 1.0, 2.0**17
    yield "int64", 2.0**57, -(2.0**62)
    yield "int64", 2.0**12, 2.0**62
    yield "uint64", 2.0**58, 0.0
    yield "uint64", 2.0**12, 2.0**63


def scale_cases(quick, rng):
    """Rows times 10**e from the smallest to the largest, with and without an offset."""
    listed = some(scales(), quick, 9)
    for scale in listed:
        yield from cases_of_scale(*scale, blobs(rng))
    if not quick:
        wide, large, main = blobs(rng, 40, 7), blobs(rng, 5000, 64), FITS[:1] + ASKS[:4]
        for scale in listed:
            yield from cases_of_scale(*scale, wide)
        for scale in listed[::3]:
            yield from cases_of_scale(*scale, large, doors=main, arms=(KMEANS, COSINE))
    yield from limit_cases()


def cases_of_scale(dtype, factor, offset, base, *, doors=DOORS, arms=EVERY):
    exact = base * factor + offset
    rows = exact.astype(dtype)
    # How far a centre is rounded, in units of the whole numbers.
    size = rows.dtype.itemsize if rows.dtype.kind == "f" else 8
    eps = 2.0 ** {2: -52, 4: -24, 8: -52}[size]
    grain = max(TINY[8 if size == 2 else size], abs(offset) * eps) / factor
    for door, arm, ours, _ in through(doors, rows, base, arms=arms):
        if arm is COSINE and offset:
            continue
        expected = remembered_base(door, arm, base)
        expected = scaled(expected, factor, offset=offset, unit_free=arm.unit_free)
        tolerance = 1e-9 if size == 8 else 1e-4 if arm is MINIBATCH else 1e-5
        yield Check(
            f"{name_of(door, arm)} of {dtype} x {factor:.3g} + {offset:.3g}",
            ours,
            expected,
            rtol=tolerance + 4 * grain,
            atol=1e-7 if arm.unit_free else 4 * grain * factor if grain < 1 else np.inf,
            beyond=arm is not COSINE and beyond_float64(rows),
        )


def remembered_base(door, arm, base):
    return next(outcome for _, _, _, outcome in through((door,), base, arms=(arm,)))


def limit_cases():
    """Numbers at the end of their type, and whole numbers that float64 does not hold."""
    big = np.finfo(np.float64).max
    yield from exact_cases("the largest floats", np.array([[big], [big / 2], [-big], [-big / 2]]))
    yield from exact_cases("1.7e308 and 1.6e308", np.array([[1.7e308], [1.6e308]]))
    yield from exact_cases("smallest and zeros", np.array([[5e-324], [0], [0], [0.0]]))
    yield from exact_cases("1e-200 beside zeros", np.array([[1e-200], [0], [0], [0.0]]))
    most = np.finfo(np.float32).max
    yield from exact_cases(
        "the largest float32", np.array([[most], [most / 2], [-most]], np.float32)
    )
    yield from exact_cases("the largest float16", np.array([[65504], [6e4], [-65504]], np.float16))
    odd = 2**53 + 1
    for dtype, numbers in {
        "int64": [2**63 - 1, 2**63 - 4097, -(2**63), -(2**63) + 4096, odd, odd + 2],
        "uint64": [2**64 - 1, 2**63, 2**64 - 4097, odd, 1, 0],
    }.items():
        yield from exact_cases(f"{dtype} near its end", np.array(numbers, dtype=dtype)[:, None])


def exact_cases(name, rows):
    """Whatever clusters are found, all that is said of them is as exact arithmetic has it."""
    for k in (1, 2):
        for arm in PLAIN:
            make = partial(arm.ours, n_clusters=k)
            yield Check(
                f"{arm.name}({k}) of {name}",
                partial(unlike_exact, make, rows),
                Outcome({"differs": []}),
                beyond=beyond_float64(rows),
            )


def unlike_exact(make, rows):
    """Names of what a fitted estimator says of its rows and exact arithmetic does not."""
    model = make().fit(rows)
    exact = exact_answers(rows, model.cluster_centers_)
    tolerance = 1e-5 if model.cluster_centers_.dtype == np.float32 else 1e-12
    found = {"distances": model.transform(rows), "inertia": model.score(rows)}
    same = {
        name: np.allclose(value, exact[name], rtol=tolerance, atol=0)
        for name, value in found.items()
    }
    same["inertia_"] = np.isclose(model.inertia_, -exact["inertia"], rtol=tolerance, atol=0)
    same["labels"] = all(are_nearest(rows, model.cluster_centers_, model.labels_))
    same["predict"] = np.array_equal(model.predict(rows), model.labels_)
    return {"differs": [name for name, right in same.items() if not right]}


def mixed_cases(quick, rng):
    """One far row in a batch: what is said of the others is what is said of each alone."""
    base = blobs(rng)
    models = (1.0,) if quick else (1.0, 1e-150, 1e-100, 1e-20, 1e20, 1e100, 1e150)
    fars = [5e-324, 1e-200, 1e-100, 1e-40, 1e10, 1e20, 1e30, 1e38, 1e40, 1e100, 1e150, 1e160, 1e200]
    fars = fars[2::5] if quick else [*fars, 1e300, 1.7e308]
    types = ("float64",) if quick else ("float64", "float32")
    for factor, far, dtype in itertools.product(models, fars, types):
        if dtype == "float32" and not (1e-30 < factor < 1e30 and far < 3e38):
            continue
        seen = (base * factor).astype(dtype)
        for place in (0, 3) if factor == 1 else (3,):
            batch = np.insert(seen[:6], place, far, axis=0)
            batch = np.vstack([batch, np.zeros_like(batch[:1])])
            name = f"{dtype} x {factor:g} with {far:g} at {place}"
            yield from batch_cases(name, seen, batch)
    for far in (1e20, 1e40, 1e100, 1e150, 1e160, 1e300):
        yield from far_fit_cases(base, far)
    if not quick:
        large = blobs(rng, 5000, 64)
        for far in (1e20, 1e100, 1e160):
            for door, arm, _, expected in through(ASKS[:3:2], large, arms=(KMEANS, COSINE)):
                call = partial(all_but_first, door, fitted(arm, True, large), large, far)
                yield Check(f"{name_of(door, arm)} of 5000 rows and {far:g}", call, expected)


def batch_cases(name, seen, batch):
    for arm in CLUSTERERS:
        model = partial(fitted, arm, True, seen)
        beyond = arm is not COSINE and (beyond_float64(batch) or beyond_float64(seen))
        exact = {}
        if arm is not COSINE:
            centers = tried(model).value
            if centers is not None:
                exact = exact_answers(batch, centers.cluster_centers_)
        for door in ASKS:
            if arm not in door.arms:
                continue
            ask = partial(door.ours, w=None)
            alone = [tried(partial(asked, ask, model, row[None])) for row in batch]
            # A row that cannot be computed alone is left out; all others count.
            known = [i for i, one in enumerate(alone) if one.error is None and not one.numpy]
            (key,) = next((o.value for o in alone if o.value), {"nothing": 0})
            if not known or key == "nothing":
                continue
            rtol = 1e-5 if seen.dtype == np.float32 else 1e-9
            call = partial(asked, ask, model, batch)
            if key == "inertia":
                with np.errstate(over="ignore"):
                    expected = {key: exact[key] if exact else sum(o.value[key] for o in alone)}
            else:
                call = partial(only, known, key, call)
                expected = {key: np.concatenate([alone[i].value[key] for i in known])}
            case = Check(
                f"{name_of(door, arm)} of {name}", call, Outcome(expected), rtol, beyond=beyond
            )
            yield case
            if key == "distances" and exact:
                expected = {key: exact[key][known]}
                yield case._replace(name=f"{case.name}, exactly", expected=Outcome(expected))
            if key == "labels" and exact and arm is not BISECTING:
                right = partial(nearest_ones, call, batch[known], centers.cluster_centers_)
                expected = {"nearest": [True] * len(known)}
                yield case._replace(
                    name=f"{case.name}, exactly", ours=right, expected=Outcome(expected)
                )


def nearest_ones(call, rows, centers):
    return {"nearest": are_nearest(rows, centers, call()["labels"])}


def asked(ask, model, rows):
    return ask(model(), rows)


def all_but_first(door, model, rows, far):
    answer = door.ours(model, np.vstack([np.full_like(rows[:1], far), rows]), None)
    return {name: value[1:] for name, value in answer.items()}


def only(known, key, call):
    return {key: call()[key][known]}


def far_fit_cases(base, far):
    """A far row has a cluster of its own; the others are clustered as if it were not there."""
    rows = np.vstack([base, np.full((1, base.shape[1]), far)])
    init = base[[0, 1]]
    for algorithm in ("lloyd", "elkan"):
        alone = cluster.KMeans(2, init=init, n_init=1, tol=0, algorithm=algorithm).fit(base)
        expected = {
            "labels": np.append(alone.labels_, 2),
            "centers": np.vstack([alone.cluster_centers_, rows[-1:]]),
            "inertia": alone.inertia_,
        }
        starts = np.vstack([init, rows[-1:]])
        make = partial(mk.KMeans, K, init=starts, n_init=1, tol=0, algorithm=algorithm)
        yield Check(
            f"KMeans.fit {algorithm} with a row of {far:g}",
            lambda make=make: learnt(make().fit(rows)),
            Outcome(expected),
            rtol=1e-9,
            beyond=beyond_float64(rows),
        )
