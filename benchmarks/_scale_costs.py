"""The cost model: what a size of a service takes, from measured constants.

Operations are counted, times and bytes measured. Tables of it are `scale_model.py`'s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks._scale_constants import constant

# What was measured.
WIDTH, BLOCKS = 64, 2  # D, and of the encoder
LENGTH, HISTORY = 200, 50  # of a training row, of a request
FEW, MANY = 3_416, 1e6  # items of the losses, of the index
BATCH_SLOTS = 25_600
NEGATIVES = 256
ANSWERS = 100  # k

# Assumed, and to be replaced by your own: what a machine is, how busy it may be, how
# long it may take, and how many items have a vector of their own id where that is less.
CORES, MEMORY, BUSY = 32, 128e9, 0.5
REPLICAS = 2  # of every shard, so that one may fail
HOURS = 8.0  # in which a day of events is learned
OWN_IDS, BUCKETS = 1e6, 1e5


@dataclass(frozen=True)
class Size:
    """A size of a service: events a day, items, requests a second."""

    name: str
    events: float
    items: float
    requests: float

    @property
    def scale(self) -> float:
        """Items, beside those of the measured index."""
        return self.items / MANY

    @property
    def exact(self) -> bool:
        """Whether exact search is the cheaper one, and full softmax the better loss."""
        return self.items <= 1e5


SIZES = (
    Size("laptop", 1e5, 3.4e3, 1),
    Size("one server", 1e6, 1e5, 1e2),
    Size("several servers", 1e7, 1e6, 1e3),
    Size("a small cluster", 1e8, 1e7, 1e4),
    Size("internet", 1e9, 1e8, 1e5),
)


def encoder_flop() -> float:
    """A slot of a row, forward and, twice that, backward.

    Six projections of D × D a block; a causal row needs half of its weights, each in
    two products.
    """
    return 2 * 3 * BLOCKS * (6 * WIDTH**2 + 2 * WIDTH * LENGTH / 2)


def loss_flop(candidates: float) -> float:
    """A target: scores, and the gradients of both sides."""
    return 2 * 3 * WIDTH * candidates


def tower_flop() -> float:
    """A request's history, of which the last block encodes the newest item alone."""
    whole = HISTORY * (6 * WIDTH**2 + 2 * WIDTH * HISTORY / 2)
    newest = (2 * HISTORY + 4) * WIDTH**2 + 2 * WIDTH * HISTORY
    return 2 * ((BLOCKS - 1) * whole + newest)


def scanned(items: float) -> float:
    """Vectors that a partitioned search of the measured size looks at, centers too."""
    leaves = 8 * math.sqrt(items)
    return leaves + constant("leaves") * 1.08 * items / leaves


def bandwidth() -> float:
    """Bytes a second that one thread reads: exact search reads all vectors."""
    return 4 * WIDTH * MANY / (constant("exact_ms") / 1e3)


def wire() -> dict[str, int]:
    """Bytes of a request and of its answer, as the gRPC client writes them.

    Ids of 10 letters; between client and shards a vector goes out and the items of the
    history, and each shard answers with k of its own.
    """
    from tfrs_selfattn.client import calls
    from tfrs_selfattn.client.answers import Embedding
    from tfrs_selfattn.client.grpc_wire import DEFAULT_WIDTH, predict_request
    from tfrs_selfattn.client.messages import message
    from tfrs_selfattn.client.tensors import Tensor, to_proto

    ids = [f"item-{10_000 + row}" for row in range(ANSWERS)]
    history = [ids[:HISTORY]]
    whole = calls.recommend(
        history, None, None, calls.About(), examples=False, width=DEFAULT_WIDTH
    )
    names = [each.encode() for each in ids]
    search = calls.search(
        [Embedding((0.5,) * WIDTH, None)], [names[:HISTORY]], width=DEFAULT_WIDTH
    )
    answer = message("PredictResponse")()
    to_proto(Tensor("string", (1, ANSWERS), names), answer.outputs["ids"])
    scores = Tensor("float32", (1, ANSWERS), [0.5] * ANSWERS)
    to_proto(scores, answer.outputs["scores"])

    def size(call_inputs: dict[str, Tensor], signature: str) -> int:
        return int(predict_request("films", None, signature, call_inputs).ByteSize())

    return {
        "request": size(whole.inputs, whole.signature),
        "answer": int(answer.ByteSize()),
        "to a shard": size(search, "search"),
    }


def training(size: Size) -> dict[str, float]:
    """One pass over a day of events, on two cores as measured."""
    rest = constant("step_us") - constant("full_softmax_us")
    full = rest + constant("full_softmax_us") * size.items / FEW
    sampled = rest + constant("sampled_softmax_us")
    steps = math.ceil(size.events / BATCH_SLOTS)
    own = min(size.items, OWN_IDS + BUCKETS)
    table, small = (rows * WIDTH * 4.0 for rows in (size.items, own))
    # Rows that a step touches: inputs and targets, each once at most, and negatives.
    touched = min(2.0 * BATCH_SLOTS + NEGATIVES, size.items) * (WIDTH * 4.0 + 8.0)
    full_hours, sampled_hours = (size.events * each / 3.6e9 for each in (full, sampled))
    # Legacy Keras' Adam lets the moments of all rows decay: three tables, read and
    # written, in every step.
    adam, own_adam = (6.0 * each / bandwidth() for each in (table, small))
    busy = (full_hours if size.exact else sampled_hours) * 2 / CORES
    return {
        "full_flop": encoder_flop() + loss_flop(size.items),
        "sampled_flop": encoder_flop() + loss_flop(NEGATIVES),
        "full_hours": full_hours,
        "sampled_hours": sampled_hours,
        "state_bytes": 3.0 * table,  # weights and both moments of Adam
        "adam_bytes": 6.0 * table * steps / size.events,
        "adam_hours": steps * adam / 3600,
        "own_adam_hours": steps * own_adam / 3600,
        "dense_step_bytes": 2.0 * table,  # a worker, ring of many: each way once
        "sparse_step_bytes": touched,
        "machines": math.ceil((busy + steps * own_adam / 3600) / HOURS),
    }


def data(size: Size) -> dict[str, float]:
    """A day of events: read at once on one machine, or prepared in parts."""
    return {
        "memory": size.events * constant("sequences_bytes"),
        "hours": size.events * constant("prepare_us") / 3.6e9,
        "shard_bytes": size.events * constant("shard_bytes"),
        "machines": math.ceil(
            size.events * constant("prepare_us") / 3.6e9 * 2 / CORES / HOURS
        ),
    }


def serving(size: Size) -> dict[str, float]:
    """Cores and machines for the requests.

    Exact search is linear in the items. How a partitioned one at equal recall grows was
    not measured: between the root of their number (leaves grow with it) and linear.
    """
    growth = (size.scale**0.5, max(size.scale, size.scale**0.5))
    if size.exact:
        search = [constant("exact_ms") * size.scale] * 2
        looked_at = [size.items] * 2
    else:
        search = [constant("partitioned_ms") * each for each in growth]
        looked_at = [scanned(MANY) * each for each in growth]
    tower = constant("query_ms" if size.requests < 1e3 else "batched_query_ms")
    factor = 1.0 if size.exact else constant("index_factor")
    memory = size.items * WIDTH * 4.0 * factor
    # Twice, because a new version is loaded beside the old one.
    shards = max(1.0, -(-2.0 * memory // MEMORY))
    cores = [size.requests * (tower + each) / 1e3 / BUSY for each in search]
    by_memory = shards * REPLICAS if size.requests >= 1e2 else 1.0
    machines = [max(by_memory, -(-each // CORES)) for each in cores]
    return {
        "memory": memory,
        "shards": shards,
        "flop_low": tower_flop() + 2 * WIDTH * looked_at[0],
        "flop_high": tower_flop() + 2 * WIDTH * looked_at[1],
        "scanned_low": 4 * WIDTH * looked_at[0],
        "scanned_high": 4 * WIDTH * looked_at[1],
        "cores_low": cores[0],
        "cores_high": cores[1],
        "machines_low": machines[0],
        "machines_high": machines[1],
        "tower_share": tower / (tower + search[0]),
    }
