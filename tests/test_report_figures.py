import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from commands import call, complaint
from pages import EVIL

from mnist_kmeans_mlx.report.canvas import settings
from mnist_kmeans_mlx.report.charts import against_k as charts_on_page
from mnist_kmeans_mlx.report.charts import charts_of
from mnist_kmeans_mlx.report.figures import _figures, _map, against_k, save_figures
from mnist_kmeans_mlx.report.material import gather

pytest.importorskip("matplotlib")

NAMES = {
    "accuracy-per-digit", "against-k", "centroids", "confusion", "convergence", "map", "timings",
}  # fmt: skip


@pytest.fixture(scope="module")
def material(inputs, device):
    files = [inputs / name for name in ("model.safetensors", "run.json", "sweep.json")]
    files.append(inputs / "compare.json")
    return gather(list(map(str, files)), data=str(inputs / f"{EVIL}.npz"), device=device)


@pytest.fixture(scope="module")
def saved(material, tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures") / "new"
    return folder, save_figures(material, folder)


@pytest.fixture(scope="module")
def figures(material):
    with settings():
        return dict(_figures(material))


@pytest.mark.slow
def test_every_figure_as_png_and_svg(saved):
    folder, written = saved
    assert {path.name for path in folder.iterdir()} == {path.name for path in written}
    assert {path.name for path in written} == {
        f"{n}.{kind}" for n in NAMES for kind in ("png", "svg")
    }
    for path in written:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")
        else:
            assert ET.parse(path).getroot().tag.endswith("svg")


@pytest.mark.slow
def test_the_same_figure_is_the_same_file(saved, material, tmp_path):
    for path in save_figures(material, tmp_path):
        assert path.read_bytes() == (saved[0] / path.name).read_bytes(), path.name


def test_axes_have_labels_with_units(figures):
    for name, figure in figures.items():
        if name == "centroids":
            continue
        for axis in figure.axes:
            if axis.get_label() == "<colorbar>" or not axis.axison:
                continue
            assert axis.get_xlabel(), name
            assert axis.get_ylabel() or axis.get_yticklabels(), name
    assert "%" in figures["accuracy-per-digit"].axes[0].get_ylabel()
    assert "seconds" in figures["timings"].axes[0].get_xlabel()
    assert "pixels / 255 (" in figures["map"].axes[0].get_xlabel()


@pytest.mark.parametrize("silhouette", [None, {"low": 0.1, "median": 0.1, "high": 0.1}])
def test_curves_fill_their_figure(material, silhouette):
    sweep = material.sweeps[0]
    curve = [{**point, "silhouette": silhouette} for point in sweep["curve"]]
    with settings():
        accuracy, *_, seconds = axes = against_k({**sweep, "curve": curve}).axes
    places = [axis.get_subplotspec() for axis in axes]
    rows, columns = places[0].get_gridspec().get_geometry()
    assert sum(len(place.colspan) for place in places) == rows * columns
    assert "%" in accuracy.get_ylabel()
    assert 1 < max(accuracy.get_lines()[0].get_ydata()) <= 100
    assert seconds.get_ylim()[0] == 0


def test_page_and_figure_draw_the_same(figures, material):
    charts = charts_of(material.sweeps[0])
    for chart, axis in zip(charts, figures["against-k"].axes, strict=True):
        lines = axis.get_lines()[: len(chart.series)]
        assert [list(map(tuple, line.get_xydata())) for line in lines] == [
            list(series.points) for series in chart.series
        ]
    page = str(charts_on_page(material))
    for chart in charts:
        ends = [f"{chart.x.place(x):.2f},{100 - chart.y.place(y):.2f}"
                for x, y in chart.series[0].points]  # fmt: skip
        assert f'points="{" ".join(ends)}"' in page


def test_a_logarithmic_axis_has_numbers_to_read(material):
    sweep = material.sweeps[0]
    spreads = [dict.fromkeys(("low", "median", "high"), sse) for sse in (9e4, 2e4, 4e3)]
    curve = [{**p, "inertia": sse} for p, sse in zip(sweep["curve"], spreads, strict=True)]
    with settings():
        figure = against_k({**sweep, "curve": curve})
        figure.draw_without_rendering()
    axis = figure.axes[1]
    low, high = axis.get_ylim()
    assert axis.get_yscale() == "log"
    texts = [
        text.get_text() for text in axis.get_yticklabels() if low <= text.get_position()[1] <= high
    ]
    assert texts == ["2 k", "5 k", "10 k", "20 k", "50 k", "100 k"]


def test_the_bars_are_the_accuracies(figures, material):
    test = material.scores("test")["per_class_accuracy"]
    heights = [bar.get_height() for bar in figures["accuracy-per-digit"].axes[0].containers[1]]
    assert heights == pytest.approx([100 * share for share in test.values()])


def test_a_map_says_whether_its_rows_have_labels(figures, material):
    assert "(their labels)" in figures["map"].axes[0].get_title(loc="left")
    portrait = material.portrait
    bare = replace(portrait, map=replace(portrait.map, labels=None))
    with settings():
        title = _map(bare).axes[0].get_title(loc="left")
    assert title == "Sampled rows and all centroids"


def test_what_cannot_run_is_named(figures):
    axis = figures["timings"].axes[0]
    (said,) = (text for text in axis.texts if "cannot run: no GPU" in text.get_text())
    bottom, _ = axis.get_ylim()
    assert said.get_position()[1] - bottom > 0.5, "clear of the axis"


def test_series_differ_in_grey(figures):
    """By lightness, and by hatch, dash or marker as well."""
    from matplotlib.colors import to_rgb

    def grey(colour):
        return np.dot(to_rgb(colour), [0.299, 0.587, 0.114])

    for name in ("accuracy-per-digit", "timings"):
        shades = {bar.get_hatch(): bar.get_facecolor()[:3] for bar in figures[name].axes[0].patches}
        assert len(shades) == 2
        assert abs(np.subtract(*map(grey, shades.values()))) > 0.2
    for name in ("against-k", "convergence"):
        lines = figures[name].axes[0].get_lines()
        assert abs(grey(lines[0].get_color()) - grey(lines[1].get_color())) > 0.2
        assert lines[0].get_linestyle() != lines[1].get_linestyle()


def test_without_matplotlib_it_says_how_to_get_it(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = ("report", inputs / "run.json", "-o", tmp_path / "p.html")
    said = complaint(call(*words, "--figures", tmp_path / "figures", code=1))
    assert "pip install 'mnist-kmeans-mlx[plot]'" in said
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    assert json.loads(call(*words, "--json").stdout) == {"file": str(words[-1]), "figures": []}


@pytest.mark.slow
def test_what_was_written_as_json(inputs, tmp_path):
    words = ("report", inputs / "sweep.json", "-o", tmp_path / "p.html", "--figures", tmp_path)
    said = json.loads(call(*words, "--json").stdout)
    assert said["file"] == str(tmp_path / "p.html")
    assert said["figures"] == [str(tmp_path / f"against-k.{kind}") for kind in ("png", "svg")]


def test_settings_are_as_they_were(material):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with settings():
        next(_figures(material))
    assert dict(matplotlib.rcParams) == before
