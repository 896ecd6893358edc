"""The report in a real browser: it keeps to itself, fits a phone, and answers as predict does."""

import base64
import io
import json
import re
import sys
from itertools import pairwise

import numpy as np
import pytest
from commands import ROOT, call
from numpy.testing import assert_array_equal
from pages import EVIL, K

from mnist_kmeans_mlx import KMeans, experiment, save_model
from mnist_kmeans_mlx.persistence import load_model

sys.path.append(str(ROOT / "scripts"))
import _browser as web

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(inputs, device):
    files = [inputs / f"{name}.json" for name in ("run", "sweep", "compare")]
    call("report", inputs / "model.safetensors", *files, "--data", inputs / f"{EVIL}.npz",
         "-o", inputs / "page.html", "--device", device)  # fmt: skip
    return inputs


@pytest.fixture(scope="module")
def model(folder):
    return load_model(folder / "model.safetensors")


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    lacking = web.missing()
    if lacking:
        pytest.skip(lacking)
    with web.browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture
def page(driver, folder):
    """The page, just opened on a desk."""
    return fresh(driver, folder / "page.html")


@pytest.fixture
def whole_page(driver, request):
    """The page that the documents lead to: of fit, compare, sweep and report, one after the other.

    Asked for only now, because it takes long, and there may be no browser.
    """
    return fresh(driver, request.getfixturevalue("walked").folder / "report.html")


def fresh(driver, path):
    web.screen(driver, 1280, 860)
    web.scheme(driver, "light")
    for log in ("browser", "performance"):
        driver.get_log(log)
    driver.get(path.as_uri())
    driver.execute_script("localStorage.clear()")
    return driver


@pytest.fixture(autouse=True)
def no_complaints(driver):
    """Whatever a test does: nothing on the console, and no request but for the page itself."""
    yield
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated")
    ]
    assert urls, "there is a log"
    assert {url.partition(":")[0] for url in urls} <= {"file", "data"}
    assert len({url.partition("#")[0] for url in urls if url.startswith("file:")}) == 1


def pixels_of(driver):
    """What the page says that the model sees."""
    values = driver.execute_script(
        "const seen = document.getElementById('seen');"
        "return Array.from(seen.getContext('2d').getImageData(0, 0, 28, 28).data)"
    )
    image = np.array(values, np.uint8).reshape(28, 28, 4)
    assert_array_equal(image[..., :3].min(axis=2), image[..., :3].max(axis=2))
    return image[..., 0]


def answers(driver):
    """Clusters and distances in the list of the nearest."""
    return driver.execute_script(
        "return [...document.querySelectorAll('#nearest li')].map((item) => ["
        "Number(item.querySelector('a').dataset.cluster), item.querySelector('b').textContent,"
        "Number(item.querySelector('.distance').textContent)])"
    )


# Drawing


@pytest.mark.parametrize("digit", [0, 1, 2, 3, 4, 7])
def test_a_drawing_gets_the_answer_of_predict(page, model, digit):
    draw_and_compare(page, model, digit)


def test_five_digits_drawn_on_the_readmes_page(whole_page, request):
    model = load_model(request.getfixturevalue("walked").folder / "digits.safetensors")
    found = [draw_and_compare(whole_page, model, digit) for digit in (0, 1, 2, 3, 7)]
    assert found[:4] == ["0", "1", "2", "3"], "a 7 may be taken for a 9: it is only K-means"


def draw_and_compare(driver, model, digit):
    """Draw a digit, hold the page's answer against that of `predict`, and return it."""
    web.draw(driver, *web.DIGITS[digit])
    pixels = pixels_of(driver)
    assert pixels.max() == 255
    clusters, labels = experiment.predict(model, pixels.reshape(1, -1))
    distances = model.estimator.transform(pixels.reshape(1, -1))[0] / 255
    order = np.argsort(distances, kind="stable")[:5]
    found = answers(driver)
    assert [cluster for cluster, _, _ in found] == order.tolist()
    assert found[0][0] == clusters[0]
    answer = driver.find_element("id", "digit").text
    assert found[0][1] == answer == str(labels[0])
    assert [length for _, _, length in found] == pytest.approx(distances[order], abs=0.006)
    assert f"Cluster {clusters[0]} is nearest" in driver.find_element("id", "verdict").text
    near = driver.execute_script("return document.querySelector('details.near').id")
    assert near == f"cluster-{clusters[0]}"
    return answer


def ask(driver, pixels):
    """All clusters and squared distances of images, as the page's script computes them."""
    return driver.execute_script(
        "return arguments[0].map((image) => kmeans.nearest(Uint8Array.from(image))"
        ".map((one) => [one.cluster, one.squared]))",
        pixels.reshape(len(pixels), -1).tolist(),
    )


def test_the_script_computes_the_very_distances_of_numpy(page, model, mnist):
    images = mnist.x_test[:100].reshape(100, -1)
    centers = model.estimator.cluster_centers_
    found = ask(page, images)
    for image, pairs in zip(images, found, strict=True):
        squares = np.square(image.astype(float) - centers).sum(axis=1)
        assert [cluster for cluster, _ in pairs] == np.argsort(squares, kind="stable").tolist()
        assert [squared for _, squared in pairs] == np.sort(squares).tolist(), "to the last bit"
    assert [pairs[0][0] for pairs in found] == model.estimator.predict(images).tolist()


def test_cosine(driver, mnist, tmp_path, device):
    x = mnist.x_train[:300].reshape(300, -1)
    estimator = KMeans(7, random_state=0, metric="cosine", device=device).fit(x)
    save_model(tmp_path / "m", estimator, metadata={"unit": 255.0})
    np.save(tmp_path / "x.npy", x)
    call("report", tmp_path / "m", "--data", tmp_path / "x.npy", "-o", tmp_path / "p.html")
    fresh(driver, tmp_path / "p.html")
    images = np.concatenate([mnist.x_test[:50].reshape(50, -1), np.zeros((1, 784), np.uint8)])
    found = ask(driver, images)
    assert [pairs[0][0] for pairs in found] == estimator.predict(images).tolist()
    distances = [[squared / 2 for _, squared in sorted(pairs)] for pairs in found]
    np.testing.assert_allclose(distances, estimator.transform(images), rtol=1e-9, atol=1e-12)
    web.draw(driver, *web.DIGITS[1])
    assert "Cluster" in driver.find_element("id", "verdict").text


def as_mnist(ink):
    """Scale into 20 x 20, centre by mass: another way to write what the page does."""
    spans = [np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0)]
    sizes = [span[-1] - span[0] + 1 for span in spans]
    step = max(sizes) / 20
    # How much of each pixel of the pad lies in each of up to twenty.
    rows, columns = (
        np.diff(np.clip(span[0] + step * np.arange(n + 1)[:, None], here, here + 1), axis=0) / step
        for span, n, here in (
            (span, int(np.ceil(size / step - 1e-9)), np.arange(280))
            for span, size in zip(spans, sizes, strict=True)
        )
    )
    box = rows @ ink @ columns.T
    field = np.zeros((28, 28))
    y, x = (
        int(np.clip(np.floor(14.5 + 1e-9 - box.sum(axis=1 - axis) @ np.arange(n) / box.sum()),
                    0, 28 - n))
        for axis, n in enumerate(box.shape)
    )  # fmt: skip
    field[y : y + len(box), x : x + box.shape[1]] = box
    return 255 * field


def test_drawings_are_scaled_and_centred_as_mnist(page):
    random = np.random.default_rng(0)
    inks = []
    for _ in range(8):
        ink = np.zeros((280, 280))
        for _ in range(3):
            (y, x), (h, w) = random.integers(0, 200, 2), random.integers(1, 80, 2)
            ink[y : y + h, x : x + w] = 1
        inks.append(ink)
    dot, edge, line = np.zeros((3, 280, 280))
    dot[137, 20] = edge[0, :] = edge[:, 279] = line[10:250, 3:9] = 1
    for ink in (*inks, dot, edge, line):
        found = page.execute_script(
            "return Array.from(kmeans.normalise(Uint8Array.from(arguments[0])))",
            ink.astype(int).ravel().tolist(),
        )
        image = np.array(found, float).reshape(28, 28)
        np.testing.assert_allclose(image, as_mnist(ink), atol=0.51)
        for axis in (0, 1):
            share = image.sum(axis=axis) / image.sum()
            used = np.flatnonzero(share)
            at_the_edge = used[0] == 0 or used[-1] == 27
            # As in MNIST, where no image is further off.
            assert abs(share @ np.arange(28) - 14) <= 0.51 or at_the_edge
            assert np.ptp(used) <= 19
        assert max(map(np.ptp, np.nonzero(image))) == 19


def test_the_pad_works_from_the_keyboard(page, model):
    pad = page.find_element("id", "pad")
    web.show(page, "pad", "center")
    up, down, left, back, escape = "\ue013", "\ue015", "\ue012", "\ue003", "\ue00c"
    pad.send_keys(*[up] * 8, " ", *[down] * 16, " ")
    web.settle(page)
    cluster = answers(page)[0][0]
    assert cluster == experiment.predict(model, pixels_of(page).reshape(1, -1))[0][0]
    pad.send_keys(*[left] * 4, " ", up, up)
    web.settle(page)
    two = pixels_of(page)
    pad.send_keys(back)
    web.settle(page)
    assert (pixels_of(page) != two).any()
    pad.send_keys(escape)
    web.settle(page)
    assert not pixels_of(page).any()
    assert answers(page) == []
    assert "Nothing drawn" in page.find_element("id", "verdict").text


def test_undo_and_clear(page):
    web.draw(page, *web.DIGITS[4])
    both = pixels_of(page)
    page.find_element("id", "undo").click()
    web.settle(page)
    one = pixels_of(page)
    assert (one != both).any()
    assert one.any()
    page.find_element("id", "clear").click()
    web.settle(page)
    assert not pixels_of(page).any()
    assert not page.find_element("id", "save").is_enabled()


def test_a_drawing_is_saved_as_numpy_saves(page):
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28)).astype(np.uint8)
    text = page.execute_async_script(
        "const [pixels, done] = arguments; const reader = new FileReader();"
        "reader.onload = () => done(reader.result.split(',')[1]);"
        "reader.readAsDataURL(kmeans.npy(Uint8Array.from(pixels)))",
        image.ravel().tolist(),
    )
    file = base64.b64decode(text)
    expected = io.BytesIO()
    np.save(expected, image)
    assert file == expected.getvalue()


def test_the_drawing_shows_on_the_map(page, model):
    web.draw(page, *web.DIGITS[0])
    pixels = pixels_of(page)
    x, y, chart = page.execute_script(
        "const you = document.getElementById('you'), { map } = kmeans.model;"
        "return [you.getAttribute('x'), you.getAttribute('y'), {...map,"
        " axes: [...map.axes], origin: [...map.origin]}]"
    )
    axes, low, high = np.reshape(chart["axes"], (2, 784)), *np.array([chart["low"], chart["high"]])
    place = 100 * (axes @ (pixels.ravel() - np.array(chart["origin"])) - low) / (high - low)
    assert [float(x[:-1]), float(y[:-1])] == pytest.approx([place[0], 100 - place[1]], abs=1e-6)


# The page


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_screen(page, width):
    check_width(page, width)


def test_the_readmes_page_is_whole_and_fits_a_phone(whole_page):
    sections = whole_page.execute_script(
        "return [...document.querySelectorAll('section')].map((one) => one.id)"
    )
    assert sections == [
        "top", "draw", "clusters", "scores", "map", "against-k", "convergence", "timings", "about",
        "again",
    ]  # fmt: skip
    check_width(whole_page, 375)


def check_width(driver, width):
    """Open all there is to open, and look for what sticks out."""
    web.screen(driver, width, 700, scale=2, mobile=width < 500)
    driver.execute_script("document.querySelectorAll('details').forEach((one) => one.open = true)")
    wide, inner = driver.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert wide <= inner == width
    stick_out = driver.execute_script(
        "return [...document.querySelectorAll('main *')].filter((one) =>"
        " one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, svg'))"
        ".map((one) => one.outerHTML.slice(0, 90))"
    )
    assert stick_out == []


def test_light_and_dark(page):
    def colours():
        return page.execute_script(
            "const one = getComputedStyle(document.body);"
            "return [one.backgroundColor, one.color, one.getPropertyValue('--invert').trim()]"
        )

    light = colours()
    web.scheme(page, "dark")
    dark = colours()
    assert light != dark
    assert (light[2], dark[2]) == ("1", "0")
    page.find_element("id", "theme").click()
    assert colours() == light
    page.refresh()
    assert colours() == light, "it is remembered"
    page.find_element("id", "theme").click()
    assert colours() == dark


def contrast(*colours):
    """Of two colours as CSS computes them: rgb(1, 2, 3) or color(srgb 0.1 0.2 0.3)."""

    def luminance(text):
        numbers = np.array([float(part) for part in re.findall(r"[\d.]+", text)])
        channels = numbers if text.startswith("color") else numbers / 255
        linear = np.where(
            channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
        )
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("preferred", ["light", "dark"])
def test_text_stands_out(page, preferred):
    web.scheme(page, preferred)
    names = ["paper", "card", "ink", "dim", "hot", "cool", *(f"d{i}" for i in range(10))]
    colours = page.execute_script(
        "const probe = document.body.appendChild(document.createElement('i'));"
        "return Object.fromEntries(arguments[0].map((name) => {"
        " probe.style.color = `var(--${name})`; return [name, getComputedStyle(probe).color]; }))",
        names,
    )
    for name in names[2:]:
        for ground in ("paper", "card"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    cells = page.execute_script(
        "const cell = document.querySelector('.confusion tbody td'); const found = [];"
        "for (const right of ['', ' right']) for (let level = 1; level <= 10; level++) {"
        " cell.className = `l${level}${right}`; const one = getComputedStyle(cell);"
        " found.push([cell.className, one.color, one.backgroundColor]); } return found"
    )
    for name, ink, ground in cells:
        assert contrast(ink, ground) >= 4.5, name


def test_a_command_is_not_broken_within_a_word(page):
    web.screen(page, 375, 700)
    heights = page.execute_script(
        "return [...document.querySelectorAll('.commands code span')]"
        ".filter((one) => one.textContent.length < 30)"
        ".map((one) => [one.textContent, one.getClientRects().length, one.offsetHeight])"
    )
    lines = {height for _, _, height in heights}
    assert len(lines) == 1, heights


def test_what_a_digit_has_stands_on_two_lines(page):
    heights = page.execute_script(
        "return [...document.querySelectorAll('.family h3 .note')].map((one) => {"
        " one.lastChild.data = '12,345 images';"
        " return one.offsetHeight / parseFloat(getComputedStyle(one).lineHeight); })"
    )
    assert heights
    assert max(heights) < 2.2


def test_everything_has_a_name(page):
    nameless = page.execute_script(
        "return [...document.querySelectorAll('button, canvas, a, summary, [role=img]')].filter("
        "(one) => one.checkVisibility() && !(one.getAttribute('aria-label')"
        " || one.textContent.trim())).map((one) => one.outerHTML.slice(0, 90))"
    )
    assert nameless == []
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4, h5')].map((one) => +one.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_html_in_a_name_is_text(page):
    assert page.title.startswith(EVIL)
    assert page.find_element("tag name", "h1").text == f"{EVIL} in {K} clusters"
    assert page.execute_script("return document.querySelectorAll('img[src=x]').length") == 0


def test_a_cluster_opens_and_shows_its_members(page):
    web.draw(page, *web.DIGITS[0])
    cluster = answers(page)[0][0]
    page.execute_script("document.querySelector('#nearest a').click()")
    tile = page.find_element("id", f"cluster-{cluster}")
    assert tile.get_property("open")
    page.find_element("css selector", f"#cluster-{cluster} .inside .strip img")
    headings = page.execute_script(
        "return [...arguments[0].querySelectorAll('h5')].map((one) => one.firstChild.data.trim())",
        tile,
    )
    assert headings[:2] == ["Nearest", "Typical"]
    broken = page.execute_script(
        "return Promise.all([...document.images].filter((one) => !one.closest('template'))"
        ".map((one) => (one.loading = 'eager', one.decode().then(() => 0, () => 1))))"
        ".then((all) => all.reduce((a, b) => a + b, 0))"
    )
    assert broken == 0


def test_it_can_be_read_without_its_script(driver, folder):
    from selenium.webdriver.common.action_chains import ActionChains

    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get((folder / "page.html").as_uri())
        assert "Drawing needs JavaScript" in driver.find_element("id", "draw").text
        summary = driver.find_element("css selector", "#clusters summary")
        # With the wheel, for the driver scrolls by script.
        ActionChains(driver).scroll_by_amount(0, summary.location["y"] - 300).pause(0.2).perform()
        summary.click()
        assert driver.find_element("css selector", "#clusters details[open] .strip").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
