"""Fair timings: each arm has its own process, arms alternate, and results are verified."""

from mnist_kmeans_mlx.benchmark.arms import ARMS, REFERENCE, Arm, BenchmarkError, choose_arms
from mnist_kmeans_mlx.benchmark.flow import compare
from mnist_kmeans_mlx.benchmark.result import Case, Comparison, Row, Spread

__all__ = [
    "ARMS",
    "REFERENCE",
    "Arm",
    "BenchmarkError",
    "Case",
    "Comparison",
    "Row",
    "Spread",
    "choose_arms",
    "compare",
]
