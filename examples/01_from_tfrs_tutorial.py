# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/01_from_tfrs_tutorial.ipynb)
#
# # 1. From the TFRS tutorial to self-attention
#
# | you learn | minutes | data |
# |---|---|---|
# | how a plain TFRS retrieval model becomes a sequential one, in ten lines, and what that brings | 2 | MovieLens-100K |
#
# ## Goal
#
# The first tutorial of TensorFlow Recommenders trains two towers: one turns a **user id**
# into a vector, one turns a **film** into a vector, and the films whose vectors fit best
# are recommended. Such a model knows who you are, but not what you have just seen. We
# build it, then swap its query tower for one that reads the last 20 films with
# self-attention. All else stays: films, rows, loss, epochs and optimizer.

# %% tags=["skip-execution"]
# In Colab; skip it where the package is installed.
# %pip install -q "tfrs-selfattn[plot] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS needs it, before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from tfrs_selfattn import data
from tfrs_selfattn.layers import SequencePooling, encoders

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests train for less long
EPOCHS, EVERY = (1, 4) if FAST else (6, 2)
tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Data
#
# `build_sequences` sorts the ratings of each user by time. Films become numbers from 1
# on, and 0 means: no film.

# %%
folder = data.locate_movielens_100k().folder
log = data.build_sequences(data.read_events(folder))
titles = data.find_titles(folder)
num_users, num_films = log.num_users, len(log.vocabulary)
data.summarize(log)

# %% [markdown]
# A row says who chose a film, what they had chosen before, and the film. Every second
# choice is a row, to save time. The last film of every user is kept for the test. (The tutorial tests on ratings drawn at random, so
# that its model has seen the future of every user. Notebook 3 has more such traps.)

# %%
LENGTH = 20


def rows_of(user):
    """All choices of a user but the first: user, the 20 films before, the film."""
    films, _ = log.user(user)
    before = np.concatenate([np.zeros(LENGTH, np.int32), films])
    history = np.lib.stride_tricks.sliding_window_view(before, LENGTH)[1:-1]
    return np.full(len(films) - 1, user, np.int32), history, films[1:]


def dataset(rows):
    users, histories, films = (np.concatenate(column) for column in zip(*rows))
    columns = {"user": users, "history": histories, "film": films}
    return tf.data.Dataset.from_tensor_slices(columns)


rows = [rows_of(user) for user in range(num_users)]
train = dataset([[column[:-1:EVERY] for column in row] for row in rows])
test = dataset([[column[-1:] for column in row] for row in rows])
train = train.shuffle(100_000, seed=0).batch(512).prefetch(1)
test = test.batch(1024)

# %% [markdown]
# ## Model: the tutorial
#
# Two embeddings and TFRS' retrieval task. Only the query tower is an argument, because
# that is what we are going to change.

# %%
films = tf.data.Dataset.range(1, num_films + 1).map(
    lambda film: tf.cast(film, tf.int32)
)


class FilmModel(tfrs.Model):
    def __init__(self, query, query_tower):
        super().__init__()
        self.query = query  # the column that the query tower reads
        self.query_tower = query_tower
        self.film_tower = tf.keras.layers.Embedding(num_films + 1, 32)
        candidates = films.batch(512).map(lambda film: (film, self.film_tower(film)))
        self.task = tfrs.tasks.Retrieval(
            metrics=tfrs.metrics.FactorizedTopK(candidates)
        )

    def compute_loss(self, rows, training=False):
        return self.task(
            self.query_tower(rows[self.query], training=training),
            self.film_tower(rows["film"]),
            candidate_ids=rows["film"],
            compute_metrics=not training,
        )


def fit(model):
    model.compile(tf.keras.optimizers.Adam(3e-3))
    history = model.fit(train, epochs=EPOCHS, verbose=0)
    metrics = model.evaluate(test, return_dict=True, verbose=0)
    return history.history["total_loss"], metrics


tutorial = FilmModel("user", tf.keras.layers.Embedding(num_users, 32))
tutorial_loss, tutorial_metrics = fit(tutorial)

# %% [markdown]
# The tutorial itself has `Adagrad(0.1)`. Measured on 2026-11-27, after these 6 epochs the
# next film was among the first ten for .024 of the users with Adagrad and for .025 with
# Adam; for the model below .027 with Adagrad and .058 with Adam. So both get Adam, which
# is as good for the one and better for the other.
#
# ## The same model, with a query tower that reads
#
# Here are the ten lines. The embedding turns 20 numbers into 20 vectors and marks the
# zeros as padding; the encoder lets every film look at the earlier ones; the state at
# the newest film is the query.

# %%
query_tower = tf.keras.Sequential(
    [
        tf.keras.layers.Embedding(num_films + 1, 32, mask_zero=True),
        encoders.sasrec(32, num_blocks=1, max_length=LENGTH, seed=0),
        SequencePooling("newest"),
    ]
)
sequential = FilmModel("history", query_tower)
sequential_loss, sequential_metrics = fit(sequential)

# %% [markdown]
# ## Before and after
#
# *Top-k accuracy*: how often the film that a user really chose next is among the k best
# of all 1,682.

# %%
ks = (1, 5, 10, 50, 100)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4))
for offset, label, loss, metrics in (
    (-0.2, "user id (tutorial)", tutorial_loss, tutorial_metrics),
    (0.2, "history, self-attention", sequential_loss, sequential_metrics),
):
    values = [metrics[f"factorized_top_k/top_{k}_categorical_accuracy"] for k in ks]
    bars = left.bar(np.arange(len(ks)) + offset, values, width=0.38, label=label)
    left.bar_label(bars, fmt="%.3f", fontsize=7)
    right.plot(np.arange(1, EPOCHS + 1), loss, marker="o", label=label)
left.set_xticks(range(len(ks)), [f"top {k}" for k in ks])
left.set_title("the next film is among the …")
left.legend(frameon=False)
right.set_title("training loss")
right.set_xlabel("epoch")
right.set_xticks(range(1, EPOCHS + 1))
for ax in (left, right):
    ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# What does it look like for one user? The history on the left, and what each model
# would show next, without films already seen.

# %%
user = 5
seen = log.user(user)[0][:-1]


def best(model, query):
    query = model.query_tower(tf.constant(query))
    scores = tf.matmul(query, model.film_tower.embeddings, transpose_b=True)[0].numpy()
    scores[[0, *seen]] = -np.inf
    return np.argsort(-scores)[:5]


def name(film):
    return titles[log.vocabulary.ids[film - 1]][:34]


print(f"{'last seen':36}{'by user id':36}by history")
by_user, by_history = (
    best(tutorial, [user]),
    best(sequential, [seen[-LENGTH:]]),
)
for past, a, b in zip(seen[-5:], by_user, by_history):
    print(f"{name(past):36}{name(a):36}{name(b)}")

# %% [markdown]
# ## Check
#
# Reading the history finds the next film more often than knowing the user.

# %%
top_10 = "factorized_top_k/top_10_categorical_accuracy"
print(f"{tutorial_metrics[top_10]:.3f} → {sequential_metrics[top_10]:.3f}")
assert sequential_metrics[top_10] > tutorial_metrics[top_10]

# %% [markdown]
# ## Next
#
# - `encoders.esasrec(32, max_length=LENGTH)` is a newer encoder; try it in its place.
# - Negatives here are the films of the same batch, as in the tutorial. Notebook 3 scores
#   all films instead, trains on every position of packed rows, and tests as one should:
#   that is worth more than any change of the encoder.
# - Notebook 2 shows what the encoder computes; notebook 4 exports a model.
