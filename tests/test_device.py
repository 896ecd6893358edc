import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import numpy as np
import pytest
from commands import run
from doubles import make_device
from threadpoolctl import threadpool_info

from mnist_kmeans_mlx import KMeans
from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.device import Device, DeviceError, describe, product, resolve

UNSET = {k: v for k, v in os.environ.items() if k != "MLX_ENABLE_TF32"}


def test_the_requested_device_is_found(device):
    assert resolve(device).name == device


def test_a_missing_gpu_is_an_error_not_a_fallback(monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    resolve.cache_clear()
    try:
        with pytest.raises(DeviceError, match=r"device='gpu' .* use device='cpu'"):
            resolve("gpu")
        assert resolve("auto").kind == "cpu"
    finally:
        resolve.cache_clear()


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="'auto', 'gpu' or 'cpu', not 'tpu'"):
        resolve("tpu")


def test_float32_is_multiplied_as_float32(device):
    assert resolve(device).rounding.factors == 0


def test_a_narrow_multiplier_is_measured(device):
    assert 2**-8 <= make_device(device, "bf16").rounding.factors <= 2**-5


def test_matmul(device):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    found = resolve(device)
    with mx.stream(found.mlx):
        product = np.array(found.matmul(mx.array(a), mx.array(b)))
    np.testing.assert_allclose(product, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unpacks", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("m", "d", "k"),
    [(5000, 784, 20), (1337, 784, 5), (131, 2000, 8), (10, 1797, 65), (20, 9001, 98), (3, 4, 5)],
)
def test_products_are_those_of_numpy(monkeypatch, unpacks, dtype, m, d, k):
    monkeypatch.setattr(devices, "_unpacks", lambda: unpacks)
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (m, d)).astype(dtype), rng.integers(-9, 9, (d, k)).astype(dtype)
    # Whole numbers this small are multiplied exactly, in any order.
    expected, out = a.astype(int) @ b.astype(int), np.empty((m, 2 * k), dtype)[:, ::2]
    np.testing.assert_array_equal(product(a, b), expected)
    np.testing.assert_array_equal(product(np.asfortranarray(a), np.asfortranarray(b)), expected)
    assert product(a, b, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert product(a, b).dtype == dtype


def test_description_names_what_a_bug_report_needs(device):
    info = describe(device)
    assert info["device"] == device
    assert {"machine", "system", "backend", "mlx", "numpy", "scikit-learn", "python"} <= set(info)


def blas_threads():
    return {
        pool["filepath"]: pool["num_threads"]
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }


def test_the_last_of_overlapping_fits_gives_blas_its_threads_back():
    several, before = Device("cpu", resolve("cpu").mlx, workers=3), blas_threads()
    first_in, second_in, first_out = (threading.Event() for _ in range(3))
    within = {}

    def first():
        with several.threads():
            first_in.set()
            assert second_in.wait(30)
        within["first has left"] = blas_threads()
        first_out.set()

    def second():
        assert first_in.wait(30)
        with several.threads():
            second_in.set()
            assert first_out.wait(30)
            with several.threads():  # again, from within
                pass
            within["second is in"] = blas_threads()

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(within) == 2
    assert all(set(found.values()) == {1} for found in within.values())
    assert blas_threads() == before


def test_fits_side_by_side_leave_blas_as_it_was(device):
    rows, before = np.random.default_rng(0).normal(size=(3000, 20)), blas_threads()
    with ThreadPoolExecutor(4) as pool:
        fits = pool.map(
            lambda seed: KMeans(6, random_state=seed, device=device).fit(rows), range(8)
        )
        assert len(list(fits)) == 8
    assert blas_threads() == before


@pytest.mark.parametrize(
    "code", ["import mnist_kmeans_mlx.estimator", "from mnist_kmeans_mlx import KMeans"]
)
def test_importing_changes_nothing_for_others(code):
    report = "import os; before = dict(os.environ); {}; assert dict(os.environ) == before"
    run("-c", report.format(code), env=UNSET)


def test_the_command_line_multiplies_float32_as_float32():
    code = (
        "import os\nfrom mnist_kmeans_mlx.cli import main\n"
        "main(['env', '--json'], standalone_mode=False)\n"
        "assert os.environ['MLX_ENABLE_TF32'] == '0'"
    )
    assert json.loads(run("-c", code, env=UNSET).stdout)["tf32_disabled"] is True
