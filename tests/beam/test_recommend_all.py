"""RunInference writes the answers that the engine in process writes."""

from __future__ import annotations

import polars as pl
import pytest

from tests.export.test_recommend_all import SMALL, draw_users, read
from tests.export.tiny import quick_export
from tfrs_selfattn.export import recommend_all


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return quick_export(tmp_path_factory.mktemp("export") / "base")


def test_answers_are_those_of_the_engine_in_process(made, tmp_path):
    from tfrs_selfattn.beam.recommend_all import recommend_all_on_beam

    draw_users(30, exclude=True).write_parquet(tmp_path / "users.parquet")
    users = str(tmp_path / "users.parquet")
    recommend_all(made.path, users, tmp_path / "local", **SMALL)
    beam = str(tmp_path / "beam")
    arguments = str(made.path.parent), users, beam
    done = recommend_all_on_beam(*arguments, runner="DirectRunner", **SMALL)
    assert (done.users, done.files, done.resumed) == (30, 4, 0)
    assert read(tmp_path / "beam").equals(read(tmp_path / "local"))

    # One file is lost: only its users are answered anew, in either engine.
    lost = sorted((tmp_path / "beam").glob("*.parquet"))[1]
    content = pl.read_parquet(lost)
    lost.unlink()
    done = recommend_all_on_beam(*arguments, runner="DirectRunner", **SMALL)
    assert (done.users, done.resumed) == (30, 22)
    assert pl.read_parquet(lost).equals(content)
    lost.unlink()
    assert recommend_all(made.path, users, beam, **SMALL).resumed == 22
