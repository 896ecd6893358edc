"""K-means on Apple GPUs with MLX: scikit-learn's answer on every device."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mnist_kmeans_mlx.answers import predict_to, transform_to
    from mnist_kmeans_mlx.bisecting import BisectingKMeans
    from mnist_kmeans_mlx.checkpoint import Checkpoint, CheckpointError
    from mnist_kmeans_mlx.datasets import (
        Dataset,
        DatasetError,
        DatasetWarning,
        load_matrix,
        load_mnist,
        open_rows,
    )
    from mnist_kmeans_mlx.device import DeviceError
    from mnist_kmeans_mlx.distributed import DistributedError
    from mnist_kmeans_mlx.estimator import KMeans
    from mnist_kmeans_mlx.functions import k_means, kmeans_plusplus
    from mnist_kmeans_mlx.labeling import (
        ClusterClassifier,
        infer_cluster_labels,
        infer_data_labels,
    )
    from mnist_kmeans_mlx.minibatch import MiniBatchKMeans
    from mnist_kmeans_mlx.persistence import ModelError, load_model, save_model

__version__ = "0.1.0"

__all__ = [
    "BisectingKMeans",
    "Checkpoint",
    "CheckpointError",
    "ClusterClassifier",
    "Dataset",
    "DatasetError",
    "DatasetWarning",
    "DeviceError",
    "DistributedError",
    "KMeans",
    "MiniBatchKMeans",
    "ModelError",
    "infer_cluster_labels",
    "infer_data_labels",
    "k_means",
    "kmeans_plusplus",
    "load_matrix",
    "load_mnist",
    "load_model",
    "open_rows",
    "predict_to",
    "save_model",
    "transform_to",
]

# Modules are imported on first use: mlx and scikit-learn take a second that --help should not.
_MODULES = {
    "BisectingKMeans": "bisecting",
    "Checkpoint": "checkpoint",
    "CheckpointError": "checkpoint",
    "ClusterClassifier": "labeling",
    "Dataset": "datasets",
    "DatasetError": "datasets",
    "DatasetWarning": "datasets",
    "DeviceError": "device",
    "DistributedError": "distributed",
    "KMeans": "estimator",
    "MiniBatchKMeans": "minibatch",
    "ModelError": "persistence",
    "infer_cluster_labels": "labeling",
    "infer_data_labels": "labeling",
    "k_means": "functions",
    "kmeans_plusplus": "functions",
    "load_matrix": "datasets",
    "load_mnist": "datasets",
    "load_model": "persistence",
    "open_rows": "datasets",
    "predict_to": "answers",
    "save_model": "persistence",
    "transform_to": "answers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
