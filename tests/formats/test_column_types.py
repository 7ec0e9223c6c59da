"""Columns are converted to the config's types; bad values are named."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from format_files import NAN

from tfx_ranking.components.formats import column_types
from tfx_ranking.components.lists.list_examples import Column


@pytest.mark.parametrize(
    ("array", "like", "expected", "reason"),
    [
        (pa.array(["1", "", "NA", " 2 "]), Column("items", "float"), [1.0, None, None, 2.0], None),
        (pa.array([1, None], pa.int16()), Column("items", "float"), [1.0, None], None),
        (pa.array([1.0, NAN]), Column("items", "int"), [1, None], None),
        (pa.array(["3.0", "4"]), Column("items", "int"), [3, 4], None),
        (pa.array([1.5]), Column("items", "int"), None, "x: expected a whole number; got 1.5"),
        (pa.array([float("inf")]), Column("items", "float"), None, "x: inf is not a finite number"),
        (pa.array(["-inf"]), Column("items", "float"), None, "x: -inf is not a finite number"),
        (pa.array([12, None]), Column("items", "string"), [b"12", None], None),
        (pa.array(["a", ""]), Column("items", "string"), [b"a", None], None),
        (pa.array(["a"]).dictionary_encode(), Column("items", "string"), [b"a"], None),
        (pa.array([[1.0], [], None]), Column("items", "float"), [1.0, None, None], None),
        (pa.array([[1.0, 2.0]]), Column("items", "float"), None, "x: expected one value; got 2"),
        (pa.array(["1 2", "[3, 4]", ""]), Column("items", "float", 2), [[1, 2], [3, 4], None], None),
        (pa.array(["1 2 3"]), Column("items", "float", 2), None, "x: expected 2 numbers; got 3"),
        (pa.array([[1.0, float("inf")]]), Column("items", "float", 2), None, "x: inf is not a finite number"),
        (pa.array(["red big", ""]), Column("items", "string", tokens=True), [[b"red big"], []], None),
        (pa.array([["a", "b"], None]), Column("items", "string", tokens=True), [[b"a", b"b"], []], None),
    ],
)
def test_conform(array, like, expected, reason):
    values, faults = column_types.conform("x", array, like)
    if reason is None:
        assert values.to_pylist() == expected
        assert not faults
    else:
        assert faults == {0: reason}


def test_times_are_numbers_or_iso_8601():
    seconds, faults = column_types.times("at", pa.array(["1970-01-01T00:00:10Z", "20", "1970-01-02", "soon"]))
    assert seconds.to_pylist()[:3] == [10.0, 20.0, 86400.0]
    assert faults == {3: "at: expected a number or an ISO 8601 time to split by; got 'soon'"}
    days, _ = column_types.times("at", pa.array([0, 1], pa.int32()).cast(pa.date32()))
    assert days.to_pylist() == [0.0, 86400.0]
