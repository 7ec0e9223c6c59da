"""Stores a ranker's weights by the names of its layers, and starts a new ranker from them.

Input: a Keras network; an exported model's folder.  Output: `weights.npz`; layers that are set and frozen.
Layers with the same name in two models are the same layer (`scorers.networks` gives its layers stable names).
Everything that does not fit is an error; nothing is skipped silently.

A layer inside another layer has the outer name before its own, as in `tower/dense_0`.  Only names and shapes are
compared.  The rows of an embedding, and of the first layer, mean the same only if the vocabularies and the inputs are
the same too; `warm_start` matches rows.
"""

import fnmatch
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tfx_ranking.components.config.training_sections import InitializeFrom
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import versions

KEY = "training.initialize_from"


def write(network: Any, path: str | os.PathLike[str]) -> None:
    """Writes every layer's weights under `<layer>/<variable>`.  Raises ConfigError when two layers share a name.

    network: a built keras.Model.  Equal weights give equal bytes.  A network without weights gives an empty file.
    """
    arrays = {
        f"{layer}/{name}": variable.numpy()
        for layer, own in variables(network).items()
        for name, variable in own.items()
    }
    target = pathlib.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    np.savez(target, **arrays)


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The values by `<layer>/<variable>`.  Raises DataError for a file that is missing or not a weights file."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{os.fspath(path)}: expected a ranker's weights.npz ({error}).") from error


def model_directory(initialize_from: InitializeFrom) -> pathlib.Path:
    """The folder of the SavedModel to start from: the model itself, the model in an artifact, or the serving version.

    Raises ConfigError when there is no model, and for a model without weights.
    """
    model = initialize_from.model
    if "://" in model:
        raise ConfigError(f"{KEY}.model: expected a local folder; got {model}, and object stores cannot be used yet.")
    root = versions.model_directory(model)
    if root is None:
        raise ConfigError(
            f"{KEY}.model: expected an exported or pushed model, or a folder of versions; {model} "
            f"{'has none' if pathlib.Path(model).is_dir() else 'is not there'}."
        )
    if not (root / model_files.WEIGHTS_IN_MODEL).is_file():
        raise ConfigError(
            f"{KEY}.model: {root} has no {model_files.WEIGHTS_IN_MODEL}, from which layers start; export it again."
        )
    return root


def initialize(network: Any, initialize_from: InitializeFrom) -> list[str]:
    """Sets a built network's layers from a model's weights; returns the names of those that were set.

    Without `layers`, all layers that both models have are set.  Raises ConfigError for a name or pattern that matches
    no layer of both, for different variables or shapes, and when the models share no layer.  After an error, no layer
    has changed.
    """
    directory = model_directory(initialize_from)
    stored = by_layer(read(directory / model_files.WEIGHTS_IN_MODEL))
    ours = variables(network)
    wanted = initialize_from.layers
    both = [name for name in ours if name in stored]
    for pattern in wanted:
        if not _chosen(both, [pattern]):
            missing = {"the model": stored, "the new ranker": ours}
            lacking = [where for where, names in missing.items() if not _chosen(names, [pattern])] or ["what both have"]
            raise ConfigError(
                f"{KEY}.layers: no layer {pattern!r} in {' and in '.join(lacking)} ({directory}). "
                f"Layers of both: {', '.join(both) or 'none'}; of the model alone: {_rest(stored, both)}; "
                f"of the new ranker alone: {_rest(ours, both)}."
            )
    chosen = _chosen(both, wanted or ["*"])
    if not chosen:
        raise ConfigError(
            f"{KEY}.model: {directory} and the new ranker have no layer in common. The model has {_rest(stored)}; "
            f"the new ranker has {_rest(ours)}."
        )
    wrong = {name: why for name in chosen if (why := differs(ours[name], stored[name]))}
    if wrong:
        name, why = next(iter(wrong.items()))
        fitting = [name for name in chosen if name not in wrong]
        hint = f"set training.initialize_from.layers to those that fit ({', '.join(fitting)})" if fitting else ""
        raise ConfigError(
            f"{KEY}: layer {name} {why}. Give the new ranker the same inputs and model section as {directory}"
            f"{', or ' + hint if hint else ''}."
        )
    for name in chosen:
        for variable, values in stored[name].items():
            ours[name][variable].assign(values)
    return chosen


def freeze(network: Any, initialize_from: InitializeFrom) -> list[str]:
    """Excludes the layers of `freeze` from training; returns the names of those with weights.

    A frozen batch normalisation uses its moving statistics and does not update them.  Raises ConfigError for a name or
    pattern that matches no layer, and when no layer is left to train.
    """
    table = {name: layer for name, layer in layers(network).items() if layer.weights and layer is not network}
    for pattern in initialize_from.freeze:
        if not _chosen(table, [pattern]):
            raise ConfigError(f"{KEY}.freeze: no layer {pattern!r} in the new ranker. It has {_rest(table)}.")
    frozen = _chosen(table, initialize_from.freeze)
    for name in frozen:
        table[name].trainable = False
    if frozen and not network.trainable_variables:
        raise ConfigError(f"{KEY}.freeze: {list(initialize_from.freeze)} leaves no layer to train; name fewer.")
    return frozen


def layers(network: Any) -> dict[str, Any]:
    """Every layer by its name, an inner layer by `outer/inner`, and the network itself by its own name.

    Raises ConfigError when two layers side by side share a name.
    """
    by_name: dict[str, Any] = {network.name: network}
    seen = {id(network)}

    def walk(parent: Any, prefix: str) -> None:
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:  # a layer used twice is one layer
                continue
            seen.add(id(layer))
            name = prefix + layer.name
            if name in by_name:
                raise ConfigError(
                    f"model.scorer: two layers are called {name!r}, so their weights cannot be distinguished; give "
                    "each a name of its own (name=…)."
                )
            by_name[name] = layer
            walk(layer, name + "/")

    walk(network, "")
    return by_name


def variables(network: Any) -> dict[str, dict[str, Any]]:
    """Each layer's own variables by name, without those of the layers inside it; layers without any left out.

    Raises ConfigError when two layers side by side, or two variables of a layer, share a name.
    """
    own: dict[str, dict[str, Any]] = {}
    for name, layer in layers(network).items():
        inside = {
            id(variable)
            for each in layer._flatten_layers(include_self=False, recursive=True)
            for variable in each.weights
        }
        for variable in layer.weights:
            if id(variable) in inside:
                continue
            if variable.name in own.setdefault(name, {}):
                raise ConfigError(
                    f"model.scorer: layer {name!r} has two variables called {variable.name!r}, which cannot be "
                    "distinguished; give each a name of its own (add_weight(name=…))."
                )
            own[name][variable.name] = variable
    return own


def by_layer(stored: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The result of `read`, grouped by layer."""
    by_layer: dict[str, dict[str, np.ndarray]] = {}
    for key, values in stored.items():
        layer, _, variable = key.rpartition("/")
        by_layer.setdefault(layer, {})[variable] = values
    return by_layer


def _chosen(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The names that a pattern matches.  A pattern that matches a layer matches its inner layers too.

    >>> _chosen(["dense_0", "tower/dense_0", "tower/dense_1"], ["tower"])
    ['tower/dense_0', 'tower/dense_1']
    """
    whole = [each for pattern in patterns for each in (pattern, pattern + "/*")]
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in whole)]


def differs(ours: Mapping[str, Any], stored: Mapping[str, np.ndarray]) -> str:
    """Why a layer cannot be set; "" when it can."""
    if set(ours) != set(stored):
        return f"has the variables {', '.join(ours)} here and {', '.join(stored)} in the model"
    for name, variable in ours.items():
        here, there = list(variable.shape), list(stored[name].shape)
        if here != there:
            return f"has a {name} of shape {here} here and {there} in the model"
    return ""


def _rest(names: Iterable[str], without: Sequence[str] = ()) -> str:
    return ", ".join(name for name in names if name not in without) or "none"
