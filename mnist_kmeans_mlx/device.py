"""Devices: which one computes, and how exactly it multiplies."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np
from threadpoolctl import ThreadpoolController

from mnist_kmeans_mlx.system import cores, machine_name, memory_bytes
from mnist_kmeans_mlx.threads import helpers

FLOAT32_ROUNDOFF = 2.0**-24
# With fewer rows in a part, what Python does between the steps of a pass counts.
FEWEST_FOR_THREAD = 1 << 15
# With fewer products of two numbers, waking a thread takes longer than it saves.
FEWEST_PRODUCTS = 1 << 24
# So few products of two numbers some kernels of OpenBLAS make without packing the matrices first
# (kernel/x86_64/sgemm_small_kernel_permit_skylakex.c). With one matrix narrow, to pack the other
# takes as long as to multiply it; wider than this it is worth its while.
# Rows are taken at least eight at a time, and so many terms of a sum, whose parts are to be added.
UNPACKED, NARROWEST_PACKED = 10**6, 128
FEWEST_ROWS, FEWEST_TERMS = 8, 128
UNPACKING = {"SkylakeX", "Cooperlake", "SapphireRapids"}
# Of fewer rows np.vecdot does not let other threads have the interpreter meanwhile.
FEWEST_DOTS = 512

Item = TypeVar("Item")
Result = TypeVar("Result")


class DeviceError(RuntimeError):
    """The requested device does not exist here."""


class Rounding(NamedTuple):
    """How exactly float32 numbers are multiplied and summed.

    Attributes
    ----------
    factors : float
        Relative error that a factor suffers before it is multiplied: zero where float32 is
        multiplied as float32, about 1e-3 for TF32 and 1e-2 for bfloat16.
    sums : float
        Relative error of one addition.
    """

    factors: float
    sums: float


@dataclass(frozen=True)
class Device:
    """Where arrays live and are multiplied.

    Attributes
    ----------
    kind : {"metal", "cuda", "cpu"}
        The backend behind the device.
    mlx : mlx.core.Device
        The device itself.
    host_matmul : bool
        Multiply through NumPy, on the same memory: MLX's CPU wheels for Linux link netlib's
        reference BLAS, some fifty times slower than NumPy's OpenBLAS.
    chunk_bytes : int
        Size in bytes that temporaries of one step should stay below.
    workers : int
        How many threads share the steps of a pass over the rows: one keeps a GPU busy.
    optional : bool
        Whether nobody asked for this GPU: the CPU beside it may be taken where it is quicker.
    """

    kind: str
    mlx: mx.Device
    host_matmul: bool = False
    chunk_bytes: int = field(default=256 << 20, repr=False)
    workers: int = 1
    optional: bool = False

    @property
    def name(self) -> str:
        """``"gpu"`` or ``"cpu"``."""
        return "cpu" if self.kind == "cpu" else "gpu"

    @property
    def host(self) -> Device:
        """The CPU beside it, or itself: for what is computed in float64."""
        return self if self.kind == "cpu" else resolve("cpu")

    @property
    def alone(self) -> Device:
        """The same with a single thread."""
        return replace(self, workers=1)

    def matmul(self, a: mx.array, b: mx.array) -> mx.array:
        """Matrix product of two float32 arrays, ``(m, d) @ (d, k)``."""
        if self.host_matmul:
            return mx.array(self._product(host_view(a), host_view(b)))
        return a @ b

    def _product(self, a: Any, b: Any) -> Any:
        """Matrix product by NumPy, columns shared out among all cores."""
        (m, d), n = a.shape, b.shape[1]
        if self.workers == 1 or m * d * n < FEWEST_PRODUCTS:
            return product(a, b)
        found = np.empty((m, n), dtype=np.float32)
        # Rows that were turned around are quicker to multiply as they were.
        turned = m <= NARROWEST_PACKED and b.T.flags.c_contiguous

        def multiply(part: slice) -> None:
            found[:, part] = product(b.T[part], a.T).T if turned else product(a, b[:, part])

        self.map(multiply, slices(n, -(-n // self.workers)))
        return found

    def addmm(self, c: mx.array, a: mx.array, b: mx.array) -> mx.array:
        """``c + a @ b`` of float32 arrays."""
        if self.host_matmul:
            return self.matmul(a, b) + c
        return mx.addmm(c, a, b)

    @property
    def memory_bytes(self) -> int:
        """Memory of the machine."""
        return memory_bytes()

    @property
    def room(self) -> int:
        """Bytes that arrays on it may take: a GPU's own, or what it may have of the Mac's."""
        info = mx.device_info(self.mlx) if self.kind != "cpu" else {}
        names = ("free_memory", "max_recommended_working_set_size", "memory_size")
        return int(next((info[name] for name in names if name in info), self.memory_bytes))

    @property
    def free_workers(self) -> int:
        """How many threads would share items now: the calling one, and those without work."""
        return 1 + helpers(self.workers - 1).idle

    def parts(self, n: int, width: int, most: int | None = None, fewest: int = 1) -> list[slice]:
        """Slices of `n` rows, to `map` over, whose temporaries of `width` columns fit into a chunk.

        None has more than `most` rows, and none is made to have fewer than `fewest` for the sake
        of threads.
        """
        step = self.chunk_bytes // (4 * width)
        workers = self.free_workers
        if workers > 1:
            # More parts than threads even out, where parts are worth a thread's while.
            even = min(max(-(-n // (2 * workers)), FEWEST_FOR_THREAD), -(-n // workers))
            step = min(step, max(even, fewest))
        return slices(n, max(1, step if most is None else min(step, most)))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Results of `function`, in order, computed on this device.

        A GPU is kept busy by one thread. On the CPU, where most of MLX's operations use a single
        core, those threads that have no work share the items with the calling one, and each
        multiplies on one core. `function` may itself map.
        """

        def call(item: Item) -> Result:
            with mx.stream(self.mlx):
                return function(item)

        items = list(items)
        with self.threads():
            if len(items) <= 1:  # to wake threads takes a while
                return [call(item) for item in items]
            return helpers(self.workers - 1).map(call, items)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Keep BLAS to one thread: cores are for those of `map`.

        To be entered around a whole fit, for BLAS's own threads go on spinning for a while after
        each product, on cores that the next `map` needs.
        """
        if self.workers == 1:
            yield
            return
        with _one_thread:
            yield

    @cached_property
    def rounding(self) -> Rounding:
        """How exactly `matmul` multiplies."""

        def multiply(a: Any, b: Any) -> Any:
            with mx.stream(self.mlx):
                return np.array(self.matmul(mx.array(a), mx.array(b)))

        # Tensor units may truncate sums, not round them.
        return measured_rounding(multiply, 1 if self.kind == "cpu" else 2)


class _OneThread:
    """BLAS at one thread for as long as anybody wants it so.

    The number is the whole process's. Of fits that overlap, the first to come sets it, and the last
    to leave restores what it was.
    """

    def __init__(self) -> None:
        self._before: list[tuple[Any, int]] = []
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        """Nobody yet: in a child that was forked from within a fit, that fit does not go on."""
        self._lock = threading.Lock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if not self._before:
                self._before = [(library, library.num_threads) for library in _blas()]
                for library, _ in self._before:
                    library.set_num_threads(1)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                for library, threads in self._before:
                    # From version 3.8 on threadpoolctl lets one thread in, the first to come.
                    let_in = getattr(library, "clear_controlling_thread", lambda force: None)
                    let_in(force=True)
                    if library.num_threads == 1:  # unless somebody else has changed it since
                        library.set_num_threads(threads)
                    let_in(force=True)
                self._before = []


@lru_cache
def _blas() -> list[Any]:
    libraries = ThreadpoolController().lib_controllers
    return [library for library in libraries if library.user_api == "blas"]


_one_thread = _OneThread()


def host_view(a: mx.array) -> np.ndarray[Any, Any]:
    """NumPy view of an evaluated array, without a copy where memory is shared."""
    mx.eval(a)
    return np.array(a, copy=False)


@lru_cache
def host_rounding() -> Rounding:
    """How exactly `product` multiplies: NumPy, with whichever BLAS it has."""

    def narrow(a: Any, b: Any) -> Any:
        return np.hstack([product(a, b[:, part]) for part in slices(b.shape[1], 32)])

    # Narrow matrices may have kernels of their own.
    return Rounding(*map(max, measured_rounding(product), measured_rounding(narrow)))


class Speed(NamedTuple):
    """How fast a device is.

    Attributes
    ----------
    flops : float
        Operations per second of a float32 product.
    bytes : float
        Bytes per second that it writes and reads.
    wait : float
        Seconds that the host waits for the least that it asks.
    """

    flops: float
    bytes: float
    wait: float


@lru_cache
def host_speed() -> Speed:
    """How fast NumPy is on all cores."""
    rows, columns = np.ones((2048, 256), np.float32), np.ones((256, 64), np.float32)
    long = np.ones(1 << 20, np.float32)
    threads = resolve("cpu").workers
    with _one_thread:
        multiply = least_seconds(lambda: product(rows, columns))
        copy = least_seconds(long.copy)
    return Speed(threads * 2 * 2048 * 256 * 64 / multiply, 2 * long.nbytes / copy, 0.0)


def least_seconds(function: Callable[[], Any], repeat: int = 5) -> float:
    """Shortest of a few runs, after one that makes ready."""
    function()
    seconds = []
    for _ in range(repeat):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measured_rounding(multiply: Callable[[Any, Any], Any], units: int = 1) -> Rounding:
    """How exactly a matrix product is made, measured where every sum has a single term.

    Parameters
    ----------
    multiply : callable
        Multiplies two float32 matrices.
    units : int, default=1
        Of how many roundings of float32 an addition is taken to suffer.
    """
    rng = np.random.default_rng(0)
    diagonal = rng.uniform(1, 2, 256).astype(np.float32)
    dense = rng.uniform(1, 2, (256, 256)).astype(np.float32)
    exact = diagonal[:, None].astype(np.float64) * dense
    error = float(np.max(np.abs(multiply(np.diag(diagonal), dense) / exact - 1)))
    # The sample may miss the worst case, which lies at most a factor of two above.
    factors = 0.0 if error <= 2 * FLOAT32_ROUNDOFF else 2 * error
    return Rounding(factors, units * FLOAT32_ROUNDOFF)


def product(a: Any, b: Any, out: Any = None) -> Any:
    """``a @ b`` of finite arrays of the host, without warnings.

    OpenBLAS and Accelerate raise the processor's flags over lanes whose result they drop
    (numpy#24067, numpy#29820).
    """
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if a.ndim == b.ndim == 2 and a.shape[0] * b.size > UNPACKED and _unpacks():
            (m, d), k = a.shape, b.shape[1]
            if b.size <= a.size and k <= NARROWEST_PACKED and FEWEST_ROWS * d * k <= UNPACKED:
                return _by_rows(a, b, out)
            if a.size < b.size and FEWEST_TERMS * m * k <= UNPACKED:
                return _by_terms(a, b, out)
        return np.matmul(a, b, out=out)


def dots(a: Any, b: Any) -> Any:
    """Products ``(m,)`` of the rows of ``(m, d)`` with those of another matrix."""
    if len(a) >= FEWEST_DOTS:
        return np.vecdot(a, b)
    return np.einsum("ij,ij->i", a, b)


def _by_rows(a: Any, b: Any, out: Any) -> Any:
    """``a @ b`` of a tall matrix and a narrow one, some rows at a time."""
    (m, d), k = a.shape, b.shape[1]
    step = UNPACKED // (d * k) // FEWEST_ROWS * FEWEST_ROWS
    stop = m // step * step
    b = np.ascontiguousarray(b)
    if out is None:
        out = np.empty((m, k), dtype=np.result_type(a, b))
    np.matmul(a[:stop].reshape(-1, step, d), b, out=out[:stop].reshape(-1, step, k))
    np.matmul(a[stop:], b, out=out[stop:])
    return out


def _by_terms(a: Any, b: Any, out: Any) -> Any:
    """``a @ b`` of a wide matrix and a tall one, some terms of the sums at a time."""
    (m, d), k = a.shape, b.shape[1]
    step = UNPACKED // (m * k)
    stop = d // step * step
    parts = np.matmul(
        np.moveaxis(a[:, :stop].reshape(m, -1, step), 0, 1), b[:stop].reshape(-1, step, k)
    )
    out = np.matmul(a[:, stop:], b[stop:], out=out)
    out += parts.sum(axis=0)
    return out


@lru_cache
def _unpacks() -> bool:
    """Whether NumPy's BLAS multiplies small matrices as they are."""
    return any(getattr(library, "architecture", None) in UNPACKING for library in _blas())


def slices(n: int, step: int) -> list[slice]:
    """Consecutive slices of at most `step` of `n` rows."""
    return [slice(start, min(start + step, n)) for start in range(0, n, step)]


@lru_cache
def resolve(name: str = "auto") -> Device:
    """Find the device behind a name.

    Parameters
    ----------
    name : {"auto", "gpu", "cpu"}
        ``"auto"`` takes Metal, then CUDA, then the CPU.

    Returns
    -------
    Device

    Raises
    ------
    DeviceError
        If a GPU is asked for and MLX finds none.
    ValueError
        If the name is none of the three.

    Examples
    --------
    >>> resolve("cpu").kind
    'cpu'
    """
    if name not in ("auto", "gpu", "cpu"):
        raise ValueError(f"device must be 'auto', 'gpu' or 'cpu', not {name!r}.")
    if name != "cpu":
        if mx.metal.is_available():
            return Device("metal", mx.Device(mx.gpu), optional=name == "auto")
        if mx.cuda.is_available():
            return Device("cuda", mx.Device(mx.gpu), optional=name == "auto")
        if name == "gpu":
            raise DeviceError(
                "device='gpu' was asked for, but MLX finds no GPU here: use device='cpu' or "
                "'auto', or install the backend for your GPU (Linux with NVIDIA: "
                "pip install 'mnist-kmeans-mlx[cuda13]')."
            )
    # Blocks of a few megabytes stay in the CPU's cache and spare the kernel's page faults.
    return Device(
        "cpu",
        mx.Device(mx.cpu),
        host_matmul=sys.platform == "linux",
        chunk_bytes=8 << 20,
        workers=cores(),
    )


def describe(name: str = "auto") -> dict[str, Any]:
    """Hardware, device, precision and versions: what a bug report needs.

    Examples
    --------
    >>> describe("cpu")["device"]
    'cpu'
    """
    import sklearn

    device = resolve(name)
    info: dict[str, Any] = {
        "machine": machine_name(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu_count": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "device": device.name,
        "backend": device.kind,
        "device_name": _device_name(device),
        "matmul": "numpy" if device.host_matmul else "mlx",
        "matmul_input_roundoff": device.rounding.factors,
        "tf32_disabled": os.environ.get("MLX_ENABLE_TF32") == "0",
        "python": platform.python_version(),
        "mlx": version("mlx"),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }
    return info


def _device_name(device: Device) -> str:
    if device.kind == "cpu":
        return machine_name()
    return str(mx.device_info(device.mlx).get("device_name", device.kind))
