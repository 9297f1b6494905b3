"""An export that answers other than its model is not published."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from tfrs_selfattn.export import ExportError, verification
from tfrs_selfattn.export.live import Live
from tfrs_selfattn.export.requests import sample

HISTORIES = [["item 1"], ["item 3", "a\tb"], []]


@pytest.fixture
def live(model, tiny):
    candidates = model.candidate_tower.catalogue().numpy()
    return Live(model, tiny.IDS, tiny.COUNTS, candidates)


@pytest.fixture
def verify(monkeypatch, signatures, live, tmp_path, tiny):
    """Verifies the good export in this process, its answers changed by a function."""

    def verify(change):
        def ask(folder, scratch, requests):
            answers = list(tiny.answers_in_text(signatures, requests))
            for request, outputs in zip(requests, answers, strict=True):
                change(request.signature, outputs)
            return answers

        monkeypatch.setattr(verification, "ask", ask)
        samples = [sample(history) for history in HISTORIES]
        return verification.verify(
            tmp_path, tmp_path, live, list(signatures), samples=samples
        )

    return verify


def test_a_good_export_passes(verify):
    assert verify(lambda signature, outputs: None) == (len(HISTORIES), 1.0)


RANKED = ("serving_default", "recommend_excluding", "recommend_among", "tf_example")


def swap(outputs):
    ids = outputs["ids"][1]
    ids[[0, 1]] = ids[[1, 0]]


def repeat(outputs):
    outputs["ids"][1][1] = outputs["ids"][1][0]


def forget(outputs):
    outputs["ids"][1][2] = ""


def invent(outputs):
    outputs["ids"][1][0] = "nothing"


def shift(outputs):
    outputs["scores"][1][2] += 0.01


def lose(outputs):
    outputs["scores"][1][0] = float("nan")


@pytest.mark.parametrize("signature", RANKED)
@pytest.mark.parametrize("change", [swap, repeat, forget, invent, shift, lose])
def test_each_kind_of_difference_in_each_signature_is_found(verify, signature, change):
    def one(asked, outputs):
        if asked == signature:
            change(outputs)

    with pytest.raises(ExportError, match="item 3") as raised:
        verify(one)
    assert f"(sample 1) by '{signature}'" in str(raised.value)
    assert "Nothing was published" in str(raised.value)


@pytest.mark.parametrize("signature", ["embed_query", "embed_item"])
def test_other_vectors_are_found(verify, signature):
    def one(asked, outputs):
        if asked == signature:
            outputs["embedding"][1, 4] += 0.01

    with pytest.raises(ExportError, match=rf"\(sample 1\) by '{signature}'"):
        verify(one)


@pytest.mark.parametrize(
    ("places", "accepted"),
    [([6, 5, 4, 3, 2, 1, 0], True), ([0, 0, 2, 3, 4, 5, 6], False)],
    ids=["reversed", "repeated"],
)
def test_items_of_the_same_score_may_change_places_but_not_repeat(
    tiny, tmp_path, monkeypatch, places, accepted
):
    model = tiny.make_model()
    table = model.candidate_tower.item_embedding.embeddings
    table.assign(tf.repeat(table[:1], tiny.N + 1, axis=0))
    assert np.ptp(model.score(tf.constant([[1, 2]])).numpy()) < 1e-6

    def ask(folder, scratch, requests):
        signatures = tf.saved_model.load(str(folder)).signatures
        answers = list(tiny.answers_in_text(signatures, requests))
        for request, outputs in zip(requests, answers, strict=True):
            if request.signature == "serving_default":
                outputs["ids"][0] = outputs["ids"][0][places]
        return answers

    monkeypatch.setattr(verification, "ask", ask)
    options = {"model": model, "verify": True, "sample_histories": [["item 4"]]}
    if accepted:
        assert tiny.export(tmp_path, **options).verified == 1
    else:
        with pytest.raises(ExportError, match="'item 0' with score"):
            tiny.export(tmp_path, **options)


@pytest.mark.usefixtures("in_this_process")
def test_a_model_that_says_otherwise_stops_the_export(tiny, tmp_path, monkeypatch):
    model = tiny.make_model()
    right = model.score
    monkeypatch.setattr(model, "score", lambda history: right(history)[:, ::-1])
    with pytest.raises(ExportError, match=r"\['item 5'\] \(sample 0\)"):
        tiny.export(
            tmp_path / "base",
            model=model,
            verify=True,
            sample_histories=[["item 5"]],
        )
    assert not (tmp_path / "base").exists()


def test_an_export_that_cannot_be_loaded_is_not_published(tiny, tmp_path, monkeypatch):
    save = tf.saved_model.save

    def half(module, folder, **options):
        save(module, folder, **options)
        with open(f"{folder}/saved_model.pb", "wb") as file:
            file.write(b"half")

    monkeypatch.setattr(tf.saved_model, "save", half)
    with pytest.raises(ExportError, match="must load and answer in a process"):
        tiny.export(tmp_path / "base", verify=True)
    assert not (tmp_path / "base").exists()


def test_the_samples_try_what_may_go_wrong(live, tiny):
    samples = live.samples()
    histories = [sample.history for sample in samples]
    known = [live.rows(history) for history in histories]
    assert samples == live.samples()
    assert [] in histories
    assert any(
        history and not rows for history, rows in zip(histories, known, strict=True)
    )
    assert any("" in history for history in histories)
    assert any(len(rows) > tiny.MAX_LENGTH for rows in known)
    assert any(list(s.timestamps) != sorted(s.timestamps) for s in samples)
