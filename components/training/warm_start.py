"""Lets a new ranker begin from the weights of the model that serves.

Input: a built network with its inputs, and the live model's folder.  Output: the network's weights are set, and for
each layer there is a text that says what it began from.

A weight is copied when the thing that it multiplies is the same in both models: the same value of a vocabulary (at
whatever row it is now), the same bucket of a hash, the same feature after the same steps.  All else starts fresh.

Rows are matched in two kinds of layers.  In an embedding, `<level>_<name>_embedding`, row 0 is for unknown ids, and the
rows of the category's ids follow.  In the first layers of a `networks.FlatScorer`, each row belongs to one column
of the inputs.  Of a user's own scorer, only embeddings with these names are matched row by row; the other layers are
copied when name and shapes are equal.

Two things are not carried over.  The statistics of the transform graph (z-scores, quantiles) are computed again in
every run, so equal numbers in the logs may reach the network with different values; and the optimizer starts fresh.
"""

import dataclasses
import json
import pathlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.feature_sections import Feature
from tfx_ranking.components.exported.model_files import CONFIG_IN_MODEL, WEIGHTS_IN_MODEL
from tfx_ranking.components.features import feature_columns
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import Input
from tfx_ranking.components.training import weights

ALL = "all of it"
FRESH = "fresh"
UNKNOWN_ROW = ("unknown",)  # the key of an embedding's row 0
SIDE_BY_SIDE = ("items", "context")  # the order of a network's inputs side by side
Keys = Sequence[Hashable]  # one for each row; equal keys are the same thing in both models


@dataclasses.dataclass(frozen=True)
class Base:
    """The model to begin from, and where the new vocabularies are."""

    directory: pathlib.Path  # `Format-Serving`; without any file when no model serves
    version: str  # "" when no model serves
    digest: str
    vocabularies: pathlib.Path  # the new transform graph's assets


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowKeys:
    """What the rows of one ranker's weights belong to."""

    embeddings: Mapping[str, Keys | str]  # by layer; a str is the reason why the keys are unknown
    columns: Keys | None  # of the inputs side by side; None when unknown
    first: tuple[str, ...]  # the layers that receive the inputs side by side; () for a scorer of the user's own


def begin(network: Any, inputs: Sequence[Input], config: RankingConfig, base: Base) -> dict[str, Any]:
    """Sets the network's weights from the live model's.  Returns what the trainer's history records about it.

    Returns `{"model": {"version", "digest"} or None, "layers": {layer: what it began from}, "why"}`; `why` is the
    reason when nothing is copied.  A live model that cannot be used is not an error: the ranker starts fresh.
    """
    all_fresh = dict.fromkeys(weights.variables(network), FRESH)
    if not base.version:
        return {"model": None, "layers": all_fresh, "why": "nothing serves yet"}
    try:
        stored = weights.by_layer(weights.read(base.directory / WEIGHTS_IN_MODEL))
        live_config = ranking_config.from_selection(json.loads((base.directory / CONFIG_IN_MODEL).read_text()))
    except (ValueError, OSError) as error:  # a ValueError also for invalid JSON and for an invalid config
        return {"model": None, "layers": all_fresh, "why": f"version {base.version} cannot be used: {error}"}
    new = _keys_of_network(network, inputs, config, base.vocabularies)
    live = _keys_of_stored(stored, live_config, base.directory / "assets")
    if new.columns is None and live.columns is None and _as_wide(network, stored, new, live):
        columns = [("numbers", i) for i in range(len(stored[live.first[-1]]["kernel"]))]
        new, live = (dataclasses.replace(each, columns=columns) for each in (new, live))
    layers = copy_weights(network, stored, new, live)
    return {"model": {"version": base.version, "digest": base.digest}, "layers": layers}


def copy_weights(
    network: Any, stored: Mapping[str, Mapping[str, np.ndarray]], new: RowKeys, live: RowKeys
) -> dict[str, str]:
    """Sets each layer, or those of its rows whose keys are in both models.  Returns what each layer began from."""
    began: dict[str, str] = {}
    ours = weights.variables(network)
    for layer in sorted(ours, key=lambda name: name not in new.embeddings):  # embeddings first: columns depend on them
        if layer not in stored:
            began[layer] = f"{FRESH}: the live model does not have this layer"
        elif layer in new.embeddings:
            began[layer] = _embedding(ours[layer], stored[layer], new.embeddings[layer], live.embeddings.get(layer))
        elif layer in new.first or layer in live.first:
            fresh = {name for name, text in began.items() if text.startswith(FRESH)}
            began[layer] = _first(layer, ours[layer], stored[layer], new, live, fresh)
        elif why := weights.differs(ours[layer], stored[layer]):
            began[layer] = f"{FRESH}: it {why}"
        else:
            for name, values in stored[layer].items():
                ours[layer][name].assign(values)
            began[layer] = ALL
    return {layer: began[layer] for layer in ours}


def summary(started: Mapping[str, Any]) -> str:
    """A few words for the run's table.

    started: as `begin` returns it.

    >>> summary({"model": {"version": "3"}, "layers": {"dense_0": "5 of 6 rows", "score": "all of it", "new": "fresh"}})
    'warm start from version 3 (fresh: new)'
    """
    if started["model"] is None:
        return f"warm start: {started['why']}"
    fresh = [layer for layer, text in started["layers"].items() if text.startswith(FRESH)]
    return f"warm start from version {started['model']['version']}{f' (fresh: {_shortened(fresh)})' if fresh else ''}"


def _embedding(
    ours: Mapping[str, Any], stored: Mapping[str, np.ndarray], new: Keys | str, live: Keys | str | None
) -> str:
    if isinstance(new, str) or live is None or isinstance(live, str):
        return f"{FRESH}: {new if isinstance(new, str) else live or 'the live model does not have this input'}"
    variable, values = ours.get("embeddings"), stored.get("embeddings")
    if variable is None or values is None or (variable.shape[0], len(values)) != (len(new), len(live)):
        return f"{FRESH}: expected a row for unknown ids and one for each id"
    if variable.shape[1] != values.shape[1]:
        return f"{FRESH}: it is {variable.shape[1]} wide, the live model's {values.shape[1]}"
    row_of = {key: row for row, key in enumerate(live)}
    if not any(key in row_of for key in new if key != UNKNOWN_ROW):
        return f"{FRESH}: no value in common"
    return _copy_rows(variable, values, new, row_of)


def _first(
    layer: str,
    ours: Mapping[str, Any],
    stored: Mapping[str, np.ndarray],
    new: RowKeys,
    live: RowKeys,
    fresh: set[str],
) -> str:
    """Sets a layer whose rows are the inputs' columns; a variable without these rows (a bias) is copied as it is."""
    if not (layer in new.first and layer in live.first):
        return f"{FRESH}: it receives the inputs in only one of the two models"
    if new.columns is None or live.columns is None:
        return f"{FRESH}: the names of its columns are unknown"
    row_of = {
        key: row for row, key in enumerate(live.columns) if not (isinstance(key, tuple) and key[0] in fresh)
    }  # without the columns of embeddings that start fresh
    if set(ours) != set(stored):
        return f"{FRESH}: it {weights.differs(ours, stored)}"
    by_column = {"kernel"} if "kernel" in ours else set(ours)
    for name, variable in ours.items():
        if variable.shape[name in by_column :] != stored[name].shape[name in by_column :]:
            return f"{FRESH}: its {name} is {list(variable.shape)}, the live model's {list(stored[name].shape)}"
    if not any(key in row_of for key in new.columns):
        return f"{FRESH}: no input in common"
    text = ALL
    for name, variable in ours.items():
        if name in by_column:
            text = _copy_rows(variable, stored[name], new.columns, row_of)
        else:
            variable.assign(stored[name])
    return text


def _copy_rows(variable: Any, values: np.ndarray, new: Keys, row_of: Mapping[Hashable, int]) -> str:
    """Copies the rows whose key is in `row_of`; the other rows stay as they are."""
    rows = variable.numpy()
    known = [(row, row_of[key]) for row, key in enumerate(new) if key in row_of]
    rows[[row for row, _ in known]] = values[[row for _, row in known]]
    variable.assign(rows)
    return ALL if len(known) == len(new) else f"{len(known)} of {len(new)} rows"


def _keys_of_network(network: Any, inputs: Sequence[Input], config: RankingConfig, assets: pathlib.Path) -> RowKeys:
    """The keys of the new network's rows.  assets: the folder with its vocabularies."""
    categories = {each.name: (each.size + 1, each.embedding or 0) for each in inputs if each.kind != "numeric"}
    widths = {each.name: each.size for each in inputs if each.kind == "numeric"}
    named = {f"{level}/numeric": len(feature_columns.numeric_columns(config, level)) for level in SIDE_BY_SIDE}
    all_named = widths == {name: width for name, width in named.items() if width}
    flat = isinstance(network, networks.FlatScorer)
    if flat:  # the linear scorer has embeddings of width 1, whatever width the inputs have
        layer_widths = {layer.name: layer.output_dim for layer in network.embeddings}
        categories = {
            name: (rows, layer_widths[networks.embedding_layer(name)]) for name, (rows, _) in categories.items()
        }
    first = _first_layers([layer.name for layer in network.stack if layer.weights]) if flat else ()
    columns = _columns(config, categories) if all_named and flat else None
    return RowKeys(embeddings=_embeddings(config, categories, assets), columns=columns, first=first)


def _keys_of_stored(
    stored: Mapping[str, Mapping[str, np.ndarray]], config: RankingConfig, assets: pathlib.Path
) -> RowKeys:
    """The keys of the live model's rows, from its weights and its config.  assets: the folder with its vocabularies."""
    names = {networks.embedding_layer(f"{level}/{name}"): f"{level}/{name}" for level, name, _ in _features(config)}
    categories = {}
    for layer, own in stored.items():
        if layer.endswith(networks.EMBEDDING_LAYER) and len(own) == 1:
            level, _, rest = layer.removesuffix(networks.EMBEDDING_LAYER).partition("_")
            [values] = own.values()
            categories[names.get(layer, f"{level}/{rest}")] = (len(values), values.shape[-1])
    scorer = SCORERS.get(config.model.scorer)
    flat = scorer is not None and scorer.builds_flat_scorer
    first = _first_layers(list(stored)) if flat else ()
    columns: Keys | None = None
    if first:
        columns = _columns(config, categories)
        if len(columns) != len(stored[first[-1]]["kernel"]):  # the user's own preprocessing_fn made the numbers
            columns = None
    return RowKeys(embeddings=_embeddings(config, categories, assets), columns=columns, first=first)


def _as_wide(network: Any, stored: Mapping[str, Mapping[str, np.ndarray]], new: RowKeys, live: RowKeys) -> bool:
    """Whether both models have equally many numbers and the same embeddings.

    Numbers from the user's own preprocessing_fn have no names, so equally many of them count as the same.
    """
    if not (new.first and live.first):
        return False
    ours, kernel = weights.variables(network), stored[live.first[-1]]["kernel"]
    widths = {layer: ours[layer]["embeddings"].shape[1] for layer in new.embeddings}
    live_widths = {layer: stored[layer]["embeddings"].shape[1] for layer in live.embeddings}
    return widths == live_widths and len(kernel) == ours[new.first[-1]]["kernel"].shape[0]


def _first_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of a FlatScorer that receive the inputs; the one with a kernel is the last."""
    kernel = "dense_0" if "dense_0" in names else "score"
    return tuple(name for name in ("normalisation_inputs", kernel) if name in names)


def _columns(config: RankingConfig, categories: Mapping[str, tuple[int, int]]) -> Keys:
    """The keys of a FlatScorer's inputs side by side: for each level the numbers, then the embeddings' columns."""
    columns: list[Hashable] = []
    for level in SIDE_BY_SIDE:
        columns += feature_columns.columns(config, level)
        for name in sorted(name for name in categories if name.startswith(f"{level}/")):
            width = categories[name][1]
            columns += [(networks.embedding_layer(name), width, i) for i in range(width)]
    return columns


def _embeddings(
    config: RankingConfig, categories: Mapping[str, tuple[int, int]], assets: pathlib.Path
) -> dict[str, Keys | str]:
    features = {f"{level}/{name}": feature for level, name, feature in _features(config)}
    embeddings: dict[str, Keys | str] = {}
    for name, (rows, _) in categories.items():
        keys = _category(name, features.get(name), rows - 1, assets)
        embeddings[networks.embedding_layer(name)] = keys if isinstance(keys, str) else [UNKNOWN_ROW, *keys]
    return embeddings


def _category(name: str, feature: Feature | None, ids: int, assets: pathlib.Path) -> Keys | str:
    """A key for each id of a category; a str is the reason why the keys are unknown."""
    if feature is None:
        return f"{name} is not a feature of the config, so the meaning of its ids is unknown"
    if feature.hash is not None:
        return [("bucket", i, ids) for i in range(ids)]
    learned = feature.tokens or feature.vocabulary
    if learned is None:
        return [("quantile", i, ids, feature.transform) for i in range(ids)]
    file = assets / feature_columns.vocabulary_file(*name.split("/", 1))
    if not file.is_file():
        return f"there is no vocabulary {file.name}"
    values = file.read_bytes().split(b"\n")
    values = values[:-1] if values[-1] == b"" else values
    if len(values) + learned.num_oov_buckets != ids:
        return f"vocabulary {file.name} has {len(values)} values for {ids} ids"
    buckets = learned.num_oov_buckets
    return [*(("value", value) for value in values), *(("out of vocabulary", i, buckets) for i in range(buckets))]


def _features(config: RankingConfig) -> list[tuple[str, str, Feature]]:
    return [(level, name, each) for level in SIDE_BY_SIDE for name, each in getattr(config, level).items()]


def _shortened(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
