"""Writes the same rows in every input format, and reads files as a reader returns them."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet
import tensorflow as tf

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import parse
from tfx_ranking.components.formats import chunks as file_chunks
from tfx_ranking.components.lists.list_examples import columns

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
    """All chunks of a file, as the reader returns them."""
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
    """An ExampleListWithContext, written by hand: field 1 is examples, field 2 is context."""
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
    """Writes ROWS in a format."""
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
