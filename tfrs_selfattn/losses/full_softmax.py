"""Softmax cross-entropy against the whole catalogue."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive, check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.losses.context import present_queries, weighted_mean
from tfrs_selfattn.ops.interests import best_interest
from tfrs_selfattn.ops.softmax_loss import full_softmax_loss


@register
class FullSoftmax:
    r"""Mean of $-\log \mathrm{softmax}(q_m C^\top / \tau)_{y_m}$ over the queries.

    Every candidate is a negative of every query, so nothing is sampled and nothing
    needs correcting. Scores exist one block at a time: memory does not grow with
    M times N. A block takes up to 512 MB, twice while it is worked on, and the gradient
    of the candidates N times D floats, twice: of millions of items `SampledSoftmax` is
    the one to take.

    Args:
        temperature: float above 0, $\tau$. With L2-normalized towers about 0.05.
            Defaults to `1.0`.
        block_rows: int. Queries scored at a time. None chooses from the number of
            candidates. Defaults to `None`.

    Call arguments:
        queries: float `[M, D]`, or `[M, K, D]` for K interests, of which the one that
            scores the target best is trained; half precision is computed in float32.
        candidates: float `[N, D]`, the whole catalogue.
        targets: int `[M]`, the row of each query's positive in `candidates`.
        sample_weight: float32 `[M]`, or None. A query of weight 0 counts as absent.

    Returns:
        float32 scalar, the weighted mean; 0 when all weights are 0 or M is 0.

    Raises:
        ValueError: when an argument is out of range.

    Example:

    >>> loss = FullSoftmax()
    >>> queries = candidates = tf.zeros([2, 4])
    >>> float(loss(queries, candidates, tf.constant([0, 1])))  # log 2
    0.6931471824645996

    References:
        - [Klenitskiy and Vasilev, 2023](https://arxiv.org/abs/2309.07602), where it
          lifts SASRec above BERT4Rec.
        - [Wijmans et al., 2024](https://arxiv.org/abs/2411.09009), on cross-entropy
          without the matrix of logits.
    """

    def __init__(
        self, temperature: float = 1.0, *, block_rows: int | None = None
    ) -> None:
        self.temperature = check_positive("temperature", temperature)
        self.block_rows = (
            None if block_rows is None else check_positive_int("block_rows", block_rows)
        )

    def get_config(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "block_rows": self.block_rows}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FullSoftmax:
        return cls(**config)

    def __call__(
        self,
        queries: tf.Tensor,
        candidates: tf.Tensor,
        targets: tf.Tensor,
        sample_weight: tf.Tensor | None = None,
    ) -> tf.Tensor:
        weights, queries, targets = present_queries(sample_weight, queries, targets)
        queries = tf.convert_to_tensor(queries)
        if queries.shape.rank == 3:
            queries = best_interest(queries, tf.gather(candidates, targets))
        total = full_softmax_loss(
            queries,
            candidates,
            targets,
            weights,
            temperature=self.temperature,
            block_rows=self.block_rows,
        )
        return weighted_mean(total, targets, weights)
