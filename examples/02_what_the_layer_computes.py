# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/02_what_the_layer_computes.ipynb)
#
# # 2. What the layer computes
#
# | you learn | minutes | data |
# |---|---|---|
# | self-attention worked by hand, then by the layer; what masks and padding do | 1 | five purchases |
#
# ## Goal
#
# A user bought a **book**, a **phone**, a **tv**, another **book** and a **laptop**.
# Self-attention gives each of these purchases a new vector that knows about the others.
# We compute it in NumPy, line by line, and then see the layer give the same numbers.

# %% tags=["skip-execution"]
# In Colab; skip it where the package is installed.
# %pip install -q "tfrs-selfattn[plot] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfrs_selfattn.layers import MultiHeadSelfAttention, PositionEmbedding
from tfrs_selfattn.ops import AttentionMask

# %% [markdown]
# ## Data
#
# A model learns the vectors of items. Here we write them ourselves, so that each column
# has a meaning. `X` has one row for each purchase, oldest first.

# %%
meaning = ["reading", "talking", "screen"]
vectors = {
    "book": [1.0, 0.0, 0.0],
    "phone": [0.0, 1.0, 0.5],
    "tv": [0.0, 0.0, 1.0],
    "laptop": [0.5, 0.5, 1.0],
}
history = ["book", "phone", "tv", "book", "laptop"]
X = np.array([vectors[item] for item in history])  # [T, D] = [5, 3]
X

# %% [markdown]
# ## Model: by hand
#
# Three small matrices turn each purchase into a **query** (what am I looking for?), a
# **key** (what do I offer?) and a **value** (what do I pass on?):
#
# $$Q = XW_Q, \qquad K = XW_K, \qquad V = XW_V.$$
#
# Training finds these matrices. We choose them: keys say what an item is, queries look
# for things of the same kind and, a little, for screens; values pass everything on.

# %%
W_Q = np.array([[2.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
W_K = np.eye(3)
W_V = np.eye(3)

Q, K, V = X @ W_Q, X @ W_K, X @ W_V  # each [T, K] = [5, 3]

# %% [markdown]
# A query and a key that point the same way have a large product. A softmax over each
# row turns the products into shares that sum to 1:
#
# $$A = \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt{d_k}}\right), \qquad Z = AV.$$
#
# The root keeps the softmax from becoming all or nothing where vectors are wide.


# %%
def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


scores = Q @ K.T / np.sqrt(K.shape[-1])  # [T, T]: row = who looks, column = at whom
A = softmax(scores)
Z = A @ V  # [T, K]


# %%
def draw(axes, matrix, title, rows=None, columns=None, maximum=None):
    """A matrix with its numbers."""
    axes.imshow(matrix, cmap="Blues", vmin=0, vmax=maximum or matrix.max() * 1.3)
    for (row, column), value in np.ndenumerate(matrix):
        axes.text(column, row, f"{value:.2g}", ha="center", va="center", fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_yticks(range(len(matrix)), rows if rows is not None else [])
    names = columns if columns is not None else []
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)


figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), width_ratios=[3, 5, 5, 3])
draw(axes[0], X, "$X$", history, meaning)
draw(axes[1], scores, "$QK^T / \\sqrt{d_k}$", history, history)
draw(axes[2], A, "$A$: shares, rows sum to 1", history, history)
draw(axes[3], Z, "$Z = AV$", history, meaning)
figure.tight_layout()

# %% [markdown]
# Read row *laptop* of $A$: it looks at itself, the phone and the tv, hardly at the
# books. Its new vector $Z$ is the mix of what they pass on.
#
# The two *book* rows of $Z$ are equal: nothing so far says which came first. More of
# that below.
#
# ## The same by the layer
#
# `MultiHeadSelfAttention` holds the same matrices, and one more that mixes the heads at
# the end. With one head and an identity there, it must give our $Z$.

# %%
layer = MultiHeadSelfAttention(num_heads=1, key_dim=3, causal=False, use_bias=False)
layer.build([None, None, 3])
for weight in layer.weights:
    print(weight.name, tuple(weight.shape))
layer.set_weights([W_Q, W_K, W_V, np.eye(3)])

batch = tf.constant(X[np.newaxis], tf.float32)  # [B, T, D]: a batch of one user
output, weights = layer(batch, return_attention_scores=True)  # weights [B, H, T, S]

print("largest difference in A:", np.abs(weights[0, 0] - A).max())
print("largest difference in Z:", np.abs(output[0] - Z).max())

# %% [markdown]
# ## Causality: no looking ahead
#
# A recommender learns to predict the next purchase, at every position at once. The
# first *book* must not see that a *phone* follows: the answer would be in the question.
# A causal mask allows the past only. **True means: may be looked at.** What is hidden
# gets a share of exactly 0, and the rest of the row still sums to 1.

# %%
past_only = np.tril(np.ones((5, 5), bool))
A_causal = softmax(np.where(past_only, scores, -np.inf))

causal = MultiHeadSelfAttention(num_heads=1, key_dim=3, use_bias=False)  # the default
causal.build([None, None, 3])
causal.set_weights(layer.get_weights())
causal_output, causal_weights = causal(batch, return_attention_scores=True)

figure, axes = plt.subplots(1, 2, figsize=(7.4, 3.6))
draw(axes[0], past_only.astype(float), "the mask", history, history, maximum=2)
draw(axes[1], causal_weights[0, 0].numpy(), "$A$ with the mask", history, history)
figure.tight_layout()
print("by hand and by the layer:", np.abs(causal_weights[0, 0] - A_causal).max())

# %% [markdown]
# Does it hold? Let us change the future, and look at what the past becomes.

# %%
other_future = X.copy()
other_future[3:] = [[9, 9, 9], [-5, 0, 7]]
changed = causal(tf.constant(other_future[np.newaxis], tf.float32))
moved = np.abs(changed - causal_output)[0].max(axis=-1)
for item, change in zip(history, moved, strict=True):
    print(f"{item:>7} moved by {change:.3f}")

# %% [markdown]
# ## Padding: rows that are not there
#
# Users have histories of different lengths, a batch has one width. The rest is padding,
# and `mask` says what is real. It is hidden completely: fill it with rubbish, even with
# not-a-number, and no bit of the real positions changes.

# %%
width = 8
padded = np.full((1, width, 3), np.nan, np.float32)
padded[0, 3:] = X  # padding on the left; the right is as good
real = np.arange(width)[np.newaxis] >= 3
padded_output = causal(padded, mask=tf.constant(real))

print("any NaN:", bool(np.isnan(padded_output).any()))
same = np.array_equal(padded_output[0, 3:], causal_output[0])
print("same bits as without padding:", same)

# %% [markdown]
# ## All masks in one picture
#
# Masks combine: a pair of positions may attend if every mask allows it. Two more are
# useful. *Segments* let several users share a row, which wastes less of it, without
# seeing each other. A *window* forgets what is long ago. `AttentionMask` holds the
# parts; the layer takes them as `mask`, `segment_ids`, `causal=` and `window=`.

# %%
users = tf.constant([[1, 1, 1, 2, 2, 2, 2, 0]])  # two users, one place of padding
pictures = {
    "causal": AttentionMask(causal=True),
    "padding": AttentionMask(padding=tf.constant(real)),
    "causal and padding": AttentionMask(causal=True, padding=tf.constant(real)),
    "causal, window of 3": AttentionMask(causal=True, window=3),
    "causal, two users in a row": AttentionMask(causal=True, segment_ids=users),
}
places = tf.range(width)
figure, axes = plt.subplots(1, 5, figsize=(12, 2.9))
for ax, (title, mask) in zip(axes, pictures.items(), strict=True):
    may_attend = np.broadcast_to(mask.block(places, places)[0], (width, width))
    ax.imshow(may_attend, cmap="Blues", vmin=0, vmax=1.6)
    ax.set_title(title, fontsize=9)
    ax.set_xticks(np.arange(-0.5, width), [])
    ax.set_yticks(np.arange(-0.5, width), [])
    ax.grid(color="white", linewidth=1.5)
    ax.tick_params(length=0)
axes[0].set_ylabel("who looks")
axes[0].set_xlabel("at whom (blue = allowed)")
figure.tight_layout()

# %% [markdown]
# ## Order
#
# Attention itself does not know order: it saw the two books alike. So a model adds
# something that depends on the place. `PositionEmbedding` learns a vector a place,
# counted from the newest item; `rotary=True`, `AlibiBias` and `RelativePositionBias`
# are other ways.

# %%
tf.keras.utils.set_random_seed(1)
position = PositionEmbedding(10, embeddings_initializer="random_normal")
placed = layer(position(batch))
apart_without = float(np.abs(output[0, 0] - output[0, 3]).max())
apart_with = float(np.abs(placed[0, 0] - placed[0, 3]).max())
print(f"the two books differ by {apart_without:.4f} without positions")
print(f"                   and by {apart_with:.4f} with them")

# %% [markdown]
# ## Check
#
# The layer computes what the textbook says, hides the future, and ignores padding.

# %%
assert np.allclose(output[0], Z, atol=1e-6), "the layer gives the Z of the textbook"
assert np.allclose(causal_weights[0, 0], A_causal, atol=1e-6), "and with a mask too"
assert (moved[:3] == 0).all() and (moved[3:] > 0).all(), "the past sees no future"
assert same, "padding changes nothing, to the last bit"
assert apart_without == 0 < apart_with, "positions tell the two books apart"

# %% [markdown]
# ## Next
#
# - Give the layer two heads (`num_heads=2, key_dim=3`) and draw `weights[0, 1]`.
# - Change $W_Q$ so that the laptop looks at books.
# - Notebook 1 puts this layer into a recommender; notebook 6 draws what a trained one
#   looks at, and why that is not yet an explanation.
