"""Parts of the page that show a model: its centroids, their members, the map, the drawing."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from mnist_kmeans_mlx.experiment.portrait import Face, Map, Member, Portrait
from mnist_kmeans_mlx.report.gallery import as_images
from mnist_kmeans_mlx.report.markup import Markup, join, picture, png, tag
from mnist_kmeans_mlx.report.parts import percent
from mnist_kmeans_mlx.report.svg import bar

Array = np.ndarray[Any, Any]

# The side of an image that can be drawn: MNIST's.
SIDE = 28
# With more clusters, tiles are small, and the map shows points instead of pictures.
MANY = 64
# Most pictures in the mosaic, and most clusters in the gallery.
TILES = 40
MOST = 500
# Bytes of centroids above which the page has no drawing.
DRAWN_BYTES = 32 << 20


def images_of(portrait: Portrait) -> Array | None:
    """Centroids as images, or None where they are none."""
    return as_images(portrait.centers)


def in_order(faces: Sequence[Face]) -> list[Face]:
    """Clusters by digit, the largest first; those that stand for nothing come last."""
    return sorted(faces, key=lambda face: (face.digit is None, face.digit or 0, -face.size))


def mosaic(portrait: Portrait) -> Markup | None:
    """The largest centroids, side by side in one picture."""
    images = images_of(portrait)
    if images is None:
        return None
    largest = sorted(portrait.faces, key=lambda face: -face.size)[:TILES]
    shown = images[[face.index for face in in_order(largest)]]
    columns = max(1, round((len(shown) * 1.2) ** 0.5))
    rows = -(-len(shown) // columns)
    side = shown.shape[1]
    canvas = np.zeros((rows * columns, side, side))
    canvas[: len(shown)] = shown
    whole = canvas.reshape(rows, columns, side, side).swapaxes(1, 2)
    return picture(
        whole.reshape(rows * side, columns * side),
        f"{len(shown)} centroids: blurred digits, each the mean of the images of one cluster.",
        class_="ink mosaic",
    )


# Gallery


def gallery(portrait: Portrait) -> Markup:
    """All clusters, digit by digit; each opens to show its members."""
    images = images_of(portrait)
    groups: dict[int | None, list[Face]] = {}
    for face in in_order(_shown(portrait)):
        groups.setdefault(face.digit, []).append(face)
    parts: list[Any] = []
    for digit, faces in groups.items():
        tiles = [_tile(face, images, portrait) for face in faces]
        heading = None
        if digit is not None:
            total = sum(face.size for face in faces)
            words = f"{len(faces)} cluster{'s' * (len(faces) > 1)}"
            heading = tag(
                "h3", tag("span", digit, class_=f"numeral d{digit % 10}"),
                tag("span", words, tag("br"), f"{total:,} {_members(images)}", class_="note"),
            )  # fmt: skip
        elif len(groups) > 1:
            heading = tag("h3", tag("span", "no digit", class_="note"))
        kind = "tiles many" if len(portrait.faces) > MANY else "tiles"
        parts.append(
            tag("div", heading, tag("div", tiles, class_=kind),
                class_="family" if heading else "family alone")
        )  # fmt: skip
    few = max(map(len, groups.values())) <= 4 and None not in groups
    return tag("div", parts, class_="families few" if few else "families")


def _shown(portrait: Portrait) -> list[Face]:
    """The largest clusters, as many as the gallery holds."""
    return sorted(portrait.faces, key=lambda face: -face.size)[:MOST]


def name(face: Face) -> str:
    """Name of a cluster, for text without its picture."""
    return f"cluster {face.index}" + ("" if face.digit is None else f", a {face.digit}")


def _members(images: Array | None) -> str:
    """What clusters hold, in a word."""
    return "rows" if images is None else "images"


def _tile(face: Face, images: Array | None, portrait: Portrait) -> Markup:
    image = None
    if images is not None:
        alt = f"Centroid of {name(face)}"
        image = picture(images[face.index], alt, class_="ink", loading="lazy")
    purity = None
    if face.purity is not None:
        purity = [
            tag("span", f"{100 * face.purity:.0f} %", class_="purity"),
            tag("span", bar(face.purity, "fill"), class_="thin"),
        ]
    summary = tag(
        "summary", image, tag("span", f"{face.size:,}", class_="size"), purity,
        aria_label=f"{name(face).capitalize()}: {face.size:,} {_members(images)}"
        + ("" if face.purity is None else f", {100 * face.purity:.0f} % pure"),
    )  # fmt: skip
    return tag(
        "details", summary, tag("div", _inside(face, portrait), class_="inside"),
        id=f"cluster-{face.index}", name="cluster",
    )  # fmt: skip


def _inside(face: Face, portrait: Portrait) -> list[Any]:
    """What a tile shows when it is opened."""
    parts: list[Any] = [tag("h4", f"Cluster {face.index}")]
    if face.counts:
        shares = [
            tag("li", tag("b", label), f" {percent(count / face.size)}",
                class_=None if label == face.digit else "other")
            for label, count in list(face.counts.items())[:6]
        ]  # fmt: skip
        parts.append(tag("ol", shares, class_="shares"))
    for words, explained, members in (
        ("Nearest", "the members closest to the centroid", face.nearest),
        ("Typical", "members at the median distance", face.typical),
        ("Worst mistakes", "other digits, closest to this centroid", face.mistakes),
    ):
        strip = _strip(members, face, portrait)
        if strip is not None:
            note = tag("span", explained, class_="note")
            parts += [tag("h5", words, " ", note), strip]
    return parts


def _strip(members: Sequence[Member], face: Face, portrait: Portrait) -> Markup | None:
    if not members:
        return None
    images = as_images(np.stack([portrait.images[member.row] for member in members]))
    if images is None:
        return None
    items = []
    for member, image in zip(members, images, strict=True):
        wrong = member.label is not None and member.label != face.digit
        alt = f"Image {member.row}" + ("" if member.label is None else f", a {member.label}")
        said = f"{alt}, at distance {member.distance:.3g}"
        items.append(
            tag("li", picture(image, alt, class_="ink", title=said, loading="lazy"),
                tag("span", member.label), class_="wrong" if wrong else None)
        )  # fmt: skip
    return tag("ul", items, class_="strip")


# Map


def world(portrait: Portrait, chart: Map) -> Markup:
    """Rows and centroids on the plane of the two principal axes."""
    low, high = _frame(chart)
    images = images_of(portrait)

    def place(point: Array) -> dict[str, str]:
        x, y = 100 * (point - low) / (high - low)
        return {"x": f"{x:.2f}%", "y": f"{100 - y:.2f}%"}

    marks: list[Any] = []
    for i, point in enumerate(chart.rows):
        label = None if chart.labels is None else int(chart.labels[i])
        shown = "·" if label is None else str(label)
        kind = int(chart.clusters[i]) if label is None else label
        marks.append(tag("text", shown, **place(point), class_=f"d{kind % 10}"))
    centers = []
    for face in _shown(portrait):
        at = place(chart.centers[face.index])
        if images is not None and len(portrait.faces) <= MANY:
            side = 40
            half = f"translate({-side // 2} {-side // 2})"
            whole = [
                tag("rect", **at, width=side, height=side, rx=6, transform=half, class_="plate"),
                tag("image", **at, href=png(images[face.index]), width=side, height=side,
                    transform=half, class_="ink"),
            ]  # fmt: skip
        else:
            whole = [tag("circle", cx=at["x"], cy=at["y"], r=4, class_="center")]
        title = tag("title", name(face).capitalize())
        centers.append(tag("a", title, whole, href=f"#cluster-{face.index}"))
    here = tag("g", tag("circle", r=9, class_="here"), tag("circle", r=3, class_="spot"), id="here")
    svg = tag(
        "svg", tag("g", marks, class_="rows"), tag("g", centers, class_="centers"),
        tag("svg", here, id="you", overflow="visible", visibility="hidden"),
        width="100%", height="100%", role="group",
        aria_label="Map of sampled rows and of centroids on two principal axes",
    )  # fmt: skip
    return tag("div", svg, class_="world")


def _frame(chart: Map) -> tuple[Array, Array]:
    """Lower left and upper right corner of the map."""
    points = np.concatenate([chart.rows, chart.centers])
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * np.maximum(high - low, 1e-9)
    return low - margin, high + margin


# Drawing


def can_draw(portrait: Portrait) -> bool:
    """Whether the model's rows are images of MNIST's size, and its clusters not too many."""
    fits = portrait.centers.nbytes <= DRAWN_BYTES
    return bool(portrait.centers.shape[1] == SIDE * SIDE) and fits


def drawing() -> Markup:
    """The pad; the page's script brings it to life."""
    keys = (
        "Keyboard: the arrow keys move the pen, Space puts it down or lifts it, "
        "Backspace takes back the last stroke, Escape clears."
    )
    pad = tag(
        "div",
        tag("canvas", id="pad", width=560, height=560, tabindex=0, role="img",
            aria_label="Drawing pad, 280 by 280", aria_describedby="pad-keys"),
        tag("p", "Draw a digit", id="pad-hint", aria_hidden="true"),
        tag("div", tag("button", "Undo", id="undo", type="button"),
            tag("button", "Clear", id="clear", type="button"), class_="buttons"),
        tag("p", keys, id="pad-keys", class_="note"),
        class_="pad",
    )  # fmt: skip
    seen = tag(
        "div",
        tag("h3", "What the model sees"),
        tag("canvas", id="seen", width=SIDE, height=SIDE, role="img",
            aria_label="The drawing, scaled into 20 by 20 pixels and centred in 28 by 28"),
        tag("p", "28 × 28 pixels, scaled and centred by mass as MNIST was.", class_="note"),
        tag("button", "Save as .npy", id="save", type="button", disabled=True),
        class_="seen",
    )  # fmt: skip
    answer = tag(
        "div",
        tag("h3", "Nearest centroids"),
        tag("output", tag("span", "?", class_="numeral", id="digit"),
            tag("span", "Nothing drawn yet.", id="verdict"), for_="pad", aria_live="polite"),
        tag("ol", id="nearest"),
        class_="answer",
    )  # fmt: skip
    row = tag(
        "li",
        tag("a", tag("img", alt="", class_="ink"), tag("b"),
            tag("span", bar(0, "fill"), class_="lane"), tag("span", class_="distance")),
    )  # fmt: skip
    return join([
        tag("noscript", tag("p", "Drawing needs JavaScript; all the rest does without.")),
        tag("div", pad, seen, answer, class_="draw"),
        tag("template", row, id="nearest-item"),
    ])  # fmt: skip


def payload(portrait: Portrait) -> Markup:
    """What the script compares a drawing with: centroids in float64, and the map.

    The page decides as `predict` does: the same float64 centres, the same differences, squared
    and summed in NumPy's order.
    """
    values: dict[str, Any] = {
        "metric": portrait.metric,
        "unit": portrait.unit,
        "white": 255 if portrait.unit != 1 or portrait.centers.max() > 1 else 1,
        "centers": _base64(portrait.centers, "<f8"),
        "digits": [face.digit for face in portrait.faces],
    }
    if portrait.map is not None:
        low, high = _frame(portrait.map)
        values["map"] = {
            "origin": _base64(portrait.map.origin, "<f4"),
            "axes": _base64(portrait.map.axes, "<f4"),
            "low": low.tolist(),
            "high": high.tolist(),
        }
    # Inside a script element no text may look like its end.
    text = json.dumps(values, separators=(",", ":")).replace("<", "\\u003c")
    return tag("script", Markup(text), type="application/json", id="model")


def _base64(array: Array, dtype: str) -> str:
    return base64.b64encode(array.astype(dtype).tobytes()).decode()
