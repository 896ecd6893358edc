"""docs/scaling.md shows what the model says today, and the benchmarks beside it run."""

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest

ROOT = Path(__file__).parent.parent


def run(name, *argv):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / name, *map(str, argv)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_document_shows_the_model():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- scaling_model -->\n")
    assert rest.partition("<!-- end of scaling_model -->")[0] == run("scaling_model.py")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX has no ring here")
def test_bench_scale_runs(tmp_path):
    argv = ["--rows", 30_000, "--features", 16, "-k", 8, "--memory", 900_000_000]
    argv += ["--iterations", 2, "--part", 3000, "--ranks", 1, 2, "--json", tmp_path / "scale.json"]
    printed = run("bench_scale.py", *argv)
    assert "the limit was kept" in printed
    assert printed.count("same") == 3
    assert (tmp_path / "scale.json").exists()


@pytest.mark.slow
def test_bench_seeding_runs():
    printed = run("bench_seeding.py", "-k", 5, "--seeds", 2, "--rows", 2000)
    assert '| 5 | `init="k-means++"` | 1.0000 |' in printed
    assert len(printed.splitlines()) == 6
