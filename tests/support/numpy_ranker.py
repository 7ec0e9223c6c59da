"""Computes the whole ranker in NumPy: raw lists to scores, without TensorFlow, TFX or our components.

Input: lists as plain dicts, read by other people's protos or Python's csv; the training lists, from which it computes
the analyzers' statistics itself; the weights in `ranker.keras` and the vocabulary files beside the SavedModel.
Output: float64 scores.  It shares only the config's keys with our code, so it is an independent reference.
Sums are in float64: expect agreement to about 1e-5 of a score.
"""

import csv
import io
import itertools
import pathlib
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np

from tfx_ranking.components.choices.transform_steps import step_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.feature_sections import Feature

Row = Mapping[str, Any]  # feature → number, bytes, or a list of bytes (tokens); a missing value has no key
List = tuple[Row, Sequence[Row]]  # the context, the items


def read_elwc(records: Iterable[bytes]) -> list[List]:
    """`ExampleListWithContext` records by TensorFlow Serving's own proto."""
    from tensorflow_serving.apis import input_pb2

    protos = [input_pb2.ExampleListWithContext.FromString(record) for record in records]
    return [(_row(proto.context), [_row(example) for example in proto.examples]) for proto in protos]


def read_csv(path: pathlib.Path, group: str, context: Sequence[str]) -> list[List]:
    """Neighbouring rows by group; every value is a str."""
    with path.open(newline="") as file:
        lists = [list(rows) for _, rows in itertools.groupby(csv.DictReader(file), key=lambda row: row[group])]
    return [({name: rows[0][name] for name in context}, rows) for rows in lists]


def read_sequence_examples(records: Iterable[bytes]) -> list[List]:
    """ml4ir's SequenceExamples: all items of a list in one Feature per feature list."""
    from tensorflow.core.example import example_pb2

    lists: list[List] = []
    for record in records:
        proto = example_pb2.SequenceExample.FromString(record)
        columns = {name: _values(each.feature[0]) for name, each in proto.feature_lists.feature_list.items()}
        size = max(map(len, columns.values()))
        items = [{name: column[i] for name, column in columns.items()} for i in range(size)]
        lists.append((_row(proto.context), items))
    return lists


def score(
    lists: Sequence[List], train: Sequence[List], config: RankingConfig, keras_model: str, assets: pathlib.Path
) -> list[np.ndarray]:
    """Float64 [item] scores of each list.

    train: the lists that the analyzers saw.  keras_model: `ranker.keras` of scorer `linear` or `dnn`.  assets: the
    SavedModel's folder of vocabulary files.  bucketize is not done here.
    """
    weights = _weights(keras_model)
    columns: dict[str, np.ndarray | list[list[int]]] = {}
    sizes = np.array([len(items) for _, items in lists])
    for level, features in (("items", config.items), ("context", config.context)):
        rows, of_list = _rows(lists, level)
        train_rows, train_of_list = _rows(train, level)
        numeric, missing = [], []
        for name, feature in features.items():
            if feature.tokens or feature.vocabulary or feature.hash:
                columns[f"{level}/{name}"] = [_ids(row.get(name), feature, f"{level}_{name}", assets) for row in rows]
                continue
            raw, nan = _numbers(rows, name, feature)
            numeric.append(_steps(raw, of_list, _numbers(train_rows, name, feature)[0], train_of_list, feature))
            if feature.indicator:
                missing.append(nan[:, None].astype(np.float64))
        if numeric or missing:
            columns[f"{level}/numeric"] = np.concatenate([*numeric, *missing], axis=1)
    return np.split(_network(columns, sizes, weights), np.cumsum(sizes))[: len(lists)]


def _rows(lists: Sequence[List], level: str) -> tuple[list[Row], np.ndarray]:
    """All rows of a level, and the number of the list that each belongs to."""
    if level == "context":
        return [context for context, _ in lists], np.arange(len(lists))
    return [row for _, items in lists for row in items], np.repeat(np.arange(len(lists)), [len(i) for _, i in lists])


def _numbers(rows: Sequence[Row], name: str, feature: Feature) -> tuple[np.ndarray, np.ndarray]:
    """Float64 [row, width] with missing values filled, and a mask of the missing ones."""
    blank = [np.nan] * feature.width
    present = [row.get(name) not in (None, "", []) for row in rows]
    values = [np.ravel(row[name]) if there else blank for row, there in zip(rows, present, strict=True)]
    raw = np.array(values, np.float32).reshape(len(rows), feature.width).astype(np.float64)
    nan = np.isnan(raw)
    return np.where(nan, float(feature.default or 0), raw), nan.any(axis=1)


def _steps(
    x: np.ndarray, of_list: np.ndarray, train: np.ndarray, train_of_list: np.ndarray, feature: Feature
) -> np.ndarray:
    for step in feature.transform:
        assert step_name(step) != "bucketize"
        if step_name(step) == "clip":
            x, train = np.clip(x, *step.value), np.clip(train, *step.value)
        elif step == "query_normalise":
            x, train = _within_lists(x, of_list), _within_lists(train, train_of_list)
        elif step in _PLAIN:
            x, train = _PLAIN[step](x), _PLAIN[step](train)
        else:
            x, train = _LEARNED[step](x, train), _LEARNED[step](train, train)
    return x


def _z_score(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    deviation = train.std(axis=0)  # divisor n
    return (x - train.mean(axis=0)) / np.where(deviation == 0, 1, deviation)


def _min_max(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    low, high = train.min(axis=0), train.max(axis=0)
    return np.where(high > low, (x - low) / np.where(high > low, high - low, 1), 0)


_PLAIN: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "log1p": lambda x: np.log1p(np.maximum(x, -1 + 2**-24)),  # -1 and less: the float32 above -1
    "sign_log1p": lambda x: np.sign(x) * np.log1p(np.abs(x)),
}
_LEARNED: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {"z_score": _z_score, "min_max": _min_max}


def _within_lists(x: np.ndarray, of_list: np.ndarray) -> np.ndarray:
    result = np.zeros_like(x)
    for number in np.unique(of_list):
        part = x[of_list == number]
        deviation = part.std(axis=0)
        result[of_list == number] = np.where(
            deviation > 0, (part - part.mean(axis=0)) / np.where(deviation > 0, deviation, 1), 0
        )
    return result


def _ids(value: Any, feature: Feature, vocabulary: str, assets: pathlib.Path) -> list[int]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    values = [
        one.encode() if isinstance(one, str) else str(one).encode() if isinstance(one, int) else one for one in values
    ]
    if feature.hash:
        return [_fingerprint(one) % feature.hash.num_buckets for one in values or [b""]]
    if feature.tokens:
        values = [
            token
            for one in values
            for token in (one.decode().lower().encode() if feature.tokens.lower else one).split()
        ]
    elif not values:
        values = [b""]
    entries = (assets / vocabulary).read_bytes().split(b"\n")[:-1]
    place = {entry: i for i, entry in enumerate(entries)}
    oov = (feature.tokens or feature.vocabulary).num_oov_buckets
    return [
        place[one] if one in place else len(entries) + (_fingerprint(one) % oov if oov > 1 else 0) for one in values
    ]


def _fingerprint(value: bytes) -> int:
    import farmhash  # FarmHash's own code: what tf.strings.to_hash_bucket_fast uses

    return int(farmhash.fingerprint64(value.decode()))


def _weights(keras_model: str) -> dict[str, list[np.ndarray]]:
    """Layer → its variables, as in the file."""
    weights: dict[str, list[np.ndarray]] = {}
    with h5py.File(io.BytesIO(zipfile.ZipFile(keras_model).read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, one: (
                weights.setdefault(name.split("/vars/")[0], []).append(np.array(one, np.float64))
                if isinstance(one, h5py.Dataset)
                else None
            )
        )
    return weights


def _network(columns: dict[str, Any], sizes: np.ndarray, weights: dict[str, list[np.ndarray]]) -> np.ndarray:
    """Numbers and embeddings side by side, each list's context beside each of its items, then dense layers."""
    of_items, of_lists, embedding = [], [], 0
    # Numbers first, then categories by name: the order in which the network's first layer has them.
    for name in sorted(columns, key=lambda name: (name.partition("/")[2] != "numeric", name)):
        column = columns[name]
        if not isinstance(column, np.ndarray):
            table = weights[_numbered("embeddings/embedding", embedding)][0]
            embedding += 1  # row 0 is for unknown ids
            column = np.array(
                [table[np.array(row) + 1].mean(axis=0) if row else np.zeros(table.shape[1]) for row in column]
            )
        (of_items if name.startswith("items/") else of_lists).append(column)
    hidden = np.concatenate([*of_items, *(np.repeat(column, sizes, axis=0) for column in of_lists)], axis=1)
    norms = sum("batch_normalization" in name for name in weights)
    layers = sum(name.startswith("layers/dense") for name in weights)
    if norms:
        hidden = _batch_normalise(hidden, weights["layers/batch_normalization"])
    for layer in range(layers):
        kernel, bias = weights[_numbered("layers/dense", layer)]
        hidden = hidden @ kernel + bias
        if layer < layers - 1:
            if norms:
                hidden = _batch_normalise(hidden, weights[_numbered("layers/batch_normalization", layer + 1)])
            hidden = np.maximum(hidden, 0)
    return hidden[:, 0]


def _batch_normalise(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    gamma, beta, mean, variance = weights
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


def _numbered(name: str, number: int) -> str:
    return f"{name}_{number}" if number else name


def _row(example: Any) -> dict[str, Any]:
    row = {}
    for name, feature in example.features.feature.items() if hasattr(example, "features") else example.feature.items():
        values = _values(feature)
        if values:
            row[name] = (
                values
                if isinstance(values[0], bytes) and len(values) > 1
                else values[0]
                if len(values) == 1
                else values
            )
    return row


def _values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []
