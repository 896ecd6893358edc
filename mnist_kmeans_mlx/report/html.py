"""The report: one HTML file that holds everything and loads nothing.

Its Content-Security-Policy allows the one style sheet and the one script inside it, by their
hashes, and images that are part of it. What a person named (data, models, machines) is escaped by
`mnist_kmeans_mlx.report.markup`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from mnist_kmeans_mlx import __version__
from mnist_kmeans_mlx.engine.metric import METRICS
from mnist_kmeans_mlx.experiment.portrait import Map, Portrait
from mnist_kmeans_mlx.report import charts, clusters, numbers
from mnist_kmeans_mlx.report.markup import Markup, join, png, tag
from mnist_kmeans_mlx.report.material import Material
from mnist_kmeans_mlx.report.svg import defs


def page(material: Material) -> str:
    """Write the report: a whole HTML document."""
    style, script = _file("style.css"), _file("digits.js") + _file("script.js")
    sections = list(_sections(material))
    portrait = material.portrait
    icon, data = "data:,", Markup("")
    if portrait is not None:
        images = clusters.images_of(portrait)
        if images is not None:
            icon = png(images[clusters.in_order(portrait.faces)[0].index])
        if clusters.can_draw(portrait):
            data = clusters.payload(portrait)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": policy,
        "generator": f"mnist-kmeans-mlx {__version__}",
        "title": join([title(material)]),
        "icon": icon,
        "style": style,
        "script": script,
        "defs": defs(),
        "nav": join(tag("a", one.name, href=f"#{one.anchor}") for one in sections),
        "main": join([_hero(material), *(one.markup() for one in sections)]),
        "footer": f"Made by mnist-kmeans-mlx {__version__}. This file is complete: it loads "
        "nothing, and what is drawn in it stays in it.",
        "data": data,
    }
    # In one pass: what is put in is not searched again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], _file("template.html"))


def title(material: Material) -> str:
    """What the page is called."""
    if material.faces:
        k = len(material.faces)
        return f"{material.data_name} in {k:,} cluster{'s' * (k != 1)}"
    return f"K-means on {material.data_name}"


def _file(name: str) -> str:
    return (files("mnist_kmeans_mlx.report") / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@dataclass(frozen=True)
class _Section:
    """A part of the page: its anchor, its name in the navigation, and what it says."""

    anchor: str
    name: str
    heading: str
    content: Markup
    lead: str = ""

    def markup(self) -> Markup:
        """The section as HTML."""
        words = self.lead.replace(" %", "\N{NO-BREAK SPACE}%")
        lead = tag("p", words, class_="lead") if words else None
        return tag("section", tag("h2", self.heading), lead, self.content, id=self.anchor)


def _sections(material: Material) -> Iterator[_Section]:
    portrait = material.portrait
    if portrait is not None:
        yield from _looks(portrait)
    elif material.faces:
        yield _Section("clusters", "Clusters", "Clusters", numbers.sizes(material))
    scores = numbers.scores(material)
    if scores is not None:
        yield _Section("scores", "Scores", "Right and wrong", scores)
    if portrait is not None and portrait.map is not None:
        yield _map(portrait, portrait.map)
    curves = charts.against_k(material)
    if curves is not None:
        lead = charts.against_k_lead(material)
        yield _Section("against-k", "K", "How many clusters?", curves, lead)
    convergence = charts.convergence(material)
    if convergence is not None:
        lead = "SSE after each iteration of each restart; the first, steep ones are cut off above."
        yield _Section("convergence", "Convergence", "Convergence", convergence, lead)
    timings = numbers.timings(material)
    if timings is not None:
        yield _Section("timings", "Timings", "How long it takes", timings)
    yield _Section("about", "About", "Where this comes from", numbers.about(material))
    lead = "The commands that give the same numbers."
    yield _Section("again", "Reproduce", "Do it again", numbers.reproduce(material), lead)


def _looks(portrait: Portrait) -> Iterator[_Section]:
    if clusters.can_draw(portrait):
        metric = METRICS[portrait.metric]
        unit = metric.unit(portrait.unit)
        told = metric.told + (f", pixels / {unit:g}" if unit != 1 else "")
        lead = (
            "Your drawing is scaled and centred as MNIST’s digits were, then compared with every "
            f"centroid, in this page ({told}). predict gives the same answer for a saved "
            "drawing."
        )
        yield _Section("draw", "Draw", "Draw a digit", clusters.drawing(), lead)
    named = any(face.counts for face in portrait.faces)
    name = "What the clusters look like"
    if clusters.images_of(portrait) is None:
        name, lead = "How large the clusters are", "How many rows each has"
        lead += ", and the share that has its most frequent label." if named else "."
    elif not named:
        lead = "Each picture is a centroid, the mean of its cluster."
    else:
        lead = (
            "Each picture is a centroid, the mean of all images of its cluster, filed under the "
            "digit most of them show; below it, how many there are and the share that is this "
            "digit. Open one to see its members and its worst mistakes."
        )
    if len(portrait.faces) > clusters.MOST:
        lead += f" These are the {clusters.MOST} largest of {len(portrait.faces):,}."
    yield _Section("clusters", "Clusters", name, clusters.gallery(portrait), lead)


def _map(portrait: Portrait, chart: Map) -> _Section:
    first, second = chart.explained
    lead = (
        f"{len(chart.rows):,} rows and the centroids on the two axes along which the data vary "
        f"most ({100 * first:.0f} % and {100 * second:.0f} % of the variance): what lies together "
        "here may still be far apart along the others."
    )
    if clusters.can_draw(portrait):
        lead += " Your drawing shows as a ring."
    return _Section("map", "Map", "A map of the data", clusters.world(portrait, chart), lead)


def _hero(material: Material) -> Markup:
    mosaic = None if material.portrait is None else clusters.mosaic(material.portrait)
    words = tag(
        "div",
        tag("h1", title(material)),
        tag("p", _story(material), class_="lead"),
        (tag("p", note, class_="note") for note in material.notes),
        numbers.stats(material),
    )
    kind = "hero two" if mosaic is not None else "hero"
    return tag("section", tag("div", words, mosaic, class_=kind), id="top")


def _story(material: Material) -> list[Any]:
    """What happened, in two sentences."""
    train, test = material.scores("train"), material.scores("test")
    n, k = material.data.get("n_train"), len(material.faces)
    if not k:
        return ["Timings and curves, as the commands below measured them."]
    rows = f"{n:,} rows" if isinstance(n, int) else "the rows"
    if material.data.get("n_features") == clusters.SIDE**2:
        rows = rows.replace("rows", "images")
    story: list[Any] = [f"K-means sorted {rows} into {k:,} clusters without looking at a label."]
    score = test or train
    if score is not None:
        unseen = "test images it had never seen" if test else "of them"
        story += [
            " Naming each cluster by its most frequent digit recognises ",
            tag("b", f"{100 * score['accuracy']:.1f} %"),
            f" of the {unseen}." if test else f" {unseen}.",
        ]
    return story
