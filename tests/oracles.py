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


def sigmoid(value):
    return 1.0 / (1.0 + math.exp(-value))


def silu(value):
    return value * sigmoid(value)


def gelu(value):
    return 0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0)))


def relu(value):
    return max(value, 0.0)


def may_attend(
    user,
    t,
    s,
    *,
    causal=False,
    window=None,
    mask=None,
    segment_ids=None,
    attention_mask=None,
):
    """Whether position t of a user may attend to position s."""
    if causal and s > t:
        return False
    if window is not None and abs(t - s) >= window:
        return False
    if mask is not None and not mask[user][s]:
        return False
    if segment_ids is not None and segment_ids[user][s] == 0:
        return False
    if segment_ids is not None and segment_ids[user][s] != segment_ids[user][t]:
        return False
    if attention_mask is not None:
        shared = np.ndim(attention_mask) == 2
        return bool(attention_mask[t][s] if shared else attention_mask[user][t][s])
    return True


def distance_bias(table, max_distance, bidirectional=False):
    """T5's bias as a function of user, head, t and s; `table` is `[buckets, H]`."""

    def bucket(t, s):
        buckets, first, distance = len(table), 0, t - s
        if bidirectional:
            buckets //= 2
            if distance < 0:
                first, distance = buckets, -distance
        distance = max(distance, 0)
        exact = buckets // 2
        if distance < exact:
            return first + distance
        growth = math.log(distance / exact) / math.log(max_distance / exact)
        return first + min(exact + int(growth * (buckets - exact)), buckets - 1)

    return lambda user, head, t, s: table[bucket(t, s)][head]


def alibi(num_heads):
    """ALiBi's bias for a power of two of heads: slopes 2^(-8/H), 2^(-16/H), …"""
    start = 2.0 ** (-8.0 / num_heads)
    return lambda user, head, t, s: -(start ** (head + 1)) * abs(t - s)


def time_bias(table, timestamps, request_times):
    """HSTU's bias by the time from the key's event to the query's request."""

    def bias(user, head, t, s):
        seconds = abs(int(request_times[user][t]) - int(timestamps[user][s]))
        bucket = int(math.log(max(seconds, 1)) / 0.301)
        return table[min(bucket, len(table) - 1)][head]

    return bias


def rotate(vector, position):
    """Turns channel pairs (c, c + K/2) of one head, as complex numbers."""
    half = len(vector) // 2
    turned = np.zeros(len(vector))
    for c in range(half):
        angle = position * 10_000.0 ** (-2.0 * c / len(vector))
        number = complex(vector[c], vector[c + half])
        number *= complex(math.cos(angle), math.sin(angle))
        turned[c], turned[c + half] = number.real, number.imag
    return turned


def attention(
    inputs, weights, num_heads, *, query=None, biases=(), rotary=False, **masks
):
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
                asking, keys = q[user, t, part], {s: k[user, s, part] for s in visible}
                if rotary:
                    asking = rotate(asking, t)
                    keys = {s: rotate(key, s) for s, key in keys.items()}
                logits = [
                    np.dot(asking, keys[s]) / math.sqrt(width)
                    + sum(bias(user, head, t, s) for bias in biases)
                    for s in visible
                ]
                for s, share in zip(visible, softmax(logits), strict=True):
                    scores[user, head, t, s] = share
                    heads[user, t, part] += share * v[user, s, part]
    return each_position(dense, heads, *weights["output"]), scores


def feed_forward(inputs, expand, contract, activation, gated=False):
    def one(vector):
        hidden = list(dense(vector, *expand))
        if gated:
            half = len(hidden) // 2
            hidden = [activation(hidden[i]) * hidden[half + i] for i in range(half)]
        else:
            hidden = [activation(value) for value in hidden]
        return dense(np.array(hidden), *contract)

    return each_position(one, inputs)


def transformer_block(
    inputs, weights, num_heads, *, norm, activation, gated=False, **options
):
    """One block; `weights` holds those of its parts, `options` are the attention's."""

    def attend(keys, query=None):
        arguments = keys, weights["attention"], num_heads
        return attention(*arguments, query=query, **options)[0]

    def feed(states):
        return feed_forward(states, *weights["feed_forward"], activation, gated)

    def gate(states, name):
        def one(vector):
            return np.array([sigmoid(x) for x in dense(vector, *weights[name])])

        return each_position(one, states)

    def first(states):
        return each_position(layer_norm, states, *weights["attention_norm"])

    def second(states):
        return each_position(layer_norm, states, *weights["feed_forward_norm"])

    if norm == "pre":
        states = inputs + attend(first(inputs))
        return states + feed(second(states))
    if norm == "gated":
        change = attend(first(inputs))
        states = inputs + gate(inputs, "attention_gate") * change
        return states + gate(states, "feed_forward_gate") * feed(second(states))
    if norm == "post":
        states = first(inputs + attend(inputs))
        return second(states + feed(states))
    query = first(inputs)
    states = second(query + attend(inputs, query))
    return states + feed(states)


def pointwise(q, k, v, biases, **masks):
    """HSTU's attention of `[B, H, T, K]` heads, divided by what each may attend to."""
    users, heads, length, _ = q.shape
    outputs = np.zeros([users, heads, length, v.shape[-1]])
    for user, head, t in np.ndindex(users, heads, length):
        visible = [s for s in range(length) if may_attend(user, t, s, **masks)]
        for s in visible:
            logit = np.dot(q[user, head, t], k[user, head, s])
            logit += sum(bias(user, head, t, s) for bias in biases)
            outputs[user, head, t] += silu(logit) * v[user, head, s] / len(visible)
    return outputs


def hstu_block(inputs, weights, num_heads, *, biases=(), **masks):
    """One block of HSTU; the projection holds gate, value, query and key in a row."""
    users, length, _ = inputs.shape
    inner = weights["project"].shape[1] // 4
    head_width = inner // num_heads

    def project(vector):
        normal = layer_norm(vector, *weights["input_norm"])
        return np.array([silu(np.dot(normal, w)) for w in weights["project"].T])

    projected = each_position(project, inputs)

    def heads(part):
        found = np.zeros([users, num_heads, length, head_width])
        for user, head, t, c in np.ndindex(*found.shape):
            column = part * inner + head * head_width + c
            found[user, head, t, c] = projected[user, t, column]
        return found

    mixed = pointwise(heads(2), heads(3), heads(1), biases, **masks)
    outputs = np.zeros(inputs.shape)
    for user, t in np.ndindex(users, length):
        merged = np.concatenate([mixed[user, head, t] for head in range(num_heads)])
        gated = layer_norm(merged, *weights["value_norm"]) * projected[user, t, :inner]
        outputs[user, t] = inputs[user, t] + dense(gated, *weights["output"])
    return outputs


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


def attention_pool(inputs, mask, hidden_kernel, interest_kernel):
    """`[B, K, D]`: each interest is a weighted mean of the real positions."""
    interests = interest_kernel.shape[1]
    outputs = np.zeros([len(inputs), interests, inputs.shape[-1]])
    for user, row in enumerate(inputs):
        kept = [row[t] for t in range(len(row)) if mask[user][t]]
        if not kept:
            continue
        hidden = [[math.tanh(np.dot(x, w)) for w in hidden_kernel.T] for x in kept]
        for j in range(interests):
            shares = softmax([np.dot(h, interest_kernel[:, j]) for h in hidden])
            outputs[user, j] = sum(a * x for a, x in zip(shares, kept, strict=True))
    return outputs


def sinusoids(number, width):
    half = width // 2
    angles = [number * 10_000.0 ** (-2.0 * c / width) for c in range(half)]
    return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


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
            activation=relu,
            causal=True,
        )
    return layer_norm(states[0, -1], *weights["final_norm"])


def sampled_softmax(
    queries, candidates, targets, draws, log_expected, left_out, weights, temperature
):
    """The weighted mean of the cross-entropies against the draws of each query.

    `draws` lists items for each query, repeats included; `log_expected` holds a number
    for each item; `left_out` a set for each query.
    """
    total = 0.0
    for m, query in enumerate(queries):
        positive = np.dot(query, candidates[targets[m]]) / temperature
        scores = [positive]
        for item in draws[m]:
            if item != targets[m] and item not in left_out[m]:
                score = np.dot(query, candidates[item]) / temperature
                scores.append(score - log_expected[item])
        largest = max(scores)
        log_sum = largest + math.log(sum(math.exp(x - largest) for x in scores))
        total += float(weights[m]) * (log_sum - positive)
    return total / sum(weights)


def sampled_sigmoid(
    queries, candidates, targets, draws, left_out, weights, temperature, exponent
):
    """The weighted mean of binary (exponent 1) or generalised cross-entropies."""

    def log_sigmoid(x):
        return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))

    total = 0.0
    for m, query in enumerate(queries):
        kept = [
            item for item in draws[m] if item != targets[m] and item not in left_out[m]
        ]
        positive = np.dot(query, candidates[targets[m]]) / temperature
        value = exponent * log_sigmoid(positive)
        for item in kept:
            wrong = log_sigmoid(-np.dot(query, candidates[item]) / temperature)
            value += wrong * len(draws[m]) / len(kept)
        total -= float(weights[m]) * value / (len(draws[m]) + 1)
    return total / sum(weights)
