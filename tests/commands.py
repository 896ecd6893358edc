"""How tests run commands, scripts and code: in this process, in another, or on a terminal."""

import io
import os
import pty
import subprocess
import sys
import termios
import time
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from mnist_kmeans_mlx.cli import main

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "mnist_kmeans_mlx"]


def settings(home, device):
    """An environment that keeps a command away from this user's own log."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MNIST_KMEANS")}
    return kept | {
        "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "COLUMNS": "100", "TERM": "xterm",
        "MNIST_KMEANS_MLX_DEVICE": device,
    }  # fmt: skip


def caller(environment):
    """Calls with this environment, to which `env` adds."""

    def run(*words, code=0, env=None):
        return call(*words, code=code, env={**environment, **(env or {})})

    return run


def call(*words, code=0, env=None):
    """Run a command in this process; it must end with this status, and without a traceback."""
    words = [str(word) for word in words]
    done = CliRunner().invoke(main, words, env=env, prog_name="mnist-kmeans-mlx")
    assert done.exit_code == code, (done.output, done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done


def complaint(done):
    """The error with which a call ended: one line on stderr, and nothing on stdout."""
    assert done.stderr.startswith("Error: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def text_of(view, width, **options):
    """What a terminal of this width shows of a view."""
    file = io.StringIO()
    Console(file=file, width=width, **options).print(view)
    return file.getvalue()


def run(*words, code=0, **options):
    """Run Python on a script or on ``-c`` and code; it must end with this status."""
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def run_script(name, *words, code=0):
    """Run one of the scripts, as `run` does."""
    return run(ROOT / "scripts" / name, *words, code=code)


def interrupted(words, env, sign, press, **settings):
    """Run a command on a terminal, and `press` Ctrl-C once it shows a sign; returns all it showed.

    It must end with status 130, and print nothing to its stdout.
    """
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, 100))
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)], env=env | {"TERM": "xterm"}, stdin=end,
        stdout=subprocess.PIPE, stderr=end, **settings,
    )  # fmt: skip
    os.close(end)
    seen, pressed, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            part = os.read(terminal, 1024)
        except OSError:  # how a terminal on Linux says that nobody writes to it any more
            break
        if not part:
            break
        seen += part
        if sign in seen and not pressed:
            time.sleep(0.5)
            press(process)
            pressed = True
    os.close(terminal)
    if time.monotonic() >= deadline:
        process.kill()
    assert process.stdout.read() == b""
    process.stdout.close()
    assert process.wait(60) == 130
    assert b"Traceback" not in seen
    return seen
