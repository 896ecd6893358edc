"""Columns that are asked for, and those that are no features."""

import warnings

import numpy as np
import pytest
from damage import refusal

from mnist_kmeans_mlx.datasets import DatasetWarning, load_matrix, open_rows
from mnist_kmeans_mlx.datasets.columns import chosen
from mnist_kmeans_mlx.datasets.faults import Fault
from mnist_kmeans_mlx.datasets.matrix import load_table

NAMES = ["x", "y-2", "a, b", "7", "y", " z "]
VALUES = np.random.default_rng(0).normal(size=(5, 3)).round(3)


def said(record):
    return [str(warning.message) for warning in record]


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        ("x", [0]),
        ("y,x", [4, 0]),
        ([4, "x"], [4, 0]),
        (np.arange(2), [0, 1]),
        ("0-2", [0, 1, 2]),
        ("1 - 2, 5", [1, 2, 5]),
        ("4-", [4, 5]),
        ("x-y", [0, 1, 2, 3, 4]),
        ("y-2", [1]),
        ("y-2-y", [1, 2, 3, 4]),
        ('"a, b",z', [2, 5]),
        (["a, b"], [2]),
        ("7", [3]),
        ([2], [2]),
        ("1:3", [1, 2]),
        (":2,4:", [0, 1, 4, 5]),
    ],
)
def test_ways_to_choose(columns, places):
    assert chosen(columns, NAMES, 6) == places


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ("w", "has no column 'w', but 0 to 5: 'x', 'y-2', 'a, b', '7', 'y', 'z'"),
        ("6", "has no column '6', but 0 to 5: "),
        ([6], "has no column '6', but 0 to 5: "),
        ([-1], "has no column '-1', but 0 to 5: "),
        ("0-6", "has no column '0-6', but 0 to 5: "),
        ("5-0", "has no column '5-0', but 0 to 5: "),
        ("3:9", "has no column '3:9', but 0 to 5: "),
        ("3:3", "has no column '3:3', but 0 to 5: "),
        ("x,0", "is asked for column 'x' more than once"),
        ("0-2,1-3", "is asked for column 'y-2' more than once"),
        ("", "has columns, but none is asked for"),
        ([], "has columns, but none is asked for"),
    ],
)
def test_choices_that_are_refused(columns, sentence):
    with pytest.raises(Fault) as caught:
        chosen(columns, NAMES, 6)
    assert str(caught.value).startswith(sentence)


def test_columns_without_names_and_names_that_are_not_unique():
    with pytest.raises(Fault, match="has no column 'x', but 0 to 2, and no header that names them"):
        chosen("x", None, 3)
    with pytest.raises(Fault, match=r"column 1 \(counted from 0\) more than once"):
        chosen("1,1", None, 3)
    with pytest.raises(Fault, match="several columns 'x': choose by number, counted from 0"):
        chosen("x", ["x", "x"], 2)
    with pytest.raises(TypeError):
        chosen([1.5], None, 3)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_choice_is_what_pandas_chooses(suffix, tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / f"a{suffix}"
    frame = pandas.DataFrame(VALUES, columns=["a", "b", "c"])
    frame.insert(1, "species", ["setosa"] * 5)  # text, that is not looked at
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    for columns, names in (("2-,a", ["b", "c", "a"]), (["c"], ["c"]), ("b-c", ["b", "c"])):
        assert np.array_equal(load_matrix(path, columns=columns), frame[names])
        if suffix == ".parquet":
            assert np.array_equal(open_rows(path, columns=columns)[:], frame[names])
    for load in (load_matrix, open_rows) if suffix == ".parquet" else (load_matrix,):
        assert "in column 'species'" in refusal(load, path) or suffix == ".csv"
        assert refusal(load, path, columns="d") == (
            "has no column 'd', but 0 to 3: 'a', 'species', 'b', 'c'"
        )
    assert "columns=... (--columns) " in refusal(load_matrix, path)


def test_what_has_no_columns_to_choose(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    sentence = (
        "takes no columns='0' (--columns): that is for .csv, .csv.gz, .tsv, .tsv.gz or .parquet"
    )
    for load in (load_matrix, open_rows):
        assert refusal(load, tmp_path / "a.npy", columns="0") == sentence
    sentence = "takes no header=False (--header): that is for .csv, .csv.gz, .tsv or .tsv.gz"
    assert refusal(load_matrix, tmp_path / "a.npy", header=False) == sentence


@pytest.mark.parametrize("index", [None, [7, 2, 9, 4, 1]])
def test_the_index_of_to_csv_is_left_out(index, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(VALUES, columns=["a", "b", "c"], index=index)
    path = tmp_path / "a.csv"
    for _ in range(3):  # "", "Unnamed: 0", "Unnamed: 0.1", and so on
        frame.to_csv(path)
        with pytest.warns(DatasetWarning) as record:
            assert np.array_equal(load_matrix(path), VALUES)
        assert said(record) == [
            f"{str(path)!r} has an index in its first column, which is left out: columns=... "
            "(--columns) reads it."
        ]
        frame = pandas.read_csv(path)
    frame.to_csv(path, index=False)
    with pytest.warns(DatasetWarning, match="has an index in its first column"):
        assert np.array_equal(load_matrix(path), VALUES)
    assert load_matrix(path, columns="0-").shape == (5, 6)


def test_what_may_be_an_index_is_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",x\n0.5,1\n0.5,2\n")
    with pytest.warns(DatasetWarning, match=r"first column without a name.*--columns 1-\) leaves"):
        assert load_matrix(path).tolist() == [[0.5, 1], [0.5, 2]]
    path.write_text("id,x\n0,1\n1,5\n2,2\n")
    with pytest.warns(DatasetWarning, match=r"counts from 0 to 2 in its first column.*feature"):
        assert load_matrix(path).shape == (3, 2)
    assert load_matrix(path, columns="1-").tolist() == [[1], [5], [2]]


@pytest.mark.parametrize("place", [0, 784])
@pytest.mark.parametrize("name", ["label", "class", None])
def test_labels_beside_pixels_are_no_pixel(name, place, tmp_path, mnist):
    pandas = pytest.importorskip("pandas")
    pixels, truth = mnist.x_train[:30].reshape(30, 784), mnist.y_train[:30]
    names = [f"{i}x{j}" for i in range(1, 29) for j in range(1, 29)]
    frame = pandas.DataFrame(pixels, columns=names)
    frame.insert(place, name or "label", truth)
    frame.to_csv(tmp_path / "a.csv", index=False, header=name is not None)
    if name is None and place:
        return  # where nothing says that the last is not a pixel
    column = repr(name) if name else "0 (counted from 0)"
    with pytest.warns(DatasetWarning) as record:
        table = load_table(tmp_path / "a.csv")
    assert said(record) == [
        f"{str(tmp_path / 'a.csv')!r} has labels in column {column}, which is none of the "
        "features: columns=... (--columns) chooses others."
    ]
    assert np.array_equal(table.matrix, pixels)
    assert np.array_equal(table.labels, truth)
    first = 1 - bool(place)
    chosen = load_matrix(tmp_path / "a.csv", columns=f"{first}-{first + 783}")
    assert np.array_equal(chosen, pixels)
    if name is not None:
        pytest.importorskip("pyarrow")
        frame.to_parquet(tmp_path / "a.parquet")
        with pytest.warns(DatasetWarning, match="has labels in column"):
            table = load_table(tmp_path / "a.parquet")
        with pytest.warns(DatasetWarning, match="has labels in column"):
            rows = open_rows(tmp_path / "a.parquet")
        assert np.array_equal(table.labels, truth)
        assert np.array_equal(table.matrix, pixels)
        assert np.array_equal(rows[:], pixels)


def test_labels_beside_other_features_are_told(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("label,x\n1,2\n3,4\n")
    with pytest.warns(DatasetWarning, match="has a column 'label', which is taken for a feature"):
        assert load_matrix(path).shape == (2, 2)
    path.write_text("label\n1\n2\n")
    assert load_matrix(path).shape == (2, 1)


def test_an_index_beside_pixels_is_no_label(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(200, 784))
    for first in (np.arange(200), np.arange(200) + 300, np.arange(200) % 9 - 4):
        np.savetxt(tmp_path / "a.csv", np.column_stack([first, pixels]), "%d", ",")
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always")
            table = load_table(tmp_path / "a.csv")
        assert table.labels is None
        assert table.matrix.shape == (200, 785)
        counts = ["counts from 0 to 199 in its first column" in told for told in said(record)]
        assert counts == [True] * int(first[0] == 0)


def test_columns_of_a_pattern(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    from mnist_kmeans_mlx.experiment import ExperimentError, load

    for number in range(3):
        frame = pandas.DataFrame(VALUES + number, columns=["Unnamed: 0", "b", "c"])
        frame["Unnamed: 0"] = range(5)
        frame.to_parquet(tmp_path / f"{number}.parquet")
    pattern = str(tmp_path / "*.parquet")
    every = np.concatenate([VALUES[:, 1:] + number for number in range(3)])
    with pytest.warns(DatasetWarning) as record:
        assert np.array_equal(open_rows(pattern)[:], every)
    assert len(record) == 1  # not one for each file
    assert np.array_equal(open_rows(pattern, columns=iter(["c"]))[:], every[:, 1:])
    assert np.array_equal(load(pattern, columns="c").train, every[:, 1:])
    with pytest.raises(ExperimentError, match=r"\*\.parquet' takes no header=True"):
        load(pattern, header=True)
