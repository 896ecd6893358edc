from inspect import getdoc

import numpy as np
import pytest

from mnist_kmeans_mlx.datasets import load_matrix, open_rows
from mnist_kmeans_mlx.formats import FORMATS, format_of
from mnist_kmeans_mlx.persistence.writers import save_columns

WRITTEN = [each.suffixes[0] for each in FORMATS if each.write]


def test_every_function_is_there():
    for each in FORMATS:
        for use in ("read", "blocks", "write"):
            assert not getattr(each, use) or callable(each.function(use))


def test_a_suffix_names_one_format():
    for each in FORMATS:
        for suffix in each.suffixes:
            assert format_of(f"A{suffix.upper()}") is each
    assert format_of("a.csv.gz", "write") is None
    assert format_of(".npy") is None


def test_documents_name_every_format():
    for function, use in ((load_matrix, "read"), (open_rows, "blocks")):
        named = {each.suffixes[0] for each in FORMATS if getattr(each, use)}
        assert [suffix for suffix in named if suffix not in getdoc(function)] == []


@pytest.mark.parametrize("suffix", WRITTEN)
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_what_is_written_is_read(suffix, dtype, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    columns = np.random.default_rng(0).integers(0, 999, (2, 50)).astype(dtype) / dtype(7)
    path = tmp_path / f"x{suffix}"
    save_columns(path, {"one": columns[0], "two": columns[1]})
    assert np.array_equal(load_matrix(path).astype(columns.dtype), columns.T)
