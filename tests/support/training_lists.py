"""Training lists whose best ranking is known, and configs for them."""

import numpy as np
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens
from tfx_ranking.components.training import training_data, weights

BRAND_LIFT = np.array([0.0, 2.0, -2.0, 1.0])


def lists_of(count, seed, width=3):
    """Lists whose labels depend on the first number (its sign depends on the query's wish) and on the brand."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 12, count)
    splits = np.append(0, np.cumsum(lengths))
    total = splits[-1]
    numeric = rng.normal(size=(total, width)).astype(np.float32)
    brand = rng.integers(0, 4, total)
    token_counts = rng.integers(0, 3, total)
    tokens = Tokens(rng.integers(0, 5, token_counts.sum()), np.append(0, np.cumsum(token_counts)))
    wish = rng.integers(0, 2, count)
    worth = numeric[:, 0] * np.where(np.repeat(wish, lengths) == 1, 1, -1) + BRAND_LIFT[brand]
    return ListBatch(
        {
            "group_id": np.array([b"q%d-%d" % (seed, i) for i in range(count)], object),
            "context/wish": wish,
            "context/numeric": wish[:, None].astype(np.float32),
        },
        {
            "items/numeric": numeric,
            "items/brand": brand,
            "items/tags": tokens,
            "label": (worth > 1).astype(np.float32) + (worth > 2),
            "position": np.arange(total) - np.repeat(splits[:-1], lengths) + 1,
        },
        splits,
    )


def config_of(**sections):
    raw = {
        "name": "t",
        "data": {"input": "x", "format": "csv", "position": "rank"},
        "items": {"brand": {"dtype": "string", "vocabulary": {}, "embedding": 3}},
    }
    model = {"hidden": [16, 8], **sections.pop("model", {})}
    training = {"epochs": 3, "batch_lists": 16, "learning_rate": 0.01, **sections.pop("training", {})}
    return ranking_config.parse({**raw, "model": model, "training": training, **sections})


def scores_of(ranker, data):
    ((inputs, _),) = training_data.batches(data, tf.data.Dataset.range(len(data.row_splits) - 1), 10**6)
    return ranker(inputs).numpy()


def exported(folder, ranker):
    """Writes the files that a warm start needs from an exported model."""
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    weights.write(ranker, folder / model_files.WEIGHTS_IN_MODEL)
    return folder
