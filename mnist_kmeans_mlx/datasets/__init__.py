"""Readers of matrices: MNIST from any of its sources, and any other file of numbers.

`mnist`, `matrix` and `sources` are what callers see: the latter for rows that are read in blocks
(`rows`, above `readers` and `forward`) where the others hold them. Below, `binary`, `text` and
`tables` read one format per function, `headers` and `columns` tell features from what else a table
holds, and `faults` says in one sentence what is wrong with a file.
"""

from mnist_kmeans_mlx.datasets.faults import DatasetError, DatasetWarning
from mnist_kmeans_mlx.datasets.matrix import load_matrix
from mnist_kmeans_mlx.datasets.mnist import Dataset, load_mnist
from mnist_kmeans_mlx.datasets.sources import Batches, open_rows

__all__ = [
    "Batches",
    "Dataset",
    "DatasetError",
    "DatasetWarning",
    "load_matrix",
    "load_mnist",
    "open_rows",
]
