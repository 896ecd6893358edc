"""What the tests of the report share: a small model, and JSON as other commands print it."""

import json
from html.parser import HTMLParser

import numpy as np
from commands import call
from damage import part_of

from mnist_kmeans_mlx.benchmark.arms import ARMS
from mnist_kmeans_mlx.benchmark.result import QUOTED, Case, Comparison, Row, Spread
from mnist_kmeans_mlx.experiment.sweep import Sweep

EVIL = "<script>alert('1')<script><img src=x onerror=alert(2)>{{script}}&amp;"
K = 12


def make_inputs(folder, mnist, device):
    """A small part of MNIST under a name that is HTML, a model of it, and JSON of each kind."""
    data = folder / f"{EVIL}.npz"
    np.savez(data, **part_of(mnist, 1500, 500))
    model, run = folder / "model.safetensors", folder / "run.json"
    words = ("fit", "--data", data, "-k", K, "--seed", 1, "--device", device, "--no-log", "--json")
    found = json.loads(call(*words, "--save", model).stdout)
    found["history"] = [[9e4, 8e4, 7.5e4, 7.4e4], [9.5e4, 8e4, 7.6e4]]
    run.write_text(json.dumps(found))
    (folder / "sweep.json").write_text(json.dumps(a_sweep(found["data"])))
    (folder / "compare.json").write_text(json.dumps(a_comparison(found["data"])))
    return folder


def a_sweep(data):
    cells = tuple(
        {
            "n_clusters": k, "seed": seed, "inertia": 1e6 / k + 1e3 * seed,
            "train_accuracy": 1 - 4 / k, "test_accuracy": 1 - 4.1 / k - 0.01 * seed, "nmi": 0.5,
            "silhouette": None, "seconds": 0.1 * k, "n_iter": 9, "missing_digits": [],
            "device": "cpu", "started": "2026-01-01T00:00:00+00:00",
        }
        for k in (10, 20, 64) for seed in (0, 1)
    )  # fmt: skip
    return Sweep(
        cells=cells, kept=0, damaged=0, data=data, environment={"machine": EVIL}, settings={},
        started="2026-01-01T00:00:00+00:00", command=f"mnist-kmeans-mlx sweep -k 10,20,64 {EVIL}",
    ).to_dict()  # fmt: skip


def a_comparison(data):
    spread = Spread((2.0, 3.0, 5.0))
    rows = (
        Row(ARMS[0], "reference", cold=spread, warm=spread, speedup=Spread((1.0,))),
        Row(ARMS[-2], "MISMATCH", cold=spread, warm=Spread((1.0, 1.5)), speedup=Spread((2.0,)),
            failures=("its SSE is off",)),
        Row(ARMS[-1], "cannot run", reason=f"no GPU {EVIL}"),
    )  # fmt: skip
    return Comparison(
        data=data, machine={"machine": EVIL}, arms=ARMS, unavailable={},
        cases=(Case(20, rows, None, None, ("of this K",)),), settings={"repeat": 3},
        failures=(f"K = 20: {EVIL}",), notes=(EVIL,), quoted=QUOTED,
        started="2026-01-01T00:00:00+00:00", command="mnist-kmeans-mlx compare -k 20",
    ).to_dict()  # fmt: skip


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.bodies, self.inside = [], [], {}, None
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside = self.bodies.setdefault(tag, [])
            self.inside.append((dict(attrs), ""))

    def handle_data(self, data):
        if self.inside is None:
            self.words.append(data)
        else:
            attributes, text = self.inside[-1]
            self.inside[-1] = attributes, text + data

    def handle_endtag(self, tag):
        self.inside = None

    def all(self, name):
        return [attributes for tag, attributes in self.tags if tag == name]
