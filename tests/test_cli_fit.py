"""``fit`` with --checkpoint and --resume, and what becomes of Ctrl-C."""

import json
import os
import signal
import subprocess
import time

import numpy as np
import pytest
from commands import COMMAND, complaint

from mnist_kmeans_mlx.persistence import load_model

FOUND = ("inertia", "n_iter", "seed", "command", "clusters", "parameters")


@pytest.fixture
def fit(call, tmp_path):
    """Cluster some rows in this process."""
    rows = np.random.default_rng(0).normal(size=(600, 4)) * [3, 2, 1, 1]
    np.save(tmp_path / "rows.npy", rows)

    def fit(*words, code=0):
        data = ("--data", tmp_path / "rows.npy")
        return call("fit", *data, "-k", 7, "--n-init", 2, "--no-log", *words, code=code)

    return fit


@pytest.fixture
def interrupt(monkeypatch):
    """End the next fit as Ctrl-C does, after some iterations."""

    def interrupt(after):
        from mnist_kmeans_mlx.checkpoint import Checkpoint

        note = Checkpoint.note
        left = after

        def count(self, standing, position):
            nonlocal left
            note(self, standing, position)
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

        monkeypatch.setattr(Checkpoint, "note", count)
        # Of restarts side by side, how much is told depends on their pace.
        monkeypatch.setattr(
            "mnist_kmeans_mlx.engine.host.way.HostWay.side_by_side", lambda self, k: (1, 1)
        )

    return interrupt


def test_interrupted_and_resumed_the_result_is_the_same(fit, interrupt, tmp_path):
    expected = json.loads(fit("--seed", 3, "--json").stdout)
    path = tmp_path / "checkpoint"
    interrupt(5)
    done = fit("--seed", 3, "--checkpoint", path, code=130)
    assert done.stdout == ""
    assert done.stderr == ("The same command with --resume continues this fit.\n\nInterrupted.\n")
    done = fit("--checkpoint", path, "--resume", "--json")  # the seed is that of the checkpoint
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert {key: found[key] for key in FOUND} == {key: expected[key] for key in FOUND}
    again = json.loads(fit("--checkpoint", path, "--resume", "--json").stdout)
    assert again["inertia"] == expected["inertia"]


def test_time_adds_up(fit, interrupt, tmp_path):
    path = tmp_path / "checkpoint"
    interrupt(5)
    fit("--checkpoint", path, code=130)
    from mnist_kmeans_mlx.checkpoint import Checkpoint

    earlier = Checkpoint(path, resume=True).earlier
    assert earlier > 0
    found = json.loads(fit("--checkpoint", path, "--resume", "--json").stdout)
    assert found["timings"]["fit"] > earlier


def test_ctrl_c_saves_what_was_reached_unless_a_model_is_there(fit, interrupt, tmp_path):
    path = tmp_path / "model"
    interrupt(4)
    done = fit("--seed", 3, "--save", path, code=130)
    assert done.stderr == f"Saved {path}, with the fit incomplete\n\nInterrupted.\n"
    model = load_model(path)
    assert model.estimator.n_iter_ == 4
    assert model.metadata["interrupted"] is True
    before = path.read_bytes()
    interrupt(2)
    done = fit("--seed", 3, "--save", path, code=130)
    assert done.stderr == f"{path} exists and is not replaced.\n\nInterrupted.\n"
    assert path.read_bytes() == before


def test_without_a_file_to_resume_the_fit_begins_anew(fit, tmp_path):
    path = tmp_path / "checkpoint"
    done = fit("--checkpoint", path, "--resume")
    assert done.stderr == f"Note: {path} does not exist yet: the fit starts anew.\n"
    assert path.exists()
    assert fit("--checkpoint", tmp_path / "other", "--resume", "-q").stderr == ""


def test_errors_are_one_sentence(fit, tmp_path):
    path, model = tmp_path / "checkpoint", tmp_path / "model"
    fit("--checkpoint", path, "--save", model, "--seed", 1)
    for words, reason in (
        (("--checkpoint", path), "exists: resume it, or remove it to start again."),
        (("--checkpoint", path, "--resume", "--seed", 2), "random_state = 1, not 2."),
        (("--checkpoint", path, "--resume", "-k", 8), "n_clusters = 7, not 8."),
        (("--checkpoint", path, "--resume", "--data", "bundled"), "shape = [600, 4], not"),
        (("--checkpoint", model, "--resume"), "but not a checkpoint of mnist-kmeans-mlx."),
        (("--checkpoint", tmp_path / "no" / "x"), "No such file or directory"),
    ):
        assert reason in complaint(fit(*words, code=1))
    assert "needs a --checkpoint" in fit("--resume", code=2).stderr


def test_a_full_disk_is_one_error_and_leaves_the_last_good_file(
    fit, interrupt, tmp_path, full_disk, monkeypatch
):
    path = tmp_path / "checkpoint"
    interrupt(3)
    fit("--checkpoint", path, "--seed", 3, code=130)
    before = path.read_bytes()
    monkeypatch.undo()
    with full_disk(2048):
        done = fit("--checkpoint", path, "--resume", "--json", code=1)
    assert complaint(done) == f"Error: File too large: {path}\n"
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "rows.npy"]


@pytest.mark.slow
def test_ctrl_c_ends_it_soon_wherever_it_is(environment, tmp_path):
    """In a process of its own, while threads are at work: in seeding, then in the iterations."""
    path = tmp_path / "checkpoint"
    words = ("fit", "-k", "300", "--n-init", "50", "--no-log", "--seed", "0", "--checkpoint", path)
    for resume, wait in (([], 4), (["--resume"], 5)):
        # A shell starts background processes with SIGINT ignored, and so may we have been.
        process = subprocess.Popen(
            [*COMMAND, *words, *resume],
            env=environment,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=30)[1].decode()
        finally:
            process.kill()
        # Python itself ends by the signal if it comes while a module is being imported.
        assert process.returncode in (130, -signal.SIGINT), said
        assert said.endswith("Interrupted.\n")
        assert "Traceback" not in said
