"""docs/scaling.md shows what the model says today, and the benchmarks beside it run."""

import sys

import mlx.core as mx
import pytest
from commands import ROOT, run_script


def test_the_document_shows_the_model():
    text = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, _, rest = text.partition("<!-- scaling_model -->\n")
    assert (
        rest.partition("<!-- end of scaling_model -->")[0] == run_script("scaling_model.py").stdout
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(not mx.distributed.is_available("ring"), reason="MLX has no ring here")
def test_bench_scale_runs(tmp_path):
    argv = ["--rows", 30_000, "--features", 16, "-k", 8, "--memory", 900_000_000]
    argv += ["--iterations", 2, "--part", 3000, "--ranks", 1, 2, "--json", tmp_path / "scale.json"]
    printed = run_script("bench_scale.py", *argv).stdout
    assert "the limit was kept" in printed
    assert printed.count("same") == 3
    assert (tmp_path / "scale.json").exists()


@pytest.mark.slow
def test_bench_seeding_runs():
    printed = run_script("bench_seeding.py", "-k", 5, "--seeds", 2, "--rows", 2000).stdout
    assert '| 5 | `init="k-means++"` | 1.0000 |' in printed
    assert len(printed.splitlines()) == 6
