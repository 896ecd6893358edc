"""Parts of the page that are tables: scores, timings, the machine and the commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mnist_kmeans_mlx.report.markup import Markup, caption, join, table, tag
from mnist_kmeans_mlx.report.material import Material
from mnist_kmeans_mlx.report.parts import missing_words, percent, readable, seconds, short
from mnist_kmeans_mlx.report.svg import bar

Values = Mapping[str, Any]

# No confusion matrix for more classes than this.
MOST_CLASSES = 20
PARTS = {"test": "Test images", "train": "Training images"}


def stats(material: Material) -> Markup | None:
    """The figures that come first."""
    shown = []
    for part, words in (("test", "of test images recognised"), ("train", "of training images")):
        scores = material.scores(part)
        if scores:
            shown.append((percent(scores["accuracy"]), words))
    if material.faces:
        shown.append((f"{len(material.faces):,}", "clusters"))
    if material.inertia is not None:
        shown.append((short(material.inertia), "SSE, the sum of squared distances"))
    if material.n_iter is not None:
        shown.append((f"{material.n_iter:,}", "iterations"))
    if material.main:
        shown.append((f"{seconds(material.main['timings']['fit'])} s", "to fit"))
    if not shown:
        return None
    return tag(
        "dl", (tag("div", tag("dt", words), tag("dd", value)) for value, words in shown[:6]),
        class_="stats",
    )  # fmt: skip


def sizes(material: Material) -> Markup:
    """Clusters as a table, where there are no pictures of them."""
    rows = [
        tag("tr", tag("th", face.index, scope="row"), tag("td", face.digit),
            tag("td", f"{face.size:,}"), tag("td", percent(face.purity)))
        for face in sorted(material.faces, key=lambda face: -face.size)
    ]  # fmt: skip
    return tag("div", table(("Cluster", "Digit", "Rows", "Purity"), rows), class_="sizes")


# Scores


def scores(material: Material) -> Markup | None:
    """Confusion matrix and accuracy per digit."""
    found = {part: material.scores(part) for part in PARTS}
    main = found["test"] or found["train"]
    if main is None:
        return None
    parts: list[Any] = []
    if len(main["classes"]) <= MOST_CLASSES:
        words = PARTS["test" if found["test"] else "train"]
        matrices = [_confusion(main, words)]
        if found["test"] and found["train"]:
            other = tag("summary", "The same for the training images")
            matrices.append(tag("details", other, _confusion(found["train"], PARTS["train"])))
        parts.append(tag("div", matrices))
    parts.append(_per_class(found["test"], found["train"]))
    return tag("div", parts, class_="pair")


def _confusion(score: Values, words: str) -> Markup:
    classes, rows = score["classes"], []
    for label, counts in zip(classes, score["confusion"], strict=True):
        total = sum(counts)
        cells = []
        for other, count in zip(classes, counts, strict=True):
            share = count / total if total else 0.0
            kind = f"l{round(10 * share**0.7)}" + (" right" if other == label else "")
            said = f"{count:,} of {total:,} images of a {label} taken for a {other}"
            shown = f"{100 * share:.0f}" if share >= 0.005 else ""
            cells.append(tag("td", shown, class_=kind, title=said))
        rows.append(tag("tr", tag("th", label, scope="row"), cells))
    explained = "row: the true digit · column: the cluster's digit · % of the row"
    said = caption(f"{words}: what is taken for what", explained)
    return tag("div", table([None, *classes], rows, "confusion", said), class_="scroll")


def _per_class(test: Values | None, train: Values | None) -> Markup:
    main = test or train
    assert main is not None
    rows = []
    for label, share in main["per_class_accuracy"].items():
        other = None if train is None or main is train else train["per_class_accuracy"].get(label)
        rows.append(
            tag("tr", tag("th", label, scope="row"),
                tag("td", bar(share, "fill"), class_="wide"), tag("td", percent(share)),
                tag("td", percent(other), class_="dim") if other is not None else None)
        )  # fmt: skip
    titles = ["Digit", None, *(name for name, part in (("Test", test), ("Train", train)) if part)]
    explained = "share of the images of each digit that are recognised"
    words = missing_words(main.get("missing"))
    note = tag("p", words, class_="note") if words else None
    shown = table(titles, rows, caption=caption("Accuracy per digit", explained))
    return tag("div", shown, note)


# Timings


def timings(material: Material) -> Markup | None:
    """Seconds of every arm of each comparison."""
    parts = [_comparison(values, material.environment) for values in material.comparisons]
    return join(parts) if parts else None


def _comparison(values: Values, environment: Values) -> Markup:
    machine = values["machine"]
    quoted = values.get("quoted") or ()
    measured = [row for case in values["cases"] for row in case["rows"]]
    fits = [row[fit]["high"] for row in measured for fit in ("warm", "cold") if row[fit]]
    longest = max([*fits, 1e-9])
    tables = [
        _case(case, longest, [q for q in quoted if q["n_clusters"] == case["n_clusters"]])
        for case in values["cases"]
    ]
    failures = [tag("li", failure) for failure in values["failures"]]
    speed = "Speed-up: how many times as long the fastest arm of scikit-learn took, round by round."
    return tag(
        "div",
        tag("div", tag("ul", tag("li", tag("i", class_="swatch warm"), "warm fit, median"),
            tag("li", tag("i", class_="swatch cold"), "cold fit, median"),
            tag("li", "├─┤ range of the rounds"), class_="legend over")),
        tag("ul", failures, class_="failures") if failures else None,
        tag("div", tables, class_="pair"),
        tag("p", speed, class_="note under"),
        tag("details", tag("summary", "How and where this was measured"),
            tag("ul", (tag("li", note) for note in _notes(values)), class_="said"),
            _facts("Machine", readable(machine)) if machine != environment else None),
    )  # fmt: skip


def _notes(values: Values) -> list[str]:
    """Notes for readers of the timings."""
    cases = [
        f"K = {c['n_clusters']}: {note}" for c in values["cases"] for note in c.get("notes", ())
    ]
    return [*cases, *values.get("notes", ())]


def _case(case: Values, longest: float, quoted: Sequence[Values]) -> Markup:
    rows = []
    for row in case["rows"]:
        name = tag("th", row["arm"], tag("span", row["device"], class_="note"), scope="row")
        if row["warm"] is None and row["cold"] is None:
            said = f"{row['verdict']}: {row['reason']}" if row["reason"] else row["verdict"]
            rows.append(tag("tr", name, tag("td", said, colspan=3, class_="dim")))
            continue
        warm, cold = row["warm"], row["cold"]
        ours = " ours" if row["arm"].startswith("mlx") else ""
        bars = [
            tag("span", bar(one["median"] / longest, style, one["low"] / longest,
                one["high"] / longest), class_=f"lane {style}{ours}")
            for one, style in ((warm, "warm"), (cold, "cold")) if one
        ]  # fmt: skip
        main = warm or cold
        speedup = row["speedup"]
        rows.append(
            tag("tr", name, tag("td", bars, class_="wide"),
                tag("td", f"{seconds(main['median'])} s"),
                tag("td", f"{speedup['median']:.3g} ×" if speedup else "–"),
                class_="failed" if row["failures"] else None)
        )  # fmt: skip
    for figure in quoted:
        words = f"{figure['library']}, {figure['machine']}, quoted from the notebook"
        rows.append(
            tag("tr", tag("th", tag("span", words, class_="note"), scope="row"), tag("td"),
                tag("td", f"{seconds(figure['seconds'])} s", class_="dim"), tag("td"))
        )  # fmt: skip
    said = caption(f"K = {case['n_clusters']}", "seconds per fit; shorter is better")
    shown = table(("Arm", None, "Warm", "Speed-up"), rows, "bars timings", said)
    return tag("div", shown, class_="scroll")


# Where, and how again


def about(material: Material) -> Markup:
    """Data, machine and versions."""
    data, environment = material.data, material.environment
    facts: dict[str, Any] = {
        "Data": material.data_name,
        "Training rows": _count(data.get("n_train")),
        "Test rows": _count(data.get("n_test") or None),
        "Features": _count(data.get("n_features")),
        "Origin": data.get("origin") or data.get("source"),
        "SHA-256": data.get("sha256"),
        "Licence": data.get("licence"),
    }
    lists = [_facts("Data", facts)]
    if environment:
        lists.append(_facts("Machine and versions", readable(environment)))
    else:
        lists.append(_facts("Machine that made this page", readable(material.made_on)))
    return tag("div", lists, class_="pair")


def _facts(title: str, values: Values) -> Markup:
    items = [
        tag("div", tag("dt", name), tag("dd", str(value)))
        for name, value in values.items()
        if value not in (None, "")
    ]
    return tag("div", tag("h3", title), tag("dl", items, class_="facts"))


def reproduce(material: Material) -> Markup:
    """The commands that give the same numbers, and this page, again."""
    items = []
    for words, command in material.steps:
        first, *others = (tag("span", word) for word in command.split(" "))
        code = tag("code", first, ([" ", word] for word in others))
        items.append(tag("li", tag("span", words, class_="note"), code))
    return tag("ol", items, class_="commands")


def _count(number: Any) -> str | None:
    return f"{number:,}" if isinstance(number, int) else None
