"""The script that compares labels with those of float64."""

import numpy as np
import oracle
import pytest
from commands import run_script


def test_its_float64_is_that_of_the_oracle(load_script):
    nearest = load_script("check_labels").nearest
    rows = oracle.make_rows("offset", 300, 7, seed=0)
    centers = rows[:20]
    # Midpoints are as near to one centre as to another, up to the last bit.
    rows = np.concatenate([rows, (centers[2:] + centers[:-2]) / 2])
    labels, close = nearest(rows, centers, step=100)
    assert close > 0
    np.testing.assert_array_equal(labels, oracle.distances_sq(rows, centers).argmin(axis=1))


@pytest.mark.slow
def test_no_label_is_wrong(device):
    words = ("--clusters", 20, "--rows", 500, "--device", device)
    done = run_script("check_labels.py", *words)
    assert "\n0 wrong of 30000 labels" in done.stdout
