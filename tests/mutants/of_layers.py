"""Faults of the layers, and of a model."""

from __future__ import annotations

from tests.mutants.fault import Fault

ORACLES = "layers/test_oracles.py::"
APPEND = "layers/test_incremental.py::test_equals_encoding_the_whole"
NEWEST = "layers/test_newest.py::test_it_is_the_last_position_of_all"
CONFORMANCE = "conformance/test_layers.py::"

FAULTS = [
    Fault(
        "no scale in the layer",
        "layers/self_attention.py",
        "scale = self.key_dim**-0.5",
        "scale = 1.0",
        ORACLES + "test_attention[2-causal-none]",
    ),
    Fault(
        "the query's bias not scaled",
        "layers/self_attention.py",
        "tf.nn.bias_add(outputs, self._scaled(bias, scale))",
        "tf.nn.bias_add(outputs, self._scaled(bias, 1.0))",
        ORACLES + "test_attention[2-causal-none]",
    ),
    Fault(
        "HSTU: gate U left out",
        "layers/hstu_block.py",
        "gated = self._mixed(query, key, value, mask, times) * gate",
        "gated = self._mixed(query, key, value, mask, times)",
        ORACLES + "test_hstu_block[None-plain-causal-none]",
    ),
    Fault(
        "HSTU: gate and value swapped",
        "layers/hstu_block.py",
        "        gate, value, query, key = self._projections(inputs)\n"
        "        mask = AttentionMask(",
        "        value, gate, query, key = self._projections(inputs)\n"
        "        mask = AttentionMask(",
        ORACLES + "test_hstu_block[None-plain-causal-none]",
    ),
    Fault(
        "feed-forward: gate and value swapped",
        "layers/feed_forward.py",
        "hidden = self.activation(hidden) * factor",
        "hidden = self.activation(factor) * hidden",
        ORACLES + "test_feed_forward",
    ),
    Fault(
        "sinusoids twice as fast",
        "layers/sinusoidal_positions.py",
        "-tf.range(half, dtype=tf.float32) / half",
        "-tf.range(half, dtype=tf.float32) / (2 * half)",
        ORACLES + "test_sinusoidal_positions",
    ),
    Fault(
        "sines and cosines swapped",
        "layers/sinusoidal_positions.py",
        "tf.concat([tf.sin(angles), tf.cos(angles)], axis=-1)",
        "tf.concat([tf.cos(angles), tf.sin(angles)], axis=-1)",
        ORACLES + "test_sinusoidal_positions",
    ),
    Fault(
        "positions past the last start anew",
        "layers/positions.py",
        "tf.clip_by_value(places, 0, self.max_length - 1)",
        "places % self.max_length",
        ORACLES + "test_segments_longer_than_the_learned_positions_share_the_last",
    ),
    Fault(
        "padding not cleared",
        "layers/self_attention.py",
        "            inputs = zero_padding(inputs, real)\n",
        "            pass\n",
        ORACLES + "test_attention[2-causal-mask]",
    ),
    Fault(
        "block: the query not the residual",
        "layers/transformer_block.py",
        "self._feed_forward_norm(query + attend(inputs, query))",
        "self._feed_forward_norm(inputs + attend(inputs, query))",
        ORACLES + "test_transformer_block[query-none]",
    ),
    Fault(
        "block: gate left out",
        "layers/transformer_block.py",
        "change *= self._attention_gate(inputs)",
        "change *= 1.0",
        ORACLES + "test_transformer_block[gated-none]",
    ),
    Fault(
        "encoder: no square root of the width",
        "layers/sequence_encoder.py",
        "states *= tf.cast(float(states.shape[-1]) ** 0.5, states.dtype)",
        "states *= 1.0",
        ORACLES + "test_sequence_encoder[True-none]",
    ),
    Fault(
        "encoder: no final norm",
        "layers/sequence_encoder.py",
        "            states = self._norm(states)\n",
        "            pass\n",
        ORACLES + "test_sequence_encoder[True-none]",
    ),
    Fault(
        "encoder: attention mask kept to itself",
        "layers/sequence_encoder.py",
        'asked["attention_mask"] = attention_mask',
        "pass",
        ORACLES + "test_sequence_encoder[True-attention_mask]",
    ),
    Fault(
        "pooling: the one before the newest",
        "layers/pooling.py",
        "tf.maximum(newest - 1, 0)",
        "tf.maximum(newest - 2, 0)",
        ORACLES + "test_pooling",
    ),
    Fault(
        "pooling attends to padding",
        "layers/attention_pooling.py",
        "logits = tf.where(mask[:, tf.newaxis], logits, tf.float32.min)",
        "logits = tf.identity(logits)",
        ORACLES + "test_attention_pooling",
    ),
    Fault(
        "newest: the query at the first position",
        "layers/self_attention.py",
        "q, k, v = self._heads(inputs, query, query_start=last)",
        "q, k, v = self._heads(inputs, query, query_start=0)",
        NEWEST + "[rotary]",
    ),
    Fault(
        "newest: window forgotten",
        "layers/self_attention.py",
        "AttentionMask(padding=mask, window=self.window)",
        "AttentionMask(padding=mask)",
        NEWEST + "[window]",
    ),
    Fault(
        "newest: HSTU sees padding",
        "layers/hstu_block.py",
        "AttentionMask(padding=mask, window=self.window)",
        "AttentionMask(window=self.window)",
        NEWEST + "[hstu]",
    ),
    Fault(
        "newest: a call that is overridden passed by",
        "layers/_base.py",
        '        if "call" in vars(kind):\n            return False\n',
        "",
        "layers/test_newest.py::test_who_can",
    ),
    Fault(
        "append: rotary starts anew",
        "layers/self_attention.py",
        "mask[:, past:]), query, past)",
        "mask[:, past:]), query, 0)",
        APPEND + "[rotary]",
    ),
    Fault(
        "append: positions start anew",
        "layers/incremental.py",
        "start=before)",
        "start=before * 0)",
        APPEND + "[positions]",
    ),
    Fault(
        "append: the mask of old events forgotten",
        "layers/incremental.py",
        "known = tf.concat([state.mask, mask], axis=1)",
        "known = tf.concat([tf.ones_like(state.mask), mask], axis=1)",
        APPEND + "[plain]",
    ),
    Fault(
        "append: HSTU sees the future",
        "layers/hstu_block.py",
        "AttentionMask(padding=mask, causal=True, window=self.window)",
        "AttentionMask(padding=mask, window=self.window)",
        APPEND + "[hstu]",
    ),
    Fault(
        "append: any state will do",
        "layers/incremental.py",
        "all(shape.is_compatible_with(cache.shape) for cache in caches)",
        "True",
        "layers/test_incremental.py::test_states_of_another_encoder",
    ),
    Fault(
        "config key dropped",
        "layers/self_attention.py",
        '            "window": self.window,\n',
        "",
        CONFORMANCE + "test_config_names_every_constructor_argument[attention]",
    ),
    Fault(
        "biases unknown to checkpoints",
        "layers/_bias.py",
        '        setattr(layer, f"_bias_{index}", bias)\n',
        "",
        CONFORMANCE + "test_reload_changes_no_output[biased_attention-checkpoint]",
        keras_3=True,
    ),
    Fault(
        "implicit mask lost beside other tensors",
        "layers/_base.py",
        'given["mask"] = mask',
        "pass",
        "layers/test_in_keras_models.py::"
        "test_no_other_argument_costs_the_implicit_mask",
        keras_3=True,
    ),
    Fault(
        "implicit mask lost where None stands",
        "layers/_base.py",
        'given.pop("mask", None)',
        "pass",
        "layers/test_in_keras_models.py::test_no_mask_given_is_the_implicit_one",
    ),
    Fault(
        "seed never moves on",
        "layers/_base.py",
        "assign_add(tf.constant([0, 1], tf.int64))",
        "assign_add(tf.constant([0, 0], tf.int64))",
        "layers/test_dropout_state.py::test_every_step_draws_another_mask",
    ),
    Fault(
        "interests summed",
        "models/sequence_retrieval.py",
        "            scores = tf.maximum(\n"
        "                scores, tf.matmul(interest, candidates, transpose_b=True)\n"
        "            )\n",
        "            scores += tf.matmul(interest, candidates, transpose_b=True)\n",
        "models/test_sequence_retrieval.py::test_of_several_interests_the_best_scores",
    ),
]
