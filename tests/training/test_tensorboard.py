"""What TensorBoard is given: metrics of every epoch, items to look at, attention."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from tfrs_selfattn import InputError, training
from tfrs_selfattn.data import Vocabulary
from tfrs_selfattn.training import tensorboard


@pytest.fixture(scope="module")
def run(make_run, split, tmp_path_factory):
    """A run of two epochs, and what it was trained to."""
    pytest.importorskip("matplotlib", reason="needs the extra `plot`")
    folder = make_run(tmp_path_factory.mktemp("run") / "run", epochs=2)
    return folder, training.train(folder, split, attention_images=2, verbose=0)


def logged(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [tf.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_the_metrics_of_every_epoch_are_logged(run):
    folder, _ = run
    epochs = folder.metrics()["epochs"]
    train, validation = (
        logged(folder.tensorboard / name) for name in ("train", "validation")
    )
    for values, name, tag in (
        (train, "loss", "epoch_loss"),
        (train, "items/s", "epoch_items/s"),
        (validation, "val_ndcg@10", "epoch_ndcg@10"),
        (validation, "val_hr@10", "epoch_hr@10"),
    ):
        wanted = [epoch[name] for epoch in epochs]
        np.testing.assert_allclose(values[tag], wanted, rtol=1e-5)
    assert len(epochs) == 2


def test_the_projector_finds_items_and_titles(run):
    folder, result = run
    text = (folder.tensorboard / "projector_config.pbtxt").read_text()
    (embedding,) = text_format.Parse(text, ProjectorConfig()).embeddings
    vectors = np.loadtxt(folder.tensorboard / embedding.tensor_path, delimiter="\t")
    wanted = result.model.candidate_tower.catalogue().numpy()
    np.testing.assert_allclose(vectors, wanted, rtol=1e-4, atol=1e-6)
    rows = (folder.tensorboard / embedding.metadata_path).read_text().splitlines()
    cells = [row.split("\t") for row in rows]
    ids = folder.vocabulary().ids
    assert cells[0] == ["title", "item_id", "events"]
    assert [row[1] for row in cells[1:]] == list(ids)
    assert cells[1][0] == 'Tea, "black"' and cells[2][0] == ids[1]
    assert [int(row[2]) for row in cells[1:]] == folder.vocabulary().counts.tolist()


def test_titles_stay_in_their_cells_and_only_the_first_items_are_shown(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tensorboard, "MOST_ITEMS", 2)
    tensorboard.write_projector(
        tmp_path / "logs",
        np.arange(6, dtype=np.float32).reshape(3, 2),
        Vocabulary(("a", "b", "c"), np.array([3, 2, 1])),
        {"a": "one\ttwo\nthree"},
    )
    assert (tmp_path / "logs" / "items.tsv").read_text() == "0\t1\n2\t3\n"
    rows = (tmp_path / "logs" / "items_metadata.tsv").read_text().splitlines()
    assert rows[1:] == ["one two three\ta\t3", "b\tb\t2"]
    assert not list((tmp_path / "logs").glob("*.part"))


def test_attention_is_drawn_after_every_epoch(run):
    folder, _ = run
    images = dict(sorted(logged(folder.tensorboard / "attention").items()))
    assert list(images) == [f"attention, history {number}/block 1" for number in (1, 2)]
    for number, pictures in enumerate(images.values(), start=1):
        assert len(pictures) == 2
        first, second = (
            tf.io.decode_png(picture.tolist()[2]).numpy() for picture in pictures
        )
        assert first.ndim == 3 and first.std() > 10  # something is drawn
        if number == 2:  # the first history may be of one item, looked at by itself
            assert (first != second).any()  # the model has learned


def test_drawing_changes_nothing_that_is_learned(
    run, make_run, split, tmp_path, assert_same_run
):
    plain = make_run(tmp_path / "plain", epochs=2)
    training.train(plain, split, verbose=0)
    assert_same_run(run[0], plain)


def test_histories_are_the_newest_items_from_short_to_long(split):
    vocabulary = split.sequences.vocabulary
    found = tensorboard.some_histories(split.validation, vocabulary, {}, 3, 16)
    lengths = [len(history.indices) for history in found]
    assert len(found) == 3 and lengths == sorted(lengths) and lengths[-1] == 16
    cases = split.validation.by_length()
    longest = cases.history(len(cases) - 1)
    np.testing.assert_array_equal(found[-1].indices, longest[-16:])
    assert found[-1].labels == vocabulary.decode(longest[-16:])
    assert (np.diff(found[-1].times) >= 0).all()
    assert found[-1].request_time >= found[-1].times[-1]
    assert found[-1].times[0] > 0


def test_what_cannot_be_drawn_is_refused_before_training(
    make_run, split, tmp_path, monkeypatch
):
    with pytest.raises(InputError, match=r"softmax attention\. Received: --att"):
        tensorboard.check_attention_images(1, "hstu")
    with pytest.raises(ValueError, match="`attention_images` must be a positive int"):
        tensorboard.check_attention_images(-1, "sasrec")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    folder = make_run(tmp_path / "run", epochs=1)
    with pytest.raises(InputError, match=r"need matplotlib.*tfrs-selfattn\[plot\]"):
        training.train(folder, split, attention_images=1, verbose=0)
    assert not folder.metrics()
