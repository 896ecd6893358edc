"""Arms, clocks, workers and the judge; how fast anything is, no test asks."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
from commands import run
from sklearn.cluster import KMeans

from mnist_kmeans_mlx import estimator
from mnist_kmeans_mlx.benchmark import ARMS, REFERENCE, BenchmarkError, choose_arms, flow, process
from mnist_kmeans_mlx.benchmark.clock import Stopwatch
from mnist_kmeans_mlx.benchmark.judge import Answer, Judge, sse
from mnist_kmeans_mlx.benchmark.machine import survey
from mnist_kmeans_mlx.benchmark.notes import general_notes
from mnist_kmeans_mlx.benchmark.process import Worker, WorkerFailed
from mnist_kmeans_mlx.benchmark.result import QUOTED, Spread
from mnist_kmeans_mlx.experiment import Data, ExperimentError

OURS = next(arm for arm in ARMS if arm.name == "mlx-cpu")


# Arms


def test_arms_are_chosen_by_the_first_parts_of_their_names():
    names = [arm.name for arm in ARMS]
    assert len(names) == len(set(names)) == 6
    assert [arm.name for arm in choose_arms("sklearn,mlx")] == names
    assert [arm.name for arm in choose_arms(" mlx-gpu , sklearn-lloyd")] == [
        "sklearn-lloyd-float64", "sklearn-lloyd-float32", "mlx-gpu",
    ]  # fmt: skip
    assert REFERENCE.name == "sklearn-lloyd-float64"


@pytest.mark.parametrize("names", ["", "sk", "sklearn-", "mlx,", "mlx-tpu", "sklearn-lloyd-int8"])
def test_a_name_that_fits_no_arm_is_refused_with_those_that_there_are(names):
    with pytest.raises(BenchmarkError, match="there are sklearn-lloyd-float64, "):
        choose_arms(names)


# Clocks


def test_a_stopwatch_counts_all_time_once(monkeypatch):
    now = 0.0

    def settle():
        nonlocal now
        now += 0.5  # work that was still to be done belongs to the stage that ends

    monkeypatch.setattr("time.perf_counter", lambda: now)
    watch = Stopwatch(settle)
    watch.switch("a")
    now += 1
    assert watch.switch("b") == "a"
    now += 2
    watch.switch("a")
    now += 4
    with watch.stage("c"):
        now += 16
    watch.switch(None)
    now += 8
    watch.switch("a")
    assert watch.seconds == {"a": 1.5 + 4.5 + 0.5, "b": 2.5, "c": 16.5}


def test_the_engine_tells_its_stages(device):
    told = []

    @contextmanager
    def stage(name):
        told.append(name)
        yield
        told.append(f"end of {name}")

    rows = np.random.default_rng(0).normal(size=(200, 3))
    model = estimator.KMeans(4, n_init=1, random_state=0, device=device)
    model._fit(rows, stage=stage)
    names = [name for name in told if "upload" not in name]
    assert names[::2] == ["seeding", "iterations", "final"]
    assert names[1::2] == [f"end of {name}" for name in names[::2]]


def test_a_spread_is_median_least_and_most():
    assert Spread((3.0, 1.0, 9.0)).to_dict() == {
        "median": 3.0, "low": 1.0, "high": 9.0, "values": [3.0, 1.0, 9.0],
    }  # fmt: skip


# The machine


def test_the_survey_names_the_kernels_and_why_an_arm_cannot_run(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    found = survey()
    machine = found["machine"]
    assert machine.keys() >= {"machine", "system", "cores", "blas", "load_average", "numpy", "mlx"}
    assert machine["settings"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert any("numpy" in line for line in machine["blas"])
    assert set(found["unavailable"]) <= {"mlx-gpu"}
    import mlx.core as mx

    has_gpu = mx.metal.is_available() or mx.cuda.is_available()
    assert found["unavailable"] == ({} if has_gpu else {"mlx-gpu": "MLX finds no GPU here"})


def test_the_survey_where_mlx_does_not_load(monkeypatch):
    monkeypatch.delitem(sys.modules, "mnist_kmeans_mlx.device")
    monkeypatch.setitem(sys.modules, "mlx.core", None)
    found = survey()
    assert set(found["unavailable"]) == {"mlx-cpu", "mlx-gpu"}
    assert all(
        reason.startswith("MLX cannot be loaded") for reason in found["unavailable"].values()
    )
    assert found["machine"]["scikit-learn"]


def test_only_arms_that_run_are_explained():
    (said,) = (note for note in general_notes([OURS], {}) if note.startswith("mlx-cpu"))
    assert "NumPy" in said
    assert not any("mlx-cpu" in note for note in general_notes([REFERENCE], {}))


def test_variables_that_slow_openblas_are_in_the_notes():
    notes = general_notes(ARMS, {"settings": {"OPENBLAS_L2_SIZE": "512", "OMP_NUM_THREADS": "1"}})
    assert "OPENBLAS_L2_SIZE set in the environment" in notes[-1]
    assert "OMP_NUM_THREADS" not in notes[-1]


def test_the_quoted_figures_are_the_notebooks():
    assert [(q["n_clusters"], q["seconds"], q["train_accuracy"]) for q in QUOTED] == [
        (15, 37.6, 0.67643), (20, 28.8, 0.71753),
    ]  # fmt: skip


# Workers


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Have workers run a given script."""

    def act(code):
        (tmp_path / "stand_in.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(process, "_COMMAND", (sys.executable, "-P", "-m", "stand_in"))

    return act


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; sys.exit('no memory today')", "ended with code 1 (no memory today)"),
        ("import os; os._exit(3)", "ended with code 3"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL, as systems do that run out of memory"),
        ("""print('{"error": "out of luck"}')""", "out of luck"),
        ("""print('{"event": "ready"}')""", "ended with code 0"),
    ],
)
def test_a_worker_that_dies_says_how(play, code, words):
    play(code)
    with Worker() as worker, pytest.raises(WorkerFailed) as caught:
        worker.ask({})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert worker.process.returncode is not None


def test_a_worker_never_outlives_the_block(play):
    play("import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt), Worker() as worker:
        raise KeyboardInterrupt
    assert worker.process.returncode == -signal.SIGKILL


def test_a_worker_never_outlives_who_started_it(tmp_path):
    code = (
        "import time\n"
        "from mnist_kmeans_mlx.benchmark.process import Worker\n"
        "worker = Worker()\n"
        'worker.process.stdin.write(b\'{"do": "survey"}\\n\'); worker.process.stdin.flush()\n'
        "print(worker.process.pid, flush=True); time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = parent.stdout.readline().strip().decode()
        parent.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "state=", "-p", pid], capture_output=True, text=True)
        if state.stdout.strip() in ("", "Z"):
            break
        time.sleep(0.05)
    else:
        os.kill(int(pid), signal.SIGKILL)
        pytest.fail("the worker goes on")


def test_scikit_learns_worker_does_not_load_mlx():
    code = (
        "import sys\n"
        "from mnist_kmeans_mlx.benchmark import REFERENCE\n"
        "from mnist_kmeans_mlx.benchmark.worker import _ScikitLearn\n"
        "_ScikitLearn(REFERENCE)\n"
        "print([name for name in sys.modules if name.startswith('mlx')])"
    )
    assert run("-c", code).stdout == "[]\n"


# The judge


@pytest.fixture(scope="module")
def data():
    rows = oracle.make_rows("pixels", 400, 6, 0).astype(np.uint8)
    truth = rows[:, 0] // 64
    return Data("d", rows[:300], truth[:300], rows[300:], truth[300:], unit=255.0)


def answer_of(data, k=5, seed=0, **changes):
    model = KMeans(k, random_state=seed, n_init=1).fit(data.train.astype(float))
    return Answer(
        labels=model.labels_,
        centers=model.cluster_centers_,
        test=model.predict(data.test.astype(float)),
        n_iter=changes.get("n_iter", model.n_iter_),
        inertia=changes.get("inertia", model.inertia_ / data.unit**2),
        seeds=(),
    )


def test_the_judge_has_nothing_against_the_same_answer(data):
    answer = answer_of(data)
    judge = Judge(data, answer)
    found = judge.examine(answer)
    assert judge.objections(found) == ()
    assert found["agreement"] == found["ari"] == 1
    assert found["inertia_gap"] == found["differing"] == found["ties"] == 0


def test_the_judge_counts_for_itself(data):
    answer = answer_of(data)
    found = Judge(data, answer).examine(answer)
    distances = oracle.distances_sq(data.train / 255, answer.centers / 255)
    assert found["inertia"] == pytest.approx(distances.min(axis=1).sum(), rel=1e-12)
    named = [np.bincount(data.y_train[answer.labels == c]).argmax() for c in range(5)]
    named = np.array(named)
    assert found["train_accuracy"] == np.mean(named[answer.labels] == data.y_train)
    assert found["test_accuracy"] == np.mean(named[answer.test] == data.y_test)


def test_the_judge_objects_to_another_clustering(data):
    judge = Judge(data, answer_of(data))
    other = answer_of(data, seed=3)
    found = judge.examine(other)
    said = " ".join(judge.objections(found))
    assert "SSE is " in said
    assert "in another cluster" in said
    assert found["ari"] < 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n_iter": 1}, "it took 1 iterations, scikit-learn "),
        ({"inertia": 1.0}, "it reports an SSE of 1, but its labels"),
        ({"inertia": float("nan")}, "it reports an SSE of nan"),
    ],
)
def test_the_judge_objects_to_every_kind_of_mismatch(data, changes, words):
    judge = Judge(data, answer_of(data))
    objections = judge.objections(judge.examine(answer_of(data, **changes)))
    assert len(objections) == 1
    assert words in objections[0]


def test_one_label_that_is_wrong_is_a_mismatch_and_a_tie_is_none(data):
    rows = np.array([[0.0], [2], [4], [1]])
    matrix = Data("line", rows)
    right = Answer(np.array([0, 1, 1, 0]), np.array([[0.0], [2.0]]), None, 1, 5.0, ())
    tie = dataclasses.replace(right, labels=np.array([0, 1, 1, 1]))
    wrong = dataclasses.replace(right, labels=np.array([1, 1, 1, 0]), inertia=9.0)
    judge = Judge(matrix, right)
    assert sse(matrix, right) == 5
    found = judge.examine(tie)
    assert (found["differing"], found["ties"], judge.objections(found)) == (1, 1, ())
    found = judge.examine(wrong)
    assert (found["differing"], found["ties"]) == (1, 0)
    assert any("1 row is in another cluster" in words for words in judge.objections(found))


def test_rows_that_sit_on_their_centres_are_no_mismatch():
    rows = np.array([[1e3], [1e3], [2e3]])
    exact = Answer(np.array([0, 0, 1]), np.array([[1e3], [2e3]]), None, 2, 0.0, ())
    rounded = dataclasses.replace(exact, centers=exact.centers * (1 + 1e-15), inertia=1e-24)
    judge = Judge(Data("r", rows), exact)
    assert judge.objections(judge.examine(rounded)) == ()
    # Of two centres at the same place, which one is nearest is up to rounding.
    doubled = dataclasses.replace(exact, centers=np.array([[1e3], [2e3], [1e3 * (1 + 2e-16)]]))
    other = dataclasses.replace(doubled, labels=np.array([0, 2, 1]))
    found = Judge(Data("r", rows), doubled).examine(other)
    assert (found["differing"], found["ties"]) == (1, 1)
    off = dataclasses.replace(exact, centers=np.array([[1e3], [2001.0]]), inertia=1.0)
    assert judge.objections(judge.examine(off))


# The comparison, with workers of straw


class Straw:
    """A worker that answers from what scikit-learn finds, but for what the test changes."""

    log: list
    changes: dict

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ask(self, job, observe=None):
        if job["do"] == "survey":
            return {"machine": {"system": "Linux"}, "unavailable": {"mlx-gpu": "none"}}
        name = job["arm"]["name"]
        self.log.append((job["n_clusters"], name, job["fits"]))
        changes = self.changes.get(name, {})
        if "dies" in changes and len(self.log) > changes["dies"]:
            raise WorkerFailed("its process was ended by SIGKILL")
        observe("ready", 1.0)
        rows = np.load(job["source"]).astype(float)
        seed = changes.get("seed", job["seed"])
        model = KMeans(job["n_clusters"], random_state=seed, n_init=1).fit(rows)
        np.save(f"{job['folder']}/labels.npy", model.labels_)
        np.save(f"{job['folder']}/centers.npy", model.cluster_centers_)
        turn = sum(entry[:2] == (job["n_clusters"], name) for entry in self.log)
        seconds = changes.get("seconds", 1.0) * turn
        fits = [{"seconds": 2 * seconds, "stages": {}}, {"seconds": seconds, "stages": {"load": 1}}]
        return {
            "fits": fits[: job["fits"]],
            "answers": [str(turn)] if changes.get("moody") else ["same"],
            "seeds": [seed] if job["staged"] else [],
            "n_iter": model.n_iter_ + changes.get("n_iter", 0),
            "inertia": model.inertia_,
        }


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Compare on 200 rows, with workers of straw."""
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(200, 3)))

    def run(changes=None, **options):
        straw = type("Arms", (Straw,), {"log": [], "changes": changes or {}})
        monkeypatch.setattr(flow, "Worker", straw)
        options = {"n_clusters": (4,), "repeat": 2, **options}
        found = flow.compare(tmp_path / "rows.npy", **options)
        return SimpleNamespace(
            found=found,
            log=straw.log,
            rows={row.arm.name: row for row in found.cases[0].rows},
            failures=" ".join(found.failures),
            notes=" ".join([*found.notes, *found.cases[0].notes]),
        )

    return run


def test_arms_take_turns_and_each_round_begins_with_another(compare):
    done = compare(n_clusters=(2, 3), repeat=3, arms=choose_arms("sklearn-lloyd,mlx-cpu"))
    names = ["sklearn-lloyd-float64", "sklearn-lloyd-float32", "mlx-cpu"]
    rounds = [names, names[1:] + names[:1], names[2:] + names[:2]]
    assert [name for _, name, _ in done.log] == [n for _ in range(2) for r in rounds for n in r]
    assert [case.n_clusters for case in done.found.cases] == [2, 3]
    assert done.failures == ""


def test_speed_up_is_that_of_each_round(compare):
    done = compare({"sklearn-elkan-float64": {"seconds": 0.5}, "mlx-cpu": {"seconds": 0.1}})
    assert done.found.cases[0].fastest == "sklearn-elkan-float64"
    assert done.rows["mlx-cpu"].speedup.values == pytest.approx((5, 5))
    assert done.rows["mlx-cpu"].warm.values == pytest.approx((0.1, 0.2))
    assert done.rows["mlx-cpu"].cold.values == pytest.approx((0.2, 0.4))
    assert done.rows["sklearn-lloyd-float64"].speedup.median == pytest.approx(0.5)
    assert done.rows["mlx-cpu"].stages == {"start": 1.0, "load": 1}


def test_an_arm_that_cannot_run_is_listed_with_the_reason(compare):
    done = compare(arms=choose_arms("mlx"))
    assert done.rows["mlx-gpu"].verdict == "cannot run"
    assert done.rows["mlx-gpu"].reason == "none"
    assert done.found.unavailable == {"mlx-gpu": "none"}
    assert done.failures == ""
    assert done.found.to_dict()["arms"][-1]["unavailable"] == "none"


def test_if_no_arm_can_run_that_is_a_failure(compare):
    done = compare(arms=choose_arms("mlx-gpu"))
    assert done.log == []
    assert done.failures == "None of these arms can run here."


def test_the_reference_is_asked_unseen_where_it_is_no_arm(compare):
    done = compare(arms=choose_arms("mlx-cpu"))
    assert done.log[-1] == (4, "sklearn-lloyd-float64", 1)
    assert list(done.rows) == ["mlx-cpu"]
    assert done.rows["mlx-cpu"].verdict == "same"
    assert done.rows["mlx-cpu"].speedup is None
    assert "run once for this and not timed" in done.notes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 7}, "in another cluster"),
        ({"n_iter": 1}, "iterations"),
        ({"moody": True}, "does not find the same every time"),
    ],
)
def test_a_mismatch_of_ours_is_a_failure(compare, changes, words):
    done = compare({"mlx-cpu": changes})
    assert done.rows["mlx-cpu"].verdict == "MISMATCH"
    assert done.rows["mlx-cpu"].speedup is None, "a wrong answer is not quick"
    assert done.failures.startswith("K = 4, mlx-cpu: ")
    assert words in done.failures


def test_where_scikit_learns_algorithms_part_ours_may_go_with_either(compare):
    parted = {"mlx-cpu": {"seed": 7}, "sklearn-elkan-float64": {"seed": 7}}
    for names in ("sklearn,mlx", "sklearn-lloyd,mlx", "mlx"):
        done = compare(parted, arms=choose_arms(names))
        assert done.rows["mlx-cpu"].verdict == "as elkan"
        assert done.failures == ""
        assert "mlx-cpu gives the answer of sklearn-elkan-float64" in done.notes
    again = compare({**parted, "sklearn-elkan-float64": {"dies": 0}})
    assert again.rows["mlx-cpu"].verdict == "MISMATCH"
    third = compare({**parted, "sklearn-elkan-float64": {"seed": 8}})
    assert third.rows["mlx-cpu"].verdict == "MISMATCH"


def test_scikit_learns_own_seeds_and_whims_are_notes(compare):
    done = compare(
        {
            "sklearn-lloyd-float32": {"seed": 7, "seconds": 0.1},
            "sklearn-elkan-float32": {"seed": 7},
            "sklearn-elkan-float64": {"n_iter": 1, "moody": True},
        }
    )
    assert done.failures == ""
    verdicts = {name: row.verdict for name, row in done.rows.items()}
    assert verdicts["sklearn-lloyd-float32"] == verdicts["sklearn-elkan-float32"] == "own seeds"
    assert verdicts["sklearn-elkan-float64"] == "differs"
    assert "sklearn-lloyd-float32 and sklearn-elkan-float32: own seeds" in done.notes
    assert "sklearn-elkan-float64 does not find the same every time" in done.notes
    assert "sklearn-elkan-float64 does not give the answer of the reference" in done.notes
    # The fastest has found something else: both ratios are told.
    assert done.found.cases[0].fastest == "sklearn-lloyd-float32"
    assert done.found.cases[0].fastest_same == "sklearn-lloyd-float64"
    assert "mlx-cpu is 1 times as fast" in done.notes
    assert done.rows["mlx-cpu"].speedup.median == pytest.approx(0.1)
    assert done.rows["mlx-cpu"].speedup_same.median == pytest.approx(1)


@pytest.mark.parametrize("name", ["mlx-cpu", "sklearn-elkan-float64"])
def test_an_arm_that_breaks_down_is_a_failure_and_the_others_go_on(compare, name):
    done = compare({name: {"dies": 5}})
    row = done.rows[name]
    assert row.verdict == "failed"
    assert row.speedup is None
    assert done.failures == f"K = 4, {name}: its process was ended by SIGKILL."
    assert done.rows["sklearn-lloyd-float32"].verdict == "same"
    assert done.found.cases[0].fastest != name


def test_without_a_reference_nothing_is_confirmed(compare):
    done = compare({"sklearn-lloyd-float64": {"dies": 0}})
    assert {row.verdict for row in done.rows.values()} == {"failed", "cannot run"}
    assert done.rows["mlx-cpu"].warm is not None
    assert "could not be checked, for scikit-learn failed: its process" in done.failures


def test_a_machine_that_cannot_be_described_is_one_sentence(compare, monkeypatch):
    def fail(self, job, observe=None):
        raise WorkerFailed("its process ended with code 1 (no sklearn)")

    monkeypatch.setattr(Straw, "ask", fail)
    with pytest.raises(BenchmarkError, match=r"cannot be described: its process .* \(no sklearn\)"):
        compare()


def test_more_clusters_than_rows_are_refused_before_anything_runs(compare):
    with pytest.raises(ExperimentError, match="201 clusters are more than the 200 rows"):
        compare(n_clusters=(3, 201))


def test_rows_that_memory_does_not_hold_are_refused(compare, monkeypatch):
    monkeypatch.setattr("mnist_kmeans_mlx.memory.free_bytes", lambda: 1)
    with pytest.raises(ExperimentError, match=r"rows.npy is larger than half"):
        compare()
