#!/usr/bin/env python
"""Compare labels of MNIST with those of float64, also from hardware that rounds.

The training images, as bytes and as float32 in other units, are clustered for a few iterations;
then `labels_` and what `predict` says of the test images are compared with the nearest centres in
float64, found here without any of the package's arithmetic. The device's products are as they are,
or those of a stand-in that keeps 11 significant bits of its inputs as TF32 does, or 8 as bfloat16.

Prints how many rows float64 decided in all E-steps and their share, how many test images would be
wrong if it decided none (unsafe), how many have two centres at the same distance up to the rounding
of float64 (close), and how many labels are wrong.

Exit status 1 if a label differs.
"""

import argparse
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from doubles import MULTIPLIERS, make_device

from mnist_kmeans_mlx import device as devices
from mnist_kmeans_mlx.datasets import load_mnist
from mnist_kmeans_mlx.engine.centers import Centers
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.estimator import KMeans

UNITS = {
    "uint8": lambda x: x,
    "/ 255": lambda x: (x / 255).astype(np.float32),
    "/ 255 + 1000": lambda x: (x / 255 + 1000).astype(np.float32),
    "/ 255 * 1e-6": lambda x: (x / 255 * 1e-6).astype(np.float32),
    "/ 255 * 1e6": lambda x: (x / 255 * 1e6).astype(np.float32),
}


def nearest(rows, centers, step=2000):
    """Nearest centre of each row in float64, and how many rows have a second one about as near.

    Products in float64 find the candidates; differences decide among them.
    """
    centers = centers.astype(np.float64)
    labels = np.empty(len(rows), dtype=np.intp)
    # Centred, so that an offset of 1000 costs no digits.
    middle = centers.mean(axis=0)
    moved = centers - middle
    norms_sq = np.square(moved).sum(axis=1)
    close = 0
    for start in range(0, len(rows), step):
        block = rows[start : start + step].astype(np.float64)
        shifted = block - middle
        scores = norms_sq - 2 * shifted @ moved.T
        own = np.square(shifted).sum(axis=1)
        error = 8 * rows.shape[1] * 2.0**-52 * (own + norms_sq.max())
        candidates = scores <= scores.min(axis=1, keepdims=True) + error[:, None]
        labels[start : start + step] = scores.argmin(axis=1)
        for row in np.flatnonzero(candidates.sum(axis=1) > 1):
            index = np.flatnonzero(candidates[row])
            distances = np.square(block[row] - centers[index]).sum(axis=1)
            labels[start + row] = index[distances.argmin()]
            close += 1
    return labels, close


def by_products_alone(rows, centers, device):
    """Labels of the device without a second decision in float64."""
    points = Points(rows, device)
    near = Centers(points, centers.astype(np.float64), device.rounding)
    with mx.stream(device.mlx):
        rows = mx.array(points.narrow(slice(None)))
        scores = device.addmm(mx.array(near.constant), rows, mx.array(near.factor.T))
        return np.array(mx.argmin(scores, axis=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", type=int, nargs="+", default=[20, 100, 256])
    parser.add_argument("--rows", type=int, default=60_000, help="of each set, at most [60000]")
    parser.add_argument("--iterations", type=int, default=2, help="before labels are compared [2]")
    parser.add_argument("--device", default="cpu", choices=["auto", "cpu", "gpu"])
    options = parser.parse_args()
    mnist = load_mnist()
    train = mnist.x_train[: options.rows].reshape(-1, 784)
    test = mnist.x_test[: options.rows].reshape(-1, 784)
    wrong = compared = 0
    began = time.monotonic()
    resolve = devices.resolve
    print(
        f"{'rows':14}{'K':>5}  {'algorithm':11}{'products':10}"
        f"{'rechecked':>10}{'share':>9}{'unsafe':>8}{'close':>7}{'wrong':>7}"
    )
    for unit, convert in UNITS.items():
        rows, others = convert(train), convert(test)
        for k in options.clusters:
            start = rows[np.random.default_rng(k).choice(len(rows), k, replace=False)]
            for algorithm in ("lloyd", "elkan"):
                for multiplier in MULTIPLIERS:
                    device = make_device(options.device, multiplier)
                    devices.resolve = lambda name, device=device: device
                    kmeans = KMeans(
                        k, init=start, n_init=1, max_iter=options.iterations, algorithm=algorithm
                    ).fit(rows)
                    found = np.concatenate([kmeans.labels_, kmeans.predict(others)])
                    devices.resolve = resolve
                    centers = kmeans.cluster_centers_
                    parts = [nearest(part, centers) for part in (rows, others)]
                    expected = np.concatenate([labels for labels, _ in parts])
                    differ = int(np.count_nonzero(found != expected))
                    alone = by_products_alone(others, centers, device)
                    unsafe = int(np.count_nonzero(alone != parts[1][0]))
                    share = kmeans.n_rechecked_ / len(rows) / (kmeans.n_iter_ + 1)
                    print(
                        f"{unit:14}{k:5}  {algorithm:11}{multiplier:10}{kmeans.n_rechecked_:10}"
                        f"{share:9.2%}{unsafe:8}{sum(close for _, close in parts):7}{differ:7}",
                        flush=True,
                    )
                    wrong += differ
                    compared += len(expected)
    print(f"\n{wrong} wrong of {compared} labels in {time.monotonic() - began:.0f} s")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
