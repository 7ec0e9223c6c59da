"""What a scorer's network receives: a flat dict of tensors, by the names of the transform graph's outputs.

Input: the transform graph's outputs, ragged by list.  Output: the same values without the list axis, the items of all
lists one after another, so that no padding is ever computed:

* `items/<name>`: float32 [item, width], or int64 [item] ids of a category,
* `context/<name>`: the same, one row per list,
* tokens: the ids of all rows one after another, and `<name>/row_lengths`, int64 [item] or [list],
* `row_lengths`: int64 [list], the number of items of each list.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS
from tfx_ranking.components.lists.ragged import as_ragged

DEFAULT_EMBEDDING = 16  # width when the config has no `embedding`; a category with fewer ids gets as many as it has ids


@dataclasses.dataclass(frozen=True)
class Input:
    """One tensor that the network receives."""

    name: str  # items/… or context/…
    kind: str  # numeric, category or tokens
    size: int  # numeric: width; else the number of ids, 0 to size - 1
    embedding: int | None = None  # width of the embedding of a category or tokens

    @property
    def per_item(self) -> bool:
        return self.name.startswith("items/")


def network_inputs(transformed: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The transform graph's outputs as the network's inputs, without label, weight, position and group id.

    transformed: `items/<name>` ragged [list, (item)] or [list, (item), width], or for tokens [list, (item), (token)];
    `context/<name>` dense [list] or [list, width], or for tokens ragged [list, (token)].
    Raises DataError when there is no item feature, and for an item feature that is not ragged.
    """
    inputs: dict[str, tf.Tensor] = {}
    row_lengths = None
    for name in sorted(transformed):
        value = as_ragged(transformed[name])
        if name.startswith("items/"):
            if not isinstance(value, tf.RaggedTensor):
                raise DataError(f"{name}: expected a ragged tensor [list, (item)]; got one of shape {value.shape}.")
            row_lengths = tf.cast(value.row_lengths(), tf.int64) if row_lengths is None else row_lengths
            value = value.values
            if isinstance(value, tf.RaggedTensor) and value.uniform_row_length is not None:
                value = tf.reshape(value.flat_values, [-1, *value.shape[1:].as_list()])
        elif not name.startswith("context/"):
            continue
        if isinstance(value, tf.RaggedTensor):
            inputs[name + ROW_LENGTHS] = tf.cast(value.row_lengths(), tf.int64)
            value = value.flat_values
        inputs[name] = tf.cast(value, tf.float32 if value.dtype.is_floating else tf.int64)
    if row_lengths is None:
        raise DataError(f"the transform graph gives no items/… output to score by; it gives {sorted(transformed)}.")
    return {**inputs, "row_lengths": row_lengths}
