"""The script that runs scikit-learn's own tests on ours."""

import pytest
from commands import run_script


@pytest.mark.slow
def test_sklearns_tests_pass_but_for_those_listed():
    counts = {}
    for line in run_script("check_sklearn_contract.py").stdout.splitlines():
        number, _, outcome = line.strip().partition(" ")
        counts[outcome] = number
    assert int(counts["passed"]) > 250
    assert counts["unexpected failures"] == counts["listed, but passed"] == counts["skipped"] == "0"
