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
from tfrs_selfattn.data.prepared import is_prepared, read_prepared
from tfrs_selfattn.data.shards import ShardedRows
from tfrs_selfattn.data.splits import Split
from tfrs_selfattn.models import presets
from tfrs_selfattn.models.query_features import nothing_known
from tfrs_selfattn.models.sequence_retrieval import SequenceRetrieval
from tfrs_selfattn.training.checking import (
    check_rows,
    check_sides,
    check_split,
    check_times,
)
from tfrs_selfattn.training.checkpoints import (
    RunCheckpoint,
    TrainingSpeed,
    restore_best,
)
from tfrs_selfattn.training.config import RunConfig
from tfrs_selfattn.training.divergence import (
    StopOnDivergence,
    users_of_batches,
    users_of_shards,
)
from tfrs_selfattn.training.lock import exclusive
from tfrs_selfattn.training.optimizer import make_optimizer
from tfrs_selfattn.training.precision import precision_of_layers
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
    item_counts: Sequence[int] | None = None,
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
        item_counts: sequence of N ints, the training events of each item, for a loss
            that draws negatives by them. None counts those of `split`. Defaults to
            `None`.

    Returns:
        `TrainingResult` with the best epoch's weights.

    Raises:
        InputError: when there is nothing to learn from or nothing to validate on, or
            another process is training this run; when attention cannot be drawn; when
            the split is by the clock at other times than the run's, or by user.
        TrainingDiverged: when the loss is no longer finite.
    """
    check_split(split, rows)
    check_times(split, folder)
    images = check_attention_images(
        attention_images,
        folder.config.model.preset,
        folder.config.features.events,
    )
    replicas = Replicas.of(strategy)
    lock = exclusive(folder.path) if replicas.is_chief else contextlib.nullcontext()
    with lock, replicas.together():
        return _train(
            folder, split, rows, callbacks, images, verbose, replicas, item_counts
        )


def _train(
    folder: RunFolder,
    split: Split,
    rows: PackedRows | ShardedRows | None,
    callbacks: Sequence[Any],
    attention_images: int,
    verbose: int,
    replicas: Replicas,
    item_counts: Sequence[int] | None,
) -> TrainingResult:
    config = folder.config.training
    if item_counts is None and folder.config.model.negatives:
        item_counts = split.train_counts()[1:].tolist()
    keras.utils.set_random_seed(config.seed)
    side = folder.side()
    check_sides(side, split)
    with replicas.scope():
        model = build_model(
            folder.config,
            side,
            precision=config.precision,
            item_counts=item_counts,
        )
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
        if isinstance(rows, PackedRows):
            batch_users = users_of_batches(
                split, rows, folder.config, times=model.time_aware
            )
        else:
            # Where the whole log is there, `split` is those who are validated on.
            path = folder.config.data.path
            log = read_prepared(path) if is_prepared(path) else split
            batch_users = users_of_shards(log, rows, folder.config, **part)
        own: list[Any] = [
            StopOnDivergence(steps, batch_users, first=checkpoint.first_loss),
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
        if config.precision != "float32":  # which is what a model is used in
            model = build_model(folder.config, side)
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


def build_model(
    config: RunConfig,
    side: SideInformation | None = None,
    *,
    precision: str = "float32",
    item_counts: Sequence[int] | None = None,
) -> SequenceRetrieval:
    """The untrained model of a configuration, with all its weights made.

    Args:
        config: of the run.
        side: what it knows beside ids. Defaults to `None`.
        precision: str. What its layers compute in, to train it as `TrainingConfig`
            says. Defaults to `"float32"`.
        item_counts: sequence of N ints, the training events of each item, by which a
            loss may draw negatives. None is for models that are not trained. Defaults
            to `None`.
    """
    if item_counts is None:
        item_counts = [1] * config.num_items
    side = side or SideInformation()
    with precision_of_layers(precision):
        model = presets.build(
            config.model.preset,
            config.num_items,
            seed=config.training.seed,
            content=side.content(),
            query_features=side.query,
            event_features=side.events,
            item_counts=item_counts,
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
