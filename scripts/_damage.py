"""A small valid file of every kind, random damage, and checks of what is read."""

import csv
import gzip
import io
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np

from mnist_kmeans_mlx.bisecting import BisectingKMeans
from mnist_kmeans_mlx.checkpoint import Checkpoint, CheckpointError
from mnist_kmeans_mlx.datasets import DatasetError, load_matrix, load_mnist
from mnist_kmeans_mlx.datasets.mnist import idx_bytes
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.estimator import KMeans
from mnist_kmeans_mlx.minibatch import MiniBatchKMeans
from mnist_kmeans_mlx.persistence import ModelError, load_model, save_model, tensors

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from damage import put_together, safetensors_bytes, small_mnist, taken_apart

# What a header says where it lies, and bytes that parsers stumble over.
SPLINTERS = [
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8, b"\0" * 64,
    b"-1", b"99999999999", b"0", b"1e999", b"nan", b"inf", b'"', b",", b",,", b"\n", b"\r", b"\0",
    b"(", b")", b"[" * 300, b"{", b"}", b":", b"True", b"L", b"|O", b"<M8[s]", b"<U9", b"<c8",
    b">f8", b"F64", b"BF16", b"BOOL", b"\xef\xbb\xbf", b"\xf0\x9f", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\x93NUMPY", b"cposix\nsystem\n(S'true'\ntR.", b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
]  # fmt: skip


class Sample:
    """A small valid file, and the check of what is read from a damaged copy."""

    def __init__(self, path, data, load=load_matrix, *, holds=0, signed=False, **kwargs):
        self.path, self.data, self.load, self.kwargs = path, data, load, kwargs
        # Bytes of what it holds, unpacked.
        self.size = max(holds, len(data))
        # The checksum is recomputed after the damage, so that it does not catch it.
        self.signed = signed
        path.write_bytes(data)

    @property
    def name(self):
        return self.path.name

    def check(self, path, watched):
        """Read a damaged copy; returns the one sentence it is refused with, or "read"."""
        try:
            with watched:
                result = self.load(path, **self.kwargs)
            if self.load is load_model:
                check_model(result, self)
            elif self.load is load_checkpoint:
                check_checkpoint(result, self)
            elif self.load is load_mnist:
                check_mnist(result)
            else:
                check_matrix(result, path, self.kwargs)
        except (DatasetError, ModelError, CheckpointError) as error:
            sentence = str(error)
            named = (repr(str(path)), str(path))
            assert sentence.startswith(named), sentence
            assert sentence.isprintable()
            assert sentence.endswith(".")
            assert len(sentence) < len(str(path)) + 500
            return sentence.replace(named[0], "").replace(named[1], "").removesuffix(".").strip()
        return "read"


def write_samples(folder, rows=6):
    """One good file of every kind."""
    folder = Path(folder)
    matrix = np.random.default_rng(0).normal(size=(rows, 4))
    samples = []

    def add(name, data, *args, **kwargs):
        samples.append(Sample(folder / name, data, *args, **kwargs))

    def written(name, write, *args, **kwargs):
        write(folder / name, *args, **kwargs)
        return (folder / name).read_bytes()

    add("a.npy", written("a.npy", np.save, matrix))
    add("f.npy", written("f.npy", np.save, np.asfortranarray(matrix.astype(">f4"))))
    add("a.npz", written("a.npz", np.savez, a=matrix))
    add("b.npz", written("b.npz", np.savez_compressed, a=matrix, b=matrix > 0), key="b")
    mnist = small_mnist(max(3, rows // 20))
    image = mnist["x_train"]
    packed = written("mnist.npz", np.savez_compressed, **mnist)
    add("mnist.npz", packed, load_mnist, holds=image.nbytes)
    text = "\n".join(",".join(map(repr, row)) for row in matrix.tolist())
    add("a.csv", ("a,b,c,d\n" + text).encode())
    packed = ("a;b;c;d\n" + text.replace(",", ";").replace(".", ",")).encode()
    add("a.csv.gz", gzip.compress(packed), holds=len(packed))
    add("a.tsv", text.replace(",", "\t").encode() + b"\r\n")
    half = (matrix.astype("<f4").view("<u4") >> 16).astype("<u2")
    add("h.npy", a_npy(half).replace(b"'<u2'", b"'<V2'"))  # as MLX writes bfloat16
    tensors = {"a": ("F64", matrix), "b": ("BF16", half)}
    add("a.safetensors", safetensors_bytes(tensors, {"x": "y"}), key="b")
    add("c.safetensors", safetensors_bytes({"c": ("BOOL", matrix > 0)}))
    add("train-images-idx3-ubyte", idx_bytes(image))
    packed = gzip.compress(idx_bytes(image))
    add("train-images-idx3-ubyte.gz", packed, holds=image.nbytes)

    fitted = KMeans(3, n_init=2, random_state=0, device="cpu").fit(matrix)
    model = written("model", save_model, fitted, cluster_labels={1: [0], 7: [1, 2]})
    kept = written("checkpoint", lambda path: interrupted_fit(path, matrix))
    for name, data, load in (("model", model, load_model), ("checkpoint", kept, load_checkpoint)):
        add(name, data, load)
        add(f"signed {name}", data, load, signed=True)
    others = {
        "bisecting model": BisectingKMeans(3, random_state=0, device="cpu").fit(matrix),
        "mini-batch model": MiniBatchKMeans(3, random_state=0, device="cpu").partial_fit(matrix),
    }
    for name, estimator in others.items():
        add(name, written(name, save_model, estimator), load_model, signed=True)
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return samples
    table = pa.table({"a": matrix[:, 0], "b": np.arange(rows)})
    packed = written("a.parquet", lambda path: pq.write_table(table, path))
    add("a.parquet", packed, holds=table.nbytes)
    table = pa.table({"e": pa.array(matrix.tolist()), "n": np.arange(rows)})
    packed = written("e.parquet", lambda path: pq.write_table(table, path))
    add("e.parquet", packed, holds=table.nbytes, columns="e")
    return samples


def a_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def new_fit():
    return KMeans(3, n_init=5, init="random", random_state=0, device="cpu")


def interrupted_fit(path, matrix, after=7):
    """Write the checkpoint of a fit that was interrupted after some iterations."""
    checkpoint = Checkpoint(path)
    note = checkpoint.note

    def interrupt(standing, position):
        nonlocal after
        note(standing, position)
        after -= 1
        if after < 0 and standing.state is not None:
            raise KeyboardInterrupt

    checkpoint.note = interrupt
    fit = new_fit()
    try:
        # Side by side what is told of restarts depends on their pace.
        with mock.patch.object(PlainWay, "side_by_side", return_value=(1, 1)):
            checkpoint.fit(fit, matrix)
    except KeyboardInterrupt:
        return
    raise AssertionError("the fit was too short")


def load_checkpoint(path):
    return Checkpoint(path, resume=True)


def damaged(sample, rng):
    """Bytes of a damaged copy of a sample."""
    if sample.signed:
        return mutate_signed(sample.data, rng)
    if rng.random() < 0.01:
        return rng.choice(SPLINTERS)
    return mutate(sample.data, rng)


def mutate(data, rng):
    """Damage bytes the way disks, downloads and people do; early bytes, the headers, most."""
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        end = len(data) if rng.random() < 0.5 else min(len(data), 128)
        at = rng.randrange(end + 1)
        match rng.randrange(6):
            case 0:
                del data[at:]
            case 1:
                del data[at : at + rng.choice([1, 2, 8, 64])]
            case 2:
                data[at:at] = rng.choice(SPLINTERS)
            case 3:
                splinter = rng.choice(SPLINTERS)
                data[at : at + len(splinter)] = splinter
            case 4 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case _:
                data[at:at] = data[at : at + rng.choice([1, 8, 64])]
    return bytes(data)


# What a number, text, list or table of a header can be replaced by.
STRANGE = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf"), "", "x",
    "os.system", "__class__", "MT19937", [], [[]], [-1], [2**40, 2**40], {}, {"$array": "nowhere"},
    {"$float": "x"}, {"$items": [1]}, {"$tuple": 1}, {"$strings": [], "dtype": "O"},
]  # fmt: skip


def mutate_signed(data, rng):
    """Damage a header's values or the arrays, and make the checksum right again."""
    header, body = taken_apart(data)
    texts, body = header.pop("__metadata__"), bytearray(body)
    del texts["sha256"]
    for _ in range(rng.choice([1, 1, 2, 4])):
        match rng.randrange(4):
            case 0:
                at = rng.randrange(len(body))
                body[at : at + 8] = rng.choice(SPLINTERS)[:8].ljust(8, b"\0")[: len(body) - at]
            case 1:
                key = rng.choice(list(header))
                header[key] = with_something_strange(header[key], rng)
            case _:
                key = rng.choice(list(texts))
                try:
                    texts[key] = json.dumps(with_something_strange(json.loads(texts[key]), rng))
                except ValueError:
                    texts[key] = rng.choice(["", "x", "-1", "2", "9" * 30, "null"])
    texts["sha256"] = tensors._checksum(texts, header, body)
    return put_together({"__metadata__": texts, **header}, bytes(body))


def with_something_strange(value, rng):
    """Replace or remove one value somewhere inside a value."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(STRANGE)
    value = value.copy()
    key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
    if rng.random() < 0.1:
        del value[key]
    else:
        value[key] = with_something_strange(value[key], rng)
    return value


def check_model(model, sample):
    """What is read is what was written, unless the checksum was recomputed."""
    estimator = model.estimator
    rows = np.zeros((2, estimator.n_features_in_))
    labels = estimator.predict(rows)
    assert ((labels >= 0) & (labels < len(estimator.cluster_centers_))).all()
    if isinstance(estimator, MiniBatchKMeans):
        estimator.partial_fit(rows)
    if not sample.signed:
        good = load_model(sample.path)
        assert vars(estimator).keys() == vars(good.estimator).keys()
        for name in ("cluster_centers_", "labels_", "inertia_", "n_iter_", "random_state"):
            assert np.array_equal(getattr(estimator, name), getattr(good.estimator, name))
        assert model.cluster_labels == good.cluster_labels


def check_checkpoint(checkpoint, sample):
    """A fit resumes from what is read, to the right result unless the checksum was recomputed."""
    rows = np.load(sample.path.with_name("a.npy"))
    found = checkpoint.fit(new_fit(), rows)
    assert ((found.labels_ >= 0) & (found.labels_ < 3)).all()
    if not sample.signed:
        expected = new_fit().fit(rows)
        assert np.array_equal(found.labels_, expected.labels_)
        assert np.array_equal(found.cluster_centers_, expected.cluster_centers_)


def check_mnist(result):
    assert result.x_train.shape[1:] == result.x_test.shape[1:] == (28, 28)
    assert len(result.x_train) == len(result.y_train) > 0
    assert len(result.x_test) == len(result.y_test) > 0
    assert result.y_train.dtype == result.y_test.dtype == np.uint8


def check_matrix(result, path, kwargs):
    """It keeps what `load_matrix` promises, and is what another reader reads."""
    assert result.ndim == 2
    assert result.shape[0] >= 2
    assert result.shape[1] >= 1
    assert result.dtype.kind in "biuf"
    assert result.dtype.isnative
    assert not result.flags.writeable
    assert np.isfinite(result).all()
    if path.suffix == ".npy":
        other = np.load(path, allow_pickle=False)
        if other.dtype == "V2":
            other = (other.view("<u2").astype(np.uint32) << 16).view(np.float32)
        assert np.array_equal(result, other.reshape(result.shape))
    elif path.suffix == ".npz":
        with np.lib.npyio.NpzFile(path) as archive:
            other = archive[kwargs.get("key") or archive.files[0]]
        assert np.array_equal(result, other.reshape(result.shape))
    elif path.suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = [line for line in csv.reader(file) if line]
        other = [list(map(float, line)) for line in lines[-len(result) :]]
        assert np.array_equal(result, other)
