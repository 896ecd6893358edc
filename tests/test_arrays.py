"""What MLX holds comes in by every door, bfloat16 too."""

import threading

import mlx.core as mx
import numpy as np
import pytest

from mnist_kmeans_mlx import (
    BisectingKMeans,
    ClusterClassifier,
    KMeans,
    MiniBatchKMeans,
    infer_cluster_labels,
    infer_data_labels,
    k_means,
    kmeans_plusplus,
)
from mnist_kmeans_mlx.arrays import as_numpy
from mnist_kmeans_mlx.scores import score_labels

# Whole numbers that bfloat16 holds.
ROWS = np.random.default_rng(0).integers(-60, 60, size=(90, 4)).astype(np.float32)
WEIGHTS = np.arange(1, 91, dtype=np.float32)
CLASSES = np.arange(90) % 3


def bf16(a):
    return mx.array(a).astype(mx.bfloat16)


def start(X, k, random_state):
    return X[:k]


def start_bf16(X, k, random_state):
    return bf16(X[:k])


DOORS = {
    "fit": lambda m, X, w: KMeans(5, random_state=0).fit(X).labels_,
    "weights": lambda m, X, w: KMeans(5, random_state=0).fit(X, sample_weight=w).labels_,
    "init": lambda m, X, w: KMeans(5, init=X[:5], n_init=1).fit(ROWS).labels_,
    "function": lambda m, X, w: KMeans(5, init=m, n_init=1).fit(ROWS).labels_,
    "batches": lambda m, X, w: KMeans(5, random_state=0).fit_batches([X[:50], X[50:]]).labels_,
    "rows": lambda m, X, w: KMeans(5, random_state=0).fit([X[i] for i in range(90)]).labels_,
    "minibatch": lambda m, X, w: (
        MiniBatchKMeans(5, random_state=0).partial_fit(X, sample_weight=w).labels_
    ),
    "bisecting": lambda m, X, w: (
        BisectingKMeans(5, random_state=0).fit(X, sample_weight=w).predict(X)
    ),
    "score": lambda m, X, w: KMeans(5, random_state=0).fit(ROWS).score(X, sample_weight=w),
    "classifier": lambda m, X, w: (
        ClusterClassifier(KMeans(5, random_state=0))
        .fit(X, CLASSES, sample_weight=w)
        .predict_proba(X)
    ),
    "k_means": lambda m, X, w: k_means(X, 5, sample_weight=w, random_state=0)[1],
    "plusplus": lambda m, X, w: kmeans_plusplus(X, 5, sample_weight=w, random_state=0)[1],
}


@pytest.mark.parametrize("door", DOORS)
def test_bfloat16_is_the_number_it_is(door):
    through = DOORS[door]
    found = through(start_bf16, bf16(ROWS), bf16(WEIGHTS))
    np.testing.assert_array_equal(found, through(start, ROWS, np.array(as_numpy(bf16(WEIGHTS)))))


def test_labels_may_be_of_mlx_too():
    kmeans = KMeans(5, random_state=0).fit(ROWS)
    names = infer_cluster_labels(kmeans, mx.array(CLASSES))
    assert names == infer_cluster_labels(kmeans, CLASSES)
    named = infer_data_labels(mx.array(kmeans.labels_), names)
    np.testing.assert_array_equal(named, infer_data_labels(kmeans.labels_, names))
    scores = score_labels(mx.array(CLASSES), mx.array(kmeans.labels_), mx.array(named))
    assert scores.accuracy == np.mean(named == CLASSES)


def test_what_another_thread_has_still_to_compute_is_refused_in_a_sentence():
    made = []

    def make():
        with mx.stream(mx.new_stream(mx.cpu)):
            made.append(mx.array(ROWS) * 2)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with pytest.raises(ValueError, match=r"call mx\.eval\(X\) in the thread that made it"):
        KMeans(2).fit(made[0])


def test_other_things_pass():
    for thing in (None, "rows", 3, [1, 2], (), ROWS):
        assert as_numpy(thing) is thing
