"""The README as a reader follows it: its commands, run in order in one folder."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Walk:
    """Where the commands ran, and what each printed: its notes where there was no result."""

    folder: Path
    outputs: dict[str, str]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def console_commands():
    """Pairs of a command and the output shown below it, in order."""
    steps = [
        step
        for block in blocks("console")
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    ]
    return [(command, output) for command, _, output in (step.partition("\n") for step in steps)]


def walk(folder, device):
    """Run every command of the README."""
    environment = os.environ | {
        "COLUMNS": "80",
        "PYTHONUTF8": "1",
        "MNIST_KMEANS_MLX_DEVICE": device,
        "XDG_STATE_HOME": str(folder),
        "PYTHON": sys.executable,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    # They are in the way of a quick BLAS, and compare says so.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        environment.pop(name, None)
    ours = 'mnist-kmeans-mlx() { "$PYTHON" -m mnist_kmeans_mlx "$@"; }\n'
    outputs = {}
    for command, _ in console_commands():
        done = subprocess.run(
            ["bash", "-c", ours + command], cwd=folder, env=environment, capture_output=True,
            encoding="utf-8", check=False,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        outputs[command] = done.stdout or done.stderr
    return Walk(folder, outputs)
