"""Tables of features: how they are written down, read, completed and refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.features import (
    Category,
    FeatureSet,
    FeatureTable,
    MultiCategory,
    Number,
    Text,
    Vector,
    find_feature_table,
    parse_features,
    read_feature_table,
)


def written(text, *, with_file=True):
    return parse_features(text, "--features", with_file=with_file)


def test_kinds_and_their_options():
    path, features = written(
        r"C:\my files\a:b.csv:g=multi[,],t=text[3],p=number[log],q=bucket,r=bucket[4],"
        "v=vector[a=b.npy],w=vector,b=category[9]"
    )
    assert str(path) == r"C:\my files\a:b.csv"
    assert tuple(features) == (
        MultiCategory("g", separator=","),
        Text("t", letters=3),
        Number("p", log=True),
        Number("q", buckets=10),
        Number("r", buckets=4),
        Vector("v", path="a=b.npy"),
        Vector("w"),
        Category("b", hash_buckets=9),
    )


def test_columns_of_events_need_no_file():
    assert written("price:number,hour=category", with_file=False) == (
        None,
        FeatureSet((Number("price"), Category("hour"))),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("items.csv", "--features must be written as items.csv:genres=multi"),
        ("items.csv:", "--features must be written as"),
        ("items.csv:a=text,", "--features must be written as"),
        ("items.csv:a=text,,b=text", "--features must be written as"),
        ("a.csv:a=words", r"one of the kinds category, .*Received: a=words\."),
        ("a.csv:a=number[x]", r"Received: a=number\[x\]\."),
        ("a.csv:a=bucket[x]", r"a=bucket: the option in brackets must be a whole"),
        ("a.csv:a=text,a=number", "must have names of their own. Received: a more"),
        ("a.csv:history=text", "`name` must be a name that is none of history"),
    ],
)
def test_what_is_written_otherwise_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        written(text)


ITEMS = FeatureSet((Text("title"), MultiCategory("genres"), Number("year")))


@pytest.fixture
def items_csv(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text(
        "item_id,title,genres,year\n"
        "007,Up,Animation,2009\n"
        '8,"Tea, for Two",Comedy|Musical,\n'
    )
    return path


def test_a_table_is_read_and_put_into_another_order(items_csv):
    table = read_feature_table(items_csv, ITEMS)
    assert table.ids == ["007", "8"]
    aligned, absent = table.align(["9", "8", "007", "10"], ITEMS)
    assert absent == ["9", "10"]
    assert aligned.raw["title"].tolist() == [b"", b"Tea, for Two", b"Up", b""]
    np.testing.assert_array_equal(aligned.raw["year"], [np.nan, np.nan, 2009, np.nan])


def test_a_table_without_any_of_the_ids_is_refused(items_csv):
    table = read_feature_table(items_csv, ITEMS)
    with pytest.raises(
        InputError, match=r"none of 1, the first of which is '7', .*'007'"
    ):
        table.align(["7"], ITEMS)


def test_a_table_survives_being_saved(items_csv, tmp_path):
    features = FeatureSet((*ITEMS, Vector("image", path=str(tmp_path / "v.npy"))))
    vectors = np.arange(6, dtype=np.float64).reshape(2, 3)
    np.save(tmp_path / "v.npy", vectors)
    table = read_feature_table(items_csv, features)
    table.raw["title"][0] = "naïve ☕".encode()
    table.save(tmp_path / "t.parquet")
    again = FeatureTable.load(tmp_path / "t.parquet")
    assert again.ids == table.ids
    for name, values in table.raw.items():
        np.testing.assert_array_equal(again.raw[name], values)
        assert again.raw[name].dtype == values.dtype
    aligned, _ = again.align(["8", "x"], features)
    assert aligned.raw["image"].tolist() == [[3, 4, 5], [0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,title,genres\n1,a,b\n", r"items.csv must have a column 'year'"),
        (
            "id,title,genres,year\n1,a,b,1\n",
            r"must have a column 'item_id'. Received: ",
        ),
        ("item_id,title,genres,year\n1,a,b,x\n", r"column 'year' must .*'x' in row 1"),
        (
            "item_id,title,genres,year\n1,a,b,1\n1,a,b,1\n",
            r"row 2 repeats '1' of row 1",
        ),
        ("item_id,title,genres,year\n,a,b,1\n", r"row 1 is empty"),
    ],
)
def test_tables_that_are_refused(items_csv, text, message):
    items_csv.write_text(text)
    with pytest.raises(InputError, match=message):
        read_feature_table(items_csv, ITEMS)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be a file. Received: .*nowhere\.csv"):
        read_feature_table(tmp_path / "nowhere.csv", ITEMS)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros([3, 2]), "a row for each of the 2 rows .*Received: 3"),
        (
            np.zeros(2),
            r"must hold a matrix of numbers. Received: float64 of shape \(2,\)",
        ),
        (np.full([2, 2], np.nan), "must hold finite numbers. .* row 1 and 1 others"),
        (None, "must be a .npy file of numbers"),
    ],
)
def test_matrices_that_are_refused(items_csv, tmp_path, matrix, message):
    path = tmp_path / "v.npy"
    if matrix is not None:
        np.save(path, matrix)
    with pytest.raises(InputError, match=message):
        read_feature_table(items_csv, FeatureSet((Vector("image", path=str(path)),)))


def test_vectors_are_lists_in_parquet(tmp_path):
    path = tmp_path / "items.parquet"
    frame = {"item_id": ["1", "2"], "image": [[1.0, 2.0], None]}
    pl.DataFrame(frame).write_parquet(path)
    table = read_feature_table(path, FeatureSet((Vector("image"),)))
    assert table.raw["image"].tolist() == [[1, 2], [0, 0]]


def test_the_films_of_movielens_100k(ml_100k):
    path = find_feature_table(ml_100k, "items")
    features = FeatureSet((Text("title"), MultiCategory("genres")))
    table = read_feature_table(path, features)
    assert len(table.ids) == 1682
    assert table.ids[0] == "1"
    assert table.raw["title"][0] == b"Toy Story (1995)"
    assert table.raw["genres"][0] == b"Animation|Children's|Comedy"
    assert "Caf\N{LATIN SMALL LETTER E WITH ACUTE} au".encode() in b"".join(
        table.raw["title"]
    )
    users = FeatureSet((Category("occupation"), Number("age")))
    table = read_feature_table(
        find_feature_table(ml_100k, "users"), users, id_column="user_id"
    )
    assert (len(table.ids), table.raw["age"][0]) == (943, 24)
    assert table.raw["occupation"][0] == b"technician"


def test_the_films_and_users_of_recbole(tmp_path):
    films, users = tmp_path / "ml-100k.item", tmp_path / "ml-100k.user"
    films.write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "1\tToy Story\t1995\tAnimation Children's Comedy\n"
        "267\tunknown\t\tunknown\n"
    )
    users.write_text("user_id:token\tage:token\tgender:token\n1\t24\tM\n")
    assert find_feature_table(tmp_path, "items") == films
    assert find_feature_table(tmp_path, "users") == users
    features = FeatureSet((Text("title"), MultiCategory("genres")))
    table = read_feature_table(films, features)
    assert table.raw["title"].tolist() == [b"Toy Story (1995)", b"unknown"]
    assert table.raw["genres"].tolist() == [b"Animation|Children's|Comedy", b"unknown"]
    features = FeatureSet((Category("gender"), Number("age")))
    table = read_feature_table(users, features, id_column="user_id")
    assert table.raw["age"].tolist() == [24]
    assert find_feature_table(tmp_path / "none", "items") is None


def test_the_files_of_movielens_1m(tmp_path):
    films, users = tmp_path / "movies.dat", tmp_path / "users.dat"
    films.write_bytes(
        "1::A: b (1995)::Comedy|War\n2::Caf\xe9::Drama\n".encode("latin-1")
    )
    users.write_text("1::F::1::10::48067\n")
    features = FeatureSet((Text("title"), MultiCategory("genres")))
    table = read_feature_table(films, features)
    assert table.raw["title"].tolist() == [b"A: b (1995)", "Café".encode()]
    assert table.raw["genres"].tolist() == [b"Comedy|War", b"Drama"]
    features = FeatureSet((Category("gender"), Category("zip_code")))
    table = read_feature_table(users, features, id_column="user_id")
    assert table.raw["zip_code"].tolist() == [b"48067"]
    assert find_feature_table(tmp_path, "users") == users
    films.write_text("1::A\n")
    with pytest.raises(InputError, match=r"movies\.dat, line 1 must have 3 fields"):
        read_feature_table(films, features)
