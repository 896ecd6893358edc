#!/usr/bin/env python
"""Damage files at random and read them: models, checkpoints, IDX, npz, npy, csv and others.

Each must be refused in one sentence that names it, or read right. A process of its own reads
them, in which counts as a failure: any other exception, a crash, more than 5 seconds, an import,
a pickle that looks up a name, a process, a connection, and more memory than four times what an
undamaged file holds. Memory is what tracemalloc sees at its peak, beyond the interpreter's own
buffers; what it does not see is limited through RLIMIT_AS.

Exit status 1 if there is a failure.
"""

import argparse
import contextlib
import faulthandler
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path

from mnist_kmeans_mlx.system import same_package

HANGS_AFTER = 5
ROUNDS_PER_PROCESS = 1000
# Rows of the samples: even rounds are quick, odd ones tell how memory grows with the file.
SIZES = (6, 6000)
# Bytes that readers of zip, gzip and JSON take for any file.
OWN_BUFFERS = 256 << 10
# Bytes of address space: OpenBLAS and MLX map memory that they do not use.
MORE_IN_ALL = 256 << 20
FORBIDDEN = (
    "import",
    "pickle.",
    "marshal.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "subprocess.",
    "socket.",
    "ctypes.dlopen",
)


class Watch(contextlib.AbstractContextManager):
    """Records audit events, memory and time of a block."""

    def __init__(self):
        self.on = False
        sys.addaudithook(self.hear)
        # Never stopped: stopping is not safe while pyarrow's threads run.
        tracemalloc.start()

    def hear(self, event, arguments):
        if self.on and event.startswith(FORBIDDEN) and arguments[0] not in sys.modules:
            self.events.append(f"{event} {str(arguments[0])[:60]}")

    def __enter__(self):
        self.events = []
        tracemalloc.reset_peak()
        self.before = tracemalloc.get_traced_memory()[0]
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        self.on, self.began = True, time.monotonic()

    def __exit__(self, *exception):
        self.on, self.seconds = False, time.monotonic() - self.began
        faulthandler.cancel_dump_traceback_later()
        self.bytes = tracemalloc.get_traced_memory()[1] - self.before


def read_rounds(seed, first, last):
    """Read the files of some rounds; print one line of JSON before and after each."""
    from _damage import damaged, write_samples

    # NumPy may warn of conversions if the result is refused or right.
    warnings.simplefilter("ignore")
    watch = Watch()
    with tempfile.TemporaryDirectory() as place:
        groups = []
        for rows in SIZES:
            folder = Path(place, str(rows))
            folder.mkdir()
            groups.append(write_samples(folder, rows))
        for sample in groups[0]:
            # Imports by valid files do not count.
            assert sample.check(sample.path, contextlib.nullcontext()) == "read", sample.name
        limit = address_space()
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (limit + MORE_IN_ALL, resource.RLIM_INFINITY))
        for number in range(first, last):
            group = groups[number % len(groups)]
            sample = group[number // len(groups) % len(group)]
            print(json.dumps({"round": number, "name": sample.name}), flush=True)
            victim = sample.path.with_name("x" + sample.name)
            data = damaged(sample, random.Random(f"{seed} {number}"))
            victim.write_bytes(data)
            answer = sample.check(victim, watch)
            honest = max(len(data), sample.size)
            print(
                json.dumps(
                    {
                        "answer": answer,
                        "events": watch.events,
                        "seconds": watch.seconds,
                        "ratio": max(0, watch.bytes - OWN_BUFFERS) / honest,
                    }
                )
            )


def address_space():
    """Bytes that this process maps, where the system tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


class Tally:
    def __init__(self):
        self.rounds = Counter()
        self.answers = Counter()
        self.read = Counter()
        self.slowest, self.largest = Counter(), Counter()
        self.failures = []

    def add(self, seed, asked, told):
        name, fault = asked["name"], None
        self.rounds[name] += 1
        self.read[name] += told["answer"] == "read"
        self.answers[name, told["answer"][:60]] += 1
        self.slowest[name] = max(self.slowest[name], told["seconds"])
        self.largest[name] = max(self.largest[name], told["ratio"])
        if told["events"]:
            fault = ", ".join(told["events"])
        elif told["seconds"] > HANGS_AFTER:
            fault = f"{told['seconds']:.1f} s"
        elif told["ratio"] > 4:
            fault = f"{told['ratio']:.1f} times the memory"
        if fault:
            self.fail(seed, asked, f"{fault} ({told['answer'][:60]})")

    def fail(self, seed, asked, what):
        self.failures.append(f"seed {seed}, round {asked['round']}, {asked['name']}: {what}")

    def run(self, seed, first, last):
        """Read rounds in other processes; one that dies is followed by the next."""
        while first < last:
            until = min(first + ROUNDS_PER_PROCESS, last)
            words = ["--seed", seed, "--rounds", first, until]
            process = subprocess.Popen(
                [sys.executable, __file__, *map(str, words)],
                env=same_package(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            out, complaint = process.communicate()
            lines = [json.loads(line) for line in out.splitlines()]
            for asked, told in zip(lines[::2], lines[1::2], strict=False):
                self.add(seed, asked, told)
            first = until
            if process.returncode:
                if not lines:
                    raise SystemExit(complaint)
                asked = lines[-1] if len(lines) % 2 else lines[-2]
                last_words = complaint.strip().splitlines()[-1:]
                self.fail(seed, asked, f"exit status {process.returncode}: {last_words}")
                first = asked["round"] + 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("number", type=int, nargs="?", default=10_000, help="of files [10000]")
    parser.add_argument("--seed", type=int, default=0, help="of the damage [0]")
    parser.add_argument("--answers", action="store_true", help="count every sentence")
    parser.add_argument("--rounds", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds:
        return read_rounds(options.seed, *options.rounds)
    tally = Tally()
    tally.run(options.seed, 0, options.number)
    print(f"{'damaged':28}{'files':>7}{'refused':>9}{'read right':>12}{'slowest':>10}{'memory':>8}")
    for name, count in tally.rounds.items():
        print(
            f"{name:28}{count:7}{count - tally.read[name]:9}{tally.read[name]:12}"
            f"{tally.slowest[name]:8.2f} s{tally.largest[name]:7.1f}x"
        )
    if options.answers:
        for (name, answer), count in sorted(tally.answers.items()):
            print(f"{count:6}  {name:28}{answer}")
    print(f"\n{sum(tally.rounds.values())} files, {len(tally.failures)} failures")
    for failure in tally.failures:
        print(failure)
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
