import copy
import os

import numpy as np
import pytest
from doubles import asked
from scipy.sparse import csr_matrix
from sklearn import cluster

from mnist_kmeans_mlx import BisectingKMeans, KMeans, open_rows, predict_to, transform_to
from mnist_kmeans_mlx.datasets import Batches


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


def test_wrong_rows_and_names(rows, tmp_path, device):
    model = KMeans(4, random_state=0, device=device).fit(rows)
    with pytest.raises(ValueError, match="X has 5 features, but KMeans is expecting 6"):
        predict_to(model, rows[:, 1:], tmp_path / "labels.npy")
    with pytest.raises(ValueError, match=r"name it \.npy, \.csv or \.parquet"):
        predict_to(model, rows, tmp_path / "labels.txt")
    theirs = cluster.KMeans(4).fit(rows)
    for write in (predict_to, transform_to):
        with pytest.raises(TypeError, match="not scikit-learn's KMeans"):
            write(theirs, rows, tmp_path / "labels.npy")
    assert os.listdir(tmp_path) == []


WRITERS = {"predict": predict_to, "transform": transform_to}


def interrupt(method, model, X, path, after=4):
    """Leave a partial file of `after` blocks."""
    with asked(model, method, most=after), pytest.raises(KeyboardInterrupt):
        WRITERS[method](model, X, path)
    assert os.path.exists(path.with_name(f".{path.name}.partial.json"))


def rows_asked(method, model, X, path):
    """How many rows a call computes the answers of."""
    with asked(model, method) as blocks:
        WRITERS[method](model, X, path)
    return sum(blocks)


def test_going_on_after_a_break(rows, tmp_path, device):
    model = KMeans(4, random_state=0, device=device).fit(rows)
    path = tmp_path / "labels.npy"
    interrupt("predict", model, rows, path, after=3)
    assert not path.exists()
    assert rows_asked("predict", model, rows, path) == 500 - 3 * 64
    np.testing.assert_array_equal(np.load(path), model.predict(rows))
    assert os.listdir(tmp_path) == ["labels.npy"]
    # Other rows start again.
    interrupt("predict", model, rows, path, after=3)
    with pytest.warns(UserWarning, match=r"labels\.npy' starts again: .* belongs to other rows\."):
        predict_to(model, rows[::-1].copy(), path)
    np.testing.assert_array_equal(np.load(path), model.predict(rows[::-1]))


@pytest.mark.parametrize("method", WRITERS)
@pytest.mark.parametrize("kind", ["array", "csr", "npy", "shards", "memmap", "parquet"])
def test_one_other_cell_begins_anew(kind, method, rows, tmp_path, device):
    """A cell that is answered already, in the middle: shape, dtype and ends stay."""
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file = tmp_path / f"rows.{'parquet' if kind == 'parquet' else 'npy'}"

    def given(values):
        if kind == "array":
            return values
        if kind == "csr":
            return csr_matrix(values)
        if kind == "parquet":
            import pyarrow as pa
            from pyarrow import parquet

            parquet.write_table(pa.table(dict(zip("abcdef", values.T, strict=True))), file)
            return file
        if kind == "shards":
            np.save(tmp_path / "more.npy", values[300:])
            values = values[:300]
        # In place: the inode stays, and the time is set back.
        exists = file.exists() and os.stat(file)
        with open(file, "r+b" if exists else "wb") as out:
            np.save(out, values)
        if exists:
            os.utime(file, ns=(exists.st_atime_ns, exists.st_mtime_ns))
        if kind == "memmap":
            return np.load(file, mmap_mode="r")
        return [file, tmp_path / "more.npy"] if kind == "shards" else file

    model = KMeans(4, random_state=0, device=device).fit(rows)
    path = tmp_path / "out.npy"
    other = rows.copy()
    other[100] = 3 * rows[100] + 5
    expected = getattr(model, method)(other)
    assert not np.array_equal(expected[100], getattr(model, method)(rows)[100])
    interrupt(method, model, given(rows), path)
    changed = given(other)
    with pytest.warns(UserWarning, match="belongs to other rows"):
        assert rows_asked(method, model, changed, path) == 500
    np.testing.assert_array_equal(np.load(path), expected)

    # The same rows are resumed, without a warning.
    interrupt(method, model, changed, path)
    assert rows_asked(method, model, changed, path) == 500 - 4 * 64
    np.testing.assert_array_equal(np.load(path), expected)


def test_entries_of_sparse_rows_that_move_begin_anew(rows, tmp_path, device):
    """Only the columns differ, or only where rows end: data and shape are the same."""
    model = KMeans(4, random_state=0, device=device).fit(rows)
    some = csr_matrix(np.where(rows > 0, rows, 0))
    moved, longer = some.copy(), some.copy()
    row = next(i for i in range(90, 200) if 0 < np.diff(some.indptr)[i] < 6)
    start, stop = some.indptr[row : row + 2]
    free = np.setdiff1d(np.arange(6), some.indices[start:stop])
    moved.indices[start:stop] = np.sort([*some.indices[start + 1 : stop], free[0]])
    longer.indptr[row + 1] -= 1
    longer.indices[stop - 1] = longer.indices[stop] = 0
    for number, other in enumerate((moved, longer)):
        path = tmp_path / f"{number}.npy"
        interrupt("transform", model, some, path)
        with pytest.warns(UserWarning, match="other rows"):
            transform_to(model, other, path)
        np.testing.assert_array_equal(np.load(path), model.transform(other))


def changed_metric(model):
    return copy.deepcopy(model).set_params(metric="cosine")


def changed_tree(model):
    """The same leaves, told apart by another root."""
    other = copy.deepcopy(model)
    other._node_centers[1:3] = other._node_centers[2:0:-1]
    return other


def changed_leaf_labels(model):
    other = copy.deepcopy(model)
    leaves = other._node_labels >= 0
    other._node_labels[leaves] = other._node_labels[leaves][::-1]
    return other


def changed_center(model):
    other = copy.deepcopy(model)
    other.cluster_centers_[2] *= 1.5
    return other


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (KMeans, changed_metric),
        (KMeans, changed_center),
        (BisectingKMeans, changed_tree),
        (BisectingKMeans, changed_leaf_labels),
    ],
)
def test_another_model_begins_anew(make, change, rows, tmp_path, device):
    rows = np.add(np.abs(rows), [4, 0, 0, 1, 0, 0])
    model = make(5, random_state=0, device=device).fit(rows)
    other, path = change(model), tmp_path / "out.npy"
    expected = other.predict(rows)
    assert (expected != model.predict(rows))[: 4 * 64].any()
    interrupt("predict", model, rows, path)
    with pytest.warns(UserWarning, match="belongs to another model"):
        predict_to(other, rows, path)
    np.testing.assert_array_equal(np.load(path), expected)


def test_a_subclass_and_another_method_begin_anew(rows, tmp_path, device):
    class Backwards(KMeans):
        def predict(self, X):
            return self.n_clusters - 1 - super().predict(X)

    model = KMeans(4, random_state=0, device=device).fit(rows)
    other, path = Backwards(4, random_state=0, device=device).fit(rows), tmp_path / "out.npy"
    interrupt("predict", model, rows, path)
    with pytest.warns(UserWarning, match="another method and another model"):
        predict_to(other, rows, path)
    np.testing.assert_array_equal(np.load(path), 3 - model.predict(rows))
    interrupt("predict", model, rows, path)
    with pytest.warns(UserWarning, match="another method"):
        transform_to(model, rows, path)
    np.testing.assert_array_equal(np.load(path), model.transform(rows))


def test_another_version_begins_anew(rows, tmp_path, device, monkeypatch):
    model, path = KMeans(4, random_state=0, device=device).fit(rows), tmp_path / "out.npy"
    interrupt("predict", model, rows, path)
    monkeypatch.setattr("mnist_kmeans_mlx.answers.__version__", "later")
    with pytest.warns(UserWarning, match="another version of this package"):
        predict_to(model, rows, path)


def test_batches_always_begin_anew(rows, tmp_path, device):
    model, path = KMeans(4, random_state=0, device=device).fit(rows), tmp_path / "out.npy"
    interrupt("predict", model, Batches([rows[:200], rows[200:]]), path)
    other = rows[::-1].copy()
    predict_to(model, Batches([other[:200], other[200:]]), path)
    np.testing.assert_array_equal(np.load(path), model.predict(other))


def test_quick_answers_take_no_pass_to_identify(rows, tmp_path, device, monkeypatch):
    model = KMeans(4, random_state=0, device=device).fit(rows)
    monkeypatch.setattr("mnist_kmeans_mlx.answers.checksum", None)
    predict_to(model, rows, tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), model.predict(rows))


def test_parts_of_a_map_are_told_apart(rows, tmp_path, device):
    model, path = KMeans(4, random_state=0, device=device).fit(rows), tmp_path / "out.npy"
    doubled = np.concatenate([rows, rows[::-1]])
    np.save(tmp_path / "rows.npy", doubled)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    interrupt("predict", model, mapped[:500], path)
    with pytest.warns(UserWarning, match="other rows"):
        predict_to(model, mapped[500:], path)
    np.testing.assert_array_equal(np.load(path), model.predict(rows[::-1]))
