"""Trains the model of a run folder, from the start or from where it was stopped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfrs_selfattn._checks import InputError
from tfrs_selfattn._keras import keras
from tfrs_selfattn.data.cutting import cut_histories
from tfrs_selfattn.data.packing import PackedRows, pack_rows
from tfrs_selfattn.data.pipelines import (
    evaluation_dataset,
    steps_per_epoch,
    training_dataset,
)
from tfrs_selfattn.data.shards import ShardedRows
from tfrs_selfattn.data.side import EVENT, PARTS, QUERY
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.data.windows import training_windows
from tfrs_selfattn.models import presets
from tfrs_selfattn.models.query_features import nothing_known
from tfrs_selfattn.models.sequence_retrieval import SequenceRetrieval
from tfrs_selfattn.training.checkpoints import (
    RunCheckpoint,
    TrainingSpeed,
    restore_best,
)
from tfrs_selfattn.training.config import RunConfig
from tfrs_selfattn.training.divergence import StopOnDivergence, users_of_batches
from tfrs_selfattn.training.lock import exclusive
from tfrs_selfattn.training.optimizer import make_optimizer
from tfrs_selfattn.training.replicas import Replicas
from tfrs_selfattn.training.run_folder import RunFolder
from tfrs_selfattn.training.side_information import SideInformation
from tfrs_selfattn.training.tensorboard import (
    AttentionImages,
    EpochMetrics,
    check_attention_images,
    some_histories,
    write_projector,
)

_EVALUATION_BATCH = 256


@dataclass(frozen=True)
class TrainingResult:
    """A trained model.

    Attributes:
        model: `SequenceRetrieval` with the weights of the best epoch.
        best_epoch: int, from 1.
        epochs: int. Epochs that were trained, resumed ones included.
        resumed_from: int. Epochs that were already there.
        validation: metrics of the best epoch, `{"hr@10": ..., "ndcg@10": ...}`.
    """

    model: SequenceRetrieval
    best_epoch: int
    epochs: int
    resumed_from: int
    validation: dict[str, float]


def train(
    folder: RunFolder,
    split: Split,
    *,
    rows: ShardedRows | None = None,
    callbacks: Sequence[Any] = (),
    attention_images: int = 0,
    verbose: int = 1,
    strategy: Any = None,
) -> TrainingResult:
    """Trains until the epochs or the patience of the run's configuration run out.

    The same folder, data and seed give the same model, on a CPU bit for bit, whether
    or not the run was interrupted. Sets the seeds of Python, NumPy and TensorFlow.
    TensorBoard is given the metrics of every epoch and, at the end, the vectors of the
    most frequent items with their titles, for its projector.

    Under a strategy, a batch is cut into a part for each replica. Loss, gradients and
    metrics are those of the whole batch; dropout, and negatives that are drawn, are
    each replica's own. Every worker needs the same data, and the folder, which worker
    0 writes. Who trains is no part of the run: it may go on with more workers or fewer.

    Args:
        folder: the run, new or unfinished.
        split: train and validation parts of the data; with `rows`, the validation
            alone is used, as of `PreparedLog.held_out`.
        rows: the training rows in shards, made of the same log; None packs them into
            memory. Defaults to `None`.
        callbacks: further Keras callbacks.
        attention_images: int. Histories of the validation whose attention is drawn
            after every epoch, for TensorBoard; needs matplotlib. Defaults to `0`.
        verbose: int. As of `keras.Model.fit`: 0 silent, 1 progress bar, 2 one line an
            epoch.
        strategy: `tf.distribute.Strategy`, such as `make_strategy` gives, or None.
            Defaults to `None`.

    Returns:
        `TrainingResult` with the best epoch's weights.

    Raises:
        InputError: when there is nothing to learn from or nothing to validate on, or
            another process is training this run; when attention cannot be drawn.
        TrainingDiverged: when the loss is no longer finite.
    """
    check_split(split, rows)
    images = check_attention_images(
        attention_images,
        folder.config.model.preset,
        folder.config.features.events,
    )
    replicas = Replicas.of(strategy)
    lock = exclusive(folder.path) if replicas.is_chief else contextlib.nullcontext()
    with lock, replicas.together():
        return _train(folder, split, rows, callbacks, images, verbose, replicas)


def _train(
    folder: RunFolder,
    split: Split,
    rows: PackedRows | ShardedRows | None,
    callbacks: Sequence[Any],
    attention_images: int,
    verbose: int,
    replicas: Replicas,
) -> TrainingResult:
    config = folder.config.training
    keras.utils.set_random_seed(config.seed)
    side = folder.side()
    _check_sides(side, split)
    with replicas.scope():
        model = build_model(folder.config, side)
    if isinstance(rows, ShardedRows):
        check_rows(rows, folder.config)
    else:
        rows = pack_rows(
            split,
            row_length=folder.config.model.max_length,
            windows=config.windows,
            stride=config.stride,
            times=model.time_aware,
            # Who is known by more than a history is to be served without one too.
            starts=folder.config.features.starts,
            seed=config.seed,
        )
    validation = split.validation.sample(config.validation_users, config.seed)
    steps = steps_per_epoch(rows, config.batch_size, num_workers=replicas.num_workers)
    with replicas.scope():
        model.compile(make_optimizer(config, steps))
        model.optimizer.build(model.trainable_variables)
    # Outside: its text is no weight, and replicas cannot share text.
    checkpoint = RunCheckpoint(
        folder, model, patience=config.patience, writes=replicas.is_chief
    )
    with replicas.scope():
        checkpoint.restore()
    resumed_from = checkpoint.epochs_done
    images = []
    if attention_images and replicas.is_chief:
        histories = some_histories(
            validation,
            split.sequences.vocabulary,
            folder.titles(),
            attention_images,
            folder.config.model.max_length,
        )
        images = [AttentionImages(folder.tensorboard, model, histories)]
    if resumed_from < config.epochs and not checkpoint.exhausted:
        part: dict[str, Any] = {
            "worker": replicas.worker,
            "num_workers": replicas.num_workers,
        }
        batch_users = None  # of shards nobody knows
        if isinstance(rows, PackedRows):
            batch_users = users_of_batches(
                split, rows, folder.config, times=model.time_aware
            )
        own: list[Any] = [
            StopOnDivergence(steps, batch_users),
            TrainingSpeed(rows.num_targets),
            checkpoint,
        ]
        if replicas.is_chief:
            own.append(EpochMetrics(folder.tensorboard))
        own += images
        model.fit(
            replicas.distribute(
                cut_histories(
                    training_dataset(
                        rows,
                        batch_size=config.batch_size,
                        seed=config.seed,
                        start_epoch=resumed_from,
                        **part,
                    ),
                    config.cut_histories,
                    seed=config.seed,
                    start_step=resumed_from * steps,
                    worker=replicas.worker,
                )
            ),
            steps_per_epoch=steps,
            initial_epoch=resumed_from,
            epochs=config.epochs,
            validation_data=replicas.distribute(
                evaluation_dataset(
                    validation.by_length(),
                    batch_size=_EVALUATION_BATCH,
                    times=model.time_aware,
                    **part,
                )
            ),
            # Which Keras cannot tell of a distributed dataset.
            validation_steps=-(-len(validation) // _EVALUATION_BATCH),
            callbacks=[*own, *callbacks],
            verbose=verbose if replicas.is_chief else 0,
        )
    checkpoint.write_metrics(finished=True)
    replicas.meet()  # the folder is whole
    with replicas.scope():
        restore_best(folder, model)
    if replicas.is_chief and checkpoint.epochs_done > resumed_from:
        write_projector(
            folder.tensorboard,
            model.candidate_tower.catalogue().numpy(),
            split.sequences.vocabulary,
            folder.titles(),
        )
    return TrainingResult(
        model=model,
        best_epoch=checkpoint.best_epoch,
        epochs=checkpoint.epochs_done,
        resumed_from=resumed_from,
        validation=folder.metrics()["validation"],
    )


def check_rows(rows: ShardedRows, config: RunConfig) -> None:
    """Checks, before a run folder is made, that rows on disk are made as its own are.

    Raises:
        InputError: when they are not.
    """
    wanted = {
        "max_length": config.model.max_length,
        "windows": config.training.windows,
        "stride": config.training.stride,
        "starts": config.features.starts,
    }
    found = {
        "max_length": rows.row_length,
        "windows": rows.options["windows"],
        "stride": rows.options["stride"],
        "starts": rows.options.get("starts", False),
    }
    if config.model.time_aware and "timestamps" not in rows.columns:
        raise InputError(
            "Shards of a time-aware model must have times. Received: "
            f"{rows.path}, which has none. Prepare the events with --times."
        )
    features = config.features
    for name, asked in ((QUERY, features.starts), (EVENT, bool(features.events))):
        if asked != (f"{name}/{PARTS[0]}" in rows.columns):
            raise InputError(
                "Shards must have the features of users, requests and events that the "
                f"run has, and no others. Received: {rows.path}, "
                f"{'without' if asked else 'with'} {name}. What `prepare` writes has "
                "none: train from the event log itself, or leave the features out."
            )
    different = [name for name in wanted if wanted[name] != found[name]]
    if different:
        raise InputError(
            "Shards must be made as the run is: "
            + ", ".join(f"{name}={wanted[name]}" for name in different)
            + f". Received: {rows.path}, with "
            + ", ".join(f"{name}={found[name]}" for name in different)
            + ". Prepare the events anew, or train with the options of the shards."
        )


def _check_sides(side: SideInformation, split: Split) -> None:
    needed = {QUERY: side.query, EVENT: side.events}
    missing = [
        name
        for name, features in needed.items()
        if features is not None and name not in split.sequences.sides
    ]
    if missing:
        raise InputError(
            "`split` must carry the features of the run. Received: a split without "
            f"{', '.join(missing)}. Pass `folder.side().attach(split)`, of a log read "
            "with the columns of the features."
        )


def check_split(split: Split, rows: ShardedRows | None = None) -> None:
    """Checks, before a run folder is made, that there is something to train on.

    Args:
        split: what is trained and validated on.
        rows: the training rows, if they are in shards. Defaults to `None`.

    Raises:
        InputError: when no user is left to validate on, or to learn from.
    """
    if not len(split.validation):
        raise InputError(
            "At least one user with 3 or more events is needed, to validate on. "
            f"Received: none among {split.sequences.num_users} users. Use a log with "
            "longer histories, or lower --min-item-events."
        )
    if rows is not None:
        learned = rows.num_targets
    else:
        learned = len(training_windows(split, row_length=1))
    if not learned:
        raise InputError(
            "At least one user with 4 or more events is needed, to learn from: the "
            f"last two are held out. Received: none among {split.sequences.num_users} "
            "users. Use a log with longer histories, or lower --min-item-events."
        )


def build_model(
    config: RunConfig, side: SideInformation | None = None
) -> SequenceRetrieval:
    """The untrained model of a configuration, with all its weights made.

    Args:
        config: of the run.
        side: what it knows beside ids. Defaults to `None`.
    """
    side = side or SideInformation()
    model = presets.build(
        config.model.preset,
        config.num_items,
        seed=config.training.seed,
        content=side.content(),
        query_features=side.query,
        event_features=side.events,
        **config.model.arguments(),
    )
    times = np.zeros([1, 1], np.int64)
    history = np.zeros([1, 1], np.int32)
    known = nothing_known(model.query_tower, history)
    model.score(history, times, times[0], **known)
    return model


def load_model(folder: RunFolder) -> SequenceRetrieval:
    """The model of a run with the weights of its best epoch.

    Raises:
        InputError: when no epoch of the run was completed.
    """
    model = build_model(folder.config, folder.side())
    if not restore_best(folder, model):
        raise InputError(
            f"The run {folder.path} has no complete epoch yet. Repeat the `train` "
            "command that made it, which continues it."
        )
    return model
