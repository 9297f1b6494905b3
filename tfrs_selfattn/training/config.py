"""What a run is made of: the data, the model, the training. Written as config.json."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfrs_selfattn._checks import (
    InputError,
    check_choice,
    check_fraction,
    check_not_negative,
    check_positive,
    check_positive_int,
)
from tfrs_selfattn.data.prepared import PreparedLog
from tfrs_selfattn.data.sequences import Sequences
from tfrs_selfattn.data.windows import KINDS
from tfrs_selfattn.losses.named import NamedLoss
from tfrs_selfattn.training.source import DataConfig, DataSummary, fingerprint

SCHEDULES = ("constant", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
FORMAT = 1  # raised when an older reader could not make sense of config.json
# Fields whose option has another name.
_OPTIONS = {
    "path": "data",
    "items": "item_features",
    "users": "user_features",
    "context": "context_features",
    "events": "event_features",
}
_LOSS_OPTIONS = ("num_negatives", "shared_by", "correct_sampling", "negatives")
_SEEDS = 1 << 32  # what NumPy takes
_SASREC = {
    "embedding_dim": 64,
    "num_heads": 1,
    "dropout": 0.2,
    "time_aware": False,
    "loss": "full-softmax",
}
# What presets differ in, as their functions have it; TensorFlow is not needed to know.
PRESETS: dict[str, dict[str, Any]] = {
    "sasrec": _SASREC,
    "gsasrec": _SASREC | {"loss": "gbce"},
    # Of the best run on MovieLens-1M; benchmarks/README.md has those beside it.
    "esasrec": _SASREC | {"embedding_dim": 128, "num_heads": 4, "dropout": 0.1},
    "bert4rec": _SASREC | {"num_heads": 2},
    "hstu": _SASREC | {"num_heads": 2, "time_aware": True},
}


@dataclass(frozen=True)
class ModelConfig:
    """The arguments of a preset; see `tfrs_selfattn.models.presets`.

    Args:
        preset: str. Name of the preset: "sasrec", "gsasrec", "esasrec", "bert4rec" or
            "hstu".
        embedding_dim: int. D, the width of item vectors. None takes the preset's.
        num_blocks: int.
        num_heads: int. H; must divide `embedding_dim`. None takes the preset's.
        max_length: int. Newest items of a history that are used.
        dropout: float in [0, 1). None takes the preset's.
        time_aware: bool. Use timestamps and request times. None takes the preset's.
        normalize: bool. L2-normalize queries and candidates.
        temperature: float above 0, of the loss. None lets the preset choose.
        id_dropout: float in [0, 1). Share of the items that a step knows by their
            features alone.
        oov_buckets: int. Vectors for ids that are new, or none of `own_ids`, by their
            hash.
        own_ids: int or None. So many of the most frequent items have a vector of their
            own id; None for all.
        share_items: bool. One table of items for both towers.
        loss: str, a name of `tfrs_selfattn.losses.NamedLoss`. None takes the preset's.
        num_negatives: int or None. Of a sampled loss; see `NamedLoss`, likewise the
            others.
        shared_by: str or None.
        correct_sampling: bool or None.
        negatives: str or None.
    """

    preset: str = "sasrec"
    embedding_dim: int | None = None
    num_blocks: int = 2
    num_heads: int | None = None
    max_length: int = 200
    dropout: float | None = None
    time_aware: bool | None = None
    normalize: bool = False
    temperature: float | None = None
    id_dropout: float = 0.0
    oov_buckets: int = 0
    own_ids: int | None = None
    share_items: bool = True
    loss: str | None = None
    num_negatives: int | None = None
    shared_by: str | None = None
    correct_sampling: bool | None = None
    negatives: str | None = None

    def __post_init__(self) -> None:
        check_choice("preset", self.preset, tuple(PRESETS))
        # What is written to config.json is what the model is made of.
        for name, default in PRESETS[self.preset].items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        for name in ("embedding_dim", "num_blocks", "num_heads", "max_length"):
            check_positive_int(name, getattr(self, name))
        check_fraction("dropout", self.dropout or 0.0)
        check_fraction("id_dropout", self.id_dropout)
        check_not_negative("oov_buckets", self.oov_buckets)
        if self.own_ids is not None:
            check_not_negative("own_ids", self.own_ids)
        if self.temperature is not None:
            check_positive("temperature", self.temperature)
        self._loss()
        if self.time_aware and self.preset == "bert4rec":
            raise ValueError(
                "`time_aware` must be False for preset='bert4rec', whose token for the "
                "next item has no time. Received: time_aware=True. Use another preset."
            )
        if (self.embedding_dim or 0) % (self.num_heads or 1):
            raise ValueError(
                "`num_heads` must divide `embedding_dim`. Received: num_heads="
                f"{self.num_heads}, embedding_dim={self.embedding_dim}. Change either."
            )

    def arguments(self) -> dict[str, Any]:
        """The arguments of the preset's function."""
        arguments = dataclasses.asdict(self)
        for name in ("preset", *_LOSS_OPTIONS):
            del arguments[name]
        arguments["loss"] = self._loss()
        if not self.time_aware and not PRESETS[self.preset]["time_aware"]:
            del arguments["time_aware"]  # which not every preset has
        return arguments

    def _loss(self) -> NamedLoss:
        options = {name: getattr(self, name) for name in _LOSS_OPTIONS}
        return NamedLoss(self.loss or "", **options)


@dataclass(frozen=True)
class FeaturesConfig:
    """Which side information a run has, as the command line writes it.

    Args:
        items: str. `FILE:COLUMN=KIND,…`, or `""` for none; likewise the others.
        users: str.
        context: str. `COLUMN:KIND,…`, columns of the log that tell of a request.
        events: str. Columns of the log that tell of an event, likewise.
        fingerprint: str. SHA-256 of the fitted features and of their values.
    """

    items: str = ""
    users: str = ""
    context: str = ""
    events: str = ""
    fingerprint: str = ""

    @property
    def starts(self) -> bool:
        """Whether first items are trained: what is known answers an empty history."""
        return bool(self.users or self.context)


@dataclass(frozen=True)
class TrainingConfig:
    """How the model is trained.

    Args:
        epochs: int. At most so many passes over the data.
        patience: int. Epochs without a better validation NDCG@10 before stopping.
        batch_size: int. Packed rows of `max_length` items in a batch.
        windows: str. How longer histories are cut: "all", "sliding" or "newest"; see
            `tfrs_selfattn.data.training_windows`.
        stride: int. Of sliding windows. None takes half of `max_length`.
        learning_rate: float. Of Adam; the highest one, where it changes.
        schedule: str. "constant", or "cosine": falls to 0 by the end of `epochs`.
        warmup_steps: int. Batches over which the learning rate rises from 0.
        weight_decay: float. Of AdamW, on kernels only; 0 is Adam.
        ema: float in [0, 1). Weights are averaged over the steps, each average keeping
            so much of itself a step, such as 0.99; the averages are validated and kept.
            0 keeps the weights themselves.
        precision: str. "float32", or "mixed_bfloat16" or "mixed_float16": layers then
            compute in half precision, and weights stay float32.
        cut_histories: float in [0, 1). Share of the rows of a batch that are cut into
            pieces; see `tfrs_selfattn.data.cut_histories`.
        seed: int. Of the initial weights, the order of the data and dropout.
        validation_users: int. At most so many users are validated on, chosen by a hash
            of their ids and the seed. None takes all.
    """

    epochs: int = 100
    patience: int = 10
    batch_size: int = 32
    windows: str = "all"
    stride: int | None = None
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    ema: float = 0.0
    precision: str = "float32"
    cut_histories: float = 0.0
    seed: int = 0
    validation_users: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch_size"):
            check_positive_int(name, getattr(self, name))
        if self.validation_users is not None:
            check_positive_int("validation_users", self.validation_users)
        check_positive("learning_rate", self.learning_rate)
        check_choice("schedule", self.schedule, SCHEDULES)
        check_not_negative("warmup_steps", self.warmup_steps)
        check_not_negative("weight_decay", self.weight_decay)
        check_fraction("ema", self.ema)
        check_choice("precision", self.precision, PRECISIONS)
        check_fraction("cut_histories", self.cut_histories)
        check_choice("windows", self.windows, KINDS)
        if self.stride is not None:
            check_positive_int("stride", self.stride)
            if self.windows != "sliding":
                raise ValueError(
                    "`stride` belongs to windows='sliding'. Received: stride="
                    f"{self.stride}, windows={self.windows!r}. Leave one of them out."
                )
        if self.seed not in range(_SEEDS):
            raise ValueError(
                f"`seed` must be an integer from 0 to {_SEEDS - 1}. Received: "
                f"seed={self.seed}. Choose another one."
            )


@dataclass(frozen=True)
class RunConfig:
    """Everything needed to rebuild the model of a run, and to repeat the run.

    Args:
        num_items: int. N, the size of the vocabulary.
        data: where the events came from.
        model: which model.
        training: how it is trained.
        features: what is known beside ids.
        summary: of the data, or None in a run of an earlier version.
    """

    num_items: int
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    summary: DataSummary | None = None

    @classmethod
    def for_sequences(
        cls,
        sequences: Sequences | PreparedLog,
        data: DataConfig,
        model: ModelConfig,
        training: TrainingConfig,
        features: FeaturesConfig | None = None,
    ) -> RunConfig:
        """The configuration of a run on these sequences, their fingerprint noted.

        Those of a prepared log are read part by part.

        Raises:
            InputError: when the parts do not go together.
        """
        if training.stride is not None and training.stride > model.max_length:
            raise InputError(
                "`stride` must not exceed `max_length`: targets between two windows "
                f"would be lost. Received: stride={training.stride}, max_length="
                f"{model.max_length}. Use a smaller stride."
            )
        features = features or FeaturesConfig()
        of_ids = (model.id_dropout, model.oov_buckets, model.own_ids)
        if of_ids != (0, 0, None) and not features.items:
            raise InputError(
                "`id_dropout`, `oov_buckets` and `own_ids` need item features: without "
                f"its id, an item would be nothing. Received: id_dropout={of_ids[0]}, "
                f"oov_buckets={of_ids[1]}, own_ids={of_ids[2]}. Give the items "
                "features."
            )
        if model.preset == "bert4rec" and features.events:
            raise InputError(
                "`preset` must not be 'bert4rec' with event features: they would tell "
                "of the items that training hides. Received: event_features="
                f"{features.events}. Use another preset, or leave them out."
            )
        data = dataclasses.replace(data, fingerprint=fingerprint(sequences))
        return cls(
            len(sequences.vocabulary),
            data,
            model,
            training,
            features,
            DataSummary.of(sequences),
        )

    def to_json(self) -> str:
        """The text of config.json."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2)

    @classmethod
    def read(cls, path: Path) -> RunConfig:
        """Reads a config.json.

        Raises:
            InputError: when it is no config.json of a run, or of a newer format.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content.pop("format") != FORMAT:
                raise InputError(
                    f"{path} must have format {FORMAT}. It was written by another "
                    "version of tfrs_selfattn: use that version, or train again."
                )
            summary = content.get("summary")
            return cls(
                num_items=content["num_items"],
                data=DataConfig(**content["data"]),
                model=ModelConfig(**content["model"]),
                training=TrainingConfig(**content["training"]),
                features=FeaturesConfig(**content.get("features", {})),
                summary=None if summary is None else DataSummary(**summary),
            )
        except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{path} must be the config.json of a run folder. It cannot be used "
                f"({error}). Restore it, or train again into another folder."
            ) from None

    def differences(self, other: RunConfig) -> list[str]:
        """The options in which two configurations differ, as "epochs=5 (now 9)".

        Where the data lies and how it was read does not matter if it is the same.
        """
        parts: list[tuple[Any, Any]] = [
            (self.model, other.model),
            (self.training, other.training),
        ]
        # Where the features lie does not matter either.
        if self.features.fingerprint != other.features.fingerprint:
            parts.append((self.features, other.features))
        same_data = self.data.fingerprint == other.data.fingerprint
        if not same_data:
            parts.insert(0, (self.data, other.data))
        elif self.data.times != other.data.times:
            one, another = (
                DataConfig("").at(each.data.times) for each in (self, other)
            )
            parts.insert(0, (one, another))
        found = [
            f"{_OPTIONS.get(name, name)}={mine!r} (now {theirs!r})"
            for one, another in parts
            for name, mine in dataclasses.asdict(one).items()
            if mine != (theirs := getattr(another, name)) and name != "fingerprint"
        ]
        if not same_data and self.data == dataclasses.replace(
            other.data, fingerprint=self.data.fingerprint
        ):
            found.insert(0, f"other events in {self.data.path}")
        mine = self.features
        if self.features.fingerprint != other.features.fingerprint and (
            mine == dataclasses.replace(other.features, fingerprint=mine.fingerprint)
        ):
            told = (mine.items, mine.users, mine.context, mine.events)
            found.append(
                f"other values of the features {', '.join(filter(None, told))}"
            )
        return found
