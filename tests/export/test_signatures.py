"""What an exported SavedModel answers, against plain loops over the model's scores."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfrs_selfattn.export.manifest import describe_signatures


@pytest.fixture(scope="module")
def histories(tiny):
    """Known, unknown, repeated, padded and over-long."""
    ids = tiny.IDS
    return [
        [ids[3], ids[14], ids[15]],
        [ids[30]],
        ["", ids[27], "", "nothing", ids[28]],
        [ids[5], ids[5], ids[5]],
        [ids[j % tiny.N] for j in range(3, 3 + 2 * tiny.MAX_LENGTH)],
    ]


EMPTY = [[], ["", ""], ["nothing"], ["nothing", "", "none"]]


def assert_answers(outputs, wanted):
    ids, scores = outputs["ids"].numpy(), outputs["scores"].numpy()
    for row, (names, values) in enumerate(wanted):
        assert ids[row].tolist() == names
        np.testing.assert_allclose(scores[row], values, rtol=1e-5, atol=1e-5)
    assert len(ids) == len(wanted)
    assert np.isfinite(scores).all()


def test_the_signatures_are_the_ones_on_file(signatures, assert_golden):
    text = json.dumps(describe_signatures(signatures), indent=2, sort_keys=True)
    assert_golden("signatures.json", text + "\n")


def test_each_history_gets_the_best_unseen_items(
    signatures, histories, strings, expected
):
    outputs = signatures["serving_default"](history=strings(histories))
    assert_answers(outputs, [expected(history) for history in histories])


def test_keep_seen_answers_with_seen_items_too(
    keep_seen_signatures, histories, strings, expected
):
    outputs = keep_seen_signatures["serving_default"](history=strings(histories))
    wanted = [expected(history, keep_seen=True) for history in histories]
    assert_answers(outputs, wanted)
    assert wanted != [expected(history) for history in histories]


def test_a_history_without_a_known_item_gets_the_most_popular(
    signatures, strings, expected, tiny
):
    outputs = signatures["serving_default"](history=strings(EMPTY))
    assert_answers(outputs, [expected([])] * len(EMPTY))
    best = outputs["ids"].numpy()[0].tolist()
    counts = [tiny.COUNTS[tiny.IDS.index(name.decode())] for name in best]
    assert counts == sorted(tiny.COUNTS, reverse=True)[: tiny.K]
    share = counts[0] / tiny.COUNTS.sum()
    np.testing.assert_allclose(outputs["scores"][0, 0], np.log(share), rtol=1e-6)


def test_exclusions_are_honoured_and_the_answer_stays_full(
    signatures, histories, strings, expected, tiny
):
    histories = [*histories[:4], [], ["nothing"]]
    best = [
        signatures["serving_default"](history=strings([history]))["ids"].numpy()[0]
        for history in histories
    ]
    # The best five, one of them twice, an unknown one and padding.
    exclude = [[*(x.decode() for x in row[:5]), best[0][0].decode()] for row in best]
    exclude = [[*row, row[0], "nothing", ""] for row in exclude]
    outputs = signatures["recommend_excluding"](
        history=strings(histories), exclude=strings(exclude)
    )
    wanted = [expected(h, exclude=e) for h, e in zip(histories, exclude, strict=True)]
    assert_answers(outputs, wanted)
    assert b"" not in outputs["ids"].numpy()


@pytest.mark.parametrize("history", [["item 3", "item 4"], [], ["nothing"]])
def test_excluding_everything_leaves_padding(signatures, strings, tiny, history):
    outputs = signatures["recommend_excluding"](
        history=strings([history, ["item 9"]]), exclude=strings([tiny.IDS, []])
    )
    assert outputs["ids"].numpy()[0].tolist() == [b""] * tiny.K
    assert outputs["scores"].numpy()[0].tolist() == [tiny.LOWEST] * tiny.K
    assert b"" not in outputs["ids"].numpy()[1]


def test_only_the_given_candidates_are_ranked(
    signatures, histories, strings, expected, tiny
):
    histories = [*histories, [], ["nothing"]]
    among = [tiny.IDS[j : j + 4] for j in range(len(histories))]
    # Repeated, unknown and empty ones, and one of the history.
    among[0] = [*among[0], tiny.IDS[15], tiny.IDS[0], "nothing", "", tiny.IDS[0]]
    among[5] = [*among[5], *among[5], "nothing", ""]
    among[6] = list(tiny.IDS)
    outputs = signatures["recommend_among"](
        history=strings(histories), candidates=strings(among)
    )
    wanted = [expected(h, among=a) for h, a in zip(histories, among, strict=True)]
    assert_answers(outputs, wanted)


def test_embeddings_are_the_towers_own(signatures, histories, strings, model, tiny):
    rows = [[tiny.IDS.index(i) + 1 for i in h if i in tiny.IDS] for h in histories]
    queries = signatures["embed_query"](history=strings(histories))["embedding"]
    for query, row in zip(queries.numpy(), rows, strict=True):
        wanted = model.query_tower(tf.constant([row])).numpy()[0]
        np.testing.assert_allclose(query, wanted, rtol=1e-5, atol=1e-5)
    items = signatures["embed_item"](item=tf.constant([tiny.IDS[30], "nothing", ""]))
    vectors = items["embedding"].numpy()
    catalogue = model.candidate_tower.catalogue().numpy()
    np.testing.assert_array_equal(vectors, [catalogue[30], *np.zeros([2, tiny.WIDTH])])


def test_explain_says_what_a_score_loses_without_each_item(
    signatures, histories, strings, model, tiny
):
    place = 20  # of the item that is explained

    def score(names):
        rows = [tiny.IDS.index(name) + 1 for name in names if name in tiny.IDS]
        return model.score(tf.constant([rows])).numpy()[0, place] if rows else 0.0

    asked = strings(histories)
    item = tf.constant([tiny.IDS[place]] * len(histories))
    found = signatures["explain"](history=asked, item=item)["contribution"].numpy()
    assert found.shape == asked.shape
    for row, names in enumerate(histories):
        wanted = np.zeros(found.shape[1])
        for t, name in enumerate(names):
            if name in tiny.IDS:
                wanted[t] = score(names) - score(names[:t] + names[t + 1 :])
        np.testing.assert_allclose(found[row], wanted, rtol=1e-4, atol=1e-5)
        assert np.abs(wanted).max() > 0.1
    nobody = tf.constant(["nothing"] * len(histories))
    assert (
        not signatures["explain"](history=asked, item=nobody)["contribution"]
        .numpy()
        .any()
    )


def test_the_query_of_an_empty_history_is_zero(signatures, strings):
    for history in (strings(EMPTY), strings([[]])):
        vectors = signatures["embed_query"](history=history)["embedding"].numpy()
        assert not vectors.any()


def test_scores_are_dot_products_of_the_embeddings(signatures, histories, strings):
    history = strings(histories)
    queries = signatures["embed_query"](history=history)["embedding"]
    outputs = signatures["serving_default"](history=history)
    flat = tf.reshape(outputs["ids"], [-1])
    items = signatures["embed_item"](item=flat)["embedding"].numpy()
    items = items.reshape(*outputs["ids"].shape, -1)
    products = np.einsum("bd,bkd->bk", queries, items)
    np.testing.assert_allclose(products, outputs["scores"], rtol=1e-5, atol=1e-5)


def test_either_padding_side_gives_the_same_bits(signatures, histories, strings):
    rows = [*histories, *EMPTY]
    right = signatures["serving_default"](history=strings(rows, 25))
    left = signatures["serving_default"](history=strings(rows, 29, side="left"))
    for name in ("ids", "scores"):
        np.testing.assert_array_equal(right[name], left[name])


def test_only_the_newest_items_of_a_long_history_count_but_all_are_left_out(
    signatures, strings, tiny
):
    newest = list(tiny.IDS[: tiny.MAX_LENGTH])
    older = list(tiny.IDS[20:30])
    queries = signatures["embed_query"](history=strings([newest, [*older, *newest]]))
    np.testing.assert_allclose(*queries["embedding"].numpy(), rtol=1e-5, atol=1e-6)
    answer = signatures["serving_default"](history=strings([[*older, *newest]]))
    assert not {i.encode() for i in older} & set(answer["ids"].numpy()[0])


def test_rows_of_a_batch_are_answered_as_if_alone(signatures, histories, strings):
    strange = [[b"\xff\xfe", b"\x00", "x" * 100_000], ["item 1"] * 300]
    rows = [*histories, *EMPTY, *strange]
    together = signatures["recommend_excluding"](
        history=strings(rows), exclude=strings([[b"\xff", "item 2"]] * len(rows))
    )
    for number, row in enumerate(rows):
        alone = signatures["recommend_excluding"](
            history=strings([row]), exclude=strings([["item 2"]])
        )
        np.testing.assert_array_equal(together["ids"][number], alone["ids"][0])
        np.testing.assert_allclose(
            together["scores"][number], alone["scores"][0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (3, 0)])
def test_batches_and_rows_may_be_empty(signatures, tiny, shape):
    nothing = tf.zeros(shape, tf.string)
    for name, second in (
        ("serving_default", {}),
        ("recommend_excluding", {"exclude": nothing}),
        ("recommend_among", {"candidates": nothing}),
    ):
        outputs = signatures[name](history=nothing, **second)
        assert outputs["ids"].shape == (shape[0], tiny.K)
    vectors = signatures["embed_query"](history=nothing)["embedding"]
    assert vectors.shape == (shape[0], tiny.WIDTH)
    none = tf.zeros(shape[:1], tf.string)
    assert signatures["embed_item"](item=none)["embedding"].shape[0] == shape[0]
    assert signatures["tf_example"](examples=none)["ids"].shape == (shape[0], tiny.K)


def test_k_may_exceed_the_catalogue(tmp_path, tiny, strings):
    export = tiny.export(tmp_path, k=tiny.N + 9, keep_seen=True)
    signatures = tf.saved_model.load(str(export.path)).signatures
    for history in (strings([["item 1"]]), strings([[""]])):
        for name, second in (
            ("serving_default", {}),
            ("recommend_excluding", {"exclude": strings([["item 2"]])}),
            ("recommend_among", {"candidates": strings([["item 2", "item 2"]])}),
        ):
            outputs = signatures[name](history=history, **second)
            ids = outputs["ids"].numpy()[0]
            found = {"recommend_among": 1, "recommend_excluding": tiny.N - 1}
            expected = found.get(name, tiny.N)
            assert len(ids) == tiny.N + 9
            assert (ids != b"").tolist() == [j < expected for j in range(len(ids))]
            assert len(set(ids[:expected])) == expected
            assert (outputs["scores"][0, expected:] == tiny.LOWEST).numpy().all()


ITEM = st.sampled_from(["item 0", "item 1", "item 2", "item 7", "a\tb", "", "no", "0"])
ROWS = st.lists(st.tuples(*[st.lists(ITEM, max_size=9)] * 3), min_size=1, max_size=4)


@given(rows=ROWS)
@settings(max_examples=40)
def test_any_lists_get_the_oracles_answers(signatures, strings, expected, rows):
    histories, exclude, among = (list(column) for column in zip(*rows, strict=True))
    history = strings(histories)
    excluding = signatures["recommend_excluding"](
        history=history, exclude=strings(exclude)
    )
    wanted = [expected(h, exclude=e) for h, e in zip(histories, exclude, strict=True)]
    assert_answers(excluding, wanted)
    ranked = signatures["recommend_among"](history=history, candidates=strings(among))
    wanted = [expected(h, among=a) for h, a in zip(histories, among, strict=True)]
    assert_answers(ranked, wanted)
