"""What the layers should compute, written as loops over float64 NumPy arrays.

No TensorFlow and no broadcasting: every formula is spelled out for one user, one
position, one head at a time, so that it shares no mistake with the code it judges.

Shape alphabet: B users, T positions, S attended positions, D width, H heads, K head
width, M queries, N candidates.
"""

from __future__ import annotations

import math

import numpy as np

EPSILON = 1e-6  # of every layer norm


def dense(vector, kernel, bias):
    """One vector through one dense layer."""
    return np.array(
        [np.dot(vector, kernel[:, j]) + bias[j] for j in range(kernel.shape[1])]
    )


def softmax(logits):
    exponentials = [math.exp(logit - max(logits)) for logit in logits]
    return [value / sum(exponentials) for value in exponentials]


def layer_norm(vector, gamma, beta):
    mean = sum(vector) / len(vector)
    variance = sum((value - mean) ** 2 for value in vector) / len(vector)
    deviation = math.sqrt(variance + EPSILON)
    return np.array(
        [
            (vector[i] - mean) / deviation * gamma[i] + beta[i]
            for i in range(len(vector))
        ]
    )


def each_position(function, states, *arguments):
    """Applies a function of one vector to `[B, T, D]`."""
    return np.array(
        [[function(vector, *arguments) for vector in row] for row in states]
    )


def may_attend(user, t, s, *, causal, mask=None, segment_ids=None, attention_mask=None):
    """Whether position t of a user may attend to position s."""
    if causal and s > t:
        return False
    if mask is not None and not mask[user][s]:
        return False
    if segment_ids is not None:
        if segment_ids[user][s] == 0 or segment_ids[user][s] != segment_ids[user][t]:
            return False
    if attention_mask is not None:
        shared = np.ndim(attention_mask) == 2
        return bool(attention_mask[t][s] if shared else attention_mask[user][t][s])
    return True


def attention(inputs, weights, num_heads, *, query=None, **masks):
    """Multi-head self-attention: outputs `[B, T, D]` and weights `[B, H, T, S]`.

    `weights` holds the kernel and the bias of "query", "key", "value" and "output".
    """
    source = inputs if query is None else query
    users, length, _ = inputs.shape
    q = each_position(dense, source, *weights["query"])
    k = each_position(dense, inputs, *weights["key"])
    v = each_position(dense, inputs, *weights["value"])
    width = q.shape[-1] // num_heads
    scores = np.zeros([users, num_heads, length, length])
    heads = np.zeros(q.shape)
    for user in range(users):
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            for t in range(length):
                visible = [s for s in range(length) if may_attend(user, t, s, **masks)]
                if not visible:
                    continue  # attends to nothing: zeros
                logits = [
                    np.dot(q[user, t, part], k[user, s, part]) / math.sqrt(width)
                    for s in visible
                ]
                for s, share in zip(visible, softmax(logits), strict=True):
                    scores[user, head, t, s] = share
                    heads[user, t, part] += share * v[user, s, part]
    return each_position(dense, heads, *weights["output"]), scores


def feed_forward(inputs, expand, contract, activation):
    def one(vector):
        hidden = [activation(value) for value in dense(vector, *expand)]
        return dense(np.array(hidden), *contract)

    return each_position(one, inputs)


def transformer_block(inputs, weights, num_heads, *, norm, activation, **masks):
    """One block; `weights` holds those of its four parts."""

    def attend(keys, query=None):
        return attention(keys, weights["attention"], num_heads, query=query, **masks)[0]

    def feed(states):
        return feed_forward(states, *weights["feed_forward"], activation)

    def first(states):
        return each_position(layer_norm, states, *weights["attention_norm"])

    def second(states):
        return each_position(layer_norm, states, *weights["feed_forward_norm"])

    if norm == "pre":
        states = inputs + attend(first(inputs))
        return states + feed(second(states))
    if norm == "post":
        states = first(inputs + attend(inputs))
        return second(states + feed(states))
    query = first(inputs)
    states = second(query + attend(inputs, query))
    return states + feed(states)


def place(user, t, mask, segment_ids, count_from):
    """The number of a real item within its history, or its segment."""
    if segment_ids is None:
        mates = [s for s in range(len(mask[user])) if mask[user][s]]
    else:
        mates = [
            s
            for s in range(len(mask[user]))
            if mask[user][s] and segment_ids[user][s] == segment_ids[user][t]
        ]
    if count_from == "newest":
        return sum(1 for s in mates if s > t)
    return sum(1 for s in mates if s < t)


def add_positions(inputs, table, mask, segment_ids, count_from):
    """Adds to each real item the vector of its place; padding stays as it is."""
    outputs = np.array(inputs, np.float64)
    for user in range(len(inputs)):
        for t in range(len(inputs[user])):
            if mask[user][t]:
                number = place(user, t, mask, segment_ids, count_from)
                outputs[user, t] += table[min(number, len(table) - 1)]
    return outputs


def pool(inputs, mask, method):
    outputs = []
    for states, real in zip(inputs, mask, strict=True):
        kept = [state for state, is_real in zip(states, real, strict=True) if is_real]
        if not kept:
            outputs.append(np.zeros(inputs.shape[-1]))
        else:
            outputs.append(kept[-1] if method == "newest" else sum(kept) / len(kept))
    return np.array(outputs)


def full_softmax(queries, candidates, targets, weights=None, temperature=1.0):
    """The weighted sum of the cross-entropies over all candidates."""
    total = 0.0
    for m, query in enumerate(queries):
        logits = [np.dot(query, candidate) / temperature for candidate in candidates]
        largest = max(logits)
        log_sum = largest + math.log(sum(math.exp(x - largest) for x in logits))
        weight = 1.0 if weights is None else weights[m]
        total += weight * (log_sum - logits[targets[m]])
    return total


def sasrec(history, weights, num_heads, max_length):
    """The query of one user, a plain list of items, oldest first.

    `weights` holds the tables "items" and "positions", the list "blocks" and the
    "final_norm".
    """
    items = [item for item in history if item != 0][-max_length:]
    width = weights["items"].shape[1]
    if not items:
        return np.zeros(width)
    states = []
    for t, item in enumerate(items):
        newer = len(items) - 1 - t
        states.append(
            math.sqrt(width) * weights["items"][item] + weights["positions"][newer]
        )
    states = np.array([states])
    for block in weights["blocks"]:
        states = transformer_block(
            states,
            block,
            num_heads,
            norm="query",
            activation=lambda value: max(value, 0.0),
            causal=True,
        )
    return layer_norm(states[0, -1], *weights["final_norm"])
