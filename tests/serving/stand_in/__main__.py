"""Stands in for `tensorflow_model_server` where there is none: same flags, same wire.

Run as `python tests/serving/stand_in --port=… --model_name=… …`. Speaks the gRPC and
REST of TensorFlow Serving through the protos of `tensorflow-serving-api`, runs a
SavedModel in a session as it does, and shares the behaviour that clients meet: batches
merge or fail together, a server's own padding repeats a tensor's first element, a model
whose warm-up fails does not load, versions roll over by polling. It is a test double:
slower, in Python, and it knows no more than these tests need.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time

from batching import parse_parameters
from front_grpc import start_grpc
from front_rest import start_rest
from models import Loading, Manager, StartError, read_config

FLAGS = {
    "port": int,
    "rest_api_port": int,
    "model_name": str,
    "model_base_path": str,
    "model_config_file": str,
    "model_config_file_poll_wait_seconds": float,
    "file_system_poll_wait_seconds": float,
    "max_num_load_retries": int,
    "load_retry_interval_micros": int,
    "enable_batching": str,
    "batching_parameters_file": str,
    "enable_per_model_batching_parameters": str,
    "allow_version_labels_for_unavailable_models": str,
    "grpc_max_threads": int,
    "monitoring_config_file": str,
    "xla_cpu_compilation_enabled": str,
}


def is_on(value):
    return value is not None and value.lower() in ("", "1", "true")


def main():
    parser = argparse.ArgumentParser(prog="stand_in")
    for name, kind in FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, nargs="?", const="")
    flags = parser.parse_args()
    batching = None
    if is_on(flags.enable_batching):
        text = ""
        if flags.batching_parameters_file:
            with open(flags.batching_parameters_file) as file:
                text = file.read()
        batching = parse_parameters(text)
    loading = Loading(
        batching=batching,
        per_model=is_on(flags.enable_per_model_batching_parameters),
        xla=is_on(flags.xla_cpu_compilation_enabled),
    )
    if flags.max_num_load_retries is not None:
        loading.retries = flags.max_num_load_retries
    if flags.load_retry_interval_micros is not None:
        loading.retry_seconds = flags.load_retry_interval_micros / 1e6
    manager = Manager(
        read_config(flags),
        loading,
        labels_may_wait=is_on(flags.allow_version_labels_for_unavailable_models),
    )
    try:
        manager.start(flags.file_system_poll_wait_seconds or 1.0)
        if flags.model_config_file_poll_wait_seconds:
            manager.reread(
                lambda: read_config(flags), flags.model_config_file_poll_wait_seconds
            )
    except StartError as error:
        sys.exit(f"stand-in: {error}")
    grpc_server = start_grpc(manager, flags.port, flags.grpc_max_threads or 8)
    rest_server = start_rest(manager, flags.rest_api_port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    print(f"stand-in: serving at {flags.port} and {flags.rest_api_port}", flush=True)
    stop.wait()
    rest_server.shutdown()
    grpc_server.stop(grace=1).wait()
    time.sleep(0.05)


main()
