"""Headers of numbers, as pandas writes and reads them."""

import io

import numpy as np
import pytest

from mnist_kmeans_mlx.datasets import DatasetWarning, load_matrix
from mnist_kmeans_mlx.datasets.headers import header_of

WHOLE = np.random.default_rng(0).integers(0, 9, (8, 3))
FRACTIONS = np.random.default_rng(0).normal(size=(8, 3))
HEADER = r"in its first line, which is taken for a header: header=False \(--no-header\) makes it"
ROW = r"in its first line, which is taken for a row: header=True \(--header\) makes it"


def rows_of(text):
    return [line.split(",") for line in text.split()]


@pytest.mark.parametrize(
    ("text", "is_header", "said"),
    [
        # Names, and what pandas writes where there are none.
        ("a,b 1,2", True, None),
        ("0,1,2 0.5,1.5,2.5", True, None),
        ("0,1,2 5,6,7", True, HEADER),
        ("0,1 1,0 1,1", True, HEADER),
        ("0,1 0.5,1.5 2.5,3.5", True, HEADER),
        ("label,0,1 7,1,2", True, None),
        (",0,1 x,1,2", True, None),
        (",0 0,1.5 1,2.5", True, None),
        (",2019,2020 0,5,7 1,6,8", True, None),
        (",2,3 5,7,8 5,7,8", False, None),
        # Years and other whole numbers that no row below is like.
        ("2019,2020 0.5,1.5 2.5,3.5", True, HEADER),
        ("2019,2020 5,7 6,9 8,3", True, HEADER),
        ("10,25 0.5,1.5 2.5,3.5", True, HEADER),
        ("0 0.5 1.5", True, HEADER),
        ("2019,2020 2500,1800 1900,2600", False, ROW),
        ("1,2,3 4,5,6 7,8,9", False, ROW),
        # Rows.
        ("0 1 2", False, None),
        ("0,1", False, None),
        ("1,2 3,4", False, None),
        ("1,2 1.5,1.8 5,8 8,8 1,0.6 9,11", False, None),
        ("2,1 0.5,1.5 2.5,3.5", False, None),
        ("0.0,1.0 2.0,3.0 4.0,5.0", False, None),
        ("00,01 0.5,1.5 2.5,3.5", False, None),
        ("-1,2 0.5,1.5 2.5,3.5", False, None),
        ("NA,2 1,2 3,4", False, None),
        ("2019,2020", False, None),
        ("2019,2020 x,y z,w", False, ROW),
    ],
)
def test_a_header_or_a_row(text, is_header, said):
    first, *below = rows_of(text)
    names, note = header_of(first, below)
    assert names == (first if is_header else None)
    if said is None:
        assert note is None
    else:
        assert note.startswith(f"has {','.join(first)} ")
        assert pytest.RaisesExc(ValueError, match=said).matches(ValueError(note))


@pytest.mark.parametrize("values", [WHOLE, FRACTIONS], ids=["whole", "fractions"])
@pytest.mark.parametrize("names", [None, [2019, 2020, 2021], ["x", "y", "z"]])
@pytest.mark.parametrize("index", [False, True])
@pytest.mark.filterwarnings("ignore::mnist_kmeans_mlx.datasets.DatasetWarning")
def test_what_pandas_writes(values, names, index, tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(values, columns=names)
    frame.to_csv(tmp_path / "a.csv", index=index)
    loaded = load_matrix(tmp_path / "a.csv")
    other = pandas.read_csv(tmp_path / "a.csv", index_col=0 if index else None)
    assert np.array_equal(loaded, other.to_numpy())


@pytest.mark.parametrize("header", [True, False])
def test_who_says_so_is_believed(header, tmp_path):
    pandas = pytest.importorskip("pandas")
    for text in ("0,1\n5,6\n7,8\n", "9,4\n5,6\n7,8\n", "2019,2020\n5,6\n7,8\n"):
        (tmp_path / "a.csv").write_text(text)
        loaded = load_matrix(tmp_path / "a.csv", header=header)  # without a note
        other = pandas.read_csv(io.StringIO(text), header=0 if header else None)
        assert np.array_equal(loaded, other.to_numpy())


def test_the_note_names_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("0,1,2,3,4\n" + "5,6,7,8,9\n" * 2)
    with pytest.warns(DatasetWarning) as said:
        assert load_matrix(path).tolist() == [[5, 6, 7, 8, 9]] * 2
    assert [str(warning.message) for warning in said] == [
        f"{str(path)!r} has 0,1,2,3,... in its first line, which is taken for a header: "
        "header=False (--no-header) makes it a row."
    ]
    assert said[0].filename == __file__
