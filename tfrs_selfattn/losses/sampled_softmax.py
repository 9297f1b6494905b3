"""Softmax cross-entropy against sampled negatives."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import register
from tfrs_selfattn.losses._sampled import SampledLoss
from tfrs_selfattn.losses.uniform_negatives import UniformNegatives
from tfrs_selfattn.ops.sampled_losses import NegativeColumns, sampled_softmax_loss


@register
class SampledSoftmax(SampledLoss):
    r"""Mean of $-\log(e^{s_+} / (e^{s_+} + \sum_j e^{s_j - \log Q_j}))$.

    Here $s = q \cdot c / \tau$, the sum runs over the negatives drawn, and $Q_j$ is how
    often a draw holds item j on average. With it the sum estimates that of the full
    softmax without bias, whatever the negatives are drawn by; of several samplers Q is
    the sum of theirs. Q is taken as a float32 logarithm and has no floor. With all
    items as negatives this is `FullSoftmax` (without the user's own items, if masked).

    Args:
        negatives: sampler, or a sequence of samplers whose draws are put together:
            `UniformNegatives`, `PopularityNegatives`, `InBatchNegatives`. None takes
            `UniformNegatives(256)`. Defaults to `None`.
        shared_by: "batch", "row" or "query". Which queries share their negatives: all
            (one matrix product, and the fastest), those of one row of the batch, or
            none. Defaults to `"batch"`.
        temperature: float above 0, $\tau$. Defaults to `1.0`.
        correct_sampling: bool. Subtract $\log Q$. Defaults to `True`.
        mask_own_items: bool. Items of the query's own sequence, past and future, are
            no negatives of it. The target never is. Defaults to `True`.
        seed: int or None. Of the draws. None draws one. Defaults to `None`.
        **kwargs: passed to `keras.layers.Layer` (`name`, …).

    Call arguments:
        queries: float `[M, D]`, or `[M, K, D]` for K interests, of which the one that
            scores the target best is trained; half precision is computed in float32.
        candidates: float `[N, D]` or `CandidateLookup`.
        targets: int `[M]`, the row of each query's positive among the candidates.
        sample_weight: float32 `[M]`, or None. A query of weight 0 counts as absent.
        context: `LossContext`, see `batch_context`. May be None with
            `mask_own_items=False` unless shared by row.

    Returns:
        float32 scalar, the weighted mean; 0 when all weights are 0 or M is 0.

    Raises:
        ValueError: when an argument is out of range, or the context is missing.

    Example:

    >>> loss = SampledSoftmax(UniformNegatives(4), mask_own_items=False)
    >>> queries = candidates = tf.zeros([9, 4])
    >>> loss(queries, candidates, tf.range(9)).shape
    TensorShape([])

    References:
        - [Bengio and Senécal, 2008](https://doi.org/10.1109/TNN.2007.912312), the
          correction.
        - [Yang et al., 2020](https://doi.org/10.1145/3366424.3386195), mixed negatives.
    """

    _left_out = tf.float32.min

    def __init__(
        self,
        negatives: Any = None,
        *,
        shared_by: str = "batch",
        temperature: float = 1.0,
        correct_sampling: bool = True,
        mask_own_items: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            UniformNegatives() if negatives is None else negatives,
            shared_by=shared_by,
            temperature=temperature,
            mask_own_items=mask_own_items,
            seed=seed,
            **kwargs,
        )
        self.correct_sampling = bool(correct_sampling)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "correct_sampling": self.correct_sampling}

    def _adjust(
        self,
        items: tf.Tensor,
        counts: tf.Tensor,
        num_items: int,
        num_drawn: list[tf.Tensor],
    ) -> tf.Tensor:
        adjust = tf.math.log(tf.maximum(counts, 1.0))
        if self.correct_sampling:
            # Drawn by any of the samplers: their expected numbers add up.
            adjust -= tf.reduce_logsumexp(
                [
                    sampler.log_expected(items, num_items, num)
                    for sampler, num in zip(self.negatives, num_drawn, strict=True)
                ],
                axis=0,
            )
        return tf.where(counts > 0, adjust, self._left_out)

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
        return sampled_softmax_loss(
            queries, table, targets, negatives, weights, temperature=self.temperature
        )
