"""The cost model and the simulation say what docs/scale.md prints of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import _scale_constants, _scale_costs, scale_model, scale_simulation
from benchmarks._scale_costs import SIZES, Size
from benchmarks.scale_simulation import Deployment, simulate
from tests.test_readme import REPOSITORY

PAGE = (REPOSITORY / "docs" / "scale.md").read_text(encoding="utf-8")
HOW = "run `python benchmarks/{}.py --write docs/scale.md` and read the text again"


@pytest.mark.parametrize("name", _scale_constants.CONSTANTS)
def test_constants_stand_where_they_are_cited(name):
    constant = _scale_constants.CONSTANTS[name]
    assert all(number > 0 for number in constant.numbers)
    assert f"| {constant.what} |" in PAGE


def test_a_constant_that_is_not_published_is_named():
    gone = replace(_scale_constants.CONSTANTS["exact_ms"], pattern="no such (.*)")
    with pytest.raises(ValueError, match=r"'Index, one run' .* must have exact search"):
        _ = gone.value


def test_the_page_has_the_tables_of_the_model():
    tables = list(scale_model.tables())
    assert len(tables) == 7
    for table in tables:
        assert f"\n\n{table}\n\n" in PAGE, HOW.format("scale_model")


def test_costs_by_hand():
    """D 64, two blocks, rows of 200; a search of every item costs 2 D."""
    # 6 · 64² products a block for projections, 2 · 64 · 100 for causal attention.
    assert _scale_costs.encoder_flop() == 6 * 2 * (6 * 4096 + 12_800)
    assert _scale_costs.loss_flop(3_416) == 6 * 64 * 3_416
    small = Size("", events=25_600.0, items=1e5, requests=1.0)
    search = _scale_costs.serving(small)["flop_low"] - _scale_costs.tower_flop()
    assert search == 2 * 64 * 1e5
    # 8,000 centers, and 64 leaves of 135.
    assert _scale_costs.scanned(1e6) == 8_000 + 64 * 135
    # One step: Adam's three tables, read and written, at the rate of the search.
    hours = _scale_costs.training(small)["adam_hours"]
    seconds = 6 * 1e5 * 256 / (256e6 / (_scale_constants.constant("exact_ms") / 1e3))
    assert hours * 3600 == pytest.approx(seconds)
    most = _scale_costs.training(SIZES[-1])
    assert most["own_adam_hours"] < most["adam_hours"] / 50
    assert most["full_hours"] > 1000 * most["sampled_hours"]


def test_one_calm_shard_that_nobody_waits_for_has_the_quantiles_of_a_search():
    calm = Deployment(1, stragglers=0.0, load=1e-4, overhead=0.0)
    found = simulate(calm)
    assert found["p50"] == pytest.approx(calm.median, rel=0.01)
    for name, deviations in (("p99", 2.326), ("p99.9", 3.09)):
        wanted = calm.median * np.exp(calm.sigma * deviations)
        assert found[name] == pytest.approx(wanted, rel=0.04)
    # Of four the slowest: the median is the quantile .5 ** (1 / 4) of one.
    wanted = calm.median * np.exp(calm.sigma * 0.998)
    assert simulate(replace(calm, shards=4))["p50"] == pytest.approx(wanted, rel=0.01)


def test_one_client_at_a_time_waits_for_its_own_searches_alone():
    """Four searches of 3 ms: at once on four cores, in two rounds on two."""
    alone = Deployment(4, replicas=1, search=(3.0,), load=None, stragglers=0.0)
    for cores, wanted in ((4, 3.5), (2, 6.5), (1, 12.5), (None, 3.5)):
        assert simulate(replace(alone, cores=cores), 50)["p99"] == pytest.approx(wanted)


def test_hedges_help_as_long_as_there_is_room_for_them():
    plain = Deployment(4)
    without, hedged = (simulate(replace(plain, hedge=each)) for each in (None, 15.0))
    assert hedged["p99"] < 0.7 * without["p99"]
    assert 0.005 < hedged["hedged"] < 0.05 and without["hedged"] == 0.0
    assert simulate(replace(plain, load=0.6))["p50"] > 1.5 * without["p50"]


def test_the_page_has_the_tables_of_the_simulation():
    """Those that take a second; the rest is of the same function."""
    how = HOW.format("scale_simulation")
    rows = scale_simulation.fan_out_table(scale_simulation.fan_out((1, 4)))
    assert f"\n\n{rows}\n" in PAGE, how
    assert f"\n\n{scale_simulation.check_table()}\n\n" in PAGE, how
