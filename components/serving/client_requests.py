"""Builds requests from list examples, as clients send them.

Input: serialized list examples and a row of `choices.signatures.SIGNATURES`.  Output: the named arrays of one call.
A client leaves out the values that it does not know and no others, so missing values are not sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import AnswerKind, Signature, tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.lists import elwc
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, columns

Feed = dict[str, npt.NDArray[Any]]


class Value(NamedTuple):
    """One value of a list or an item; `kind` is the field of `tf.train.Feature` that its `values` belong to."""

    kind: str
    values: list[Any]


class RawList(NamedTuple):
    """A list's values by their features' names in requests, without those that are missing."""

    context: dict[str, Value]
    items: list[dict[str, Value]]


def feed(row: Signature, list_examples: Sequence[bytes], config: RankingConfig) -> Feed:
    """The inputs of one call: input name → array.

    Protos are an object array of bytes: [list], or, for a signature that takes single items, [item] of all lists.
    Raises ConfigError when the row's kind of request cannot be loaded.
    """
    kind = row.request_kind
    request = kind.load_make()(list_examples, config, extra_item_columns(row.answer_kind, config))
    if kind.tensors:
        return dict(request)
    return {row.input: np.array([*request, None], object)[:-1]}  # None keeps NumPy from guessing a dtype


def extra_item_columns(kind: AnswerKind, config: RankingConfig) -> tuple[str, ...]:
    """The item columns that a request has besides the config's features: the item's id, if the answer returns it."""
    return (config.data.item_id,) if kind.carries_item_ids and config.data.item_id else ()


# The functions `make` of the rows of `REQUESTS`.


def to_elwcs(list_examples: Sequence[bytes], config: RankingConfig, extra_items: Sequence[str] = ()) -> list[bytes]:
    return [to_elwc(each, config, extra_items) for each in list_examples]


def to_sequence_examples(
    list_examples: Sequence[bytes], config: RankingConfig, extra_items: Sequence[str] = ()
) -> list[bytes]:
    """Every second SequenceExample has one Feature for all items, where it can, so that both layouts occur."""
    return [
        to_sequence_example(each, config, together=at % 2 > 0, extra_items=extra_items)
        for at, each in enumerate(list_examples)
    ]


def to_list_examples(
    list_examples: Sequence[bytes], config: RankingConfig, extra_items: Sequence[str] = ()
) -> list[bytes]:
    """The list examples themselves."""
    return list(list_examples)


def to_item_examples(
    list_examples: Sequence[bytes], config: RankingConfig, extra_items: Sequence[str] = ()
) -> list[bytes]:
    return [example for each in list_examples for example in to_examples(each, config, extra_items)]


def to_tensors(list_examples: Sequence[bytes], config: RankingConfig, extra_items: Sequence[str] = ()) -> Feed:
    """A tensor for each feature, [list] or [list, item], vectors with one dimension more, and `sizes`.

    Tensors are padded with the feature's missing value.
    """
    lists = [read(each, config, extra_items) for each in list_examples]
    sizes = np.array([len(each.items) for each in lists], np.int64)
    feed: Feed = {"sizes": sizes}
    for name, column in requested(config, extra_items).items():
        inner = (column.width,) if column.width > 1 else ()
        rows: tuple[int, ...] = (len(lists),)
        rows = rows if column.level == "context" else (*rows, int(sizes.max(initial=0)))
        tensor: npt.NDArray[Any] = np.full(
            (*rows, *inner), b"" if column.dtype == "string" else column.missing, column.numpy
        )
        for at, raw in enumerate(lists):
            if column.level == "context":
                _put(tensor, at, raw.context.get(name), column)
                continue
            for position, item in enumerate(raw.items):
                _put(tensor, (at, position), item.get(name), column)
        feed[tensor_name(name)] = tensor
    return feed


# One list as one proto.


def to_elwc(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> bytes:
    """An `ExampleListWithContext` with one Example for each item, as a client of TensorFlow Ranking sends it.

    It has only the config's features, and the item columns in `extra_items`.  A list without items is an empty proto.
    """
    raw = read(list_example, config, extra_items)
    return elwc.join([_example(item) for item in raw.items], _example(raw.context))


def to_examples(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> list[bytes]:
    """An Example for each item, each with the context's features."""
    raw = read(list_example, config, extra_items)
    return [_example({**raw.context, **item}) for item in raw.items]


def to_sequence_example(
    list_example: bytes, config: RankingConfig, together: bool = False, extra_items: Sequence[str] = ()
) -> bytes:
    """A SequenceExample with one Feature for each item, or, with `together`, one for all items, as ml4ir writes it.

    Features with tokens always have one Feature for each item.  In a Feature for all items, the missing value stands
    for an item that has none.
    """
    from tensorflow.core.example import example_pb2

    raw = read(list_example, config, extra_items)
    table = {name: column for name, column in requested(config, extra_items).items() if column.level == "items"}
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
        for value_of_item in values:
            feature = features.feature.add()
            if value_of_item:
                getattr(feature, kind).value.extend(value_of_item.values)
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def reordered(list_example: bytes, order: npt.NDArray[np.int64], config: RankingConfig) -> bytes:
    """The list example with its items in another order: item i of the result is item order[i] of the input."""
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


def requested(config: RankingConfig, extra_items: Sequence[str] = ()) -> dict[str, Column]:
    """The columns of the features, and of `extra_items`, by their names in requests."""
    table = columns(config)
    return {config.serving.rename.get(name, name): table[name] for name in (*config.features, *extra_items)}


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
            value = _present(values, column)
            if value:
                context[renamed.get(name, name)] = value
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
    """The values of each item; None for an item whose value is missing."""
    if lengths is None:
        lengths = [column.width] * (len(values.values) // column.width)
    start = 0
    for length in lengths:
        yield _present(Value(values.kind, values.values[start : start + length]), column)
        start += length


def _present(value: Value, column: Column) -> Value | None:
    """The value, or None if it is missing."""
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
