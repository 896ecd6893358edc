"""The script that kills fits; what it runs is tested in test_checkpoint.py."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_resume.py"


@pytest.mark.slow
def test_killed_fits_find_what_others_find():
    argv = ["--kills", "4", "--rows", "2000", "--cases", "uint8", "float32"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n4 kills" in done.stdout
