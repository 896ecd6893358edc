import os

import numpy as np
import pytest

from mnist_kmeans_mlx import BisectingKMeans, KMeans, open_rows, predict_to, transform_to


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.answers.BLOCK", 4 * 6 * 64)


def read(path):
    if path.suffix == ".npy":
        return np.load(path)
    from pyarrow import parquet

    found = np.stack([column.to_numpy() for column in parquet.read_table(path).columns], axis=1)
    return found[:, 0] if found.shape[1] == 1 else found


@pytest.mark.parametrize("suffix", [".npy", ".parquet"])
def test_files_hold_what_the_methods_return(suffix, rows, tmp_path, device):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    np.save(tmp_path / "rows.npy", rows)
    path = tmp_path / f"found{suffix}"
    for make in (KMeans, BisectingKMeans):
        model = make(4, random_state=0, device=device).fit(rows)
        for X in (rows, open_rows(tmp_path / "rows.npy"), tmp_path / "rows.npy"):
            predict_to(model, X, path)
            np.testing.assert_array_equal(read(path), model.predict(rows))
            transform_to(model, X, path)
            found, expected = read(path), model.transform(rows)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)


def test_going_on_after_a_break(rows, tmp_path, device, monkeypatch):
    model = KMeans(4, random_state=0, device=device).fit(rows)
    path = tmp_path / "labels.npy"
    asked, predict = [], model.predict

    def breaking(X):
        asked.append(len(X))
        if len(asked) == 4:
            raise KeyboardInterrupt
        return predict(X)

    monkeypatch.setattr(model, "predict", breaking)
    with pytest.raises(KeyboardInterrupt):
        predict_to(model, rows, path)
    assert not path.exists()
    predict_to(model, rows, path)
    assert sum(asked) == 500 + 64  # the one that broke
    np.testing.assert_array_equal(np.load(path), predict(rows))
    assert os.listdir(tmp_path) == ["labels.npy"]
    # Other rows begin anew.
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        predict_to(model, rows, path)
    asked[:] = [0] * 9
    predict_to(model, rows[::-1].copy(), path)
    np.testing.assert_array_equal(np.load(path), predict(rows[::-1]))


def test_wrong_rows_and_names(rows, tmp_path, device):
    model = KMeans(4, random_state=0, device=device).fit(rows)
    with pytest.raises(ValueError, match="X has 5 features, but KMeans is expecting 6"):
        predict_to(model, rows[:, 1:], tmp_path / "labels.npy")
    with pytest.raises(ValueError, match=r"name it \.npy or \.parquet"):
        predict_to(model, rows, tmp_path / "labels.txt")
    assert os.listdir(tmp_path) == []
