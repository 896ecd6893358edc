#!/usr/bin/env python3
"""What one iteration takes on one or many machines: a model, not a measurement.

An iteration compares every row with every centre, in a product and passes over its result, and
adds up the sums of the clusters over the ranks. Reading from disk overlaps with that; adding up
comes after both.

    compare   2 n d K / (R * rate * SHARE)
    memory    4 n (d + PASSES * K) / (R * bandwidth): rows, and scores that are written and read
    disk      n d * itemsize / (R * disk), if the rows do not fit into the memory of R machines
    network   2 (R - 1) / R * 16 K d / link + 2 (R - 1) * latency

Bounds are left out: they skip most comparisons of most iterations, but how many depends on the
data, and the first iteration has none.

    python scripts/scaling_model.py [--rows N] [--features D] [-k K]
"""

import argparse
from dataclasses import dataclass

# Share of the vendor's float32 rate that a large matrix product reaches, assumed of all machines.
SHARE = 0.7
# Scores are written once, and read for the minimum, its position, and near minima.
PASSES = 4
# Bytes that a fit keeps per row besides the row itself, as in `mnist_kmeans_mlx.memory`.
ROW_BYTES = 52


@dataclass(frozen=True)
class Machine:
    """Vendor's figures; of the disk, an assumption.

    Float32 operations per second, bytes of memory and of the host's, bytes per second of memory and
    of disk.
    """

    name: str
    rate: float
    memory: float
    host: float
    bandwidth: float
    disk: float


@dataclass(frozen=True)
class Link:
    """Bytes per second in one direction, and seconds that a message takes."""

    name: str
    rate: float
    latency: float


MACHINES = [
    Machine("MacBook Air M2, 16 GB", 3.6e12, 16e9, 16e9, 100e9, 1.5e9),
    Machine("Mac Studio M3 Ultra, 256 GB", 28e12, 256e9, 256e9, 819e9, 5e9),
    Machine("H100 SXM, 80 GB", 67e12, 80e9, 1e12, 3.35e12, 5e9),
]
LINKS = {
    "Ethernet 1 Gb/s": Link("Ethernet 1 Gb/s", 0.118e9, 300e-6),
    "Ethernet 10 Gb/s": Link("Ethernet 10 Gb/s", 1.18e9, 100e-6),
    "Thunderbolt 5, JACCL": Link("Thunderbolt 5, JACCL", 8e9, 10e-6),
    "NVLink": Link("NVLink", 450e9, 10e-6),
}
CASES = [
    (MACHINES[0], "Ethernet 1 Gb/s"),
    (MACHINES[1], "Ethernet 10 Gb/s"),
    (MACHINES[1], "Thunderbolt 5, JACCL"),
    (MACHINES[2], "NVLink"),
]


def holds(n, machine, ranks):
    """Whether what is kept of each row fits."""
    return n * ROW_BYTES / ranks < 0.7 * machine.host


def iteration(n, d, k, machine, link, ranks, itemsize=2):
    """Seconds of the parts of one iteration, and of all."""
    compare = 2 * n * d * k / (ranks * machine.rate * SHARE)
    memory = 4 * n * (d + PASSES * k) / (ranks * machine.bandwidth)
    fits = n * (d * itemsize + ROW_BYTES) / ranks + 32 * k * d < 0.7 * machine.memory
    disk = 0.0 if fits else n * d * itemsize / (ranks * machine.disk)
    sent = 2 * (ranks - 1) / ranks * 16 * k * d
    network = sent / link.rate + 2 * (ranks - 1) * link.latency
    total = max(compare + memory, disk) + network
    return {
        "compare": compare,
        "memory": memory,
        "disk": disk,
        "network": network,
        "total": total,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=float, default=1e9, help="[1e9]")
    parser.add_argument("--features", type=int, default=768, help="[768]")
    parser.add_argument("-k", type=int, default=65_536, help="clusters [65536]")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 16, 64], help="[1 4 16 64]")
    options = parser.parse_args()
    print("| Machine | Link | Machines | Compare s | Memory s | Disk s | Network s | Iteration s |")
    print("| --- | --- | --: | --: | --: | --: | --: | --: |")
    for machine, link in CASES:
        for ranks in options.ranks:
            if not holds(options.rows, machine, ranks):
                print(f"| {machine.name} | {link} | {ranks} | does not fit |  |  |  |  |")
                continue
            parts = iteration(
                options.rows, options.features, options.k, machine, LINKS[link], ranks
            )
            seconds = " | ".join(f"{value:,.1f}" for value in parts.values())
            print(f"| {machine.name} | {link} | {ranks} | {seconds} |")


if __name__ == "__main__":
    main()
