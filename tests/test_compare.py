"""``compare`` end to end: real processes on tiny data, and all that it prints."""

import csv
import dataclasses
import io
import json
import os
import signal

import numpy as np
import pytest
from commands import complaint, interrupted, text_of
from damage import part_of
from sklearn.cluster import KMeans

from mnist_kmeans_mlx.benchmark import choose_arms
from mnist_kmeans_mlx.benchmark import compare as compare_arms
from mnist_kmeans_mlx.benchmark.result import QUOTED, STAGES, Spread
from mnist_kmeans_mlx.report import compare_table

pytestmark = pytest.mark.slow

K = 6


@pytest.fixture(scope="module")
def images(mnist):
    return part_of(mnist, 1500, 300)


@pytest.fixture(scope="module")
def source(images, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, **images)
    return path


@pytest.fixture(scope="module")
def found(source, device):
    """Four kinds of arms, in real processes."""
    words = []
    arms = choose_arms(f"sklearn-lloyd-float64,sklearn-elkan-float32,mlx-{device},mlx-gpu")
    result = compare_arms(
        source, n_clusters=[K], arms=arms, repeat=1, n_init=2, seed=3, command="c",
        observe=words.append,
    )  # fmt: skip
    return dataclasses.replace(result, notes=(*result.notes, f"observed: {'; '.join(words)}"))


@pytest.fixture(scope="module")
def rows(found):
    return {row.arm.name: row for row in found.cases[0].rows}


def test_it_agrees_with_scikit_learn(found, rows, images, device):
    x = images["x_train"].reshape(1500, -1)
    other = KMeans(K, n_init=2, random_state=3).fit(x / 255)
    named = [np.bincount(images["y_train"][other.labels_ == c]).argmax() for c in range(K)]
    named = np.array(named)
    tested = named[other.predict(images["x_test"].reshape(300, -1) / 255)]
    assert found.failures == ()
    for name in ("sklearn-lloyd-float64", f"mlx-{device}"):
        row = rows[name]
        assert row.verdict == ("same" if row.arm.ours else "reference")
        assert row.n_iter == other.n_iter_
        assert row.inertia == pytest.approx(other.inertia_, rel=1e-9)
        assert row.reported_inertia == pytest.approx(other.inertia_, rel=1e-9)
        assert row.agreement == row.ari == 1
        assert row.train_accuracy == np.mean(named[other.labels_] == images["y_train"])
        assert row.test_accuracy == np.mean(tested == images["y_test"])
    assert rows["sklearn-elkan-float32"].verdict in ("same", "own seeds", "differs")


def test_every_stage_has_its_clock(rows, device):
    ours, theirs = rows[f"mlx-{device}"], rows["sklearn-lloyd-float64"]
    assert set(ours.stages) == set(STAGES)
    assert set(theirs.stages) == set(STAGES) - {"final"}
    for row in (ours, theirs):
        assert len(row.warm.values) == len(row.cold.values) == 1
        assert all(value > 0 for value in (*row.warm.values, *row.stages.values()))
    # Stages of ours are parts of the very fits that were timed.
    inside = sum(ours.stages[name] for name in ("upload", "seeding", "iterations", "final"))
    assert inside == pytest.approx(ours.warm.median, rel=0.5)


def test_what_was_done_is_told_as_it_is_done(found, device):
    said = found.notes[-1]
    assert "Loading data; Looking at the machine; K = 6, round 1 of 1: sklearn-lloyd-f" in said
    assert f"K = 6, round 1 of 1: mlx-{device}" in said


def test_data_that_changes_under_way_is_noticed(source, tmp_path, monkeypatch):
    from mnist_kmeans_mlx.benchmark import flow

    def earlier(*args, **kwargs):
        """Of the test rows alone, the last is another."""
        data = load(*args, **kwargs)
        test = data.test.copy()
        test[-1] = 7
        return dataclasses.replace(data, test=test)

    load = flow.load
    monkeypatch.setattr(flow, "load", earlier)
    result = compare_arms(source, n_clusters=[2], arms=choose_arms("sklearn-lloyd-float64"))
    assert len(result.failures) == 1
    assert "did the file change?" in result.failures[0]


# What it prints


@pytest.fixture
def broken(found, device):
    """The same with the notebook's figures, and a mismatch in an arm of ours."""
    case = found.cases[0]
    spoilt = tuple(
        dataclasses.replace(row, verdict="MISMATCH", failures=("it is off",))
        if row.arm.name == f"mlx-{device}"
        else row
        for row in case.rows
    )
    failure = f"K = {K}, mlx-{device}: it is off."
    quoted = tuple({**quote, "n_clusters": K} for quote in QUOTED[:1])
    return dataclasses.replace(
        found, cases=(dataclasses.replace(case, rows=spoilt),), failures=(failure,), quoted=quoted
    )


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_the_table_fits_the_terminal_and_tells_all(found, rows, width, device):
    text = text_of(compare_table.view(found, width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    flat = " ".join(text.split())
    for name, row in rows.items():
        assert name in text
        if row.warm is not None:
            assert f"{row.inertia:,.1f}" in text
            assert f"{100 * row.train_accuracy:.2f}" in text
    for part in (
        "Cold s", "Warm s", "Speed-up", "Iter.", "SSE", "Train %", "Test %", "Agree %", "ARI",
        "Seeding s", "Final s", "reference", "BLAS, threads", "Load average", "seed 3", "n_init 2",
        f"K = {K}: speed-up is against sklearn-",
    ):  # fmt: skip
        assert part in flat, part
    assert "FAILED" not in flat
    if "mlx-gpu" in found.unavailable:
        assert "cannot run" in flat
        assert "mlx-gpu cannot run here: MLX finds no GPU here." in flat


def test_a_median_stands_with_its_range(found):
    case = found.cases[0]
    row = dataclasses.replace(case.rows[0], warm=Spread((3.0, 1.0, 12.34)), speedup=Spread((0.5,)))
    other = dataclasses.replace(found, cases=(dataclasses.replace(case, rows=(row,)),))
    for text in (text_of(compare_table.view(other, 200), 200), compare_table.to_markdown(other)):
        assert "3.00 (1.00–12.3)" in text
        assert "0.50" in text


def test_a_mismatch_cannot_be_overlooked(broken):
    view = compare_table.view(broken, 100)
    text = text_of(view, 100)
    assert "MISMATCH" in text
    assert f"FAILED  {broken.failures[0]}" in text
    assert "\x1b[1;31m" in text_of(view, 100, force_terminal=True, color_system="standard")
    assert f"**FAILED** {broken.failures[0]}" in compare_table.to_markdown(broken)
    assert "MISMATCH" in compare_table.to_csv(broken)


def test_the_notebooks_figures_are_marked_as_quoted(broken, found):
    for text in (text_of(compare_table.view(broken, 200), 200), compare_table.to_markdown(broken)):
        (line,) = (line for line in text.splitlines() if "scikit-learn, quoted" in line)
        assert "37.6" in line
        assert "67.64" in line
        assert "Quoted, not measured here: the log of the notebook" in text
        assert "MacBook Air (M2) at 37.6 s with 6 clusters (train accuracy 0.67643)" in text
    assert "quoted" not in compare_table.to_markdown(found).lower()


def test_markdown_is_a_table(found):
    lines = compare_table.to_markdown(found).splitlines()
    table = lines[: lines.index("")]
    assert len(table) == 2 + len(found.cases[0].rows)
    assert len({line.count("|") for line in table}) == 1
    hostile = dataclasses.replace(found, data={**found.data, "name": "<b>|`x`\x1b[31m"})
    text = compare_table.to_markdown(hostile)
    assert r"\<b\>\|\`x\`" in text
    assert "\x1b" not in text


def test_csv_has_every_number(found, rows):
    lines = list(csv.DictReader(io.StringIO(compare_table.to_csv(found))))
    assert [line["arm"] for line in lines] == list(rows)
    for line, row in zip(lines, rows.values(), strict=True):
        assert line["n_clusters"] == str(K)
        assert line["reason"] == row.reason
        if row.warm is not None:
            assert float(line["warm_median"]) == row.warm.median
            assert float(line["inertia"]) == row.inertia
            assert float(line["seeding_seconds"]) == row.stages["seeding"]


def test_json_is_strict_and_complete(found, rows, device):
    result = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert result["kind"] == "comparison"
    assert result["failures"] == []
    assert result["settings"] == {
        "n_init": 2, "seed": 3, "max_iter": 300, "tol": 1e-4, "repeat": 1,
    }  # fmt: skip
    assert result["data"]["n_train"] == 1500
    assert result["command"] == "c"
    assert result["machine"]["blas"]
    told = {row["arm"]: row for row in result["cases"][0]["rows"]}
    assert told.keys() == rows.keys()
    ours = told[f"mlx-{device}"]
    assert ours["warm"]["values"] == list(rows[f"mlx-{device}"].warm.values)
    assert ours.keys() >= {"cold", "stages", "speedup", "n_iter", "inertia", "agreement", "ari"}


# The command


@pytest.fixture(autouse=True)
def nothing_slows_openblas(monkeypatch):
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def compare(monkeypatch, found, call):
    """Run the command on a comparison that is already made."""

    def run(*words, result=found, code=0):
        monkeypatch.setattr("mnist_kmeans_mlx.benchmark.compare", lambda *a, **k: result)
        return call("compare", *words, code=code)

    return run


def test_each_form_of_output(compare, found):
    assert compare("--json").stdout == json.dumps(found.to_dict()) + "\n"
    assert compare("--markdown").stdout == compare_table.to_markdown(found)
    assert compare("--csv").stdout == compare_table.to_csv(found)
    done = compare()
    assert done.stdout == text_of(compare_table.view(found, 100), 100)
    assert done.stderr == ""


def test_the_result_is_saved_in_every_form(compare, found, tmp_path):
    folder = tmp_path / "deep" / "out"
    done = compare("--save", folder, "--json")
    assert done.stderr == f"Saved compare.json, compare.md, compare.csv in {folder}\n"
    assert sorted(os.listdir(folder)) == ["compare.csv", "compare.json", "compare.md"]
    assert (folder / "compare.json").read_text() == done.stdout
    assert (folder / "compare.md").read_text() == compare_table.to_markdown(found)
    assert (folder / "compare.csv").read_text() == compare_table.to_csv(found)
    assert compare("--save", folder, "-q").stderr == ""


@pytest.mark.parametrize("words", [[], ["--json"], ["--markdown"], ["--csv"]])
def test_a_mismatch_is_status_1(compare, broken, words, tmp_path):
    done = compare(*words, "--save", tmp_path, "-q", result=broken, code=1)
    assert done.stderr == f"Error: {broken.failures[0]}\n"
    assert "it is off" in done.stdout or "MISMATCH" in done.stdout
    assert "it is off" in (tmp_path / "compare.json").read_text()


def test_the_number_of_further_failures_is_told(compare, broken):
    more = dataclasses.replace(broken, failures=(*broken.failures, "a.", "b."))
    assert "And 2 more, see the result." in compare(result=more, code=1).stderr


def test_variables_that_slow_openblas_are_warned_of(compare, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    done = compare("-q")
    assert done.stderr.startswith("Warning: OPENBLAS_CORETYPE set in the environment")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        "-k 0", "-k 15,", "-k many", "-k ...,9", "-k 9,...", "-k 9,3,...,20", "-k 1,2,...,999999",
        "--arms tpu", "--arms=", "--repeat 0", "--n-init 0", "--json --csv", "--markdown --json",
        "surplus",
    ],
)  # fmt: skip
def test_usage_errors_are_2(compare, words):
    done = compare(*words.split(), code=2)
    assert "Error: " in done.stderr
    assert done.stdout == ""


def test_the_options_reach_the_comparison(call, monkeypatch, found, source):
    seen = {}

    def take(data, **options):
        seen.update(options, data=data)
        return found

    monkeypatch.setattr("mnist_kmeans_mlx.benchmark.compare", take)
    words = f"compare --data {source} -k 4,2,6,...,11 --arms mlx-cpu --n-init 2 --seed 5 --repeat 4"
    call(*words.split(), "--max-iter", 7)
    assert seen["n_clusters"] == (2, 4, 6, 10, 11)
    assert [arm.name for arm in seen["arms"]] == ["mlx-cpu"]
    assert (seen["n_init"], seen["seed"], seen["repeat"], seen["max_iter"]) == (2, 5, 4, 7)
    assert seen["data"] == str(source)
    assert seen["command"] == (
        f"mnist-kmeans-mlx compare --data {source} --ks 2,4,6,10,11 --arms mlx-cpu --repeat 4 "
        "--n-init 2 --max-iter 7 --seed 5"
    )


def test_what_cannot_be_compared_is_one_sentence(call, source, tmp_path):
    (tmp_path / "file").write_text("")
    for words, reason in (
        (["--data", "none.npy"], "none.npy"),
        (
            ["--data", str(source), "-k", "1501"],
            "1501 clusters are more than the 1500 rows: choose fewer with -k (n_clusters).",
        ),
        (["--save", str(tmp_path / "file" / "out")], "Not a directory"),
    ):
        assert reason in complaint(call("compare", *words, "-q", code=1))


def test_ctrl_c_ends_the_workers(tmp_path):
    """On a terminal, where Ctrl-C reaches the workers too."""
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(40_000, 50)))
    (tmp_path / "tmp").mkdir()
    words = ("compare", "-k", 200, "--n-init", 50, "--arms", "sklearn-lloyd-float64", "--data")
    group = []

    def press(process):
        group.append(process.pid)
        os.killpg(process.pid, signal.SIGINT)

    seen = interrupted(
        (*words, tmp_path / "rows.npy"), {**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        b"K = 200, round 1 of 3", press, start_new_session=True,
    )  # fmt: skip
    assert seen.endswith(b"Interrupted.\r\n")
    assert os.listdir(tmp_path / "tmp") == []
    with pytest.raises(ProcessLookupError):  # nobody of its group is left
        os.killpg(group[0], 0)
