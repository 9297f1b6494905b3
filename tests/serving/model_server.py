"""Starts a model server on free loopback ports: the stock one, else the stand-in."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from tests.ports import free_ports

STAND_IN = Path(__file__).with_name("stand_in")
STOCK = os.environ.get("TENSORFLOW_MODEL_SERVER") or shutil.which(
    "tensorflow_model_server"
)
# The stock server polls in whole seconds.
POLL_SECONDS = 1 if STOCK else 0.2
START_SECONDS = 300  # of a busy machine


def can_run():
    return bool(STOCK) or importlib.util.find_spec("tensorflow_serving") is not None


class ModelServer:
    """A server process.

    Args:
        folder: where its log and configuration go.
        models: dictionary from name to base path.
        **flags: more flags of `tensorflow_model_server`; None leaves one out.
    """

    def __init__(self, folder, models, **flags):
        self.grpc_port, self.rest_port = free_ports(2)
        self.address = f"127.0.0.1:{self.grpc_port}"
        self.rest_address = f"http://127.0.0.1:{self.rest_port}"
        entries = "".join(
            f'config {{ name: "{name}" base_path: "{base}" '
            f'model_platform: "tensorflow" }}\n'
            for name, base in models.items()
        )
        config = folder / "models.config"
        config.write_text(f"model_config_list {{\n{entries}}}\n")
        flags = {
            "port": self.grpc_port,
            "rest_api_port": self.rest_port,
            "model_config_file": config,
            "file_system_poll_wait_seconds": POLL_SECONDS,
            # Else a broken version keeps a server for minutes from loading another.
            "max_num_load_retries": 0,
            "grpc_max_threads": 32,
            **flags,
        }
        program = [STOCK] if STOCK else [sys.executable, str(STAND_IN)]
        self.log = folder / "server.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    *program,
                    *(f"--{n}={v}" for n, v in flags.items() if v is not None),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
            )

    def wait(self, *models):
        """Waits until the models answer; ends the test when the server has ended."""
        from tfrs_selfattn.client import Client, ServerError

        deadline = time.monotonic() + START_SECONDS
        for model in models:
            with Client(self.address, model=model, timeout=2.0) as client:
                while True:
                    assert self.process.poll() is None, self.log.read_text()[-3000:]
                    assert time.monotonic() < deadline, self.log.read_text()[-3000:]
                    try:
                        client.wait_until_available(timeout=1.0)
                    except ServerError:
                        continue
                    break
        return self

    def batches(self):
        """How many batches it has run; of a server with MONITORING in its flags."""
        url = f"{self.rest_address}/monitoring/prometheus/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            text = response.read().decode()
        name = ":tensorflow:serving:batching_session:processed_batch_size_count"
        found = re.search(rf"^{name}{{}} ([\d.e+]+)$", text, re.MULTILINE)
        return int(float(found[1])) if found else 0

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
