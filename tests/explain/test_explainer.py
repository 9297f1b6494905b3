"""The methods on whole models: in their places, complete, and of the right model."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tests.export.tiny import MAX_LENGTH, N, make_model
from tests.export.told import QUERY_RAW
from tfrs_selfattn.explain import Explainer
from tfrs_selfattn.explain.explainer import METHODS
from tfrs_selfattn.features import Category, FeatureEncoder, FeatureSet, Vector

PRESETS = ("sasrec", "esasrec", "bert4rec", "hstu")  # gsasrec's towers are sasrec's
USERS, LENGTH = 4, MAX_LENGTH + 3
ITEM = tf.constant([9, 1, 20, 7])


@pytest.fixture(scope="module", params=PRESETS)
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def model(preset):
    return make_model(preset=preset, seed=3)


@pytest.fixture(scope="module")
def history():
    """Longer than the model reads; padded on the left; in between; empty."""
    history = np.random.default_rng(5).integers(1, N + 1, [USERS, LENGTH])
    history[1, :6] = 0
    history[2, [2, 5, 6, 7, 12]] = 0
    history[3] = 0
    return history.astype(np.int32)


def times_of(model, history):
    if not model.time_aware:
        return ()
    hours = np.cumsum(np.ones_like(history, np.int64) * 3600, axis=1)
    return tf.constant(hours), tf.constant(hours[:, -1] + 600)


def methods_of(model):
    # HSTU's weights are no shares.
    return METHODS[:2] if model.time_aware else METHODS


def score_of(score, history, item, times):
    given = [tf.constant([history], tf.int32)]
    if times:
        given += [tf.constant([times[0]], tf.int64), tf.constant([times[1]], tf.int64)]
    return score(*given).numpy()[0, item - 1]


def test_leave_one_out_is_the_change_of_the_models_own_score(model, history):
    times = times_of(model, history)
    found = Explainer(model).contributions(history, ITEM, *times).numpy()
    score = model.scorer()
    for user in range(USERS):
        real = [t for t in range(LENGTH) if history[user, t]]

        def scored(places, user=user):
            asked = ()
            if times:
                asked = times[0].numpy()[user, places], int(times[1][user])
            row = history[user, places] if places else [0]
            if times and not places:
                asked = ([0], asked[1])
            return score_of(score, row, int(ITEM[user]), asked)

        wanted = np.zeros(LENGTH)
        for t in real:
            wanted[t] = scored(real) - scored([s for s in real if s != t])
        np.testing.assert_allclose(found[user], wanted, rtol=1e-3, atol=1e-4)
    # Older than the model reads: only the order of sums may differ.
    np.testing.assert_allclose(found[0, :3], 0, atol=1e-6)
    assert np.abs(found[0, 3:]).min() > 0


def difference_of(model, history, times):
    """Scores of the histories less those of as many average items."""
    explainer = Explainer(model)
    aligned, named = model.query_tower.aligned(tf.constant(history), *times)
    blank = tf.broadcast_to(explainer.average_item(), [*aligned.shape, 8])
    queries = model.query_tower.query_of(blank, aligned, training=False, **named)
    before = tf.reduce_sum(queries * model.candidate_tower(ITEM), -1)
    return (explainer.score(tf.constant(history), ITEM, *times) - before).numpy()


def test_integrated_gradients_sum_to_the_difference_of_scores(model, history):
    times = times_of(model, history)
    given = {"method": "integrated_gradients", "tolerance": 0.005}
    found = Explainer(model).contributions(history, ITEM, *times, **given).numpy()
    difference = difference_of(model, history, times)
    size = np.abs(found).sum(axis=1)
    assert (np.abs(found.sum(axis=1) - difference)[:3] < 0.0051 * size[:3]).all()
    assert np.abs(difference[:3]).min() > 0.01
    assert not found[3].any()


def test_points_are_added_where_they_are_needed(history, monkeypatch):
    from tfrs_selfattn.explain import explainer as module

    model = make_model(seed=3)  # of ReLU, whose gradient jumps
    explainer = Explainer(model)
    method = {"method": "integrated_gradients"}
    asked = []

    def watched(self, steps, vectors, given):
        asked.append((steps, len(vectors)))
        return whole(self, steps, vectors, given)

    whole = Explainer._integrated
    monkeypatch.setattr(Explainer, "_integrated", watched)
    coarse = explainer.contributions(history, ITEM, steps=4, **method).numpy()
    gap = np.abs(coarse.sum(axis=1) - difference_of(model, history, ()))
    assert (gap / (np.abs(coarse).sum(axis=1) + 1e-6)).max() > 0.01
    assert asked == [(4, USERS)]
    asked.clear()
    fine = explainer.contributions(history, ITEM, **method).numpy()
    steps, rows = zip(*asked, strict=True)
    assert steps == tuple(16 * 2**n for n in range(len(steps)))
    assert rows[0] == USERS and list(rows) == sorted(rows, reverse=True)
    assert rows[-1] < USERS and len(rows) > 1
    # A history alone is given as many points as among others.
    single = explainer.contributions(history[:1], ITEM[:1], **method)
    np.testing.assert_allclose(single[0], fine[0], rtol=1e-4, atol=1e-5)

    monkeypatch.setattr(module, "_MOST_STEPS", 16)
    with pytest.warns(UserWarning, match=r"histories miss .* with 16 points\. Use "):
        explainer.contributions(history, ITEM, tolerance=1e-4, **method)


def test_roll_out_shares_one_among_real_items(model, history):
    if model.time_aware:
        with pytest.raises(ValueError, match="needs blocks with attention weights"):
            Explainer(model).attention(history, *times_of(model, history))
        return
    explainer = Explainer(model)
    found = explainer.contributions(history, ITEM, method="attention_rollout").numpy()
    assert (found >= 0).all()
    token = model.query_tower.query_token  # keeps a share to itself
    for total in found[:3].sum(1):
        assert 0.1 < total < 0.99 if token else total == pytest.approx(1, abs=1e-5)
    weights = explainer.attention(history)
    width = MAX_LENGTH + token
    assert [w.shape[2:] for w in weights] == [[width, width]] * len(weights)


def test_contributions_stay_with_their_items_however_a_history_is_padded(
    model, history
):
    times = times_of(model, history)
    explainer = Explainer(model)
    shift = 4
    wide = np.pad(history, [[0, 0], [shift, 2]])
    wide_times = ()
    if times:
        wide_times = (np.pad(times[0].numpy(), [[0, 0], [shift, 2]]), times[1])
    for method in methods_of(model):
        found = explainer.contributions(history, ITEM, *times, method=method).numpy()
        wider = explainer.contributions(wide, ITEM, *wide_times, method=method)
        np.testing.assert_allclose(
            found, wider[:, shift:-2], rtol=1e-3, atol=1e-5, err_msg=method
        )
        assert not found[history == 0].any()
        assert found.any()


def test_batches_are_cut_without_a_trace(history, monkeypatch):
    from tfrs_selfattn.explain import explainer as module

    explainer = Explainer(make_model(seed=3))
    for method in METHODS[1:]:
        whole = explainer.contributions(history, ITEM, method=method)
        monkeypatch.setattr(module, "_POSITIONS_AT_ONCE", LENGTH)
        single = explainer.contributions(history, ITEM, method=method)
        np.testing.assert_allclose(whole, single, rtol=1e-4, atol=1e-5)
        monkeypatch.undo()


def test_wrong_use_is_refused(history):
    explainer = Explainer(make_model())
    with pytest.raises(ValueError, match=r"`method` must be one of 'leave_one_out', "):
        explainer.contributions(history, ITEM, method="lime")
    with pytest.raises(ValueError, match=r"`tolerance` must be a positive finite num"):
        explainer.contributions(history, ITEM, tolerance=0.0)


def test_roll_out_needs_a_query_that_is_the_newest_state(history):
    from tfrs_selfattn.layers import SequencePooling

    model = make_model()
    model.query_tower.pooling = SequencePooling("mean")
    with pytest.raises(ValueError, match=r"newest position\. Received: pooling='mean'"):
        Explainer(model).contributions(history, ITEM, method="attention_rollout")


@pytest.fixture(scope="module")
def users_model():
    """A model that knows the country and the taste of its users."""
    query = FeatureSet((Category("country"), Vector("taste")))
    return make_model(query_features=query.fit(QUERY_RAW, "here"), seed=5)


def test_what_is_known_of_a_user_is_part_of_every_score(users_model, history):
    raw = {name: values[:USERS] for name, values in QUERY_RAW.items()}
    encoder = FeatureEncoder(users_model.query_tower.query_projection.features)
    known = encoder({name: tf.constant(each.tolist()) for name, each in raw.items()})
    explainer = Explainer(users_model)
    found = explainer.contributions(history, ITEM, query_features=known).numpy()

    def scored(row, user):
        told = tuple(each[user : user + 1] for each in known)
        scores = users_model.score(tf.constant([row]), query_features=told)
        return scores.numpy()[0, int(ITEM[user]) - 1]

    for user in (1, 2):
        wanted = np.zeros(LENGTH)
        for t in np.flatnonzero(history[user]):
            without = history[user].copy()
            without[t] = 0
            wanted[t] = scored(history[user], user) - scored(without, user)
        np.testing.assert_allclose(found[user], wanted, rtol=1e-3, atol=1e-4)
    # Normalized or not, a query is more than its history: the score is another one.
    alone = explainer.score(tf.zeros_like(history), ITEM, query_features=known)
    assert np.abs(alone).min() > 1e-3

    given = {"method": "integrated_gradients", "tolerance": 0.005}
    shares = explainer.contributions(history, ITEM, query_features=known, **given)
    blank = tf.broadcast_to(explainer.average_item(), [USERS, MAX_LENGTH, 8])
    aligned, _ = users_model.query_tower.aligned(tf.constant(history))
    queries = users_model.query_tower.query_of(blank, aligned, known, training=False)
    before = tf.reduce_sum(queries * users_model.candidate_tower(ITEM), -1)
    whole = explainer.score(tf.constant(history), ITEM, query_features=known)
    size = np.abs(shares).sum(axis=1)
    missed = np.abs(np.sum(shares, axis=1) - (whole - before))
    assert (missed[:3] < 0.0051 * size[:3]).all()

    # Where the model looks does not depend on who asks.
    rolled = explainer.contributions(history, ITEM, method="attention_rollout")
    np.testing.assert_allclose(rolled.numpy()[:3].sum(1), 1, atol=1e-5)
    assert len(explainer.attention(history)) == 2


def test_features_that_do_not_fit_the_model_are_refused(users_model, history):
    message = r"`query_features` must be given .*: None for a model that takes some\."
    with pytest.raises(ValueError, match=message):
        Explainer(users_model).contributions(history, ITEM)
    known = (tf.zeros([USERS, 1], tf.int32), tf.zeros([USERS, 1]), tf.zeros([USERS, 2]))
    with pytest.raises(ValueError, match=r"some for a model that takes none\. Encode"):
        Explainer(make_model()).score(history, ITEM, query_features=known)
