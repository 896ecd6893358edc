"""The arms of a comparison: library, algorithm, precision and device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


class BenchmarkError(ValueError):
    """A comparison that cannot be made."""


@dataclass(frozen=True)
class Arm:
    """A way to cluster.

    Attributes
    ----------
    name : str
        Parts with hyphens between, from the general to the particular.
    library : {"scikit-learn", "mnist-kmeans-mlx"}
    device : {"cpu", "gpu"}
    algorithm : {"lloyd", "elkan", "auto"}
    dtype : {"float64", "float32"} or None
        What the rows are converted to before the clock starts; None: as they are.
    """

    name: str
    library: str
    device: str
    algorithm: str
    dtype: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is this package's own."""
        return self.library == "mnist-kmeans-mlx"


ARMS = (
    *(
        Arm(f"sklearn-{algorithm}-{dtype}", "scikit-learn", "cpu", algorithm, dtype)
        for algorithm in ("lloyd", "elkan")
        for dtype in ("float64", "float32")
    ),
    *(Arm(f"mlx-{device}", "mnist-kmeans-mlx", device, "auto") for device in ("cpu", "gpu")),
)

# Every result is checked against REFERENCE, and ours against SECOND if it differs: with exact ties
# rounding decides, so that scikit-learn's two algorithms differ.
REFERENCE = ARMS[0]
SECOND = ARMS[2]


def rotated(arms: Sequence[T], turn: int) -> list[T]:
    """Return the arms in the order of a round: each round begins with another."""
    first = turn % max(1, len(arms))
    return [*arms[first:], *arms[:first]]


def choose_arms(names: str) -> tuple[Arm, ...]:
    """Find arms by names or their first parts, with commas between, in the order of `ARMS`.

    Raises
    ------
    BenchmarkError
        A name fits no arm.

    Examples
    --------
    >>> [arm.name for arm in choose_arms("sklearn-elkan,mlx-cpu")]
    ['sklearn-elkan-float64', 'sklearn-elkan-float32', 'mlx-cpu']
    """
    chosen = set()
    for name in (part.strip() for part in names.split(",")):
        fitting = {arm for arm in ARMS if f"{arm.name}-".startswith(f"{name}-")} if name else set()
        if not fitting:
            known = ", ".join(arm.name for arm in ARMS)
            raise BenchmarkError(f"there is no arm {name!r}; there are {known}.")
        chosen |= fitting
    return tuple(arm for arm in ARMS if arm in chosen)
