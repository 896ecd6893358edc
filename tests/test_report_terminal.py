import io
import re

import numpy as np
import pytest
from rich.console import Console

from mnist_kmeans_mlx import experiment
from mnist_kmeans_mlx.experiment import Data
from mnist_kmeans_mlx.report import listing, terminal
from mnist_kmeans_mlx.report.gallery import Gallery, as_images

ANSI = re.compile(r"\x1b\[([0-9;]*)m")


def render(view, width=80, *, colour=None, encoding="utf-8", height=24, no_color=False):
    """The text of a view; without colour unless a colour system is named."""
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding=encoding, write_through=True) as file:
        console = Console(
            file=file, width=width, height=height, color_system=colour,
            force_terminal=colour is not None, no_color=no_color, legacy_windows=False,
        )  # fmt: skip
        console.print(view)
        return raw.getvalue().decode(encoding)


def images(k, side=28, margin=4):
    found = np.zeros((k, side, side))
    found[:, margin : side - margin, margin : side - margin] = np.linspace(0.2, 1, k)[:, None, None]
    return found


@pytest.fixture(scope="module")
def result(device):
    random = np.random.default_rng(0)
    truth = np.arange(300) % 4
    pixels = random.integers(0, 30, (300, 64))
    pixels[np.arange(300), 20 + 3 * truth] = 255
    pixels = pixels.astype(np.uint8)
    data = Data("mnist", pixels[:200], truth[:200], pixels[200:], truth[200:], unit=255.0)
    return experiment.run(data, n_clusters=3, seed=2, device=device)


@pytest.fixture(scope="module")
def nameless(device):
    rows = np.random.default_rng(0).normal(size=(50, 3))
    return experiment.run(Data("points\x1b[31m.csv", rows), n_clusters=2, seed=0, device=device)


# Tables


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
def test_the_result_fits_the_terminal_and_tells_all(result, width):
    text = render(terminal.result_view(result, width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for part in (
        f"{100 * result.train_accuracy:.2f} % train accuracy",
        f"{100 * result.test_accuracy:.2f} % test accuracy",
        "MNIST · 3 clusters",
        f"Iterations  {result.n_iter}",
        "Seed",
        "fit ",
        "V-measure",
    ):
        assert part in text, part
    (missing,) = result.missing
    assert f"No cluster stands for {missing}: try more clusters." in " ".join(text.split())


def test_no_colour_means_no_escapes(result):
    view = terminal.result_view(result, 80)
    assert "\x1b" not in render(view)
    assert "\x1b" in render(view, colour="truecolor")


def test_a_matrix_lists_its_clusters(nameless):
    text = render(terminal.result_view(nameless, 80))
    assert "accuracy" not in text
    assert "SSE" in text
    for cluster in nameless.clusters:
        assert re.search(rf"^ *{cluster.index} +{cluster.size}$", text, re.MULTILINE)


def test_names_from_files_cannot_drive_the_terminal(nameless):
    text = render(terminal.result_view(nameless, 80), colour="truecolor")
    assert "\x1b[31m" not in text
    assert "points�[31m.csv" in ANSI.sub("", text)


def test_missing_classes_are_listed_in_words(result):
    for missing, words in (((4,), "for 4:"), ((4, 9), "for 4 or 9:"), ((1, 4, 9), "1, 4 or 9:")):
        assert words in render(terminal._missing(missing)[0])
    assert terminal._missing(()) == []


def test_an_evaluation(result):
    evaluation = experiment.Evaluation(result.data, result.train, None, 0.1)
    text = render(terminal.evaluation_view(evaluation, 80))
    assert "train accuracy" in text
    assert "test accuracy" not in text
    assert "Scores · MNIST" in text


def entry(**changes):
    return {
        "date": "2025-11-23T07:40:00+00:00", "n_clusters": 20, "seconds": 28.8, "device": "gpu",
        "train_accuracy": 0.71753, "test_accuracy": None, "machine": "Apple M2", "data": "mnist",
    } | changes  # fmt: skip


def test_the_log_reads_like_the_notebook():
    lines = render(listing.log_view([entry(), entry(n_clusters=15, date="never\x1b[2J")], 100), 100)
    lines = "\n".join(line.rstrip() for line in lines.splitlines())
    assert re.search(r"20 +28\.8 +71\.75 % +– +gpu +Apple M2 +2025-11-2\d$", lines, re.MULTILINE)
    assert "never�[2J" in lines
    assert "points.csv" in render(listing.log_view([entry(), entry(data="points.csv")], 100), 100)
    assert max(map(len, lines.splitlines())) <= 100


@pytest.mark.parametrize("width", [40, 50, 60, 80, 100])
@pytest.mark.parametrize("data", ["mnist", "a/long/path/of/points.csv"])
def test_the_log_keeps_its_numbers_in_a_narrow_terminal(width, data):
    machine = "AMD Ryzen Threadripper PRO 7995WX 96-Cores"
    view = listing.log_view([entry(machine=machine, data=data, test_accuracy=0.7)], width)
    text = render(view, width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for part in ("20", "28.8", "71.75 %", "70.00 %", "gpu", *["2025-11-2"] * (width >= 50)):
        assert part in text


def test_data_and_environment():
    facts = {
        "name": "x.csv", "source": "x.csv", "n_train": 60000, "n_test": 0, "n_features": 784,
        "dtype": "uint8", "class_counts": {"0": 5923},
    }  # fmt: skip
    text = render(listing.data_view(facts))
    assert "60,000 rows" in text
    assert "0: 5,923" in text
    assert "Test" not in text
    assert "1,000 classes" in render(
        listing.data_view(facts | {"class_counts": dict.fromkeys(map(str, range(1000)), 1)})
    )
    assert "mlx" in render(listing.environment_view({"mlx": "0.32.4", "tf32_disabled": True}))


# The gallery


def test_centres_become_images_between_0_and_1():
    found = as_images(np.array([[0.0] * 15 + [255], [0.0] * 16, [-1.0] * 8 + [1.0] * 8]))
    assert found.shape == (3, 4, 4)
    assert found.min() == 0
    assert found.max() == 1
    assert found[0, 3, 3] == 1
    assert not found[1].any()


@pytest.mark.parametrize("n_features", [1, 3, 9, 10, 783])
def test_what_is_no_square_is_no_image(n_features):
    assert as_images(np.ones((2, n_features))) is None


def test_two_pixels_share_a_character_in_their_own_greys():
    image = np.zeros((1, 4, 4))
    image[0, 0] = 1
    image[0, 3] = 1
    text = render(Gallery(image, ["x"]), colour="truecolor")
    first, second, *_ = text.splitlines()
    assert first.count("▀") == second.count("▀") == 4
    assert "38;2;255;255;255;48;2;0;0;0" in first
    assert "38;2;0;0;0;48;2;255;255;255" in second


def test_256_colours_are_greys():
    codes = set(ANSI.findall(render(Gallery(images(3), "abc"), colour="256")))
    greys = {int(n) for code in codes for n in re.findall(r"[34]8;5;(\d+)", code)}
    assert greys
    assert greys <= {16, 59, 102, 145, 188, 231, *range(232, 256)}


@pytest.mark.parametrize("colour", [None, "standard"])
def test_without_greys_shades(colour):
    text = render(Gallery(images(3), "abc"), colour=colour)
    assert "▀" not in text
    assert {"░", "█"} <= set(text)


def test_no_color_is_obeyed():
    text = render(Gallery(images(3), "abc"), colour="truecolor", no_color=True)
    assert "▀" not in text
    assert "38;2" not in text


def test_a_terminal_without_blocks_gets_ascii():
    text = render(Gallery(images(3), "abc"), encoding="ascii")
    assert "#" in text
    assert text.isascii()


@pytest.mark.parametrize("width", [10, 20, 30, 60, 61, 80, 119, 120, 300])
@pytest.mark.parametrize("colour", [None, "truecolor"])
def test_the_gallery_is_as_wide_as_the_terminal(width, colour):
    view = Gallery(images(20), [f"{i} 12,345 100 %" for i in range(20)])
    lines = ANSI.sub("", render(view, width, colour=colour)).splitlines()
    if width >= 20:
        assert max(len(line.rstrip()) for line in lines) <= width
    captions = [len(re.findall(r"12,345", line)) for line in lines]
    assert sum(captions) == 20
    assert max(captions) == max(1, min(20, max(captions)))


def test_a_narrow_terminal_shows_fewer_per_row():
    def per_row(width):
        lines = ANSI.sub("", render(Gallery(images(20), ["caption"] * 20), width)).splitlines()
        return max(line.count("caption") for line in lines)

    assert per_row(60) == 2
    assert per_row(60) < per_row(100) < per_row(200)


def test_many_images_are_drawn_smaller_unless_in_full():
    lines = {
        full: render(Gallery(images(60), ["c"] * 60, full=full), 80, colour="truecolor").count("\n")
        for full in (False, True)
    }
    assert lines[False] < lines[True] / 2


def test_the_blank_border_is_cut():
    text = ANSI.sub("", render(Gallery(images(1, margin=8), ["c"]), colour="truecolor"))
    assert text.splitlines()[0].count("▀") == 12
    assert render(Gallery(np.zeros((1, 28, 28)), ["c"]))


@pytest.mark.parametrize("side", [4, 5, 7, 8, 30, 33])
def test_sides_that_do_not_halve(side):
    for margin in (0, 1):
        text = render(Gallery(images(90, side, margin), ["c"] * 90), 60, colour="truecolor")
        assert text.count("\x1b") > 90


def test_the_gallery_is_sorted_by_digit_and_then_size(result):
    text = ANSI.sub("", render(terminal.gallery_view(result), 200))
    found = re.findall(r"(\d) (\d+) (\d+) %", text)
    expected = sorted(result.clusters, key=lambda c: (c.digit, -c.size))
    assert [(int(d), int(n)) for d, n, _ in found] == [(c.digit, c.size) for c in expected]


def test_only_the_largest_when_there_are_many(result):
    text = render(terminal.gallery_view(result, most=2), 100)
    assert "The 2 largest of 3 clusters" in text
    smallest = min(result.clusters, key=lambda c: c.size)
    shown = {(int(d), int(n)) for d, n, _ in re.findall(r"(\d) (\d+) (\d+) %", text)}
    assert len(shown) <= 2
    assert max(c.size for c in result.clusters) in {size for _, size in shown}
    assert smallest.size <= min(size for _, size in shown)


def test_no_gallery_of_what_is_no_image(nameless):
    assert terminal.gallery_view(nameless) is None
