"""What the losses with sampled negatives share: drawing, masking, embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_choice, check_positive
from tfrs_selfattn._keras import keras
from tfrs_selfattn.layers._base import SequenceLayer
from tfrs_selfattn.losses.context import (
    CandidateLookup,
    LossContext,
    as_lookup,
    present_queries,
    weighted_mean,
)
from tfrs_selfattn.losses.in_batch_negatives import InBatchNegatives
from tfrs_selfattn.ops.interests import best_interest
from tfrs_selfattn.ops.negatives import among, find_columns, leave_out, merge_repeats
from tfrs_selfattn.ops.sampled_losses import NegativeColumns

SHARED_BY = ("batch", "row", "query")


class SampledLoss(SequenceLayer):
    """Base of the losses that draw negatives.

    A layer for one reason: models then track, save and restore the counter behind the
    draws, and a resumed run draws what it would have drawn.

    Args:
        negatives: sampler, or a sequence of them whose draws are put together.
        shared_by: "batch", "row" or "query": which queries share their negatives.
        temperature: float above 0.
        mask_own_items: bool. Items of the query's own sequence are no negatives.
        seed: int or None, of the draws.
        **kwargs: passed to `keras.layers.Layer` (`name`, …).
    """

    # What `adjust` of a negative that does not count is; see `NegativeColumns`.
    _left_out = 0.0

    def __init__(
        self,
        negatives: Any,
        *,
        shared_by: str,
        temperature: float,
        mask_own_items: bool,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed=seed, **kwargs)
        several = isinstance(negatives, Sequence)
        self.negatives = tuple(negatives) if several else (negatives,)
        self.shared_by = check_choice("shared_by", shared_by, SHARED_BY)
        self.temperature = check_positive("temperature", temperature)
        self.mask_own_items = bool(mask_own_items)
        if not self.negatives or not all(hasattr(n, "draw") for n in self.negatives):
            raise ValueError(
                "`negatives` must be one or more samplers of negatives. Received: "
                f"negatives={negatives!r}. Use for example UniformNegatives(256)."
            )
        if shared_by != "batch" and any(
            isinstance(each, InBatchNegatives) for each in self.negatives
        ):
            raise ValueError(
                "`InBatchNegatives` are those of the whole batch. Received: "
                f"shared_by={shared_by!r}. Use shared_by='batch'."
            )
        with tf.name_scope(self.name):
            self.build_seed_state()
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "negatives": [serialize(each) for each in self.negatives],
            "shared_by": self.shared_by,
            "temperature": self.temperature,
            "mask_own_items": self.mask_own_items,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SampledLoss:
        config = dict(config)
        if "negatives" in config:
            restore = keras.saving.deserialize_keras_object
            config["negatives"] = [restore(each) for each in config["negatives"]]
        return cls(**config)

    def __call__(
        self,
        queries: tf.Tensor,
        candidates: tf.Tensor | CandidateLookup,
        targets: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
        *,
        context: LossContext | None = None,
    ) -> tf.Tensor:
        # In place of Keras' own: there is no network here to connect, build or cast.
        queries = tf.convert_to_tensor(queries)
        targets = tf.cast(targets, tf.int32)
        origin = self._origin(targets, context)
        weights, queries, targets, *kept = present_queries(
            sample_weight, queries, targets, *origin
        )
        if context is not None:
            context = context._replace(sequences=kept[0], rows=kept[1])
        lookup = as_lookup(candidates)
        items, counts, num_drawn = self._draw(targets, lookup.num_candidates, context)
        adjust = self._adjust(items, counts, lookup.num_candidates, num_drawn)
        masked = self._mask(items, adjust, targets, lookup.num_candidates, context)

        rows = tf.concat([targets, tf.reshape(items, [-1])], axis=0)
        needed, places = tf.unique(rows)
        table = lookup.embed(needed)  # [U, D]
        positives, columns = tf.split(places, [tf.size(targets), -1])
        if self.shared_by != "batch":
            columns = tf.reshape(columns, tf.shape(items))
        if queries.shape.rank == 3:
            queries = best_interest(queries, tf.gather(table, positives))
        total = self._total(
            queries,
            table,
            positives,
            masked._replace(columns=columns),
            weights,
            sum(num_drawn),
            lookup.num_candidates,
        )
        return weighted_mean(total, targets, weights)

    def _origin(
        self, targets: tf.Tensor, context: LossContext | None
    ) -> tuple[tf.Tensor, ...]:
        """What of the context goes with each query, else `ValueError`."""
        if context is None:
            if self.mask_own_items or self.shared_by == "row":
                raise ValueError(
                    f"`context` of `{type(self).__name__}` must be given, to tell the "
                    "user's own items and the rows of the batch. Received: "
                    "context=None. Use batch_context(history, targets, segment_ids), "
                    "or set mask_own_items=False and shared_by='batch'."
                )
            return ()
        return context.sequences, context.rows

    def _draw(
        self, targets: tf.Tensor, num_items: int, context: LossContext | None
    ) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        """Items `[G, n]`, how often each counts, and the draws of each sampler."""
        num_groups: Any = 1
        if self.shared_by == "query":
            num_groups = tf.maximum(tf.size(targets), 1)  # never an empty table
        elif self.shared_by == "row" and context is not None:
            num_groups = tf.maximum(tf.reduce_max(context.rows) + 1, 1)
        seed = self.next_seed()
        draws = [
            sampler.draw(
                num_groups,
                num_items,
                tf.random.experimental.stateless_fold_in(seed, number),
                targets,
            )
            for number, sampler in enumerate(self.negatives)
        ]
        num_drawn = [tf.shape(each)[1] for each in draws]
        items = tf.concat(draws, axis=1)
        if self.shared_by == "query":
            return items, tf.ones_like(items, tf.float32), num_drawn
        items, counts = merge_repeats(items)
        if self.shared_by == "batch":
            first = counts[0] > 0
            items = tf.boolean_mask(items, first, axis=1)
            counts = tf.boolean_mask(counts, first, axis=1)
        return items, counts, num_drawn

    def _mask(
        self,
        items: tf.Tensor,
        adjust: tf.Tensor,
        targets: tf.Tensor,
        num_items: int,
        context: LossContext | None,
    ) -> NegativeColumns:
        """Leaves out each query's target and, when asked to, its user's items."""
        groups = self._groups(targets, context)
        if not self.mask_own_items or context is None:
            if self.shared_by == "query":
                adjust = tf.where(
                    items == targets[:, tf.newaxis], self._left_out, adjust
                )
                return _one_line_each(items, groups, adjust)
            hits = find_columns(items, groups, targets, num_items)
            return NegativeColumns(items, groups, adjust, groups, hits)
        sequences = context.sequences
        size = tf.maximum(tf.reduce_max(sequences) + 1, 1)
        known = tf.where(context.own_sequences < size)[:, 0]  # the others ask nothing
        owners = tf.concat([tf.gather(context.own_sequences, known), sequences], 0)
        owned = tf.concat([tf.gather(context.own_items, known), targets], 0)
        if self.shared_by == "query":
            mine = among(owners, owned, sequences, items, num_items)
            adjust = tf.where(mine, self._left_out, adjust)
            return _one_line_each(items, groups, adjust)
        group_of = tf.maximum(tf.math.unsorted_segment_max(groups, sequences, size), 0)
        columns = find_columns(items, tf.gather(group_of, owners), owned, num_items)
        adjust = leave_out(tf.gather(adjust, group_of), owners, columns, self._left_out)
        return NegativeColumns(items, groups, adjust, sequences)

    def _groups(self, targets: tf.Tensor, context: LossContext | None) -> tf.Tensor:
        if self.shared_by == "query":
            return tf.range(tf.size(targets))
        if self.shared_by == "row" and context is not None:
            return context.rows
        return tf.zeros_like(targets)

    def _adjust(
        self,
        items: tf.Tensor,
        counts: tf.Tensor,
        num_items: int,
        num_drawn: list[tf.Tensor],
    ) -> tf.Tensor:
        """float32 `[G, n]` for `NegativeColumns`: how often each negative counts."""
        return counts

    def _total(
        self,
        queries: tf.Tensor,
        table: tf.Tensor,
        targets: tf.Tensor,
        negatives: NegativeColumns,
        weights: tf.Tensor | None,
        num_drawn: tf.Tensor,
        num_items: int,
    ) -> tf.Tensor:
        """The weighted sum of the losses."""
        raise NotImplementedError


def _one_line_each(
    items: tf.Tensor, groups: tf.Tensor, adjust: tf.Tensor
) -> NegativeColumns:
    """Negatives that no two queries share."""
    # One line more, for the places of a tile without a query.
    return NegativeColumns(items, groups, tf.pad(adjust, [[0, 1], [0, 0]]), groups)
