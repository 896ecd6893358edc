"""The parent's side of a worker process: send a job, read the answer, always end the process."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from mnist_kmeans_mlx.system import same_package

# Nothing is imported from the folder it is started in.
_COMMAND = (sys.executable, "-P", "-m", "mnist_kmeans_mlx.benchmark.worker")


class WorkerFailed(RuntimeError):
    """A worker ended without an answer, or reported an error."""


class TimeLimit(WorkerFailed):
    """A worker took longer than it may; its process is gone."""


class Worker:
    """A fresh process that answers jobs, ended with the block that it is used in.

    Parameters
    ----------
    command : sequence of str, optional
        What to run: reads a job as a line of JSON, and writes events and its answer as others.
    environment : mapping, optional
        Of the process; by default one in which Python finds this package.
    """

    def __init__(
        self,
        command: Sequence[str | os.PathLike[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115
        self._started = time.perf_counter()
        try:
            self.process = subprocess.Popen(
                command or _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                env=same_package() if environment is None else environment,
                bufsize=0,  # select() does not see what a buffer has read ahead
            )
        except BaseException:
            self._complaints.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self._complaints):
            if stream is not None:
                with contextlib.suppress(OSError):  # on unsent data
                    stream.close()

    def ask(
        self,
        job: Mapping[str, Any],
        observe: Callable[[str, float], None] = lambda event, at: None,
        limit: float | None = None,
    ) -> dict[str, Any]:
        """Have a job done, and return the answer.

        Parameters
        ----------
        observe : callable, optional
            Called with each event that the worker tells and the seconds since its start.
        limit : float, optional
            Most seconds between two lines of the worker.

        Raises
        ------
        WorkerFailed
            There is none; the message says why.
        """
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        # A worker that is already gone is noticed below.
        with contextlib.suppress(BrokenPipeError):
            stdin.write(json.dumps(job).encode() + b"\n")
        while True:
            if not select.select([stdout], [], [], limit)[0]:
                self.close()
                raise TimeLimit(f"took longer than {limit:.3g} s")
            line = stdout.readline()
            if not line:
                raise WorkerFailed(self._last_words())
            answer = json.loads(line)
            if "error" in answer:
                raise WorkerFailed(answer["error"])
            if "event" not in answer:
                return dict(answer)
            observe(answer["event"], time.perf_counter() - self._started)

    def _last_words(self) -> str:
        """How the process ended, and the last line of its stderr."""
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
