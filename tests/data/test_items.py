from __future__ import annotations

import polars as pl
import pytest

from tfrs_selfattn import InputError
from tfrs_selfattn.data import (
    build_sequences,
    find_titles,
    read_events,
    read_titles,
)

TITLES = {"1": "Misérables, Les (1995)", "02": "Toy Story (1995)"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "items.csv",
            'item_id,title\n1,"Misérables, Les (1995)"\n02, Toy Story (1995)\n',
        ),
        (
            "items.tsv",
            "title\titem_id\nMisérables, Les (1995)\t1\nToy Story (1995)\t02\n",
        ),
        ("u.item", "1|Misérables, Les (1995)|x\n02|Toy Story (1995) |\n"),
        ("movies.dat", "1::Misérables, Les (1995)::x\n02::Toy Story (1995)::\n"),
        (
            "x.item",
            "item_id:token\tmovie_title:token_seq\trelease_year:token\n"
            "1\tMisérables, Les\t1995\n02\tToy Story\t1995\n",
        ),
    ],
)
def test_every_layout_gives_the_same_titles(write, name, content):
    encoding = "latin-1" if name in ("u.item", "movies.dat") else "utf-8"
    path = write(name, content.encode(encoding))
    assert read_titles(path) == TITLES
    known_layout = name in ("u.item", "movies.dat", "x.item")
    assert find_titles(path.parent) == (TITLES if known_layout else {})


def test_parquet_of_other_names(tmp_path):
    frame = pl.DataFrame({"sku": [1, 2], "name": ["Tea", None]})
    frame.write_parquet(tmp_path / "i.parquet")
    path = tmp_path / "i.parquet"
    assert read_titles(path, item_column="sku", title_column="name") == {"1": "Tea"}


def test_items_without_title_or_id_are_left_out(write):
    text = "item_id,title\n1,Tea\n2,\n,Nobody\n3,  \n\n"
    assert read_titles(write("i.csv", text)) == {"1": "Tea"}


def test_a_year_that_is_no_number_is_not_shown(write):
    text = "item_id:token\tmovie_title:token_seq\trelease_year:token\n1\tA\t\n2\tB\tx\n"
    assert read_titles(write("x.item", text)) == {"1": "A", "2": "B"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("item_id,name\n1,a\n", "column 'title'. Received: columns item_id, name"),
        ("id,title\n1,a\n", "column 'item_id'. Received: columns id, title"),
        ("", "is empty"),
        ("item_id,title\n1,a\n2,b,c\n", "line 3 has 3 fields instead of 2"),
    ],
)
def test_bad_files_are_named(write, text, message):
    path = write("items.csv", text)
    with pytest.raises(InputError, match=message) as caught:
        read_titles(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"Received: .*absent\.csv"):
        read_titles(tmp_path / "absent.csv")


def test_every_movie_of_movielens_100k_has_a_title(ml_100k):
    titles = find_titles(ml_100k)
    assert set(titles) == set(build_sequences(read_events(ml_100k)).vocabulary.ids)
    assert titles["1"] == "Toy Story (1995)"
    assert titles["543"] == "Misérables, Les (1995)"


def test_a_folder_of_interactions_and_items(write):
    text = "user_id,item_id,timestamp\nu,1,3\nu,02,4\n"
    folder = write("shop/interactions.csv", text).parent
    assert find_titles(folder) == {}
    write("shop/items.csv", "item_id,asin,title\n1,B1,Tea\n02,B2,Milk\n")
    assert build_sequences(read_events(folder)).vocabulary.ids == ("02", "1")
    assert find_titles(folder) == {"1": "Tea", "02": "Milk"}
    write("shop/items.csv", "item_id,asin\n1,B1\n")
    assert find_titles(folder) == {}
