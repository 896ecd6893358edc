"""The notebook under docs/ runs, and shows what it is committed with."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "docs" / "mnist.ipynb"


def shown(notebook):
    """What each cell of code shows, as text; times and pictures are not the same twice."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [
        [output.get("data", {}).get("text/plain") or output for output in cell.outputs]
        for cell in cells
        if "varies" not in cell.metadata.get("tags", ())
    ]


@pytest.mark.slow
def test_it_shows_what_it_is_committed_with(tmp_path, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    committed = nbformat.read(NOTEBOOK, as_version=4)
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    for cell in fresh.cells:
        cell.pop("outputs", None)
    nbclient.NotebookClient(fresh, timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    assert shown(fresh) == shown(committed)
    everything = [output for cell in fresh.cells for output in cell.get("outputs", ())]
    assert [output for output in everything if output.get("name") == "stderr"] == [], "a warning"


def test_every_step_of_the_first_notebook_is_there():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for step in (
        "x_train.shape", "y_train.shape", "x_test.shape", "y_test.shape",
        "reshape(len(x_train), -1)", "astype(float) / 255.0", "X.shape, X[0].shape", "n_digits",
        "28.8s", "37.6s", "KMeans(n_clusters=20", "labels_[:6]", "infer_cluster_labels(kmeans, Y)",
        "infer_data_labels(X_clusters, cluster_labels)", "accuracy over training dataset",
    ):  # fmt: skip
        assert step in text, step
    assert NOTEBOOK.stat().st_size < 100_000


def test_it_is_committed_as_it_ran():
    cells = [c for c in nbformat.read(NOTEBOOK, as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
