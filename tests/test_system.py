import os
from types import SimpleNamespace

import psutil
import pytest

from mnist_kmeans_mlx import system

LARGE = 1 << 62


@pytest.fixture
def groups(tmp_path):
    """Files of control groups: ``groups(path, limit, used, files)``; the first is the process's."""

    def make(version, path, limit, used, files):
        names = system._CGROUPS[version]
        folder = tmp_path / names[0].lstrip("/") / path.lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[1]).write_text(f"{limit}\n")
        (folder / names[2]).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\n{names[3]} {files}\n")
        process = tmp_path / "proc/self/cgroup"
        if not process.exists():
            process.parent.mkdir(parents=True)
            line = f"0::{path}" if version == "" else f"7:memory:{path}"
            process.write_text(f"3:cpu:/elsewhere\n{line}\n")
        return f"{tmp_path}/"

    return make


@pytest.mark.parametrize("version", ["", "memory"])
def test_what_a_container_has_used_is_not_free(version, groups, monkeypatch):
    root = groups(version, "/jobs/7", 4 << 30, 3900 << 20, 100 << 20)
    groups(version, "/jobs", "max" if version == "" else LARGE, 5 << 30, 0)
    found = system._containers(root)
    assert (4 << 30, 3800 << 20) in found
    monkeypatch.setattr(system, "_containers", lambda: found)
    assert system.free_bytes() == min((4 << 30) - (3800 << 20), psutil.virtual_memory().available)
    assert system.memory_bytes() == min(4 << 30, psutil.virtual_memory().total)


def test_a_limit_further_up_counts_too(groups):
    root = groups("", "/jobs/7", "max", 1 << 30, 0)
    groups("", "/jobs", 2 << 30, 1 << 30, 0)
    groups("", "/", 8 << 30, 3 << 30, 1 << 30)
    assert system._containers(root) == [(2 << 30, 1 << 30), (8 << 30, 2 << 30)]


def test_no_container_no_limit(tmp_path, monkeypatch):
    assert system._containers(f"{tmp_path}/") == []
    monkeypatch.setattr(system, "_containers", list)
    assert system.memory_bytes() == psutil.virtual_memory().total
    # A Mac has no such groups: what psutil says counts, not half of all.
    told = SimpleNamespace(total=16, available=3)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: told)
    assert (system.memory_bytes(), system.free_bytes()) == (16, 3)


def test_this_machine():
    assert 0 < system.free_bytes() <= system.memory_bytes()
    assert 1 <= system.cores() <= os.cpu_count()
    assert system.machine_name()


def test_fewer_cores_may_be_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert system.cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert system.cores() >= 1
