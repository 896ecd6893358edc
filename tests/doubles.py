"""Stand-ins for devices that are not here, and watches over what a test does."""

import contextlib
import tracemalloc
from types import SimpleNamespace
from unittest import mock

import mlx.core as mx

from mnist_kmeans_mlx.device import Device, resolve
from mnist_kmeans_mlx.engine.host.way import HostWay
from mnist_kmeans_mlx.engine.mlx.way import MlxWay
from mnist_kmeans_mlx.engine.plain import PlainWay
from mnist_kmeans_mlx.engine.points import Points


def taken_for_gpu():
    """The CPU, to which all goes that goes to a GPU."""
    return Device("cuda", resolve("cpu").mlx, resolve("cpu").host_matmul)


class Narrow(Device):
    """A device that keeps `bits` significant bits of what it multiplies."""

    def matmul(self, a, b):
        return super().matmul(self.narrow(a), self.narrow(b))

    def addmm(self, c, a, b):
        return c + self.matmul(a, b)

    def narrow(self, x):
        drop = 24 - self.bits
        raw = x.view(mx.uint32)
        half = mx.array(1 << (drop - 1), dtype=mx.uint32)
        return (((raw + half) >> drop) << drop).view(mx.float32)


class Tf32(Narrow):
    bits = 11


class Bf16(Narrow):
    bits = 8


MULTIPLIERS = {"float32": Device, "tf32": Tf32, "bf16": Bf16}


def make_device(name, multiplier="float32", **changes):
    found = resolve(name)
    kind = found.kind if multiplier == "float32" else "cuda"
    return MULTIPLIERS[multiplier](
        kind, found.mlx, found.host_matmul, **{"chunk_bytes": found.chunk_bytes, **changes}
    )


def plain(rows, weights=None):
    return PlainWay(Points(rows, resolve("cpu"), weights))


def host(rows, weights=None):
    return HostWay(Points(rows, resolve("cpu"), weights))


def whole(rows, weights=None):
    return HostWay(Points(rows, resolve("cpu"), weights), bounded=False)


def on_mlx(rows, weights=None):
    found = resolve()
    points = Points(rows, found if found.kind != "cpu" else taken_for_gpu(), weights)
    return HostWay(points) if points.is_deep else MlxWay(points, lambda: HostWay(points))


WAYS = {"plain": plain, "host": host, "whole": whole, "mlx": on_mlx}


@contextlib.contextmanager
def traced():
    """The most bytes that Python holds at a time within the block, as ``memory.peak``."""
    memory = SimpleNamespace()
    tracemalloc.start()
    try:
        yield memory
        memory.peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextlib.contextmanager
def asked(model, method="predict", most=None):
    """Of how many rows a method is asked, block by block; after `most` blocks Ctrl-C comes."""
    answer, blocks = getattr(type(model), method), []

    def answering(self, rows):
        if len(blocks) == most:
            raise KeyboardInterrupt
        blocks.append(rows.shape[0])
        return answer(self, rows)

    answering.__qualname__ = answer.__qualname__
    with mock.patch.object(type(model), method, answering):
        yield blocks
