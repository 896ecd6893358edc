"""The script that kills ranks; what it runs is tested in test_distributed.py."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_ranks.py"


@pytest.mark.slow
@pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX has no ring here")
def test_ranks_find_what_one_process_finds():
    argv = ["--ranks", "1", "2", "-k", "12", "--rows", "3000", "--kills", "2"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("identical") >= 4
    assert "\n2 kills" in done.stdout
