"""Beam writes, record for record, what the engine in process writes."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tests.data.logs import prepared_content
from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    _blocks,
    _preparation,
    generate_events,
    prepare_events,
    read_events,
    read_prepared,
)

OPTIONS = {"row_length": 13, "num_shards": 3, "max_user_events": 20, "times": True}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """{kind of file: a folder of files}, with a few rows nobody can read."""
    frame = generate_events(100, 37, 7.0, seed=3)
    bot = pl.DataFrame({"item_id": [f"i{n % 37}" for n in range(200)]})
    bot = bot.select(user_id=pl.lit("bot"), item_id="item_id", timestamp=pl.lit(7))
    frame = pl.concat([frame, bot.cast(frame.schema)])
    folder = tmp_path_factory.mktemp("logs")
    for kind in ("csv", "parquet", "avro"):
        (folder / kind).mkdir()
    for number in range(3):
        part = frame[number * 400 : (number + 1) * 400]
        part = pl.concat(
            [part, pl.DataFrame({**part[0].to_dict(as_series=False), "user_id": [""]})]
        )
        part.write_csv(folder / "csv" / f"{number}.csv")
        part.write_parquet(folder / "parquet" / f"{number}.parquet")
        part.write_avro(folder / "avro" / f"{number}.avro")
    with open(folder / "csv" / "1.csv", "ab") as file:
        file.write(b"u1,caf\xe9,5\nu1,i1,5,6\n")
    return folder


def on_beam(events, folder, **options):
    from tfrs_selfattn.beam.prepare import Source, prepare_on_beam

    prepare_on_beam(
        Source.of_events(events),
        str(folder),
        _preparation.PrepareOptions(**options),
        runner="DirectRunner",
    )
    return read_prepared(folder)


# By kind of file: what is asked beside OPTIONS.
CASES = {
    "csv": {},
    "parquet": {"min_item_events": 20, "validation_time": 0.7, "test_time": 0.85},
    "avro": {"windows": "sliding", "stride": 5, "times": False, "pack": False},
}


@pytest.mark.parametrize("kind", CASES)
def test_records_are_those_of_the_engine_in_process(kind, logs, tmp_path, monkeypatch):
    monkeypatch.setattr(_blocks, "BYTES", 2000)
    monkeypatch.setattr(_blocks, "ROWS", 150)
    monkeypatch.setattr("tfrs_selfattn.beam.prepare._UNIT", 200)
    monkeypatch.setattr(_preparation, "_COMPACT_ABOVE", 100)
    events = read_events(logs / kind)
    options = OPTIONS | CASES[kind]
    if kind == "parquet":
        times = pl.read_parquet(logs / "parquet" / "*.parquet")["timestamp"]
        for name in ("validation_time", "test_time"):
            options[name] = int(times.quantile(options[name]))
    local = prepare_events(events, tmp_path / "local", **options)
    # Over what another engine has written before, of other options.
    before = prepare_events(events, tmp_path / "beam", **OPTIONS | {"num_shards": 2})
    content = prepared_content(before)
    beam = on_beam(events, tmp_path / "beam", **options)
    assert prepared_content(before) == content  # Someone may train on it still.
    assert prepared_content(beam) == prepared_content(local)
    names = {"generation", "previous"}
    counts = {n: v for n, v in local.manifest.items() if n not in names}
    assert counts == {n: v for n, v in beam.manifest.items() if n not in names}
    assert counts["beyond_newest"] >= 180  # the bot's, and a few others
    assert counts["rejected"] == (5 if kind == "csv" else 3)
    assert (counts["rare"] > 0) == (kind == "parquet")
    assert counts["validation"] + counts["test"] > 0

    def letters(log):
        folder = log.data / "rejected"
        return {path.name: path.read_text() for path in folder.iterdir()}

    assert letters(beam) == letters(local)
    assert len(letters(beam)) == 3
    beam_rows, local_rows = beam.rows(), local.rows()
    assert beam_rows.shard_rows == local_rows.shard_rows
    assert dict(beam_rows.columns) == dict(local_rows.columns)


def test_bad_input_is_refused_and_leaves_what_was_there(logs, tmp_path):
    events = read_events(logs / "csv")
    first = on_beam(events, tmp_path / "out", **OPTIONS)
    content = prepared_content(first)
    with pytest.raises(InputError, match=r"At most 0\.00% of the rows .*: 5 of"):
        on_beam(events, tmp_path / "out", **OPTIONS, max_rejected=0.0)
    assert prepared_content(read_prepared(tmp_path / "out")) == content
    assert len(list((tmp_path / "out").glob("generation-*"))) == 1


def test_a_fault_inside_a_worker_is_told_as_bad_input(logs, tmp_path):
    from tfrs_selfattn.beam.prepare import Source, prepare_on_beam

    (tmp_path / "torn.avro").write_bytes(b"no avro")
    source = Source((str(tmp_path / "torn.avro"),))
    with pytest.raises(InputError, match=r"torn\.avro must be an Avro file"):
        prepare_on_beam(
            source,
            str(tmp_path / "out"),
            _preparation.PrepareOptions(),
            runner="DirectRunner",
        )
    assert not (tmp_path / "out").exists()


def test_the_command_takes_pipeline_options_and_no_others(logs, tmp_path, capsys):
    from tfrs_selfattn.cli.main import main

    def run(*words):
        with pytest.raises(SystemExit) as exit:
            main(["prepare", "--data", str(logs / "parquet"), *words])
        return exit.value.code, *capsys.readouterr()

    out = str(tmp_path / "out")
    words = ("--output", out, "--json", "--runner", "DirectRunner")
    status, text, errors = run(*words, "--direct_num_workers=1")
    assert status == 0, errors
    assert json.loads(text)["rejected"] == 3
    status, _, errors = run(*words, "--no-such-option=1")
    assert status == 2
    assert "Received: --no_such_option. See" in errors
