import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from commands import run
from doubles import asked
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx import experiment
from mnist_kmeans_mlx.datasets import DatasetError, DatasetWarning, open_rows
from mnist_kmeans_mlx.experiment import Data, ExperimentError
from mnist_kmeans_mlx.experiment.portrait import portray
from mnist_kmeans_mlx.labeling import infer_data_labels
from mnist_kmeans_mlx.persistence import Model, load_model, save_model


@pytest.fixture(scope="module")
def images():
    """Bytes in three well separated groups, for training and test."""
    random = np.random.default_rng(0)
    truth = np.arange(120) % 3
    pixels = (random.integers(0, 30, (120, 16)) + 100 * truth[:, None]).astype(np.uint8)
    return pixels, truth.astype(np.uint8)


@pytest.fixture(scope="module")
def data(images):
    x, y = images
    return Data("tiny", x[:90], y[:90], x[90:], y[90:], unit=255.0, facts={"source": "test"})


@pytest.fixture(scope="module")
def result(data, device):
    return experiment.run(data, n_clusters=3, seed=1, device=device, command="fit it")


@pytest.fixture
def matrix(tmp_path, images):
    path = tmp_path / "points.npy"
    np.save(path, images[0].astype(float))
    return path


def model_of(result, tmp_path):
    path, about = tmp_path / "model.safetensors", {"unit": result.unit}
    save_model(path, result.estimator, cluster_labels=result.cluster_labels, metadata=about)
    return load_model(path)


def test_the_keys_that_others_rely_on(result):
    found = result.to_dict()
    assert found.keys() >= {
        "train_accuracy", "test_accuracy", "inertia", "n_iter", "device", "timings", "n_clusters",
        "seed", "parameters", "scores", "clusters", "missing_digits", "rechecked_rows",
        "environment", "data", "version", "command", "started",
    }  # fmt: skip
    assert found["timings"].keys() == {"load", "fit", "label", "predict", "score"}
    assert found["scores"].keys() == {"train", "test"}
    assert found["clusters"][0].keys() == {"index", "size", "digit", "purity"}
    assert found["environment"].keys() >= {"machine", "mlx", "numpy", "scikit-learn", "python"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["command"] == "fit it"
    assert found["data"]["n_train"] == 90


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_history_is_what_verbose_prints(data, device, capsys, metric):
    done = experiment.run(
        data, n_clusters=5, seed=1, device=device, n_init=3, tol=0, init="random", metric=metric,
        verbose=1,
    )  # fmt: skip
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    values = [float(line[3].rstrip(".")) for line in printed if line[0] == "Iteration"]
    scale = 1 if metric == "cosine" else 255**2
    assert len(done.history) == 3
    assert np.concatenate(done.history) == pytest.approx(np.array(values) / scale, rel=1e-9)
    assert done.n_iter in map(len, done.history)
    assert min(curve[-1] for curve in done.history) == pytest.approx(done.inertia, rel=1e-9)


def test_a_fit_that_went_on_has_no_history(data, device, tmp_path):
    from mnist_kmeans_mlx.checkpoint import Checkpoint

    words = {"n_clusters": 3, "seed": 1, "device": device}
    path = tmp_path / "fit.checkpoint"
    whole = experiment.run(data, checkpoint=Checkpoint(path), **words)
    assert whole.history
    again = experiment.run(data, checkpoint=Checkpoint(path, resume=True), **words)
    assert again.inertia == whole.inertia
    assert again.history is None


def test_it_does_what_the_notebook_did(result, data):
    from sklearn.cluster import KMeans

    pixels = data.train / 255.0
    other = KMeans(3, random_state=1).fit(pixels)
    assert_array_equal(result.estimator.labels_, other.labels_)
    assert result.inertia == pytest.approx(other.inertia_, rel=1e-12)
    assert result.n_iter == other.n_iter_
    digit_of = {c: np.bincount(data.y_train[other.labels_ == c]).argmax() for c in range(3)}
    named = np.array([digit_of[c] for c in other.labels_])
    assert result.train_accuracy == np.mean(named == data.y_train)
    named = np.array([digit_of[c] for c in other.predict(data.test / 255.0)])
    assert result.test_accuracy == np.mean(named == data.y_test)


def test_clusters_know_their_digit_size_and_purity(result):
    assert sorted(c.digit for c in result.clusters) == [0, 1, 2]
    assert sum(c.size for c in result.clusters) == 90
    assert [c.purity for c in result.clusters] == [1.0, 1.0, 1.0]
    assert result.missing == ()


def test_classes_without_a_cluster_are_named(data, device):
    found = experiment.run(data, n_clusters=2, seed=1, device=device)
    assert len(found.missing) == 1
    assert {c.digit for c in found.clusters} == {0, 1, 2} - set(found.missing)
    mixed = min(found.clusters, key=lambda c: c.purity)
    assert mixed.purity == pytest.approx(mixed.purity)
    assert mixed.purity < 0.7


def test_a_drawn_seed_repeats_the_run(data, device):
    first = experiment.run(data, n_clusters=5, device=device, init="random", n_init=1)
    again = experiment.run(
        data, n_clusters=5, seed=first.seed, device=device, init="random", n_init=1
    )
    assert_array_equal(first.estimator.labels_, again.estimator.labels_)
    assert first.parameters["random_state"] == first.seed


def test_stages_are_announced_and_timed(data, device):
    stages = []
    found = experiment.run(data, n_clusters=2, seed=0, device=device, observe=stages.append)
    assert list(dict.fromkeys(stages)) == ["load", "fit", "label", "score", "predict"]
    assert all(found.timings[stage] > 0 for stage in experiment.STAGES)


def test_a_matrix_has_clusters_and_no_scores(matrix, device):
    found = experiment.run(matrix, n_clusters=3, seed=0, device=device)
    assert found.train is found.test is found.train_accuracy is found.cluster_labels is None
    assert found.unit == 1
    assert found.data["name"] == "points.npy"
    assert {c.digit for c in found.clusters} == {None}
    assert sum(c.size for c in found.clusters) == 120
    assert found.to_dict()["scores"] == {"train": None, "test": None}
    assert found.timings["predict"] == 0


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_matrix_with_labels_is_scored(matrix, images, tmp_path, device, suffix):
    path = tmp_path / f"labels{suffix}"
    if suffix == ".npy":
        np.save(path, images[1])
    else:
        np.savetxt(path, images[1], fmt="%d")
    found = experiment.run(matrix, labels=path, n_clusters=3, seed=0, device=device)
    assert found.train_accuracy == 1
    assert found.test_accuracy is None


def test_labels_of_other_rows_are_refused(matrix, tmp_path):
    np.save(tmp_path / "labels.npy", np.array([0, 1]))
    with pytest.raises(ExperimentError, match=r"labels\.npy' holds 2 labels for 120 rows"):
        experiment.load(matrix, labels=tmp_path / "labels.npy")


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [(-1, "-1"), (2**20, "1048576"), (0.5, "0.5"), (np.nan, "nan"), (1e300, "1e+300")],
)
def test_a_label_that_is_none_is_named(matrix, tmp_path, wrong, shown):
    labels = np.zeros(120, np.int64 if isinstance(wrong, int) else np.float64)
    labels[[7, 9]] = wrong
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(ExperimentError) as caught:
        experiment.load(matrix, labels=tmp_path / "labels.npy")
    assert str(caught.value) == (
        f"{str(tmp_path / 'labels.npy')!r} holds the label {shown} in row 7 (counted from 0), "
        "where labels are whole numbers from 0 to 1048575."
    )


def test_labels_of_a_column_are_those_of_the_data(mnist, tmp_path, device):
    rows = np.column_stack([mnist.y_train, mnist.x_train.reshape(60000, -1)])[:500]
    names = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    path = tmp_path / "mnist_train.csv"
    np.savetxt(path, rows, "%d", ",", header=names, comments="")
    with pytest.warns(DatasetWarning, match="has labels in column 'label'"):
        found = experiment.load(path)
    assert_array_equal(found.y_train, mnist.y_train[:500])
    assert_array_equal(found.train, mnist.x_train[:500].reshape(500, -1))
    other = Data("same", mnist.x_train[:500].reshape(500, -1), mnist.y_train[:500])
    words = {"n_clusters": 10, "seed": 0, "device": device}
    accuracy = experiment.run(other, **words).train_accuracy
    assert experiment.run(found, **words).train_accuracy == accuracy
    assert experiment.load(path, columns="1-784").y_train is None
    np.save(tmp_path / "labels.npy", np.ones(500))
    with pytest.warns(DatasetWarning):
        found = experiment.load(path, labels=tmp_path / "labels.npy")
    assert set(found.y_train) == {1}


def test_labels_as_pandas_writes_them(matrix, images, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": images[1]})
    path = tmp_path / "labels.csv"
    frame.to_csv(path, index=False)
    assert_array_equal(experiment.load(matrix, labels=path).y_train, images[1])
    frame.to_csv(path)
    with pytest.warns(DatasetWarning, match="has an index in its first column"):
        assert_array_equal(experiment.load(matrix, labels=path).y_train, images[1])
    frame.label.rename(0).to_csv(path, index=False)
    with pytest.raises(ExperimentError, match=r"121 labels for 120 rows .*one of them a header"):
        experiment.load(matrix, labels=path)


def test_letters_are_clustered_and_named(tmp_path, device):
    from damage import small_mnist
    from test_mnist import other_names

    letters = small_mnist(40) | {"y_train": np.arange(40, dtype=np.uint8) % 26 + 1}
    other_names(tmp_path, "emnist-letters", letters)
    found = experiment.load(tmp_path / "emnist-letters")
    assert_array_equal(found.y_train, letters["y_train"])
    result = experiment.run(found, n_clusters=40, seed=0, device=device)
    assert result.train_accuracy == 1
    assert {cluster.digit for cluster in result.clusters} == set(range(1, 27))
    with pytest.raises(ExperimentError, match="no header and no columns"):
        experiment.load(tmp_path / "emnist-letters", columns="1-")


def test_mnist_brings_its_own_labels(tmp_path):
    with pytest.raises(ExperimentError, match="its own labels"):
        experiment.load("bundled", labels=tmp_path / "labels.npy")


def test_mnist_stays_bytes(mnist):
    found = experiment.load()
    assert found.train.shape == (60000, 784)
    assert found.test.shape == (10000, 784)
    assert found.train.dtype == np.uint8
    assert found.unit == 255
    assert found.facts["sha256"] == mnist.checksum
    facts = found.to_dict()
    assert facts["class_counts"]["1"] == 6742
    assert json.loads(json.dumps(facts)) == facts


def test_an_mnist_file_is_told_from_a_matrix(mnist, tmp_path):
    part = {key: getattr(mnist, key)[:50] for key in ("x_train", "y_train", "x_test", "y_test")}
    np.savez(tmp_path / "small.npz", **part)
    assert experiment.load(tmp_path / "small.npz").y_test is not None
    as_matrix = experiment.load(tmp_path / "small.npz", key="x_train")
    assert as_matrix.y_train is None
    assert as_matrix.train.shape == (50, 784)
    (tmp_path / "broken.npz").write_bytes(b"PK\3\4")
    for name in ("broken.npz", "none.npz"):
        with pytest.raises(DatasetError, match=name):
            experiment.load(tmp_path / name)


def test_more_clusters_than_rows_is_one_sentence(matrix, device):
    with pytest.raises(ExperimentError) as caught:
        experiment.run(matrix, n_clusters=121, device=device)
    assert "\n" not in str(caught.value)
    assert str(caught.value) == (
        "121 clusters are more than the 120 rows: choose fewer with -k (n_clusters)."
    )


def test_a_saved_model_predicts_and_scores_the_same(result, data, tmp_path, device):
    model = model_of(result, tmp_path)
    clusters, labels = experiment.predict(model, data.test, device=device)
    assert_array_equal(clusters, result.estimator.predict(data.test))
    assert np.mean(labels == data.y_test) == result.test_accuracy
    found = experiment.evaluate(model, data, device=device)
    assert found.train.to_dict() == result.train.to_dict()
    assert found.test.to_dict() == result.test.to_dict()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["test_accuracy"] == 1


def test_pixels_between_0_and_1_suit_a_model_of_bytes(result, data, tmp_path, device):
    model = model_of(result, tmp_path)
    expected, _ = experiment.predict(model, data.test, device=device)
    for dtype in (np.float32, np.float64):
        scaled = (data.test / 255).astype(dtype)
        assert_array_equal(experiment.predict(model, scaled, device=device)[0], expected)
        unscaled = data.test.astype(dtype)
        assert_array_equal(experiment.predict(model, unscaled, device=device)[0], expected)


def test_what_does_not_fit_a_model(result, data, matrix, tmp_path, device):
    model = model_of(result, tmp_path)
    with pytest.raises(ExperimentError, match="has 3 columns, the model needs 16"):
        experiment.predict(model, np.zeros((2, 3)))
    with pytest.raises(ExperimentError, match="labels"):
        experiment.evaluate(model, experiment.load(matrix))
    nameless = experiment.run(matrix, n_clusters=2, device=device)
    model = model_of(nameless, tmp_path)
    assert experiment.predict(model, data.test, device=device)[1] is None
    with pytest.raises(ExperimentError, match="names no digits"):
        experiment.evaluate(model, data)


# The log


def test_the_log_keeps_what_the_table_shows(result, tmp_path):
    path = tmp_path / "deep" / "log.jsonl"
    assert experiment.append_log(result.log_entry(), path) == path
    experiment.append_log(result.log_entry(), path)
    entries, damaged = experiment.read_log(path)
    assert damaged == 0
    assert entries == [result.log_entry()] * 2
    assert entries[0]["train_accuracy"] == result.train_accuracy
    assert entries[0]["seconds"] == result.timings["fit"]


def test_no_log_is_an_empty_log(tmp_path):
    assert experiment.read_log(tmp_path / "none") == ([], 0)


def test_damaged_lines_are_counted_and_passed_over(result, tmp_path):
    path = tmp_path / "log.jsonl"
    experiment.append_log(result.log_entry(), path)
    with path.open("ab") as log:
        log.write(b'\xff\xfe\n\n[1]\n{"date": 3}\n' + b"[" * 50_000 + b'\n{"date": "2025')
    experiment.append_log(result.log_entry(), path)
    entries, damaged = experiment.read_log(path)
    assert entries == [result.log_entry()] * 2
    assert damaged == 5


def test_two_fits_at_once_lose_nothing(result, tmp_path):
    path = tmp_path / "log.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: experiment.append_log(result.log_entry(), path), range(200)))
    entries, damaged = experiment.read_log(path)
    assert (len(entries), damaged) == (200, 0)


def test_a_log_that_cannot_be_written(result, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "log.jsonl", tmp_path):
        with pytest.raises(OSError, match=str(tmp_path)):
            experiment.append_log(result.log_entry(), path)
    os.mkfifo(tmp_path / "pipe")
    before = time.monotonic()
    with pytest.raises(OSError, match="pipe"):
        experiment.append_log(result.log_entry(), tmp_path / "pipe")
    assert time.monotonic() - before < 5


def test_the_log_is_in_the_state_folder_of_the_user(tmp_path):
    code = "from mnist_kmeans_mlx.experiment import log_path; print(log_path())"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    path = run("-c", code, env=environment).stdout
    assert path.startswith(str(tmp_path))
    assert path.endswith("experiments.jsonl\n")


@pytest.fixture
def dark(data, device):
    """A model of images, and floats of 0 to 255 that begin and end with blank ones."""
    fitted = experiment.run(data, n_clusters=3, seed=1, device=device)
    model = Model(fitted.estimator, fitted.cluster_labels, {"unit": 255.0})
    rows = np.concatenate([np.zeros((1500, 16)), data.train, np.zeros((1500, 16))])
    return model, rows.astype(np.float32)


def test_the_unit_is_guessed_from_all_rows(dark, tmp_path, monkeypatch):
    """However they are read, in memory or from a file, in one part or in many."""
    monkeypatch.setattr("mnist_kmeans_mlx.experiment.flow._BLOCK", 4096)
    model, pixels = dark
    clusters = model.estimator.predict(pixels)
    expected = infer_data_labels(clusters, model.cluster_labels)
    distances = model.estimator.transform(pixels)
    assert len(set(expected)) == 3
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "shares.npy", pixels / 255)
    np.save(tmp_path / "blank.npy", pixels[:1500])
    for name, n in (("pixels", 3090), ("shares", 3090), ("blank", 1500)):
        path = tmp_path / f"{name}.npy"
        for rows in (np.load(path), open_rows(path)):
            found, named = experiment.predict(model, rows)
            assert_array_equal(found, clusters[:n])
            assert_array_equal(named, expected[:n])
            experiment.predict_to(model, rows, tmp_path / "out.npy")
            assert_array_equal(np.load(tmp_path / "out.npy"), expected[:n])
            experiment.transform_to(model, rows, tmp_path / "out.npy")
            np.testing.assert_allclose(np.load(tmp_path / "out.npy"), distances[:n], rtol=1e-5)


def test_training_and_test_rows_have_one_unit(dark, data):
    """Test images so dark that they look like shares of white."""
    model, _ = dark
    faint = np.ones((6, 16))
    clusters = model.estimator.predict(faint)
    assert clusters[0] != model.estimator.predict(255 * faint)[0]
    truth = infer_data_labels(clusters, model.cluster_labels)
    truth[0] = (truth[1] + 1) % 3
    floats = Data("faint", data.train.astype(float), data.y_train, faint, truth)
    found = experiment.evaluate(model, floats)
    assert found.train.accuracy == 1
    assert found.test.accuracy == pytest.approx(5 / 6)
    assert portray(model, floats).test.accuracy == found.test.accuracy


def test_other_names_of_clusters_begin_anew(dark, tmp_path, monkeypatch):
    model, rows = dark
    monkeypatch.setattr("mnist_kmeans_mlx.answers.BLOCK", 4 * 16 * 256)
    path = tmp_path / "out.npy"
    other = Model(model.estimator, {7: [0], 8: [1], 9: [2]}, model.metadata)
    blind = Model(model.estimator, model.cluster_labels, {})
    shares = rows / 255
    for again, match in ((other, "other names of clusters"), (blind, "another unit")):
        with asked(model.estimator, most=7), pytest.raises(KeyboardInterrupt):
            experiment.predict_to(model, shares, path)
        with pytest.warns(UserWarning, match=match):
            experiment.predict_to(again, shares, path)
        clusters = model.estimator.predict(rows if again is other else shares)
        assert_array_equal(np.load(path), infer_data_labels(clusters, again.cluster_labels))
