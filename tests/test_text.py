"""Text that is gzipped, or has other delimiters and decimal commas."""

import gzip
import io

import numpy as np
import pytest
from damage import refusal

from mnist_kmeans_mlx.datasets import DatasetWarning, load_matrix, text

MATRIX = np.random.default_rng(0).normal(size=(40, 3)).round(4)


@pytest.mark.parametrize(("name", "sep"), [("a.csv", ","), ("a.TSV", "\t"), ("a.csv", ";")])
@pytest.mark.parametrize("end", [".gz", ""])
def test_gzipped(name, sep, end, write):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(MATRIX, columns=["x", "y", "z"])
    packed = gzip.compress(frame.to_csv(sep=sep, index=False).encode())
    path = write(packed, name + end)
    assert np.array_equal(load_matrix(path), MATRIX)
    assert np.array_equal(load_matrix(path, columns="z,x"), MATRIX[:, [2, 0]])


def test_gzipped_text_that_is_damaged(write):
    packed = gzip.compress(b"1,2\n3,4\n" * 999)
    assert "is damaged" in refusal(load_matrix, write(packed[:-9], "a.csv.gz"))
    assert "is damaged" in refusal(
        load_matrix, write(packed[:20] + b"\0" + packed[20:], "a.csv.gz")
    )
    assert refusal(load_matrix, write(gzip.compress(b""), "a.csv.gz")) == "has no row of numbers"
    bad = gzip.compress(b"a,b\n" + b"1,2\n" * 500 + b"3,x\n")
    assert "'x' in line 502, column 'b'" in refusal(load_matrix, write(bad, "a.csv.gz"))


def test_gzipped_text_is_no_larger_than_memory(write, monkeypatch):
    def check_memory(claim):
        if claim > 10_000:
            raise text.Fault("needs too much memory")

    monkeypatch.setattr(text, "check_memory", check_memory)
    path = write(gzip.compress(b"0," * 10**6), "a.csv.gz")
    assert refusal(load_matrix, path) == "needs too much memory"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
@pytest.mark.parametrize("sep", [",", ";", "\t"])
def test_other_delimiters(name, sep, write):
    rows = "x,y,z\n1,5,3\n4.5,6,7\n".replace(",", sep)
    assert load_matrix(write(rows, name)).tolist() == [[1, 5, 3], [4.5, 6, 7]]
    assert load_matrix(write(rows[6:], name)).tolist() == [[1, 5, 3], [4.5, 6, 7]]


@pytest.mark.parametrize("sep", [";", "\t"])
@pytest.mark.parametrize("header", [True, False])
def test_decimal_commas(sep, header, write):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(MATRIX, columns=["x", "y", "z"])
    rows = frame.to_csv(sep=sep, decimal=",", index=False, header=header)
    path = write(rows)
    with pytest.warns(DatasetWarning) as said:
        loaded = load_matrix(path)
    other = pandas.read_csv(io.StringIO(rows), sep=sep, decimal=",", header=0 if header else None)
    assert np.array_equal(loaded, other.to_numpy())
    assert [str(warning.message) for warning in said] == [
        f"{str(path)!r} has commas in its numbers, which are read as decimal points."
    ]


def test_commas_of_headers_and_of_columns_that_are_not_read(write):
    path = write("x, cm;y\n1;2\n3;4\n")
    assert load_matrix(path).tolist() == [[1, 2], [3, 4]]
    path = write("x;name;y\n1;a, b;2\n3;c;4\n")
    assert load_matrix(path, columns="x,y").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ("1,5;2\n1.234;3,5\n",
         "has '1,5' and '1.234', of which one is not meant as a decimal: write decimals with a "
         "point, and thousands without a mark"),
        ("1,5;2\n1.234,5;3\n",
         "has '1.234,5' in line 2, column 0 (counted from 0), where a number is expected: write "
         "decimals with a point, and thousands without a mark"),
        ('"1,5","2,0"\n"2,5","3,5"\n',
         "has '1,5' in line 1, column 0 (counted from 0), where a number is expected: write "
         "decimals with a point, and thousands without a mark"),
        ('x,y\n"1,234","2"\n"2,500","3"\n',
         "has '1,234' in line 2, column 'x', where a number is expected: write "
         "decimals with a point, and thousands without a mark"),
        ("x;y\n1;2\n3;z\n", "has 'z' in line 3, column 'y', where a number is expected"),
    ],
)  # fmt: skip
def test_marks_that_may_mean_two_things(rows, sentence, write):
    assert refusal(load_matrix, write(rows)) == sentence


def test_columns_are_packed_in_place(monkeypatch):
    monkeypatch.setattr(text, "_PACKED_BYTES", 100)
    table = np.random.default_rng(0).normal(size=(50, 9))
    for places in ([*range(1, 9)], [*range(8)], [2, 3, 7], [*range(9)]):
        copy = table.copy()
        packed = text._packed(copy, places)
        assert np.array_equal(packed, table[:, places])
        assert packed.flags.c_contiguous
        assert np.shares_memory(packed, copy)
