"""Ranks: one fit in several processes, on one machine or many, through ``mx.distributed``.

Arrays are NumPy's on both sides, and every rank gets the same result to the last bit. Before each
operation the ranks tell one another, in one short word each, what they are about to do. So a rank
that is slow, one that failed and one that is somewhere else in the program can be told apart.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar, Token
from types import FrameType, TracebackType
from typing import Any

import mlx.core as mx
import numpy as np

from mnist_kmeans_mlx.system import cores

LOST = 75
"""Exit status of a rank that had to end itself: EX_TEMPFAIL, "try again"."""

_WORD = 1024  # bytes
_BLOCK = 16 << 20  # bytes that a rank sends or receives at a time
_TICK = 0.5  # seconds
# Parts of a group's timeout: to join; between two words of a rank that computes; to wait for a
# word, or for this process to end. A rank learns of a failure, and then ends, within the whole.
_JOINING, _BEAT, _PATIENCE = 0.6, 0.1, 0.8
# If the alarm does not interrupt `mx.distributed.init`, kill the process after this multiple of the
# joining time.
_HARD = 1.25
# Says a sentence, in place of a process that cannot, once there is a line to read.
_SPEAKER = 'read -r _ && printf "Error: %s\n" "$0" >&2'

Array = np.ndarray[Any, np.dtype[Any]]

_current: ContextVar[Group | None] = ContextVar("_current", default=None)


class DistributedError(RuntimeError):
    """A rank failed, was lost, or disagrees with the others; the job ends on every rank."""


class Group:
    """The ranks of a job.

    Use `init` or `solo`, and the group as a context manager around all that the ranks do together.

    Attributes
    ----------
    rank : int
        The number of this process, from 0.
    size : int
        How many there are.
    timeout : float
        Seconds within which every rank ends when one fails.

    Notes
    -----
    Within ``with``, a thread of each rank answers the others while the rank computes: a rank may be
    slow, but not silent. These end the job, on every rank:

    - a rank that raises: the others raise `DistributedError` with its words, wherever they are;
    - a rank that dies: its neighbours' connections break, and they raise `DistributedError`;
    - a rank that is stopped, or whose machine or network is gone: once the others have waited for
      it for 0.8 `timeout`, they say so on stderr and exit with status `LOST`, for no exception can
      end a collective operation of MLX;
    - a rank that has not ended that long after one of these: it exits in the same way.

    A rank that computes forever is not noticed. SIGTERM, which ``mlx.launch`` sends to the others
    when one rank fails, raises `DistributedError` as well, so that temporary files are removed.

    All operations are collective: each rank calls the same ones in the same order, from its main
    thread.

    Examples
    --------
    A process that nobody launched is a group of one:

    >>> import numpy as np
    >>> from mnist_kmeans_mlx.distributed import Group
    >>> with Group.init() as group:
    ...     group.agree("The fit", {"n_clusters": 20})
    ...     group.sum(np.array([1, 2], dtype=np.uint8)), group.gather(np.array([0.5]))
    (array([1, 2]), array([0.5]))
    """

    def __init__(self, ranks: mx.distributed.Group | None = None, timeout: float = 30.0) -> None:
        self.rank = 0 if ranks is None else ranks.rank()
        self.size = 1 if ranks is None else ranks.size()
        self.timeout = timeout
        self._ranks = ranks
        self._turn = threading.Lock()  # one operation at a time, whole
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []
        self._cleanups: list[Callable[[], object]] = []
        self._failure: str | None = None  # why the job is over
        self._ending = False  # the main thread knows
        self._within = False  # an operation: the others may no longer listen to words
        self._pending = False  # a collective operation of MLX
        self._waited = 0.0  # seconds, for it or for the end
        self._last = time.monotonic()
        self._held: Any = None

    @classmethod
    def solo(cls) -> Group:
        """A group of this process alone: nothing is sent, results are the inputs."""
        return cls()

    @classmethod
    def init(cls, timeout: float = 30.0) -> Group:
        """Join the ranks that ``mlx.launch`` or ``mpirun`` started.

        Parameters
        ----------
        timeout : float, default=30
            Seconds within which every rank ends when one fails, here and later. Those that have
            not found one another after 0.6 of it give up: a rank may start 0.4 of it later than
            the others.

        Returns
        -------
        Group
            Of size 1 when this process was not launched as a rank. Ranks on one machine share its
            cores, unless ``OMP_NUM_THREADS`` says otherwise.

        Raises
        ------
        DistributedError
            The other ranks cannot be reached. Where MLX cannot be interrupted, the process says so
            and exits with status 1.
        """
        backend = _backend()
        if backend is None:
            return cls.solo()
        # Ranks of one machine share its cores; set before the device is found and asks.
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // _neighbours())))
        lost = f"This rank cannot reach the others through {backend}"
        try:
            with _alarm(_JOINING * timeout), _deadline(_HARD * _JOINING * timeout, lost):
                ranks = mx.distributed.init(strict=True, backend=backend)
        except RuntimeError as error:
            raise DistributedError(f"{lost}: {error}.") from None
        return cls(ranks, timeout)

    def at_abort(self, cleanup: Callable[[], object]) -> None:
        """Have `cleanup` called, in another thread, before this process ends itself abruptly."""
        self._cleanups.append(cleanup)

    def sum(self, a: Any) -> Array:
        """Sum over the ranks, elementwise.

        Parameters
        ----------
        a : array-like
            Of the same shape and dtype on every rank.

        Returns
        -------
        ndarray of int64, uint64 or float64
            Exact for integers (modulo 2^64). Floats are added as float64 from the first rank to
            the last: the same on every rank and in every run, but rounded otherwise with another
            number of ranks.
        """
        a = _numbers(a)
        if a.dtype.kind == "f":
            a = a.astype(np.float64)
        elif a.dtype != np.uint64:
            a = a.astype(np.int64)
        return self._reduce("sum", np.add, mx.distributed.all_sum, a)

    def max(self, a: Any) -> Array:
        """Maximum over the ranks, elementwise; of NaN and a number NaN. See `sum`."""
        return self._reduce("max", np.maximum, mx.distributed.all_max, _numbers(a))

    def min(self, a: Any) -> Array:
        """Minimum over the ranks, elementwise; of NaN and a number NaN. See `sum`."""
        return self._reduce("min", np.minimum, mx.distributed.all_min, _numbers(a))

    def gather(self, a: Any) -> Array:
        """The arrays of all ranks, one after the other.

        Parameters
        ----------
        a : array-like, at least one-dimensional
            Of the same dtype and shape on every rank, but for its length.

        Returns
        -------
        ndarray
            Bit for bit the rows of rank 0, then those of rank 1 and so on, on every rank.
        """
        a = _plain(a)
        if self._ranks is None:
            return a.copy()
        with self._step(f"gather {a.dtype.str} {('any', *a.shape[1:])}", len(a)) as rows:
            ends = np.cumsum(rows, dtype=np.int64)
            out = np.empty((ends[-1], *a.shape[1:]), a.dtype)
            parts = [_bytes(part) for part in np.split(out, ends[:-1])]
            for at, pieces in self._pieces(_bytes(a), [part.size for part in parts]):
                for part, piece in zip(parts, pieces, strict=True):
                    part[at : at + piece.size] = piece
        return out

    def broadcast(self, a: Any, root: int = 0) -> Array:
        """The array of one rank, on every rank.

        Parameters
        ----------
        a : array-like
            Only looked at on the rank that has it.
        root : int, default=0
            That rank.

        Returns
        -------
        ndarray
            Bit for bit the array of `root`.
        """
        a = _plain(a) if self.rank == root else None
        mine = None if a is None else (a.dtype.str, a.shape)
        with self._step(f"broadcast from rank {root}", mine) as notes:
            dtype, shape = notes[root]
            out = np.zeros(shape, dtype) if a is None else a.copy()
            data = _bytes(out)
            for at in range(0, data.size, _BLOCK):
                block = data[at : at + _BLOCK]  # zeros, but at the root
                block[:] = self._collect(mx.distributed.all_sum, block)
        return out

    def barrier(self) -> None:
        """Wait for every rank."""
        with self._step("wait for one another"):
            pass

    def agree(self, name: str, value: dict[str, Any]) -> None:
        """Make sure that every rank means the same.

        Parameters
        ----------
        name : str
            Of what the values describe, to begin a sentence with.
        value : dict
            As JSON can hold it; the same on every rank.

        Raises
        ------
        DistributedError
            With the same words on every rank: what differs, and where.
        """
        mine = np.frombuffer(json.dumps(value).encode() + b"\n", np.uint8)
        values = [json.loads(line) for line in self.gather(mine).tobytes().splitlines()]
        for key in sorted(set().union(*values)):
            here = [other.get(key) for other in values]
            for rank in range(1, self.size):
                if here[rank] != here[0]:
                    raise self._over(
                        f"{name} is not the same on every rank: {key} is {here[0]} on rank 0, "
                        f"but {here[rank]} on rank {rank}."
                    )

    # Before and after

    def __enter__(self) -> Group:
        self._outer: Token[Group | None] = _current.set(self)
        if self.size > 1:
            self._before = signal.signal(signal.SIGTERM, self._terminated)
            for task in self._watch, self._answer:
                self._threads.append(threading.Thread(target=task, daemon=True))
                self._threads[-1].start()
            self.barrier()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _current.reset(self._outer)
        if self.size == 1:
            return
        if error is None:
            with self._step("leave"):
                self._done.set()
            for thread in self._threads:
                thread.join()
            signal.signal(signal.SIGTERM, self._before)
            return
        # This process is ending: the watch goes on, and sees to that; once the interpreter is gone,
        # and the watch with it, MLX may still wait for its threads.
        self._ending = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE * self.timeout + 2 * _TICK)
        with self._turn:
            if self._failure is None and not self._within:
                words = " ".join(f"{kind.__name__ if kind else ''}: {error}".split())
                with contextlib.suppress(DistributedError):
                    self._talk(
                        {"failed": words.encode()[: _WORD // 2 - 32].decode(errors="ignore")}
                    )
            self._over(self._failure or "A rank failed.")

    def _terminated(self, number: int, frame: FrameType | None) -> None:
        """Take SIGTERM as an exception, once: ``mlx.launch`` sends it, and `_answer`."""
        if not self._ending:
            raise self._over(self._failure or f"Rank {self.rank} was told to end.")

    # What the threads do

    def _answer(self) -> None:
        """Tell the others now and then that this rank is at work."""
        while not self._done.wait(self._rest()):
            with self._turn:
                if self._failure is None and not self._rest() and not self._done.is_set():
                    with contextlib.suppress(DistributedError):
                        self._talk({"busy": True})
            if self._failure is not None:
                if not self._ending:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return

    def _rest(self) -> float:
        # From the end of the last operation, which is one moment for all ranks: to wait for the
        # others costs a core, for MLX asks its sockets without a pause.
        return max(0.0, self._last + _BEAT * self.timeout - time.monotonic())

    def _watch(self) -> None:
        """End this process when it waits in vain, or does not end by itself."""
        while not self._done.wait(_TICK):
            if self._pending or self._failure is not None:
                # Ticks, not the clock: a job that was stopped as a whole has waited for nobody.
                self._waited += _TICK
                if self._waited >= _PATIENCE * self.timeout:
                    self._abort()

    def _abort(self) -> None:
        silent = (
            f"Rank {self.rank} has heard nothing from another rank for {self._waited:g} s: that "
            "one hangs, or its machine or network is gone."
        )
        print(f"Error: {self._failure or silent}", file=sys.stderr, flush=True)
        for cleanup in self._cleanups:
            with contextlib.suppress(Exception):
                cleanup()
        os._exit(LOST)

    def _over(self, why: str) -> DistributedError:
        """Note that the job has failed."""
        if self._failure is None:
            self._failure = why
        if threading.current_thread() is threading.main_thread():
            self._ending = True
        return DistributedError(self._failure)

    # How operations are made

    @contextlib.contextmanager
    def _step(self, step: str, note: Any = None) -> Iterator[list[Any]]:
        """Begin an operation as soon as every rank does; the notes of all of them."""
        with self._turn:
            self._within = True
            while True:
                words = self._talk({"step": step, "note": note})
                if not any("busy" in word for word in words):
                    break
            for rank, word in enumerate(words):
                if word["step"] != words[0]["step"]:
                    raise self._over(
                        f"The ranks are not at the same step: rank 0 is to {words[0]['step']}, "
                        f"rank {rank} to {word['step']}."
                    )
            yield [word["note"] for word in words]
            self._within = False

    def _talk(self, word: dict[str, Any]) -> list[dict[str, Any]]:
        """Exchange a word with every rank."""
        line = json.dumps(word, ensure_ascii=False).encode().ljust(_WORD)
        lines = self._collect(mx.distributed.all_gather, np.frombuffer(line, np.uint8))
        words = [json.loads(line.tobytes()) for line in lines.reshape(self.size, _WORD)]
        failed = [f"Rank {r} failed: {w['failed']}" for r, w in enumerate(words) if "failed" in w]
        if failed:
            raise self._over(" ".join(failed))
        return words

    def _reduce(
        self, name: str, add: np.ufunc, collective: Callable[..., mx.array], a: Array
    ) -> Array:
        out = a.copy()
        if self._ranks is None:
            return out
        flat = out.reshape(-1)
        with self._step(f"{name} {a.dtype.str} {a.shape}"):
            if a.dtype.kind != "f":
                for at in range(0, flat.size, _BLOCK // 8):
                    block = flat[at : at + _BLOCK // 8]
                    block[:] = self._collect(collective, block)
            else:  # the ranks in order, which MLX does not promise; GPUs know no float64
                for at, pieces in self._pieces(_bytes(out), [out.nbytes] * self.size):
                    first, *others = (piece.view(a.dtype) for piece in pieces)
                    block = flat[at // a.itemsize :][: first.size]
                    block[:] = first
                    for other in others:
                        add(block, other, out=block)
        return out

    def _pieces(self, mine: Array, sizes: list[int]) -> Iterator[tuple[int, list[Array]]]:
        """The bytes of every rank, block by block, each with where it begins."""
        step = _BLOCK // self.size // 16 * 16  # whole numbers
        for at in range(0, max(sizes), step):
            block = np.zeros(min(step, max(sizes) - at), np.uint8)
            own = mine[at : at + block.size]
            block[: own.size] = own
            got = self._collect(mx.distributed.all_gather, block).reshape(self.size, -1)
            yield at, [row[: max(0, size - at)] for row, size in zip(got, sizes, strict=True)]

    def _collect(self, collective: Callable[..., mx.array], a: Array) -> Array:
        """A collective operation of MLX on a small array of integers."""
        if self._ranks is None:
            return a
        if self._failure is not None:
            raise DistributedError(self._failure)
        sent = mx.array(a)
        self._pending = True
        try:
            received = collective(sent, group=self._ranks, stream=mx.cpu)
            # Where one connection breaks, others may still write into these.
            self._held = sent, received
            mx.eval(received)
            # Only now: who learns of a failure after a long wait is to end the sooner.
            self._held, self._waited = None, 0.0
        except RuntimeError:
            raise self._over(
                f"Rank {self.rank} lost the connection to another rank, which died or left."
            ) from None
        finally:
            self._last, self._pending = time.monotonic(), False
        return np.array(received)


def current() -> Group:
    """The group whose ``with`` block this is, or this process alone."""
    return _current.get() or ALONE


def _plain(a: Any) -> Array:
    a = np.asarray(a, order="C")
    if a.dtype.hasobject:
        raise TypeError("arrays of objects cannot be sent to other ranks.")
    return a


def _numbers(a: Any) -> Array:
    a = _plain(a)
    if a.dtype.kind not in "biuf":
        raise TypeError(f"arrays of {a.dtype} cannot be summed or compared.")
    return a.astype(a.dtype.newbyteorder("="), copy=False)


def _bytes(a: Array) -> Array:
    return a.reshape(-1).view(np.uint8)


def _backend() -> str | None:
    """How this process was launched: None if not as one of several ranks."""
    size = os.environ.get("OMPI_COMM_WORLD_SIZE")
    if size is not None:
        return "mpi" if int(size) > 1 else None
    if "MLX_RANK" not in os.environ:
        return None
    if "MLX_IBV_DEVICES" in os.environ:
        return "jaccl"
    if "NCCL_HOST_IP" in os.environ:
        raise DistributedError("NCCL carries arrays of GPUs only: launch with --backend ring.")
    try:
        with open(os.environ["MLX_HOSTFILE"], encoding="utf-8") as file:
            # `mlx.launch -n 1` writes an empty one, at which MLX stumbles.
            return "ring" if len(json.loads(file.read().strip() or "[]")) > 1 else None
    except (KeyError, OSError, ValueError) as error:
        raise DistributedError(f"MLX_RANK is set, but MLX_HOSTFILE is no list: {error}.") from None


def _neighbours() -> int:
    """How many ranks this machine has, itself included."""
    if "OMPI_COMM_WORLD_LOCAL_SIZE" in os.environ:
        return int(os.environ["OMPI_COMM_WORLD_LOCAL_SIZE"])
    try:
        with open(os.environ["MLX_HOSTFILE"], encoding="utf-8") as file:
            hosts = [addresses[0].rpartition(":")[0] for addresses in json.load(file)]
        return hosts.count(hosts[int(os.environ["MLX_RANK"])])
    except (KeyError, OSError, ValueError, IndexError, AttributeError):
        return 1


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Have a signal interrupt system calls that last, in the main thread.

    ``mx.distributed.init`` waits for a neighbour's call without limit, and then fails.
    """
    before = signal.signal(signal.SIGALRM, lambda number, frame: None)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _deadline(seconds: float, sentence: str) -> Iterator[None]:
    """End this process, with a sentence, if that is still going on after so many seconds.

    Between its calls to a neighbour, ``mx.distributed.init`` sleeps for up to 16 seconds, which no
    signal shortens, and holds the interpreter's lock. `faulthandler` does without the lock: it
    writes where we are to a shell, which takes that as its cue, and exits with status 1.
    """
    speaker = subprocess.Popen(
        ["/bin/sh", "-c", _SPEAKER, f"{sentence} within {seconds:g} s."],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process
    )
    assert speaker.stdin is not None
    faulthandler.dump_traceback_later(seconds, exit=True, file=speaker.stdin)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        speaker.stdin.close()
        speaker.wait()


ALONE = Group.solo()
"""This process, as a group."""
