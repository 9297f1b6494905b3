# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/04_index_and_export.ipynb)
#
# # 4. Index and export
#
# | you learn | minutes | data |
# |---|---|---|
# | finding the best of many candidates fast, tuning recall against time, and one SavedModel with everything inside | 1 | MovieLens-100K |
#
# ## Goal
#
# A trained model gives vectors. A service has to find, for the vector of a history, the
# best candidates among all, without those already seen, within milliseconds. That is the
# work of an index. At the end everything goes into one SavedModel, which takes ids and
# gives ids.

# %% tags=["skip-execution"]
# In Colab; skip it where the package is installed.
# %pip install -q "tfrs-selfattn[plot] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS needs it, before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import time

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfrs_selfattn import data
from tfrs_selfattn.export import export_recommender, load_recommender
from tfrs_selfattn.index import ExactTopK, PartitionedTopK
from tfrs_selfattn.models import presets

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests use less of everything
EPOCHS, CATALOGUE, CALLS = (1, 4_000, 5) if FAST else (8, 50_000, 50)
tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Data

# %%
folder = data.locate_movielens_100k().folder
log = data.build_sequences(data.read_events(folder))
titles = data.find_titles(folder)
split = data.leave_one_out(log)
rows = data.pack_rows(split, row_length=100)
films = np.array(log.vocabulary.ids)

# %% [markdown]
# ## Model
#
# A small SASRec. Notebook 3 says how to train one well.

# %%
model = presets.sasrec(
    len(films), embedding_dim=32, num_blocks=1, max_length=100, seed=0
)
model.compile(tf.keras.optimizers.Adam(3e-3))
_ = model.fit(
    data.training_dataset(rows, batch_size=32, seed=0),
    steps_per_epoch=data.steps_per_epoch(rows, 32),
    epochs=EPOCHS,
    verbose=0,
)
queries = model.query_tower(
    split.test.padded_histories(0, len(split.test)), training=False
).numpy()  # [B, D], one a user
candidates = model.candidate_tower.catalogue().numpy()  # [N, D], one a film
queries.shape, candidates.shape

# %% [markdown]
# ## Exclusions
#
# `ExactTopK` scores every candidate. It takes the place of `BruteForce` of TFRS. What is
# excluded never shortens the answer, and a list of any width will do.

# %%
exact = ExactTopK(k=5)
exact.index(tf.constant(candidates), tf.constant(films))
query = tf.constant(queries[:1])
_, best = exact(query)
_, others = exact.query_with_exclusions(query, best[:, :3])


def names(ids):
    return [titles[film.decode()] for film in ids.numpy()[0]]


print("best:           ", names(best))
print("without 3 of them:", names(others))

# %% [markdown]
# ## A larger catalogue
#
# 1,682 films need no clever index. So let us pretend to be a larger shop: copies of the
# films' vectors, each moved a little. This is the one place where data is made up.

# %%
draw = np.random.default_rng(0)
origin = draw.integers(len(candidates), size=CATALOGUE)
spread = candidates.std(axis=0)
many = candidates[origin] + draw.normal(0, 0.6 * spread, (CATALOGUE, 32))
many = tf.constant(many, tf.float32)
numbers = tf.range(CATALOGUE)

started = time.perf_counter()
index = PartitionedTopK(k=20, seed=0)
index.index(many, numbers)
print(f"built in {time.perf_counter() - started:.1f} s")

reference = ExactTopK(k=20)
reference.index(many, numbers)
asked = tf.constant(queries[:200])
truth = reference(asked)[1].numpy()

# %% [markdown]
# `PartitionedTopK` puts similar candidates into leaves and looks into the leaves that fit
# a query best. More leaves: more of the true best are found (*recall*), and more time.


# %%
def milliseconds(layer):
    """The median time of one query, as a server would run it: in a graph."""
    ask = tf.function(lambda query: layer(query))
    ask(asked[:1])
    times = []
    for number in range(CALLS):
        started = time.perf_counter()
        ask(asked[number : number + 1])
        times.append(time.perf_counter() - started)
    return 1000 * np.median(times)


def recall(layer):
    found = layer(asked)[1].numpy()
    return np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)])


curve = []
for leaves in (1, 4, 16, 64, 256):
    index.num_leaves_to_search = leaves
    curve.append((leaves, recall(index), milliseconds(index)))
exact_time = milliseconds(reference)

# %%
figure, ax = plt.subplots(figsize=(7, 3.6))
leaves, recalls, times = zip(*curve, strict=True)
ax.plot(times, recalls, marker="o", label="PartitionedTopK, by leaves searched")
for count, y, x in curve:
    ax.annotate(
        f"{count}", (x, y), textcoords="offset points", xytext=(6, -10), fontsize=8
    )
ax.plot(exact_time, 1.0, "s", color="#d1495b", label="ExactTopK")
ax.set_xscale("log")
ax.set_xlabel("milliseconds a query (median, batch 1)")
ax.set_ylabel("recall of the best 20")
ax.set_title(f"{CATALOGUE:,} candidates, here and now")
ax.grid(alpha=0.3)
ax.legend(frameon=False, loc="lower right")
figure.tight_layout()

# %% [markdown]
# You need not read the setting off the picture: `tune` finds the cheapest one that
# reaches a recall on your queries.

# %%
tuning = index.tune(asked, target_recall=0.95)
print(tuning.chosen)
tuned_recall = recall(index)

# %% [markdown]
# ## Export
#
# Query tower, vocabulary, index, popularity and exclusions in one folder, in stock
# TensorFlow operations. Before the folder gets its name, a process that imports nothing
# but TensorFlow loads it and must give the model's answers.

# %%
done = export_recommender(
    model, "models/films", vocabulary=log.vocabulary, k=10, titles=titles
)
for path in sorted(done.path.rglob("*")):
    if path.is_file():
        size = path.stat().st_size
        print(f"{size:>10,}  {path.relative_to(done.path.parent)}")

# %% [markdown]
# A *signature* is a function that a server offers. Names and shapes are the same for
# every export; `None` is a size that may vary.

# %%
for name, described in done.manifest["signatures"].items():
    print(name)
    for kind in ("inputs", "outputs"):
        for argument, spec in described[kind].items():
            print(f"    {kind[:-1]:7}{argument:14}{spec['dtype']:9}{spec['shape']}")

# %% [markdown]
# The file itself asks for nothing of this package:

# %%
loaded = tf.saved_model.load(str(done.path))
answer = loaded.signatures["serving_default"](history=tf.constant([["50", "172", ""]]))
for film, score in zip(answer["ids"][0].numpy(), answer["scores"][0].numpy()):
    print(f"{score:6.2f}  {titles[film.decode()]}")

# %% [markdown]
# ## Check
#
# What the export answers is what the model says, and the tuned index found what it was
# asked to find.

# %%
user = 7
history = log.vocabulary.decode(split.test.history(user))
answered = [film.id for film in load_recommender(done.path).recommend([history])[0]]

seen = tf.constant([[film.encode() for film in history]])
top_10 = ExactTopK(k=10)
top_10.index(tf.constant(candidates), tf.constant(films))
_, expected = top_10.query_with_exclusions(tf.constant(queries[user : user + 1]), seen)
assert answered == [film.decode() for film in expected.numpy()[0]]
assert not set(answered) & set(history), "nothing that was seen is recommended"
assert tuned_recall >= 0.95

# %% [markdown]
# ## Next
#
# - `PartitionedTopK(quantization="int8", num_reordering_candidates=200)` takes a quarter
#   of the memory; draw its curve into the same picture.
# - `export_recommender(…, index=index)` exports with a tuned index.
# - Notebook 5 puts the folder behind TensorFlow Serving.
# - `benchmarks/index.py` of the repository compares with ScaNN and FAISS.
