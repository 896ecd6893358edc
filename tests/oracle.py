"""K-means in plain float64 NumPy, written to be read, and how results are compared with it."""

import re

import numpy as np

KINDS = ("normal", "duplicates", "constant", "offset", "tiny", "huge", "pixels", "grid")


def distances_sq(X, centers):
    X, centers = np.asarray(X, dtype=np.float64), np.asarray(centers, dtype=np.float64)
    return np.stack([np.square(X - c).sum(axis=1) for c in centers], axis=1)


def kmeans(X, centers, *, weights=None, max_iter=300, tol=1e-4):
    """Lloyd's algorithm with scikit-learn's stopping rule and relocation of empty clusters."""
    X = np.asarray(X, dtype=np.float64)
    centers = np.array(centers, dtype=np.float64)
    weights = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    threshold = tol * X.var(axis=0).mean()
    # The mean of equal rows is that row, whatever they weigh: 3 * x / 3 need not be x.
    # Sums of whole numbers are exact, and their quotients decide ties.
    origin = np.zeros(X.shape[1]) if np.array_equal(X, np.rint(X)) else X[0]
    moved = X - origin
    before = None
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        distances = distances_sq(X, centers)
        labels = distances.argmin(axis=1)
        sums, counts = np.zeros_like(centers), np.zeros(len(centers))
        np.add.at(sums, labels, moved * weights[:, None])
        np.add.at(counts, labels, weights)
        own = distances[np.arange(len(X)), labels]
        empty = np.flatnonzero(counts == 0)
        if len(empty) and own.max() > 0:
            furthest = np.argpartition(own, -len(empty))[: -len(empty) - 1 : -1]
            for cluster, row in zip(empty, furthest, strict=True):
                sums[labels[row]] -= moved[row] * weights[row]
                counts[labels[row]] -= weights[row]
                sums[cluster], counts[cluster] = moved[row] * weights[row], weights[row]
        source = np.where(counts > 0, np.arange(len(centers)), np.argmax(counts))
        new = origin + sums[source] / counts[source, None]
        shift, centers = np.square(new - centers).sum(), new
        if before is not None and np.array_equal(labels, before):
            break
        before = labels
        if shift <= threshold:
            break
    distances = distances_sq(X, centers)
    labels = distances.argmin(axis=1)
    return labels, float(weights @ distances[np.arange(len(X)), labels]), centers, n_iter


def assert_same_bits(a, b):
    """Two fitted estimators agree to the last bit."""
    for name in ("labels_", "cluster_centers_", "inertia_", "n_iter_"):
        found, expected = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes(), name


def words_of(capsys, model, rows):
    """What a fit prints, without its numbers."""
    model.set_params(random_state=0, verbose=1).fit(rows)
    return re.sub(r"[0-9.e-]", "", capsys.readouterr().out).splitlines()


def make_rows(kind, n, d, seed):
    """Rows of one of `KINDS`, float64."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, d))
    if kind == "duplicates":
        rows = rows[rng.integers(0, max(1, n // 3), size=n)]
    elif kind == "constant":
        rows[:, rng.random(d) < 0.5] = 3.25
    elif kind == "offset":
        rows += 1000
    elif kind == "tiny":
        rows *= 1e-6
    elif kind == "huge":
        rows *= 1e6
    elif kind == "pixels":
        rows = rng.integers(0, 256, size=(n, d)).astype(np.float64)
    elif kind == "grid":
        rows = rng.integers(0, 3, size=(n, d)).astype(np.float64)
    return rows
