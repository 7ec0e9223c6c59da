"""Requests as clients send them, made from list examples.

Enters: serialized list examples and a row of the table of signatures.  Leaves: the named arrays of one call.  The one
idea: a client leaves out what it does not know and nothing else, so values that are missing are not sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import Signature, tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.lists import elwc
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, columns

Feed = dict[str, npt.NDArray[Any]]


class Value(NamedTuple):
    """One value of a list or an item: `kind` is the field of `tf.train.Feature` that holds its `values`."""

    kind: str
    values: list[Any]


class RawList(NamedTuple):
    """A list by its features' names in requests; what is missing is not there."""

    context: dict[str, Value]
    items: list[dict[str, Value]]


def feed(row: Signature, list_examples: Sequence[bytes], config: RankingConfig) -> Feed:
    """One call's inputs: input name → array.

    Protos are an object array of bytes, [list], or [item] of all lists where the signature takes items; tensors are
    padded with the missing value.  Of SequenceExamples every second one has one Feature for all items, where it can.
    """
    ids = (config.data.item_id,) if row.answer == "ranked" and config.data.item_id else ()
    if row.request == "tensors":
        return to_tensors(list_examples, config)
    if row.request == "list_example":
        protos = list(list_examples)
    elif row.request == "elwc":
        protos = [to_elwc(one, config, ids) for one in list_examples]
    elif row.request == "sequence_example":
        protos = [to_sequence_example(one, config, together=at % 2 > 0) for at, one in enumerate(list_examples)]
    else:
        protos = [proto for one in list_examples for proto in to_examples(one, config)]
    return {row.input: np.array([*protos, None], object)[:-1]}  # None keeps NumPy from guessing a dtype


def to_elwc(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> bytes:
    """An `ExampleListWithContext`, one Example an item, as a client of TensorFlow Ranking has it.

    Only the config's features go in (and `extra_items`, features of each item).  No items give an empty list.
    """
    raw = read(list_example, config, extra_items)
    return elwc.join([_example(item) for item in raw.items], _example(raw.context))


def to_examples(list_example: bytes, config: RankingConfig) -> list[bytes]:
    """An Example an item, the context's features in each."""
    raw = read(list_example, config)
    return [_example({**raw.context, **item}) for item in raw.items]


def to_sequence_example(list_example: bytes, config: RankingConfig, together: bool = False) -> bytes:
    """A SequenceExample with one Feature an item, or, `together`, with one for all items, as ml4ir writes it.

    Several tokens of an item keep a Feature of their own; a value that is missing among others is written as such.
    """
    from tensorflow.core.example import example_pb2

    raw = read(list_example, config)
    table = {name: column for name, column in requested(config).items() if column.level == "items"}
    example = example_pb2.SequenceExample()
    for name, value in sorted(raw.context.items()):
        getattr(example.context.feature[name], value.kind).value.extend(value.values)
    for name, column in table.items():
        values = [item.get(name) for item in raw.items]
        if not any(values):
            continue
        features = example.feature_lists.feature_list[name]
        kind = next(value.kind for value in values if value)
        if together and not column.tokens:
            blank = [column.missing] * column.width
            flat = [each for value in values for each in (value.values if value else blank)]
            getattr(features.feature.add(), kind).value.extend(flat)
            continue
        for one in values:
            feature = features.feature.add()
            if one:
                getattr(feature, kind).value.extend(one.values)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def to_tensors(list_examples: Sequence[bytes], config: RankingConfig) -> Feed:
    """A tensor a feature, [list] or [list, item], vectors with one dimension more, and `sizes`."""
    lists = [read(one, config) for one in list_examples]
    sizes = np.array([len(one.items) for one in lists], np.int64)
    feeds: Feed = {"sizes": sizes}
    for name, column in requested(config).items():
        inner = (column.width,) if column.width > 1 else ()
        rows: tuple[int, ...] = (len(lists),)
        rows = rows if column.level == "context" else (*rows, int(sizes.max(initial=0)))
        tensor: npt.NDArray[Any] = np.full(
            (*rows, *inner), b"" if column.dtype == "string" else column.missing, column.numpy
        )
        for at, one in enumerate(lists):
            if column.level == "context":
                _put(tensor, at, one.context.get(name), column)
                continue
            for place, item in enumerate(one.items):
                _put(tensor, (at, place), item.get(name), column)
        feeds[tensor_name(name)] = tensor
    return feeds


def reordered(list_example: bytes, order: npt.NDArray[np.int64], config: RankingConfig) -> bytes:
    """The list example with its items in another order: order[i] is the place of the item that comes i-th."""
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example.FromString(list_example)
    features = example.features.feature
    for name, column in columns(config).items():
        values = _values(features, name)
        if column.level != "items" or not values.values:
            continue
        lengths = _values(features, name + ROW_LENGTHS).values if column.tokens else [column.width] * len(order)
        ends = np.cumsum([0, *lengths])
        moved = [value for at in order for value in values.values[ends[at] : ends[at + 1]]]
        getattr(features[name], values.kind).value[:] = moved
        if column.tokens:
            features[name + ROW_LENGTHS].int64_list.value[:] = [lengths[at] for at in order]
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def requested(config: RankingConfig) -> dict[str, Column]:
    """The features' columns by their names in requests."""
    table = columns(config)
    return {config.serving.rename.get(name, name): table[name] for name in config.features}


def read(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> RawList:
    """A list example's features, by their names in requests."""
    from tensorflow.core.example import example_pb2

    source = example_pb2.Example.FromString(list_example).features.feature
    table, renamed = columns(config), config.serving.rename
    context: dict[str, Value] = {}
    per_item: dict[str, list[Value | None]] = {}
    for name in (*config.features, *extra_items):
        column, values = table[name], _values(source, name)
        if column.level == "context":
            found = [_present(values, column)] if values else [None]
            context.update({renamed.get(name, name): value for value in found if value})
            continue
        lengths = _values(source, name + ROW_LENGTHS).values if column.tokens else None
        per_item[renamed.get(name, name)] = list(_cut(values, column, lengths))
    count = max(map(len, per_item.values()), default=0)
    items = [
        {name: value for name, values in per_item.items() if at < len(values) and (value := values[at])}
        for at in range(count)
    ]
    return RawList(context, items)


def _values(source: Mapping[str, Any], name: str) -> Value:
    kind = source[name].WhichOneof("kind") if name in source else None
    return Value(kind or "", list(getattr(source[name], kind).value) if kind else [])


def _cut(values: Value, column: Column, lengths: list[int] | None) -> Iterator[Value | None]:
    """An item's values after the other's."""
    if lengths is None:
        lengths = [column.width] * (len(values.values) // column.width)
    start = 0
    for length in lengths:
        yield _present(Value(values.kind, values.values[start : start + length]), column)
        start += length


def _present(value: Value, column: Column) -> Value | None:
    """The value, None where it is missing."""
    if not value.values:
        return None
    if column.tokens:
        return value
    missing = all(each == column.missing or each != each for each in value.values)
    return None if missing else value


def _put(tensor: npt.NDArray[Any], at: Any, value: Value | None, column: Column) -> None:
    if value is None:
        return
    if column.tokens:
        tensor[at] = b" ".join(value.values)  # as the text was before it was cut at white space
    else:
        tensor[at] = value.values if column.width > 1 else value.values[0]


def _example(features: Mapping[str, Value]) -> bytes:
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    for name, value in features.items():
        getattr(example.features.feature[name], value.kind).value.extend(value.values)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized
