import json
import os
import stat
import struct
from copy import copy, deepcopy

import numpy as np
import pytest
from commands import run
from damage import put_together, taken_apart
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from mnist_kmeans_mlx import persistence
from mnist_kmeans_mlx.bisecting import BisectingKMeans
from mnist_kmeans_mlx.estimator import KMeans
from mnist_kmeans_mlx.minibatch import MiniBatchKMeans
from mnist_kmeans_mlx.persistence import Model, ModelError, load_model, save_model, tensors
from mnist_kmeans_mlx.persistence.files import check_writable, write_atomically

LABELS = {3: [1], 7: [0, 2]}


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(60, 5))


@pytest.fixture(scope="module")
def fitted(rows, device):
    return KMeans(3, random_state=7, device=device).fit(rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def good(fitted, tmp_path_factory):
    """The bytes of a sound model."""
    path = tmp_path_factory.mktemp("good") / "m"
    save_model(path, fitted, cluster_labels=LABELS, metadata={"unit": 255.0})
    return path.read_bytes()


def test_every_attribute_and_parameter_comes_back_to_the_last_bit(fitted, rows, path):
    metadata = {"checksum": "abc", "unit": 255.0, "nothing": None, "nested": {"a": [1, 2.5]}}
    assert save_model(path, fitted, cluster_labels=LABELS, metadata=metadata) == path
    model = load_model(path)
    assert isinstance(model, Model)
    assert model.cluster_labels == LABELS
    assert model.metadata == metadata
    assert model.created.endswith("+00:00")
    back = model.estimator
    assert type(back) is KMeans
    assert back.get_params() == fitted.get_params()
    assert vars(back).keys() == vars(fitted).keys()
    for name, value in vars(fitted).items():
        found = getattr(back, name)
        assert type(found) is type(value), name
        assert_array_equal(found, value)
        if isinstance(value, np.ndarray):
            assert found.dtype == value.dtype
            assert found.flags.writeable
    assert_array_equal(back.predict(rows), fitted.predict(rows))
    assert_array_equal(back.transform(rows), fitted.transform(rows))
    assert list(back.get_feature_names_out()) == list(fitted.get_feature_names_out())


@pytest.mark.parametrize("name", persistence._CLASSES)
def test_every_estimator_comes_back(name, rows, path, device):
    fitted = persistence._class(name)(3, random_state=0, device=device).fit(rows)
    save_model(path, fitted)
    back = load_model(path).estimator
    assert type(back) is type(fitted)
    assert vars(back).keys() == vars(fitted).keys()
    assert_array_equal(back.predict(rows), fitted.predict(rows))
    assert back.fit(rows).inertia_ == fitted.inertia_


def test_feature_names_come_back(path, device):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"länge": [0.0, 1, 9, 10], "b": [0.0, 0, 1, 1]})
    save_model(path, KMeans(2, random_state=0, device=device).fit(frame))
    back = load_model(path).estimator
    assert back.feature_names_in_.tolist() == ["länge", "b"]
    assert back.feature_names_in_.dtype == object
    back.predict(frame)  # would warn about names, and warnings are errors


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_centres_keep_their_dtype(rows, path, device, dtype):
    fitted = KMeans(2, random_state=0, device=device).fit((100 * abs(rows)).astype(dtype))
    save_model(path, fitted)
    back = load_model(path).estimator.cluster_centers_
    assert back.dtype == fitted.cluster_centers_.dtype
    assert_array_equal(back, fitted.cluster_centers_)


def test_given_centres_and_numpy_numbers_as_parameters(rows, path, device):
    fitted = KMeans(np.int64(2), init=rows[:2], n_init=1, tol=np.float64(1e-3), device=device).fit(
        rows
    )
    save_model(path, fitted)
    back = load_model(path).estimator
    assert_array_equal(back.init, rows[:2])
    assert back.n_clusters == 2
    assert type(back.tol) is np.float64
    back.fit(rows)


def test_a_generator_is_saved_as_none(rows, path, device):
    fitted = KMeans(2, random_state=np.random.RandomState(0), device=device).fit(rows)
    with pytest.warns(UserWarning, match="random_state"):
        save_model(path, fitted)
    assert load_model(path).estimator.random_state is None
    assert isinstance(fitted.random_state, np.random.RandomState)


def test_a_function_is_refused(rows, path, device):
    fitted = KMeans(2, init=lambda X, n, random_state: X[:n], n_init=1, device=device).fit(rows)
    with pytest.raises(ModelError, match="init is a function"):
        save_model(path, fitted)
    assert not path.exists()


def test_what_cannot_be_saved_is_refused(fitted, path):
    from sklearn.cluster import BisectingKMeans as OtherBisecting
    from sklearn.cluster import KMeans as Other

    class Sub(KMeans):
        pass

    for estimator, reason in (
        (KMeans(), "not fitted"),
        (
            Other(2).fit([[0.0], [1.0]]),
            r"cannot save scikit-learn's KMeans; save mnist_kmeans_mlx\.KMeans\.from_sklearn\(",
        ),
        (OtherBisecting(2), "cannot save scikit-learn's BisectingKMeans; what can be saved: KMe"),
        (Sub(2).fit([[0.0], [1.0]]), "cannot save a Sub"),
        (object(), "cannot save a object"),
    ):
        with pytest.raises(ModelError, match=reason):
            save_model(path, estimator)
    for metadata in ({"f": print}, {"s": {1, 2}}, {"o": np.array([object()])}):
        with pytest.raises(ModelError, match=r"cannot save metadata\.\w"):
            save_model(path, fitted, metadata=metadata)
    assert not path.exists()


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text()
        | st.tuples(st.integers(), st.text()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
        max_leaves=10,
    )
)
def test_metadata_comes_back(fitted, tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    save_model(path, fitted, metadata={"value": value, "$array": value})
    assert load_model(path).metadata == {"value": value, "$array": value}


def test_other_readers_read_it(good, path):
    """The layout is that of the safetensors format: header, JSON, raw little-endian arrays."""
    (length,) = struct.unpack("<Q", good[:8])
    header = json.loads(good[8 : 8 + length])
    assert header["__metadata__"]["format"] == "mnist_kmeans_mlx"
    centers = header["attributes.cluster_centers_"]
    assert (centers["dtype"], centers["shape"]) == ("F64", [3, 5])
    assert length % 8 == 0
    assert centers["data_offsets"][0] % 8 == 0

    from mnist_kmeans_mlx.datasets import load_matrix

    path.write_bytes(good)
    found = load_matrix(path, key="attributes.cluster_centers_")
    path_model = load_model(path)
    assert_array_equal(found, path_model.estimator.cluster_centers_)


# Damage


def rebuilt(good, *, texts=None, header=None, data=None, sign=True):
    """A file with some of its parts replaced, its checksum made right again."""
    old, old_data = taken_apart(good)
    new_texts = {**old.pop("__metadata__"), **(texts or {})}
    new_texts = {key: text for key, text in new_texts.items() if text is not None}
    new_header = {**old, **(header or {})}
    new_data = old_data if data is None else data
    if sign:
        new_texts.pop("sha256", None)
        new_texts["sha256"] = tensors._checksum(new_texts, new_header, new_data)
    return put_together({"__metadata__": new_texts, **new_header}, new_data)


def refused(path, content, match):
    path.write_bytes(content)
    with pytest.raises(ModelError, match=match) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert message.endswith(".")
    assert len(message) < len(str(path)) + 300


def test_rebuilding_as_such_does_no_damage(good, path):
    path.write_bytes(rebuilt(good))
    assert load_model(path).cluster_labels == LABELS


def test_a_file_cut_anywhere_is_refused(good, path):
    for end in [*range(0, 40), *range(40, len(good), 97), len(good) - 1]:
        refused(path, good[:end], "safetensors|damaged")
    refused(path, good + b"\0", "damaged")


def test_a_bit_flipped_anywhere_is_noticed_or_harmless(good, path):
    (length,) = struct.unpack("<Q", good[:8])
    random = np.random.default_rng(1)
    for position in random.choice(len(good), 300, replace=False):
        broken = bytearray(good)
        broken[position] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        try:
            model = load_model(path)
        except ModelError:
            continue
        # White space between two values of the header may change and mean the same.
        assert 8 <= position < 8 + length
        assert model.cluster_labels == LABELS


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "header too small"),
        (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}.", "not a safetensors"),
        (struct.pack("<Q", 2**63) + b"{}", "not a safetensors"),
        (struct.pack("<Q", 2) + b"[]", "invalid"),
        (struct.pack("<Q", 2) + b"{}", "not a model"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "invalid"),
        (struct.pack("<Q", 40000) + b"[" * 40000, "invalid"),
        (struct.pack("<Q", 24) + b'{"__metadata__":{"a":1}}', "invalid"),
    ],
)
def test_foreign_files(path, content, match):
    refused(path, content, match)


def test_somebody_elses_safetensors(path):
    import mlx.core as mx

    mx.save_safetensors(str(path), {"weight": mx.zeros((2, 2))}, {"format": "mlx"})
    refused(path, path.read_bytes(), "not a model of mnist-kmeans-mlx")


def test_a_later_format_asks_for_an_upgrade(good, path):
    refused(path, rebuilt(good, texts={"format_version": "2"}), "upgrade mnist-kmeans-mlx")
    refused(path, rebuilt(good, texts={"format_version": "two"}), "format version")


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ({"class": "Popen"}, "'Popen', which this version does not know"),
        ({"class": None}, "lacks 'class'"),
        ({"parameters": '{"n_clusters": 3, "shell": true}'}, "shell"),
        ({"parameters": f'{{"algorithm": {10**400}}}'}, "must be a str among"),
        ({"parameters": "[]"}, "tables"),
        ({"parameters": "{"}, "damaged"),
        ({"attributes": "{}"}, "cluster_centers_"),
        ({"attributes": '{"__class__": 1}'}, "no fitted attribute"),
        ({"attributes": '{"predict": 1}'}, "no fitted attribute"),
        ({"attributes": '{"a_": {"$array": "nowhere"}}'}, "lacks 'nowhere'"),
        ({"cluster_labels": '{"$items": [[1, [99]]]}'}, "not one of its 3 clusters"),
        ({"cluster_labels": '{"$items": [[1, [-1]]]}'}, "not one of its 3 clusters"),
        ({"cluster_labels": '{"seven": [1]}'}, "not a whole number from 0"),
        ({"cluster_labels": '{"$items": [[-1, [1]]]}'}, "not a whole number from 0"),
        ({"cluster_labels": "[1]"}, "damaged"),
        ({"metadata": "[1]"}, "tables"),
    ],
)
def test_a_forged_header_is_refused(good, path, texts, match):
    refused(path, rebuilt(good, texts=texts), match)


CENTERS = "attributes.cluster_centers_"


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"dtype": "F64", "shape": [3, 5], "data_offsets": [8, 128]}, "or is damaged"),
        ({"dtype": "F64", "shape": [3, 6], "data_offsets": [0, 120]}, "or is damaged"),
        ({"dtype": "F64", "shape": [-3, -5], "data_offsets": [0, 120]}, "or is damaged"),
        ({"dtype": "F64", "shape": [True, 15], "data_offsets": [0, 120]}, "or is damaged"),
        ({"dtype": "F64", "shape": [2**62, 2**62], "data_offsets": [0, 120]}, "or is damaged"),
        ({"dtype": "F64", "shape": [1] * 99, "data_offsets": [0, 120]}, "or is damaged"),
        ({"dtype": "BF16", "shape": [60], "data_offsets": [0, 120]}, "BF16"),
        ({"dtype": "F64", "shape": [15], "data_offsets": [0, 120]}, "not a matrix"),
        ({"dtype": "I64", "shape": [3, 5], "data_offsets": [0, 120]}, "not finite"),
        ({"dtype": "F64", "shape": [5, 3], "data_offsets": [0, 120]}, "features differ"),
        ({"dtype": "F64", "shape": [3, 5]}, "or is damaged"),
        ({"dtype": "F64", "shape": [3, 5], "data_offsets": ["a", "b"]}, "or is damaged"),
        ("F64", "or is damaged"),
        (None, "or is damaged"),
    ],
)
def test_arrays_that_are_not_where_or_what_they_claim(good, path, entry, match):
    refused(path, rebuilt(good, header={CENTERS: entry}), match)


def test_centres_that_are_no_numbers_and_labels_out_of_range(good, path):
    header, data = taken_apart(good)
    for name, number, match in (
        (CENTERS, struct.pack("<d", np.nan), "not finite"),
        ("attributes.labels_", struct.pack("<i", 3), "not one of its 3 clusters"),
    ):
        at = header[name]["data_offsets"][0]
        changed = data[:at] + number + data[at + len(number) :]
        refused(path, rebuilt(good, data=changed), match)


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("inertia_", [1.0], "inertia_ is not a number"),
        ("n_iter_", "7", "n_iter_ is not a number"),
        ("_n_features_out", 10**12, "number of outputs"),
    ],
)
def test_numbers_that_are_none(good, path, name, value, match):
    texts = taken_apart(good)[0]["__metadata__"]
    attributes = json.dumps({**json.loads(texts["attributes"]), name: value})
    refused(path, rebuilt(good, texts={"attributes": attributes}), match)


# Root 0 was split into 1 and 2, and 1 into 3 and 4: leaves are 3, 4 and 2.
TREE = {
    "_node_children": [[1, 2], [3, 4], [-1, -1], [-1, -1], [-1, -1]],
    "_node_labels": [-1, -1, 2, 0, 1],
}


def forged(path, estimator, name, value):
    """A file that is sound but for one attribute."""
    estimator = copy(estimator)
    setattr(estimator, name, value)
    save_model(path, estimator)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_node_children", [[9, 2], *TREE["_node_children"][1:]]),
        ("_node_children", [[1, -7], *TREE["_node_children"][1:]]),
        ("_node_children", [[1, 2], [0, 4], *TREE["_node_children"][2:]]),  # a circle
        ("_node_children", [[1, 2], [1, 3], *TREE["_node_children"][2:]]),
        ("_node_children", [[3, 4], [-1, -1], [-1, -1], [1, 2], [-1, -1]]),  # child first
        ("_node_children", [[1, 2], [3, 3], *TREE["_node_children"][2:]]),
        ("_node_children", [[-1, -1]] * 5),
        ("_node_children", TREE["_node_children"][:3]),
        ("_node_children", np.array(TREE["_node_children"], dtype=float)),
        ("_node_children", None),
        ("_node_labels", [-1, -1, 3, 0, 1]),
        ("_node_labels", [-1, -1, -1, 0, 1]),
        ("_node_labels", [-1, -1, 1, 0, 1]),
        ("_node_labels", TREE["_node_labels"][:4]),
        ("_node_centers", np.zeros((5, 4))),
        ("_node_centers", np.zeros((4, 5))),
        ("_node_centers", np.full((5, 5), np.inf)),
        ("_node_centers", np.zeros((5, 5), dtype=int)),
    ],
)
def test_a_tree_in_which_predict_would_lose_its_way(rows, path, device, name, value):
    fitted = BisectingKMeans(3, device=device).fit(rows)
    for key, array in TREE.items():
        setattr(fitted, key, np.array(array))
    sound = forged(path, fitted, "verbose", 0)
    assert set(load_model(path).estimator.predict(rows)) <= {0, 1, 2}
    value = value if value is None else np.array(value)
    broken = forged(path, fitted, name, value)
    assert broken != sound
    refused(path, broken, "tree of clusters|damaged")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({2: 625}, "random state"),
        ({2: -1}, "random state"),
        ({2: 10**6}, "random state"),
        ({2: 2**40}, "too large"),
        ({0: "PCG64"}, "MT19937"),
        ({1: np.zeros(7, np.uint32)}, "damaged"),
    ],
)
def test_a_random_state_beyond_its_words(rows, path, device, change, match):
    fitted = MiniBatchKMeans(3, random_state=0, device=device).partial_fit(rows)
    save_model(path, fitted)
    back = load_model(path).estimator
    assert_array_equal(
        back.partial_fit(rows[::-1]).cluster_centers_,
        deepcopy(fitted).partial_fit(rows[::-1]).cluster_centers_,
    )
    draws = tuple(change.get(place, part) for place, part in enumerate(fitted._draws))
    refused(path, forged(path, fitted, "_draws", draws), match)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_counts", np.zeros(2)),
        ("_counts", np.array([1.0, -1.0, 1.0])),
        ("_counts", np.array([1.0, np.nan, 1.0])),
        ("_counts", np.ones(3, dtype=int)),
        ("_batch_size", "9"),
        ("_n_since_reassign", None),
        ("n_steps_", "1"),
    ],
)
def test_counts_that_a_batch_could_not_be_added_to(rows, path, device, name, value):
    fitted = MiniBatchKMeans(3, random_state=0, device=device).fit(rows)
    refused(path, forged(path, fitted, name, value), "counts|whole numbers")


def test_a_wrong_checksum_is_damage(good, path):
    refused(path, rebuilt(good, texts={"created": "yesterday"}, sign=False), "checksum")


def test_no_file_a_folder_and_a_pipe(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none")
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        load_model(tmp_path / "pipe")


# Writing


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def fail():
        with write_atomically(target) as file:
            file.write(b"new")
            raise EOFError

    with pytest.raises(EOFError):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


def test_writing_follows_links_and_keeps_permissions(tmp_path):
    target, link = tmp_path / "file", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to("file")
    with write_atomically(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_new_file_has_the_permissions_that_people_expect(tmp_path):
    old = os.umask(0o027)
    try:
        with write_atomically(tmp_path / "file") as file:
            file.write(b"new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_what_is_not_writable_is_named(tmp_path):
    for path in (tmp_path / "no" / "such" / "file", tmp_path, "/dev/null"):
        with pytest.raises(OSError, match=r".") as caught:
            check_writable(path)
        assert caught.value.filename == str(path)
    check_writable(tmp_path / "file")
    assert os.listdir(tmp_path) == []


def test_reading_a_model_needs_no_pickle():
    code = """
import sys
import mnist_kmeans_mlx.persistence as p, inspect
for module in (p, p.tensors):
    assert "pickle" not in vars(module)
assert "mlx" not in sys.modules, "the format needs no MLX"
"""
    run("-c", code)
