"""Training runs that live in a folder, survive a kill and can be loaded again.

```
config.json        everything needed to rebuild the model
vocabulary.txt     the items, one id a line, in index order
items.csv          item_id, count, title
features.json      what is known beside ids, and its values in *_features.parquet
checkpoints/       last/ (to resume from), best/ (by validation NDCG@10)
metrics.json       validation metrics of each epoch; test metrics once evaluated
tensorboard/       logs
.run.lock          held by the process that trains
```

Training and loading a model need TensorFlow Recommenders, hence legacy Keras;
configurations and folders can be read without TensorFlow.
"""

from __future__ import annotations

from tfrs_selfattn._lazy import lazy_exports

_EXPORTS = {
    "Cluster": "cluster",
    "ClusterError": "cluster",
    "DataConfig": "source",
    "FeaturesConfig": "config",
    "Known": "side_information",
    "ModelConfig": "config",
    "RunConfig": "config",
    "RunFolder": "run_folder",
    "RECIPES": "recipes",
    "STRATEGIES": "cluster",
    "SideInformation": "side_information",
    "TrainingConfig": "config",
    "TrainingDiverged": "divergence",
    "TrainingResult": "trainer",
    "build_model": "trainer",
    "check_output": "run_folder",
    "check_split": "checking",
    "fingerprint": "source",
    "load_model": "trainer",
    "make_strategy": "replicas",
    "recipe": "recipes",
    "train": "trainer",
}

__all__ = list(_EXPORTS)

__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
