"""Training on several devices or machines, by the strategies of `tf.distribute`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice
from tfrs_selfattn.training.cluster import STRATEGIES, Cluster, ClusterError

# What TensorFlow raises in a worker whose peers are gone.
_LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
)


def make_strategy(name: str, *, cluster_timeout: float = 300.0) -> Any:
    """A strategy by its name; before any other use of TensorFlow in the process.

    Args:
        name: str. "single" for none, "mirrored" for all GPUs of this machine, or
            "multi-worker" for the workers of `TF_CONFIG`, with all GPUs of each. A
            machine without GPUs is one replica.
        cluster_timeout: float. Seconds to wait for the other workers. Defaults to
            `300.0`.

    Returns:
        a `tf.distribute.Strategy`, or None.

    Raises:
        InputError: when `TF_CONFIG` names no workers.
        ClusterError: when a worker is missing after `cluster_timeout`.
    """
    check_choice("strategy", name, STRATEGIES)
    if name == "single":
        return None
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    Cluster.from_environment().wait(cluster_timeout)
    return tf.distribute.MultiWorkerMirroredStrategy()


@dataclass(frozen=True)
class Replicas:
    """Which part of a run this process has.

    Args:
        strategy: `tf.distribute.Strategy` or None.
        worker: int. The place of this process among those of the run; 0 is the chief,
            who writes.
        num_workers: int.
    """

    strategy: Any = None
    worker: int = 0
    num_workers: int = 1

    @classmethod
    def of(cls, strategy: Any) -> Replicas:
        """The part of this process under a strategy, None for the whole."""
        resolver: Any = getattr(strategy, "cluster_resolver", None)
        jobs = {} if resolver is None else resolver.cluster_spec().as_dict()
        tasks = [
            (job, number)
            for job in ("chief", "worker")
            for number in range(len(jobs.get(job, ())))
        ]
        if not tasks:
            return cls(strategy)
        own = tasks.index((resolver.task_type, resolver.task_id))
        return cls(strategy, own, len(tasks))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the files of the run."""
        return self.worker == 0

    def scope(self) -> Any:
        """Where variables are made."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return self.strategy.scope()

    def distribute(self, dataset: tf.data.Dataset) -> Any:
        """Batches of this worker, each cut into one part for each of its replicas."""
        if self.strategy is None:
            return dataset
        parts = self.strategy.num_replicas_in_sync // self.num_workers
        if parts > 1:
            dataset = dataset.flat_map(lambda batch: _cut(batch, parts))
        return self.strategy.distribute_datasets_from_function(lambda _: dataset)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Says in a line what is the matter when another worker is lost.

        Raises:
            ClusterError: in place of what TensorFlow raises.
        """
        try:
            yield
        except _LOST as error:
            if self.num_workers == 1:
                raise
            raise ClusterError(
                "All workers must stay until the end. Received: another one was lost "
                f"({type(error).__name__}). Start all of them again with "
                "the same command: training goes on after the last complete epoch."
            ) from error

    def meet(self) -> None:
        """Waits until all workers have come here."""
        if self.num_workers > 1:
            count = tf.function(lambda: self.strategy.run(lambda: tf.ones([])))
            self.strategy.reduce(tf.distribute.ReduceOp.SUM, count(), axis=None)


def _cut(batch: Any, parts: int) -> tf.data.Dataset:
    """The rows of a batch in so many parts, of which some may be empty."""
    rows = tf.shape(tf.nest.flatten(batch)[0], tf.int64)[0]

    def part(number: tf.Tensor) -> Any:
        start, stop = rows * number // parts, rows * (number + 1) // parts
        return tf.nest.map_structure(lambda column: column[start:stop], batch)

    return tf.data.Dataset.range(parts).map(part)
