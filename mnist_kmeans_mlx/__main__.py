"""``python -m mnist_kmeans_mlx``."""

from mnist_kmeans_mlx.cli import main

if __name__ == "__main__":
    main()
