"""The script that kills fits and answers; what it runs is tested beside its modules."""

import pytest
from commands import run_script


@pytest.mark.slow
def test_killed_fits_find_what_others_find():
    argv = ["--kills", "4", "--rows", "2000", "--cases", "uint8", "float32"]
    argv += ["--changes", "nothing", "cell in a file", "tree", "names"]
    done = run_script("check_resume.py", *argv)
    assert "\n4 kills" in done.stdout
    assert "12 of 12 files are those of calls that began with the change" in done.stdout
