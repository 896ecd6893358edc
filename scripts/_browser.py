"""A headless Chromium, and a hand that draws on a report's pad."""

import math
import shutil
import subprocess
import time
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def missing():
    """What a browser test lacks here, or nothing."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed"
    if not shutil.which("chromedriver"):
        return "chromedriver is not installed"
    # On Ubuntu the command may be there to say that there is none.
    found = _chromium()
    runs = found and subprocess.run([found, "--version"], capture_output=True).returncode == 0
    return "" if runs else "no Chromium is installed"


def _chromium():
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def browser(folder):
    """Start a browser that keeps its profile in a folder, which must be fresh."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _chromium()
    for flag in (*FLAGS, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def screen(driver, width, height, *, scale=1, mobile=False):
    """Give the page a screen of this size."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def scheme(driver, value):
    """Prefer light or dark."""
    features = [{"name": "prefers-color-scheme", "value": value}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def show(driver, name, block="start"):
    """Scroll to an element, at once."""
    driver.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.getElementById(arguments[0]).scrollIntoView({block: arguments[1]})",
        name, block,
    )  # fmt: skip
    settle(driver)


def settle(driver):
    """Wait until the page has drawn what it was told."""
    driver.execute_async_script(
        "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done))"
    )


def draw(driver, *strokes):
    """Clear the pad and draw strokes, given as points between 0 and 280, with the mouse."""
    from selenium.webdriver.common.action_chains import ActionChains

    show(driver, "pad", "center")
    driver.execute_script("document.getElementById('clear').click()")
    pad = driver.find_element("id", "pad")
    width = driver.execute_script("return arguments[0].clientWidth", pad)
    for stroke in strokes:
        hand = ActionChains(driver, duration=0)
        first, *rest = [[round((value - 140) * width / 280) for value in at] for at in stroke]
        hand.move_to_element_with_offset(pad, *first).click_and_hold()
        for at in rest:
            hand.move_to_element_with_offset(pad, *at)
        hand.release().perform()
    # What lies under the pointer would look chosen.
    driver.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
    settle(driver)
    time.sleep(0.05)
    settle(driver)


def arc(x, y, width, height, start, end, steps=16):
    """Points of a part of an ellipse, angles in degrees, clockwise from the right."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + width * math.cos(a), y + height * math.sin(a)) for a in angles]


DIGITS = {
    0: [arc(140, 140, 62, 92, -90, 270, 32)],
    1: [[(140, 40), (140, 140), (140, 240)]],
    2: [[*arc(140, 98, 55, 52, -170, 40), (95, 230), (205, 230)]],
    3: [[*arc(132, 92, 50, 44, -150, 90), *arc(132, 188, 56, 52, -90, 150)]],
    4: [[(112, 45), (85, 140), (190, 140)], [(178, 60), (165, 235)]],
    7: [[(80, 55), (200, 55), (125, 240)]],
}
