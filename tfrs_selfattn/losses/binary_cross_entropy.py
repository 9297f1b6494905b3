"""Binary cross-entropy against sampled negatives."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._keras import register
from tfrs_selfattn.losses._sampled import SampledLoss
from tfrs_selfattn.losses.uniform_negatives import UniformNegatives
from tfrs_selfattn.ops.sampled_losses import NegativeColumns, sampled_sigmoid_loss


@register
class BinaryCrossEntropy(SampledLoss):
    r"""Mean of $-(\log\sigma(s_+) + \sum_{j=1}^n \log(1 - \sigma(s_j))) / (n + 1)$.

    SASRec's loss, with one negative a query or more; $s = q \cdot c / \tau$. Of
    negatives that do not count (the target, own items) the others make up the number.
    Scores are not probabilities of ranks under it: for ranking, `FullSoftmax`,
    `SampledSoftmax` and `GBCE` are better.

    Args:
        negatives: sampler, or a sequence of samplers whose draws are put together.
            None takes `UniformNegatives(1)`. Defaults to `None`.
        shared_by: "batch", "row" or "query". Which queries share their negatives.
            Defaults to `"query"`.
        temperature: float above 0, $\tau$. Defaults to `1.0`.
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

    >>> loss = BinaryCrossEntropy(UniformNegatives(3), mask_own_items=False)
    >>> queries = candidates = tf.zeros([100, 4])
    >>> float(loss(queries, candidates, tf.range(100)))  # log 2
    0.6931471824645996

    Differs from: SASRec's code, which adds the two terms of its one negative up; here
    they are averaged, half of that.

    References:
        - [Kang and McAuley, 2018](https://arxiv.org/abs/1808.09781), section 3.5.
    """

    def __init__(
        self,
        negatives: Any = None,
        *,
        shared_by: str = "query",
        temperature: float = 1.0,
        mask_own_items: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            UniformNegatives(1) if negatives is None else negatives,
            shared_by=shared_by,
            temperature=temperature,
            mask_own_items=mask_own_items,
            seed=seed,
            **kwargs,
        )

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
        return sampled_sigmoid_loss(
            queries,
            table,
            targets,
            negatives,
            weights,
            num_negatives=num_drawn,
            temperature=self.temperature,
        )
