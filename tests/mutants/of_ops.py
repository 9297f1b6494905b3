"""Faults of the functions."""

from __future__ import annotations

from tests.mutants.fault import Fault

ATTENTION = "ops/test_attention.py::"
MASKS = "ops/test_attention_mask.py::"
FORMS = "ops/test_attention_forms.py::"
BLOCKS = "ops/test_pointwise.py::test_blocks_have_the_gradient_of_tensorflow"
ORACLES = "layers/test_oracles.py::"

FAULTS = [
    Fault(
        "no mask",
        "ops/attention.py",
        "logits = tf.where(mask, logits, tf.float32.min)",
        "logits = tf.identity(logits)",
        ATTENTION + "test_equals_a_loop_over_visible_positions",
    ),
    Fault(
        "inverted mask",
        "ops/attention.py",
        "logits = tf.where(mask, logits, tf.float32.min)",
        "logits = tf.where(mask, tf.float32.min, logits)",
        ATTENTION + "test_equals_a_loop_over_visible_positions",
    ),
    Fault(
        "-1e9 in place of hiding",
        "ops/attention.py",
        "logits = tf.where(mask, logits, tf.float32.min)",
        "logits -= 1e9 * (1.0 - tf.cast(mask, tf.float32))",
        ATTENTION + "test_large_penalties_are_not_enough",
    ),
    Fault(
        "causal off by one",
        "ops/attention_mask.py",
        "(distance >= 0)",
        "(distance > 0)",
        MASKS + "test_causal",
    ),
    Fault(
        "window off by one",
        "ops/attention_mask.py",
        "tf.abs(distance) < self.window",
        "tf.abs(distance) <= self.window",
        MASKS + "test_window",
    ),
    Fault(
        "segments leak",
        "ops/attention_mask.py",
        "tf.logical_and(own == other, other != 0)",
        "other != 0",
        MASKS + "test_segments",
    ),
    Fault(
        "padding is a segment",
        "ops/attention_mask.py",
        "tf.logical_and(own == other, other != 0)",
        "own == other",
        MASKS + "test_segments",
    ),
    Fault(
        "no scale in the function",
        "ops/attention.py",
        "scale = float(query.shape[-1]) ** -0.5",
        "scale = 1.0",
        ATTENTION + "test_hand_set_weights",
    ),
    Fault(
        "fully masked row not zeroed",
        "ops/attention.py",
        "output *= attends",
        "output *= 1",
        ATTENTION + "test_equals_a_loop_over_visible_positions",
    ),
    Fault(
        "logits in half precision",
        "ops/attention.py",
        "logits = tf.cast(logits, tf.float32)  # [B, H, t, s]",
        "logits = tf.identity(logits)",
        ATTENTION + "test_hidden_values_do_not_matter_bit_for_bit",
    ),
    Fault(
        "bias dropped",
        "ops/attention.py",
        "            logits += bias\n",
        "            pass\n",
        FORMS + "test_chunks_have_the_gradient_of_tensorflow[all-199]",
    ),
    Fault(
        "gradient of biases not summed over chunks",
        "ops/attention.py",
        "totals = [a + b for a, b in zip(totals, added, strict=True)]",
        "totals = list(added)",
        FORMS + "test_chunks_have_the_gradient_of_tensorflow[all-199]",
    ),
    Fault(
        "chunk keys off by one",
        "ops/attention.py",
        "(start, stop, min(stop, keys) if causal",
        "(start, stop, min(stop - 1, keys) if causal",
        "ops/test_pointwise.py::test_chunks_do_not_show",
    ),
    Fault(
        "softmax backward without its sum",
        "ops/attention.py",
        "return weights * (dropped_slope - shared)",
        "return weights * dropped_slope",
        FORMS + "test_chunks_have_the_gradient_of_tensorflow[all-199]",
    ),
    Fault(
        "dropout not rescaled",
        "ops/attention.py",
        "value = value * tf.cast(1.0 / (1.0 - effective_rate(dropout_rate)), "
        "value.dtype)",
        "value = value * 1",
        FORMS + "test_dropout_keeps_the_mean",
    ),
    Fault(
        "chunks draw the same dropout",
        "ops/attention.py",
        "offset = tf.cast(index, tf.int64) * (1 << 40)",
        "offset = tf.zeros([], tf.int64)",
        FORMS + "test_no_two_chunks_drop_the_same",
    ),
    Fault(
        "blocks: running maximum unused",
        "ops/blockwise.py",
        "new_peak = tf.maximum(peak, tf.reduce_max(logits, -1, keepdims=True))",
        "new_peak = tf.reduce_max(logits, -1, keepdims=True)",
        FORMS + "test_blockwise_runs_on_large_logits",
    ),
    Fault(
        "blocks: sums not shrunk",
        "ops/blockwise.py",
        "total = total * shrink + tf.reduce_sum",
        "total = total + tf.reduce_sum",
        FORMS + "test_dropout_has_the_slope_of_small_steps[blocks]",
    ),
    Fault(
        "blocks: filling not hidden",
        "ops/blockwise.py",
        "(positions[1] < self._length)",
        "(positions[1] < self._length + self._size)",
        BLOCKS + "[padding+allowed-3]",
    ),
    Fault(
        "blocks: window reach off by one",
        "ops/blockwise.py",
        "(self._mask.window + self._size - 2) // self._size",
        "(self._mask.window - 1) // self._size",
        BLOCKS + "[window-3]",
    ),
    Fault(
        "blocks: dropout not rescaled",
        "ops/blockwise.py",
        "return keep / (1.0 - effective_rate(self._rate))",
        "return keep",
        FORMS + "test_dropout_keeps_the_mean",
    ),
    Fault(
        "rotary sign",
        "ops/rotary.py",
        "first * cos - second * sin",
        "first * cos + second * sin",
        "ops/test_biases.py::test_rotation",
    ),
    Fault(
        "HSTU divided by the width",
        "ops/pointwise.py",
        "/ tf.maximum(count, 1.0)",
        "/ tf.cast(keys, tf.float32)",
        "ops/test_pointwise.py::test_equals_the_loop",
    ),
    Fault(
        "HSTU blocks: weights not divided in the backward pass",
        "ops/pointwise_blocks.py",
        "return tf.where(mask, tf.nn.silu(logits), 0.0) / statistic",
        "return tf.where(mask, tf.nn.silu(logits), 0.0)",
        BLOCKS + "[window-3]",
    ),
    Fault(
        "HSTU blocks: the slope of a sigmoid",
        "ops/pointwise_blocks.py",
        "slope = sigmoid * (1.0 + logits * (1.0 - sigmoid))",
        "slope = sigmoid * (1.0 - sigmoid)",
        BLOCKS + "[window-3]",
    ),
    Fault(
        "T5 far buckets one too far",
        "ops/biases.py",
        "far = exact + tf.cast(",
        "far = exact + 1 + tf.cast(",
        "ops/test_biases.py::test_buckets_of_distances",
    ),
    Fault(
        "ALiBi: slopes of the head before",
        "ops/biases.py",
        "-8.0 * (h + 1) / self.num_heads",
        "-8.0 * h / self.num_heads",
        ORACLES + "test_bias_layers_give_what_attention_adds",
    ),
    Fault(
        "ALiBi: sign",
        "ops/biases.py",
        "(-slopes * tf.cast(distance",
        "(slopes * tf.cast(distance",
        ORACLES + "test_bias_layers_give_what_attention_adds",
    ),
    Fault(
        "time bias without the request",
        "ops/biases.py",
        "positions_of(self.request_times, rows, 1)",
        "positions_of(self.timestamps, rows, 1)",
        "ops/test_biases.py::test_time_bias",
    ),
    Fault(
        "newest and oldest swapped",
        "ops/masks.py",
        'if count_from == "oldest":',
        'if count_from == "newest":',
        "ops/test_masks.py::test_positions_of_real_items",
    ),
    Fault(
        "positions do not restart",
        "ops/masks.py",
        "earlier -= tf.reshape(tf.gather(first, runs), tf.shape(segment_ids))",
        "earlier -= 0",
        "ops/test_masks.py::test_positions_restart_in_each_segment",
    ),
    Fault(
        "blocks: one block of everything",
        "ops/blockwise.py",
        "    query = scaled(query, scale)\n",
        "    query, block_size = scaled(query, scale), query.shape[2]\n",
        FORMS + "test_no_tensor_of_a_blockwise_step_grows_faster_than_t",
    ),
]
