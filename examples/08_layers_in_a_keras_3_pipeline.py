# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/08_layers_in_a_keras_3_pipeline.ipynb)
#
# # 8. Layers in a Keras 3 pipeline
#
# | you learn | minutes | data |
# |---|---|---|
# | the encoder inside a plain Keras 3 functional model, beside other inputs, without TFRS | 2 | MovieLens-100K |
#
# ## Goal
#
# You have a Keras 3 model and want it to understand sequences. The layers need nothing
# else of this package, and no TensorFlow Recommenders. We predict the next film from the
# last 20 and from how long ago the last one was, save the model, and load it again.

# %% tags=["skip-execution"]
# In Colab; skip it where the package is installed.
# %pip install -q "tfrs-selfattn[plot] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "0"  # Keras 3: the default, said aloud
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import sys

import keras
import matplotlib.pyplot as plt
import numpy as np

from tfrs_selfattn import data
from tfrs_selfattn.layers import SequencePooling, encoders

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests train for less long
EPOCHS, EVERY = (2, 3) if FAST else (6, 1)
keras.utils.set_random_seed(0)
print("Keras", keras.__version__)

# %% [markdown]
# ## Data
#
# Films are numbers from 1 on; 0 is padding. A row holds the 20 films before a choice, the
# days since the last of them, and the film that was chosen. The last choice of every
# user is for the test.

# %%
log = data.build_sequences(data.read_events(data.locate_movielens_100k().folder))
num_films, LENGTH = len(log.vocabulary), 20


def rows_of(user):
    """20 films before each choice but the first, days since the last, the choice."""
    films, times = log.user(user)
    before = np.concatenate([np.zeros(LENGTH, np.int32), films])
    history = np.lib.stride_tricks.sliding_window_view(before, LENGTH)[1:-1]
    days = np.log1p(np.diff(times) / 86_400)[:, np.newaxis]
    return history, days.astype(np.float32), films[1:]


rows = [rows_of(user) for user in range(log.num_users)]


def together(part):
    history, days, films = (
        np.concatenate([column[part] for column in columns])
        for columns in zip(*rows, strict=True)
    )
    return {"history": history, "days": days}, films


train, test = together(slice(None, -1, EVERY)), together(slice(-1, None))
print(f"{len(train[1]):,} rows to learn from, {len(test[1])} to test")

# %% [markdown]
# ## Model
#
# An ordinary functional model. `mask_zero=True` marks padding, the encoder hands the mask
# on, `SequencePooling` takes the state at the newest film and ends the mask. After that
# it is a vector like any other.

# %%
history = keras.Input([LENGTH], dtype="int32", name="history")
days = keras.Input([1], name="days")

films = keras.layers.Embedding(num_films + 1, 32, mask_zero=True, name="films")
encoded = encoders.sasrec(32, num_blocks=1, max_length=LENGTH, seed=0)(films(history))
query = SequencePooling("newest")(encoded)  # [B, D]
hidden = keras.layers.Concatenate()([query, days])
hidden = keras.layers.Dense(64, activation="relu")(hidden)
scores = keras.layers.Dense(num_films + 1, name="scores")(hidden)

model = keras.Model({"history": history, "days": days}, scores)
model.summary(line_length=88)

# %% [markdown]
# Train and evaluate as always. Column 0 of the scores is padding; no target is 0, so it
# soon scores low.

# %%
model.compile(
    optimizer=keras.optimizers.Adam(3e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=[keras.metrics.SparseTopKCategoricalAccuracy(10, name="top_10")],
)
found = model.fit(
    *train, batch_size=512, epochs=EPOCHS, validation_data=test, verbose=0
).history

popular = np.argsort(-np.bincount(train[1], minlength=num_films + 1))[:10]
popularity = np.isin(test[1], popular).mean()

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3))
epochs = np.arange(1, EPOCHS + 1)
left.plot(epochs, found["loss"], marker="o", label="training")
left.plot(epochs, found["val_loss"], marker="o", label="test")
left.set_title("loss")
right.plot(epochs, found["val_top_10"], marker="o", label="this model")
right.axhline(popularity, color="#b0b0b0", linestyle="--", label="ten most popular")
right.set_title("the next film is among the 10 best")
right.set_ylim(0)
for ax in (left, right):
    ax.set_xlabel("epoch")
    ax.set_xticks(epochs)
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# ## Does padding change anything?
#
# Histories of three films, padded on the left or on the right: the same scores.

# %%
three = test[0]["history"][:5, -3:]
days_of = test[0]["days"][:5]
on_the_left = np.pad(three, [(0, 0), (LENGTH - 3, 0)])
on_the_right = np.pad(three, [(0, 0), (0, LENGTH - 3)])
left_scores, right_scores = (
    keras.ops.convert_to_numpy(model({"history": padded, "days": days_of}))
    for padded in (on_the_left, on_the_right)
)
print("largest difference:", np.abs(left_scores - right_scores).max())

# %% [markdown]
# ## Save and load
#
# The layers are registered with Keras, so `load_model` needs no `custom_objects`, only
# the import above.

# %%
model.save("next_film.keras")
loaded = keras.saving.load_model("next_film.keras")
expected, answered = (one.predict(test[0], verbose=0) for one in (model, loaded))

# %% [markdown]
# ## Check
#
# The model beats popularity, comes back from disk as it was, and TensorFlow Recommenders
# was never imported.

# %%
print(f"ten most popular {popularity:.3f}, this model {found['val_top_10'][-1]:.3f}")
assert found["val_top_10"][-1] > popularity
assert np.allclose(expected, answered, atol=1e-5)
assert np.allclose(left_scores, right_scores, atol=1e-5)
assert "tensorflow_recommenders" not in sys.modules

# %% [markdown]
# ## Next
#
# - Put two blocks into the encoder, or take `encoders.esasrec`.
# - Compose your own: `SequenceEncoder([TransformerBlock(…), …])`; notebook 2 shows what
#   is inside.
# - For retrieval over a large catalogue, training on packed rows, and serving, see
#   notebooks 3, 4 and 5. They run under legacy Keras, because TFRS does.
