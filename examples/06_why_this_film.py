# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/06_why_this_film.ipynb)
#
# # 6. Why this film?
#
# | you learn | minutes | data |
# |---|---|---|
# | three ways to explain a recommendation, how to test which to trust, and where attention weights mislead | 2 | MovieLens-100K |
#
# ## Goal
#
# "Why was this recommended?" For a model of attention it is tempting to draw the
# attention weights and be done. We do draw them, and then measure whether they tell the
# truth, next to two ways that ask the model itself.

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

from tfrs_selfattn import data, explain
from tfrs_selfattn.models import presets

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests use less of everything
EPOCHS, USERS = (2, 60) if FAST else (12, 300)
tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Data

# %%
folder = data.locate_movielens_100k().folder
log = data.build_sequences(data.read_events(folder))
titles = data.find_titles(folder)
split = data.leave_one_out(log)
LENGTH = 50
rows = data.pack_rows(split, row_length=LENGTH)


def name(film):
    return titles[log.vocabulary.ids[film - 1]]


# %% [markdown]
# ## Model
#
# A SASRec of two blocks that reads the newest 50 films.

# %%
model = presets.sasrec(
    len(log.vocabulary), embedding_dim=32, num_blocks=2, max_length=LENGTH, seed=0
)
model.compile(tf.keras.optimizers.Adam(3e-3))
_ = model.fit(
    data.training_dataset(rows, batch_size=32, seed=0),
    steps_per_epoch=data.steps_per_epoch(rows, 32),
    epochs=EPOCHS,
    verbose=0,
)

# %% [markdown]
# ## One recommendation
#
# A short history, oldest first, and the film that the model puts first.

# %%
watched = [
    "Lion King, The (1994)",
    "Aladdin (1992)",
    "Toy Story (1995)",
    "Terminator 2: Judgment Day (1991)",
    "Alien (1979)",
    "Blade Runner (1982)",
]
index_of = {title: log.vocabulary.encode([film])[0] for film, title in titles.items()}
history = np.array([[index_of[title] for title in watched]], np.int32)  # [B, T]
scores = model.score(tf.constant(history))[0].numpy()
scores[history[0] - 1] = -np.inf  # what was seen is not recommended
item = np.array([1 + scores.argmax()], np.int32)  # [B]
print("recommended:", name(item[0]))

# %% [markdown]
# ### Leave one out
#
# The plainest question: how much does the score fall if this film had not been watched?
# The model is asked once for each film, so the answer is exact. Blue speaks for the
# recommendation, red against it.

# %%
explainer = explain.Explainer(model)
left_out = explainer.contributions(history, item)[0].numpy()
explain.bar_plot(left_out, watched, title=f"leave one out: why {name(item[0])}?")

# %% [markdown]
# ### Integrated gradients
#
# Leaving out asks about one film at a time. Integrated gradients share out the whole
# difference between this history and one of average films: the bars sum to it.

# %%
gradients = explainer.contributions(history, item, method="integrated_gradients")
explain.bar_plot(gradients[0], watched, title="integrated gradients")

# %% [markdown]
# ### Attention
#
# Where did each film look? A row is a film that looks, a column one that is looked at;
# the last row makes the recommendation.

# %%
weights = explainer.attention(history)  # one [B, H, T, T] a block
explain.heat_map(weights[-1][0].numpy().mean(axis=0), watched, title="last block")

# %% [markdown]
# *Roll-out* follows these weights through both blocks to the films themselves. Put the
# three beside each other, each scaled to its largest bar:

# %%
rollout = explainer.contributions(history, item, method="attention_rollout")
three = {
    "leave one out": left_out,
    "integrated gradients": gradients[0].numpy(),
    "attention roll-out": rollout[0].numpy(),
}
figure, axes = plt.subplots(1, 3, figsize=(11, 2.8), sharey=True)
for ax, (method, values) in zip(axes, three.items(), strict=True):
    colors = np.where(values >= 0, "#1f77b4", "#d1495b")
    ax.barh(range(len(watched)), values / np.abs(values).max(), color=colors)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_title(method, fontsize=10)
    ax.spines[["top", "right", "left"]].set_visible(False)
axes[0].set_yticks(range(len(watched)), watched)
axes[0].invert_yaxis()
figure.tight_layout()

# %% [markdown]
# Two differences stand out. Attention can never be red: weights are shares, so a film
# that speaks *against* a recommendation looks like one that speaks for it. And attention
# is the same whatever film one asks about: it belongs to the history, not to the
# recommendation. Here is proof.

# %%
most, least = item, np.array([1 + np.where(scores > -np.inf, scores, np.inf).argmin()])
for method in ("leave_one_out", "attention_rollout"):
    a, b = (
        explainer.contributions(history, film, method=method)[0].numpy()
        for film in (most, least)
    )
    same = np.allclose(a, b)
    print(f"{method}: same for {name(most[0])} and {name(least[0])}? {same}")
attention_is_blind = same

# %% [markdown]
# ## Which to trust: delete and see
#
# If an explanation names the films that matter, then without its five first films the
# score must fall more than without five random ones. `deletion` measures both, here for
# many users and the film that each would get first.

# %%
cases = split.test.padded_histories(0, USERS)[:, -LENGTH:]
found = model.score(tf.constant(cases)).numpy()
for row, films in enumerate(cases):
    found[row, films[films > 0] - 1] = -np.inf
recommended = (1 + found.argmax(axis=1)).astype(np.int32)
cases = tf.constant(cases)

falls = {}
for method in ("leave_one_out", "integrated_gradients", "attention_rollout"):
    contribution = explainer.contributions(cases, recommended, method=method)
    lost = explain.deletion(
        explainer.score, cases, recommended, contribution, num_deleted=5
    )
    falls[method] = lost.top.numpy() - lost.random.numpy()

# %%
figure, ax = plt.subplots(figsize=(7, 2.8))
for place, fall in enumerate(falls.values()):
    error = 1.96 * fall.std() / len(fall) ** 0.5
    ax.barh(place, fall.mean(), xerr=error, capsize=3, color="#1f77b4")
ax.axvline(0, color="black", linewidth=0.8)
ax.set_yticks(range(3), [method.replace("_", " ") for method in falls])
ax.invert_yaxis()
ax.set_xlabel("score lost with the 5 first films, beyond 5 random ones (95 % interval)")
ax.spines[["top", "right", "left"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# ## Check
#
# Taking away what leave-one-out names hurts more than taking away films at random, and
# attention says the same whatever it is asked about.

# %%
for method, fall in falls.items():
    print(f"{method:>21}: {fall.mean():+.3f}, above 0 for {np.mean(fall > 0):.0%}")
assert falls["leave_one_out"].mean() > 0
assert falls["leave_one_out"].mean() > falls["attention_rollout"].mean()
assert attention_is_blind

# %% [markdown]
# ## Next
#
# - Swap two films of `watched`, or repeat one, and look at the bars again.
# - An export answers `explain` too: `load_recommender("models/films").explain(…)`, and on
#   the command line `tfrs-selfattn explain models/films --history "50,172,181"`.
# - `python benchmarks/explanations.py` of the repository does this measurement on
#   MovieLens-1M.
