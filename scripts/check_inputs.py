#!/usr/bin/env python
"""Try inputs of every kind at every entry point, and compare results with references.

Estimators, functions and methods that take rows or weights are given numbers of all sizes, weights,
NaN, shapes, parameters, types, containers and files that users have. What is answered must be what
scikit-learn says in float64, or exact arithmetic where float64 does not hold it; what has no answer
must be refused with ValueError, TypeError or MemoryError in a sentence that somebody wrote.

Prints for each kind how many inputs were answered right, refused as they must be, and wrong, and
lists the wrong ones. A warning of NumPy is wrong, too.

Exit status 1 if there is any.
"""

import argparse
import faulthandler
import sys
import time

import numpy as np
from _inputs.files import file_cases
from _inputs.forms import form_cases
from _inputs.parameters import parameter_cases
from _inputs.shapes import finite_cases, shape_cases
from _inputs.sizes import mixed_cases, scale_cases
from _inputs.states import state_cases
from _inputs.verdicts import verdict
from _inputs.weights import weight_cases

KINDS = {
    "scale": scale_cases,
    "mixed": mixed_cases,
    "weights": weight_cases,
    "finite": finite_cases,
    "shapes": shape_cases,
    "state": state_cases,
    "parameters": parameter_cases,
    "files": file_cases,
    "forms": form_cases,
}
LISTED = 20
# Seconds for a hundred inputs, above which something hangs.
HANGS_AFTER = 120


def check(cases):
    """Count the verdicts on some cases; returns the counts and what is wrong."""
    counts, wrong = {"right": 0, "refused": 0}, []
    for number, case in enumerate(cases):
        if number % 100 == 0:
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        kind, fault = verdict(case)
        if kind is None:
            wrong.append(f"{case.name}: {' '.join(fault.split())[:200]}")
        else:
            counts[kind] += 1
    faulthandler.cancel_dump_traceback_later()
    return counts, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a sample of the inputs")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="some kinds only")
    parser.add_argument("--seed", type=int, default=0, help="of the rows [0]")
    parser.add_argument("--all", action="store_true", help=f"list more than {LISTED} of a kind")
    options = parser.parse_args()
    print(f"{'kind':12}{'checked':>9}{'right':>8}{'refused':>9}{'wrong':>7}{'seconds':>9}")
    everything = 0
    failures = 0
    for kind in options.only:
        began = time.monotonic()
        rng = np.random.default_rng(options.seed)
        counts, wrong = check(KINDS[kind](options.quick, rng))
        checked = sum(counts.values()) + len(wrong)
        print(
            f"{kind:12}{checked:9}{counts['right']:8}{counts['refused']:9}{len(wrong):7}"
            f"{time.monotonic() - began:9.1f}",
            flush=True,
        )
        shown = wrong if options.all else wrong[:LISTED]
        for line in shown:
            print(f"    {line}")
        if len(shown) < len(wrong):
            print(f"    and {len(wrong) - len(shown)} more")
        everything += checked
        failures += len(wrong)
    print(f"\n{everything} inputs, {failures} wrong")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
