"""Sparse rows stay sparse, and give what scikit-learn gives."""

import tracemalloc
from fractions import Fraction

import numpy as np
import oracle
import pytest
from ranks import on_ranks, shares
from scipy import sparse
from sklearn import cluster

from mnist_kmeans_mlx import BisectingKMeans, KMeans, MiniBatchKMeans
from mnist_kmeans_mlx.distributed import current
from mnist_kmeans_mlx.engine import csr
from mnist_kmeans_mlx.engine.nearest import Nearest
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import choose


def make_texts(n=600, d=2000, words=25, seed=0):
    """Unit rows as TF-IDF gives them: few words are in many texts, most in hardly any."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(3, d + 3)
    column = rng.choice(d, size=(n, words), p=share / share.sum())
    column = (column + rng.integers(5, size=n)[:, None] * (column > 30) * (d // 5)) % d
    row = np.repeat(np.arange(n), words)
    rows = sparse.csr_matrix((np.ones(n * words), (row, column.ravel())), shape=(n, d))
    often = np.bincount(rows.indices, minlength=d)
    rows.data *= (np.log((1 + n) / (1 + often)) + 1)[rows.indices]
    norms = np.sqrt(rows.multiply(rows).sum(axis=1).A1)
    rows.data /= np.repeat(norms, np.diff(rows.indptr))
    return rows


def wide(rows):
    """The same with indices of eight bytes."""
    rows = rows.copy()
    rows.indices, rows.indptr = rows.indices.astype(np.int64), rows.indptr.astype(np.int64)
    return rows


def shuffled(rows):
    """The same with the entries of each row in another order, and some of them in two halves."""
    order = np.lexsort((np.random.default_rng(0).random(rows.nnz), csr.along(rows, np.arange(600))))
    data, indices = rows.data[order], rows.indices[order]
    data[rows.indptr[5]] /= 2
    ends = rows.indptr + (np.arange(601) > 5)
    data, indices = (np.insert(a, rows.indptr[5], a[rows.indptr[5]]) for a in (data, indices))
    return sparse.csr_matrix((data, indices, ends), shape=rows.shape)


PAIRS = {
    "kmeans": (cluster.KMeans, KMeans, {}),
    "random": (cluster.KMeans, KMeans, {"init": "random", "n_init": 3}),
    "elkan": (cluster.KMeans, KMeans, {"algorithm": "elkan"}),
    "minibatch": (cluster.MiniBatchKMeans, MiniBatchKMeans, {"batch_size": 256}),
    "bisecting": (cluster.BisectingKMeans, BisectingKMeans, {}),
}


@pytest.mark.parametrize("k", [4, 20])
@pytest.mark.parametrize("kind", PAIRS)
def test_answers_are_those_of_scikit_learn(kind, k, device):
    rows, weights = make_texts(), np.random.default_rng(1).integers(1, 4, 600).astype(float)
    theirs, ours, options = PAIRS[kind]
    expected = theirs(k, random_state=0, **options).fit(rows, sample_weight=weights)
    found = ours(k, random_state=0, device=device, **options).fit(rows, sample_weight=weights)
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    assert getattr(found, "n_iter_", None) == getattr(expected, "n_iter_", None)
    np.testing.assert_allclose(found.cluster_centers_, expected.cluster_centers_, atol=1e-13)
    assert found.inertia_ == pytest.approx(expected.inertia_, rel=1e-11)
    np.testing.assert_array_equal(found.predict(rows), expected.predict(rows))
    np.testing.assert_allclose(found.transform(rows), expected.transform(rows), atol=1e-7)
    assert found.score(rows) == pytest.approx(expected.score(rows), rel=1e-11)


@pytest.mark.parametrize("form", [wide, shuffled, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_form_of_a_matrix_does_not_matter(form, metric, device):
    rows = make_texts()
    model = KMeans(9, random_state=0, metric=metric, device=device)
    expected, given = model.fit(rows).labels_, form(rows)
    before = given.indices.copy()
    found = KMeans(9, random_state=0, metric=metric, device=device).fit(given)
    np.testing.assert_array_equal(found.labels_, expected)
    np.testing.assert_array_equal(found.predict(given), expected)
    np.testing.assert_allclose(found.transform(given), model.transform(rows), atol=1e-12)
    np.testing.assert_array_equal(given.indices, before)


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_share_no_word_with_a_seed_go_where_scikit_learn_puts_them(seed, device):
    """They are equally far from all unit vectors, but for the last digit of their norms."""
    rows = make_texts(n=400, d=50_000, words=6, seed=seed)
    start = rows[:12].toarray()
    alone = (rows @ start.T == 0).all(axis=1)
    assert alone.sum() > 10
    options = {"init": start, "n_init": 1, "max_iter": 1}
    expected = cluster.KMeans(12, **options, tol=0).fit(rows).cluster_centers_
    found = KMeans(12, **options, tol=0, device=device).fit(rows).cluster_centers_
    np.testing.assert_allclose(found, expected, atol=1e-13)


@pytest.mark.parametrize("k", [3, 12])
@pytest.mark.parametrize("kind", oracle.KINDS)
def test_labels_are_those_of_differences(kind, k, backend):
    rows = oracle.make_rows(kind, 300, 9, seed=0)
    centers = np.random.default_rng(1).permutation(rows)[:k] + 1e-3
    distances = oracle.distances_sq(rows, centers)
    labels = Nearest(centers, backend).labels(sparse.csr_matrix(rows))
    own = distances[np.arange(300), labels]
    # Of those that differ by the last digit, either: it depends on the order of a sum.
    np.testing.assert_allclose(own, distances.min(axis=1), rtol=1e-15)


def test_neighbours_far_from_zero_are_told_apart(backend):
    """Their squares have no digit left for what is between them."""
    rng = np.random.default_rng(0)
    centers = 1e9 + rng.normal(size=(10, 6))
    rows = centers[rng.integers(10, size=50)] + rng.normal(size=(50, 6)) * 1e-3

    def distance_sq(row, center):
        return sum((Fraction(x) - Fraction(c)) ** 2 for x, c in zip(row, center, strict=True))

    exact = [min(range(10), key=lambda k: distance_sq(row, centers[k])) for row in rows]
    assert Nearest(centers, backend).labels(sparse.csr_matrix(rows)).tolist() == exact


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_numbers_may_be_of_any_size(scale, device):
    rows = sparse.csr_matrix(make_texts(n=80, d=60, words=5))
    model = KMeans(5, random_state=0, device=device).fit(rows)
    if scale < 1:  # the others' squares are no numbers
        found = KMeans(5, random_state=0, device=device, tol=0).fit(rows * scale)
        np.testing.assert_array_equal(found.labels_, model.set_params(tol=0).fit(rows).labels_)
    centers = Nearest(model.cluster_centers_ * scale, model._nearest().device)
    np.testing.assert_array_equal(centers.labels(rows * scale), model.predict(rows))
    distances = np.empty((80, 5))
    centers.distances(rows * scale, distances)
    np.testing.assert_allclose(distances, model.transform(rows) * scale, rtol=1e-9)


@pytest.mark.parametrize("algorithm", ["auto", "lloyd"])
def test_whole_numbers_give_the_bits_of_dense_ones(algorithm, device):
    rows = np.random.default_rng(0).poisson(0.3, size=(500, 40)).astype(float)
    options = {"random_state": 0, "n_init": 3, "algorithm": algorithm, "device": device}
    dense, found = (KMeans(8, **options).fit(X) for X in (rows, sparse.csr_matrix(rows)))
    for name in ("labels_", "cluster_centers_", "inertia_", "n_iter_"):
        np.testing.assert_array_equal(getattr(found, name), getattr(dense, name))


@pytest.mark.parametrize("init", ["k-means++", "k-means||", "random"])
def test_ranks_give_the_bits_of_one(init, device):
    rows, weights = make_texts(n=300), np.random.default_rng(0).random(300)

    def fit(part):
        model = KMeans(6, init=init, random_state=0, n_init=2, device=device)
        return model.fit(rows[part], sample_weight=weights[part])

    alone, parts = fit(slice(None)), shares(300, 3, seed=0)
    found = on_ranks(3, lambda rank: fit(parts[rank]))
    for model in found:
        np.testing.assert_array_equal(model.cluster_centers_, alone.cluster_centers_)
    np.testing.assert_array_equal(np.concatenate([model.labels_ for model in found]), alone.labels_)


def test_rows_are_gathered_as_they_are(backend):
    rows, parts = make_texts(n=90), shares(90, 3, seed=0)
    index = np.random.default_rng(0).permutation(90)[:30]

    def pick(rank):
        return Points(rows[parts[rank]], backend, group=current()).pick_given(index)

    for found in on_ranks(3, pick):
        assert sparse.issparse(found)
        np.testing.assert_array_equal(found.toarray(), rows[index].toarray())


def test_sums_do_not_depend_on_the_way_to_them(backend):
    """Rows are added and taken away again, in whatever order, without a trace."""
    rows = make_texts()
    points = Points(rows, backend, np.random.default_rng(0).random(600))
    rng, k = np.random.default_rng(1), 5
    labels = rng.integers(k, size=600).astype(np.int32)
    fresh, moved = (choose(points, k).clusters(k) for _ in range(2))
    fresh.begin(labels)
    for _ in range(4):
        other = labels.copy()
        other[rng.integers(600, size=60)] = rng.integers(k, size=60)
        moved.begin(other)
    moved.begin(labels)
    np.testing.assert_array_equal(moved.sums, fresh.sums)
    np.testing.assert_array_equal(moved.counts, fresh.counts)
    expected = np.stack(
        [points.weights[labels == c] @ rows[labels == c].toarray() for c in range(k)]
    )
    np.testing.assert_allclose(fresh.sums / points.scale, expected, atol=1e-13)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused(bad, backend):
    for place in (0, -1):
        rows = make_texts(n=50)
        rows.data[place] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            Points(rows, backend)


def test_fewer_rows_than_clusters_differ(device):
    rows = sparse.vstack([make_texts(n=3)] * 20, "csr")
    with pytest.warns(match=r"distinct clusters \(3\)"):
        model = KMeans(5, random_state=0, device=device).fit(rows)
    assert model.inertia_ == pytest.approx(0, abs=1e-20)
    assert len(set(model.labels_[:3])) == 3


@pytest.mark.parametrize("make", [KMeans, MiniBatchKMeans, BisectingKMeans])
def test_no_row_is_made_dense_but_those_of_a_block(make, device):
    rows = make_texts(n=4000, d=20_000)
    tracemalloc.start()
    try:
        model = make(4, random_state=0, device=device, max_iter=3).fit(rows)
        model.predict(rows)
        model.transform(rows)
        # 640 MB if dense.
        assert tracemalloc.get_traced_memory()[1] < 60e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["empty", "alike", "counts"])
def test_rows_in_doubt_stay_sparse(kind, device):
    """Rows that equal their centre, and whole numbers as far from one centre as from another."""
    rng, n, d = np.random.default_rng(0), 3000, 30_000
    if kind == "empty":
        rows = sparse.csr_matrix((np.ones(20), (np.arange(20), np.arange(20) % 2)), shape=(n, d))
    elif kind == "alike":
        rows = make_texts(n=4, d=d)[rng.integers(4, size=n)]
    else:
        column = rng.integers(6, size=(n, 3)) * (d // 6)
        rows = sparse.csr_matrix((np.ones(3 * n), column.ravel(), 3 * np.arange(n + 1)), (n, d))
        rows.sum_duplicates()
    start = rows[
        np.unique(rows.toarray()[:, rows.getnnz(axis=0) > 0], axis=0, return_index=True)[1]
    ]
    start = start[:4].toarray()
    tracemalloc.start()
    try:
        model = KMeans(len(start), init=start, max_iter=1, device=device).fit(rows)
        distances = model.transform(rows)
        assert tracemalloc.get_traced_memory()[1] < 80e6
    finally:
        tracemalloc.stop()
    used = np.flatnonzero(rows.getnnz(axis=0))
    expected = oracle.distances_sq(rows[:, used].toarray(), model.cluster_centers_[:, used])
    np.testing.assert_allclose(np.square(distances), expected, rtol=1e-11, atol=1e-30)
    np.testing.assert_array_equal(model.labels_, distances.argmin(axis=1))
    labels = Nearest(start, model._nearest().device).labels(rows)
    expected = oracle.distances_sq(rows[:, used].toarray(), start[:, used])
    np.testing.assert_array_equal(labels, expected.argmin(axis=1))


@pytest.mark.parametrize("first", [0, 1])
def test_sums_that_pass_through_infinity_are_made_again(first, backend):
    # To the nearer of the first two, float32 adds 4e38 before it takes most of that away.
    centers = [[-0.5, 0], [-2, 1.65], *([-1, -each] for each in range(7))]
    centers = np.array(centers)[[first, 1 - first, *range(2, 9)]]
    rows = np.full((200, 2), 1e38)
    expected = (np.square(centers).sum(axis=1) - 2 * rows @ centers.T).argmin(axis=1)
    assert set(expected) == {1 - first}
    found = Nearest(centers, backend).labels(sparse.csr_matrix(rows))
    np.testing.assert_array_equal(found, expected)
