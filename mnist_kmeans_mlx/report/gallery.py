"""Centroids drawn in a terminal: half blocks in grey, or shades where there is no colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from math import isqrt
from typing import Any

import numpy as np
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

Array = np.ndarray[Any, Any]

_SHADES = " ░▒▓█"
_ASCII_SHADES = " .:*#"
_GAP = 2
# A caption such as "9 12,345 100 %" has to fit below the smallest image.
_NARROWEST = 14
# Images are halved if the gallery would be longer than this and than the screen. Shades stay
# large longer, because small ones cannot be read.
_LINES = 80
_LINES_OF_SHADES = 200
# A border is blank if no image has more ink than this there.
_BLANK = 0.15


def as_images(centers: Array) -> Array | None:
    """Reshape centres to square images, each scaled to lie between 0 and 1.

    None where the number of features is no square of at least 4 x 4 pixels.
    """
    side = isqrt(centers.shape[1])
    if side < 4 or side * side != centers.shape[1]:
        return None
    images = centers.astype(np.float64)
    images -= np.minimum(0.0, images.min(axis=1, keepdims=True))
    images /= np.maximum(images.max(axis=1, keepdims=True), np.finfo(float).tiny)
    return images.reshape(-1, side, side)


class Gallery:
    """Rows of captioned images, as many side by side as the terminal is wide.

    Parameters
    ----------
    images : ndarray of shape (k, height, width)
        Ink between 0 and 1, drawn bright on dark as in MNIST.
    captions : sequence of str or Text
        One for each image; longer than the image is wide, it is cut.
    full : bool
        Draw every pixel, however long the gallery becomes.
    """

    def __init__(
        self, images: Array, captions: Sequence[str | Text], *, full: bool = False
    ) -> None:
        self.images = _trimmed(images)
        self.captions = captions
        self.full = full

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield line after line."""
        images = self.images
        if _has_greys(console):
            paint, most = _half_blocks, _LINES
        else:
            shades = _SHADES if options.encoding.startswith("utf") else _ASCII_SHADES
            paint, most = _shader(shades), _LINES_OF_SHADES
        if not self.full and _lines(images, options.max_width) > max(most, options.size.height):
            images = _halved(images)
        width = max(images.shape[2], _NARROWEST)
        left = (width - images.shape[2]) // 2
        per_row = _per_row(images, options.max_width)
        for start in range(0, len(images), per_row):
            tiles = [paint(image) for image in images[start : start + per_row]]
            for cells in zip(*tiles, strict=True):
                for cell in cells:
                    yield Segment(" " * left)
                    yield from cell
                    yield Segment(" " * (width - left - images.shape[2] + _GAP))
                yield Segment.line()
            for caption in self.captions[start : start + per_row]:
                text = caption.copy() if isinstance(caption, Text) else Text(caption)
                text.truncate(width)
                text.align("center", width)
                yield from text.render(console, end=" " * _GAP)
            yield Segment.line()
            if start + per_row < len(images):
                yield Segment.line()


def _has_greys(console: Console) -> bool:
    colourful = console.color_system in ("truecolor", "256")
    return colourful and not console.no_color and console.encoding.startswith("utf")


def _per_row(images: Array, width: int) -> int:
    tile: int = max(images.shape[2], _NARROWEST) + _GAP
    return max(1, (width + _GAP) // tile)


def _lines(images: Array, width: int) -> int:
    height: int = images.shape[1] // 2 + 2
    return -(-len(images) // _per_row(images, width)) * height


def _trimmed(images: Array) -> Array:
    """Cut the border that is blank in every image; heights and widths stay multiples of four."""
    ink = images.max(axis=0, initial=0) > _BLANK
    for axis in (0, 1):
        used = np.flatnonzero(ink.any(axis=1 - axis))
        size = images.shape[1 + axis]
        first, last = (used[0], used[-1] + 1) if len(used) else (0, size)
        wanted = -(-(last - first) // 4) * 4
        first = int(np.clip((first + last - wanted) // 2, 0, max(0, size - wanted)))
        images = np.take(images, range(first, min(size, first + wanted)), axis=1 + axis)
        missing = wanted - images.shape[1 + axis]
        if missing > 0:  # a side that four does not divide
            pad = [(0, 0), (0, 0), (0, 0)]
            pad[1 + axis] = (0, missing)
            images = np.pad(images, pad)
    return images


def _halved(images: Array) -> Array:
    k, height, width = images.shape
    halved: Array = images.reshape(k, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    return halved


def _half_blocks(image: Array) -> Iterable[list[Segment]]:
    """Two pixels to a character: the upper one its ink, the lower one its paper."""
    greys = np.rint(np.clip(image, 0, 1) * 51).astype(int) * 5
    return [
        [Segment("▀", _style(int(top), int(bottom))) for top, bottom in zip(*pair, strict=True)]
        for pair in zip(greys[::2], greys[1::2], strict=True)
    ]


@cache
def _style(top: int, bottom: int) -> Style:
    return Style(
        color=Color.from_rgb(top, top, top), bgcolor=Color.from_rgb(bottom, bottom, bottom)
    )


def _shader(shades: str) -> Any:
    def paint(image: Array) -> Iterable[list[Segment]]:
        ink = (image[::2] + image[1::2]) / 2
        levels = np.rint(np.clip(ink, 0, 1) * (len(shades) - 1)).astype(int)
        return [[Segment("".join(shades[level] for level in row))] for row in levels]

    return paint
