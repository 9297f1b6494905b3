"""Exports of tiny models and the servers that serve them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.export import tiny
from tests.export.told import told_model
from tests.serving import model_server, odd_models
from tfrs_selfattn._keras import KERAS_3

needs_server = pytest.mark.skipif(
    not model_server.can_run(),
    reason="needs tensorflow_model_server, or tensorflow-serving-api for the stand-in",
)

# Waits for 20 ms for further requests, so that those sent together are merged.
MERGING = """\
max_batch_size { value: 64 }
batch_timeout_micros { value: 20000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: 2 }
"""
PADDING = (
    MERGING
    + """\
allowed_batch_sizes: 4
allowed_batch_sizes: 16
allowed_batch_sizes: 64
pad_variable_length_inputs: true
"""
)
MONITORING = Path(__file__).resolve().parents[2] / "serving" / "monitoring.config"
SERVED = ("films", "timed", "query", "index")


def pytest_ignore_collect(collection_path, config):
    return True if KERAS_3 and collection_path.name.startswith("test_") else None


@pytest.fixture(scope="session")
def exports(tmp_path_factory):
    """Base folders by the name of the model in them, and the models themselves."""
    folder = tmp_path_factory.mktemp("bases")
    model = tiny.make_model()
    timed = tiny.make_model(preset="hstu", seed=1)
    tiny.quick_export(folder / "films", model=model)
    tiny.quick_export(folder / "timed", model=timed)
    tiny.quick_export(folder / "query", model=model, parts="query")
    tiny.quick_export(folder / "index", model=model, parts="index")
    tiny.quick_export(folder / "told", model=told_model())
    names = (*SERVED, "told")
    return SimpleNamespace(
        bases={name: folder / name for name in names}, model=model, timed=timed
    )


@pytest.fixture(scope="session")
def start(tmp_path_factory):
    """A function that starts a server; all are stopped at the end."""
    started = []

    def start(models, **flags):
        server = model_server.ModelServer(
            tmp_path_factory.mktemp("server"), models, **flags
        )
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="session")
def server(exports, start):
    """Batches by the parameters that lie in each version, as the README starts it."""
    server = start(
        {name: exports.bases[name] for name in SERVED},
        enable_batching="true",
        enable_per_model_batching_parameters="true",
    )
    return server.wait(*SERVED)


@pytest.fixture(scope="session")
def plain_server(exports, start, tmp_path_factory):
    """Does not batch: a batch of tensors of different shapes fails as a whole there."""
    models = {name: exports.bases[name] for name in ("films", "timed", "index")}
    models |= odd_models.save(tmp_path_factory.mktemp("odd"))
    return start(models).wait(*models)


@pytest.fixture(scope="session")
def padding_server(exports, start, tmp_path_factory):
    """Batches with the padding that repeats first elements, and rounds sizes up."""
    file = tmp_path_factory.mktemp("batching") / "batching.config"
    file.write_text(PADDING)
    models = {name: exports.bases[name] for name in ("films", "timed", "told")}
    server = start(models, enable_batching="true", batching_parameters_file=file)
    return server.wait(*models)


@pytest.fixture(scope="session")
def merging_server(exports, start, tmp_path_factory):
    """Merges what comes within 20 ms, without padding; counts its batches."""
    file = tmp_path_factory.mktemp("batching") / "batching.config"
    file.write_text(MERGING)
    models = {name: exports.bases[name] for name in ("films", "timed")}
    server = start(
        models,
        enable_batching="true",
        batching_parameters_file=file,
        monitoring_config_file=MONITORING,
    )
    return server.wait(*models)


@pytest.fixture(params=["gRPC", "gRPC matrices", "REST", "REST matrices"])
def ask(request, server):
    """A function from the name of a model to a client, for each way to ask."""
    from tfrs_selfattn.client import Client, RestClient

    opened = []

    def ask(model):
        examples = "matrices" not in request.param
        if "REST" in request.param:
            client = RestClient(server.rest_address, model=model, examples=examples)
        else:
            client = Client(server.address, model=model, examples=examples)
        opened.append(client)
        return client

    yield ask
    for client in opened:
        client.close()


@pytest.fixture
def cli_status(capsys):
    """A function that runs `tfrs-selfattn`; returns status, output and errors."""
    from tfrs_selfattn.cli.main import main

    def cli_status(*words):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            main([str(word) for word in words])
        return exit.value.code, *capsys.readouterr()

    return cli_status
