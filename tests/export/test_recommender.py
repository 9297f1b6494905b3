"""Answers from an export by id, with titles, in a process with TensorFlow alone."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.export import Recommendation, load_recommender

LOAD = """
import json, sys
from tfrs_selfattn import export
recommender = export.load_recommender(sys.argv[1])
answer = recommender.recommend([["item 3"]])[0]
strangers = {"tensorflow_recommenders", "tfrs_selfattn._keras", "tfrs_selfattn.layers"}
assert not strangers & set(sys.modules), strangers & set(sys.modules)
print(json.dumps([item.id for item in answer]))
try:
    export.export_recommender
except ImportError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def recommender(export):
    return load_recommender(export.path.parent)


def ids(answers):
    return [[item.id.encode() for item in answer] for answer in answers]


def test_answers_by_id_best_first(recommender, expected):
    histories = [["item 3", "item 14"], [], ["nothing"], ["item 5"]]
    answers = recommender.recommend(histories)
    assert ids(answers) == [expected(history)[0] for history in histories]
    scores = [item.score for item in answers[0]]
    assert scores == pytest.approx(expected(histories[0])[1], rel=1e-4, abs=1e-5)


def test_loading_warns_of_nothing(export, caplog):
    logger = logging.getLogger("absl")
    logger.addHandler(caplog.handler)
    try:
        load_recommender(export.path)
        assert not caplog.messages
        logger.warning("something else")
    finally:
        logger.removeHandler(caplog.handler)
    assert "something else" in caplog.messages


def test_exclusions_for_each_history(recommender, expected):
    histories, exclude = [["item 3"], ["item 5"]], [["item 1", "nothing"], []]
    answers = recommender.recommend(histories, exclude)
    wanted = [
        expected(h, exclude=e)[0] for h, e in zip(histories, exclude, strict=True)
    ]
    assert ids(answers) == wanted


def test_only_some_items_are_ranked(recommender, expected):
    histories, among = [["item 3"], ["item 5"]], [["item 1", "item 4", "nothing"], []]
    answers = recommender.recommend(histories, among=among)
    wanted = [expected(h, among=a)[0] for h, a in zip(histories, among, strict=True)]
    assert ids(answers) == [[item for item in row if item] for row in wanted]
    assert len(answers[0]) == 2 and answers[1] == []
    with pytest.raises(ValueError, match="must not be given together"):
        recommender.recommend(histories, among, among=among)


def test_titles_where_there_are_some(recommender, tiny):
    others = [item for item in tiny.IDS if item not in tiny.IDS[:3]]
    (answer,) = recommender.recommend([[]], [others])
    titles = {item.id: item.title for item in answer}
    assert titles == {"item 0": 'Zero, "the" first', "item 1": None, "item 2": None}
    assert isinstance(answer[0], Recommendation)


def test_titles_given_go_before_those_of_the_export(export, tiny):
    recommender = load_recommender(export.path, titles={"item 1": "One"})
    assert recommender.title("item 1") == "One"
    assert recommender.title("item 0") == 'Zero, "the" first'
    assert recommender.title("item 2") is None
    (answer,) = recommender.recommend([[]], [set(tiny.IDS) - {"item 1"}])
    assert [item.title for item in answer] == ["One"]


def test_short_answers_have_no_padding(recommender, tiny):
    assert recommender.recommend([["item 3"]], [tiny.IDS]) == [[]]
    assert recommender.recommend([]) == []


def test_it_tells_which_ids_it_does_not_know(recommender, tiny):
    assert recommender.unknown(["item 3", "x", "", "item 300"]) == ["x", "item 300"]
    assert recommender.unknown(tiny.IDS) == []
    assert recommender.ids == set(tiny.IDS)


def test_what_it_says_of_itself(recommender, export, tiny):
    assert (recommender.version, recommender.k) == (1, tiny.K)
    assert recommender.path == export.path
    assert recommender.manifest == export.manifest


def test_the_highest_version_or_the_one_given(tiny, tmp_path, model):
    tiny.export(tmp_path, model=model, version=9, k=2)
    shutil.copytree(tmp_path / "9", tmp_path / "10")
    assert load_recommender(tmp_path).path.name == "10"
    assert load_recommender(str(tmp_path / "9")).path.name == "9"


def test_a_process_with_tensorflow_alone_whatever_its_keras(
    export, run_python, expected
):
    done = run_python("-c", LOAD, str(export.path.parent), legacy_keras=False)
    assert done.returncode == 0, done.stdout
    *_, answer, error = done.stdout.splitlines()
    assert [name.encode() for name in json.loads(answer)] == expected(["item 3"])[0]
    assert error.startswith("`tfrs_selfattn.export.export_recommender` builds on")
    assert "TF_USE_LEGACY_KERAS=1" in error


def test_folders_that_are_no_export(export, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    empty = tmp_path / "empty"
    (empty / ".exporting-x" / "version").mkdir(parents=True)
    bare = tmp_path / "bare"
    (bare / "1").mkdir(parents=True)
    foreign = tmp_path / "foreign"
    shutil.copytree(export.path, foreign / "3")
    (foreign / "3" / "assets.extra" / "recommender.json").unlink()
    damaged = tmp_path / "damaged"
    shutil.copytree(export.path, damaged)
    (damaged / "assets.extra" / "recommender.json").write_text('{"version": 1,')
    for path, message in (
        (tmp_path / "nowhere", "which does not exist. Export a model there first"),
        (file, "which is a file"),
        (empty, "which holds none. Export a model there first"),
        (bare, "bare/1, which lacks one"),
        (foreign, "foreign/3, which lacks one"),
        (damaged, "damaged, which lacks one or has a damaged one"),
    ):
        with pytest.raises(InputError, match=message):
            load_recommender(path)


def test_one_list_in_place_of_a_list_of_lists(recommender):
    with pytest.raises(ValueError, match="`histories` must be a list of lists"):
        recommender.recommend(["item 3"])
    with pytest.raises(ValueError, match="`exclude` must be a list of lists"):
        recommender.recommend([["item 3"]], ["item 3"])
    with pytest.raises(ValueError, match="1 lists for 2 histories"):
        recommender.recommend([["item 3"], []], [[]])
