"""How leaves are made: balance, room, second leaves, rounding."""

from __future__ import annotations

import numpy as np
import pytest

from tfrs_selfattn.index import building, kmeans, placement, quantization, sources

RNG = np.random.default_rng(0)
VECTORS = (
    RNG.normal(size=(13, 5))[RNG.integers(0, 13, 1_700) ** 2 // 13]
    + 0.2 * RNG.normal(size=(1_700, 5))
).astype(np.float32)  # clusters of very unequal sizes


def test_nearest_leaves_and_choices_equal_loops():
    centers = VECTORS[:17]
    distances, choices = placement.choices_of(
        [VECTORS[:40], VECTORS[40:50]], 50, centers
    )
    for row in range(50):
        squares = [0.5 * ((VECTORS[row] - c) ** 2).sum() for c in centers]
        order = np.argsort(squares)[:8]
        np.testing.assert_array_equal(choices[row], order)
        np.testing.assert_allclose(distances[row], np.sort(squares)[:8], atol=1e-5)
    np.testing.assert_array_equal(
        kmeans.nearest_leaves(VECTORS[:50], centers), choices[:, 0]
    )


def test_prices_even_out_the_leaves():
    centers = kmeans.train_centers(VECTORS, 25, iterations=8, seed=1)
    assert centers.shape == (25, 5) and np.isfinite(centers).all()
    distances, choices = placement.choices_of([VECTORS], len(VECTORS), centers)
    before = np.bincount(choices[:, 0], minlength=25)
    after = np.bincount(placement.balanced(distances, choices, 25), minlength=25)
    assert after.std() < 0.7 * before.std()
    assert after.sum() == len(VECTORS)


@pytest.mark.parametrize("slack", [1.0, 1.2])
def test_everything_fits_and_near_where_it_wants(slack):
    centers = VECTORS[RNG.choice(len(VECTORS), 25, replace=False)]
    distances, choices = placement.choices_of([VECTORS], len(VECTORS), centers)
    most = int(np.ceil(slack * len(VECTORS) / 25))
    taken = np.zeros(25, np.int32)
    leaves = placement.fit(
        choices[:, 0], distances, choices, taken, most, centers, VECTORS.__getitem__
    )
    sizes = np.bincount(leaves, minlength=25)
    np.testing.assert_array_equal(taken, sizes)
    assert sizes.max() <= most
    # Who moved out of a full leaf: nobody where there was room.
    moved = leaves != choices[:, 0]
    wanted = np.bincount(choices[:, 0], minlength=25)
    assert set(choices[moved, 0]) == set(np.flatnonzero(wanted > most))
    slots = placement.slots_of(leaves, 25, most)
    assert len(set(slots)) == len(VECTORS)
    np.testing.assert_array_equal(slots // most, leaves)


def test_who_finds_all_near_leaves_full_goes_to_the_nearest_that_are_not():
    places = np.random.default_rng(1).permutation(60)  # of the leaves, on a line
    centers = places[:, np.newaxis].astype(np.float32)
    vectors = np.linspace(0, 0.01, 250, dtype=np.float32)[:, np.newaxis]
    distances, choices = placement.choices_of([vectors], 250, centers)
    taken = np.zeros(60, np.int32)
    leaves = placement.fit(
        choices[:, 0], distances, choices, taken, 10, centers, vectors.__getitem__
    )
    assert set(places[leaves]) == set(range(25))
    np.testing.assert_array_equal(taken[np.argsort(places)], [10] * 25 + [0] * 35)


def test_rows_of_a_source_come_in_the_order_asked_for():
    rows = RNG.permutation(len(VECTORS))[:300]
    whole = sources.as_source(VECTORS, None)
    np.testing.assert_array_equal(sources.rows_of(whole, rows), VECTORS[rows])
    assert sources.rows_of(whole, rows[:0]).shape == (0, 5)


def test_second_choices_minimize_the_loss_of_soar():
    centers = VECTORS[:12]
    _, choices = placement.choices_of([VECTORS[:60]], 60, centers)
    second = placement.second_choices(
        VECTORS[:60], choices[:, 0], choices, centers, weight=1.5
    )
    for row, vector in enumerate(VECTORS[:60]):
        first = vector - centers[choices[row, 0]]
        first = first / max(np.linalg.norm(first), 1e-30)
        losses = {}
        for leaf in choices[row, 1:]:
            other = vector - centers[leaf]
            losses[leaf] = other @ other + 1.5 * (other @ first) ** 2
        assert second[row] == min(losses, key=losses.get)


def test_the_same_seed_gives_the_same_centers():
    one, two, other = (
        kmeans.train_centers(VECTORS, 25, iterations=4, seed=seed) for seed in (3, 3, 4)
    )
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_centers_of_a_search_point_to_the_mean_and_reach_out():
    statistics = building.LeafStatistics(3, 2)
    statistics.add(np.array([[3, 0], [0, 5]], np.float32), np.array([0, 2], np.int32))
    statistics.add(np.array([[1, 0], [0, 1]], np.float32), np.array([0, 2], np.int32))
    # Half way between the mean's length and the longest.
    np.testing.assert_allclose(statistics.centers(), [[2.5, 0], [0, 0], [0, 4]])


def test_rounding_lowers_the_score_aware_loss_and_stays_a_rounding():
    draw = np.random.default_rng(2)
    vectors = draw.normal(size=(300, 64)).astype(np.float32)
    scales = quantization.dimension_scales(np.abs(vectors).max(axis=0))
    plain, aware = (quantization.quantize(vectors, scales, t) for t in (0.0, 0.2))
    np.testing.assert_array_equal(plain, np.rint(vectors / scales))
    weight = quantization.parallel_weight(64)

    def loss(codes):
        errors = vectors - codes * scales
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        along = np.einsum("nd,nd->n", errors, unit) ** 2
        return (errors**2).sum(axis=1) + (weight - 1) * along

    assert (loss(aware) <= loss(plain) * (1 + 1e-4)).all()
    assert loss(aware).mean() < 0.995 * loss(plain).mean()  # seen: .988
    assert np.abs(aware - vectors / scales).max() < 1 + 1e-4
    assert quantization.quantize(np.zeros([2, 64], np.float32), scales).max() == 0


def test_a_sample_is_drawn_without_replacement_and_in_order(monkeypatch):
    monkeypatch.setattr(sources, "BLOCK_ROWS", 100)
    matrix = np.arange(1_234, dtype=np.float32)[:, np.newaxis]
    source = sources.as_source(matrix, None)
    drawn = sources.sample(source, 300, seed=5)[:, 0]
    assert len(set(drawn)) == 300 and (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(sources.sample(source, 9_999, seed=5), matrix)
    np.testing.assert_array_equal(sources.whole(source), matrix)
