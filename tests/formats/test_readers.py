"""Every format holds the same lists: what one reader makes of them, all do; what is bad is named, never lost."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import parse
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.formats import chunks as file_chunks
from tfx_ranking.components.formats import column_types, letor
from tfx_ranking.components.lists.list_examples import Column, columns
from tfx_ranking.components.serving import parsing

NAN = float("nan")
ITEMS = {"price": {}, "stock": {"dtype": "int"}, "image": {"shape": [2]}, "tags": {"dtype": "string", "tokens": {}}}
CONTEXT = {"country": {"dtype": "string", "vocabulary": {}}}
# Two lists; a missing price, stock, country and image.
ROWS = [
    {"q": "a", "country": "NL", "price": 1.5, "stock": 3, "image": [0.25, 0.5], "tags": ["red", "big"], "label": 1.0},
    {"q": "a", "country": "NL", "price": None, "stock": None, "image": None, "tags": [], "label": 0.0},
    {"q": "b", "country": None, "price": -2.0, "stock": 7, "image": [1.0, NAN], "tags": ["blue"], "label": 2.0},
]


def config(format, items=None, context=None, **data):
    data = {"input": "x", "format": format, "group_id": "q", **data}
    return parse({"name": "t", "data": data, "items": items or ITEMS, "context": context or {}})


def chunks(path, cfg, side=None, time=None):
    """All chunks of a file, as they leave the reader."""
    request = file_chunks.FileRequest(str(path), path.name, cfg.data, columns(cfg), time=time, side=side and str(side))
    return list(FORMATS[cfg.data.format].load()(request))


def column(actual, name):
    return [value for chunk in actual for value in chunk.columns[name].to_pylist()]


def bad(actual):
    return [tuple(each) for chunk in actual for each in chunk.bad]


def feature(values):
    if not values:
        return tf.train.Feature()
    if isinstance(values[0], str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode() for v in values]))
    if isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def features(row):
    listed = {name: value if isinstance(value, list) else [value] for name, value in row.items() if value is not None}
    return tf.train.Features(feature={name: feature(values) for name, values in listed.items()})


def example(row):
    return tf.train.Example(features=features(row)).SerializeToString()


def varint(number):
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def elwc(context, items):
    """ExampleListWithContext by hand: examples = 1, context = 2."""
    fields = [(1, example(item)) for item in items] + [(2, example(context))]
    return b"".join(bytes([number << 3 | 2]) + varint(len(body)) + body for number, body in fields)


def sequence(context, items, whole):
    """SequenceExample with one Feature an item, or (ml4ir) one Feature with all items."""
    names = {name for item in items for name in item}
    lists = {}
    for name in sorted(names):
        each = [item.get(name) for item in items]
        each = [value if isinstance(value, list) else [] if value is None else [value] for value in each]
        each = [[v for values in each for v in values]] if whole else each
        lists[name] = tf.train.FeatureList(feature=[feature(values) for values in each])
    made = tf.train.SequenceExample(context=features(context), feature_lists=tf.train.FeatureLists(feature_list=lists))
    return made.SerializeToString()


def write_records(path, records, packed=False):
    with tf.io.TFRecordWriter(str(path), "GZIP" if packed else "") as writer:
        for record in records:
            writer.write(record)
    return path


def lists():
    return [(group, [row for row in ROWS if row["q"] == group]) for group in ("a", "b")]


def split_levels(rows):
    context = {name: rows[0][name] for name in ("q", "country")}
    return context, [{name: value for name, value in row.items() if name not in context} for row in rows]


def write(path, format, packed):
    """ROWS in a format that can hold all of them."""
    if format == "csv":
        cells = [
            [json.dumps(v).replace("NaN", "nan") if isinstance(v, list) else "" if v is None else str(v) for v in row]
            for row in ([row[name] for name in row if name != "tags"] for row in ROWS)
        ]
        names = [name for name in ROWS[0] if name != "tags"]
        text = "\n".join([",".join(names), *(",".join(f'"{cell}"' for cell in row) for row in cells)]) + "\n"
        path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    elif format == "parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), str(path))
        if packed:
            path.write_bytes(gzip.compress(path.read_bytes()))
    elif format == "tf_example":
        write_records(path, [example(row) for row in ROWS], packed)
    elif format == "elwc":
        write_records(path, [elwc(*split_levels(rows)) for _, rows in lists()], packed)
    else:
        write_records(path, [sequence(*split_levels(rows), whole=False) for _, rows in lists()], packed)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format", ["csv", "parquet", "tf_example", "elwc", "sequence_example"])
def test_every_format_reads_the_same_rows(tmp_path, format, packed):
    from tfx_ranking.components.ingestion import grouping

    path = tmp_path / "rows"  # no suffix: gzip shows from the bytes
    write(path, format, packed)
    items = {name: ITEMS[name] for name in ITEMS if not (format == "csv" and name == "tags")}
    cfg = config(format, items=items, context=CONTEXT)
    request = file_chunks.FileRequest(str(path), "rows", cfg.data, columns(cfg))
    actual = [grouping.check(chunk, request) for chunk in chunks(path, cfg)]
    for name in items:
        expected = [row[name] for row in ROWS]
        if name == "tags":
            expected = [[tag.encode() for tag in tags] for tags in expected]
        assert str(column(actual, name)) == str(expected)  # as text, where NaN equals NaN
    assert column(actual, "label") == [1.0, 0.0, 2.0]
    by_list = FORMATS[format].lists
    assert column(actual, "q") == ([b"a", b"b"] if by_list else [b"a", b"a", b"b"])
    assert column(actual, "country") == ([b"NL", None] if by_list else [b"NL", b"NL", None])
    if by_list:
        assert [chunk.row_splits.tolist() for chunk in actual] == [[0, 2, 3]]
    assert sum(chunk.records for chunk in actual) == 3
    assert not bad(actual)


def test_both_layouts_of_a_sequence_example(tmp_path):
    rows = [{"x": 1.0, "v": [1.0, 2.0], "label": 1}, {"x": 2.0, "v": [3.0, 4.0], "label": 0}]
    alone = [{"x": 5.0, "v": [5.0, 6.0], "label": 1}]
    records = [
        sequence({"q": group}, items, whole)
        for group, items, whole in [
            ("each", rows, False),
            ("whole", rows, True),
            ("alone", alone, True),
            ("alone", alone, False),
        ]
    ]
    cfg = config("sequence_example", items={"x": {}, "v": {"shape": [2]}})
    (chunk,) = chunks(write_records(tmp_path / "r", records), cfg)
    assert chunk.row_splits.tolist() == [0, 2, 4, 5, 6]
    assert chunk.columns["x"].to_pylist() == [[1.0], [2.0], [1.0], [2.0], [5.0], [5.0]]
    assert chunk.columns["v"].to_pylist() == [[1, 2], [3, 4], [1, 2], [3, 4], [5, 6], [5, 6]]


def test_item_features_of_different_length_are_quarantined(tmp_path):
    good = sequence({"q": "a"}, [{"x": 1.0, "label": 1}, {"x": 2.0, "label": 0}], whole=True)
    short = tf.train.SequenceExample.FromString(good)
    del short.feature_lists.feature_list["x"].feature[0].float_list.value[1:]
    path = write_records(tmp_path / "r", [good, short.SerializeToString(), good])
    actual = chunks(path, config("sequence_example", items={"x": {}}))
    assert bad(actual) == [(2, "x: 1 values for 2 items (label says how many there are)", 2)]
    assert sum(chunk.records for chunk in actual) == 6
    assert np.concatenate([chunk.positions for chunk in actual]).tolist() == [1, 3]


@pytest.mark.parametrize("format", ["tf_example", "elwc", "sequence_example", "list_example"])
def test_a_malformed_record_costs_itself_only(tmp_path, format):
    sound = {
        "tf_example": example({"q": "a", "x": 1.0, "label": 1.0}),
        "elwc": elwc({"q": "a"}, [{"x": 1.0, "label": 1.0}]),
        "sequence_example": sequence({"q": "a"}, [{"x": 1.0, "label": 1.0}], whole=False),
        "list_example": example({"q": "a", "x": [1.0], "label": [1.0]}),
    }[format]
    path = write_records(tmp_path / "r", [sound, b"\xff\xffgarbage", sound, sound])
    actual = chunks(path, config(format, items={"x": {}}))
    ((position, reason, items),) = bad(actual)
    assert position == 2
    assert items == 1
    assert reason.startswith("malformed record: ")
    assert sum(chunk.records for chunk in actual) == 4
    assert column(actual, "x") == [[1.0]] * 3


def test_a_mixed_type_is_no_bad_record(tmp_path):
    """One writer says 1, another 1.0: the batch is decoded in parts."""
    records = [example({"q": "a", "x": value, "label": 1.0}) for value in (1.5, 2, 3.5)]
    actual = chunks(write_records(tmp_path / "r", records), config("tf_example", items={"x": {}}))
    assert column(actual, "x") == [[1.5], [2], [3.5]]
    assert not bad(actual)


def test_a_broken_tfrecord_file_is_an_error(tmp_path):
    path = write_records(tmp_path / "r", [example({"q": "a", "x": 1.0, "label": 1.0})] * 3)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"the TFRecord file is broken after record .*Copy the file again"):
        chunks(path, config("tf_example", items={"x": {}}))


def test_csv_bad_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('q,x,label\na,1,0\na,cheap,1\na,2\na,3,1,9\nb,+4e1,1\n"b\nc",,0\n')
    cfg = config("csv", items={"x": {}})
    actual = chunks(path, cfg)
    assert bad(actual) == [
        (4, "malformed row: expected 3 cells; got 2", 1),
        (5, "malformed row: expected 3 cells; got 4", 1),
    ]
    assert [chunk.positions.tolist() for chunk in actual] == [[2, 3, 6, 7]]
    assert sum(chunk.records for chunk in actual) == 6
    values, faults = column_types.conform("x", actual[0].columns["x"], Column("items", "float"))
    assert values.to_pylist() == [1.0, None, 40.0, None]
    assert faults == {1: "x: expected a number; got 'cheap'"}
    assert column(actual, "q") == [b"a", b"a", b"b", b"b\nc"]


def test_csv_blocks_are_cut_between_rows(tmp_path, monkeypatch):
    from tfx_ranking.components.formats import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    groups = [f"group {i}\nwith a newline" for i in range(40)]
    path.write_text("q,x,label\n" + "".join(f'"{group}",{i},1\n' for i, group in enumerate(groups)))
    actual = chunks(path, config("csv", items={"x": {}}))
    assert len(actual) > 10
    assert column(actual, "q") == [group.encode() for group in groups]
    assert column(actual, "x") == list(range(40))
    assert [p for chunk in actual for p in chunk.positions] == list(range(2, 42))


@pytest.mark.parametrize("size", [40, 100, 1000, 1 << 20])
def test_csv_bad_rows_after_many_good_blocks(tmp_path, monkeypatch, size):
    """Rows keep their numbers where the reader changes to its careful way."""
    from tfx_ranking.components.formats import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", size)
    path = tmp_path / "t.csv"
    rows = [f'"g\n{i}",{i},1' for i in range(60)]
    for at, row in ((20, "short,1"), (30, "g,cheap,1"), (31, "long,1,1,1"), (50, "short"), (59, "short")):
        rows[at] = row
    path.write_text("q,x,label\n" + "\n".join(rows[:5]) + "\n\n" + "\n".join(rows[5:]) + "\n")
    actual = chunks(path, config("csv", items={"x": {}}))
    assert [(position, reason[:13]) for position, reason, _ in bad(actual)] == [
        (22, "malformed row"), (33, "malformed row"), (52, "malformed row"), (61, "malformed row")
    ]  # fmt: skip
    kept = [i for i in range(60) if i not in (20, 31, 50, 59)]
    assert [int(p) for chunk in actual for p in chunk.positions] == [i + 2 for i in kept]
    assert sum(chunk.records for chunk in actual) == 60
    x = Column("items", "float")
    numbers = [v for chunk in actual for v in column_types.conform("x", chunk.columns["x"], x)[0].to_pylist()]
    assert numbers == [None if i == 30 else float(i) for i in kept]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_absent_column_is_named(tmp_path, format):
    path = tmp_path / "t"
    table = pa.table({"q": ["a"], "price_eur": [1.0], "label": [1]})
    if format == "csv":
        path.write_text("q,price_eur,label\na,1.0,1\n")
    else:
        pyarrow.parquet.write_table(table, str(path))
    with pytest.raises(DataError, match=r"column 'price_eu' is not in the file; did you mean 'price_eur'\?"):
        chunks(path, config(format, items={"price_eu": {}}))


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="t: not a readable Parquet file"):
        chunks(path, config("parquet", items={"x": {}}))
    path.write_text("q,x,x,label\n")
    with pytest.raises(DataError, match="column 'x' twice"):
        chunks(path, config("csv", items={"x": {}}))
    path.write_text("")
    assert chunks(path, config("csv", items={"x": {}})) == []


LETOR = b"""# a comment and a blank line are no rows

2 qid:10 3:0.5 1:1.5 # docid = D1
0 qid:10 1:2 1:4 # docid = D2
x qid:10 1:2
1 1:2
1 qid:10 1:2:3
1 qid:10 1: 2
1 qid:10 1:inf
1 qid:10 2:two
1 qid:10 -1:2
1\tqid:q-7   2:1e-1\r
1 qid:10 1
3 qid:10
"""


def test_letor(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(LETOR)
    actual = chunks(path, config("letor", items={"f[1-3]": {}}, item_id="docid"))
    assert column(actual, "q") == [b"10", b"10", b"q-7", b"10"]
    assert column(actual, "label") == [2, 0, 1, 3]
    assert column(actual, "f1") == [1.5, 4, 0, 0]  # 1:2 1:4, the last one wins
    assert column(actual, "f2") == np.float32([0, 0, 0.1, 0]).tolist()
    assert column(actual, "f3") == [0.5, 0, 0, 0]
    assert column(actual, "docid") == [b"D1", b"D2", None, None]
    shape = "malformed line: expected `label qid:id feature:value …`"
    assert bad(actual) == [
        (5, "malformed line: label is 'x', expected a number", 1),
        (6, "q: the line has no qid", 1),
        (7, shape, 1),
        (8, shape, 1),
        (9, "a feature is infinite, expected finite numbers", 1),
        (10, "malformed line: a value is 'two', expected a number", 1),
        (11, "malformed line: a feature id is no whole number", 1),
        (13, shape, 1),
    ]
    assert np.concatenate([chunk.positions for chunk in actual]).tolist() == [3, 4, 12, 14]
    assert sum(chunk.counts["duplicates"] for chunk in actual) == 1
    assert sum(chunk.records for chunk in actual) == 12


def test_letor_duplicates_refused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(LETOR)
    actual = chunks(path, config("letor", items={"f[1-3]": {}}, duplicates="refuse"))
    assert (4, "feature id 1 stands twice (data.duplicates: refuse)", 1) in bad(actual)
    assert column(actual, "label") == [2, 1, 3]


def test_letor_feature_names(tmp_path):
    with pytest.raises(ConfigError, match="price: format letor has numbered features; feature n is called f<n>"):
        chunks(tmp_path / "t", config("letor", items={"price": {}}))


def test_letor_side_file(tmp_path):
    path, side = tmp_path / "t", tmp_path / "t.query"
    path.write_text("1 1:1\nbroken\n0 1:3\n1 1:4\n")
    side.write_text("3\n1\n")
    cfg = config("letor", items={"f1": {}}, group_sizes=".query")
    actual = chunks(path, cfg, side=side)
    assert column(actual, "q") == [b"t:1", b"t:1", b"t:2"]  # the bad line keeps its place in list 1
    assert [each[0] for each in bad(actual)] == [2]
    for sizes, actual in (("3\n", "more than 3"), ("3\n2\n", "has 4")):
        side.write_text(sizes)
        with pytest.raises(DataError, match=rf"the list sizes add up to \d rows, but .*{actual}"):
            chunks(path, cfg, side=side)
    side.write_text("3\none\n")
    with pytest.raises(DataError, match="expected one list size a line"):
        chunks(path, cfg, side=side)


@given(
    lines=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(0, 99),
            st.lists(st.tuples(st.integers(0, 9), st.floats(-1e6, 1e6, width=32)), max_size=12),
        ),
        max_size=12,
    ),
    size=st.integers(1, 300),
)
@settings(max_examples=60)
def test_letor_reads_what_a_loop_reads(tmp_path_factory, lines, size):
    """Any ids, in any order, however often, in chunks of any size."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text("".join(f"{y} qid:{q} " + " ".join(f"{i}:{v!r}" for i, v in f) + "\n" for y, q, f in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letor, "CHUNK_BYTES", size)
        actual = chunks(path, config("letor", items={"f[0-9]": {}}))
    assert not bad(actual)
    assert column(actual, "label") == [y for y, _, _ in lines]
    assert column(actual, "q") == [str(q).encode() for _, q, _ in lines]
    for i in range(10):
        assert column(actual, f"f{i}") == [dict(f).get(i, 0.0) for _, _, f in lines]  # dict: the last one wins
    repeated = sum(len(f) - len(dict(f)) for _, _, f in lines)
    assert sum(chunk.counts.get("duplicates", 0) for chunk in actual) == repeated


@pytest.mark.parametrize(
    ("array", "like", "expected", "reason"),
    [
        (pa.array(["1", "", "NA", " 2 "]), Column("items", "float"), [1.0, None, None, 2.0], None),
        (pa.array([1, None], pa.int16()), Column("items", "float"), [1.0, None], None),
        (pa.array([1.0, NAN]), Column("items", "int"), [1, None], None),
        (pa.array(["3.0", "4"]), Column("items", "int"), [3, 4], None),
        (pa.array([1.5]), Column("items", "int"), None, "x: expected a whole number; got 1.5"),
        (pa.array([float("inf")]), Column("items", "float"), None, "x: inf is no finite number"),
        (pa.array(["-inf"]), Column("items", "float"), None, "x: -inf is no finite number"),
        (pa.array([12, None]), Column("items", "string"), [b"12", None], None),
        (pa.array(["a", ""]), Column("items", "string"), [b"a", None], None),
        (pa.array(["a"]).dictionary_encode(), Column("items", "string"), [b"a"], None),
        (pa.array([[1.0], [], None]), Column("items", "float"), [1.0, None, None], None),
        (pa.array([[1.0, 2.0]]), Column("items", "float"), None, "x: expected one value; got 2"),
        (pa.array(["1 2", "[3, 4]", ""]), Column("items", "float", 2), [[1, 2], [3, 4], None], None),
        (pa.array(["1 2 3"]), Column("items", "float", 2), None, "x: expected 2 numbers; got 3"),
        (pa.array([[1.0, float("inf")]]), Column("items", "float", 2), None, "x: inf is no finite number"),
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


def test_elwc_by_hand_is_elwc(tmp_path):
    """The hand-made bytes of these tests are what the project's own parser takes for a list."""
    cfg = config("elwc", items={"x": {}})
    batch = parsing.parse_elwc(
        tf.constant([elwc({"q": "a"}, [{"x": 1.0, "label": 1.0}, {"x": 2.0, "label": 0.0}])]), columns(cfg)
    )
    assert batch.items["x"].numpy().tolist() == [1.0, 2.0]
