import mlx.core as mx
import numpy as np
import pytest

from mnist_kmeans_mlx.device import Device, DeviceError, describe, resolve


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
    assert resolve(device).input_roundoff == 0


class Bfloat16(Device):
    """A device that rounds the inputs of products, as tensor units do."""

    def matmul(self, a, b):
        def narrow(x):
            return x.astype(mx.bfloat16).astype(mx.float32)

        return super().matmul(narrow(a), narrow(b))


def test_a_narrow_multiplier_is_measured(device):
    found = resolve(device)
    narrow = Bfloat16(found.kind, found.mlx, found.host_matmul)
    assert 2**-8 <= narrow.input_roundoff <= 2**-5


def test_matmul(device):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 5)).astype(np.float32), rng.normal(size=(5, 3)).astype(np.float32)
    found = resolve(device)
    with mx.stream(found.mlx):
        product = np.array(found.matmul(mx.array(a), mx.array(b)))
    np.testing.assert_allclose(product, a.astype(np.float64) @ b, rtol=1e-5, atol=1e-6)


def test_description_names_what_a_bug_report_needs(device):
    info = describe(device)
    assert info["device"] == device
    assert {"machine", "system", "backend", "mlx", "numpy", "scikit-learn", "python"} <= set(info)
