"""The workers of a training run, as `TF_CONFIG` names them; no TensorFlow.

`TF_CONFIG` is what Kubernetes' training operators set in each of their pods, and what
TensorFlow reads:

```
{"cluster": {"worker": ["train-worker-0:2222", "train-worker-1:2222"]},
 "task": {"type": "worker", "index": 0}}
```

A `chief` may stand beside the workers; without one, worker 0 is it. TensorFlow itself
waits an hour for a worker that does not come, and does not say for which.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tfrs_selfattn._checks import InputError

STRATEGIES = ("single", "mirrored", "multi-worker")
_JOBS = ("chief", "worker")
_POLL_SECONDS = 0.2
_CONNECT_SECONDS = 2.0
_EXAMPLE = (
    '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class ClusterError(RuntimeError):
    """Workers that are needed are not there, or no longer."""


@dataclass(frozen=True)
class Cluster:
    """The workers of a run, and which of them this process is.

    Args:
        names: tuple of str, "chief 0" or "worker 1", the chief first.
        addresses: tuple of str, `HOST:PORT` of each.
        own: int. The place of this process among them; 0 is the chief.
    """

    names: tuple[str, ...]
    addresses: tuple[str, ...]
    own: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Cluster:
        """The cluster of `TF_CONFIG`.

        Args:
            environment: where the variable is, None for the process's own. Defaults to
                `None`.

        Raises:
            InputError: when the variable is missing, or names no workers.
        """
        text = (os.environ if environment is None else environment).get("TF_CONFIG", "")
        try:
            content = json.loads(text or "{}")
            jobs, task = content["cluster"], content["task"]
            others = set(jobs) - {*_JOBS, "evaluator"}
            if others:
                raise ValueError(f"no use for {', '.join(sorted(map(str, others)))}")
            named = [
                (job, number, str(address))
                for job in _JOBS
                for number, address in enumerate(jobs.get(job, ()))
            ]
            for _, _, address in named:
                _host_and_port(address)
            own = [each[:2] for each in named].index((task["type"], int(task["index"])))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            shown = repr(text) if text else "none"
            raise InputError(
                "TF_CONFIG must name the workers, HOST:PORT each, and which of them "
                f"this process is. Received: {shown} ({error}). Set it in each worker, "
                f"for example to '{_EXAMPLE}'; Kubernetes' training operators do."
            ) from None
        return cls(
            tuple(f"{job} {number}" for job, number, _ in named),
            tuple(address for *_, address in named),
            own,
        )

    def wait(self, seconds: float) -> None:
        """Waits until all workers can be reached, so that TensorFlow can meet them.

        Args:
            seconds: float. How long.

        Raises:
            ClusterError: when some cannot be reached by then; it names them.
        """
        deadline = time.monotonic() + seconds
        missing = [n for n in range(len(self.addresses)) if n != self.own]
        with self._listening():
            while True:
                missing = [n for n in missing if not _answers(self.addresses[n])]
                if not missing:
                    return
                if time.monotonic() >= deadline:
                    break
                time.sleep(_POLL_SECONDS)
        shown = ", ".join(f"{self.names[n]} ({self.addresses[n]})" for n in missing)
        raise ClusterError(
            f"All {len(self.addresses)} workers of TF_CONFIG must be reachable. "
            f"Received: no answer within {seconds:g} seconds from {shown}. Start it, "
            "check its address, or give it more time with --cluster-timeout."
        )

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Answers at this worker's address until TensorFlow does."""
        host, port = _host_and_port(self.addresses[self.own])
        with contextlib.closing(_listener(host, port)):
            yield


def _listener(host: str, port: int) -> socket.socket:
    for bound in (host, ""):  # the name may be that of a service before this machine
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((bound, port))
            listener.listen()
        except OSError as error:
            listener.close()
            reason = error.strerror
        else:
            return listener
    raise InputError(
        "The address of this worker in TF_CONFIG must be free. Received: "
        f"{host}:{port} ({reason}). End what uses it, or choose another port."
    )


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_host_and_port(address), _CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _host_and_port(address: str) -> tuple[str, int]:
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise ValueError(f"{address!r} is no HOST:PORT")
    return host, int(port)
