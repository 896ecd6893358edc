import dataclasses
import gzip
import hashlib
import os
import shutil
import sys
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from commands import run
from damage import refusal, small_mnist, write_idx_folder

from mnist_kmeans_mlx.datasets import DatasetError, load_matrix, load_mnist, mnist
from mnist_kmeans_mlx.datasets.mnist import idx_bytes

KEYS = ("x_train", "y_train", "x_test", "y_test")
# Published SHA-256 of the four original files, unpacked.
PUBLISHED = {
    "x_train": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "y_train": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "x_test": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "y_test": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@pytest.fixture(scope="module")
def bundled():
    return load_mnist()


def same(a, b):
    return all(np.array_equal(getattr(a, key), getattr(b, key)) for key in KEYS)


def save(path, **changes):
    np.savez(path, **small_mnist() | changes)
    return path


def test_bundled(bundled):
    assert bundled.x_train.shape == (60000, 28, 28)
    assert bundled.x_test.shape == (10000, 28, 28)
    assert bundled.y_train.shape == (60000,)
    assert bundled.y_test.shape == (10000,)
    assert bundled.name == "mnist"
    assert bundled.source == "bundled"
    assert bundled.origin == "mnist_kmeans_mlx/_data/mnist.npz"
    assert "LeCun" in bundled.licence
    assert "Share Alike 3.0" in bundled.licence
    assert (files("mnist_kmeans_mlx") / "_data" / "LICENSE-MNIST.txt").is_file()


def test_the_bundled_bytes_are_the_published_ones(bundled):
    whole = hashlib.sha256()
    for key in KEYS:
        data = idx_bytes(getattr(bundled, key))
        assert hashlib.sha256(data).hexdigest() == PUBLISHED[key]
        whole.update(data)
    assert bundled.checksum == whole.hexdigest() == mnist._CHECKSUM
    notice = (files("mnist_kmeans_mlx") / "_data" / "LICENSE-MNIST.txt").read_text()
    assert all(digest in notice for digest in PUBLISHED.values())


def test_read_only_and_frozen(bundled):
    for key in KEYS:
        array = getattr(bundled, key)
        assert array.dtype == np.uint8
        assert array.flags.c_contiguous
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundled.name = "other"
    assert len(repr(bundled)) < 500


def test_the_same_data_from_every_source(bundled, tmp_path):
    arrays = {key: getattr(bundled, key) for key in KEYS}
    np.savez(tmp_path / "copy.npz", **arrays)
    folder = write_idx_folder(tmp_path / "idx", arrays)
    for path, source in ((tmp_path / "copy.npz", "npz"), (folder, "idx")):
        data = load_mnist(path)
        assert same(data, bundled)
        assert data.source == source
        assert data.origin == str(path)
        for name in ("name", "checksum", "licence"):
            assert getattr(data, name) == getattr(bundled, name)


@pytest.mark.parametrize("name", ["-idx{}-ubyte", ".idx{}-ubyte"])
@pytest.mark.parametrize(("end", "pack"), [("", bytes), (".gz", gzip.compress)])
def test_idx_folder(name, end, pack, tmp_path):
    arrays = small_mnist()
    data = load_mnist(str(write_idx_folder(tmp_path / "made-up", arrays, (name + end,) * 4, pack)))
    assert all(np.array_equal(getattr(data, key), arrays[key]) for key in KEYS)
    assert not data.x_train.flags.writeable
    assert data.name == "made-up"
    assert data.licence == "unknown: these are not the data of MNIST"


def test_other_whole_numbers_are_narrowed(tmp_path):
    arrays = small_mnist()
    wide = {key: array.astype(">i8") for key, array in arrays.items()}
    wide["x_train"] = np.asfortranarray(wide["x_train"])
    np.savez_compressed(tmp_path / "a.npz", **wide)
    np.savez(tmp_path / "b.npz", **arrays)
    assert load_mnist(tmp_path / "a.npz").checksum == load_mnist(tmp_path / "b.npz").checksum


def test_idx_folder_lacks_files(tmp_path):
    folder = write_idx_folder(tmp_path / "a", small_mnist())
    (folder / "t10k-images-idx3-ubyte").unlink()
    (folder / "train-labels-idx1-ubyte").unlink()
    assert refusal(load_mnist, folder) == (
        "is a folder without train-labels-idx1-ubyte, t10k-images-idx3-ubyte (plain or .gz)"
    )
    shutil.rmtree(folder)
    folder.mkdir()
    assert "is a folder without train-images-idx3-ubyte, " in refusal(load_mnist, folder)


def test_a_damaged_idx_file_is_named_itself(tmp_path):
    folder = write_idx_folder(tmp_path / "a", small_mnist())
    path = folder / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match=r"t10k-labels-idx1-ubyte' is cut short or damaged"):
        load_mnist(folder)


def other_names(folder, name, arrays, pack=bytes):
    """Write four files as EMNIST names its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays.items():
        kind, part = ("images", "labels")[key[0] == "y"], key[2:]
        end = ".gz" if pack is gzip.compress else ""
        path = folder / f"{name}-{part}-{kind}-idx{array.ndim}-ubyte{end}"
        path.write_bytes(pack(idx_bytes(array)))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_emnist(pack, tmp_path):
    letters = small_mnist() | {"y_train": np.array([1, 26, 9], np.uint8)}
    other_names(tmp_path / "gzip", "emnist-letters", letters, pack)
    for path in ("gzip", "gzip/emnist-letters"):
        data = load_mnist(tmp_path / path)
        assert all(np.array_equal(getattr(data, key), letters[key]) for key in KEYS)
    assert data.name == "emnist-letters"
    other_names(tmp_path / "gzip", "emnist-digits", small_mnist(5), pack)
    assert len(load_mnist(tmp_path / "gzip" / "emnist-digits").x_train) == 5
    assert refusal(load_mnist, tmp_path / "gzip") == (
        "holds several data sets, give one of them: "
        f"{tmp_path}/gzip/emnist-digits, {tmp_path}/gzip/emnist-letters"
    )
    next((tmp_path / "gzip").glob("emnist-digits-test-labels*")).unlink()
    assert refusal(load_mnist, tmp_path / "gzip" / "emnist-digits") == (
        "is a folder without emnist-digits-t10k-labels-idx1-ubyte (plain or .gz)"
    )
    assert "is no file or folder" in refusal(load_mnist, tmp_path / "gzip" / "emnist-mnist")


def test_the_folders_of_torchvision(tmp_path):
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.parent.mkdir(parents=True)
    write_idx_folder(raw, small_mnist())
    for path in (raw, raw.parent, raw.parent.parent):
        data = load_mnist(path)
        assert np.array_equal(data.x_train, small_mnist()["x_train"])
        assert data.origin == str(path)
    assert load_mnist(raw).name == "MNIST"
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.parent.mkdir()
    write_idx_folder(raw, small_mnist())
    assert refusal(load_mnist, tmp_path / "data") == (
        "holds several data sets, give one of them: "
        f"{tmp_path}/data/FashionMNIST/raw, {tmp_path}/data/MNIST/raw"
    )


def test_images_in_colour_are_read_by_their_key(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(3, 28, 28, 3), dtype=np.uint8)
    path = save(tmp_path / "a.npz", x_train=images)
    assert refusal(load_mnist, path) == (
        "holds x_train of shape (3, 28, 28, 3), where images are (n, 28, 28): load_matrix(path, "
        "key='x_train') reads images of any shape (--key x_train, and --labels FILE for labels)"
    )
    assert np.array_equal(load_matrix(path, key="x_train"), images.reshape(3, -1))


def test_images_for_labels(tmp_path):
    folder = write_idx_folder(tmp_path / "a", small_mnist())
    shutil.copy(folder / "t10k-labels-idx1-ubyte", folder / "t10k-images-idx3-ubyte")
    assert refusal(load_mnist, folder) == (
        "holds x_test of shape (2,), where images are (n, 28, 28): load_matrix reads each of its "
        "files (--data FILE of images, --labels FILE)"
    )


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_single_idx_file(pack, tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(pack(idx_bytes(small_mnist()["x_train"])))
    assert refusal(load_mnist, path) == (
        "is a single IDX file: give the folder that holds all four"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"y_train": np.zeros(4, np.uint8)}, "holds 3 images in x_train, but 4 labels in y_train"),
        ({"x_test": np.zeros((5, 28, 28), np.uint8)},
         "holds 5 images in x_test, but 2 labels in y_test"),
        ({"x_train": np.zeros((3, 32, 32), np.uint8)},
         "holds x_train of shape (3, 32, 32), where images are (n, 28, 28)"),
        ({"x_test": np.zeros((2, 784), np.uint8)},
         "holds x_test of shape (2, 784), where images are (n, 28, 28)"),
        ({"y_test": np.zeros((2, 1), np.uint8)},
         "holds y_test of shape (2, 1), where labels are (n,)"),
        ({"y_train": np.array([3, 256, 0])}, "holds 256 in y_train, where labels are 0 to 255"),
        ({"y_train": np.array([3, -1, 0])}, "holds -1 in y_train, where labels are 0 to 255"),
        ({"x_test": np.full((2, 28, 28), 256)}, "holds 256 in x_test, where pixels are 0 to 255"),
        ({"x_train": np.zeros((3, 28, 28), np.float32)},
         "holds x_train of float32, where pixels are whole numbers 0 to 255"),
        ({"y_test": np.array([True, False])},
         "holds y_test of bool, where labels are whole numbers 0 to 255"),
        ({"y_test": np.array(["1", "2"])}, "holds text, not real numbers"),
        ({"y_test": np.array([1, None])},
         "holds Python objects, which are pickles and never opened, not real numbers"),
        ({"x_train": np.zeros((0, 28, 28), np.uint8)},
         "is empty: its array has the shape (0, 28, 28)"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_mnists(changes, sentence, tmp_path):
    found = refusal(load_mnist, save(tmp_path / "a.npz", **changes))
    assert found.partition(": load_matrix")[0] == sentence


def test_npz_without_the_keys(tmp_path):
    np.savez(tmp_path / "a.npz", x_train=small_mnist()["x_train"], other=np.zeros(3))
    assert (
        refusal(load_mnist, tmp_path / "a.npz") == "has no array 'y_train', but 'x_train', 'other'"
    )


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    sentence = refusal(load_mnist, tmp_path / "a.npz")
    assert sentence == r"is not an .npz file (it starts with b'\x89PNG\r\n\x1a\n')"


def keras_module(load_data):
    module = ModuleType("tensorflow")
    datasets = SimpleNamespace(mnist=SimpleNamespace(load_data=load_data))
    module.keras = SimpleNamespace(datasets=datasets)
    return module


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """An empty Keras cache of our own."""
    (tmp_path / "home" / "datasets").mkdir(parents=True)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    return tmp_path / "home"


def test_keras_downloads(keras_home, monkeypatch, capsys):
    arrays = small_mnist()

    def load_data():
        print("Downloading data from https://example.org")
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])

    monkeypatch.setitem(sys.modules, "tensorflow", keras_module(load_data))
    data = load_mnist("keras")
    assert (data.source, data.origin) == ("keras", "tensorflow.keras.datasets.mnist")
    assert np.array_equal(data.x_train, arrays["x_train"])
    assert not data.x_train.flags.writeable
    told = capsys.readouterr()
    assert told.out == ""
    assert "Downloading" in told.err


def test_keras_cannot_download(keras_home, monkeypatch, capsys):
    def load_data():
        print("Downloading data from https://example.org")
        raise Exception("URL fetch failure on https://example.org:\nNone -- [Errno -2]")

    monkeypatch.setitem(sys.modules, "tensorflow", keras_module(load_data))
    with pytest.raises(DatasetError) as caught:
        load_mnist("keras")
    assert str(caught.value) == (
        "source 'keras' failed (URL fetch failure on https://example.org: None -- [Errno -2]): "
        "use the source 'bundled', or the path of a file."
    )
    assert capsys.readouterr().out == ""


def test_keras_is_interrupted(keras_home, monkeypatch):
    def load_data():
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "tensorflow", keras_module(load_data))
    with pytest.raises(KeyboardInterrupt):
        load_mnist("keras")


def test_keras_without_tensorflow(keras_home, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DatasetError) as caught:
        load_mnist("keras")
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "pip install 'mnist-kmeans-mlx[tensorflow]'" in sentence


def test_a_broken_tensorflow(keras_home, monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise AttributeError('built for another NumPy')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    with pytest.raises(DatasetError, match="failed \\(built for another NumPy\\)"):
        load_mnist("keras")


@pytest.mark.parametrize("where", ["KERAS_HOME", "HOME"])
def test_keras_cache_is_read_without_tensorflow(where, bundled, keras_home, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    if where == "HOME":
        monkeypatch.delenv("KERAS_HOME")
        monkeypatch.setenv("HOME", str(keras_home.parent))
        keras_home = keras_home.rename(keras_home.parent / ".keras")
    cached = keras_home / "datasets" / "mnist.npz"
    cached.write_bytes((files("mnist_kmeans_mlx") / "_data" / "mnist.npz").read_bytes())
    # The same arrays in another container: let its hash stand for that of Keras' file.
    digest = hashlib.sha256(cached.read_bytes()).hexdigest()
    monkeypatch.setattr(mnist, "_KERAS_SHA256", digest)
    data = load_mnist("keras")
    assert same(data, bundled)
    assert data.checksum == bundled.checksum
    assert (data.source, data.origin) == ("keras", str(cached))
    assert cached.exists()


def test_a_strange_file_in_the_keras_cache_is_protected(keras_home, monkeypatch):
    cached = save(keras_home / "datasets" / "mnist.npz")
    before = cached.read_bytes()
    monkeypatch.setitem(sys.modules, "tensorflow", keras_module(cached.unlink))
    with pytest.raises(DatasetError) as caught:
        load_mnist("keras")
    assert str(caught.value) == (
        f"{str(cached)!r} is not the file that Keras expects in its cache, and Keras would delete "
        "it: move it away, or give its path to read it as it is."
    )
    assert cached.read_bytes() == before
    assert load_mnist(cached).source == "npz"


def test_keras_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert mnist._keras_caches() == [tmp_path / "datasets" / "mnist.npz"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "absent"))
    assert mnist._keras_caches() == [
        tmp_path / "absent" / "datasets" / "mnist.npz",
        Path("/tmp/.keras/datasets/mnist.npz"),
    ]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_the_real_keras_offline(tmp_path):
    code = """
from mnist_kmeans_mlx.datasets import DatasetError, load_mnist
try:
    load_mnist("keras")
except DatasetError as error:
    raise SystemExit(f"refused: {error}")
"""
    nowhere = {"https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    environment = os.environ | nowhere | {"KERAS_HOME": str(tmp_path)}
    done = run("-c", code, code=1, env=environment)
    assert done.stdout == ""
    assert "refused: source 'keras' failed (URL fetch failure on https" in done.stderr
