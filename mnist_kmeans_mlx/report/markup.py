"""HTML and SVG as nested calls, which escape all text.

Everything passes through `tag`, which escapes any string that is not `Markup` already. There is no
``style`` attribute, for the page's Content-Security-Policy would ignore it.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterable
from html import escape
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_VOID = {"br", "circle", "hr", "image", "img", "input", "line", "link", "meta", "polyline", "rect"}
_VOID |= {"path", "polygon"}


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """Write an element.

    Parameters
    ----------
    name : str
    *children : Markup, str, number, iterable of these, or None
        What is not `Markup` is escaped; None is nothing.
    **attributes
        ``class_`` and ``for_`` lose their underscore, others turn it into a hyphen. None and
        False leave an attribute out, True names it without a value.

    Examples
    --------
    >>> tag("p", "a < b ", tag("b", "bold"), class_="note", data_row=3)
    '<p class="note" data-row="3">a &lt; b <b>bold</b></p>'
    """
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{escape(_text(value))}"')
    if name in _VOID:
        return Markup("".join([*parts, ">" if name in _HTML_VOID else "/>"]))
    return Markup("".join([*parts, ">", join(children), f"</{name}>"]))


_HTML_VOID = {"br", "hr", "img", "input", "link", "meta"}


def join(children: Iterable[Any]) -> Markup:
    """Write children one after the other."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif child is None:
            continue
        elif isinstance(child, str) or not isinstance(child, Iterable):
            parts.append(escape(_text(child)))
        else:
            parts.append(join(child))
    return Markup("".join(parts))


def table(
    titles: Iterable[str | None], rows: Iterable[Any], kind: str = "bars", caption: Any = None
) -> Markup:
    """Write a table whose first line has titles; None is an empty cell."""
    cells = (tag("td") if title is None else tag("th", title, scope="col") for title in titles)
    head = tag("thead", tag("tr", cells))
    return tag("table", caption, head, tag("tbody", rows), class_=kind)


def caption(title: str, explained: str) -> Markup:
    """Write what a table shows, and how it is read."""
    return tag("caption", tag("b", title), tag("span", explained, class_="axis"))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    # Control characters are not allowed in HTML, nor is half of a surrogate pair in UTF-8.
    return "".join(
        char if char.isprintable() or char in "\n\t\N{NO-BREAK SPACE}" else "�"
        for char in str(value)
    )


def picture(image: Array, alt: str, **attributes: Any) -> Markup:
    """Write an ``img`` of ink between 0 and 1, one pixel of the file to one of the image."""
    height, width = image.shape
    return tag("img", src=png(image), alt=alt, width=width, height=height, **attributes)


def png(image: Array) -> str:
    """Make a data URL of white ink, from 0 to 1, on nothing: the page decides what lies behind.

    References
    ----------
    *Portable Network Graphics (PNG) Specification*, third edition, W3C 2025.
    """
    height, width = image.shape
    pixels = np.full((height, width, 2), 255, dtype=np.uint8)
    pixels[..., 1] = np.rint(np.clip(image, 0, 1) * 255)
    lines = np.zeros((height, 1 + 2 * width), dtype=np.uint8)  # each begins with "no filter"
    lines[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    return "data:image/png;base64," + base64.b64encode(data).decode()
