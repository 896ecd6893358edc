"""Data -> estimator -> labels -> scores: one frozen result, and the log of all of them."""

from mnist_kmeans_mlx.experiment.data import Data, ExperimentError, load
from mnist_kmeans_mlx.experiment.flow import evaluate, predict, predict_to, run, transform_to
from mnist_kmeans_mlx.experiment.log import append_log, log_path, read_log
from mnist_kmeans_mlx.experiment.result import STAGES, Cluster, Evaluation, Result

__all__ = [
    "STAGES",
    "Cluster",
    "Data",
    "Evaluation",
    "ExperimentError",
    "Result",
    "append_log",
    "evaluate",
    "load",
    "log_path",
    "predict",
    "predict_to",
    "read_log",
    "run",
    "transform_to",
]
