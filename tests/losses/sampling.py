"""What the tests of the losses with negatives share: a small problem, fixed draws."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfrs_selfattn.losses import LossContext

M, N, D = 11, 17, 5  # queries, candidates, width
random = np.random.default_rng(3)
QUERIES = random.normal(size=[M, D]).astype("float32")
CANDIDATES = random.normal(size=[N, D]).astype("float32")
TARGETS = random.integers(0, N, M).astype("int32")
WEIGHTS = (0.5 + random.random(M)).astype("float32")
# Three rows of the batch, the second of which nobody asks from; five sequences.
ROWS = np.array([0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2], np.int32)
SEQUENCES = np.array([0, 0, 1, 1, 3, 3, 3, 4, 4, 4, 4], np.int32)
OWN = {0: {1, 2, 16}, 1: {0}, 2: {3, 4}, 3: {5, 6, 7, 8}, 4: set()}
PAIRS = np.array([(s, item) for s in OWN for item in sorted(OWN[s])], np.int32)
CONTEXT = LossContext(
    *map(tf.constant, (SEQUENCES, ROWS, PAIRS[:, 0].copy(), PAIRS[:, 1].copy()))
)
NOTHING = [set()] * M
# Of each query: what its sequence holds, all its targets among it.
OWNED = [
    OWN[s] | {int(t) for t, other in zip(TARGETS, SEQUENCES, strict=True) if other == s}
    for s in SEQUENCES
]
LOG_EXPECTED = np.log(0.1 + np.arange(N) / 7)


class FixedNegatives:
    """A sampler that has drawn already; each line is for one group."""

    def __init__(self, lines):
        self.lines = np.asarray(lines, np.int32)

    def draw(self, num_groups, num_items, seed, targets):
        return tf.constant(self.lines)

    def log_expected(self, items, num_items, num_drawn):
        return tf.gather(tf.constant(LOG_EXPECTED, tf.float32), items)


# Draws with repeats, with targets, with own items, for each way of sharing them.
LINES = {
    "batch": random.integers(0, N, [1, 9]),
    "row": random.integers(0, N, [3, 7]),
    "query": random.integers(0, N, [M, 6]),
}
GROUPS = {"batch": np.zeros(M, int), "row": ROWS, "query": np.arange(M)}


def draws(shared_by):
    return [LINES[shared_by][group].tolist() for group in GROUPS[shared_by]]


def value_and_gradients(loss, *tensors):
    """The loss of tensors and its gradients by them, dense."""
    tensors = [tf.constant(tensor) for tensor in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = loss(*tensors)
    gradients = tape.gradient(value, tensors)
    return np.array(value), *(np.array(tf.convert_to_tensor(g)) for g in gradients)


def slopes(loss, *arrays, step=1e-6):
    """Gradients of a function of float64 arrays by finite differences."""
    found = []
    for which, array in enumerate(arrays):
        gradient = np.zeros_like(array, np.float64)
        for index in np.ndindex(array.shape):
            values = []
            for sign in (1, -1):
                moved = [np.array(each, np.float64) for each in arrays]
                moved[which][index] += sign * step
                values.append(loss(*moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        found.append(gradient)
    return found
