import json
import os
import shlex
import signal
import subprocess
import sys
from unittest import mock

import click
import numpy as np
import pytest
from commands import COMMAND, caller, complaint, interrupted, run, settings
from doubles import asked
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx import KMeans, __version__
from mnist_kmeans_mlx.cli import _missing, main
from mnist_kmeans_mlx.experiment import predict_to
from mnist_kmeans_mlx.labeling import infer_data_labels
from mnist_kmeans_mlx.persistence import load_model, save_model

COMMANDS = [
    "fit", "predict", "transform", "evaluate", "sweep", "compare", "report", "data", "env", "log",
]  # fmt: skip
QUICK = ["-k", "12", "--max-iter", "3", "--seed", "5"]
HEAVY = {"mlx", "numpy", "sklearn", "scipy", "tensorflow", "keras", "pandas", "matplotlib"}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def environment(home, device):
    return settings(home, device)


@pytest.fixture(scope="session")
def call(environment):
    """Run a command in this process; the log is that of all these tests."""
    return caller(environment)


def start(environment, *words):
    """Run a command in a process of its own."""
    command, pipe = [*COMMAND, *map(str, words)], subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe)


@pytest.fixture(scope="session")
def model(call, home):
    """A model of MNIST with few iterations."""
    path = home / "model.safetensors"
    done = call("fit", *QUICK, "--save", path, "--no-log", "--json")
    return path, json.loads(done.stdout)


@pytest.fixture
def matrix(tmp_path):
    random = np.random.default_rng(0)
    path = tmp_path / "points.csv"
    rows = random.normal(size=(40, 3)) + 20 * (np.arange(40) % 2)[:, None]
    np.savetxt(path, rows, delimiter=",")
    return path


def options(command):
    return [p for p in command.params if isinstance(p, click.Option)]


# Help


def test_help_is_quick(environment):
    code = (
        "import sys\n"
        "from mnist_kmeans_mlx.cli import main\n"
        "for words in (['-h'], ['fit', '--help'], ['predict', '-h'], ['sweep', '-h'],\n"
        "              ['compare', '-h'], ['--version']):\n"
        "    try: main(words)\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = run("-c", code, env=environment)
    assert not HEAVY & set(eval(done.stderr))
    assert __version__ in done.stdout


def test_the_commands():
    assert list(main.commands) == COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_is_documented(call, name):
    command = main.commands[name]
    assert command.help
    short = command.get_short_help_str(limit=62)
    assert not short.endswith("..."), short
    for option in options(command):
        assert option.help, option.name
        assert option.help.rstrip("]").rstrip()[-1] in ".)" or "[default" in option.help
        # The environment variable is named for the option.
        assert option.name in {text.lstrip("-").replace("-", "_") for text in option.opts}
    for flag in ("-h", "--help"):
        text = call(name, flag).stdout
        for option in options(command):
            assert max(option.opts, key=len) in text
    assert "json" in {option.name for option in options(command)}


def test_no_two_commands_give_an_option_two_meanings():
    """They share one environment variable, so that they must share what it may say."""
    types = {}
    for command in main.commands.values():
        for option in options(command):
            found = types.setdefault(option.name, (type(option.type), option.is_flag))
            assert found == (type(option.type), option.is_flag), option.name


def test_version_and_completion(call):
    assert call("--version").stdout == f"mnist-kmeans-mlx {__version__}\n"
    script = call(env={"_MNIST_KMEANS_MLX_COMPLETE": "bash_source"}).stdout
    assert "_MNIST_KMEANS_MLX_COMPLETE=bash_complete" in script


# fit


def test_fit_prints_what_was_found(call):
    done = call("fit", *QUICK, "--no-log")
    assert "MNIST · 12 clusters" in done.stdout
    assert "% train accuracy" in done.stdout
    assert "\x1b" not in done.output
    assert "░" not in done.stdout, "no gallery in a pipe"
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_fit_as_json(model):
    found = model[1]
    assert found["n_clusters"] == 12
    assert found["seed"] == 5
    assert found["n_iter"] == 3
    assert 0.4 < found["train_accuracy"] < 0.8
    assert 0.4 < found["test_accuracy"] < 0.8
    assert 2.2e6 < found["inertia"] < 2.5e6, "in units of pixels / 255"
    assert found["timings"].keys() == {"load", "fit", "label", "predict", "score"}
    assert found["command"] == "mnist-kmeans-mlx fit --clusters 12 --max-iter 3 --seed 5" or (
        "--device" in found["command"]
    )
    assert found["parameters"]["max_iter"] == 3


def test_the_command_in_the_result_repeats_it(call, matrix):
    first = json.loads(call("fit", "--data", matrix, "-k", 7, "--init", "random", "--json").stdout)
    words = shlex.split(first["command"])
    assert words[:2] == ["mnist-kmeans-mlx", "fit"]
    again = json.loads(call(*words[1:], "--json").stdout)
    assert again["inertia"] == first["inertia"]
    assert again["command"] == first["command"]
    assert [c["size"] for c in again["clusters"]] == [c["size"] for c in first["clusters"]]


def test_fit_of_a_matrix(call, matrix):
    done = call("fit", "--data", matrix, "-k", 2, "--no-log", "--gallery")
    assert "points.csv · 2 clusters" in done.stdout
    assert "accuracy" not in done.stdout
    assert "no square image" in done.stderr


def test_fit_of_a_matrix_with_labels(call, matrix, tmp_path):
    labels = tmp_path / "labels.csv"
    np.savetxt(labels, np.arange(40) % 2, fmt="%d")
    words = ("--data", matrix, "--labels", labels, "-k", 2, "--no-log")
    assert "100.00 % train accuracy" in call("fit", *words).stdout
    assert json.loads(call("data", "--data", matrix, "--labels", labels, "--json").stdout)[
        "class_counts"
    ] == {"0": 20, "1": 20}


def test_an_array_is_chosen_by_its_key(call, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.eye(5), b=np.eye(6))
    found = call("fit", "--data", tmp_path / "two.npz", "--key", "b", "-k", 2, "--json").stdout
    assert json.loads(found)["n_features"] == 6


def test_the_gallery_when_asked_for(call):
    wide = call("fit", *QUICK, "--no-log", "--gallery").stdout
    narrow = call("fit", *QUICK, "--no-log", "--gallery", env={"COLUMNS": "60"}).stdout
    for text, width in ((wide, 100), (narrow, 60)):
        assert "█" in text
        assert "\x1b" not in text
        assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert narrow.count("\n") > wide.count("\n")


def test_quiet_says_nothing_on_stderr(call, matrix, tmp_path):
    words = ("fit", "--data", matrix, "-k", 2, "--no-log", "--save", tmp_path / "m")
    assert call(*words).stderr == f"Saved {tmp_path / 'm'}\n"
    assert call(*words, "-q").stderr == ""


def test_what_the_estimator_warns_of_is_a_note(call, tmp_path):
    np.save(tmp_path / "same.npy", np.ones((9, 2)))
    done = call("fit", "--data", tmp_path / "same.npy", "-k", 3, "--no-log")
    assert done.stderr.startswith("Note: Number of distinct clusters (1)")


def test_environment_variables_stand_for_options(call, matrix):
    given = {"DATA": matrix, "CLUSTERS": 4, "N_INIT": 2, "NO_LOG": 1, "JSON": 1, "SEED": 9}
    found = call("fit", env={f"MNIST_KMEANS_MLX_{name}": str(v) for name, v in given.items()})
    result = json.loads(found.stdout)
    assert (result["n_clusters"], result["seed"], result["parameters"]["n_init"]) == (4, 9, 2)
    assert "--n-init 2" in result["command"]
    call("fit", code=2, env={"MNIST_KMEANS_MLX_CLUSTERS": "many"})


# Models


def test_predict_prints_one_digit_to_a_line(call, model, mnist):
    path, found = model
    digits = np.array(call("predict", path, "bundled").stdout.split(), dtype=int)
    assert len(digits) == 10_000
    assert np.mean(digits == mnist.y_test) == found["test_accuracy"]


def test_predict_the_training_images_and_their_clusters(call, model, mnist):
    path, found = model
    text = call("predict", path, "bundled", "--part", "train", "--json").stdout
    both = json.loads(text)
    assert np.mean(np.array(both["labels"]) == mnist.y_train) == found["train_accuracy"]
    sizes = np.bincount(both["clusters"], minlength=12)
    lines = call("predict", path, "bundled", "--part", "train", "--cluster-numbers").stdout
    assert lines.split() == list(map(str, both["clusters"]))
    if found["n_iter"] < 3:
        assert sizes.tolist() == [c["size"] for c in found["clusters"]]


def test_predict_to_a_file(call, model, mnist, tmp_path):
    np.save(tmp_path / "some.npy", mnist.x_test[:20])
    np.save(tmp_path / "scaled.npy", mnist.x_test[:20].reshape(20, -1) / 255)
    expected = np.array(call("predict", model[0], tmp_path / "some.npy").stdout.split(), dtype=int)
    for data in ("some.npy", "scaled.npy"):
        done = call("predict", model[0], tmp_path / data, "--out", tmp_path / "out.npy")
        assert done.stdout == ""
        assert_array_equal(np.load(tmp_path / "out.npy"), expected)
    call("predict", model[0], tmp_path / "some.npy", "--out", tmp_path / "out.csv")
    table = np.genfromtxt(tmp_path / "out.csv", delimiter=",", names=True)
    assert table.dtype.names == ("cluster", "label")
    assert_array_equal(table["label"], expected)
    done = call("predict", model[0], "auto", "--out", tmp_path / "out.txt", code=2)
    assert ".npy, .csv or .parquet" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["out.csv", "out.npy", "scaled.npy", "some.npy"]


def test_one_row_is_enough_to_predict_but_not_to_fit(call, model, mnist, tmp_path):
    np.save(tmp_path / "one.npy", mnist.x_test[:1])
    (tmp_path / "label.csv").write_text(f"{mnist.y_test[0]}\n")
    (digit,) = call("predict", model[0], tmp_path / "one.npy").stdout.split()
    assert digit == call("predict", model[0], "bundled").stdout.split()[0]
    words = ("--data", tmp_path / "one.npy", "--labels", tmp_path / "label.csv", "--json")
    scores = json.loads(call("evaluate", model[0], *words).stdout)["scores"]
    assert scores["train"]["accuracy"] == (int(digit) == mnist.y_test[0])
    done = call("fit", "--data", tmp_path / "one.npy", "-k", 1, code=1)
    assert "one row only" in complaint(done)


def test_a_model_with_metadata_of_somebody_else(call, mnist, tmp_path):
    path, rows = tmp_path / "m.safetensors", mnist.x_test[:50].reshape(50, -1)
    for unit in ("mm", None, -1, float("inf")):
        save_model(path, KMeans(2, random_state=0).fit(rows), metadata={"unit": unit})
        np.save(tmp_path / "rows.npy", rows)
        assert len(call("predict", path, tmp_path / "rows.npy").stdout.split()) == 50


def test_a_model_without_digits_gives_cluster_numbers(call, matrix, tmp_path):
    path = tmp_path / "m.safetensors"
    call("fit", "--data", matrix, "-k", 2, "--no-log", "--save", path)
    done = call("predict", path, matrix)
    assert sorted(set(done.stdout.split())) == ["0", "1"]
    assert "cluster numbers" in done.stderr
    assert json.loads(call("predict", path, matrix, "--json").stdout)["labels"] is None
    call("predict", path, matrix, "--out", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().startswith("cluster\n")
    assert "names no digits" in call("evaluate", path, code=1).stderr


def test_evaluate_scores_as_fit_did(call, model):
    path, fitted = model
    found = json.loads(call("evaluate", path, "--json").stdout)
    assert found["scores"] == fitted["scores"]
    assert f"{100 * fitted['test_accuracy']:.2f} % test accuracy" in call("evaluate", path).stdout


# data, env, log


def test_data(call, mnist):
    found = json.loads(call("data", "--json").stdout)
    assert (found["n_train"], found["n_test"], found["n_features"]) == (60000, 10000, 784)
    assert found["sha256"] == mnist.checksum
    text = call("data").stdout
    assert "60,000 rows" in text
    assert "sa/3.0" in text


def test_env(call, device):
    found = json.loads(call("env", "--json").stdout)
    assert found["mnist-kmeans-mlx"] == __version__
    assert found["device"] == device
    assert found.keys() >= {"machine", "mlx", "numpy", "scikit-learn", "python"}
    assert found["mlx"] in call("env").stdout


def test_env_where_mlx_does_not_load(call, monkeypatch):
    monkeypatch.delitem(sys.modules, "mnist_kmeans_mlx.device")
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    found = json.loads(call("env", "--json").stdout)
    assert "cannot be loaded" in found["mlx"]
    assert found["mnist-kmeans-mlx"] == __version__


def test_every_fit_adds_a_line_to_the_log(call, matrix, tmp_path):
    log = tmp_path / "log.jsonl"
    assert "No experiments yet" in call("log", "--log", log).stderr
    assert json.loads(call("log", "--log", log, "--json").stdout) == []
    for k in (2, 3):
        call("fit", "--data", matrix, "-k", k, "--log", log)
    call("fit", "--data", matrix, "-k", 4, "--log", log, "--no-log")
    with log.open("a") as file:
        file.write('{"n_clusters": 9\n')
    done = call("log", "--log", log, "--json")
    assert [entry["n_clusters"] for entry in json.loads(done.stdout)] == [2, 3]
    assert done.stderr == f"Note: 1 damaged line is left out of {log}\n"
    done = call("log", "--log", log, "--last", 1)
    assert "points.csv" in done.stdout
    assert len([line for line in done.stdout.splitlines() if "points.csv" in line]) == 1


def test_the_log_of_the_user(call, matrix, home):
    call("fit", "--data", matrix, "-k", 2)
    found = json.loads(call("log", "--json").stdout)
    assert found[-1]["data"] == "points.csv"
    assert list(home.rglob("experiments.jsonl"))


def test_a_log_that_cannot_be_written_loses_no_fit(call, matrix, tmp_path):
    (tmp_path / "file").write_text("")
    done = call("fit", "--data", matrix, "-k", 2, "--log", tmp_path / "file" / "log", "--json")
    assert json.loads(done.stdout)["n_clusters"] == 2
    assert done.stderr == (
        f"Warning: this run is not in the experiment log (File exists: {tmp_path / 'file'}).\n"
    )


# What goes wrong


@pytest.mark.parametrize(
    "words",
    [
        "fit -k 0", "fit --seed -1", f"fit --seed {2**32}", "fit --n-init none", "fit --n-init 0",
        "fit --device tpu", "fit --tol -1", "fit surplus", "predict",
        "predict no-such-model bundled", "evaluate no-such-model", "log --last 0", "--nonsense",
    ],
)  # fmt: skip
def test_usage_errors_are_2(call, words):
    done = call(*words.split(), code=2)
    assert "Error: " in done.stderr
    assert done.stdout == ""


def test_a_misspelt_command(call):
    done = call("predct", code=2)
    assert "No such command 'predct'" in done.stderr
    if hasattr(click.exceptions, "NoSuchCommand"):
        assert "predict" in done.stderr


def test_errors_are_one_sentence(call, model, matrix, tmp_path):
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x80\x04}.")
    pipe = tmp_path / "pipe.npy"
    os.mkfifo(pipe)  # to open it would wait for a writer
    folder = tmp_path / "no" / "folder"
    for words, reason in (
        (("fit", "--data", tmp_path / "none.npy"), "none.npy"),
        (("fit", "--data", matrix, "-k", 41), "41"),
        (("fit", "--labels", matrix), "its own labels"),
        (("fit", "--data", foreign), "foreign"),
        (("predict", foreign, "bundled"), "not a safetensors file"),
        (("evaluate", foreign), "not a safetensors file"),
        (("predict", model[0], matrix), "has 3 columns, the model needs 784"),
        (("evaluate", model[0], "--data", matrix), "labels"),
        (("fit", "--save", folder / "m"), f"No such file or directory: {folder / 'm'}"),
        (("predict", model[0], "auto", "--out", folder / "m.npy"), "No such file or directory"),
        (("data", "--data", foreign), "foreign"),
        (("data", "--data", pipe), "not a regular file"),
        (("predict", model[0], pipe), "not a regular file"),
    ):
        assert reason in complaint(call(*words, code=1))


def test_what_may_not_be_read_is_one_sentence(call, matrix):
    matrix.chmod(0)
    if os.access(matrix, os.R_OK):
        pytest.skip("this user may read everything")
    done = call("data", "--data", matrix, code=1)
    assert complaint(done) == f"Error: '{matrix}' cannot be read (Permission denied).\n"


def test_no_gpu_is_one_sentence(call, matrix):
    import mlx.core as mx

    if mx.metal.is_available() or mx.cuda.is_available():
        pytest.skip("there is a GPU")
    done = call("fit", "--data", matrix, "-k", "2", "--device", "gpu", code=1)
    assert "no GPU" in complaint(done)


def test_an_unwritable_model_is_noticed_before_the_fit(call, tmp_path, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.experiment.run", pytest.fail)
    call("fit", "--save", tmp_path / "none" / "model", code=1)


def test_a_model_that_fails_to_be_saved_does_not_hide_the_result(
    call, matrix, tmp_path, monkeypatch
):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device", "model")

    monkeypatch.setattr("mnist_kmeans_mlx.persistence.save_model", full)
    words = ("fit", "--data", matrix, "-k", 2, "--save", tmp_path / "m", "--json", "--no-log")
    done = call(*words, code=1)
    assert json.loads(done.stdout)["n_clusters"] == 2
    assert done.stderr == "Error: No space left on device: model\n"


def test_a_package_that_is_missing_is_one_sentence(call, monkeypatch):
    for name in ("experiment.flow", "experiment", "estimator", "device"):
        monkeypatch.delitem(sys.modules, f"mnist_kmeans_mlx.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    assert "mnist-kmeans-mlx[cpu]" in complaint(call("fit", code=1))


@pytest.mark.parametrize(
    ("error", "about_mlx"),
    [
        (ImportError("no file", name="core", path="/python/site-packages/mlx/core.so"), True),
        (ImportError("no such name", name="mlx.core"), True),
        (ImportError("cannot import name 'x' from 'mlx_lm'", name="mlx_lm"), False),
        (ImportError("no module 'x' for mnist_kmeans_mlx", name="x"), False),
        (ImportError("mlx"), False),
    ],
)
def test_only_mlx_itself_is_mlx_that_is_missing(error, about_mlx):
    assert ("MLX cannot be loaded" in _missing(error)) == about_mlx


# Processes


def test_a_closed_pipe_ends_it_quietly(environment, model, matrix):
    for words in (
        ("predict", model[0], "bundled", "--part", "train"),
        ("fit", "--data", matrix, "-k", "2", "--no-log"),
    ):
        process = start(environment, *words)
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        assert process.wait(60) == 1
        assert said == b""


def test_ctrl_c_is_130(environment, tmp_path):
    """On a terminal: the spinner shows, stops, and leaves the cursor visible."""
    words = ("fit", "-k", 300, "--n-init", 50, "--save", tmp_path / "m", "--no-log")
    sign = b"Finding 300 clusters"
    seen = interrupted(words, environment, sign, lambda it: it.send_signal(signal.SIGINT))
    assert b"Loading data" in seen
    assert seen.endswith(b"Interrupted.\r\n")
    assert b"\x1b[?25h" in seen
    assert os.listdir(tmp_path) == []


def test_a_terminal_without_unicode_gets_no_traceback(environment, matrix):
    plain = {**environment, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    words = ("fit", "--data", matrix, "-k", "2", "--no-log")
    with start(plain, *words) as process:
        out, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert out.isascii()
    assert b"2 clusters" in out


def test_transform_writes_distances(call, model, tmp_path, mnist):
    done = call("transform", model[0], "auto", "--out", tmp_path / "far.npy", "--json")
    assert json.loads(done.stdout) == {"file": str(tmp_path / "far.npy"), "rows": 10_000}
    far = np.load(tmp_path / "far.npy")
    rows = mnist.x_test.reshape(10_000, -1)
    assert_array_equal(far, load_model(model[0]).estimator.transform(rows))


def test_rows_in_parts(call, model, tmp_path, mnist):
    rows = mnist.x_test.reshape(10_000, -1)
    for number, part in enumerate(np.array_split(rows, 3)):
        np.save(tmp_path / f"rows-{number}.npy", part)
    # So little that the rows stay in their files.
    words = [tmp_path / "rows-*.npy", "--memory", "401.5MB"]
    call("predict", model[0], *words, "--out", tmp_path / "found.npy", "--cluster-numbers")
    found = load_model(model[0]).estimator.predict(rows)
    assert_array_equal(np.load(tmp_path / "found.npy"), found)
    done = call("predict", model[0], *words, code=2)
    assert "larger than --memory: write the answer to an --out file" in done.stderr
    for data in (words[:1], words):
        call("fit", "--data", *data, "-k", 3, "--seed", 0, "--labels-out", tmp_path / "labels.npy")
        expected = KMeans(3, random_state=0).fit_predict(rows)
        assert_array_equal(np.load(tmp_path / "labels.npy"), expected)
    done = call("fit", "--data", *words[:1], "--memory", "9MB", code=1)
    assert "memory='9MB' is too little for 10000 rows" in done.stderr
    assert "end in .npy" in call("fit", "--labels-out", "labels.txt", code=2).stderr


def test_an_answer_to_other_rows_is_begun_anew_with_a_note(call, model, tmp_path, mnist):
    rows, out = mnist.x_test.reshape(10_000, -1), tmp_path / "found.npy"
    loaded = load_model(model[0])
    few = mock.patch("mnist_kmeans_mlx.answers.BLOCK", 4 * 784 * 5000)
    with few, asked(loaded.estimator, most=1), pytest.raises(KeyboardInterrupt):
        predict_to(loaded, rows, str(out))
    np.save(tmp_path / "rows.npy", rows[::-1])
    done = call("predict", model[0], tmp_path / "rows.npy", "--out", out)
    assert f"Note: {str(out)!r} starts again" in done.stderr
    assert "belongs to other rows." in done.stderr
    clusters = loaded.estimator.predict(rows[::-1])
    assert_array_equal(np.load(out), infer_data_labels(clusters, loaded.cluster_labels))


@pytest.mark.parametrize("size", ["lots", "2G", "0", "-1GB", "1e9"])
def test_what_is_no_size(call, size):
    done = call("fit", f"--memory={size}", code=2)
    assert f"{size!r} is no size such as 2GB or 800MB." in done.stderr
