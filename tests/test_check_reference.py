"""The script that compares MNIST's results with scikit-learn's."""

import sys

import pytest
from commands import run_script


@pytest.mark.slow
def test_ours_are_the_results_of_scikit_learn(device):
    words = ("--rows", 1000, "--clusters", 7, 20, "--device", device)
    done = run_script("check_reference.py", *words)
    assert "\n0 of 2 fits disagree" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()[1:5]]
    for (k, _, *theirs), (same_k, name, *ours) in zip(rows[::2], rows[1::2], strict=True):
        assert (same_k, name) == (k, "ours")
        assert ours[:4] == theirs
        assert ours[-1] == "100.000%"


@pytest.mark.parametrize(
    "change", [{"labels": 2}, {"sse": 1 + 2e-5}, {"n_iter": 1}, {"accuracy": 0.002}]
)
def test_what_differs_is_noticed(change, load_script, monkeypatch, capsys):
    script = load_script("check_reference")

    def almost(data, k, seed, device):
        labels, (sse, n_iter, train, test) = script.reference(data, k, seed)
        labels[: change.get("labels", 0)] += 1
        sse *= change.get("sse", 1)
        n_iter += change.get("n_iter", 0)
        return labels, (sse, n_iter, train, test + change.get("accuracy", 0))

    monkeypatch.setattr(script, "ours", almost)
    monkeypatch.setattr(sys, "argv", ["check_reference.py", "--rows", "1000", "--clusters", "3"])
    assert script.main() == 1
    assert "\n1 of 1 fits disagree" in capsys.readouterr().out
    change.clear()
    assert script.main() == 0
