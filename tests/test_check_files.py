"""Damaged files, by hand and by the script that makes thousands of them."""

import gzip
import io
import random
import struct
import zipfile

import numpy as np
import pytest
from commands import run_script
from damage import npy_header, put_together
from doubles import traced

from mnist_kmeans_mlx.checkpoint import Checkpoint, CheckpointError
from mnist_kmeans_mlx.datasets import DatasetError, load_matrix
from mnist_kmeans_mlx.persistence import ModelError, load_model

HUGE = 2**40
NOISE = random.Random(0).randbytes(9999)
NPY = npy_header((HUGE, 2), "|u1") + b"1234"


def npz(compression):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("a.npy", NPY)
    return file.getvalue()


def container(marker, texts, shape):
    header = {"__metadata__": {"format": marker, **texts}}
    header["a"] = {"dtype": "U8", "shape": shape, "data_offsets": [0, int(np.prod(shape))]}
    return put_together(header, b"1234")


def resume(path):
    return Checkpoint(path, resume=True)


BOMBS = {
    "a.npy": (load_matrix, NPY),
    "long.npy": (load_matrix, b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{" * 999),
    "stored.npz": (load_matrix, npz(zipfile.ZIP_STORED)),
    "deflated.npz": (load_matrix, npz(zipfile.ZIP_DEFLATED)),
    "x-ubyte": (load_matrix, struct.pack(">4B2I", 0, 0, 8, 2, 2**31, 2**31) + b"1234"),
    # Within what a file of this size could hold if it were gzipped zeros.
    "x-ubyte.gz": (
        load_matrix,
        gzip.compress(struct.pack(">4B2I", 0, 0, 8, 2, 2, 4 << 20) + NOISE),
    ),
    "a.safetensors": (load_matrix, container("x", {}, [HUGE, 2])),
    "long.safetensors": (load_matrix, struct.pack("<Q", 2**62) + b"{}"),
    "model": (load_model, container("mnist_kmeans_mlx", {"class": "KMeans"}, [HUGE, 2])),
    "long model": (load_model, struct.pack("<Q", 2**62) + b"{}"),
    "checkpoint": (resume, container("mnist_kmeans_mlx.checkpoint", {}, [HUGE, 2])),
    "long checkpoint": (resume, struct.pack("<Q", 2**62) + b"{}"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_size_bomb_is_refused_before_memory_is_taken(name, tmp_path):
    load, data = BOMBS[name]
    path = tmp_path / name
    path.write_bytes(data)
    with traced() as memory, pytest.raises((DatasetError, ModelError, CheckpointError)):
        load(path)
    assert memory.peak < 1 << 20


@pytest.mark.filterwarnings("ignore::mnist_kmeans_mlx.datasets.DatasetWarning")
def test_every_sample_is_good_and_damage_is_repeatable(load_script, tmp_path):
    from contextlib import nullcontext

    damage = load_script("_damage")
    samples = damage.write_samples(tmp_path)
    kinds = {"a.npy", "a.npz", "a.csv", "train-images-idx3-ubyte", "model", "checkpoint"}
    assert kinds <= {sample.name for sample in samples}
    for sample in samples:
        assert sample.check(sample.path, nullcontext()) == "read"
        changed = [damage.damaged(sample, random.Random(5)) for _ in range(2)]
        assert changed[0] == changed[1]


@pytest.mark.slow
def test_damaged_files_do_no_harm():
    done = run_script("check_files.py", 400, "--seed", 3)
    assert "400 files, 0 failures" in done.stdout
