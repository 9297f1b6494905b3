# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/tfrs-selfattn/tfrs_selfattn/blob/main/examples/05_tensorflow_serving.ipynb)
#
# # 5. TensorFlow Serving
#
# | you learn | minutes | data |
# |---|---|---|
# | starting the stock server on an export, asking it by REST and gRPC, a new film without training, and the way back | 1 | MovieLens-100K |
#
# ## Goal
#
# From a trained model to a running service, and through a day of its life: first
# requests, a new film, and a rollback. The server is the stock TensorFlow Serving; it
# needs nothing of this package.

# %% tags=["skip-execution"]
# In Colab; skip it where the package, or the server, is installed.
# %pip install -q "tfrs-selfattn[serving] @ git+https://github.com/tfrs-selfattn/tfrs_selfattn"
# !curl -s https://storage.googleapis.com/tensorflow-serving-apt/tensorflow-serving.release.pub.gpg > /etc/apt/trusted.gpg.d/tensorflow-serving.asc
# !echo "deb http://storage.googleapis.com/tensorflow-serving-apt stable tensorflow-model-server tensorflow-model-server-universal" > /etc/apt/sources.list.d/tensorflow-serving.list
# !apt-get -qq update && apt-get -qq install tensorflow-model-server

# %%
import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TFRS needs it, before TensorFlow is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import json
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfrs_selfattn import data
from tfrs_selfattn.client import Client, ServerError
from tfrs_selfattn.export import (
    NewItems,
    export_recommender,
    load_recommender,
    refresh_recommender,
)
from tfrs_selfattn.models import presets

FAST = os.environ.get("TFRS_SELFATTN_FAST") == "1"  # tests train for less long
EPOCHS = 2 if FAST else 10
tf.keras.utils.set_random_seed(0)

# %% [markdown]
# ## Data

# %%
folder = data.locate_movielens_100k().folder
log = data.build_sequences(data.read_events(folder))
titles = data.find_titles(folder)
rows = data.pack_rows(data.leave_one_out(log), row_length=100)
films = log.vocabulary.ids
STAR_WARS = ["50", "172", "181"]  # the first three films

# %% [markdown]
# ## Model
#
# Train a small one, and export it as version 1.

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
base = Path(tempfile.mkdtemp()) / "films"
first = export_recommender(model, base, vocabulary=log.vocabulary, k=10, titles=titles)
print(first.path, f"verified on {first.verified} histories")

# %% [markdown]
# ## Start the server
#
# The server watches the folder, loads the highest version, and offers gRPC at one port
# and REST at another. Where it is not installed, as on a machine without root or Docker,
# this notebook says so and asks the same SavedModel in its own process.

# %%
BINARY = shutil.which("tensorflow_model_server")
PORT, REST_PORT = os.environ.get("MODEL_SERVER_PORTS", "8500,8501").split(",")
GRPC, REST = f"localhost:{PORT}", f"http://localhost:{REST_PORT}"
server = None
if BINARY:
    server = subprocess.Popen(
        [
            BINARY,
            f"--port={PORT}",
            f"--rest_api_port={REST_PORT}",
            "--model_name=films",
            f"--model_base_path={base}",
            "--file_system_poll_wait_seconds=1",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    client = Client(GRPC, model="films")
else:
    print("tensorflow_model_server is not installed here: answers come from the")
    print("SavedModel in this process.")


def wait_for(version, seconds=60):
    """Until the server answers with this version and no other."""
    deadline = time.monotonic() + seconds
    while server and time.monotonic() < deadline:
        try:
            known = {one.version: one.state for one in client.status()}
        except ServerError:  # it is still starting
            known = {}
        up = [number for number, state in known.items() if state == "AVAILABLE"]
        if up == [version]:
            return
        time.sleep(0.5)
    assert not server, f"version {version} did not come up"


def ask(history):
    """The version that answers, and what it recommends."""
    if server:
        answer = client.recommend([history])[0]
        return answer.version, answer.ids
    newest = load_recommender(base)
    return newest.version, [film.id for film in newest.recommend([history])[0]]


wait_for(1)
version, answer = ask(STAR_WARS)
print(f"version {version}:", *[titles[film] for film in answer[:5]], sep="\n  ")

# %% [markdown]
# `Client` speaks gRPC and needs no TensorFlow. Over REST any language will do: one POST
# with the inputs of the signature. `""` is padding.

# %%
body = {"signature_name": "serving_default", "inputs": {"history": [STAR_WARS]}}
url = f"{REST}/v1/models/films:predict"
print("POST", url)
print(json.dumps(body))
if server:
    request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as response:
        outputs = json.load(response)["outputs"]
else:
    loaded = tf.saved_model.load(str(first.path))
    found = loaded.signatures["serving_default"](history=tf.constant([STAR_WARS]))
    outputs = {
        "ids": [[film.decode() for film in found["ids"][0].numpy()]],
        "scores": found["scores"].numpy().tolist(),
    }
print(outputs["ids"][0][:5], np.round(outputs["scores"][0][:5], 2))
over_rest = outputs["ids"][0]

# %% [markdown]
# ## Warm-up
#
# The first call of a fresh model is slow: TensorFlow prepares its graph. An export
# brings recorded requests for every signature, which the server replays *before* the
# version takes traffic. Here is what they save: the first calls of a SavedModel that
# nobody warmed up.

# %%
records = first.path / "assets.extra" / "tf_serving_warmup_requests"
count = sum(1 for _ in tf.data.TFRecordDataset(str(records)))
print(f"{count} recorded requests in {records.name}")

cold = tf.saved_model.load(str(first.path)).signatures["serving_default"]
times = []
for _ in range(12):
    started = time.perf_counter()
    cold(history=tf.constant([STAR_WARS]))
    times.append(1000 * (time.perf_counter() - started))

figure, ax = plt.subplots(figsize=(6, 2.8))
ax.bar(range(1, 13), times, color=["#d1495b"] + ["#1f77b4"] * 11)
ax.set_yscale("log")
ax.set_xlabel("call")
ax.set_ylabel("milliseconds")
ax.set_title("a SavedModel without warm-up")
ax.spines[["top", "right"]].set_visible(False)
figure.tight_layout()

# %% [markdown]
# ## A new film, without training
#
# A fourth film of the series comes out. Nobody has seen it, so the model has no vector
# for it; we give it the mean of the three others', as `embed_item` tells them. (Models
# that know items by title and genre make the vector themselves: notebook 7.)
# `refresh_recommender` takes the version in service, not the training data, and writes
# version 2 beside it. The list names everything that may be recommended.

# %%
if server:
    known = [one.vector for one in client.embed_items(STAR_WARS)]
else:
    known = loaded.signatures["embed_item"](item=tf.constant(STAR_WARS))["embedding"]
vector = np.mean(known, axis=0).astype(np.float32)

NEW = "star-wars-4"
refreshed = refresh_recommender(
    base,
    NewItems(
        ids=[*films, NEW],
        titles=[*(titles[film] for film in films), "A Fourth Star Wars (2026)"],
        embeddings=[*[None] * len(films), vector],
    ),
)
print("added:", refreshed.added, "as version", refreshed.export.version)
wait_for(2)
version, with_new = ask(STAR_WARS)
print(f"version {version}:", with_new)

# %% [markdown]
# ## And back
#
# Something is wrong with version 2? Remove its folder. The server goes back to version 1.

# %%
shutil.rmtree(refreshed.export.path)
wait_for(1)
version, after = ask(STAR_WARS)
print(f"version {version}:", after)

# %% [markdown]
# ## Check
#
# gRPC, REST and the model agree; version 2 recommended the new film; after the rollback
# everything is as before.

# %%
assert over_rest == answer == after and version == 1
assert NEW in with_new and NEW not in after
history = tf.constant([log.vocabulary.encode(STAR_WARS)])
scores = model.score(history)[0].numpy()
scores[history[0].numpy() - 1] = -np.inf
assert films[scores.argmax()] == answer[0], (
    "the model in memory puts the same film first"
)

# %%
if server:
    client.close()
    server.terminate()
    server.wait()

# %% [markdown]
# ## Next
#
# - `serving/README.md` of the repository: Docker, batching, monitoring, canaries, load
#   tests. Its compose file starts all of it.
# - `tfrs-selfattn recommend --server localhost:8500 --history "50,172,181"` asks from the
#   shell.
# - Ask for `client.explain([STAR_WARS], [answer[0]])`: why this film?
