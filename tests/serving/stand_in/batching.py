"""Merges the requests of several clients, with the server's known sharp edges."""

from __future__ import annotations

import queue
import re
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import monotonic

import numpy as np
from errors import Refusal


@dataclass
class Parameters:
    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 2
    allowed_batch_sizes: list = field(default_factory=list)
    pad_variable_length_inputs: bool = False


def parse_parameters(text):
    """Reads the text form: `name: value` and `name { value: … }`."""
    parameters = Parameters()
    text = re.sub(r"#.*", "", text)
    for name, wrapped, plain in re.findall(
        r"(\w+)\s*(?:\{\s*value\s*:\s*(\w+)\s*\}|:\s*(\w+))", text
    ):
        value = wrapped or plain
        if not hasattr(parameters, name):
            raise SystemExit(f"stand-in: unknown batching parameter {name}")
        if name == "allowed_batch_sizes":
            parameters.allowed_batch_sizes.append(int(value))
        elif name == "pad_variable_length_inputs":
            parameters.pad_variable_length_inputs = value == "true"
        else:
            setattr(parameters, name, int(value))
    sizes = parameters.allowed_batch_sizes
    if sizes and (sizes != sorted(sizes) or sizes[-1] != parameters.max_batch_size):
        raise SystemExit("stand-in: allowed_batch_sizes must ascend to max_batch_size")
    return parameters


class Tally:
    """How many batches were formed, of how many rows, rounding included."""

    def __init__(self):
        self.batches, self.rows = 0, 0
        self._lock = threading.Lock()

    def add(self, rows):
        with self._lock:
            self.batches += 1
            self.rows += rows


class Batcher:
    """A queue of requests to one signature of one version, and who works it off."""

    def __init__(self, run, parameters, tally):
        self._run = run
        self._tally = tally
        self._parameters = parameters
        self._queue = queue.Queue()
        self._waiting = None  # taken from the queue, and too large for the last batch
        self._lock = threading.Lock()
        for _ in range(parameters.num_batch_threads):
            threading.Thread(target=self._work, daemon=True).start()

    def __call__(self, inputs):
        sizes = {value.shape[0] if value.ndim else None for value in inputs.values()}
        if None in sizes:
            raise Refusal(
                "INVALID_ARGUMENT",
                "Batching Run() input tensors must have at least one dimension",
            )
        if len(sizes) > 1:
            raise Refusal(
                "INVALID_ARGUMENT",
                "Batching Run() input tensors must have equal 0th-dimension size",
            )
        (size,) = sizes
        if size > self._parameters.max_batch_size:
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Task size {size} is larger than maximum input batch size "
                f"{self._parameters.max_batch_size}",
            )
        if self._queue.qsize() > 100 * self._parameters.max_enqueued_batches:
            raise Refusal(
                "UNAVAILABLE",
                "The batch scheduling queue to which this task was submitted is full",
            )
        task = (size, inputs, Future())
        self._queue.put(task)
        return task[2].result()

    def close(self):
        for _ in range(self._parameters.num_batch_threads):
            self._queue.put(None)

    def _work(self):
        while True:
            with self._lock:
                tasks = self._take()
            if tasks is None:
                return
            try:
                answers = self._together(tasks)
            except Exception as error:  # one fails, all fail
                for _, _, future in tasks:
                    future.set_exception(error)
            else:
                for (_, _, future), answer in zip(tasks, answers, strict=True):
                    future.set_result(answer)

    def _take(self):
        first = self._waiting or self._queue.get()
        self._waiting = None
        if first is None:
            return None
        tasks, total = [first], first[0]
        until = monotonic() + self._parameters.batch_timeout_micros / 1e6
        while total < self._parameters.max_batch_size:
            try:
                task = (
                    self._queue.get(timeout=max(until - monotonic(), 0) or None)
                    if (until > monotonic())
                    else self._queue.get_nowait()
                )
            except queue.Empty:
                break
            if task is None:
                self._queue.put(None)
                break
            if total + task[0] > self._parameters.max_batch_size:
                self._waiting = task
                break
            tasks.append(task)
            total += task[0]
        return tasks

    def _together(self, tasks):
        total = sum(size for size, _, _ in tasks)
        target = next(
            (size for size in self._parameters.allowed_batch_sizes if size >= total),
            total,
        )
        self._tally.add(target)
        merged = {
            name: self._merge(name, [inputs[name] for _, inputs, _ in tasks])
            for name in tasks[0][1]
        }
        if target > total:  # what is missing repeats the first row of the last task
            first = total - tasks[-1][0]
            merged = {
                name: np.concatenate(
                    [value, *[value[first : first + 1]] * (target - total)]
                )
                for name, value in merged.items()
            }
        outputs = self._run(merged)
        for value in outputs.values():
            if value.ndim == 0 or len(value) != target:
                raise Refusal(
                    "FAILED_PRECONDITION",
                    "Batched output tensor's 0th dimension does not equal the sum of "
                    "the 0th dimension sizes of the input tensors",
                )
        ends = np.cumsum([size for size, _, _ in tasks])
        return [
            {name: value[end - size : end] for name, value in outputs.items()}
            for (size, _, _), end in zip(tasks, ends, strict=True)
        ]

    def _merge(self, name, values):
        if self._parameters.pad_variable_length_inputs:
            values = _padded(values)
        elif len({value.shape[1:] for value in values}) > 1:
            raise Refusal(
                "FAILED_PRECONDITION",
                f"Tensors with name '{name}' from different tasks have different "
                "shapes and padding is turned off.",
            )
        return np.concatenate(values)


def _padded(values):
    """Brings tensors to one shape by repeating the first element of each."""
    if len({value.ndim for value in values}) > 1:
        raise Refusal("INVALID_ARGUMENT", "Tensors of different ranks in one batch")
    shape = np.max([value.shape[1:] for value in values], axis=0, initial=0)
    if any(value.shape[1:] != tuple(shape) and not value.size for value in values):
        raise Refusal(
            "INVALID_ARGUMENT", "Got empty tensor in batch of non-empty tensors."
        )
    padded = []
    for value in values:
        widths = [(0, int(w) - s) for w, s in zip(shape, value.shape[1:], strict=True)]
        if any(width for _, width in widths):
            first = value.reshape(-1)[0]
            wide = np.full((len(value), *map(int, shape)), first, value.dtype)
            wide[tuple(slice(size) for size in value.shape)] = value
            value = wide
        padded.append(value)
    return padded
