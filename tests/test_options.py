"""Options for the columns of a table, in every command that reads one."""

import json
import shlex

import numpy as np
import pytest
from click import Argument
from commands import complaint

from mnist_kmeans_mlx import DatasetWarning, KMeans, load_matrix
from mnist_kmeans_mlx.cli import main
from mnist_kmeans_mlx.cli.options import _ABOUT_OUTPUT, command_line
from mnist_kmeans_mlx.persistence import load_model

ROWS = np.random.default_rng(0).normal(size=(30, 3)).round(3) + 9 * (np.arange(30) % 3)[:, None]
HEADER_NOTE = "has 5,7,9 in its first line, which is taken for a header: header=False (--no-header)"


@pytest.fixture
def table(tmp_path):
    """Rows below a header of numbers, with an index, and a column of text."""
    path = tmp_path / "a.csv"
    lines = [f"{i},{x},text,{y},{z}" for i, (x, y, z) in enumerate(ROWS.tolist())]
    path.write_text("\n".join(["index,x,what,y,z", *lines]) + "\n")
    return path


@pytest.fixture
def numbers(tmp_path):
    path = tmp_path / "n.csv"
    path.write_text("5,7,9\n" + "\n".join(",".join(map(repr, row)) for row in ROWS.tolist()))
    return path


def test_a_fit_of_chosen_columns_and_the_command_that_repeats_it(call, table, tmp_path):
    words = ("fit", "--data", table, "-k", 3, "--seed", 0, "--no-log", "--json")
    done = call(*words, "--columns", "x,3-", "--header", "--save", tmp_path / "model")
    assert done.stderr == f"Saved {tmp_path / 'model'}\n"
    found = json.loads(done.stdout)
    expected = KMeans(3, random_state=0, device="cpu").fit(ROWS)
    assert found["inertia"] == pytest.approx(expected.inertia_, rel=1e-12)
    assert np.allclose(load_model(tmp_path / "model").estimator.cluster_centers_,
                       expected.cluster_centers_)  # fmt: skip
    assert "--header --columns x,3-" in found["command"]
    again = json.loads(call(*shlex.split(found["command"])[1:], "--no-log", "--json").stdout)
    assert again["inertia"] == found["inertia"]
    assert "'text' in line 2, column 'what'" in call(*words, code=1).stderr


def test_a_header_of_numbers_and_the_note_about_it(call, numbers):
    for words, n in (((), 30), (("--header",), 30), (("--no-header",), 31)):
        done = call("data", "--data", numbers, *words, "--json")
        assert json.loads(done.stdout)["n_train"] == n
        assert (HEADER_NOTE in done.stderr) is (not words)
    done = call("data", "--data", numbers, "--json", env={"MNIST_KMEANS_MLX_HEADER": "0"})
    assert json.loads(done.stdout)["n_train"] == 31
    # What was guessed may explain what went wrong.
    done = call("fit", "--data", numbers, "-k", 31, "--no-log", code=1)
    assert HEADER_NOTE in done.stderr
    assert done.stderr.endswith("31 clusters are more than the 30 rows: choose fewer with -k "
                                "(n_clusters).\n")  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_command_reads_the_same_columns(suffix, call, table, tmp_path):
    pandas = pytest.importorskip("pandas")
    path, model = tmp_path / f"b{suffix}", tmp_path / "model"
    frame = pandas.read_csv(table)
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    chosen = ("--columns", "x,y,z")
    truth = tmp_path / "labels.npy"
    np.save(truth, np.arange(30) % 3)
    data = ("--data", path, *chosen, "--labels", truth)
    fit = json.loads(call("fit", *data, "-k", 3, "--save", model, "--no-log", "--json").stdout)
    assert fit["train_accuracy"] == 1
    assert call("predict", model, path, *chosen).stdout.split() == ["0", "1", "2"] * 10
    call("transform", model, path, *chosen, "--out", tmp_path / "out.npy")
    assert np.load(tmp_path / "out.npy").shape == (30, 3)
    found = json.loads(call("evaluate", model, *data, "--json").stdout)
    assert found["train_accuracy"] == 1
    found = json.loads(call("sweep", *data, "-k", "3", "--json").stdout)
    assert found["cells"][0]["train_accuracy"] == 1
    page = tmp_path / "report.html"
    call("report", model, *data, "-o", page)
    assert page.read_text().count("<span>--columns</span> <span>x,y,z</span>") >= 2


def test_rows_are_clustered_by_their_angles(call, tmp_path):
    pytest.importorskip("pyarrow")
    rows = np.random.default_rng(1).normal(size=(60, 3)) * np.arange(1, 61)[:, None]
    np.save(tmp_path / "x.npy", rows)
    words = ("--data", tmp_path / "x.npy", "-k", 4, "--seed", 0, "--metric", "cosine", "--no-log")
    done = call("fit", *words, "--labels-out", tmp_path / "labels.parquet", "--json")
    found = json.loads(done.stdout)
    # Spherical k-means is k-means of unit rows with unit centres: an independent check of the cost.
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    labels = load_matrix(tmp_path / "labels.parquet")[:, 0]
    sums = [np.linalg.norm(unit[labels == k].sum(axis=0)) for k in range(4)]
    assert found["inertia"] == pytest.approx(len(rows) - np.sum(sums), rel=1e-6)
    assert "--metric cosine" in found["command"]


@pytest.mark.parametrize("suffix", ["npy", "csv", "parquet"])
def test_answers_are_printed_and_written(call, numbers, tmp_path, suffix):
    pytest.importorskip("pyarrow")
    call("fit", "--data", numbers, "-k", 3, "--save", tmp_path / "model", "--no-log")
    out = tmp_path / f"out.{suffix}"
    done = call("predict", tmp_path / "model", numbers, "--json", "--out", out)
    found = np.load(out) if suffix == "npy" else load_matrix(out)[:, 0]
    assert found.tolist() == json.loads(done.stdout)["clusters"]


SWITCHES = [
    (command, option, value)
    for command in main.commands.values()
    for option in command.params
    if getattr(option, "is_flag", False) and option.name not in {"help", *_ABOUT_OUTPUT}
    for value in (True, False)
    if value or option.secondary_opts
]


@pytest.mark.parametrize(
    ("command", "option", "value"), SWITCHES, ids=lambda part: getattr(part, "name", str(part))
)
def test_a_switch_comes_back_in_the_command_that_repeats(command, option, value, numbers):
    words = [(option.opts if value else option.secondary_opts)[0]]
    arguments = [str(numbers)] * sum(isinstance(each, Argument) for each in command.params)
    words += ["--out", "x.npy"] if command.name == "transform" else []
    first = command.make_context(command.name, [*arguments, *words])
    again = shlex.split(command_line(first))[2:]
    assert command.make_context(command.name, again).params == first.params


@pytest.mark.slow
def test_compare_reads_them_in_every_process(call, numbers):
    words = ("-k", 3, "--arms", "mlx-cpu", "--repeat", 1, "--columns", "0,2", "--json")
    done = call("compare", "--data", numbers, *words)
    assert json.loads(done.stdout)["data"]["n_features"] == 2
    assert done.stderr.count(HEADER_NOTE) == 1


@pytest.mark.parametrize("command", ["fit", "sweep", "compare"])
def test_three_rows_and_the_clusters_of_the_defaults(command, call, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x,y\n1,2\n3,5\n4,4\n")
    said = complaint(call(command, "--data", path, code=1))
    assert said.endswith("more than the 3 rows: choose fewer with -k (n_clusters).\n")


def test_labels_of_a_column_are_scored(call, mnist, tmp_path):
    rows = np.column_stack([mnist.y_train, mnist.x_train.reshape(60000, -1)])[:200]
    path = tmp_path / "mnist_train.csv.gz"
    np.savetxt(path, rows, "%d", ",", header="label," + ",".join(["p"] * 784), comments="")
    done = call("fit", "--data", path, "-k", 10, "--seed", 0, "--no-log", "--json")
    assert "Note:" in done.stderr
    assert "has labels in column 'label', which is none of the features" in done.stderr
    found = json.loads(done.stdout)
    assert found["n_features"] == 784
    assert found["data"]["class_counts"] == {
        str(digit): int(count) for digit, count in enumerate(np.bincount(rows[:, 0]))
    }
    assert found["train_accuracy"] > 0.4


def test_the_category_is_for_filters(numbers):
    with pytest.warns(DatasetWarning):
        load_matrix(numbers)
    assert issubclass(DatasetWarning, UserWarning)
