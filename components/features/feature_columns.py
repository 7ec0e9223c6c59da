"""Names the transform graph's outputs: the columns of its matrices of numbers, and its vocabulary files.

Input: the config's features.  Output: the name of each column of `items/numeric` and `context/numeric`.  Training,
warm start and the parity check read the same names here, without TensorFlow.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from tfx_ranking.components.choices.transform_steps import Step
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.feature_sections import Feature

Level = Literal["context", "items"]
LEVELS: tuple[Level, ...] = ("context", "items")


@dataclasses.dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """One column of `<level>/numeric`.  Two columns are equal when they hold the same number, whatever their name."""

    name: str = dataclasses.field(compare=False)  # "price", "image[0]", "price/missing"
    level: str
    feature: str
    element: int | None  # index in the feature's vector, 0 for a scalar; None for the indicator of a missing value
    steps: tuple[Step, ...] = ()  # the transform steps of the number


def columns(config: RankingConfig, level: str) -> Iterator[NumericColumn]:
    """The columns of `<level>/numeric`: the numbers in the config's order of features, then the indicators."""
    features: Mapping[str, Feature] = getattr(config, level)
    for name, feature in features.items():
        for i in range(0 if feature.is_category else feature.width):
            yield NumericColumn(
                name=f"{name}[{i}]" if feature.shape else name,
                level=level,
                feature=name,
                element=i,
                steps=feature.transform,
            )
    for name, feature in features.items():
        if feature.indicator:
            yield NumericColumn(name=f"{name}/missing", level=level, feature=name, element=None)


def numeric_columns(config: RankingConfig, level: str) -> list[str]:
    """The names of the columns of `<level>/numeric`.

    >>> from tfx_ranking.components.config import parse
    >>> items = {"price": {"indicator": True}, "grade": {"transform": [{"bucketize": 4}]}, "image": {"shape": [2]}}
    >>> config = parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": items})
    >>> numeric_columns(config, "items")
    ['image[0]', 'image[1]', 'price', 'price/missing']
    """
    return [column.name for column in columns(config, level)]


def column_name(config: RankingConfig, output: str, number: int, width: int) -> str | None:
    """The name of column `number` of the matrix `output`, which has `width` columns.

    None for any other output, and for a matrix that the user's own preprocessing_fn made: its columns have no names.

    >>> from tfx_ranking.components.config import parse
    >>> config = parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"price": {}, "age": {}}})
    >>> column_name(config, "items/numeric", 0, width=2)  # the config sorts features by name
    'age'
    """
    level, _, rest = output.partition("/")
    if level not in LEVELS or rest != "numeric" or config.transform.preprocessing_fn:
        return None
    names = numeric_columns(config, level)
    return names[number] if len(names) == width else None


def vocabulary_file(level: str, name: str) -> str:
    """The name of the file in the transform graph's `assets` that holds a feature's vocabulary, one value per line.

    >>> vocabulary_file("items", "brand name")
    'items_brand_name'
    """
    return re.sub(r"[^A-Za-z0-9_.-]", "_", f"{level}_{name}")
