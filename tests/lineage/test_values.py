"""The values of lineage are immutable."""

import dataclasses

import pytest

from tfx_ranking.pipelines.lineage import values


@pytest.mark.parametrize("kind", [each for each in vars(values).values() if dataclasses.is_dataclass(each)])
def test_values_cannot_be_changed(kind):
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(kind):
        assert not str(field.type).startswith(("list", "dict", "set"))
