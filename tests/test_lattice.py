"""Rows on a lattice: found where they lie on one, and clustered as the floats that they are."""

import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
from doubles import WAYS, taken_for_gpu
from hypothesis import given, settings
from sklearn.cluster import KMeans as ScikitKMeans

from mnist_kmeans_mlx import KMeans, estimator
from mnist_kmeans_mlx.device import resolve
from mnist_kmeans_mlx.engine import points as points_
from mnist_kmeans_mlx.engine.lattice import Lattice
from mnist_kmeans_mlx.engine.lloyd import lloyd
from mnist_kmeans_mlx.engine.points import Points
from mnist_kmeans_mlx.engine.ways import choose
from mnist_kmeans_mlx.memory import Plan

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (900, 12)) * (RNG.random((900, 12)) < 0.6)
SOUND = RNG.normal(0, 4000, (900, 12)).round()
LATTICES = {
    "pixels / 255": (PIXELS / 255, np.uint8),
    "pixels / 256 in float32": ((PIXELS / 256).astype(np.float32), np.uint8),
    "pixels / 256 in float16": ((PIXELS / 256).astype(np.float16), np.uint8),
    "standardized": ((PIXELS - PIXELS.mean()) / PIXELS.std(), np.uint8),
    "less the mean": (PIXELS / 255 - (PIXELS / 255).mean(axis=0), np.uint8),
    "sound": (SOUND / 32768, np.int16),
    "prices": (RNG.lognormal(2, 1, (900, 12)).round(2).clip(0, 600), np.uint16),
    "dollars": (RNG.integers(0, 90, (900, 12)) + 0.99, np.uint8),
    "whole floats": (PIXELS.astype(float), np.uint8),
    "whole numbers": (PIXELS - 100, np.int16),
    "temperatures": (RNG.normal(36, 1, (900, 12)).round(1), np.int8),
    "half seconds": (1e6 + RNG.integers(0, 900, (900, 12)) / 2, np.int16),
}


@pytest.fixture(autouse=True)
def few_are_enough(monkeypatch):
    monkeypatch.setattr(points_, "ONE_PIECE", 0)


@pytest.mark.parametrize("kind", LATTICES)
def test_it_is_found_and_rows_are_on_it(kind):
    rows, dtype = LATTICES[kind]
    points = Points(rows, resolve("cpu"))
    assert points.on_lattice
    whole = points.narrow_rows(slice(None))
    assert whole.dtype == dtype
    np.testing.assert_array_equal(points.moved(slice(None)), whole)
    back = whole / points.scale + points.origin
    np.testing.assert_allclose(back, rows.astype(float), rtol=1e-13, atol=1e-15)
    off = np.linalg.norm(points.move(rows.astype(float)) - whole, axis=1).max()
    assert off <= points.residual


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("way", ["host", "mlx"])
@pytest.mark.parametrize("kind", LATTICES)
def test_results_are_those_of_the_floats(kind, way, keep):
    rows = LATTICES[kind][0]
    start = rows[:5].astype(float)
    labels, inertia, centers, n_iter = oracle.kmeans(rows, start)
    device = resolve("cpu") if way == "host" else taken_for_gpu()
    chosen = choose(Points(rows, device, keep=keep), 5)
    run = lloyd(chosen, start, max_iter=300, tol=1e-4 * chosen.mean_variance)
    np.testing.assert_array_equal(run.labels, labels)
    assert run.n_iter == n_iter
    np.testing.assert_allclose(run.centers, centers, rtol=1e-12, atol=1e-12)
    squared = chosen.points.squared(run.inertia)
    np.testing.assert_allclose(squared, inertia, rtol=1e-9)


# Of so few temperatures some are equally far from two seeds.
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [kind for kind in LATTICES if kind != "temperatures"])
def test_the_same_seeds_as_scikit_learn(kind, weighted):
    rows = LATTICES[kind][0]
    weights = np.random.default_rng(1).integers(1, 5, len(rows)) / 2 if weighted else None
    ours = KMeans(7, n_init=4, random_state=3).fit(rows, sample_weight=weights)
    theirs = ScikitKMeans(7, n_init=4, random_state=3).fit(rows.astype(float), None, weights)
    np.testing.assert_array_equal(ours.labels_, theirs.labels_)
    assert ours.n_iter_ == theirs.n_iter_
    rtol = 1e-12 if rows.dtype.itemsize == 8 else 1e-7
    np.testing.assert_allclose(ours.cluster_centers_, theirs.cluster_centers_, rtol=0, atol=rtol * (
        1 + np.abs(rows).max()
    ))  # fmt: skip


@pytest.mark.parametrize("init", ["random", "k-means||", "k-means++"])
def test_memory_does_not_change_the_result(init, tmp_path, monkeypatch):
    rows = LATTICES["pixels / 255"][0]
    np.save(tmp_path / "rows.npy", rows)
    whole = KMeans(6, init=init, n_init=2, random_state=0, algorithm="elkan").fit(rows)
    parts = KMeans(6, init=init, n_init=2, random_state=0, algorithm="elkan")
    monkeypatch.setattr(estimator, "plan", lambda *args: Plan(False, 1 << 30))
    parts.fit(tmp_path / "rows.npy")
    np.testing.assert_array_equal(whole.labels_, parts.labels_)
    np.testing.assert_array_equal(whole.cluster_centers_, parts.cluster_centers_)
    assert whole.inertia_ == parts.inertia_


@pytest.mark.parametrize("value", [0.5, 1e-9, 300 / 255, 200.0])
def test_one_value_off(value):
    """A lattice of all rows but one, which the sample does not show."""
    rows = np.tile(LATTICES["pixels / 255"][0], (8, 1))
    rows[-1, 3] = value
    points = Points(rows, resolve("cpu"))
    assert points.on_lattice == (value > 1)
    expected = oracle.kmeans(rows, rows[:4])
    run = lloyd(
        choose(points, 4),
        rows[:4],
        max_iter=300,
        tol=1e-4 * rows.var(axis=0).mean() * points.scale**2,
    )
    np.testing.assert_array_equal(run.labels, expected[0])
    assert run.n_iter == expected[3]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    rows = np.tile(LATTICES["pixels / 255"][0], (8, 1))
    rows[-2, 3] = value
    with pytest.raises(ValueError, match="NaN or infinity"):
        Points(rows, resolve("cpu"))


@pytest.mark.parametrize(
    "rows",
    [
        RNG.normal(size=(500, 3)),
        (PIXELS / 255).astype(np.float32),  # float32 has rounded off too much
        (PIXELS - PIXELS.mean(axis=0)) / (1 + PIXELS.std(axis=0)),  # a unit of each feature
        PIXELS / 255 + RNG.normal(0, 1e-12, PIXELS.shape),
        np.full((500, 3), 1e-310),
        np.zeros((500, 3)),
    ],
)
def test_others_are_on_none(rows):
    assert not Points(rows, resolve("cpu")).on_lattice


@pytest.mark.parametrize("origin", [1e7, 1e9])
def test_rows_so_far_off_that_they_lie_beside_it_keep_their_seeds(origin):
    for seed in range(6):
        whole = np.random.default_rng(seed).integers(0, 400, (6000, 3))
        rows = origin + whole / 100
        ours = KMeans(8, n_init=1, max_iter=1, random_state=seed).fit(rows)
        theirs = ScikitKMeans(8, n_init=1, max_iter=1, random_state=seed).fit(rows)
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)


def test_few_numbers_are_not_looked_at(monkeypatch):
    monkeypatch.undo()
    assert not Points(PIXELS / 255, resolve("cpu")).on_lattice


@settings(max_examples=60, deadline=None)
@given(
    levels=st.integers(2, 60_000),
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-5, 5),
    seed=st.integers(0, 99),
)
def test_any_lattice_is_found_or_left_alone(levels, scale, shift, seed):
    whole = np.random.default_rng(seed).integers(0, levels, (400, 4))
    rows = whole / scale + shift * levels / scale
    lattice = Lattice.guess(rows, rows.dtype)
    if lattice is not None:
        found, off = lattice.whole(rows.copy())
        assert off <= lattice.slack
        np.testing.assert_allclose(found / lattice.scale + lattice.origin, rows,
                                   rtol=0, atol=1e-12 * np.abs(rows).max())  # fmt: skip
    else:
        assert levels > 30_000


@pytest.mark.parametrize("way", WAYS)
def test_relocation(way):
    rows = np.repeat(LATTICES["dollars"][0][:30], 3, axis=0)
    start = np.vstack([rows[:3], np.full((2, rows.shape[1]), 1e4)])
    expected = oracle.kmeans(rows, start)
    chosen = WAYS[way](rows)
    run = lloyd(chosen, start, max_iter=300, tol=1e-4 * chosen.mean_variance)
    np.testing.assert_array_equal(run.labels, expected[0])
    np.testing.assert_allclose(run.centers, expected[2], rtol=1e-12)
