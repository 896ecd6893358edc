#!/usr/bin/env python
"""Fit MNIST with several numbers of clusters and compare the results with scikit-learn's.

Ours are those of `mnist-kmeans-mlx fit -k K --seed 0`, from bytes. The reference is scikit-learn's
KMeans with the same `random_state`, in float64 on pixels / 255, and a cluster's digit the one that
most of its training images show, found here without any of the package's code.

Prints for each K, of both: SSE, iterations, and accuracy on the training and the test images; and
how far SSE differs and how many of the training labels are equal.

Exit status 1 if the iterations differ, SSE by more than 1e-5 of it, or more than one label or
answer in a thousand.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
from sklearn.cluster import KMeans

from mnist_kmeans_mlx import experiment

SSE_MAY_DIFFER, LABELS_MAY_DIFFER = 1e-5, 1e-3


def reference(data, k, seed):
    """Labels, and what the two are compared by, of scikit-learn."""
    train, test = (rows / np.float64(255) for rows in (data.train, data.test))
    kmeans = KMeans(k, random_state=seed).fit(train)
    counts = np.zeros((k, 10), dtype=int)
    np.add.at(counts, (kmeans.labels_, data.y_train), 1)
    digits = counts.argmax(axis=1)
    accuracies = [
        np.mean(digits[labels] == truth)
        for labels, truth in (
            (kmeans.labels_, data.y_train),
            (kmeans.predict(test), data.y_test),
        )
    ]
    return kmeans.labels_, (kmeans.inertia_, kmeans.n_iter_, *accuracies)


def ours(data, k, seed, device):
    result = experiment.run(data, n_clusters=k, seed=seed, device=device)
    accuracies = result.train_accuracy, result.test_accuracy
    return result.estimator.labels_, (result.inertia, result.n_iter, *accuracies)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[10, 15, 20, 64, 100])
    parser.add_argument("--rows", type=int, default=60_000, help="of each set, at most [60000]")
    parser.add_argument("--seed", type=int, default=0, help="random_state of both [0]")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "gpu"])
    options = parser.parse_args()
    data = experiment.load()
    few = slice(options.rows)
    data = replace(
        data,
        train=data.train[few],
        y_train=data.y_train[few],
        test=data.test[few],
        y_test=data.y_test[few],
    )
    disagree = 0
    print(
        f"{'K':>5}  {'':13}{'SSE':>14}{'n_iter':>8}{'train':>10}{'test':>10}"
        f"{'SSE differs':>14}{'equal labels':>14}"
    )
    for k in options.clusters:
        expected_labels, expected = reference(data, k, options.seed)
        labels, found = ours(data, k, options.seed, options.device)
        sse = abs(found[0] - expected[0]) / expected[0]
        equal = np.mean(labels == expected_labels)
        agree = (
            sse <= SSE_MAY_DIFFER
            and 1 - equal <= LABELS_MAY_DIFFER
            and found[1] == expected[1]
            and np.abs(np.subtract(found[2:], expected[2:])).max() <= LABELS_MAY_DIFFER
        )
        disagree += not agree
        for name, values, rest in (
            ("scikit-learn", expected, ""),
            ("ours", found, f"{sse:14.1e}{equal:14.3%}{'' if agree else '  disagree'}"),
        ):
            print(
                f"{k:5}  {name:13}{values[0]:14.3f}{values[1]:8}"
                f"{values[2]:10.5f}{values[3]:10.5f}{rest}",
                flush=True,
            )
    print(f"\n{disagree} of {len(options.clusters)} fits disagree with scikit-learn's")
    return int(disagree > 0)


if __name__ == "__main__":
    sys.exit(main())
