#!/usr/bin/env python
"""Pictures of a report for README and site: docs/report-light.png, report-dark.png and draw.png.

    mnist-kmeans-mlx fit -k 20 --n-init 3 --seed 0 --save digits.safetensors --json > digits.json
    mnist-kmeans-mlx report digits.safetensors digits.json sweep/sweep.json compare/compare.json
    python scripts/screenshots.py report.html

These are the commands of docs/cli; sweep.json and compare.json come from those before them.

Takes Chromium and chromedriver, selenium, and Pillow, which matplotlib brings: pictures have few
colours, and a palette makes them small.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import _browser as web
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs"
DRAWN = 3
SCALE = 1.5


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=DOCS)
    arguments = parser.parse_args()
    if web.missing():
        sys.exit(web.missing())
    arguments.out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, web.browser(profile) as driver:
        for name, take in (("report-light", light), ("report-dark", dark), ("draw", drawing)):
            driver.get(arguments.report.resolve().as_uri())
            take(driver)
            save(driver.get_screenshot_as_png(), arguments.out / f"{name}.png")


def light(driver):
    web.scheme(driver, "light")
    web.screen(driver, 1120, 540, scale=SCALE)
    web.show(driver, "top", "end")


def dark(driver):
    web.scheme(driver, "dark")
    web.screen(driver, 1120, 960, scale=SCALE)
    web.draw(driver, *web.DIGITS[DRAWN])
    web.show(driver, "map")


def drawing(driver):
    web.scheme(driver, "dark")
    web.screen(driver, 1120, 760, scale=SCALE)
    web.draw(driver, *web.DIGITS[DRAWN])
    web.show(driver, "draw")


def save(png, path):
    image = Image.open(io.BytesIO(png)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
