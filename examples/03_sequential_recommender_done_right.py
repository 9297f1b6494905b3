# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/03_sequential_recommender_done_right.ipynb)
#
# # 3. A sequential recommender done right
#
# | you learn | minutes | data |
# |---|---|---|
# | packing, what the loss is worth, honest evaluation beside baselines, and traps that flatter a model | 2 | MovieLens-100K |
#
# ## Goal
#
# Most of a sequential recommender's quality comes from things around the encoder: how
# rows are filled, which loss is minimized, and whether the number at the end means what
# one thinks. We go through them one by one.

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

from tfrs_selfattn import data, evaluation, losses
from tfrs_selfattn.models import presets

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests train for less long
EPOCHS, WIDTH = 2 if FAST else 8, 32

# %% [markdown]
# ## Data
#
# Of every user the last film is for the test, the one before for choosing between
# models, and the rest for training. At test time the model also reads the film before
# the last, as it would in use.

# %%
log = data.build_sequences(data.read_events(data.locate_movielens_100k().folder))
split = data.leave_one_out(log)
num_films = len(log.vocabulary)
print(f"{log.num_users} users, {num_films} films, {log.num_events} events")

# %% [markdown]
# ### Packing
#
# Histories have very different lengths. One row a user would be mostly padding, and
# padding costs as much time as films do. `pack_rows` puts several users into a row;
# attention does not cross from one to another.

# %%
LENGTH = 200
padded = data.pack_rows(split, row_length=LENGTH, pack=False)
packed = data.pack_rows(split, row_length=LENGTH)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2))
left.hist(log.lengths, bins=50, color="#1f77b4")
left.set_title("films a user has seen")
left.set_ylabel("users")
shown = np.zeros((60, LENGTH))
shown[:29] = np.where(padded.segment_ids[:29] > 0, 1, 0)
shown[31:] = packed.segment_ids[:29]
right.imshow(
    np.ma.masked_equal(shown, 0), aspect="auto", cmap="tab10", interpolation="nearest"
)
right.set_yticks([14, 45], ["padded", "packed"])
right.set_title("the first rows; a color is a user, white is padding")
figure.tight_layout()
for name, rows in (("padded", padded), ("packed", packed)):
    print(f"{name}: {len(rows)} rows, {rows.fill:.0%} of the places hold a film")

# %% [markdown]
# ## Model: one encoder, four losses
#
# `presets.sasrec` composes SASRec: two towers that share one table of films. We train it
# four times and change the loss alone.
#
# - *Binary cross-entropy, one negative*: the SASRec paper's. The true film against one
#   drawn at random.
# - *gBCE*: 256 negatives, calibrated so that scores are not overconfident.
# - *Sampled softmax*: the true film among 256 drawn ones.
# - *Full softmax*: the true film among all. A block of scores at a time is computed and
#   forgotten, so memory is no reason against it.

# %%
candidates = {
    "BCE, 1 negative": losses.BinaryCrossEntropy(seed=0),
    "gBCE, 256": losses.GBCE(seed=0),
    "sampled softmax, 256": losses.SampledSoftmax(seed=0),
    "full softmax": losses.FullSoftmax(),
}
BATCH = 16


def train(loss):
    tf.keras.utils.set_random_seed(0)
    model = presets.sasrec(
        num_films,
        embedding_dim=WIDTH,
        num_blocks=1,
        max_length=LENGTH,
        loss=loss,
        seed=0,
    )
    model.compile(tf.keras.optimizers.Adam(3e-3))
    model.fit(
        data.training_dataset(packed, batch_size=BATCH, seed=0),
        steps_per_epoch=data.steps_per_epoch(packed, BATCH),
        epochs=EPOCHS,
        verbose=0,
    )
    return model


models = {name: train(loss) for name, loss in candidates.items()}

# %% [markdown]
# ### Honest evaluation
#
# Every film is ranked for every user, films already seen are left out, and a tie counts
# against the model. *HR@10*: how often the true film is among the first ten. Without
# baselines the number says little: so the most popular films, what usually follows the
# last film, films that go together (item-KNN), and EASE, a linear model, stand beside.

# %%
baselines = {
    "most popular": evaluation.MostPopular(split),
    "item to item": evaluation.ItemToItem(split),
    "item-KNN": evaluation.ItemKNN(split),
    "EASE": evaluation.EASE(split),
}
scores = baselines | {name: model.scorer() for name, model in models.items()}
results = {
    name: evaluation.evaluate_ranking(score, split.test)
    for name, score in scores.items()
}

# %%
figure, ax = plt.subplots(figsize=(8, 3.6))
for place, (name, result) in enumerate(results.items()):
    hit_rate = evaluation.bootstrap_intervals(result.ranks)["hr@10"]
    reach = [[hit_rate.value - hit_rate.low], [hit_rate.high - hit_rate.value]]
    color = "#b0b0b0" if name in baselines else "#1f77b4"
    ax.barh(place, hit_rate.value, xerr=reach, color=color, capsize=3)
    ax.text(0.002, place, f"{hit_rate.value:.3f}", va="center", fontsize=8)
ax.set_yticks(range(len(results)), results)
ax.invert_yaxis()
ax.set_xlabel("HR@10 with 95 % intervals over users; grey = baselines")
ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# The intervals are wide: 943 users are few. Whether two models really differ is better
# asked of the same users one by one:

# %%
found = evaluation.compare(
    results["BCE, 1 negative"].ranks, results["full softmax"].ranks
)["hr@10"]
print(f"full softmax − BCE: {found.difference:+.3f}, p = {found.p_value:.4f}")

# %% [markdown]
# ## Traps
#
# **Ranking against a hundred.** Some papers rank the true film among 100 drawn ones.
# The same scores then look several times as good.

# %%
full = scores["full softmax"]
histories = split.test.padded_histories(0, len(split.test))
row = np.arange(len(split.test))
wanted = np.asarray(full(tf.constant(histories)))
drawn = np.random.default_rng(0).integers(num_films, size=(len(row), 100))
true = wanted[row, split.test.targets - 1]
among_100 = (wanted[row[:, None], drawn] >= true[:, None]).sum(axis=1) < 10
print(f"HR@10 among 100: {among_100.mean():.3f}")
print(f"HR@10 among all: {results['full softmax'].metrics['hr@10']:.3f}")

# %% [markdown]
# **Seeing the answer.** A popularity that was counted over all events knows the test.
# `check_no_training_leak` changes what is held out and looks whether scores move.


# %%
def popularity_of_everything(split):
    counts = np.bincount(split.sequences.items, minlength=num_films + 1)[1:]
    return lambda histories: np.tile(counts, (len(histories), 1))


for name, fit in (
    ("most popular in training", evaluation.MostPopular),
    ("most popular of all events", popularity_of_everything),
):
    try:
        evaluation.check_no_training_leak(fit, split)
        print(f"{name}: no leak")
    except evaluation.LeakError as error:
        print(f"{name}: LEAK. {error}")

# %% [markdown]
# **A model that looks ahead.** `check_no_leak` changes the target and everything after
# it, scores again, and wants the same bits.

# %%
evaluation.check_no_leak(full, split.test)
print("the model: no leak")

# %% [markdown]
# **An unstable order.** Many ratings share one second, so a sort that does not keep the
# order of the file mixes up what came last, and with it the test.

# %%
last_times = [log.user(user)[1][-2:] for user in range(log.num_users)]
same_second = np.mean([times[0] == times[1] for times in last_times])
print(f"{same_second:.0%} of the test films share the second of the film before")

# %% [markdown]
# ## Check
#
# The model learned more than what is popular, with the full catalogue ranked.

# %%
popular = results["most popular"].metrics["hr@10"]
model = results["full softmax"].metrics["hr@10"]
print(f"most popular {popular:.3f}, self-attention {model:.3f}")
assert model > popular

# %% [markdown]
# ## Next
#
# - Train for longer, wider (`embedding_dim=64, num_blocks=2`) and watch the validation
#   set, not the test: `validation_data=data.evaluation_dataset(split.validation, …)`.
# - `data.temporal_split(log)` cuts by the clock instead of by user: harder, and closer to
#   what happens in use.
# - `presets.esasrec`, `bert4rec` and `hstu` are other papers' models.
# - The command line does all of this: `tfrs-selfattn train --help`.
