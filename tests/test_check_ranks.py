"""The script that kills ranks; what it runs is tested in test_distributed.py."""

import mlx.core as mx
import pytest
from commands import run_script


@pytest.mark.slow
@pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX has no ring here")
def test_ranks_find_what_one_process_finds():
    words = ("--ranks", 1, 2, "-k", 12, "--rows", 3000, "--kills", 2)
    done = run_script("check_ranks.py", *words)
    assert done.stdout.count("identical") >= 4
    assert "\n2 kills" in done.stdout
