"""A prepared folder holds what the log says, whatever lies around it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import polars as pl
import pytest

from tests.data.logs import prepared_content
from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    _blocks,
    _preparation,
    _publishing,
    events_from_frame,
    leave_one_out,
    prepare_events,
    read_events,
    read_prepared,
    read_shards,
    summarize,
    temporal_split,
    training_dataset,
)
from tfrs_selfattn.training import fingerprint

OPTIONS = {"row_length": 13, "num_shards": 3}


@pytest.fixture(scope="module")
def events(generated):
    return events_from_frame(generated)


@pytest.fixture(scope="module")
def log(events, tmp_path_factory):
    return prepare_events(events, tmp_path_factory.mktemp("prepared"), **OPTIONS)


def histories(sequences):
    """{user id: item ids and times}, whatever the order of users and indices."""
    return {
        sequences.user_ids[row]: (
            sequences.vocabulary.decode(sequences.user(row)[0]),
            sequences.user(row)[1].tolist(),
        )
        for row in range(sequences.num_users)
    }


def test_sequences_and_vocabulary_are_those_in_memory(log, sequences):
    split = log.split()
    assert histories(split.sequences) == histories(sequences)
    assert log.vocabulary.ids == sequences.vocabulary.ids
    np.testing.assert_array_equal(log.vocabulary.counts, sequences.vocabulary.counts)
    assert log.manifest["events"] == log.manifest["rows"] == sequences.num_events
    assert log.manifest["users"] == sequences.num_users


def held_out(cases):
    users = cases.sequences.user_ids
    return {
        users[int(user)]: (cases.history(case).tolist(), int(cases.targets[case]))
        for case, user in enumerate(cases.users)
    }


def test_held_out_cases_are_those_in_memory(log, sequences, tmp_path, events):
    split, expected = log.split(), leave_one_out(sequences)
    assert len(split.test) == log.manifest["test"] > 0
    for part in ("validation", "test"):
        assert held_out(getattr(split, part)) == held_out(getattr(expected, part))
    np.testing.assert_array_equal(split.train_counts(), expected.train_counts())

    cuts = np.quantile(sequences.timestamps, [0.7, 0.85]).astype(int).tolist()
    times = {"validation_time": cuts[0], "test_time": cuts[1]}
    by_time = prepare_events(events, tmp_path / "by time", **OPTIONS, **times).split()
    expected = temporal_split(sequences, **times)
    for part in ("validation", "test"):
        assert held_out(getattr(by_time, part)) == held_out(getattr(expected, part))
    np.testing.assert_array_equal(by_time.train_counts(), expected.train_counts())


@pytest.mark.parametrize("max_users", [None, 1000, 29, 1])
def test_held_out_users_are_read_alone(log, max_users):
    whole, held = log.split(), log.held_out(max_users, seed=5)
    sample = held_out(whole.validation.sample(max_users, 5))
    assert held_out(held.validation) == sample
    assert held.sequences.user_ids.to_list() == list(sample)  # and in their order
    assert len(sample) == min(max_users or 1000, len(whole.validation)) > 0
    tested = held_out(whole.test)
    assert held_out(held.test) == {user: tested[user] for user in sample}
    assert held.sequences.num_events < whole.sequences.num_events


def test_a_sample_of_users_depends_on_its_seed_and_on_no_order(log, sequences):
    """Users are ordered by shard in one log, by their first event in the other."""
    cases, others = log.split().validation, leave_one_out(sequences).validation
    chosen = [held_out(cases.sample(40, seed)) for seed in (1, 2)]
    assert held_out(others.sample(40, 1)) == chosen[0]
    # By chance 40 of some 180 users share 9 with 40 others.
    assert len(chosen[0].keys() & chosen[1].keys()) < 25
    assert cases.sample(40, 1).sample(40, 1).users.tolist() == (
        cases.sample(40, 1).users.tolist()
    )


def test_what_is_counted_part_by_part_is_what_the_whole_says(log):
    split = log.split()
    np.testing.assert_array_equal(log.train_counts(), split.train_counts())
    assert log.summary() == summarize(split.sequences)
    for name in ("offsets", "items", "timestamps"):
        chunks = np.concatenate(list(log.chunks(name)))
        whole = getattr(split.sequences, name)
        assert chunks.dtype == whole.dtype
        np.testing.assert_array_equal(chunks, whole)
    assert fingerprint(log) == fingerprint(split.sequences)


def pairs(features):
    """Every (input, target) of training rows, counted."""
    learned = features["targets"] > 0
    return sorted(
        zip(features["history"][learned], features["targets"][learned], strict=True)
    )


def test_training_rows_hold_every_pair_once(log, sequences):
    from tfrs_selfattn.data import pack_rows

    rows = log.rows()
    assert len(rows.shard_rows) == 3 and min(rows.shard_rows) > 0
    whole = pack_rows(leave_one_out(sequences), row_length=13)
    assert rows.num_targets == whole.num_targets == log.manifest["train_targets"]
    assert pairs(rows.load().features) == pairs(whole.features)
    assert rows.load().fill > 0.95
    read_shards(rows.path, verify=True)


def test_training_streams_prepared_shards_even_empty_ones(events, tmp_path):
    few = events.frame.filter(pl.col("user_id").is_in(["u1", "u2", "u3", "u4"]))
    log = prepare_events(
        events_from_frame(few), tmp_path / "few", row_length=13, num_shards=50
    )
    rows = log.rows()
    assert 0 in rows.shard_rows
    assert fingerprint(log) == fingerprint(log.split().sequences)
    assert held_out(log.held_out(2).validation) == held_out(
        log.split().validation.sample(2)
    )
    batches = list(
        training_dataset(rows, batch_size=2, seed=0)
        .take(-(-len(rows) // 2))
        .as_numpy_iterator()
    )
    seen = np.concatenate([batch["targets"] for batch in batches])
    assert np.count_nonzero(seen) == rows.num_targets


def write_files(folder, frame, kind, count=3):
    """The log in several files of a kind."""
    folder.mkdir()
    step = -(-len(frame) // count)
    for number in range(count):
        part = frame[number * step : (number + 1) * step]
        path = folder / f"{number}.{kind}"
        {"csv": part.write_csv, "parquet": part.write_parquet, "avro": part.write_avro}[
            kind
        ](path)
    return folder


def test_every_kind_of_file_gives_the_same_records(log, generated, tmp_path):
    expected = prepared_content(log)
    for kind in ("csv", "parquet", "avro"):
        folder = write_files(tmp_path / kind, generated, kind)
        found = prepare_events(read_events(folder), tmp_path / f"of {kind}", **OPTIONS)
        assert prepared_content(found) == expected


def test_neither_blocks_nor_compaction_change_a_record(
    log, generated, tmp_path, monkeypatch
):
    monkeypatch.setattr(_blocks, "BYTES", 500)
    monkeypatch.setattr(_blocks, "ROWS", 77)
    monkeypatch.setattr(_preparation, "_COMPACT_ABOVE", 10)
    for kind in ("csv", "parquet"):
        folder = write_files(tmp_path / kind, generated, kind)
        found = prepare_events(read_events(folder), tmp_path / f"of {kind}", **OPTIONS)
        assert prepared_content(found) == prepared_content(log)


@pytest.mark.parametrize("size", [23, 64])
def test_a_line_break_in_quotes_is_no_end_of_a_block(
    size, write, tmp_path, monkeypatch
):
    monkeypatch.setattr(_blocks, "BYTES", size)
    rows = "".join(f'u,i{n},{n},"so\n""what""\n{n}"\n' for n in range(20))
    path = write("events.csv", f"user_id,item_id,timestamp,note\n{rows}")
    log = prepare_events(read_events(path), tmp_path / "out", **OPTIONS)
    assert log.manifest["rejected"] == 0
    assert log.manifest["rows"] == log.manifest["events"] == 20


def test_of_equal_times_the_file_decides_and_then_the_row(write, tmp_path):
    head = "user_id,item_id,timestamp\n"
    write("log/1.csv", head + "u,a,5\nu,b,5\nu,c,5\n")
    write("log/2.csv", head + "u,d,5\nu,e,5\nu,f,4\n")
    log = prepare_events(read_events(tmp_path / "log"), tmp_path / "out", **OPTIONS)
    assert histories(log.split().sequences)["u"][0] == list("fabcde")


def test_a_user_of_too_many_events_keeps_the_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(_preparation, "_COMPACT_ABOVE", 100)
    # Equal times, so that only the place in the log can decide.
    lines = [f"bot,i{n},{n // 7}" for n in range(2000)]
    lines += [f"u{n % 9},i{n % 5},{n}" for n in range(90)]
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    held = []
    collect = _preparation.NewestEvents.collect
    monkeypatch.setattr(
        _preparation.NewestEvents,
        "collect",
        lambda self: held.append(self._held) or collect(self),
    )
    monkeypatch.setattr(_blocks, "BYTES", 1000)
    log = prepare_events(
        read_events(path), tmp_path / "out", row_length=13, max_user_events=20
    )
    assert histories(log.split().sequences)["bot"][0] == [
        f"i{n}" for n in range(1980, 2000)
    ]
    assert log.manifest["beyond_newest"] == 1980
    assert max(held) < 300  # of 2,090
    # The vocabulary counts what happened, not what was kept.
    assert log.vocabulary.counts.sum() == log.manifest["rows"] == 2090


BAD = {
    "not utf-8": (b"u1,caf\xe9,5\n", "The row is not UTF-8 text."),
    "too many fields": (b"u1,i1,5,6\n", "The row has 4 fields instead of 3."),
    "no item": (b"u1,,5\n", "column 'item_id' must hold an id"),
    "time": (b"u1,i1,soon\n", "Received: 'soon'."),
    "too few fields": (b"u1,i1\n", "column 'timestamp' must hold"),
    "open quote": (b'u1,"i1,5\n', "The row has a quote that is never closed."),
    "line break": (b'u1,"i\n1",5\n', "an id without line breaks"),
}


@pytest.mark.parametrize("at", [1, 51])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_costs_itself_only(name, at, tmp_path, generated, log):
    bad, reason = BAD[name]
    lines = generated.write_csv().encode().splitlines(keepends=True)
    (tmp_path / "events.csv").write_bytes(b"".join([*lines[:at], bad, *lines[at:]]))
    found = prepare_events(
        read_events(tmp_path / "events.csv"), tmp_path / "out", **OPTIONS
    )
    assert prepared_content(found) == prepared_content(log)
    assert found.manifest["rejected"] == 1
    assert found.manifest["files"][0]["rows"] == len(generated) + 1
    (letter,) = (found.data / "rejected" / "00000.jsonl").read_text().splitlines()
    letter = json.loads(letter)
    assert (letter["file"], letter["row"]) == (str(tmp_path / "events.csv"), at)
    assert reason in letter["reason"]


def test_too_many_bad_rows_are_an_error_and_leave_nothing(write, tmp_path):
    rows = "".join(f"u{n % 3},i{n % 5},{n if n % 2 else 'x'}\n" for n in range(1, 41))
    path = write("events.csv", f"user_id,item_id,timestamp\n{rows}")
    with pytest.raises(
        InputError,
        match=r"At most 1\.00% of the rows .* Received: 20 of 40, most in .*events.csv"
        r"; the first there: row 2: column 'timestamp' .* Received: 'x'\. Correct .* "
        "--max-rejected",
    ):
        prepare_events(read_events(path), tmp_path / "out", **OPTIONS)
    assert not (tmp_path / "out").exists()
    done = prepare_events(
        read_events(path), tmp_path / "out", max_rejected=0.5, **OPTIONS
    )
    assert done.manifest["rejected"] == 20


def test_a_rerun_replaces_all_at_once_and_keeps_what_is_being_read(
    events, generated, tmp_path
):
    folder = tmp_path / "out"
    first = prepare_events(events, folder, **OPTIONS)
    content = prepared_content(first)
    other = events_from_frame(generated.filter(pl.col("user_id") != "u1"))
    second = prepare_events(other, folder, **OPTIONS)
    assert read_prepared(folder).manifest == second.manifest
    assert second.manifest["users"] == first.manifest["users"] - 1
    assert prepared_content(first) == content  # Someone may train on it still.
    prepare_events(events, folder, **OPTIONS)
    assert not first.data.exists() and second.data.exists()


def test_a_killed_run_changes_nothing_and_is_swept_away(events, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    first = prepare_events(events, folder, **OPTIONS)
    content = prepared_content(first)

    class KilledError(BaseException):
        pass

    def kill(*arguments):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(_publishing, "_sweep", lambda folder: None)  # no time for that
        patch.setattr(shutil, "rmtree", lambda *arguments, **options: None)
        patch.setattr(_preparation, "write_shard", kill)
        with pytest.raises(KilledError):
            prepare_events(events, folder, **OPTIONS)
    assert len(list(folder.glob("generation-*"))) == 2
    assert prepared_content(read_prepared(folder)) == content
    prepare_events(events, folder, **OPTIONS)
    assert len(list(folder.glob("generation-*"))) == 2  # the new one, the one before


def test_rare_items_are_dropped_after_the_newest_were_chosen(tmp_path, write):
    lines = [f"u{n % 4},i{n % 6},{n}" for n in range(60)] + ["u1,rare,70"]
    path = write("events.csv", "user_id,item_id,timestamp\n" + "\n".join(lines))
    log = prepare_events(read_events(path), tmp_path / "out", min_item_events=2)
    assert "rare" not in log.vocabulary.ids
    assert log.manifest["rare"] == 1
    assert log.manifest["events"] == 60


def test_folders_that_are_none_are_refused(events, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"--output must be new.*holds notes\.txt"):
        prepare_events(events, tmp_path / "other", **OPTIONS)
    with pytest.raises(InputError, match=r"written by `tfrs-selfattn prepare`.*Receiv"):
        read_prepared(tmp_path / "other")
    log = prepare_events(events, tmp_path / "out", **OPTIONS)
    manifest = log.path / "manifest.json"
    manifest.write_text(json.dumps({**log.manifest, "format": 99}))
    with pytest.raises(InputError, match=r"must have format 1\. Received: format 99"):
        read_prepared(log.path)
    log.parts[1].write_bytes(b"junk")
    with pytest.raises(InputError, match=r"part-00001.*as `prepare` wrote it"):
        log.split()


def test_only_one_process_prepares_a_folder(events, tmp_path):
    with (
        _publishing.generation(tmp_path / "out"),
        pytest.raises(InputError, match="another process is preparing"),
    ):
        prepare_events(events, tmp_path / "out", **OPTIONS)
