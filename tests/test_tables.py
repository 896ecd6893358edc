import sys

import numpy as np
import pytest
from damage import refusal

from mnist_kmeans_mlx.datasets import DatasetWarning, load_matrix, open_rows
from mnist_kmeans_mlx.datasets.tables import read_parquet

MATRIX = np.random.default_rng(0).normal(size=(6, 4))


@pytest.mark.parametrize("header", ["", "a,b,c,d\n", '"a, b","c ""d""",é,\n'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t")])
def test_round_trip(name, delimiter, end, header, write):
    rows = [",".join(map(repr, row)) for row in MATRIX.tolist()]
    text = header.replace("\n", end) + end.join(rows)
    if delimiter == "\t":
        text = text.replace(", ", "; ").replace(",", "\t")
    loaded = load_matrix(write(text, name))
    assert np.array_equal(loaded, MATRIX)
    assert loaded.dtype == np.float64
    assert not loaded.flags.writeable


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4",
        "\ufeff1,2\n3,4\n",
        "\ufeffa,b\n1,2\n3,4\n",
        "\n\n1,2\n\n3,4\n\n",
        "\n\na,b\n\n1,2\n3,4\n",
        ' 1 ,"2"\n"3",4.0\n',
        '"a\nb",c\n1,2\n3,4\n',
        "+1,2.\n.3e1,0.4E+1\n",
    ],
)
def test_ways_to_write_the_same(text, write):
    assert load_matrix(write(text)).tolist() == [[1, 2], [3, 4]]


def test_one_column(write):
    assert load_matrix(write("x\n1\n2\n3\n")).tolist() == [[1], [2], [3]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,2\n3,4\n3,x\n",
         "has 'x' in line 3, column 1 (counted from 0), where a number is expected"),
        ("a,b\n1,2\n\n3,x\n", "has 'x' in line 4, column 'b', where a number is expected"),
        ("label,2\n1,2\n", "has 'label' in line 1, column 0 (counted from 0), where a number is "
         "expected: header=True (--header) takes that line for names"),
        ("a,b\n1,2\n,4\n", "has an empty cell in line 3, column 'a', where a number is expected"),
        (" , \n1,2\n", "has an empty cell in line 1, column 0 (counted from 0), where a number is "
         "expected: header=True (--header) takes that line for names"),
        ("a,b\nc,d\n", "has 'c' in line 2, column 'a', where a number is expected: "
         "columns=... (--columns) reads others"),
        ("1,2\n3,4\n1_0,4\n",
         "has '1_0' in line 3, column 0 (counted from 0), where a number is expected"),
        ("1,2\n3,4\n# 3,4\n",
         "has '# 3' in line 3, column 0 (counted from 0), where a number is expected"),
        ("1,2\n3,4\n3," + "y" * 99, f"has '{'y' * 40}' in line 3, column 1 (counted from 0), "
         "where a number is expected"),
        ("1,2\n3\n", "has 1 cell in line 2, but 2 in line 1"),
        ("a,b\n1,2\n3,4,5\n", "has 3 cells in line 3, but 2 in line 1"),
        ("a,b,c\n1,2\n3,4\n", "has 3 cells in its header, but 2 in each row"),
        ("a\n1,2\n3,4\n", "has 1 cell in its header, but 2 in each row"),
        ("a,b\n", "has no row of numbers"),
        ("\n\n\n", "has no row of numbers"),
        ("a,b\n1,2\n", "has one row only, and K-means needs at least 2"),
        ("1,2\nnan,4\n1e999,5\n",
         "holds NaN or infinity (2 of its 6 values, the first in row 1 counted from 0)"),
        (b"1,2\n3,\xff\n", "is not text in UTF-8"),
        ("1,2\n3,4\n".encode("utf-16"), "is not text in UTF-8"),
        ("x" * 200_000,
         "cannot be split into cells at line 1 (field larger than field limit (131072))"),
    ],
)  # fmt: skip
def test_refused(text, sentence, write):
    assert refusal(load_matrix, write(text)) == sentence


def test_a_fault_far_below(write):
    text = "a,b\n" + "1,2\n" * 20_000 + "3,oops\n"
    assert "'oops' in line 20002, column 'b'" in refusal(load_matrix, write(text))


@pytest.fixture
def parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(columns, **kwargs):
        arrays = [pa.array(values, kind) for values, kind in columns.values()]
        pq.write_table(pa.table(arrays, list(columns)), tmp_path / "a.parquet", **kwargs)
        return tmp_path / "a.parquet"

    return write


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_parquet(compression, parquet):
    columns = {name: (MATRIX[:, i], "float64") for i, name in enumerate("abcd")}
    loaded = load_matrix(parquet(columns, compression=compression, row_group_size=2))
    assert np.array_equal(loaded, MATRIX)
    assert not loaded.flags.writeable


def test_parquet_dtypes(parquet):
    assert load_matrix(parquet({"a": ([1, 2], "uint8"), "b": ([3, 4], "uint8")})).dtype == np.uint8
    assert load_matrix(parquet({"a": ([True, False], "bool")})).dtype == bool
    mixed = {"a": ([1, 2], "int16"), "b": ([0.5, 1], "float32"), "c": ([True, False], "bool")}
    loaded = load_matrix(parquet(mixed))
    assert loaded.dtype == np.float32
    assert loaded.tolist() == [[1, 0.5, 1], [2, 1, 0]]


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_parquet_from_data_frames(library, tmp_path):
    pytest.importorskip("pyarrow")
    frames = pytest.importorskip(library)
    frame = frames.DataFrame({"a": [1, 2, 3], "b": [4.0, 5.0, 6.0]})
    if library == "pandas":
        frame[frame.a > 1].to_parquet(tmp_path / "a.parquet")  # with an index of its own
    else:
        frame.filter(frames.col("a") > 1).write_parquet(tmp_path / "a.parquet")
    assert load_matrix(tmp_path / "a.parquet").tolist() == [[2, 5], [3, 6]]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"a": ([1, 2], "int8"), "b": (["x", "y"], "string")},
         "holds string in column 'b', not real numbers: columns=... (--columns) chooses others"),
        ({"t": ([1, 2], "timestamp[ms]")}, "holds timestamp[ms] in column 't', not real numbers"),
        ({"n": ([None, None], "null")}, "holds null in column 'n', not real numbers"),
        ({"a": ([1, 2, 3], "int8"), "b": ([None, 2.0, None], "float64")},
         "has empty cells (nulls), 2 of them in column 'b'"),
        ({"a": ([0.5, float("nan")], "float32")},
         "holds NaN or infinity (1 of its 2 values, the first in row 1 counted from 0)"),
        ({"a": ([], "float32")}, "is empty: its array has the shape (0, 1)"),
        ({}, "is empty: its array has the shape (0, 0)"),
        ({"a": ([1], "float32")}, "has one row only, and K-means needs at least 2"),
    ],
)  # fmt: skip
def test_parquet_refused(columns, sentence, parquet):
    assert refusal(load_matrix, parquet(columns)) == sentence


def test_parquet_cut_short(parquet):
    path = parquet({"a": ([1, 2], "int8")})
    path.write_bytes(path.read_bytes()[:-1])
    assert "is damaged (Parquet magic bytes not found" in refusal(load_matrix, path)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(read_parquet, tmp_path / "a.parquet") == (
        "is a Parquet file, which needs pyarrow: pip install 'mnist-kmeans-mlx[parquet]'"
    )


LISTS = ["list_", "large_list", "fixed"]


def lists(kind, rows, values="float32"):
    pa = pytest.importorskip("pyarrow")
    value = getattr(pa, values)()
    if kind == "fixed":
        return pa.array(rows, pa.list_(value, len(rows[0])))
    return pa.array(rows, getattr(pa, kind)(value))


@pytest.fixture
def embeddings(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(column, **others):
        table = pa.table({"embedding": column, **others})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
        return tmp_path / "a.parquet"

    return write


@pytest.mark.parametrize("values", ["float32", "float16", "uint8", "bool_"])
@pytest.mark.parametrize("kind", LISTS)
def test_a_column_of_lists_is_a_matrix(kind, values, embeddings):
    rows = (MATRIX.round(2) > 0) if values == "bool_" else (np.abs(MATRIX) * 9).astype(values)
    path = embeddings(lists(kind, rows.tolist(), values), id=list("abcdef"), n=range(6))
    loaded = load_matrix(path, columns="embedding")
    assert loaded.dtype == rows.dtype
    assert np.array_equal(loaded, rows)
    opened = open_rows(path, columns=["embedding"], block_bytes=2 * 4 * rows.itemsize)
    assert opened.dtype == rows.dtype
    assert np.array_equal(opened[:], rows)
    assert np.array_equal(opened.take([5, 0, 4]), rows[[5, 0, 4]])


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_lists_from_data_frames(library, tmp_path):
    pytest.importorskip("pyarrow")
    frames = pytest.importorskip(library)
    if library == "pandas":
        frame = frames.DataFrame({"e": list(MATRIX)}, index=[3, 1, 2, 9, 8, 7])
        frame.to_parquet(tmp_path / "a.parquet")
    else:
        frames.DataFrame({"e": MATRIX}).write_parquet(tmp_path / "a.parquet")
    assert np.array_equal(load_matrix(tmp_path / "a.parquet"), MATRIX)
    assert np.array_equal(open_rows(tmp_path / "a.parquet")[:], MATRIX)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1, 2], [3, 4], [5, 6], [7, 8], [9]],
         "holds lists of different lengths in column 'embedding': 2 in row 0, but 1 in row 4 "
         "(counted from 0)"),
        ([[1, 2], [3, 4], None, [5, 6]],
         "has empty cells (nulls), 1 of them in column 'embedding'"),
        ([[1, 2], [3, 4], [5, 6], [None, 7]],
         "has empty cells (nulls), 1 of them in column 'embedding'"),
        ([[], []], "is empty: its array has the shape (2, 0)"),
        ([[1.0, float("nan")], [2, 3]],
         "holds NaN or infinity (1 of its 4 values, the first in row 0 counted from 0)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["list_", "large_list"])
def test_lists_that_are_no_matrix(kind, rows, sentence, embeddings):
    path = embeddings(lists(kind, rows))
    assert refusal(load_matrix, path) == sentence
    if "NaN" not in sentence:
        assert refusal(lambda path: open_rows(path, block_bytes=8)[:], path) == sentence


def test_lists_beside_others(embeddings):
    path = embeddings(lists("list_", MATRIX.tolist()), n=range(6))
    nested = embeddings
    for load in (load_matrix, open_rows):
        assert refusal(load, path) == (
            "holds lists in column 'embedding' and other columns besides: columns=... (--columns) "
            "chooses it or others"
        )
    assert load_matrix(path, columns="n").tolist() == [[0], [1], [2], [3], [4], [5]]
    path = nested([[[1.0]], [[2.0]]])
    assert refusal(load_matrix, path).startswith("holds list<element: list<element: double>> in")


def test_an_index_with_a_name_is_left_out(tmp_path):
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    index = pandas.Index([5, 3, 4, 1, 0, 2], name="id")
    frame = pandas.DataFrame(MATRIX, columns=list("abcd"), index=index)
    path = tmp_path / "a.parquet"
    frame.to_parquet(path)
    assert np.array_equal(load_matrix(path), MATRIX)
    assert np.array_equal(open_rows(path)[:], MATRIX)
    assert np.array_equal(load_matrix(path, columns="id,a")[:, 0], index)
    frame.reset_index(names="Unnamed: 0").to_parquet(path)  # as read from what to_csv() wrote
    for load in (load_matrix, open_rows):
        with pytest.warns(DatasetWarning, match="has an index in its first column, which is left"):
            assert np.array_equal(load(path)[:], MATRIX)
