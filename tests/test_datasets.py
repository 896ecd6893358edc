"""The room as a whole: what every file is asked first."""

import os

import pytest
from damage import refusal

from mnist_kmeans_mlx import datasets
from mnist_kmeans_mlx.datasets import DatasetError, faults, load_matrix, load_mnist

LOADERS = [load_matrix, load_mnist]


def test_names_leave_by_the_door():
    assert datasets.__all__ == [
        "Batches", "Dataset", "DatasetError", "DatasetWarning", "load_matrix", "load_mnist",
        "open_rows",
    ]  # fmt: skip
    assert issubclass(DatasetError, ValueError)


def test_a_missing_file(tmp_path):
    assert refusal(load_matrix, tmp_path / "a.npy") == "does not exist"
    assert refusal(load_matrix, tmp_path / "a.unknown") == "does not exist"
    assert "is no file or folder, nor one of the sources" in refusal(load_mnist, tmp_path / "a")


def test_a_name_with_nul_or_newline(tmp_path):
    assert refusal(load_matrix, "a\0.npy").endswith("does not exist")
    with pytest.raises(DatasetError, match=r"a\\nb\.npy' does not exist\.$"):
        load_matrix(tmp_path / "a\nb.npy")


def test_a_name_too_long(tmp_path):
    for load in LOADERS:
        assert "cannot be read" in refusal(load, tmp_path / ("a" * 300 + ".npy"))


def test_a_folder(tmp_path):
    assert refusal(load_matrix, tmp_path) == "is a folder where a file is expected"
    (tmp_path / "a.csv").mkdir()
    assert "is a folder" in refusal(load_matrix, tmp_path / "a.csv")


@pytest.mark.parametrize("load", LOADERS)
def test_an_empty_file(load, tmp_path):
    (tmp_path / "a.npz").touch()
    assert refusal(load, tmp_path / "a.npz") == "is empty (0 bytes)"


@pytest.mark.parametrize("load", LOADERS)
def test_a_pipe_is_not_waited_for(load, tmp_path):
    os.mkfifo(tmp_path / "a.npy")
    assert refusal(load, tmp_path / "a.npy") == "is not a regular file"


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_forbidden_file(load, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK")
    (tmp_path / "a.npz").chmod(0)
    assert refusal(load, tmp_path / "a.npz") == "cannot be read (Permission denied)"


@pytest.mark.parametrize("load", LOADERS)
def test_errors_of_the_system_and_of_memory(load, tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    path.write_bytes(b"PK")

    def failing_with(error):
        def fail(*_):
            raise error

        monkeypatch.setattr(faults, "open", fail, raising=False)

    failing_with(PermissionError(13, "Permission denied"))
    assert refusal(load, path) == "cannot be read (Permission denied)"
    failing_with(OSError(5, "Input/output error"))
    assert refusal(load, path) == "cannot be read (Input/output error)"
    failing_with(MemoryError())
    assert refusal(load, path) == "needs more memory than there is"


def test_what_is_no_fault_of_a_file_passes(tmp_path):
    with pytest.raises(KeyboardInterrupt), faults.blaming(tmp_path):
        raise KeyboardInterrupt
    with pytest.raises(TypeError):
        load_matrix(3)


def test_foreign_messages_become_one_short_line():
    assert faults.brief(ValueError("two\nlines\t and \x00.")) == "two lines and ?"
    assert faults.brief(ValueError("x" * 999)) == "x" * 160
    assert faults.brief(ValueError()) == "ValueError"
