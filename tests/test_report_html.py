import base64
import hashlib
import json
import re
import shlex
import zlib

import numpy as np
import pytest
from commands import call, complaint
from numpy.testing import assert_array_equal
from pages import EVIL, K, Page, a_comparison, a_sweep

from mnist_kmeans_mlx import KMeans, save_model
from mnist_kmeans_mlx.persistence import Model, load_model
from mnist_kmeans_mlx.report.axes import ticks
from mnist_kmeans_mlx.report.markup import png, tag
from mnist_kmeans_mlx.report.material import _data_of


@pytest.fixture(scope="module")
def write(inputs, device, tmp_path_factory):
    """Make a page of some inputs, and take it apart."""
    folder = tmp_path_factory.mktemp("pages")

    def make(*names, words=()):
        path = folder / "page.html"
        files = [inputs / name for name in names]
        if any(name.endswith(".safetensors") for name in names) and "--data" not in words:
            words = ("--data", inputs / f"{EVIL}.npz", *words)
        call("report", *files, "-o", path, "--device", device, *words)
        return Page(path.read_text(encoding="utf-8"))

    return make


@pytest.fixture(scope="module")
def page(write):
    return write("model.safetensors", "run.json", "sweep.json", "compare.json")


def anchors(page):
    return [attributes["id"] for attributes in page.all("section")]


# One file


def test_it_loads_nothing(page):
    for name, attributes in page.tags:
        assert not [key for key in attributes if key.startswith("on")], name
        assert "style" not in attributes, "the policy would ignore it"
        for key in ("src", "href", "xlink:href", "srcset", "action", "data"):
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:image/png;base64,")), (name, value[:50])
    assert {name for name, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "base", "form"})
    for _, body in page.bodies["style"]:
        assert "@import" not in body
        assert not re.findall(r"url\((?!#)", body)


def test_the_policy_allows_what_is_there_and_nothing_else(page):
    (policy,) = [a["content"] for a in page.all("meta") if a.get("http-equiv")]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules.keys() == {
        "default-src", "style-src", "script-src", "img-src", "base-uri", "form-action"
    }  # fmt: skip
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == "data:"
    (style,) = page.bodies["style"]
    (data, model), (attributes, script) = page.bodies["script"]
    assert data["type"] == "application/json"
    assert json.loads(model)
    assert attributes == {}
    for name, body in (("style-src", style[1]), ("script-src", script)):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"


def test_names_are_text(page):
    assert len(page.bodies["script"]) == 2
    assert page.text.count(EVIL) >= 7
    assert page.text.startswith(f"{EVIL} in {K} clusters"), "the title"
    assert not [a for a in page.all("img") if "onerror" in a]


def test_every_section_is_there(page):
    assert anchors(page) == [
        "top", "draw", "clusters", "scores", "map", "against-k", "convergence", "timings", "about",
        "again",
    ]  # fmt: skip
    links = [a["href"].removeprefix("#") for a in page.all("a") if "href" in a]
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(links) <= set(ids)
    assert all(a.get("alt") is not None for a in page.all("img"))


def test_the_same_material_gives_the_same_page(inputs, tmp_path, device):
    words = ("report", inputs / "model.safetensors", "--data", inputs / f"{EVIL}.npz", "-o")
    pages = []
    for _ in range(2):
        call(*words, tmp_path / "p.html", "--device", device)
        pages.append((tmp_path / "p.html").read_bytes())
    assert pages[0] == pages[1]


# What it shows


def test_the_numbers_are_those_of_the_fit(page, inputs):
    run = json.loads((inputs / "run.json").read_text())
    for accuracy in (run["train_accuracy"], run["test_accuracy"]):
        assert f"{100 * accuracy:.2f} %" in page.text
    for cluster in run["clusters"]:
        tile = next(a for a in page.all("details") if a.get("id") == f"cluster-{cluster['index']}")
        assert tile["name"] == "cluster"
        assert f"{cluster['size']:,}" in page.text
    for part in ("train", "test"):
        for row in run["scores"][part]["confusion"]:
            assert f"{row[3]:,} of {sum(row):,} images" in str(page.tags)
    assert "its SSE is off" not in page.text, "failures are those of the comparison"
    assert f"K = 20: {EVIL}" in page.text
    assert "cannot run: no GPU" in page.text
    assert "quoted from the notebook" in page.text
    assert "K = 20: of this K" in page.text
    assert "2 restarts" in page.text


def test_the_commands_make_it_again(page, inputs):
    text = page.text
    assert f"fit --data {shlex.quote(str(inputs / f'{EVIL}.npz'))} --clusters {K}" in text
    assert f"--save {inputs / 'model.safetensors'} --json > {inputs / 'run.json'}" in text
    assert f"sweep -k 10,20,64 {EVIL} --json > {inputs / 'sweep.json'}" in text
    assert "mnist-kmeans-mlx report" in text


def test_the_page_holds_the_very_centres(page, inputs):
    found = json.loads(page.bodies["script"][0][1])
    estimator = load_model(inputs / "model.safetensors").estimator
    centers = np.frombuffer(base64.b64decode(found["centers"]), "<f8").reshape(K, 784)
    assert_array_equal(centers, estimator.cluster_centers_)
    assert (found["unit"], found["white"], found["metric"]) == (255, 255, "euclidean")


def test_a_model_alone(write, inputs):
    page = write("model.safetensors")
    assert anchors(page) == ["top", "draw", "clusters", "scores", "map", "about", "again"]
    assert "Machine and versions" in page.text
    assert f"--save {inputs / 'model.safetensors'}Make this page" in page.text


def test_json_alone(write):
    page = write("run.json")
    assert anchors(page) == ["top", "clusters", "scores", "convergence", "about", "again"]
    assert "application/json" not in str(page.tags)
    page = write("compare.json", "sweep.json")
    assert anchors(page) == ["top", "against-k", "timings", "about", "again"]
    assert "bends most at K = 20" in page.text


def test_several_fits_make_a_curve(inputs, tmp_path, device):
    run = json.loads((inputs / "run.json").read_text())
    for k in (5, 9):
        other = {**run, "n_clusters": k, "inertia": 1e6 / k, "history": []}
        (tmp_path / f"{k}.json").write_text(json.dumps(other))
    call("report", inputs / "run.json", tmp_path / "5.json", tmp_path / "9.json",
         "-o", tmp_path / "p.html")  # fmt: skip
    assert "against-k" in anchors(Page((tmp_path / "p.html").read_text()))


def test_a_run_of_another_model_is_not_taken_for_this_one(write, inputs):
    run = json.loads((inputs / "run.json").read_text())
    (inputs / "other.json").write_text(json.dumps({**run, "inertia": 1.0}))
    assert "to fit" in write("model.safetensors", "run.json").text
    page = write("model.safetensors", "other.json")
    assert "to fit" not in page.text
    assert "Fit again" in page.text


def test_without_its_data_a_model_shows_its_centroids(write):
    page = write("model.safetensors", words=("--data", "auto"))
    assert anchors(page) == ["top", "draw", "clusters", "about", "again"]
    assert "name it with --data" in page.text


def test_of_very_many_clusters_the_largest_are_shown(write, inputs, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.report.clusters.MOST", 5)
    monkeypatch.setattr("mnist_kmeans_mlx.report.clusters.DRAWN_BYTES", 1000)
    page = write("model.safetensors")
    run = json.loads((inputs / "run.json").read_text())
    largest = sorted(run["clusters"], key=lambda cluster: -cluster["size"])[:5]
    tiles = {a["id"] for a in page.all("details") if a.get("name") == "cluster"}
    assert tiles == {f"cluster-{cluster['index']}" for cluster in largest}
    assert "These are the 5 largest of 12." in page.text
    assert {a["href"][1:] for a in page.all("a") if a.get("href", "#").startswith("#cl")} == {
        *tiles, "clusters"
    }  # fmt: skip
    assert "draw" not in anchors(page)
    assert "script" in page.bodies


@pytest.mark.parametrize("white", [1, 255])
def test_a_model_from_python_finds_its_data(mnist, tmp_path, device, white):
    x = mnist.x_train.reshape(-1, 784) / np.float32(white)
    model = KMeans(4, random_state=0, max_iter=1, device=device).fit(x)
    found, note = _data_of(load_model(save_model(tmp_path / "m", model)), "auto")
    assert found.name == "mnist"
    assert found.train.max() * white == 255
    assert found.test.max() * white == 255
    assert not note
    model.labels_ = model.labels_[::-1]
    assert "not at hand" in _data_of(Model(model), "auto")[1]


def test_cosine(mnist, tmp_path, device):
    x = mnist.x_train[:300].reshape(-1, 784)
    model = KMeans(4, random_state=0, metric="cosine", device=device).fit(x)
    np.save(tmp_path / "x.npy", x)
    save_model(tmp_path / "m", model)
    call("report", tmp_path / "m", "--data", tmp_path / "x.npy", "-o", tmp_path / "p.html")
    page = Page((tmp_path / "p.html").read_text())
    assert "1 − cos" in page.text
    assert "Machine that made this page" in page.text, "for it is not known where it was fitted"
    assert json.loads(page.bodies["script"][0][1])["metric"] == "cosine"


def test_a_matrix_that_is_no_image(tmp_path, device):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    np.save(tmp_path / "x.npy", rows)
    words = ("--data", tmp_path / "x.npy", "--device", device)
    call("fit", "-k", 3, *words, "--save", tmp_path / "m", "--no-log", "--seed", 0)
    call("report", tmp_path / "m", *words, "-o", tmp_path / "p.html")
    page = Page((tmp_path / "p.html").read_text())
    assert anchors(page) == ["top", "clusters", "map", "about", "again"]
    assert "x.npy in 3 clusters" in page.text
    assert "How large the clusters are" in page.text
    assert "picture" not in page.text
    assert "images" not in (tmp_path / "p.html").read_text().partition("<main")[2]


# What goes wrong


def test_rows_that_memory_does_not_hold_are_refused(tmp_path, device, monkeypatch):
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    data = ("--data", tmp_path / "x.npy")
    call("fit", *data, "-k", 3, "--device", device, "--save", tmp_path / "m", "--no-log")
    monkeypatch.setattr("mnist_kmeans_mlx.memory.free_bytes", lambda: 1)
    said = complaint(call("report", tmp_path / "m", *data, "-o", tmp_path / "p.html", code=1))
    assert "x.npy is larger than half of the free memory" in said
    assert "without --data the report shows the model alone" in said
    call("report", tmp_path / "m", "-o", tmp_path / "p.html")


def broken():
    run = {"clusters": [], "inertia": 1}
    comparison, sweep = a_comparison({"name": "x"}), a_sweep({"name": "x"})
    yield "cut short", '{"clusters": [', "cut short"
    yield "empty", "", "not JSON"
    yield "binary", b"\xff\xfe\x00", "not JSON"
    yield "deep", "[" * 100_000, "not JSON"
    yield "nan", '{"clusters": [], "inertia": NaN}', "NaN"
    yield "list", "[1, 2]", "not what fit, sweep or compare prints"
    yield "number", "3", "not what fit, sweep or compare prints"
    yield "other", '{"a": 1}', "not what fit, sweep or compare prints"
    yield "lacks", json.dumps(run), "it lacks 'n_clusters'"
    yield "bare sweep", '{"kind": "sweep"}', "it lacks 'curve'"
    yield "text for number", json.dumps({**run, "n_clusters": "20"}), "n_clusters is not a whole"
    yield "null row", json.dumps(
        {**comparison, "cases": [{"n_clusters": 2, "rows": [None]}]}
    ), "cases.0.rows.0 is not a table"  # fmt: skip
    yield "huge", json.dumps(comparison).replace("5.0", "1e400"), "not a number"
    yield "curve", json.dumps({**sweep, "curve": 5}), "curve is not a list"


@pytest.mark.parametrize(("text", "reason"), [pytest.param(*b[1:], id=b[0]) for b in broken()])
def test_broken_json_is_one_sentence(tmp_path, text, reason):
    path, page = tmp_path / "broken.json", tmp_path / "page.html"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    page.write_text("old")
    said = complaint(call("report", path, "-o", page, code=1))
    assert said.startswith(f"Error: {path} is ")
    assert reason in said
    assert page.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken.json", "page.html"]


def test_a_confusion_matrix_must_be_square(inputs, tmp_path):
    run = json.loads((inputs / "run.json").read_text())
    run["scores"]["test"]["confusion"].pop()
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "confusion is not" in call("report", tmp_path / "run.json", code=1).stderr


def test_mistakes_are_one_sentence(inputs, tmp_path):
    model, foreign = inputs / "model.safetensors", tmp_path / "foreign"
    foreign.write_bytes(b"\x80\x04}.")
    again = tmp_path / "again"
    again.write_bytes(model.read_bytes())
    np.save(tmp_path / "x.npy", np.eye(5))
    for words, reason in (
        ((model, again), "one model"),
        ((foreign,), "not a safetensors file"),
        ((model, "--data", "bundled"), "was not fitted on mnist"),
        ((model, "--data", tmp_path / "x.npy"), "has 5 columns, the model needs 784"),
        ((model, "-o", tmp_path / "no" / "page.html"), "No such file or directory"),
    ):
        options = () if "-o" in words else ("-o", tmp_path / "page.html")
        assert reason in complaint(call("report", *words, *options, code=1))
    assert not (tmp_path / "page.html").exists()
    assert "Missing argument" in call("report", code=2).stderr
    before = model.read_bytes()
    assert "written over" in call("report", model, "-o", model, code=2).stderr
    assert model.read_bytes() == before


# Small parts


def test_an_image_is_a_png_with_its_ink_as_opacity():
    image = np.arange(12).reshape(3, 4) / 11
    data = base64.b64decode(png(image).partition(",")[2])
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    length = int.from_bytes(data[33:37], "big")
    lines = np.frombuffer(zlib.decompress(data[41 : 41 + length]), np.uint8).reshape(3, 9)
    assert_array_equal(lines[:, 2::2], np.rint(255 * image))
    assert (lines[:, 1::2] == 255).all()


def test_a_png_is_one_that_others_read():
    read = pytest.importorskip("matplotlib.image").imread
    import io

    image = np.random.default_rng(0).random((5, 7))
    pixels = read(io.BytesIO(base64.b64decode(png(image).partition(",")[2])))
    np.testing.assert_allclose(pixels[..., 3], image, atol=0.003)


def test_a_number_keeps_its_percent_sign(page):
    assert "�" not in page.text
    assert any("\N{NO-BREAK SPACE}% of the variance" in words for words in page.words)


def test_attributes_are_escaped():
    assert tag("a", href='"><script>') == '<a href="&quot;&gt;&lt;script&gt;"></a>'
    assert tag("p", "\x00\ud800") == "<p>��</p>"


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (5, 5), (0, 0), (-3, 8), (1e-9, 2e-9), (1.4e6, 2.4e6)]
)
def test_ticks_are_few_and_hold_what_is_shown(low, high):
    found = ticks(low, high)
    assert found[0] <= low <= high <= found[-1]
    assert 2 <= len(found) <= 8
