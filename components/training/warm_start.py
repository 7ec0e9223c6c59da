"""A new ranker that begins from the model that serves: layers by name, their rows by what these stand for.

Enters: a built network with its inputs, the live model's folder.  Leaves: weights set, and of each layer what it began
from.  The one idea: a weight is taken over where what it multiplies is the same in both models: a vocabulary's value
wherever it stands now, a hash's bucket, a feature's column behind the same steps.  All else starts fresh, and is said.

Rows have a meaning in two places.  An embedding, `<level>_<name>_embedding`: row 0 is for unknown ids, then the
category's ids.  And the layers that take the inputs side by side, in `scorers.FlatScorer`'s order.  Of a scorer of the
user's own only the embeddings called so are matched by value; its other layers are taken by name and shapes.

Statistics of the transform graph (z-scores, quantiles) are learned anew in every run, so a number that is the same in
the logs may reach the network as another; the optimizer's moments start fresh.
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
UNKNOWN_ROW = ("unknown",)  # an embedding's row 0
SIDE_BY_SIDE = ("items", "context")  # the order of a network's inputs side by side
Rows = Sequence[Hashable]  # what each row stands for


@dataclasses.dataclass(frozen=True)
class Base:
    """The model to begin from, and where the new vocabularies are."""

    directory: pathlib.Path  # `Format-Serving`; without a file when nothing serves
    version: str  # "" when nothing serves
    digest: str
    vocabularies: pathlib.Path  # the new transform graph's assets


@dataclasses.dataclass(frozen=True)
class Meaning:
    """What the rows of a ranker's weights stand for."""

    embeddings: Mapping[str, Rows | str]  # by layer; text says why it is not known
    columns: Rows | None  # of the inputs side by side; None: not known
    first: tuple[str, ...]  # layers that take them; none of a scorer of the user's own


def begin(network: Any, inputs: Sequence[Input], config: RankingConfig, base: Base) -> dict[str, Any]:
    """Sets the network's weights from the live model's; what the trainer's history says of it.

    Returns `{"model": {"version", "digest"} or None, "layers": {layer: what it began from}, "why"}`; `why` is there
    when nothing is taken over.  A live model that cannot be begun from is no error: the ranker starts fresh.
    """
    fresh = dict.fromkeys(weights.variables(network), FRESH)
    if not base.version:
        return {"model": None, "layers": fresh, "why": "nothing serves yet"}
    try:
        stored = weights.by_layer(weights.read(base.directory / WEIGHTS_IN_MODEL))
        theirs = ranking_config.from_selection(json.loads((base.directory / CONFIG_IN_MODEL).read_text()))
    except (ValueError, OSError) as error:  # among them what is no JSON and what is no config
        return {"model": None, "layers": fresh, "why": f"version {base.version} cannot be begun from: {error}"}
    here = _meaning_here(inputs, config, base.vocabularies, network)
    there = _meaning_there(stored, theirs, base.directory / "assets")
    if here.columns is None and there.columns is None and _as_wide(network, stored, here, there):
        columns = [("numbers", i) for i in range(len(stored[there.first[-1]]["kernel"]))]
        here, there = (dataclasses.replace(each, columns=columns) for each in (here, there))
    layers = take_over(network, stored, here, there)
    return {"model": {"version": base.version, "digest": base.digest}, "layers": layers}


def take_over(
    network: Any, stored: Mapping[str, Mapping[str, np.ndarray]], here: Meaning, there: Meaning
) -> dict[str, str]:
    """Sets each layer, or the rows of it, that mean the same; each layer to what it began from."""
    said: dict[str, str] = {}
    ours = weights.variables(network)
    for layer in sorted(ours, key=lambda name: name not in here.embeddings):  # embeddings first: columns go by them
        if layer not in stored:
            said[layer] = f"{FRESH}: the live model has none"
        elif layer in here.embeddings:
            said[layer] = _embedding(ours[layer], stored[layer], here.embeddings[layer], there.embeddings.get(layer))
        elif layer in here.first or layer in there.first:
            fresh = {name for name, how in said.items() if how.startswith(FRESH)}
            said[layer] = _first(layer, ours[layer], stored[layer], here, there, fresh)
        elif why := weights.differs(ours[layer], stored[layer]):
            said[layer] = f"{FRESH}: it {why}"
        else:
            for name, values in stored[layer].items():
                ours[layer][name].assign(values)
            said[layer] = ALL
    return {layer: said[layer] for layer in ours}


def summary(started: Mapping[str, Any]) -> str:
    """A few words for the run's table.

    >>> summary({"model": {"version": "3"}, "layers": {"dense_0": "5 of 6 rows", "score": "all of it", "new": "fresh"}})
    'warm start from version 3 (fresh: new)'
    """
    if started["model"] is None:
        return f"warm start: {started['why']}"
    fresh = [layer for layer, how in started["layers"].items() if how.startswith(FRESH)]
    return f"warm start from version {started['model']['version']}{f' (fresh: {_list(fresh)})' if fresh else ''}"


def _embedding(
    ours: Mapping[str, Any], theirs: Mapping[str, np.ndarray], here: Rows | str, there: Rows | str | None
) -> str:
    if isinstance(here, str) or there is None or isinstance(there, str):
        return f"{FRESH}: {here if isinstance(here, str) else there or 'it is no input of the live model'}"
    variable, values = ours.get("embeddings"), theirs.get("embeddings")
    if variable is None or values is None or (variable.shape[0], len(values)) != (len(here), len(there)):
        return f"{FRESH}: expected a row for unknown ids and one for each id"
    if variable.shape[1] != values.shape[1]:
        return f"{FRESH}: it is {variable.shape[1]} wide, the live model's {values.shape[1]}"
    at = {key: row for row, key in enumerate(there)}
    if not any(key in at for key in here if key != UNKNOWN_ROW):
        return f"{FRESH}: no value in common"
    return _rows(variable, values, here, at)


def _first(
    layer: str,
    ours: Mapping[str, Any],
    theirs: Mapping[str, np.ndarray],
    here: Meaning,
    there: Meaning,
    fresh: set[str],
) -> str:
    """A layer whose rows are the inputs' columns; what does not depend on them (a bias) is taken as it is."""
    if not (layer in here.first and layer in there.first):
        return f"{FRESH}: it takes the inputs in one of the two models only"
    if here.columns is None or there.columns is None:
        return f"{FRESH}: what its columns are cannot be told"
    at = {key: row for row, key in enumerate(there.columns) if not (isinstance(key, tuple) and key[0] in fresh)}
    if set(ours) != set(theirs):
        return f"{FRESH}: it {weights.differs(ours, theirs)}"
    by_column = {"kernel"} if "kernel" in ours else set(ours)
    for name, variable in ours.items():
        if variable.shape[name in by_column :] != theirs[name].shape[name in by_column :]:
            return f"{FRESH}: its {name} is {list(variable.shape)}, the live model's {list(theirs[name].shape)}"
    if not any(key in at for key in here.columns):
        return f"{FRESH}: no input in common"
    said = ALL
    for name, variable in ours.items():
        if name in by_column:
            said = _rows(variable, theirs[name], here.columns, at)
        else:
            variable.assign(theirs[name])
    return said


def _rows(variable: Any, values: np.ndarray, here: Rows, at: Mapping[Hashable, int]) -> str:
    new = variable.numpy()
    known = [(row, at[key]) for row, key in enumerate(here) if key in at]
    new[[row for row, _ in known]] = values[[row for _, row in known]]
    variable.assign(new)
    return ALL if len(known) == len(here) else f"{len(known)} of {len(here)} rows"


def _meaning_here(inputs: Sequence[Input], config: RankingConfig, assets: pathlib.Path, network: Any) -> Meaning:
    categories = {each.name: (each.size + 1, each.embedding or 0) for each in inputs if each.kind != "numeric"}
    numeric = {each.name: each.size for each in inputs if each.kind == "numeric"}
    named = {
        f"{level}/numeric": len(feature_columns.numeric_columns(config, level)) for level in feature_columns.LEVELS
    }
    explained = numeric == {name: width for name, width in named.items() if width}
    flat = isinstance(network, networks.FlatScorer)
    if flat:  # the linear scorer's embeddings are of another width than the inputs say
        widths = {layer.name: layer.output_dim for layer in network.embeddings}
        categories = {name: (rows, widths[networks.embedding_layer(name)]) for name, (rows, _) in categories.items()}
    first = _first_layers([layer.name for layer in network.stack if layer.weights]) if flat else ()
    columns = _columns(config, categories) if explained and flat else None
    return Meaning(_embeddings(config, categories, assets), columns, first)


def _meaning_there(
    stored: Mapping[str, Mapping[str, np.ndarray]], config: RankingConfig, assets: pathlib.Path
) -> Meaning:
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
    columns: Rows | None = None
    if first:
        columns = _columns(config, categories)
        if len(columns) != len(stored[first[-1]]["kernel"]):  # a preprocessing_fn of the user's own made the numbers
            columns = None
    return Meaning(_embeddings(config, categories, assets), columns, first)


def _as_wide(network: Any, stored: Mapping[str, Mapping[str, np.ndarray]], here: Meaning, there: Meaning) -> bool:
    """Numbers that a preprocessing_fn of the user's own made have no names: they count as the same where as many stand
    beside the same embeddings."""
    if not (here.first and there.first):
        return False
    ours, kernel = weights.variables(network), stored[there.first[-1]]["kernel"]
    widths = {layer: ours[layer]["embeddings"].shape[1] for layer in here.embeddings}
    theirs = {layer: stored[layer]["embeddings"].shape[1] for layer in there.embeddings}
    return widths == theirs and len(kernel) == ours[here.first[-1]]["kernel"].shape[0]


def _first_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of a FlatScorer that take the inputs, the one with a kernel last."""
    kernel = "dense_0" if "dense_0" in names else "score"
    return tuple(name for name in ("normalisation_inputs", kernel) if name in names)


def _columns(config: RankingConfig, categories: Mapping[str, tuple[int, int]]) -> Rows:
    """What a FlatScorer's inputs side by side are: by level numbers, then embeddings; (layer or feature, …) each."""
    columns: list[Hashable] = []
    for level in SIDE_BY_SIDE:
        columns += feature_columns.columns(config, level)
        for name in sorted(name for name in categories if name.startswith(f"{level}/")):
            width = categories[name][1]
            columns += [(networks.embedding_layer(name), width, i) for i in range(width)]
    return columns


def _embeddings(
    config: RankingConfig, categories: Mapping[str, tuple[int, int]], assets: pathlib.Path
) -> dict[str, Rows | str]:
    features = {f"{level}/{name}": feature for level, name, feature in _features(config)}
    found: dict[str, Rows | str] = {}
    for name, (rows, _) in categories.items():
        meaning = _category(name, features.get(name), rows, assets)
        found[networks.embedding_layer(name)] = meaning if isinstance(meaning, str) else [UNKNOWN_ROW, *meaning]
    return found


def _category(name: str, feature: Feature | None, rows: int, assets: pathlib.Path) -> Rows | str:
    """What each id of a category stands for; text says why that is not known."""
    ids = rows - 1
    if feature is None:
        return f"{name} is no feature of the config, so what its ids stand for is not known"
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
    return [(level, name, each) for level in feature_columns.LEVELS for name, each in getattr(config, level).items()]


def _list(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
