"""Softmax cross-entropy over a whole catalogue, in blocks of queries.

Scores of M queries against N candidates are M * N numbers: 350 MB for one batch of
MovieLens-1M. Here a block of queries is scored, its loss and its gradients are taken,
and the scores are gone before the next block: memory is one block, nothing is computed
twice, and the block stays in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

# Elements of one block of scores: 8 MB of float32, so that logits and shares together
# stay within a shared L3 cache.
BLOCK_ELEMENTS = 1 << 21
# A GPU has no such cache, and every block costs it launches and a wait: 256 MB.
GPU_BLOCK_ELEMENTS = 1 << 26
# Fewer and the products, and the sum of the candidates' gradients, which is one array
# of their size a block, cost more than the scores: 15 % at 64 of 500,000 candidates.
_LEAST_ROWS = 128
# But for catalogues of millions: no block of scores is larger than 512 MB.
_MOST_ELEMENTS = 1 << 27
_LEAST_SHARE = 1e-30  # of a target; far from where float32 loses digits


def full_softmax_loss(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor | None = None,
    *,
    temperature: float = 1.0,
    block_rows: int | None = None,
) -> tf.Tensor:
    r"""Weighted sum of $-\log \mathrm{softmax}(q_m C^\top / \tau)_{y_m}$ over queries.

    Args:
        queries: float `[M, D]`; half precision is computed in float32.
        candidates: float `[N, D]`, every candidate there is.
        targets: int `[M]`, row numbers in `candidates`.
        weights: float32 `[M]`; a query of weight 0 counts as absent. None weighs all 1.
            Weights are constants: no gradient flows to them.
        temperature: float above 0, $\tau$.
        block_rows: int. Queries scored at a time; chosen from N when None.

    Returns:
        float32 scalar.
    """
    queries = tf.cast(queries, tf.float32) * (1.0 / temperature)
    candidates = tf.cast(candidates, tf.float32)
    targets = tf.convert_to_tensor(targets)
    if weights is None:
        weights = tf.ones_like(targets, tf.float32)
    weights = tf.stop_gradient(tf.cast(weights, tf.float32))

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def loss_of(
        queries: tf.Tensor, candidates: tf.Tensor
    ) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
        loss, query_gradient, candidate_gradient = _blocks(
            queries, candidates, targets, weights, block_rows
        )

        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            return upstream * query_gradient, upstream * candidate_gradient

        return loss, gradient

    return loss_of(queries, candidates)


def _blocks(
    queries: tf.Tensor,
    candidates: tf.Tensor,
    targets: tf.Tensor,
    weights: tf.Tensor,
    block_rows: int | None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Loss and its gradients for queries and candidates, block by block."""
    num_queries = tf.shape(queries)[0]
    width = queries.shape[-1]
    if block_rows is None:
        block = _rows_of_block(tf.shape(candidates)[0], _block_elements(queries))
    else:
        block = tf.constant(block_rows)
    # Blocks of equal size, so that the last one is not a sliver.
    num_blocks = tf.maximum((num_queries + block - 1) // block, 1)
    block = tf.maximum((num_queries + num_blocks - 1) // num_blocks, 1)
    gradients = tf.TensorArray(
        tf.float32,
        size=num_blocks,
        infer_shape=False,
        element_shape=[None, width],
    )

    def step(
        index: tf.Tensor, loss: tf.Tensor, total: tf.Tensor, parts: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        start = index * block
        stop = tf.minimum(start + block, num_queries)
        rows = queries[start:stop]  # [m, D]
        weight = weights[start:stop, tf.newaxis]  # [m, 1]
        positives = tf.gather(candidates, targets[start:stop])  # [m, D]
        logits = tf.matmul(rows, candidates, transpose_b=True)  # [m, N]
        shares = tf.nn.softmax(logits)  # [m, N]
        share = tf.gather(shares, targets[start:stop], batch_dims=1)  # [m]
        losses = tf.cond(
            tf.reduce_min(share) < _LEAST_SHARE,
            lambda: _losses_of_logits(rows, positives, logits, shares),
            lambda: -tf.math.log(share),  # saves two passes over [m, N]
        )
        # Weights and the "- 1 at the target" touch [m, D] here, never [m, N].
        parts = parts.write(index, weight * (tf.matmul(shares, candidates) - positives))
        total += tf.matmul(shares, rows * weight, transpose_a=True)
        loss += tf.reduce_sum(losses * weight[:, 0])
        return index + 1, loss, total, parts

    _, loss, candidate_gradient, parts = tf.while_loop(
        lambda index, *_: index < num_blocks,
        step,
        (0, 0.0, tf.zeros_like(candidates), gradients),
        parallel_iterations=1,
    )
    query_gradient = tf.ensure_shape(parts.concat(), queries.shape)
    candidate_gradient -= tf.math.unsorted_segment_sum(
        queries * weights[:, tf.newaxis], targets, tf.shape(candidates)[0]
    )
    return loss, query_gradient, candidate_gradient


def _rows_of_block(num_candidates: tf.Tensor, elements: int) -> tf.Tensor:
    """How many queries are scored at a time."""
    num_candidates = tf.maximum(num_candidates, 1)
    fewest = tf.clip_by_value(_MOST_ELEMENTS // num_candidates, 1, _LEAST_ROWS)
    return tf.maximum(elements // num_candidates, fewest)


def _block_elements(queries: tf.Tensor) -> int:
    """Elements of one block of scores on the device that computes them.

    A graph names it only where its maker did (`tf.device`, a strategy); else
    TensorFlow takes the GPU that it sees.
    """
    device = str(getattr(queries, "device", None) or "")
    on_gpu = "GPU" in device if device else bool(tf.config.list_logical_devices("GPU"))
    return GPU_BLOCK_ELEMENTS if on_gpu else BLOCK_ELEMENTS


def _losses_of_logits(
    rows: tf.Tensor, positives: tf.Tensor, logits: tf.Tensor, shares: tf.Tensor
) -> tf.Tensor:
    """Losses of a block in which the share of some target underflows."""
    # The largest share is 1 / sum(exp(logits - max)): no second pass of exp.
    log_sum = tf.reduce_max(logits, 1) - tf.math.log(tf.reduce_max(shares, 1))
    return log_sum - tf.reduce_sum(rows * positives, 1)
