"""``sweep``: cells, their file, the curve, the elbow, the figure and the command."""

import csv
import io
import json
import os
import signal
from functools import partial

import numpy as np
import pytest
from commands import complaint, interrupted, text_of
from damage import part_of
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score, silhouette_score

from mnist_kmeans_mlx.experiment import ExperimentError
from mnist_kmeans_mlx.experiment import sweep as module
from mnist_kmeans_mlx.experiment.sweep import MEASURES, elbow, sweep
from mnist_kmeans_mlx.report import sweep_table
from mnist_kmeans_mlx.report.canvas import FigureError
from mnist_kmeans_mlx.report.figures import draw_curves


@pytest.fixture(scope="module")
def images(mnist):
    return part_of(mnist, 600, 200)


@pytest.fixture(scope="module")
def source(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, **images)
    return path


@pytest.fixture
def matrix(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.random.default_rng(0).normal(size=(60, 3)) + 9 * (np.arange(60) % 3)[:, None])
    return path


@pytest.fixture(scope="module")
def found(source, device, tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "deep" / "cells.jsonl"
    return sweep(
        source, n_clusters=(20, 5, 10), seeds=(1, 0), device=device, path=path, command="c",
        silhouette_sample=150,
    )  # fmt: skip


@pytest.fixture
def fits(monkeypatch):
    """Every fit that is made, by number of clusters and seed."""
    made = []

    def run(*args, **options):
        made.append((options["n_clusters"], options["seed"]))
        return original(*args, **options)

    original = module.run
    monkeypatch.setattr(module, "run", run)
    return made


# Cells


def test_cells_are_what_scikit_learn_finds(found, images):
    x, y = images["x_train"].reshape(600, -1) / 255, images["y_train"]
    chosen = np.sort(np.random.default_rng(0).choice(600, size=150, replace=False))
    for cell in found.cells:
        other = KMeans(cell["n_clusters"], random_state=cell["seed"]).fit(x)
        named = [np.bincount(y[other.labels_ == c]).argmax() for c in range(cell["n_clusters"])]
        named = np.array(named)
        assert cell["inertia"] == pytest.approx(other.inertia_, rel=1e-9)
        assert cell["n_iter"] == other.n_iter_
        assert cell["train_accuracy"] == np.mean(named[other.labels_] == y)
        tested = named[other.predict(images["x_test"].reshape(200, -1) / 255)]
        assert cell["test_accuracy"] == np.mean(tested == images["y_test"])
        assert cell["nmi"] == pytest.approx(normalized_mutual_info_score(y, other.labels_))
        assert cell["silhouette"] == pytest.approx(
            silhouette_score(x[chosen], other.labels_[chosen]), rel=1e-9
        )
        assert cell["missing_digits"] == sorted(set(range(10)) - set(named))


def test_cells_come_in_order_and_the_curve_sums_them_up(found):
    assert [(cell["n_clusters"], cell["seed"]) for cell in found.cells] == [
        (5, 0), (5, 1), (10, 0), (10, 1), (20, 0), (20, 1),
    ]  # fmt: skip
    assert [point["n_clusters"] for point in found.curve] == [5, 10, 20]
    for point in found.curve:
        cells = [cell for cell in found.cells if cell["n_clusters"] == point["n_clusters"]]
        assert point["seeds"] == [0, 1]
        for name in MEASURES:
            values = [cell[name] for cell in cells]
            assert point[name] == {
                "median": np.median(values), "low": min(values), "high": max(values),
            }  # fmt: skip
    result = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert result["kind"] == "sweep"
    assert result["cells"] == list(found.cells)
    assert result["curve"] == found.curve
    assert result["settings"] == {
        "n_init": "auto", "max_iter": 300, "silhouette_sample": 150, "seeds": [0, 1],
    }  # fmt: skip
    assert result["data"]["n_train"] == 600
    assert result["environment"]["scikit-learn"]
    assert result["command"] == "c"


def test_a_matrix_has_no_accuracy(matrix, tmp_path, device):
    result = sweep(matrix, n_clusters=[1, 3, 60], path=tmp_path / "c", device=device)
    for cell in result.cells:
        assert cell["train_accuracy"] is cell["test_accuracy"] is cell["nmi"] is None
    # One cluster, and a cluster for each row, have no silhouette.
    assert [cell["silhouette"] is None for cell in result.cells] == [True, False, True]
    assert result.curve[1]["nmi"] is None
    assert result.cells[1]["silhouette"] > 0.7


def test_no_silhouette_where_none_is_wanted(matrix, tmp_path, device):
    result = sweep(matrix, n_clusters=[3], path=tmp_path / "c", device=device, silhouette_sample=0)
    assert result.cells[0]["silhouette"] is None


# The file of cells


def test_what_is_finished_is_not_fitted_again(matrix, tmp_path, device, fits):
    options = {"path": tmp_path / "cells", "device": device}
    first = sweep(matrix, n_clusters=[2, 3], **options)
    assert (first.kept, len(fits)) == (0, 2)
    again = sweep(matrix, n_clusters=[3, 4, 2], seeds=[0, 1], **options)
    assert again.kept == 2
    assert fits[2:] == [(2, 1), (3, 1), (4, 0), (4, 1)]
    assert [cell for cell in again.cells if cell["seed"] == 0][:2] == list(first.cells)
    fresh = sweep(matrix, n_clusters=[2], fresh=True, **options)
    assert (fresh.kept, len(fits)) == (0, 7)
    # What is newest counts.
    assert sweep(matrix, n_clusters=[2], **options).cells == fresh.cells


@pytest.mark.parametrize("change", ["rows", "labels", "n_init", "max_iter", "silhouette_sample"])
def test_what_is_different_is_fitted_anew(matrix, tmp_path, device, fits, change):
    labels = tmp_path / "labels.npy"
    np.save(labels, np.arange(60) % 3)
    options = {"path": tmp_path / "cells", "device": device, "labels": labels, "n_clusters": [2]}
    sweep(matrix, **options)
    if change == "rows":
        np.save(matrix, np.load(matrix) + 1)
    elif change == "labels":
        np.save(labels, np.arange(60) % 2)
    else:
        options[change] = 2
    assert sweep(matrix, **options).kept == 0
    assert len(fits) == 2


def test_a_damaged_tail_is_passed_over_and_its_cell_fitted_again(matrix, tmp_path, device, fits):
    path = tmp_path / "cells"
    sweep(matrix, n_clusters=[2, 3], path=path, device=device)
    path.write_bytes(path.read_bytes()[:-40])
    again = sweep(matrix, n_clusters=[2, 3], path=path, device=device)
    assert (again.kept, again.damaged) == (1, 1)
    assert fits[2:] == [(3, 0)]
    after = sweep(matrix, n_clusters=[2, 3], path=path, device=device)
    assert (after.kept, after.damaged) == (2, 1)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda cell: cell.pop("inertia"),
        lambda cell: cell.update(seconds="fast"),
        lambda cell: cell.update(nmi=[]),
        lambda cell: cell.update(n_clusters=True),
        lambda cell: cell.pop("missing_digits"),
    ],
)
def test_a_cell_that_lacks_anything_is_no_cell(matrix, tmp_path, device, spoil):
    path = tmp_path / "cells"
    sweep(matrix, n_clusters=[2], path=path, device=device)
    line = json.loads(path.read_text())
    spoil(line["cell"])
    path.write_text(json.dumps(line) + '\n[1]\nnull\n{"kind": "sweep cell", "cell": {}}\n')
    again = sweep(matrix, n_clusters=[2], path=path, device=device)
    assert (again.kept, again.damaged) == (0, 4)


def test_an_interrupted_sweep_leaves_what_is_finished(matrix, tmp_path, device, monkeypatch):
    original = module.run

    def run(*args, **options):
        if options["n_clusters"] == 4:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(module, "run", run)
    path = tmp_path / "cells"
    with pytest.raises(KeyboardInterrupt):
        sweep(matrix, n_clusters=[2, 3, 4, 5], path=path, device=device)
    monkeypatch.undo()
    assert sweep(matrix, n_clusters=[2, 3, 4, 5], path=path, device=device).kept == 2


def test_a_file_that_cannot_keep_cells_is_noticed_first(matrix, tmp_path, fits):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file" / "cells", tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match=str(tmp_path)):
            sweep(matrix, n_clusters=[2], path=path)
    assert fits == []


def test_more_clusters_than_rows_are_refused_before_the_first_fit(matrix, tmp_path, fits):
    with pytest.raises(ExperimentError, match="61 clusters are more than the 60 rows"):
        sweep(matrix, n_clusters=[2, 61], path=tmp_path / "c")
    assert fits == []


def test_rows_that_memory_does_not_hold_are_refused(matrix, tmp_path, fits, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.memory.free_bytes", lambda: 1)
    with pytest.raises(ExperimentError, match=r"rows.npy is larger than half .* `fit` takes it"):
        sweep(matrix, n_clusters=[2], path=tmp_path / "c")
    assert fits == []


# The elbow


def test_the_elbow_is_where_the_curve_bends_most():
    counts = list(range(2, 30))
    for bend in (5, 9, 20):
        values = [
            np.exp(-count if count < bend else -bend - 0.1 * (count - bend)) for count in counts
        ]
        assert elbow(counts, values) == bend


@pytest.mark.parametrize(
    ("counts", "inertias"),
    [
        ([], []),
        ([2, 3], [9.0, 1.0]),
        ([2, 3, 4], [8.0, 4.0, 2.0]),  # straight
        ([2, 3, 4], [8.0, 7.0, 2.0]),  # bends the other way
        ([2, 3, 4], [1.0, 1.0, 1.0]),
        ([2, 3, 4], [1.0, 2.0, 3.0]),
        ([2, 3, 4], [8.0, 1.0, 0.0]),  # nothing left: no logarithm
    ],
)
def test_no_elbow(counts, inertias):
    assert elbow(counts, inertias) is None


def test_the_elbow_does_not_depend_on_the_unit():
    counts, inertias = [10, 20, 30, 60, 90], [90.0, 60, 50, 45, 44]
    assert elbow(counts, inertias) == elbow(counts, [1e9 * value for value in inertias])


def test_the_elbow_names_its_method(found):
    if found.elbow is not None:
        assert found.elbow["n_clusters"] == 10
        assert "Kneedle" in found.elbow["reference"]


# Tables


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits_the_terminal_and_tells_all(found, width):
    text = text_of(sweep_table.view(found, width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for point in found.curve:
        assert f"{point['inertia']['low']:,.1f}" in text
        assert f"{100 * point['train_accuracy']['median']:.2f} (" in text
    for part in ("Best SSE", "Test %", "NMI", "Silhouette", "Fit s", "Elbow:", "150 sampled rows"):
        assert part in text, part


def test_markdown_and_csv(found):
    lines = sweep_table.to_markdown(found).splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1
    assert lines[2].startswith("| 5 | 2 | ")
    cells = list(csv.DictReader(io.StringIO(sweep_table.to_csv(found))))
    assert [float(cell["inertia"]) for cell in cells] == [cell["inertia"] for cell in found.cells]
    assert cells[0]["missing_digits"].split() == [str(d) for d in found.cells[0]["missing_digits"]]


# The figure


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_the_figure(found, tmp_path, suffix):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"curves{suffix}"
    draw_curves(found.to_dict(), path)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    content = path.read_bytes()
    assert content.startswith(start)
    assert os.listdir(tmp_path) == [path.name]
    if suffix == ".svg":
        text = content.decode()
        for words in ("number of clusters K", "share of rows recognised, %", "seconds per fit",
                      "Silhouette", "NMI", "SSE", "Train", "Test", "2 seeds"):  # fmt: skip
            assert words in text, words
        draw_curves(found.to_dict(), path)
        assert path.read_bytes() == content


def test_the_figure_of_a_matrix_with_an_odd_name(matrix, tmp_path, device):
    pytest.importorskip("matplotlib")
    odd = matrix.rename(tmp_path / "$x_1$ <b>\x1b.npy")
    result = sweep(odd, n_clusters=[2], path=tmp_path / "c", device=device)
    draw_curves(result.to_dict(), tmp_path / "f.svg")
    text = (tmp_path / "f.svg").read_text()
    assert "$x_1$ &lt;b&gt;" in text
    assert "Accuracy" not in text


# The command


@pytest.fixture
def call(call):
    return partial(call, "sweep")


def test_the_command(call, source, tmp_path, found):
    pytest.importorskip("matplotlib")
    words = ("--data", source, "-k", "5,10,...,20", "--seeds", "0,1", "--silhouette-sample", 150)
    first = call(*words, "--json", "--save", tmp_path / "out", "--figure", tmp_path / "f.png")
    result = json.loads(first.stdout)
    assert [point["n_clusters"] for point in result["curve"]] == [5, 10, 15, 20]
    assert [c["inertia"] for c in result["cells"] if c["n_clusters"] != 15] == [
        cell["inertia"] for cell in found.cells
    ]
    assert result["command"].startswith(
        f"mnist-kmeans-mlx sweep --data {source} --ks 5,10,15,20 --seeds 0,1 "
    )
    assert first.stderr.splitlines() == [
        f"Saved {tmp_path / 'f.png'}",
        f"Saved sweep.json, sweep.md, sweep.csv in {tmp_path / 'out'}",
    ]
    assert (tmp_path / "out" / "sweep.json").read_text() == first.stdout
    (cells,) = tmp_path.rglob("sweep.jsonl")
    assert len(cells.read_text().splitlines()) == 8

    with cells.open("a") as file:
        file.write('{"kind": "sweep c')
    again = call(*words)
    assert again.stderr.splitlines() == [
        f"Note: 1 damaged line is left out of {cells}",
        f"8 of 8 fits were in {cells}",
    ]
    assert "Best SSE" in again.stdout
    assert call(*words, "--markdown", "-q").stdout == (tmp_path / "out" / "sweep.md").read_text()
    assert call(*words, "--csv", "-q").stdout == (tmp_path / "out" / "sweep.csv").read_text()
    assert "fits were" not in call(*words, "--cells", tmp_path / "other.jsonl").stderr


@pytest.mark.parametrize(
    "words",
    [
        "-k 0", "-k x", "--seeds -1", f"--seeds {2**32}", "--figure curves.txt",
        "--silhouette-sample -1", "--csv --markdown",
    ],
)  # fmt: skip
def test_usage_errors_are_2(call, words):
    done = call(*words.split(), code=2)
    assert "Error: " in done.stderr
    assert done.stdout == ""


def test_errors_are_one_sentence(call, matrix, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for words, reason in (
        (("--data", "none.npy"), "none.npy"),
        (("--data", matrix, "-k", 61), "more than the 60 rows: choose fewer with -k"),
        (("--data", matrix, "-k", 2, "--cells", tmp_path / "file" / "x"), str(tmp_path / "file")),
        (("--data", matrix, "-k", 2, "--figure", tmp_path / "no" / "f.png"), "No such file"),
    ):
        assert reason in complaint(call(*words, code=1))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ("--data", matrix, "-k", 2, "--figure", tmp_path / "f.png", "--save", tmp_path / "new")
    assert "pip install 'mnist-kmeans-mlx[plot]'" in complaint(call(*words, code=1))
    assert not (tmp_path / "new").exists()
    with pytest.raises(FigureError):
        draw_curves({}, tmp_path / "f.png")
    assert not (tmp_path / "f.png").exists()


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path):
    """On a terminal: finished cells stay, and it says how to go on."""
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(10_000, 40)))
    cells = tmp_path / "cells.jsonl"
    words = ("sweep", "-k", "2,900", "--n-init", 50, "--silhouette-sample", 0, "--cells", cells)
    seen = interrupted(
        (*words, "--data", tmp_path / "rows.npy"), dict(os.environ), b"K = 900, seed 0 (2 of 2)",
        lambda process: process.send_signal(signal.SIGINT),
    )  # fmt: skip
    assert b"the same command continues" in seen
    kept = [json.loads(line)["cell"] for line in cells.read_text().splitlines()]
    assert [cell["n_clusters"] for cell in kept] == [2]
