#!/usr/bin/env python
"""Run scikit-learn's own tests of K-means on the estimators of mnist_kmeans_mlx.

The tests are those of the scikit-learn that is installed. Before pytest imports them, the names
that they import from sklearn.cluster are ours; scikit-learn's private functions, which they import
too, become stand-ins that raise, so that no test passes without having met our code.

Prints the counts. Exit status 1 if a test fails that is not listed below, or if a listed one
passes.
"""

import argparse
import fnmatch
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import sklearn.cluster

import mnist_kmeans_mlx

REPLACED = ("KMeans", "MiniBatchKMeans", "BisectingKMeans", "k_means", "kmeans_plusplus")
TEST_FILES = ("test_k_means.py", "test_bisect_k_means.py")

# Test with its parameters (* for any) -> why it fails.
EXCEPTIONS = {
    "test_relocate_empty_clusters[*": "tests scikit-learn's Cython functions",
    "test_euclidean_distance[*": "tests scikit-learn's Cython functions",
    "test_inertia[*": "tests scikit-learn's Cython functions",
    "test_is_same_clustering": "tests a Cython function of scikit-learn",
    "test_minibatch_update_consistency[*": "tests scikit-learn's _mini_batch_step",
    "test_minibatch_reassign[*": "tests scikit-learn's _mini_batch_step",
    "test_sample_weight_init[*": "calls the private method _init_centroids",
    "test_sample_weight_zero[*": "calls the private method _init_centroids",
}


class Contract:
    """The pytest plugin: puts ours in place of theirs and counts the outcomes."""

    def __init__(self):
        self.counts = Counter()
        self.reasons = Counter()
        for name in REPLACED:
            setattr(sklearn.cluster, name, getattr(mnist_kmeans_mlx, name))

    def pytest_collection_modifyitems(self, items):
        for module in {item.module for item in items}:
            for name, value in list(vars(module).items()):
                home = getattr(value, "__module__", None) or ""
                if name.startswith("_") and home.startswith("sklearn.cluster._"):
                    setattr(module, name, refuse(name))
        for item in items:
            if reason := reason_for(item.name):
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))

    def pytest_runtest_logreport(self, report):
        if hasattr(report, "wasxfail"):
            self.counts["listed exceptions"] += 1
            self.reasons[report.wasxfail] += 1
        elif report.failed and "[XPASS" in str(report.longrepr):
            self.counts["listed, but passed"] += 1
        elif report.failed:
            self.counts["unexpected failures"] += 1
        elif report.skipped:
            self.counts["skipped"] += 1
        elif report.when == "call":
            self.counts["passed"] += 1


def refuse(name):
    def stand_in(*args, **kwargs):
        raise NotImplementedError(f"{name} is private to scikit-learn")

    return stand_in


def reason_for(test):
    for pattern, reason in EXCEPTIONS.items():
        if fnmatch.fnmatchcase(test, pattern.replace("[", "[[]")):  # a bracket, not a set
            return reason
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", default="42", help="scikit-learn's test seed, such as 0-9 or all")
    parser.add_argument("-k", default="", metavar="EXPRESSION", help="only some tests, as pytest's")
    options = parser.parse_args()
    os.environ["SKLEARN_TESTS_GLOBAL_RANDOM_SEED"] = options.seed
    os.environ["SKLEARN_RUN_FLOAT32_TESTS"] = "1"

    home = Path(sklearn.__file__).parent
    contract = Contract()
    status = pytest.main(
        [
            *(str(home / "cluster" / "tests" / file) for file in TEST_FILES),
            # With their conftest.py and without our settings; nothing is written beside them.
            *("-c", os.devnull, "--rootdir", str(home), "-p", "no:cacheprovider"),
            *("-q", "--tb=short", "--disable-warnings", "-k", options.k),
        ],
        plugins=[contract],
    )
    print(f"\nscikit-learn {sklearn.__version__}: its tests of {', '.join(REPLACED)} on ours")
    counts = contract.counts
    for outcome in ("passed", "skipped", "listed exceptions"):
        print(f"{counts[outcome]:6} {outcome}")
    for reason, count in contract.reasons.items():
        print(f"{count:10} {reason}")
    for outcome in ("unexpected failures", "listed, but passed"):
        print(f"{counts[outcome]:6} {outcome}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
