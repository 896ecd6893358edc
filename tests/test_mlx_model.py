"""The model in the documents is the one that the script makes."""

from commands import ROOT


def test_the_documents_quote_it(load_script):
    table = "\n".join(load_script("mlx_model").rows())
    assert table in (ROOT / "docs" / "mlx-way.md").read_text()


def test_work_grows_with_rows_and_clusters(load_script):
    model = load_script("mlx_model")
    iteration = model.iteration
    flops, size = iteration(1000, 10, 4)
    assert flops == 2 * 1000 * 10 * 4
    assert iteration(2000, 10, 4) == (2 * flops, 2 * size)
    assert model.seconds((0, 0), "M4, 10 cores") > 2e-4
