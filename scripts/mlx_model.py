#!/usr/bin/env python
"""A model of an iteration of the MLX way on Apple's GPUs: counted numbers over the vendor's rates.

Operations and bytes are those that the MLX way asks for, waits and starts of kernels as others have
measured them. Nothing here was measured on a Mac: real kernels reach a part of these rates.

    python scripts/mlx_model.py            # the table of docs/mlx-way.md
"""

import sys

# Apple's figures: float32 operations and bytes per second.
CHIPS = {"M2, 10 cores": (3.6e12, 100e9), "M4, 10 cores": (4.3e12, 120e9)}
# Seconds of a wait and of the start of a kernel, as read in reports on Metal; kernels of a step.
WAIT, KERNEL, KERNELS = 2e-4, 3e-6, 35
# Bytes that a score costs: written; read for the smallest; read and compared (a byte each way);
# written as a number for the sum, and read.
SCORE = 4 + 4 + (4 + 1) + (1 + 4) + 4
# Features of bytes whose products float32 sums exactly.
FEATURES = 256


def iteration(n, d, k):
    """Operations and bytes of an E-step of rows held as float32; few rows change cluster."""
    return 2.0 * n * d * k, 4.0 * n * d + SCORE * n * k


def seeding_step(n, d, trials):
    """The same of a step of k-means++ of bytes: int32 for each group of features, int64 sums."""
    groups = -(-d // FEATURES)
    distances = groups * (4 + 4 + 4 + 4) + 3 * 4 + 4 + 8 + 8
    return 2.0 * n * d * trials, 4.0 * n * d + distances * n * trials + 8 * 3 * n


def seconds(work, chip):
    """What the slower of computing and moving takes, with a wait and the starts of kernels."""
    flops, rate = CHIPS[chip]
    return max(work[0] / flops, work[1] / rate) + WAIT + KERNELS * KERNEL


def rows(n=60_000, d=784):
    """Lines of the table: full MNIST as bytes."""
    yield "| K | GFLOP | MB | " + " | ".join(f"{chip}, ms | seeds, s" for chip in CHIPS) + " |"
    yield "| --: | --: | --: |" + " --: | --: |" * len(CHIPS)
    for k in (20, 100, 256):
        trials = 2 + {20: 2, 100: 4, 256: 5}[k]  # 2 + int(log(k))
        work, step = iteration(n, d, k), seeding_step(n, d, trials)
        cells = [
            f"{1e3 * seconds(work, chip):.1f} | {(k - 1) * seconds(step, chip):.2f}"
            for chip in CHIPS
        ]
        yield f"| {k} | {work[0] / 1e9:.1f} | {work[1] / 1e6:.0f} | " + " | ".join(cells) + " |"


def main():
    """Print the table."""
    print("\n".join(rows()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
