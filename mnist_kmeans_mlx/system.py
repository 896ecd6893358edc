"""The machine: its processor, its cores, its memory and what of it is free."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path, PurePosixPath

import psutil

# What a control group calls its limit, what it uses, and which part of that are files that the
# kernel drops when memory is wanted: in version 2 of the hierarchy, and in version 1.
_CGROUPS = {
    "": ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}


def cores() -> int:
    """Cores that this process may use, as joblib and OpenMP count them."""
    import joblib  # half a second that the command line has no use for

    limit = os.environ.get("OMP_NUM_THREADS", "")
    cores: int = joblib.cpu_count()
    return min(cores, int(limit)) if limit.isdecimal() and int(limit) > 0 else cores


def same_package() -> dict[str, str]:
    """Environment in which another Python finds the package that runs here."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def memory_bytes() -> int:
    """Memory of the machine, or of the container that this process runs in."""
    limits = [limit for limit, _ in _containers()]
    return min([psutil.virtual_memory().total, *limits])


def free_bytes() -> int:
    """Memory that this process can still take without swapping."""
    left = [limit - used for limit, used in _containers()]
    return max(0, min([psutil.virtual_memory().available, *left]))


def machine_name() -> str:
    """Model of the machine's processor, as its system names it."""
    if sys.platform == "darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0 and answer.stdout.strip():
            return answer.stdout.strip()
    elif sys.platform == "linux":
        try:
            with open("/proc/cpuinfo", encoding="utf-8") as lines:
                for line in lines:
                    if line.startswith("model name"):
                        return line.split(":", 1)[1].strip()
        except OSError:
            pass
    return platform.processor() or platform.machine()


def multiply_as_float32() -> None:
    """Have MLX multiply float32 as float32, in a process of our own and before MLX is loaded.

    CUDA and M5 GPUs otherwise round what is multiplied to TF32. MLX reads this once for the whole
    process: in a process of others, where it would slow their training down, `Device` measures what
    products lose instead. The labels are the same; more of them are decided in float64.
    """
    os.environ.setdefault("MLX_ENABLE_TF32", "0")


def _containers(root: str = "/") -> list[tuple[int, int]]:
    """Limit of each control group around this process that has one, and what it uses."""
    try:
        groups = Path(root, "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers not in _CGROUPS:
            continue
        mount, limit, usage, reclaimable = _CGROUPS[controllers]
        # In a container the path may be that of the host, which is not to be seen from inside.
        for part in [PurePosixPath(path), *PurePosixPath(path).parents]:
            folder = Path(root + mount.lstrip("/") + str(part))
            try:
                most = int((folder / limit).read_text())
                used = int((folder / usage).read_text())
                files = dict(map(str.split, (folder / "memory.stat").read_text().splitlines()))
            except (OSError, ValueError):  # none, or "max"
                continue
            found.append((most, used - int(files.get(reclaimable, 0))))
    return found
