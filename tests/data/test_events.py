"""Reading logs of every layout, and each kind of bad input with its own message."""

from __future__ import annotations

import datetime
import subprocess
import sys

import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import build_sequences, events_from_frame, read_events

HEADER = "user_id,item_id,timestamp\n"


def rows(events):
    return [tuple(map(str, row)) for row in events.collect().iter_rows()]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.csv", HEADER + '007,"a,b",5\nu2,i2,6\n'),
        ("e.csv", "\ufeff" + (HEADER + '007,"a,b",5\nu2,i2,6\n').replace("\n", "\r\n")),
        ("e.csv", 'extra,item_id,timestamp,user_id\n1,"a,b",5,007\n,i2,6,u2\n'),
        ("e.tsv", "user_id\titem_id\ttimestamp\n007\ta,b\t5\nu2\ti2\t6\n"),
        ("u.data", "007\ta,b\t3\t5\nu2\ti2\t4\t6\n"),
        ("ratings.dat", "007::a,b::3::5\nu2::i2::4::6\n"),
        (
            "x.inter",
            "user_id:token\titem_id:token\ttimestamp:float\n007\ta,b\t5.0\nu2\ti2\t6\n",
        ),
        ("odd [name] *.csv", HEADER + '007,"a,b",5\nu2,i2,6\n'),
    ],
)
@pytest.mark.parametrize("as_folder", [False, True])
def test_every_text_layout_gives_the_same_events(write, name, text, as_folder):
    path = write(name, text)
    events = read_events(path.parent if as_folder else path)
    assert rows(events) == [("007", "a,b", "5"), ("u2", "i2", "6")]


def test_a_folder_of_files_is_one_log_in_name_order(write):
    for number in (9, 3, 7, 1, 8, 5, 2, 4, 6, 0):
        write(f"part-{number}.csv", f"{HEADER}u,i{number},5\n")
    write("part-3.csv", "timestamp,user_id,item_id\n5,u,i3\n")
    write("README", "not data")
    events = read_events(write("z.csv", HEADER).parent)  # z holds a header only
    assert [row[1] for row in rows(events)] == [f"i{number}" for number in range(10)]


def test_parquet_of_other_types_and_names(tmp_path):
    frame = pl.DataFrame(
        {
            "visitor": [7, 8],
            "product": pl.Series(["a", "b"], dtype=pl.Categorical),
            "day": [datetime.date(1970, 1, 2), datetime.date(1970, 1, 3)],
        }
    )
    frame.write_parquet(tmp_path / "e.parquet")
    events = read_events(
        tmp_path, user_column="visitor", item_column="product", time_column="day"
    )
    assert rows(events) == [("7", "a", "86400"), ("8", "b", "172800")]
    assert events.frame.collect_schema() == {
        "user_id": pl.String,
        "item_id": pl.String,
        "timestamp": pl.Int64,
    }


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("1000000000", 1_000_000_000),
        (" 12 ", 12),
        ("881250949.9", 881250949),
        ("-1.5", -2),
        ("1e3", 1000),
        ("9007199254740993", 2**53 + 1),
        ("1970-01-02", 86400),
        ("1970-01-01T00:01:00", 60),
        ("1970-01-01 00:01:00.75", 60),
        ("1970-01-01T00:01", 60),
        ("1970-01-01T00:01:00Z", 60),
        ("1970-01-01T02:01:00+02:00", 60),
        ("1970-01-01T02:01:00.5+0200", 60),
        ("1970-01-01 02:01+02:00", 60),
    ],
)
def test_times_of_text(write, written, seconds):
    events = read_events(write("e.csv", f"{HEADER}u,i,{written}\n"))
    assert events.collect()["timestamp"].to_list() == [seconds]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        (pl.Series([1.9, -1.1]), [1, -2]),
        (pl.Series([1, 2], dtype=pl.UInt8), [1, 2]),
        (pl.Series(["1970-01-01T00:00:01Z", "1970-01-02"]), [1, 86400]),
        (
            pl.Series([1000, 2000]).cast(pl.Datetime("ms", "Europe/Rome")),
            [1, 2],
        ),
        (pl.Series([10**9, 2 * 10**9]).cast(pl.Datetime("ns")), [1, 2]),
    ],
)
def test_times_of_typed_columns(values, seconds):
    frame = pl.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"]})
    events = events_from_frame(frame.with_columns(timestamp=values))
    assert events.collect()["timestamp"].to_list() == seconds


def test_duplicate_events_and_blank_lines(write):
    text = HEADER + "u,i,1\n\nu,i,1\n\n\n"
    assert rows(read_events(write("e.csv", text))) == [("u", "i", "1")] * 2


BAD_ROWS = [
    (HEADER + "u,i,1\nu,,2\n", r"row 2 \(line 3\): column 'item_id' .* nothing"),
    (HEADER + 'u,i,1\n"",i,2\n', r"row 2 \(line 3\): column 'user_id' .* nothing"),
    (HEADER + "u,i,1\nu,i\n", r"row 2 \(line 3\): column 'timestamp' .* nothing"),
    (HEADER + "u,i,1\n,,2\n", r"row 2 \(line 3\): column 'user_id'"),
    (HEADER + "u,i,1\n\nu,i,soon\n", r"row 3 \(line 4\): .*ISO date.*: 'soon'"),
    (HEADER + "u,i,1\nu,i,nan\n", r"line 3.*Received: 'nan'"),
    (HEADER + "u,i,1\nu,i,1970-01-01\n", r"line 3.*Received: '1970-01-01'"),
    (HEADER + "u,i,1970-01-01\nu,i,1970-13-01\n", "Received: '1970-13-01'"),
    # The record before spans two lines of the file.
    (
        'note,user_id,item_id,timestamp\n"a\nb",u,i,1\nx,u,i,?\n',
        r"row 2 \(line 4\): column 'timestamp' .*Received: '\?'",
    ),
    (HEADER + 'u,"i\ni",1\n', r"row 1 \(line 2\): column 'item_id' .*line breaks"),
    (HEADER + "u,i,1\nu,i,1,5\n", "line 3 has 4 fields instead of 3"),
    (HEADER.encode() + b"u,i,1\nu,\xe9,1\n", "line 3 is not UTF-8"),
]


@pytest.mark.parametrize(("text", "message"), BAD_ROWS)
def test_a_bad_row_is_named_by_file_row_and_column(write, text, message):
    path = write("events.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        build_sequences(read_events(path))
    assert str(path) in str(caught.value)
    assert [file.name for file in path.parent.iterdir()] == ["events.csv"]


def test_a_bad_row_is_found_in_the_right_file(write):
    write("a.csv", HEADER + "u,i,1\n")
    folder = write("b.csv", HEADER + "u,i,1\nu,i,never\n").parent
    with pytest.raises(InputError, match=r"b\.csv, row 2 \(line 3\)"):
        read_events(folder).collect()
    write("b.csv", HEADER + "u,i,1\nu,i,1,1\n")
    with pytest.raises(InputError, match=r"b\.csv cannot be read: line 3"):
        read_events(folder).collect()


def test_a_bad_row_of_headerless_and_binary_files(write, tmp_path):
    path = write("ratings.dat", "u::i::3::1\nu::i::3::x\n")
    with pytest.raises(InputError, match=r"ratings\.dat, row 2 \(line 2\)"):
        read_events(path).collect()
    frame = pl.DataFrame(
        {"user_id": ["u", None], "item_id": ["i", None], "timestamp": [1, None]}
    )
    frame.write_parquet(tmp_path / "e.parquet")
    with pytest.raises(InputError, match=r"e\.parquet, row 2: column 'user_id'"):
        read_events(tmp_path / "e.parquet").collect()
    with pytest.raises(InputError, match="the data frame, row 2: column 'user_id'"):
        events_from_frame(frame).collect()


def test_a_late_bad_time_is_found_among_many(write):
    lines = [f"u{i % 9},i{i % 7},{i}" for i in range(200_000)]
    lines[150_000] = "u,i,oops"
    with pytest.raises(InputError, match=r"row 150001 \(line 150002\).*'oops'"):
        read_events(write("e.csv", HEADER + "\n".join(lines))).collect()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "e.csv",
            "user,item_id,timestamp\nu,i,1\n",
            "columns user, item_id, .*--user-",
        ),
        ("e.csv", "user_id,item,timestamp\nu,i,1\n", "--item-column"),
        ("e.csv", "user_id,item_id,when\nu,i,1\n", "--time-column"),
        ("e.csv", "", r"e\.csv is empty"),
        ("e.csv", HEADER, r"e\.csv holds no events"),
        ("e.csv", HEADER + "\n\n", r"e\.csv holds no events"),
        ("e.parquet", "not parquet", r"e\.parquet cannot be read"),
        ("e.json", "{}", r"one of \.csv, \.tsv, \.parquet, \.avro, \.inter.*e\.json"),
    ],
)
def test_unusable_files(write, name, text, message):
    with pytest.raises(InputError, match=message):
        read_events(write(name, text)).collect()


def test_unusable_folders(write, tmp_path):
    with pytest.raises(InputError, match="absent, which does not exist"):
        read_events(tmp_path / "absent")
    with pytest.raises(InputError, match="which holds none"):
        read_events(tmp_path)
    write("a.csv", HEADER)
    write("b.tsv", HEADER)
    with pytest.raises(InputError, match=r"several kinds \(\.csv, \.tsv\)"):
        read_events(tmp_path)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user_id", [1.0], "'user_id' must hold strings or integers.*Float64"),
        ("timestamp", [True], "'timestamp' must hold Unix seconds.*Boolean"),
    ],
)
def test_columns_of_unusable_type(column, values, message):
    frame = pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "timestamp": [1]})
    with pytest.raises(InputError, match=message):
        events_from_frame(frame.with_columns(pl.Series(column, values)))


def test_events_stay_in_file_order_however_many(write):
    count = 300_000
    frame = pl.DataFrame({"user_id": ["u"] * count, "item_id": ["i"] * count})
    path = write("e.csv", b"")
    frame.with_columns(timestamp=pl.int_range(count)).write_csv(path)
    log = read_events(path).collect()
    assert log["timestamp"].to_list() == list(range(count))


def test_movielens_100k(ml_100k):
    log = read_events(ml_100k).collect()
    assert len(log) == 100_000
    assert [str(value) for value in log.row(0)] == ["196", "242", "881250949"]


def test_reading_and_packing_need_no_tensorflow():
    code = """
import sys
from tfrs_selfattn import data
pipelines = {"training_dataset", "evaluation_dataset", "steps_per_epoch"}
on_datasets = pipelines | {"cut_histories"}
assert all(getattr(data, name) for name in set(data.__all__) - on_datasets)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
