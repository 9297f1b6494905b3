"""Times in towers and models: the same events, the same vector, and nothing leaks."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.weights import randomize
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers import encoders
from tfrs_selfattn.models import CandidateTower, QueryTower, SequenceRetrieval, presets

pytestmark = pytest.mark.legacy_keras

N, D, LONGEST = 23, 6, 5
DAY = 86_400
OPTIONS = {"num_blocks": 2, "num_heads": 2, "max_length": LONGEST, "dropout": 0.0}
INT64 = np.iinfo(np.int64)


def make_tower(name="hstu", **options):
    encoder = getattr(encoders, name)(D, time_aware=True, **OPTIONS)
    tower = QueryTower(
        keras.layers.Embedding(N + 1, D), encoder, **{"max_length": LONGEST, **options}
    )
    tower.build_from_config({})
    return randomize(tower)


def compiled(tower):
    """The tower as a function of any batch, traced once."""
    signature = [
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int64),
        tf.TensorSpec([None], tf.int64),
    ]
    return tf.function(
        lambda history, timestamps, request_time: tower(
            history, timestamps=timestamps, request_time=request_time
        ),
        input_signature=signature,
    )


TOWERS = {name: make_tower(name) for name in ("hstu", "sasrec", "esasrec")}
QUERIES = {name: compiled(tower) for name, tower in TOWERS.items()}
every = pytest.mark.parametrize("name", TOWERS)


def query(name, items, times, request):
    arrays = np.array([items]), np.array([times]), np.array([request])
    types = (np.int32, np.int64, np.int64)
    inputs = (array.astype(type) for array, type in zip(arrays, types, strict=True))
    return QUERIES[name](*map(tf.constant, inputs)).numpy()[0]


seconds = st.integers(-(10**9), 2 * 10**9)
events = st.lists(st.tuples(st.integers(1, N), seconds), max_size=2 * LONGEST)


@every
@settings(max_examples=15, derandomize=True, deadline=None)
@given(events=events, request=seconds, places=st.lists(st.integers(0, 10), max_size=4))
def test_padding_changes_nothing_bit_for_bit(name, events, request, places):
    between = list(events)
    for place in places:
        between.insert(place, (0, 123456789))  # an unknown item had its time, too
    forms = {
        "left": [(0, 7)] * 4 + events,
        "right": [*events, (0, INT64.max)],
        "between": between or [(0, 0)],
    }
    newest = events[-LONGEST:] or [(0, 0)]
    expected = query(name, *zip(*newest, strict=True), request)
    assert np.isfinite(expected).all()
    for form, padded in forms.items():
        found = query(name, *zip(*padded, strict=True), request)
        np.testing.assert_array_equal(found, expected, err_msg=form)


@every
def test_the_query_is_that_of_the_encoder_with_the_next_times(name):
    # Plain loops: what each position is asked for is the time of the item after it.
    tower = TOWERS[name]
    items, times, request = [9, 3, 7, 7, 1], [5, 90, 90, 4000, 10**6], 10**7
    asked = [times[position + 1] for position in range(4)] + [request]
    states = tower.encoder(
        tower.item_embedding(np.array([items])),
        timestamps=np.array([times]),
        request_times=np.array([asked]),
    )
    found = query(name, items, times, request)
    np.testing.assert_allclose(found, states[0, -1], rtol=1e-5, atol=1e-6)


def test_ragged_histories_and_times():
    items = tf.ragged.constant([[9, 3, 7], [1], []], dtype=tf.int32)
    times = tf.ragged.constant([[5, 90, 4000], [70], []], dtype=tf.int64)
    request = tf.constant([10**6, 80, 5], tf.int64)
    tower = TOWERS["sasrec"]
    found = tower(items, timestamps=times, request_time=request)
    dense = items.to_tensor(), times.to_tensor(), request
    np.testing.assert_allclose(found, QUERIES["sasrec"](*dense), rtol=1e-5, atol=1e-6)


@every
def test_only_differences_of_times_count(name):
    items, times = [1, 2, 3], [100, 5000, 5000]
    expected = query(name, items, times, 90_000)
    for shift in (-(10**9), -100, 10**9, 3 * 10**12):
        shifted = [time + shift for time in times]
        found = query(name, items, shifted, 90_000 + shift)
        np.testing.assert_array_equal(found, expected)
    earlier = query(name, items, times, 5001)
    assert np.abs(earlier - expected).max() > 1e-3
    moved = query(name, items, [100, 89_000, 5000], 90_000)
    assert np.abs(moved - expected).max() > 1e-3
    # 136 years are no second: int32 would not tell them apart.
    now, ages = (
        query(name, items, [0, 5000 + gap, 5000], 5000) for gap in (0, 1 << 32)
    )
    assert np.abs(now - ages).max() > 1e-3
    # An item from after the request is one from as long before it.
    one, other = (query(name, [4], [500 + gap], 500) for gap in (-77, 77))
    np.testing.assert_array_equal(one, other)


@every
@pytest.mark.parametrize(
    ("times", "request_time"),
    [
        ([0, 0, 0], 0),
        ([-5, -900, -3], -7),
        ([50, 3, 20], 1),
        ([INT64.min, INT64.max, 0], INT64.min),
        ([INT64.max, INT64.min, -1], INT64.max),
    ],
)
def test_any_times_give_finite_numbers(name, times, request_time):
    assert np.isfinite(query(name, [1, 2, 3], times, request_time)).all()


@every
def test_no_user_depends_on_another(name):
    histories = np.array([[0, 0, 1, 2], [3, 4, 5, 6], [0, 0, 0, 0]], np.int32)
    times = np.array([[0, 0, 10, 500], [1, 2, 3, DAY], [0, 0, 0, 0]])
    requests = np.array([600, 2 * DAY, 5])
    together = TOWERS[name](histories, timestamps=times, request_time=requests)
    np.testing.assert_array_equal(together[2], np.zeros(D))
    for row in range(3):
        alone = query(name, histories[row], times[row], requests[row])
        np.testing.assert_allclose(together[row], alone, rtol=1e-4, atol=1e-5)
    nobody = TOWERS[name](
        histories[:0], timestamps=times[:0], request_time=requests[:0]
    )
    assert nobody.shape == (0, D)


HISTORY = np.array([[4, 9, 2, 7, 5]], np.int32)
TIMES = np.array([[0, 10**6, 10**6 + 900, 10**6 + 900, 10**6 + 990]])
REQUESTS = np.append(TIMES[:, 1:], [[10**6 + 995]], axis=1)


@every
def test_encode_ends_where_call_ends(name):
    states = TOWERS[name].encode(HISTORY, timestamps=TIMES, request_times=REQUESTS)
    found = TOWERS[name](HISTORY, timestamps=TIMES, request_time=REQUESTS[:, -1])
    np.testing.assert_allclose(states[:, -1], found, rtol=1e-5, atol=1e-6)


@every
@pytest.mark.parametrize("position", range(4))
def test_of_the_target_only_its_time_is_known(name, position):
    encode = TOWERS[name].encode
    before = encode(HISTORY, timestamps=TIMES, request_times=REQUESTS).numpy()
    # Other items from the target on, other times after it: nothing is seen of them.
    items, times, requests = HISTORY.copy(), TIMES.copy(), REQUESTS.copy()
    items[0, position + 1 :] = 1
    times[0, position + 2 :] += 10**5
    requests[0, position + 1 :] += 10**5
    after = encode(items, timestamps=times, request_times=requests).numpy()
    np.testing.assert_array_equal(after[:, : position + 1], before[:, : position + 1])
    assert np.abs(after[:, position + 1 :] - before[:, position + 1 :]).min() > 0
    # The target's own time moves its query, and no query before.
    times, requests = TIMES.copy(), REQUESTS.copy()
    later = 50 + 30 * (times[0, position + 1] - times[0, position])
    times[0, position + 1] += later
    requests[0, position] += later
    moved = encode(HISTORY, timestamps=times, request_times=requests).numpy()
    np.testing.assert_array_equal(moved[:, :position], before[:, :position])
    change = np.abs(moved[:, position] - before[:, position]).max()
    # A softmax over one item is 1, whatever the time.
    assert change > 1e-4 or (position == 0 and name != "hstu")


@every
def test_packed_rows_equal_rows_of_their_own(name):
    packed = np.array([[1, 2, 3, 4, 5]], np.int32)
    segments = np.array([[1, 1, 1, 2, 2]], np.int32)
    together = TOWERS[name].encode(
        packed, segments, timestamps=TIMES, request_times=REQUESTS
    )
    for part in (slice(0, 3), slice(3, 5)):
        alone = TOWERS[name].encode(
            packed[:, part],
            timestamps=TIMES[:, part],
            request_times=REQUESTS[:, part],
        )
        np.testing.assert_allclose(together[:, part], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["config", "keras", "saved_model"])
def test_reload(how, tmp_path):
    tower = make_tower(normalize=True)
    arguments = {
        "timestamps": tf.constant(TIMES),
        "request_time": tf.constant([10**7], tf.int64),
    }
    expected = tower(HISTORY, **arguments)
    if how == "config":
        again = QueryTower.from_config(tower.get_config())
        again.build_from_config({})
        again.set_weights(tower.get_weights())
    elif how == "keras":
        tower.save(tmp_path / "tower.keras")
        again = keras.models.load_model(tmp_path / "tower.keras")
    else:
        module = tf.Module()
        module.weights, module.query = tower.weights, compiled(tower)
        tf.saved_model.save(module, str(tmp_path / "tower"))
        loaded = tf.saved_model.load(str(tmp_path / "tower"))
        found = loaded.query(tf.constant(HISTORY), *arguments.values())
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        return
    assert again.time_aware
    np.testing.assert_allclose(again(HISTORY, **arguments), expected, rtol=1e-6)


def test_a_time_free_tower_ignores_times():
    encoder = encoders.sasrec(D, **{**OPTIONS, "num_heads": 1})
    tower = QueryTower(keras.layers.Embedding(N + 1, D), encoder, max_length=LONGEST)
    assert not tower.time_aware
    found = tower(HISTORY, timestamps=TIMES, request_time=REQUESTS[:, -1])
    np.testing.assert_array_equal(found, tower(HISTORY))
    states = tower.encode(HISTORY, timestamps=TIMES, request_times=REQUESTS)
    np.testing.assert_array_equal(states, tower.encode(HISTORY))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"timestamps": None},
            "`timestamps` must be given to a time-aware model, as Unix seconds. "
            "Received: timestamps=None. Pass when",
        ),
        ({"request_time": None}, "Received: request_time=None."),
        (
            {"timestamps": TIMES.astype(np.float32)},
            "`timestamps` must be an integer tensor of shape (1, 5), Unix seconds. "
            "Received: dtype=float32, shape=(1, 5). Use int64",
        ),
        (
            {"timestamps": TIMES[:, 1:]},
            "Received: dtype=int64, shape=(1, 4).",
        ),
        (
            {"request_time": REQUESTS},
            "`request_time` must be an integer tensor of shape (1,), Unix seconds. "
            "Received: dtype=int64, shape=(1, 5).",
        ),
    ],
)
def test_times_that_do_not_fit(changes, message):
    arguments = {"timestamps": TIMES, "request_time": REQUESTS[:, -1], **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        TOWERS["hstu"](HISTORY, **arguments)


def test_rows_without_times_are_refused():
    with pytest.raises(ValueError, match="`request_times` must be given to a time-"):
        TOWERS["hstu"].encode(HISTORY, timestamps=TIMES)


def retrieval(**options):
    model = presets.hstu(
        11, embedding_dim=4, num_blocks=1, max_length=6, dropout=0.0, **options
    )
    model.build_from_config({})
    return randomize(model)


ROWS = {
    "history": tf.constant([[1, 2, 3, 4, 5, 0], [0, 0, 6, 7, 0, 8]]),
    "targets": tf.constant([[2, 3, 0, 5, 6, 0], [0, 0, 7, 8, 0, 9]]),
    "timestamps": tf.constant(
        [[10, 20, 900, 5, 10**6, 0], [0, 0, 7, 8, 0, 9000]], tf.int64
    ),
    "request_times": tf.constant(
        [[20, 900, 901, 10**6, 10**7, 0], [0, 0, 8, 9000, 0, 9900]], tf.int64
    ),
}
CASES = {
    "history": tf.constant([[0, 1, 2, 3], [4, 5, 6, 7]]),
    "timestamps": tf.constant([[0, 10, 20, 30], [1, DAY, DAY, 2 * DAY]], tf.int64),
    "request_time": tf.constant([40, 3 * DAY], tf.int64),
    "target": tf.constant([9, 8]),
}


def test_a_model_trains_evaluates_and_scores_with_times():
    model = retrieval()
    assert model.time_aware
    states = model.query_tower.encode(
        ROWS["history"],
        timestamps=ROWS["timestamps"],
        request_times=ROWS["request_times"],
    )
    learn = ROWS["targets"].numpy() > 0
    logits = states.numpy()[learn] @ model.candidate_tower.catalogue().numpy().T
    targets = ROWS["targets"].numpy()[learn] - 1
    chosen = logits[np.arange(len(targets)), targets]
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - chosen)
    np.testing.assert_allclose(model.compute_loss(ROWS), expected, rtol=1e-4)

    scores = model.score(CASES["history"], CASES["timestamps"], CASES["request_time"])
    query = model(
        CASES["history"],
        timestamps=CASES["timestamps"],
        request_time=CASES["request_time"],
    )
    table = model.candidate_tower.catalogue()
    np.testing.assert_allclose(scores, query.numpy() @ table.numpy().T, rtol=1e-4)

    model.compile(keras.optimizers.Adam(0.01))
    found = model.test_step(CASES)
    ranks = []
    for row, case in enumerate(scores.numpy()):
        target = int(CASES["target"][row]) - 1
        seen = set(CASES["history"][row].numpy() - 1) - {target}
        others = [s for item, s in enumerate(case) if item not in {*seen, target}]
        ranks.append(1 + sum(other >= case[target] for other in others))
    hits = np.mean(np.array(ranks) <= 10)
    assert float(found["hr@10"]) == hits
    losses = [float(model.train_step(ROWS)["loss"]) for _ in range(3)]
    assert losses[-1] < losses[0]
    for weight in model.trainable_weights:
        assert np.isfinite(weight.numpy()).all()


def test_the_time_biases_learn():
    model = retrieval()
    model.compile(keras.optimizers.SGD(0.1))
    (table,) = [
        weight
        for weight in model.trainable_weights
        if "relative_time_bias" in weight.name
    ]
    before = table.numpy()
    model.train_step(ROWS)
    assert np.abs(table.numpy() - before).max() > 0


@pytest.mark.parametrize("time_aware", [True, False])
def test_the_scorer_says_what_it_needs(time_aware):
    model = retrieval(time_aware=time_aware)
    score = model.scorer()
    assert score.time_aware is model.time_aware is time_aware
    history, times, request = (CASES[name] for name in list(CASES)[:3])
    arguments = (history, times, request) if time_aware else (history,)
    np.testing.assert_allclose(score(*arguments), model.score(*arguments), rtol=1e-5)
    # Any number of users and items, without another trace.
    score(*(argument[:1] for argument in arguments))
    assert score.experimental_get_tracing_count() == 1


def test_without_times_nothing_is_ranked():
    model = retrieval()
    with pytest.raises(ValueError, match="`timestamps` must be given"):
        model.score(CASES["history"])
    with pytest.raises(ValueError, match="`timestamps` must be given"):
        model.compute_loss({name: ROWS[name] for name in ("history", "targets")})


def test_a_model_comes_back_time_aware(tmp_path):
    model = retrieval(normalize=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.time_aware and again.shares_table
    arguments = [CASES[name] for name in ("history", "timestamps", "request_time")]
    np.testing.assert_allclose(again.score(*arguments), model.score(*arguments))


def test_a_tower_of_another_make_gets_no_times():
    class Plain(keras.Model):
        def call(self, history, training=None):
            return tf.cast(history, tf.float32)

        def encode(self, history, segment_ids=None, training=None):
            return tf.cast(history, tf.float32)[..., tf.newaxis]

    model = SequenceRetrieval(Plain(), CandidateTower(keras.layers.Embedding(5, 4)))
    assert not model.time_aware
    assert model.score(CASES["history"], CASES["timestamps"]).shape == (2, 4)
