"""Proof before export: the signatures score proto bytes as the training path scores materialised features.

Enters: list examples of the test split as bytes, the same lists' scores by the training path, a SavedModel.  Leaves:
the largest difference, or a ParityError that names signature, list and feature.  The one idea: the SavedModel is
asked in a process of its own that imports TensorFlow alone, by the loader that TensorFlow Serving runs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.list_examples import ROW_LENGTHS, columns


def to_elwc(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> bytes:
    """One list example as an `ExampleListWithContext`, one Example an item, as a client of TensorFlow Ranking has it.

    Only the config's features go in (and `extra_items`, scalar features of each item); values that are missing are
    left out, so that the parser's own defaults are used.  A list without items gives an empty list.
    """
    from tensorflow.core.example import example_pb2

    source = example_pb2.Example.FromString(list_example).features.feature
    table = {name: column for name, column in columns(config).items() if name in config.features}

    def flat(name: str) -> Any:
        kind = source[name].WhichOneof("kind") if name in source else None
        return kind, list(getattr(source[name], kind).value) if kind else []

    context = example_pb2.Example()
    rows: list[Any] = []

    def add(row: Any, name: str, kind: str, values: list[Any], missing: Any) -> None:
        if values and not all(value == missing or value != value for value in values):
            getattr(row.features.feature[name], kind).value.extend(values)

    for name, column in table.items():
        kind, values = flat(name)
        if column.level == "context" and kind:
            add(context, name, kind, values, None if column.tokens else column.missing)
    wanted = {name: column for name, column in table.items() if column.level == "items"}
    per_item = {name: flat(name + ROW_LENGTHS if column.tokens else name) for name, column in wanted.items()}
    items = max((len(per_item[name][1]) // column.width for name, column in wanted.items()), default=0)
    rows = [example_pb2.Example() for _ in range(items)]
    for name, column in wanted.items():
        kind, values = flat(name)
        lengths = per_item[name][1] if column.tokens else [column.width] * items
        ends = np.cumsum([0, *lengths])
        for row, start, end in zip(rows, ends, ends[1:], strict=False):
            if kind:
                add(row, name, kind, values[start:end], None if column.tokens else column.missing)
    for name in extra_items:
        kind, values = flat(name)
        for row, value in zip(rows, values, strict=True):
            add(row, name, kind, [value], None)
    return b"".join(
        [_field(1, row.SerializeToString(deterministic=True)) for row in rows]
        + [_field(2, context.SerializeToString(deterministic=True))]
    )


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field, so that no proto package of TensorFlow Serving's is needed."""
    size, length = len(payload), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload
