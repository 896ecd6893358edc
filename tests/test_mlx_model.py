"""The model in the documents is the one that the script makes."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent
MODEL = runpy.run_path(str(ROOT / "scripts" / "mlx_model.py"))


def test_the_documents_quote_it():
    assert "\n".join(MODEL["rows"]()) in (ROOT / "docs" / "mlx-way.md").read_text()


def test_work_grows_with_rows_and_clusters():
    iteration = MODEL["iteration"]
    flops, size = iteration(1000, 10, 4)
    assert flops == 2 * 1000 * 10 * 4
    assert iteration(2000, 10, 4) == (2 * flops, 2 * size)
    assert MODEL["seconds"]((0, 0), "M4, 10 cores") > 2e-4
