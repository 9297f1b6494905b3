# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/07_side_information_and_cold_start.ipynb)
#
# # 7. Side information and cold start
#
# | you learn | minutes | data |
# |---|---|---|
# | titles and genres beside the id of a film, and recommending films that nobody has rated yet | 1 | MovieLens-100K |
#
# ## Goal
#
# A model of ids learns a film from those who saw it. A film of tomorrow has no such
# people, but it has a title and genres. We hide 60 films from training completely, tell
# the model what films are *about*, and see whether it recommends the hidden ones to the
# right people.

# %% tags=["skip-execution"]
# In Colab; skip it where the package is installed.
# %pip install -q "tfrs-selfattn[plot] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS needs it, before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import tensorflow as tf

from tfrs_selfattn import data
from tfrs_selfattn.export import (
    NewItems,
    export_recommender,
    load_recommender,
    refresh_recommender,
)
from tfrs_selfattn.features import (
    FeatureSet,
    MultiCategory,
    Text,
    find_feature_table,
    read_feature_table,
)
from tfrs_selfattn.models import ItemContent, presets

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests train for less long
EPOCHS = 2 if FAST else 10
tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Data
#
# The 60 hidden films are drawn among those with 50 ratings and more, so that there is
# something to test with. Every rating of theirs is taken out of the log.

# %%
folder = data.locate_movielens_100k().folder
titles = data.find_titles(folder)
events = data.read_events(folder).collect()
counts = events["item_id"].value_counts().filter(pl.col("count") >= 50)
draw = np.random.default_rng(1)
hidden = sorted(draw.choice(counts["item_id"].sort().to_numpy(), 60, replace=False))

is_hidden = pl.col("item_id").is_in(hidden)
log = data.build_sequences(data.events_from_frame(events.filter(~is_hidden)))
print(f"{len(log.vocabulary)} films to learn from, {len(hidden)} hidden")
print([titles[film] for film in hidden[:4]])

# %% [markdown]
# What is known of films: genres, several a film, and the words of the title. A line each
# declares them; `fit` reads from the training films which words and genres there are.

# %%
features = FeatureSet((MultiCategory("genres"), Text("title")))
table = read_feature_table(find_feature_table(folder, "items"), features)
trained, _ = table.align(log.vocabulary.ids, features)
features = features.fit(trained.raw, table.name)
content = ItemContent.of(features, trained)
print(f"{features.num_tokens} genres, words and pairs of words")

# %% [markdown]
# ## Model
#
# A film's vector is now the sum of one for its id and those of its genres and words.
# `id_dropout` hides the id of a third of the films in every step, so that the model
# learns to do without: that is the state a new film will be in.

# %%
model = presets.sasrec(
    len(log.vocabulary),
    embedding_dim=32,
    num_blocks=1,
    max_length=100,
    content=content,
    id_dropout=0.3,
    seed=0,
)
rows = data.pack_rows(data.leave_one_out(log), row_length=100)
model.compile(tf.keras.optimizers.Adam(3e-3))
_ = model.fit(
    data.training_dataset(rows, batch_size=32, seed=0),
    steps_per_epoch=data.steps_per_epoch(rows, 32),
    epochs=EPOCHS,
    verbose=0,
)

# %% [markdown]
# ## The hidden films arrive
#
# The model goes into service as version 1. Then the hidden films come out: a refresh
# reads their titles and genres and writes version 2, which can recommend them. There is
# no training, and no vector was given.

# %%
base = Path(tempfile.mkdtemp()) / "films"
export_recommender(model, base, vocabulary=log.vocabulary, k=10, titles=titles)
catalogue, _ = table.align([*log.vocabulary.ids, *hidden], features)
refreshed = refresh_recommender(
    base,
    NewItems(
        ids=catalogue.ids,
        titles=[titles[film] for film in catalogue.ids],
        features=catalogue.raw,
    ),
)
print(f"version {refreshed.export.version} knows {len(refreshed.added)} more films")
recommender = load_recommender(base)

# %% [markdown]
# Where did they land? The vectors of the films that were trained on give two directions:
# from horror to children's films, and from science fiction to romance. Along these we
# draw all films. The hidden ones (stars) had no part in either: do they fall on the side
# of their genre?

# %%
embed = tf.saved_model.load(str(recommender.path)).signatures["embed_item"]
nothing = {
    name: tf.constant(values.tolist())
    for name, values in features.missing(len(catalogue.ids)).items()
}
vectors = embed(item=tf.constant(catalogue.ids), **nothing)["embedding"].numpy()
genres = [value.decode().split("|") for value in catalogue.raw["genres"]]
is_new = np.isin(catalogue.ids, hidden)


def of(genre):
    return np.array([genre in each for each in genres])


def direction(start, end):
    """From the mean of one genre to that of another, trained films only."""
    there, here = (vectors[of(g) & ~is_new].mean(axis=0) for g in (end, start))
    return (there - here) / np.linalg.norm(there - here)


x = vectors @ direction("Horror", "Children's")
y = vectors @ direction("Sci-Fi", "Romance")

figure, ax = plt.subplots(figsize=(7, 5))
ax.scatter(x, y, s=6, color="#d0d0d0")
for genre, color in (
    ("Children's", "#2a9d8f"),
    ("Horror", "#d1495b"),
    ("Sci-Fi", "#1f77b4"),
    ("Romance", "#e9a23b"),
):
    old, new = of(genre) & ~is_new, of(genre) & is_new
    ax.scatter(x[old], y[old], s=12, color=color, label=genre)
    ax.scatter(x[new], y[new], s=160, color=color, marker="*", edgecolor="black")
ax.set_title("films in the model; a star was never seen in training")
ax.legend(frameon=False)
ax.set_xlabel("horror → children's")
ax.set_ylabel("science fiction → romance")
figure.tight_layout()

# %% [markdown]
# ## Are they recommended to the right people?
#
# Two people, and what suits them best *among the hidden films*.

# %%
people = {
    "saw Alien, Aliens, Terminator": ["183", "176", "195"],
    "saw Lion King, Aladdin, Beauty and the Beast": ["71", "95", "588"],
}
for who, history in people.items():
    (answer,) = recommender.recommend([history], among=[hidden])
    print(who)
    for film in answer[:4]:
        print("   ", film.title)

# %% [markdown]
# And in numbers: for each user who rated a hidden film, take what they had rated before,
# and look whether the film is among the best ten of the 60. Chance would be one in six.

# %%
targets, histories = [], []
for user in events.sort("timestamp", maintain_order=True).partition_by("user_id"):
    films = user["item_id"].to_list()
    places = [place for place, film in enumerate(films) if film in hidden]
    if places and (before := [f for f in films[: places[-1]] if f not in hidden]):
        targets.append(films[places[-1]])
        histories.append(before[-100:])

answers = recommender.recommend(histories, among=[hidden] * len(histories))
hits = [
    target in [film.id for film in answer]
    for target, answer in zip(targets, answers, strict=True)
]
hit_rate, chance = np.mean(hits), 10 / len(hidden)

figure, ax = plt.subplots(figsize=(6, 1.8))
bars = ax.barh(["chance", "by title and genre"], [chance, hit_rate])
bars[0].set_color("#b0b0b0")
ax.bar_label(bars, fmt="%.2f", padding=3)
ax.set_xlabel(f"the right one of {len(hidden)} new films among 10; {len(hits)} users")
ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# ## Check
#
# Films that nobody has rated are found by those who like them, and they appear in plain
# recommendations beside all others.

# %%
plain = recommender.recommend(histories)
with_new = np.mean([any(film.id in hidden for film in answer) for answer in plain])
print(f"{with_new:.0%} of the users get a new film among their ten")
assert hit_rate > 1.3 * chance, "better than chance, with no rating at all"
assert with_new > 0, "and not only when asked for new films"

# %% [markdown]
# ## Next
#
# - Leave out `Text("title")`, or set `id_dropout=0`, and compare the hit rate.
# - `tfrs-selfattn train --data … --item-features items.csv:genres=multi,title=text` does
#   the same on your own data, and `refresh --items items.csv` adds new items.
# - Image or text vectors from another model go in as `Vector("name")`.
# - `benchmarks/cold_start.py` of the repository measures this with care, beside baselines.
