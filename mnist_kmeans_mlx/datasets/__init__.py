"""Where matrices come from: MNIST from any of its sources, and any other file of numbers.

`mnist` and `matrix` are what callers see. Below them `binary` and `tables` read one format per
function, and `faults` says in one sentence what is wrong with a file.
"""

from mnist_kmeans_mlx.datasets.faults import DatasetError
from mnist_kmeans_mlx.datasets.matrix import load_matrix
from mnist_kmeans_mlx.datasets.mnist import Dataset, load_mnist

__all__ = ["Dataset", "DatasetError", "load_matrix", "load_mnist"]
