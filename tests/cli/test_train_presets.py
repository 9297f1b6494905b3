"""`train` and `evaluate` with a time-aware preset; options that exclude each other."""

from __future__ import annotations

import re

import pytest

from tfrs_selfattn import training

SMALL = ("--embedding-dim", "8", "--num-blocks", "1", "--max-length", "8")


def test_a_time_aware_run_is_trained_and_evaluated(cli, events, columns, tmp_path):
    run = tmp_path / "run"
    done = cli(
        *("train", "--data", events, *columns, *SMALL, "--output", run, "--json"),
        *("--preset", "hstu", "--epochs", "1", "--batch-size", "64", "--normalize"),
        *("--temperature", "0.1", "--windows", "sliding", "--stride", "4"),
        *("--loss", "sampled-softmax", "--num-negatives", "4", "--shared-by", "row"),
        *("--negatives", "popularity", "--no-correct-sampling", "--ema", "0.5"),
        *("--precision", "mixed_bfloat16"),
    )
    assert done.status == 0
    config = training.RunFolder.open(run).config
    assert config.model == training.ModelConfig(
        preset="hstu",
        embedding_dim=8,
        num_blocks=1,
        max_length=8,
        time_aware=True,
        normalize=True,
        temperature=0.1,
        loss="sampled-softmax",
        num_negatives=4,
        shared_by="row",
        correct_sampling=False,
        negatives="popularity",
    )
    assert (config.training.ema, config.training.precision) == (0.5, "mixed_bfloat16")
    assert re.search(
        r"^Epoch 1/1, .* items/s, validation NDCG.*, the last", done.err, re.M
    )
    assert (config.training.windows, config.training.stride) == ("sliding", 4)
    done = cli("evaluate", run, "--json")
    assert done.status == 0
    assert 0 < done.json["metrics"]["model"]["hr@10"] <= 1


def test_a_recipe_fills_what_no_option_says(cli, events, columns, tmp_path):
    run = tmp_path / "run"
    done = cli(
        *("train", "--data", events, *columns, *SMALL, "--output", run),
        *("--recipe", "ml-1m-times", "--epochs", "1", "--dropout", "0.2"),
    )
    assert done.status == 0, done.err
    config = training.RunFolder.open(run).config
    changes = {"embedding_dim": 8, "num_blocks": 1, "max_length": 8, "epochs": 1}
    assert (config.model, config.training) == training.recipe(
        "ml-1m-times", changes | {"dropout": 0.2}
    )
    assert config.training.schedule == "cosine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--recipe ml-2m", r"^--recipe must be one of 'ml-1m', .*'ml-2m'"),
        ("--preset gru", r"^--preset must be one of 'sasrec', .*'hstu'.*'gru'"),
        ("--preset bert4rec --time-aware", "^--time-aware must be False for --preset"),
        ("--windows old", "^--windows must be one of 'all', 'newest', 'sliding'"),
        ("--stride 3", "^--stride belongs to --windows 'sliding'"),
        (
            "--windows sliding --stride 9",
            "^--stride must not exceed --max-length.*--stride 9, --max-length 8",
        ),
        ("--temperature 0", "^--temperature must be a positive finite number"),
        ("--loss hinge", "^--loss must be one of .*'sampled-softmax'.*'hinge'"),
        ("--negatives popularity", "^--negatives belongs to the losses sampled-softm"),
        ("--precision half", "^--precision must be one of 'float32', 'mixed_bfloat16'"),
        ("--ema 1", r"^--ema must be a number in \[0, 1\)"),
        ("--num-negatives 9", "^--num-negatives belongs to the losses sampled-soft"),
    ],
)
def test_options_that_exclude_each_other(
    refused, events, columns, tmp_path, options, message
):
    words = ("train", "--data", events, *columns, *SMALL, "--output", tmp_path / "run")
    assert re.search(message, refused(*words, *options.split()))
