"""The models of the stand-in: versions that come, are warmed up, answer and go."""

from __future__ import annotations

import contextlib
import random
import re
import threading
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tensorflow as tf
from batching import Batcher, Parameters, Tally, parse_parameters
from errors import Refusal
from google.protobuf import text_format
from tensorflow.core.protobuf import config_pb2, error_codes_pb2
from tensorflow.python.saved_model import loader_impl
from tensorflow_serving.apis import prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2
from xla import compiled_signatures

START, LOADING, AVAILABLE, UNLOADING, END = 10, 20, 30, 40, 50
STATES = {10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}
MAX_WARMUP_RECORDS = 1000
UNKNOWN_OP = "Op type not registered"


class StartError(Exception):
    pass


def read_config(flags):
    """The models to serve: of the file, or the one that the flags name."""
    config = model_server_config_pb2.ModelServerConfig()
    if flags.model_config_file:
        text_format.Parse(Path(flags.model_config_file).read_text(), config)
    else:
        config.model_config_list.config.add(
            name=flags.model_name or "default", base_path=flags.model_base_path
        )
    return list(config.model_config_list.config)


@dataclass
class Loading:
    """How versions are loaded; the defaults are the server's."""

    batching: Parameters | None = None
    per_model: bool = False
    xla: bool = False
    retries: int = 5
    retry_seconds: float = 60.0
    tally: Tally = field(default_factory=Tally)


class Version:
    """One version of a model in a session of its own."""

    def __init__(self, number, path, loading):
        self.number = number
        self.state = LOADING
        self.error = ""
        self._xla = loading.xla
        self._users = 0
        self._idle = threading.Condition()
        self._batchers = {}
        # Nothing else is loaded meanwhile, as in a server with --num_load_threads=0.
        for attempt in range(loading.retries + 1):
            try:
                self._load(path, loading)
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"[:2000]
                traceback.print_exc()
                if attempt < loading.retries:
                    time.sleep(loading.retry_seconds)
            else:
                self.state, self.error = AVAILABLE, ""
                return
        self.state = END

    def _load(self, path, loading):
        self.broken = ""
        graph = tf.Graph()
        # A session a version, run by callables of the C++ session, as the server does:
        # they do not compare inner dimensions with the signature, as Python's would.
        self.session = tf.compat.v1.Session(graph=graph)
        try:
            with graph.as_default():
                meta = tf.compat.v1.saved_model.loader.load(
                    self.session, ["serve"], str(path)
                )
        except (tf.errors.NotFoundError, ValueError) as error:
            if UNKNOWN_OP not in str(error):
                raise
            # The server looks operations up when a signature is first run.
            self.broken = str(error)
            meta = loader_impl.parse_saved_model(str(path)).meta_graphs[0]
        self.signatures = {
            name: value
            for name, value in meta.signature_def.items()
            if not name.startswith("__")
        }
        runnable = {} if self.broken else self.signatures
        self._callables = {}
        for name, signature in runnable.items():
            outputs = sorted(signature.outputs)
            options = config_pb2.CallableOptions(
                feed=[signature.inputs[key].name for key in sorted(signature.inputs)],
                fetch=[signature.outputs[key].name for key in outputs],
            )
            function = self.session._make_callable_from_options(options)
            self._callables[name] = outputs, function
        self._compiled = compiled_signatures(graph, runnable)
        self._warm_up(path / "assets.extra" / "tf_serving_warmup_requests")
        own = path / "batching_params.pbtxt"
        batching = loading.batching
        if batching is not None and loading.per_model:
            batching = parse_parameters(own.read_text()) if own.exists() else None
        if batching is not None:
            for name in self.signatures:
                self._batchers[name] = Batcher(
                    self._runner(name), batching, loading.tally
                )

    def _runner(self, name):
        return lambda inputs: self.run(name, inputs)

    def _warm_up(self, path):
        if not path.exists():
            return
        records = list(tf.compat.v1.io.tf_record_iterator(str(path)))
        if len(records) > MAX_WARMUP_RECORDS:
            raise ValueError(f"more than {MAX_WARMUP_RECORDS} warm-up records")
        for record in records:
            request = prediction_log_pb2.PredictionLog.FromString(
                record
            ).predict_log.request
            name = request.model_spec.signature_name or "serving_default"
            inputs = {key: tf.make_ndarray(t) for key, t in request.inputs.items()}
            self.run(name, self.checked(name, inputs))

    def checked(self, name, inputs):
        """The inputs, when names and types are those of the signature."""
        if name not in self.signatures:
            raise Refusal(
                "INVALID_ARGUMENT", f'Serving signature key "{name}" not found.'
            )
        wanted = self.signatures[name].inputs
        if set(inputs) != set(wanted):
            missing, extra = set(wanted) - set(inputs), set(inputs) - set(wanted)
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(inputs)}!={len(wanted)} "
                f"len({{{','.join(sorted(wanted))}}}). Sent extra: {sorted(extra)}. "
                f"Missing but required: {sorted(missing)}.",
            )
        for key, value in inputs.items():
            dtype = tf.as_dtype(wanted[key].dtype)
            if tf.as_dtype(value.dtype) != dtype:
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"input {key} must be of type {dtype.name}, not {value.dtype}",
                )
        return inputs

    def predict(self, name, inputs):
        inputs = self.checked(name, inputs)
        if name in self._batchers:
            return self._batchers[name](inputs)
        return self.run(name, inputs)

    def run(self, name, inputs):
        if self.broken:
            raise Refusal("NOT_FOUND", self.broken)
        outputs, function = self._callables[name]
        if name in self._compiled and not self._xla:
            raise Refusal("INTERNAL", "XLA compilation disabled")
        try:
            values = function(*(inputs[key] for key in sorted(inputs)))
        except tf.errors.OpError as error:
            code = error_codes_pb2.Code.Name(error.error_code)
            raise Refusal(code, error.message[:2000]) from None
        return dict(zip(outputs, map(np.asarray, values), strict=True))

    def enter(self):
        with self._idle:
            self._users += 1

    def leave(self):
        with self._idle:
            self._users -= 1
            self._idle.notify_all()

    def unload(self):
        """Ends when nobody asks any more."""
        with self._idle:
            self._idle.wait_for(lambda: not self._users, timeout=30)
        for batcher in self._batchers.values():
            batcher.close()
        self.session.close()
        self.state = END


class Model:
    def __init__(self, config, loading):
        self.name = config.name
        self.base = Path(config.base_path)
        self.labels = dict(config.version_labels)
        self._policy = config.model_version_policy
        self._loading = loading
        self._lock = threading.Lock()
        self.versions = {}

    def configure(self, config, labels_may_wait):
        """Takes another policy and other labels, or none of them."""
        ready = {n for n, v in self.versions.items() if v.state == AVAILABLE}
        for label, number in config.version_labels.items():
            new = label not in self.labels
            if number not in ready and not (new and labels_may_wait):
                raise ValueError(f"label {label} names version {number}: not loaded")
        self._policy = config.model_version_policy
        self.labels = dict(config.version_labels)

    def poll(self):
        """Loads what should be there, then drops what should not."""
        found = {
            int(child.name): child
            for child in self.base.iterdir()
            if child.is_dir() and re.fullmatch(r"[0-9]+", child.name)
        }
        aspired = set(sorted(found)[-(self._policy.latest.num_versions or 1) :])
        if self._policy.HasField("specific"):
            aspired = set(self._policy.specific.versions) & set(found)
        elif self._policy.HasField("all"):
            aspired = set(found)
        for number in sorted(aspired):
            known = self.versions.get(number)
            if known is None or (known.state == END and not known.error):
                version = Version(number, found[number], self._loading)
                with self._lock:
                    self.versions[number] = version
        served = [n for n in aspired if self.versions[n].state == AVAILABLE]
        # The old version stays until a new one is ready to take over.
        if served:
            for number, version in list(self.versions.items()):
                if number not in aspired and version.state == AVAILABLE:
                    with self._lock:  # new requests go to another version from now on
                        version.state = UNLOADING
                    version.unload()

    @contextlib.contextmanager
    def choose(self, number=None, label=None):
        """A version that is available, and stays so until it is left."""
        if label:
            if label not in self.labels:
                raise Refusal(
                    "INVALID_ARGUMENT", f"Unrecognized servable version label: {label}"
                )
            number = self.labels[label]
        with self._lock:
            ready = [n for n, v in self.versions.items() if v.state == AVAILABLE]
            wanted = max(ready, default=None) if number is None else number
            if wanted not in ready:
                raise Refusal(
                    "NOT_FOUND",
                    "Servable not found for request: "
                    + (
                        f"Specific({self.name}, {number})"
                        if number is not None
                        else f"Latest({self.name})"
                    ),
                )
            version = self.versions[wanted]
            version.enter()
        try:
            yield version
        finally:
            version.leave()


class Manager:
    def __init__(self, configs, loading, *, labels_may_wait):
        self.models = {config.name: Model(config, loading) for config in configs}
        self.tally = loading.tally
        self._labels_may_wait = labels_may_wait
        self.requests = {}

    def start(self, poll_seconds):
        for model in self.models.values():
            model.poll()
            ready = {n for n, v in model.versions.items() if v.state == AVAILABLE}
            if not ready:
                raise StartError(f"model {model.name} did not load")
            missing = set(model.labels.values()) - ready
            if missing and not self._labels_may_wait:
                raise StartError(f"labels of {model.name} name versions {missing}")
        work = (poll_seconds, self._poll)
        threading.Thread(target=_repeat, args=work, daemon=True).start()

    def reread(self, read, seconds):
        """Reads the configuration every so many seconds from now on."""

        def work():
            for config in read():
                self.models[config.name].configure(config, self._labels_may_wait)

        threading.Thread(target=_repeat, args=[seconds, work], daemon=True).start()

    def _poll(self):
        for model in self.models.values():
            try:
                model.poll()
            except Exception:
                traceback.print_exc()

    def model(self, name):
        if name not in self.models:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        return self.models[name]

    def predict(self, name, number, label, signature, inputs):
        """The number of the version that answers, and its outputs by name."""
        self.requests[name] = self.requests.get(name, 0) + 1
        if name not in self.models:
            raise Refusal(
                "NOT_FOUND", f"Servable not found for request: Latest({name})"
            )
        with self.models[name].choose(number, label) as version:
            outputs = version.predict(signature or "serving_default", inputs)
            return version.number, outputs

    def status(self, name, number=None):
        versions = self.model(name).versions
        if number is not None and number not in versions:
            raise Refusal("NOT_FOUND", f"Could not find version {number} of {name}")
        return [v for n, v in sorted(versions.items()) if number in (None, n)]


def _repeat(seconds, work):
    pause = threading.Event()
    while not pause.wait(seconds):
        try:
            work()
        except Exception:
            traceback.print_exc()


def shuffled(mapping):
    """In another order each time: clients must not rely on one."""
    items = list(mapping.items())
    random.shuffle(items)
    return dict(items)
