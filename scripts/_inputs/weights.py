"""Weights that must be accepted, and weights that must be refused."""

from functools import partial

import mlx.core as mx
import numpy as np
import pandas as pd

from _inputs.doors import DOORS, KMEANS, MINIBATCH, blobs, name_of, some, through
from _inputs.exact import exact_answers
from _inputs.verdicts import REFUSED, Check, scaled, tried


def weight_cases(quick, rng):
    """Weights to be refused, and weights to be used, at every entry point that takes any."""
    rows = blobs(rng)
    n = len(rows)
    ones = np.ones(n)
    usual = rng.integers(1, 5, n).astype(np.float64)
    first = np.r_[1, np.zeros(n - 1)]
    refused = {
        "negative": -ones,
        "one negative": np.r_[-1, ones[1:]],
        "negative integers": -np.arange(n),
        "all zero": 0 * ones,
        "NaN": np.r_[np.nan, ones[1:]],
        "NaN in float32": np.r_[ones[1:], np.nan].astype(np.float32),
        "infinity": np.r_[np.inf, ones[1:]],
        "infinity in bfloat16": mx.array(np.r_[np.inf, ones[1:]]).astype(mx.bfloat16),
        "one too few": ones[1:],
        "one too many": np.r_[1, ones],
        "a column": ones[:, None],
        "none": ones[:0],
        "text": "auto",
        "a complex number": ones * 1j,
    }
    # Name -> weights, and those that others are given, times a factor.
    counted = {
        "ones": (ones, ones, 1),
        "integers": (usual.astype(int), usual, 1),
        "uint8": (usual.astype(np.uint8), usual, 1),
        "bool": (usual > 1, (usual > 1) * 1.0, 1),
        "float16": (usual.astype(np.float16), usual, 1),
        "a list": (usual.tolist(), usual, 1),
        "a series": (pd.Series(usual), usual, 1),
        "mx.array": (mx.array(usual.astype(np.float32)), usual, 1),
        "bfloat16": (mx.array(usual.astype(np.float32)).astype(mx.bfloat16), usual, 1),
        "a list of bfloat16": ([mx.array(w, dtype=mx.bfloat16) for w in usual], usual, 1),
        "some zero": (usual * (usual > 1), usual * (usual > 1), 1),
        "huge": (usual * 2.0**900, usual, 2.0**900),
        "tiny": (usual * 2.0**-900, usual, 2.0**-900),
        "smallest": (usual * 2.0**-1074, usual, 2.0**-1074),
        "largest": (ones * np.finfo(float).max / n, ones, np.finfo(float).max / n),
        "one positive": (first, first, 1),
    }
    doors = [door for door in DOORS if door.weighted]
    for name, weights in some(refused, quick, 7).items():
        for door, arm, ours, _ in through(doors, rows, weights=weights, plain_weights=ones):
            yield Check(f"{name_of(door, arm)}, weights: {name}", ours, REFUSED)
    for name, (weights, simple, factor) in some(counted, quick, 8).items():
        found = through(doors, rows, weights=weights, plain_weights=simple)
        for door, arm, ours, expected in found:
            yield Check(
                f"{name_of(door, arm)}, weights: {name}",
                ours,
                scaled(expected, 1.0, weight=factor),
                atol=1e-7 if factor == 1 else 8 * 5e-324,
                # Sums of products of weights and squares.
                beyond=not 1e-280 < factor < 1e280,
            )
    for ratio in (1e10, 1e20, 1e100, 1e300):
        weights = np.r_[ratio, ones[1:]]
        for arm in (KMEANS, MINIBATCH):  # inertia decides what the third splits, and is rounded
            yield Check(
                f"{arm.name}.fit, one weight of {ratio:g}",
                partial(with_exact_cost, arm.ours, rows, weights),
                with_cost(arm, rows, weights),
                beyond=ratio > 1e15,
            )


def with_exact_cost(make, rows, weights):
    model = make().fit(rows, sample_weight=weights)
    cost = exact_cost(rows, model.cluster_centers_, model.labels_, weights)
    return {"labels": model.labels_, "right inertia": bool(np.isclose(model.inertia_, cost))}


def with_cost(arm, rows, weights):
    theirs = tried(lambda: arm.theirs().fit(rows, sample_weight=weights).labels_)
    return theirs._replace(value={"labels": theirs.value, "right inertia": True})


def exact_cost(rows, centers, labels, weights):
    exact = [
        exact_answers(row[None], centers[label][None])["inertia"]
        for row, label in zip(rows, labels, strict=True)
    ]
    return -float(np.dot(exact, weights))
