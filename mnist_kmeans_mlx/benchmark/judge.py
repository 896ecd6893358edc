"""One judge for all arms: SSE, accuracy and agreement, from labels and centres, in float64.

It needs no MLX, so that a machine where MLX does not load can compare what it has, and so that the
process that waits for the others holds no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mnist_kmeans_mlx.experiment.data import Data

# Largest relative difference of SSE from the reference.
SSE_LIMIT = 1e-5
# Two squared distances count as equal if they differ by less than TIE of the larger, plus
# ON_CENTER of the row's squared norm (for rows that coincide with a centre).
TIE = 1e-9
ON_CENTER = 1e-24
# Bytes of float64 rows to work on at once.
BLOCK = 32 << 20

Labels = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    """What an arm found: labels of the training and of the test rows, and centres."""

    labels: Labels
    centers: Float64
    test: Labels | None
    n_iter: int
    inertia: float
    seeds: tuple[int, ...]

    @classmethod
    def read(cls, folder: Path, told: dict[str, Any]) -> Answer:
        """Read the answer of a worker, and the arrays that it saved in a folder."""
        test = folder / "test.npy"
        return cls(
            np.load(folder / "labels.npy"),
            np.load(folder / "centers.npy"),
            np.load(test) if test.exists() else None,
            told["n_iter"],
            told["inertia"],
            tuple(told["seeds"]),
        )


class Judge:
    """Holds answers against that of the reference."""

    def __init__(self, data: Data, reference: Answer) -> None:
        self.data, self.reference = data, reference
        self._inertia = sse(data, reference)
        # SSE that rounding alone may leave for rows that coincide with their centres.
        self._nothing = 1e-14 * _squares(data)

    def examine(self, answer: Answer) -> dict[str, Any]:
        """Return the attributes of `Row` from ``n_iter`` to ``test_accuracy``."""
        from sklearn.metrics import adjusted_rand_score

        inertia = sse(self.data, answer)
        differing = np.flatnonzero(answer.labels != self.reference.labels)
        train, test = _accuracies(answer, self.data)
        return {
            "n_iter": answer.n_iter,
            "inertia": inertia,
            "reported_inertia": answer.inertia,
            "inertia_gap": self._gap(inertia, self._inertia),
            "agreement": 1 - len(differing) / len(answer.labels),
            "ari": float(adjusted_rand_score(self.reference.labels, answer.labels)),
            "differing": len(differing),
            "ties": _ties(answer, self.reference, self.data, differing),
            "train_accuracy": train,
            "test_accuracy": test,
        }

    def objections(self, found: dict[str, Any]) -> tuple[str, ...]:
        """List the differences from the reference; an answer of ours must have none."""
        said = []
        if not abs(found["inertia_gap"]) <= SSE_LIMIT:
            said.append(f"its SSE is {100 * found['inertia_gap']:+.3g} % off scikit-learn's")
        if not abs(self._gap(found["reported_inertia"], found["inertia"])) <= SSE_LIMIT:
            said.append(
                f"it reports an SSE of {found['reported_inertia']:.9g}, but its labels and "
                f"centres have {found['inertia']:.9g}"
            )
        if found["n_iter"] != self.reference.n_iter:
            said.append(
                f"it took {found['n_iter']} iterations, scikit-learn {self.reference.n_iter}"
            )
        unlike = found["differing"] - found["ties"]
        if unlike:
            rows = "row is" if unlike == 1 else "rows are"
            said.append(
                f"{unlike:,} {rows} in another cluster than with scikit-learn "
                f"({100 * found['agreement']:.3f} % agree, ARI {found['ari']:.5f})"
            )
        return tuple(said)

    def _gap(self, value: float, wanted: float) -> float:
        """Relative distance of two sums of squares."""
        if max(value, wanted) <= self._nothing:
            return 0.0
        return value / wanted - 1 if wanted else float("inf")


def sse(data: Data, answer: Answer) -> float:
    """Sum of squared distances of the rows to the centres of their labels, in float64."""
    total = 0.0
    for part in blocks(len(data.train), data.train.shape[1]):
        block = data.train[part].astype(np.float64)
        block -= answer.centers[answer.labels[part]]
        total += float(np.square(block, out=block).sum())
    return total / data.unit**2


def _squares(data: Data) -> float:
    """Sum of the squares of all values."""
    parts = blocks(len(data.train), data.train.shape[1])
    total = sum(float(np.square(data.train[part], dtype=np.float64).sum()) for part in parts)
    return total / data.unit**2


def _ties(answer: Answer, reference: Answer, data: Data, rows: npt.NDArray[np.intp]) -> int:
    """How many rows are equally near, among the centres of the reference, to both clusters."""
    count = 0
    for part in blocks(len(rows), data.train.shape[1]):
        chosen = rows[part]
        block = data.train[chosen].astype(np.float64)
        own, other = (
            np.square(block - reference.centers[labels[chosen]]).sum(axis=1)
            for labels in (reference.labels, answer.labels)
        )
        limit = TIE * np.maximum(own, other) + ON_CENTER * np.square(block).sum(axis=1)
        count += int(np.count_nonzero(np.abs(own - other) <= limit))
    return count


def _accuracies(answer: Answer, data: Data) -> tuple[float | None, float | None]:
    """Train and test accuracy if each cluster stands for the class most frequent in it."""
    if data.y_train is None:
        return None, None
    classes = named(answer.labels, data.y_train, len(answer.centers))
    train = float(np.mean(classes[answer.labels] == data.y_train))
    if answer.test is None or data.y_test is None:
        return train, None
    return train, float(np.mean(classes[answer.test] == data.y_test))


def named(labels: npt.NDArray[Any], truth: npt.NDArray[Any], k: int) -> npt.NDArray[np.intp]:
    """Class that is the most frequent in each cluster."""
    counts = np.zeros((k, int(truth.max()) + 1), dtype=np.intp)
    np.add.at(counts, (labels, truth), 1)
    return counts.argmax(axis=1)


def blocks(n: int, width: int) -> Iterator[slice]:
    """Slices of rows that take some 32 MB as float64."""
    step = max(1, BLOCK // (8 * width))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))
