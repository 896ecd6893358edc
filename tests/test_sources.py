"""Rows that are read in blocks: those of the same array in memory, whoever asks and how."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from commands import run
from damage import npy_header, refusal
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx.datasets import DatasetError, forward, load_matrix
from mnist_kmeans_mlx.datasets.readers import FileReader
from mnist_kmeans_mlx.datasets.rows import Rows
from mnist_kmeans_mlx.datasets.sources import Batches, check_finite, from_memmap, open_rows

N, D = 211, 5
MATRIX = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
DTYPES = ["?", "u1", "i1", "u2", "i4", "u8", "i8", "f2", "f4", "f8", ">i2", ">f4", ">f8"]


class Anew:
    """Arrays that are made anew each time."""

    def __init__(self, *ends):
        self.ends = [0, *ends, N]

    def __iter__(self):
        for start, stop in pairwise(self.ends):
            yield MATRIX[start:stop]


def parquet(path, matrix, **options):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    columns = [pa.array(np.ascontiguousarray(column)) for column in matrix.T]
    pq.write_table(pa.table(columns, [f"c{i}" for i in range(len(columns))]), path, **options)
    return path


def shards(folder, *ends):
    """Files of consecutive rows, of either format, named by their first row."""
    for start, stop in pairwise([0, *ends, N]):
        if start % 2:
            parquet(folder / f"rows-{start}.parquet", MATRIX[start:stop], row_group_size=7)
        else:
            np.save(folder / f"rows-{start}.npy", MATRIX[start:stop])
    return str(folder / "rows-*")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    np.save(folder / "a.npy", MATRIX)
    np.save(folder / "swapped.npy", MATRIX.astype(">f4"))
    np.save(folder / "more.npy", np.concatenate([MATRIX[:9], MATRIX, MATRIX[:3]]))
    parquet(folder / "a.parquet", MATRIX, row_group_size=50)
    for name, ends in {"many": (2, 8, 10, 60, 200), "both": (9, 33, 60, 131)}.items():
        (folder / name).mkdir()
        shards(folder / name, *ends)
    return folder


OPEN = {
    "npy": lambda folder, **o: open_rows(folder / "a.npy", **o),
    "swapped": lambda folder, **o: open_rows(folder / "swapped.npy", **o),
    "part": lambda folder, **o: open_rows(folder / "more.npy", **o).part(4, 227).part(5, 216),
    "parquet": lambda folder, **o: open_rows(folder / "a.parquet", **o),
    "shards": lambda folder, **o: open_rows(str(folder / "many/*"), **o),
    "both": lambda folder, **o: open_rows(str(folder / "both/*"), **o),
    "memmap": lambda folder, **o: from_memmap(np.load(folder / "a.npy", mmap_mode="r"), **o),
    "batches": lambda folder, **o: Batches(Anew(1, 1, 40, 199), **o),
    "list": lambda folder, **o: Batches([MATRIX[:100].astype("f2"), *MATRIX[100:, None]], **o),
}


@pytest.fixture(scope="module", params=OPEN)
def make(request, folder):
    def make(block_rows=16):
        return OPEN[request.param](folder, block_bytes=block_rows * 4 * D)

    make.expected = MATRIX
    if request.param == "list":
        make.expected = MATRIX.copy()
        make.expected[:100] = MATRIX[:100].astype("f2")
    return make


def test_it_looks_like_a_matrix(make):
    rows = make()
    assert rows.shape == (N, D)
    assert rows.dtype == np.float32
    assert rows.dtype.isnative
    assert rows.ndim == 2
    assert rows.streams
    assert len(rows) == N
    assert rows.block_rows == 16
    assert repr(rows).startswith("<211 x 5 float32 rows of '")
    with pytest.raises(TypeError, match="take a slice"):
        np.asarray(rows)


@given(data=st.data(), block_rows=st.sampled_from([1, 2, 16, 100, 1000]))
def test_any_rows_in_any_order(make, data, block_rows):
    rows, expected = make(block_rows), make.expected
    number = st.integers(-N - 20, N + 20) | st.none()
    for _ in range(data.draw(st.integers(1, 5))):
        if data.draw(st.booleans()):
            part = slice(data.draw(number), data.draw(number))
            found, expected_ = rows[part], expected[part]
        else:
            index = data.draw(st.lists(st.integers(-N, N - 1)))
            index = sorted(index) if data.draw(st.booleans()) else index
            found = rows.take(index, axis=0)
            expected_ = expected.take(np.asarray(index, int), axis=0)
        assert_array_equal(found, expected_, strict=True)
        assert found.flags.c_contiguous


@given(st.lists(st.integers(0, N), max_size=4), st.sampled_from([3, 16, 1000]))
def test_parts_are_the_whole(make, ends, block_rows):
    rows = make(block_rows)
    ends = [0, *sorted(ends), N]
    parts = [rows.part(a, b) for a, b in pairwise(ends)]
    assert_array_equal(np.concatenate([part[:] for part in parts]), make.expected)
    assert [len(part) for part in parts] == np.diff(ends).tolist()


def test_many_threads(make):
    rows = make()

    def look(start):
        for _ in range(3):
            assert_array_equal(rows[start : start + 6], make.expected[start : start + 6])
        index = np.arange(start % 7, start + 1, 3)
        assert_array_equal(rows.take(index), make.expected.take(index, axis=0))

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            list(pool.map(look, range(0, N, 5)))


def test_rows_that_are_kept_do_not_change(make):
    rows = make()
    kept = [rows[start : start + 16] for start in range(0, N, 16)]
    assert any(part.base is not None for part in kept)
    for _ in range(2):
        again = [rows[start : start + 10].copy() for start in range(0, N, 10)]
    assert_array_equal(np.concatenate(kept), make.expected)
    assert_array_equal(np.concatenate(again), make.expected)


@pytest.mark.parametrize("index", [[N], [-N - 1], [0, 10**12]])
def test_rows_that_are_not_there(index, make):
    with pytest.raises(IndexError, match="not among these 211"):
        make().take(index)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows[3],
        lambda rows: rows[::2],
        lambda rows: rows[:, 0],
        lambda rows: rows[[1, 2]],
        lambda rows: rows.take([1.5]),
        lambda rows: rows.take([True, False]),
        lambda rows: rows.take([[1]]),
        lambda rows: rows.take([1], axis=1),
    ],
)
def test_other_indices_are_refused(ask, make):
    with pytest.raises(TypeError, match=r"slices with step one|one-dimensional index"):
        ask(make())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 3), (40, 2, 3), (40, 1)])
def test_dtypes_are_kept(dtype, shape, tmp_path):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    rows = open_rows(tmp_path / "a.npy", block_bytes=64)
    expected = load_matrix(tmp_path / "a.npy")
    assert_array_equal(rows[:], expected, strict=True)
    assert_array_equal(rows.take([3, 30, 3]), expected[[3, 30, 3]], strict=True)


def test_shards_share_a_dtype_that_holds_them_all(tmp_path):
    np.save(tmp_path / "1.npy", np.full((3, 2), 200, np.uint8))
    np.save(tmp_path / "2.npy", np.full((3, 2), -200, ">i2"))
    parquet(tmp_path / "3.parquet", np.full((3, 2), 0.5, np.float32))
    files = [tmp_path / name for name in ("1.npy", "2.npy", "3.parquet")]
    assert open_rows(files[:2]).dtype == np.int16
    assert open_rows(files[:2]).take([3, 2]).tolist() == [[-200, -200], [200, 200]]
    rows = open_rows(files)
    assert rows.dtype == np.float32
    assert rows[:].tolist() == [[200.0] * 2] * 3 + [[-200.0] * 2] * 3 + [[0.5] * 2] * 3


def test_a_pattern_counts_as_people_do(tmp_path):
    for number in (10, 9, 100, 1):
        np.save(tmp_path / f"s{number}.npy", np.full((1, 1), number))
    assert open_rows(str(tmp_path / "s*.npy"))[:].ravel().tolist() == [1, 9, 10, 100]
    listed = [tmp_path / "s10.npy", str(tmp_path / "s[19].npy")]
    assert open_rows(listed)[:].ravel().tolist() == [10, 1, 9]
    np.save(tmp_path / "s[1].npy", np.eye(2))
    assert open_rows(tmp_path / "s[1].npy").shape == (2, 2)


@pytest.fixture
def calls(monkeypatch):
    """First row and number of rows of each stretch that is read."""
    found, fill = [], FileReader._fill

    def count(self, file, start, out):
        found.append((start, len(out)))
        fill(self, file, start, out)

    monkeypatch.setattr(FileReader, "_fill", count)
    return found


def test_what_is_read(tmp_path, calls):
    """Each block once and in order; of scattered rows not much more than these."""
    np.save(tmp_path / "a.npy", np.zeros((1000, 2**14), np.float32))
    rows = open_rows(tmp_path / "a.npy", block_bytes=100 * 2**16)
    for start in range(0, 1000, 10):
        rows[start : start + 10]
    assert calls == [(start, 100) for start in range(0, 1000, 100)]
    calls.clear()
    rows[985:995], rows.take([950])  # still held
    assert calls == []
    rows.take([5, 3, 4, 7, 20, 21, 120, 3])
    assert calls == [(3, 3), (7, 1), (20, 2), (120, 1)]
    calls.clear()
    rows.take(np.arange(200, 290))  # a stretch has 4 MiB
    assert calls == [(200, 56), (256, 34)]


def test_close_rows_are_read_as_one_stretch(tmp_path, calls):
    matrix = np.random.default_rng(0).integers(0, 256, (5000, 64), np.uint8)
    np.save(tmp_path / "a.npy", matrix)
    index = np.arange(3, 3000, 7)
    assert_array_equal(open_rows(tmp_path / "a.npy").take(index), matrix[index])
    assert calls == [(3, index[-1] + 1 - 3)]


# The map and the file


def test_what_load_matrix_maps_is_a_source(tmp_path):
    np.save(tmp_path / "a.npy", MATRIX)
    for array in (load_matrix(tmp_path / "a.npy"), np.load(tmp_path / "a.npy", mmap_mode="r")):
        assert_array_equal(from_memmap(array)[:], MATRIX)
        assert_array_equal(from_memmap(array[10:][5:100])[:], MATRIX[15:110])


def test_what_is_no_mapped_matrix(tmp_path):
    np.save(tmp_path / "a.npy", MATRIX)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.save(tmp_path / "f.npy", np.asfortranarray(MATRIX))
    np.save(tmp_path / "c.npy", MATRIX.astype(complex))
    others = [np.load(tmp_path / name, mmap_mode="r") for name in ("f.npy", "c.npy")]
    writable = [np.load(tmp_path / "a.npy", mmap_mode=mode) for mode in ("r+", "c")]
    views = [mapped[:, :3], mapped[::2], mapped[0], mapped[:0], mapped + 1, np.asarray(mapped)]
    for array in (*others, *writable, *views, MATRIX, [[1]], None):
        assert from_memmap(array) is None
    np.save(tmp_path / "b.npy", MATRIX + 1)
    os.replace(tmp_path / "b.npy", tmp_path / "a.npy")
    assert from_memmap(mapped) is None
    (tmp_path / "a.npy").unlink()
    assert from_memmap(mapped) is None


# Faults


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
@pytest.mark.parametrize("change", ["shorter", "longer", "touched", "replaced", "gone", "emptied"])
def test_a_file_that_changes_while_it_is_read(change, name, tmp_path, monkeypatch):
    monkeypatch.setattr(forward, "STRETCH", 100)
    path = tmp_path / name
    np.save(path, MATRIX) if name == "a.npy" else parquet(path, MATRIX, row_group_size=5)
    rows = open_rows(path, block_bytes=320)
    rows[:10]
    data = path.read_bytes()
    match change:
        case "shorter":
            os.truncate(path, len(data) - 1000)
        case "longer":
            path.write_bytes(data + b"\0")
        case "touched":
            os.utime(path, (1, 1))
        case "replaced":
            (tmp_path / "b").write_bytes(data)
            os.replace(tmp_path / "b", path)
        case "gone":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
    sentence = refusal(lambda _: rows[:], path)
    changed = "has changed since it was opened: start again when no other process writes to it"
    # What was read ahead may have seen the file while it was written.
    assert sentence in {changed, "does not exist", "is empty (0 bytes)"}
    refusal(lambda _: rows.take(np.arange(N)), path)


def test_a_disk_that_fails_is_asked_again(tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", MATRIX)
    rows = open_rows(tmp_path / "a.npy", block_bytes=320)

    def fail(self, file, start, out):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(FileReader, "_fill", fail)
        for _ in range(2):
            sentence = refusal(lambda _: rows[:50], tmp_path / "a.npy")
            assert sentence == "cannot be read (Input/output error)"
            refusal(lambda _: rows.take([1, 2]), tmp_path / "a.npy")
    for _ in range(2):  # what was read ahead may have failed too
        try:
            found = rows[:]
        except DatasetError:
            continue
    assert_array_equal(found, MATRIX)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.asfortranarray(MATRIX),
         "is in Fortran order, so that no row of it lies in one piece: "
         "save np.ascontiguousarray(array)"),
        (np.array([[None, 1]]), "holds Python objects, which are pickles and never opened, "
         "not real numbers"),
        (MATRIX.astype(complex), "holds complex numbers, not real numbers"),
        (np.zeros(4), "holds an array of shape (4,), not a matrix of (n_samples, n_features): "
         "save array.reshape(-1, 1) if each number is a sample"),
        (np.zeros((1, 4)), "has one row only, and K-means needs at least 2"),
        (np.zeros((0, 4)), "is empty: its array has the shape (0, 4)"),
    ],
)  # fmt: skip
def test_npy_files_that_are_refused(array, sentence, tmp_path):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    assert refusal(open_rows, tmp_path / "a.npy") == sentence


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="there is no wider float here")
def test_floats_wider_than_64_bits(tmp_path):
    np.save(tmp_path / "a.npy", MATRIX.astype(np.longdouble))
    assert "of more than 64 bits: save array.astype" in refusal(open_rows, tmp_path / "a.npy")


def test_files_that_are_refused(tmp_path, monkeypatch):
    for name in ("a.csv", "a.txt"):
        (tmp_path / name).write_text("1,2\n3,4\n")
        assert refusal(open_rows, tmp_path / name) == (
            "cannot be read in blocks, as .npy or .parquet can: load_matrix reads others"
        )
    assert refusal(open_rows, tmp_path) == "is a folder where a file is expected"
    assert refusal(open_rows, tmp_path / "b.npy") == "does not exist"
    assert refusal(open_rows, tmp_path / "b*.npy") == "matches no file"
    with pytest.raises(DatasetError, match="No file is given"):
        open_rows([])
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    np.save(tmp_path / "b.npy", np.zeros((3, 4)))
    with pytest.raises(DatasetError, match=r"b\.npy' has 4 columns, but '.*a\.npy' has 2"):
        open_rows([tmp_path / "a.npy", tmp_path / "b.npy"])
    parquet(tmp_path / "a.parquet", MATRIX)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert refusal(open_rows, tmp_path / "a.parquet") == (
        "is a Parquet file, which needs pyarrow: pip install 'mnist-kmeans-mlx[parquet]'"
    )


def test_nulls_of_a_parquet_file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    table = pa.table({"a": pa.array([1.0, 2.0, None])})
    pq.write_table(table, tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet")
    sentence = refusal(lambda _: rows[:], tmp_path / "a.parquet")
    assert sentence == "has empty cells (nulls), 1 of them in column 'a'"


@pytest.mark.parametrize("name", ["a.npy", "a.parquet"])
def test_nan_and_infinity(name, tmp_path):
    matrix = MATRIX.copy()
    matrix[17, 2], matrix[17, 3], matrix[180, 0] = np.nan, np.inf, -np.inf
    path = tmp_path / name
    np.save(path, matrix) if name == "a.npy" else parquet(path, matrix)
    np.save(tmp_path / "good.npy", MATRIX)
    sentence = "holds NaN or infinity ({} of its {} values, the first in row {} counted from 0)"
    rows = open_rows(path, block_bytes=320)
    assert refusal(lambda _: check_finite(rows), path) == sentence.format(3, 5 * N, 17)
    several = open_rows([tmp_path / "good.npy", path, path])
    assert [file for _, file in several.files] == [0, N, 2 * N]
    assert refusal(lambda _: check_finite(several), path) == sentence.format(3, 5 * N, 17)
    # The rows of a file are counted from its start, also when only a part is looked at.
    part = several.part(N + 18, 3 * N - 10)
    assert part.files == [(str(path), -18), (str(path), N - 18)]
    assert refusal(lambda _: check_finite(part), path) == sentence.format(1, 5 * (N - 18), 180)
    check_finite(several.part(5, N + 17))
    check_finite(several.part(5, 5))
    np.save(path := tmp_path / "int.npy", np.eye(3, dtype=int))
    check_finite(open_rows(path))


def mutated(data, length):
    return st.lists(
        st.tuples(st.integers(0, length - 1), st.integers(0, 255)), min_size=1, max_size=4
    ).map(
        lambda changes: bytes(
            {**dict(enumerate(data)), **dict(changes)}[place] for place in range(len(data))
        )
    )


@given(data=st.data())
def test_a_damaged_header_is_no_danger(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "a.npy"
    np.save(path, MATRIX[:20])
    path.write_bytes(data.draw(mutated(path.read_bytes(), 128)))
    try:
        rows = open_rows(path)
    except DatasetError:
        return
    assert rows[:].nbytes < path.stat().st_size
    assert rows.take([0, len(rows) - 1]).shape == (2, rows.shape[1])


@pytest.mark.parametrize("shape", ["(10**12, 5)", "(2**62, 2**62)", "(-1, 5)", "(20, 500000000)"])
def test_a_header_that_claims_more_than_there_is(shape, tmp_path):
    (tmp_path / "a.npy").write_bytes(npy_header(shape) + MATRIX.tobytes())
    refusal(open_rows, tmp_path / "a.npy")


# Batches


@pytest.mark.parametrize("make", [lambda: iter([MATRIX]), lambda: (x for x in [MATRIX])])
def test_what_is_used_up_after_one_pass_is_refused(make):
    with pytest.raises(DatasetError, match=r"is used up after the first: give a list, or an obj"):
        Batches(make())


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ([], "Batches hold no rows, or rows without columns."),
        ([MATRIX[:0]], "Batches hold no rows, or rows without columns."),
        ([MATRIX[:, :0]], "Batches hold no rows, or rows without columns."),
        ([MATRIX, MATRIX[:, 1:]], "Batch 1 has 4 columns, but batch 0 has 5."),
        ([MATRIX, MATRIX[0]],
         r"Batch 1 \(counted from 0\) holds an array of shape .5,., not a matrix"),
        ([MATRIX, [["a"]]], r"Batch 1 \(counted from 0\) holds <U1, not real numbers"),
        ([MATRIX.astype(complex)],
         r"Batch 0 \(counted from 0\) is no array of numbers \(Complex data not"),
    ],
)  # fmt: skip
def test_batches_that_are_refused(batches, sentence):
    with pytest.raises(DatasetError, match=sentence):
        Batches(batches)


@pytest.mark.parametrize(
    ("later", "what"),
    [
        ([MATRIX[:50]], "only 1 of 2 came"),
        ([], "only 0 of 2 came"),
        ([MATRIX[:50], MATRIX[50:], MATRIX[:1]], "there are more than 2"),
        ([MATRIX[:51], MATRIX[51:]],
         r"batch 0 \(counted from 0\) now is float32 of shape \(51, 5\)"),
        ([MATRIX[:50], MATRIX[50:].astype(int)],
         r"batch 1 \(counted from 0\) now is int64 of shape \(161, 5\)"),
    ],
)  # fmt: skip
def test_batches_must_be_the_same_each_time(later, what):
    batches = [MATRIX[:50], MATRIX[50:]]
    rows = Batches(batches, block_bytes=320)
    batches[:] = later
    with pytest.raises(DatasetError, match=f"not those of the first pass: {what}; they must be"):
        rows[:]


def test_an_error_of_the_iterable_is_its_own():
    class Fails:
        fail = False

        def __iter__(self):
            yield MATRIX
            if self.fail:
                raise ZeroDivisionError

    batches = Fails()
    rows = Batches(batches)
    batches.fail = True
    with pytest.raises(ZeroDivisionError):
        rows[:]
    batches.fail = False
    assert_array_equal(rows[:], MATRIX)


# Memory


@pytest.mark.parametrize("kind", ["npy", "shards"])
def test_memory_is_that_of_a_few_blocks(kind, tmp_path):
    pytest.importorskip("resource")
    n, d = 200_000, 256
    for name in ("1.npy", "2.npy"):
        with open(tmp_path / name, "wb") as file:
            file.write(npy_header((n // 2, d)))
            file.truncate(128 + n // 2 * d * 4)  # a hole, which takes no space
    paths = "*.npy" if kind == "shards" else "1.npy"
    code = f"""
import resource, numpy as np
from mnist_kmeans_mlx.datasets.sources import check_finite, open_rows
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
rows = open_rows({str(tmp_path / paths)!r}, block_bytes=4 << 20)
for _ in range(2):
    total = sum(float(rows[a : a + 1000].sum()) for a in range(0, len(rows), 1000))
rows.take(np.arange(0, len(rows), 300))
check_finite(rows)
print(peak() - before)
"""
    assert int(run("-c", code).stdout) * (1 if sys.platform == "darwin" else 1024) < 80 << 20


def test_a_block_is_at_least_a_row():
    rows = Batches([MATRIX], block_bytes=1)
    assert rows.block_rows == 1
    assert_array_equal(rows[:], MATRIX)
    assert isinstance(rows.part(0, 9, block_bytes=100), Rows)
    assert rows.part(0, 9, block_bytes=100).block_rows == 5
