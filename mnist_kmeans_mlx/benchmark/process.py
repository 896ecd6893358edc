"""A worker as seen by who started it: asked one thing, heard to its end, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Worker", "WorkerFailed"]

_WORKER = "mnist_kmeans_mlx.benchmark.worker"


class WorkerFailed(RuntimeError):
    """A worker broke down, or said that it cannot go on."""


class Worker:
    """A fresh process for one job, ended with the block that it is used in."""

    def __init__(self) -> None:
        # The same package as here, wherever it was started from, and nothing from the folder.
        paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self._started = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=environment,
            )
        except BaseException:
            self._complaints.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._complaints):
            if stream is not None:
                with contextlib.suppress(OSError):  # what was still to be written
                    stream.close()

    def ask(
        self, job: dict[str, Any], observe: Callable[[str, float], None] = lambda event, at: None
    ) -> dict[str, Any]:
        """Have a job done.

        Parameters
        ----------
        job : dict
            What `worker.main` reads.
        observe : callable, optional
            Called with each event that the worker tells and the seconds since its start.

        Returns
        -------
        dict
            The answer.

        Raises
        ------
        WorkerFailed
            There is none; the message says why.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # A worker that is already gone is noticed below.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
        for line in self.process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise WorkerFailed(answer["error"])
            if "event" not in answer:
                return dict(answer)
            observe(answer["event"], time.perf_counter() - self._started)
        raise WorkerFailed(self._last_words())

    def _last_words(self) -> str:
        """How the process ended, and the last that it complained of."""
        code = self.process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            how = f"its process was ended by {name}"
            if name == "SIGKILL":
                how += ", as systems do that run out of memory"
        else:
            how = f"its process ended with code {code}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").splitlines()
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how} ({said})" if said else how
