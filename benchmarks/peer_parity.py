"""RecTools' weights in our encoders: both must give the same vectors.

    python benchmarks/peer_parity.py --peer-python PATH  # half a minute

RecTools runs in an environment of its own, whose interpreter PATH names. It builds its
transformer layers with random weights in eval mode, encodes left-padded histories, and
hands over inputs, weights and outputs. Our side composes the same encoder from public
layers, takes over every weight (none may be left over), and compares the vectors at
real positions, in float32. Differences are the largest absolute ones:

- matched: what is not a weight is set alike. RecTools hides padding
  (`use_key_padding_mask=True`); our layer norms take its epsilon. HSTU divides by the
  padded length, we by the real one: the norm behind undoes either but for its epsilon,
  which is next to nothing here, on both sides. Above TOLERANCE the script exits with 1.
- full row, padded rows: RecTools' masks and epsilons as it ships them, ours as we do.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

BATCH, LENGTH, HEADS, HEAD_WIDTH, BLOCKS = 5, 23, 2, 7, 2
WIDTH = HEADS * HEAD_WIDTH
DROPOUT = 0.1  # switched off by eval mode
TOLERANCE = 1e-5
PACKAGE = "rectools.models.nn.transformers"
PEER_PYTHON = Path("build/rectools/bin/python")
HOW_TO_INSTALL = """no interpreter at {path}. Make an environment for the peer:
    python -m venv build/rectools
    build/rectools/bin/pip install 'rectools[torch]==0.19.0' torch==2.13.0
or name the interpreter of one with --peer-python PATH."""


@dataclass(frozen=True)
class Case:
    """One model: how RecTools builds it, and where its structure is its own."""

    layers: str  # in PACKAGE
    structure: str
    options: dict[str, Any] = field(default_factory=dict)
    matched: dict[str, Any] = field(default_factory=dict)
    epsilon: float = 1e-5  # PyTorch's


CASES = {
    "SASRec": Case(
        "sasrec.SASRecTransformerLayers",
        "preset `sasrec`; peer: scale √D is an option (on here), real items attend to "
        "padding by default, no dropout on the attention's output",
        options={"scale": True},
        matched={"hides_padding": True},
    ),
    "eSASRec": Case(
        "ligr.LiGRLayers",
        "blocks of preset `esasrec`; peer: no final norm (preset: one), no biases in "
        "the feed-forward (ours 0), real items attend to padding by default",
        matched={"hides_padding": True},
    ),
    "BERT4Rec": Case(
        "net_blocks.PreLNTransformerLayers",
        "composed, not preset `bert4rec`; peer: pre-norm (the paper: post-norm), no "
        "dense GELU head, one more dropout behind each block",
        options={"causal": False, "hides_padding": True},
    ),
    "HSTU": Case(
        "hstu.STULayers",
        "composed, preset `hstu` with other biases; peer: one bias for each distance "
        "(preset: T5's buckets), 129 time buckets (128), heads share both (each head "
        "its own), sums divided by the padded length (the real one)",
        options={
            "scale": True,
            "linear_hidden_dim": HEAD_WIDTH,
            "attention_dim": HEAD_WIDTH,
            "session_max_len": LENGTH,
            "relative_time_attention": True,
            "relative_pos_attention": True,
        },
        matched={"epsilon": 1e-12},
        epsilon=1e-12,
    ),
}
OUR_NAMES = {  # of dense layers and norms
    "q_layer_norm": "attention_norm",
    "layer_norm_1": "attention_norm",
    "ff_layer_norm": "feed_forward_norm",
    "layer_norm_2": "feed_forward_norm",
    "feed_forward.ff_linear_1": "expand",
    "feed_forward.ff_linear_2": "contract",
    "gating_linear_1": "attention_gate",
    "gating_linear_2": "feed_forward_gate",
    "last_layernorm": "final_norm",
    "norm_input": "input_norm",
    "norm_attn_output": "value_norm",
    "output_mlp": "output",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, default=PEER_PYTHON)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        run_peer(options.worker)
        return
    if not options.peer_python.exists():
        parser.error(HOW_TO_INSTALL.format(path=options.peer_python))

    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.npz"
        command = [str(options.peer_python), __file__, "--worker", str(path)]
        subprocess.run(command, check=True)
        with np.load(path) as file:
            peer = dict(file)
    os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    print(f"{peer['versions']}, TensorFlow {version('tensorflow')}")
    print(f"B {BATCH}, T {LENGTH}, D {WIDTH}, H {HEADS}, {BLOCKS} blocks\n")
    print("| model | matched | full row | padded rows | structure |")
    print("|---|---|---|---|---|")
    differences = {name: compare(name, case, peer) for name, case in CASES.items()}
    for name, row in differences.items():
        figures = " | ".join(f"{figure:.1e}" for figure in row)
        print(f"| {name} | {figures} | {CASES[name].structure} |")
    wrong = [name for name, row in differences.items() if not row[0] <= TOLERANCE]
    if wrong:  # NaN too
        sys.exit(f"matched, yet not within {TOLERANCE:.0e}: {', '.join(wrong)}")


def run_peer(path: Path) -> None:
    """In the peer's interpreter: writes inputs, weights and outputs to `path`."""
    import numpy as np
    import torch

    random = np.random.default_rng(0)
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    lengths = np.array([LENGTH, LENGTH - 1, LENGTH // 2, 2, 1])  # the first row is full
    real = np.arange(LENGTH) >= LENGTH - lengths[:, None]  # [B, T]
    items = np.where(real, 1 + np.arange(BATCH * LENGTH).reshape(real.shape), 0)
    table = random.normal(size=[BATCH * LENGTH + 1, WIDTH]).astype("float32")
    table[0] = 0.0  # padding, as in RecTools' item network
    gaps = np.exp(random.uniform(0, 18, size=[BATCH, LENGTH + 1])).astype("int64")
    times = 1_600_000_000 + np.cumsum(gaps, axis=1)  # [B, T + 1], last: the request's
    results: dict[str, Any] = {
        "versions": f"RecTools {version('rectools')}, PyTorch {version('torch')}",
        "vectors": table[items],
        "real": real,
        "times": times,
    }
    batch = {"x": torch.from_numpy(items), "unix_ts": torch.from_numpy(times)}
    for name, case in CASES.items():
        shipped = peer_encoder(case, **case.options)
        matched = peer_encoder(case, **case.options, **case.matched)
        for key, weight in shipped.named_parameters():
            torch.nn.init.normal_(weight, std=WIDTH**-0.5)
            if "norm" in key and key.endswith("weight"):
                weight += 1.0
        matched.load_state_dict(shipped.state_dict())
        for label, encoder in (("shipped", shipped), ("matched", matched)):
            vectors = encoder.eval().encode_sessions(batch, torch.from_numpy(table))
            results[f"{name}/{label}"] = vectors.numpy()
        for key, weight in shipped.state_dict().items():
            results[f"{name}/weights/{key}"] = weight.numpy()
    np.savez(path, **results)


def peer_encoder(
    case: Case,
    *,
    causal: bool = True,
    hides_padding: bool = False,
    scale: bool = False,
    **options: Any,
) -> Any:
    """What RecTools' models train, without items and similarity; its defaults."""
    module, _, layers = case.layers.partition(".")
    layers_type = getattr(importlib.import_module(f"{PACKAGE}.{module}"), layers)
    blocks = importlib.import_module(f"{PACKAGE}.net_blocks")
    backbone = importlib.import_module(f"{PACKAGE}.torch_backbone")
    options |= {"n_blocks": BLOCKS, "n_factors": WIDTH, "n_heads": HEADS}
    return backbone.TransformerTorchBackbone(
        n_heads=HEADS,
        dropout_rate=DROPOUT,
        item_model=None,
        pos_encoding_layer=blocks.LearnableInversePositionalEncoding(
            True, LENGTH, WIDTH, use_scale_factor=scale
        ),
        transformer_layers=layers_type(dropout_rate=DROPOUT, **options),
        similarity_module=None,
        use_causal_attn=causal,
        use_key_padding_mask=hides_padding,
    )


def compare(name: str, case: Case, peer: dict[str, Any]) -> tuple[float, float, float]:
    """Largest differences at real positions: matched, full row, padded rows."""
    import numpy as np

    encoder = our_encoder(name)
    arguments = {"mask": peer["real"]}
    if name == "HSTU":
        arguments["timestamps"] = peer["times"][:, :-1]
        arguments["request_times"] = peer["times"][:, 1:]
    encoder(peer["vectors"], **arguments)  # creates the weights
    prefix = f"{name}/weights/"
    copy_weights(
        {k.removeprefix(prefix): v for k, v in peer.items() if k.startswith(prefix)},
        encoder,
    )

    def difference(label: str) -> Any:
        vectors = encoder(peer["vectors"], **arguments).numpy()
        change = np.abs(vectors - peer[f"{name}/{label}"]).max(axis=-1)  # [B, T]
        return np.where(peer["real"], change, 0.0)

    shipped = difference("shipped")
    for layer in encoder.submodules:
        if type(layer).__name__ == "LayerNormalization":
            layer.epsilon = 1e-8 if layer.name == "final_norm" else case.epsilon
    return difference("matched").max(), shipped[0].max(), shipped[1:].max()


def our_encoder(name: str) -> Any:
    from tfrs_selfattn import layers

    preset = {"num_blocks": BLOCKS, "num_heads": HEADS, "max_length": LENGTH}
    if name == "SASRec":
        return layers.encoders.sasrec(WIDTH, dropout=0.0, **preset)
    if name == "eSASRec":
        blocks = layers.encoders.esasrec(WIDTH, dropout=0.0, **preset).blocks
    else:
        block = {"BERT4Rec": bert4rec_block, "HSTU": hstu_block}[name]
        blocks = [block() for _ in range(BLOCKS)]
    return layers.SequenceEncoder(
        blocks,
        position=layers.PositionEmbedding(LENGTH),
        scale_inputs=name == "HSTU",
        final_norm=False,
    )


def bert4rec_block() -> Any:
    from tfrs_selfattn import layers

    return layers.TransformerBlock(
        layers.MultiHeadSelfAttention(HEADS, HEAD_WIDTH, causal=False),
        layers.FeedForward(4 * WIDTH, activation="gelu"),
        norm="pre",
    )


def hstu_block() -> Any:
    from tfrs_selfattn import layers

    # With 2 T buckets each distance below T has one of its own.
    buckets = {"num_buckets": 2 * LENGTH, "max_distance": 2 * LENGTH}
    by_distance = layers.RelativePositionBias(HEADS, **buckets)
    by_time = layers.RelativeTimeBias(HEADS, num_buckets=129)
    return layers.HSTUBlock(HEADS, HEAD_WIDTH, biases=[by_distance, by_time])


def copy_weights(theirs: dict[str, Any], encoder: Any) -> None:
    """Moves every weight of the peer to one of ours, and every of ours gets one."""
    import numpy as np

    for key in [key for key in theirs if "ff_linear_3" in key]:
        first = key.replace("ff_linear_3", "ff_linear_1")  # ours has both in one
        theirs[first] = np.concatenate([theirs[first], theirs.pop(key)])
    ours: dict[str, Any] = {}
    for key, value in theirs.items():
        match = re.fullmatch(r"\w+\.(?:\w+_blocks\.(\d+)\.)?(.+)", key)
        assert match is not None, key
        for name, part in our_weights(match[2], value).items():
            ours[f"{match[1]}/{name}"] = part
    blocks = enumerate(encoder.blocks)
    block_of = {id(weight): i for i, block in blocks for weight in block.weights}
    for weight in encoder.weights:
        path = re.sub(r"_\d+(?=/)|:0$", "", weight.name).split("/")
        name = "/".join([str(block_of.get(id(weight))), *path[-2:]])
        if name in ours or not name.endswith(("expand/bias", "contract/bias")):
            weight.assign(ours.pop(name))  # else LiGR has none, and ours is 0
    if ours:
        raise ValueError(f"weights of the peer without a place: {sorted(ours)}")


def our_weights(name: str, value: Any) -> dict[str, Any]:
    """One weight of a block of the peer, or of the encoder, under our names."""
    import numpy as np

    module, _, kind = name.rpartition(".")
    if kind == "uvqk_proj":
        return {"project/kernel": value}
    if module == "pos_emb":
        return {"position_embedding/embeddings": value}
    if module == "rel_attn":
        by_time = kind == "time_weights"
        if not by_time:  # index T - 1 - d is distance d; the others, the future, unseen
            value = np.pad(value[LENGTH - 1 :: -1], [0, LENGTH])
        layer = "relative_time_bias" if by_time else "relative_position_bias"
        return {f"{layer}/table": np.stack([value] * HEADS, axis=1)}
    if module.startswith("multi_head_attn"):
        parts = ("output",) if "out_proj" in module else ("query", "key", "value")
        suffix = "bias" if kind.endswith("bias") else "kernel"
        return {
            f"multi_head_self_attention/{part}_{suffix}": piece.T
            for part, piece in zip(parts, np.split(value, len(parts)), strict=True)
        }
    layer = OUR_NAMES[module]
    norm = {"weight": "gamma", "bias": "beta"}
    dense = {"weight": "kernel", "bias": "bias"}
    return {f"{layer}/{(norm if layer.endswith('norm') else dense)[kind]}": value.T}


if __name__ == "__main__":
    main()
