"""Description of the machine and its BLAS, by a process that computes nothing else."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from mnist_kmeans_mlx.benchmark.arms import ARMS
from mnist_kmeans_mlx.benchmark.notes import SLOWING
from mnist_kmeans_mlx.system import cores, machine_name


def survey(device: str = "auto") -> dict[str, Any]:
    """Describe the machine, and say which arms cannot run on it.

    Returns
    -------
    dict
        ``machine``: facts by name; ``unavailable``: for names of arms, the reason.
    """
    load = os.getloadavg()
    unavailable: dict[str, str] = {}
    try:
        from mnist_kmeans_mlx.device import DeviceError, describe, resolve
    except ImportError as error:
        reason = f"MLX cannot be loaded ({' '.join(str(error).split())})"
        unavailable = {arm.name: reason for arm in ARMS if arm.ours}
        machine = _without_mlx()
    else:
        machine = describe(device)
        for arm in ARMS:
            try:
                if arm.ours:
                    resolve(arm.device)
            except DeviceError:
                unavailable[arm.name] = f"MLX finds no {arm.device.upper()} here"
    machine["cores"] = cores()
    machine["blas"] = _blas()
    machine["load_average"] = [round(value, 2) for value in load]
    machine["settings"] = {
        name: value
        for name, value in sorted(os.environ.items())
        if name in SLOWING or name.endswith("_NUM_THREADS")
    }
    return {"machine": machine, "unavailable": unavailable}


def _without_mlx() -> dict[str, Any]:
    import numpy as np
    import sklearn

    return {
        "machine": machine_name(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def _blas() -> list[str]:
    """Libraries that multiply and share work out, with the kernels they chose."""
    import numpy as np
    import scipy.linalg  # noqa: F401
    import sklearn.cluster  # noqa: F401
    from threadpoolctl import threadpool_info

    pools = threadpool_info()
    found = sorted(_pool(pool) for pool in pools)
    if not any(pool["user_api"] == "blas" for pool in pools):
        config: Any = np.show_config(mode="dicts")
        name = config.get("Build Dependencies", {}).get("blas", {}).get("name", "unknown")
        found.insert(0, f"numpy: {name}, of whose kernels and threads threadpoolctl knows nothing")
    return found


def _pool(pool: dict[str, Any]) -> str:
    folder = Path(pool["filepath"]).parent.name
    owner = folder.removesuffix(".libs") if folder.endswith(".libs") else pool["prefix"]
    words = [str(pool["internal_api"])]
    if pool.get("version"):
        words.append(str(pool["version"]))
    if pool.get("architecture"):
        words.append(f"with kernel {pool['architecture']}")
    threads = pool["num_threads"]
    return f"{owner}: {' '.join(words)}, {threads} thread{'' if threads == 1 else 's'}"
