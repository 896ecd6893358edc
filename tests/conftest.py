import contextlib
import importlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

DEVICE = os.environ.get("DEVICE", "cpu")

# Read once, when mlx is first imported, and a test may import mlx before the package does.
os.environ.setdefault("MLX_ENABLE_TF32", "0")

# Processes that tests start find the package where it is not installed, and what else tests find.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

settings.register_profile(
    "quick",
    max_examples=25,
    deadline=None,
    print_blob=True,
    derandomize="CI" in os.environ,
)
settings.register_profile("thorough", max_examples=500, deadline=None, print_blob=True)
settings.load_profile("quick")


def pytest_configure(config):
    import mlx.core as mx

    if DEVICE not in {"cpu", "gpu"}:
        raise pytest.UsageError(f"DEVICE is cpu or gpu, not {DEVICE!r}")
    mlx_device = mx.Device(getattr(mx, DEVICE))
    if not mx.is_available(mlx_device):
        raise pytest.UsageError(f"DEVICE={DEVICE}, but MLX finds none on this machine")
    mx.set_default_device(mlx_device)


@pytest.fixture(autouse=True, scope="session")
def threads_share_few_rows():
    """Tests have few rows: in this process threads share them all the same."""
    from mnist_kmeans_mlx.engine import points

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(points, "ONE_THREAD", 0)
        yield


def pytest_report_header(config):
    return f"device: {DEVICE}"


@pytest.fixture(scope="session")
def device():
    """The device under test, as users name it: ``cpu``, or ``gpu`` with ``DEVICE=gpu``."""
    return DEVICE


@pytest.fixture(scope="session", params=[DEVICE] if DEVICE == "gpu" else ["cpu", "as a gpu"])
def backend(request):
    """The device under test, and where that is the CPU, the same taken for a GPU."""
    from doubles import taken_for_gpu

    from mnist_kmeans_mlx.device import resolve

    return taken_for_gpu() if request.param == "as a gpu" else resolve(request.param)


@pytest.fixture(scope="session", params=["plain", "host", "whole", "mlx"])
def make_way(request):
    """Each way: ``make_way(rows, weights=None)``, on the device under test."""
    from doubles import WAYS

    return WAYS[request.param]


@pytest.fixture(scope="session")
def mnist():
    from mnist_kmeans_mlx.datasets import load_mnist

    return load_mnist()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory, mnist, device):
    """What reports are made of: a model of a part of MNIST, and JSON of each kind."""
    from pages import make_inputs

    return make_inputs(tmp_path_factory.mktemp("report"), mnist, device)


@pytest.fixture(scope="session")
def walked(tmp_path_factory, device):
    """All that the pages about commands leave behind; they take a minute or two, once."""
    from guide import COMMANDS, Walk

    walk = Walk(tmp_path_factory.mktemp("commands"), device)
    for page in COMMANDS:
        walk.follow(page, "console")
    return walk


@pytest.fixture
def environment(tmp_path, device):
    from commands import settings

    return settings(tmp_path, device)


@pytest.fixture
def call(environment):
    """Run a command in this process, away from this user's log."""
    from commands import caller

    return caller(environment)


@pytest.fixture
def load_script(monkeypatch):
    """Import a script, by its name, as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "scripts")
    return importlib.import_module


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file, and return its path."""

    def write(data, name="a.csv"):
        (tmp_path / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return tmp_path / name

    return write


@pytest.fixture
def full_disk():
    """Context in which files cannot grow beyond so many bytes.

    It ends within the test: the file that a log of the tests goes to may be larger.
    """
    resource = pytest.importorskip("resource", reason="limits of a process are a Unix matter")

    @contextlib.contextmanager
    def limited(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
