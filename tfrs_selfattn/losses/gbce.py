"""gSASRec's generalised binary cross-entropy."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfrs_selfattn._checks import check_positive_int
from tfrs_selfattn._keras import register
from tfrs_selfattn.losses._sampled import SampledLoss
from tfrs_selfattn.losses.uniform_negatives import UniformNegatives
from tfrs_selfattn.ops.sampled_losses import NegativeColumns, sampled_sigmoid_loss


@register
class GBCE(SampledLoss):
    r"""Mean of $-(\log\sigma^\beta(s_+) + \sum_{j=1}^k \log(1-\sigma(s_j))) / (k+1)$.

    Few negatives make a model overconfident: it sees too many positives. The exponent
    puts this right. With $\alpha = k / (N - 1)$ the share of the catalogue that is
    drawn, $\beta = \alpha (t (1 - 1/\alpha) + 1/\alpha)$: at t = 0 it is 1, plain
    `BinaryCrossEntropy`; at t = 1 it is $\alpha$, and $\sigma(s)$ becomes a calibrated
    probability.

    Args:
        num_negatives: int, k, drawn uniformly. Defaults to `256`.
        calibration: float in [0, 1], t. Defaults to `0.75`.
        shared_by: "batch", "row" or "query". Which queries share their negatives: all
            (one matrix product, and the fastest), those of one row of the batch, or
            none, as in the paper's code. Defaults to `"row"`.
        temperature: float above 0. Defaults to `1.0`.
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

    >>> loss = GBCE(99, calibration=0.0, shared_by="batch", mask_own_items=False)
    >>> queries = candidates = tf.zeros([100, 4])
    >>> float(loss(queries, candidates, tf.range(100)))  # log 2
    0.6931471824645996

    References:
        - [Petrov and Macdonald, 2023](https://arxiv.org/abs/2308.07192), sections 4
          and 5.
    """

    def __init__(
        self,
        num_negatives: int = 256,
        calibration: float = 0.75,
        *,
        shared_by: str = "row",
        temperature: float = 1.0,
        mask_own_items: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_negatives = check_positive_int("num_negatives", num_negatives)
        if not (isinstance(calibration, int | float) and 0.0 <= calibration <= 1.0):
            raise ValueError(
                "`calibration` must be a number in [0, 1]. Received: "
                f"calibration={calibration!r}. 0 is plain binary cross-entropy."
            )
        super().__init__(
            UniformNegatives(num_negatives),
            shared_by=shared_by,
            temperature=temperature,
            mask_own_items=mask_own_items,
            seed=seed,
            **kwargs,
        )
        self.calibration = float(calibration)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["negatives"]  # two numbers say it
        return {
            **config,
            "num_negatives": self.num_negatives,
            "calibration": self.calibration,
        }

    def exponent(self, num_candidates: int) -> float:
        r"""$\beta$ for a catalogue of N candidates."""
        rate = min(self.num_negatives / max(num_candidates - 1, 1), 1.0)
        t = self.calibration
        return rate * (t * (1.0 - 1.0 / rate) + 1.0 / rate)

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
            exponent=self.exponent(num_items),
        )
