"""Tests that exported models score the files of other projects as the ranker in NumPy does.

The files are unchanged.  The network's weights are random; the analyzers' figures come from the training file.
"""

import numpy as np
import numpy_ranker
import pytest
import serving_client
import small_rankers

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import signature_exporter
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode, read_records
from tfx_ranking.components.serving.client_requests import to_elwc

TFR = {
    "name": "tfr",
    "data": {"input": "x", "format": "elwc", "label": "utility"},
    "items": {"custom_features_[1-136]": {"transform": ["z_score"]}},
    "model": {"hidden": [16, 8]},
}
TOKENS = {
    "name": "tokens",
    "data": {"input": "x", "format": "elwc", "label": "relevance"},
    "context": {"query_tokens": {"dtype": "string", "tokens": {}, "embedding": 4}},
    "items": {"document_tokens": {"dtype": "string", "tokens": {"num_oov_buckets": 3}, "embedding": 4}},
    "model": {"hidden": [16, 8], "normalisation": "batch"},
}
ML4IR = {
    "name": "ml4ir",
    "data": {"input": "x", "format": "csv", "group_id": "query_id", "label": "clicked"},
    "context": {
        "query_text": {"dtype": "string", "hash": {"num_buckets": 64}, "embedding": 4},
        "domain_id": {"dtype": "int"},
        "domain_name": {"dtype": "string", "vocabulary": {"top_k": 3, "num_oov_buckets": 2}, "embedding": 4},
    },
    "items": {
        "text_match_score": {"transform": ["log1p", "z_score"], "indicator": True},
        "page_views_score": {"transform": ["query_normalise"], "default": 0.5},
        "quality_score": {"transform": ["min_max"]},
        "name_match": {"dtype": "int"},
    },
    "model": {"hidden": [16, 8], "normalisation": "batch"},
}


def _encode(lists, config):
    """Converts lists of plain dicts to list examples."""
    sizes = [len(items) for _, items in lists]
    rows = {"context": [context for context, _ in lists], "items": [row for _, items in lists for row in items]}
    batch = ListBatch({}, {}, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))

    def text(value):
        return value.encode() if isinstance(value, str) else value

    for name, column in columns(config).items():
        values = [row.get(name) for row in rows[column.level]]
        into = getattr(batch, column.level)
        if name == config.data.group_id:
            into[name] = np.array([b"q%d" % i for i in range(len(lists))], object)
        elif column.tokens:
            tokens = [[] if value is None else value if isinstance(value, list) else [value] for value in values]
            splits = np.concatenate([[0], np.cumsum([len(one) for one in tokens])])
            into[name] = Tokens(np.array([one for each in tokens for one in each], object), splits)
        else:
            filled = [column.missing if value is None else text(value) for value in values]
            into[name] = np.array(filled, object) if column.dtype == "string" else np.array(filled).astype(column.numpy)
    return encode(batch, columns(config))


def _export(tmp_path, raw, train, test):
    config = ranking_config.parse(raw)
    paths = small_rankers.make(tmp_path / "ranker", config, _encode(train, config), _encode(test, config))
    signature_exporter.export(paths, config, tmp_path / "model", tmp_path / "report.json")
    return config, tmp_path / "model" / "Format-Serving", paths


def _assert_close(scores, expected):
    spread = max(1.0, *(np.ptp(each) for each in expected))
    np.testing.assert_allclose(scores, np.concatenate(expected), rtol=1e-5, atol=2e-5 * spread)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "train", "test"),
    [
        (TFR, "train_numerical_elwc", "test_numerical_elwc"),
        (TOKENS, "train_elwc", "eval_elwc"),
    ],
    ids=["numeric", "tokens"],
)
def test_elwc_files_of_tensorflow_ranking(raw, train, test, data_dir, tmp_path):
    files = [data_dir / "tfr-examples" / f"{name}.tfrecord" for name in (train, test)]
    train_records, test_records = (list(read_records([str(file)])) for file in files)
    train_lists, test_lists = numpy_ranker.read_elwc(train_records), numpy_ranker.read_elwc(test_records)
    config, model, paths = _export(tmp_path, raw, train_lists, test_lists)
    expected = numpy_ranker.score(test_lists, train_lists, config, paths.keras_model, model / "assets")
    scores, sizes = serving_client.score(model, "predict", test_records)  # the file's own bytes
    assert sizes.tolist() == [len(items) for _, items in test_lists]
    _assert_close(scores, expected)


def test_csv_files_of_ml4ir(data_dir, tmp_path):
    context = list(ML4IR["context"])
    train, test = (
        numpy_ranker.read_csv(data_dir / "ml4ir" / "csv" / f"{name}.csv", "query_id", context)[:150]
        for name in ("train", "test")
    )
    for _, items in test[::7]:  # a feature that is missing in a request gets the missing value of training
        del items[0]["text_match_score"], items[-1]["page_views_score"]
    config, model, paths = _export(tmp_path, ML4IR, train, test)
    expected = numpy_ranker.score(test, train, config, paths.keras_model, model / "assets")
    for signature, proto in (
        ("list_example", lambda one: one),
        ("predict", lambda one: to_elwc(one, config)),
    ):
        scores, sizes = serving_client.score(model, signature, [proto(one) for one in _encode(test, config)])
        assert sizes.tolist() == [len(items) for _, items in test]
        _assert_close(scores, expected)


def test_the_two_formats_of_ml4ir_have_the_same_lists(data_dir):
    """Tests the NumPy readers themselves: they read the same values from text and from protos."""
    rows = numpy_ranker.read_csv(data_dir / "ml4ir" / "csv" / "test.csv", "query_id", ["query_id", "query_text"])
    files = [str(data_dir / "ml4ir" / "sequence_example" / "test.tfrecord")]
    protos = numpy_ranker.read_sequence_examples(read_records(files))
    of_query = {context["query_id"].decode(): (context, items) for context, items in protos}
    assert len(of_query) == len(rows) == 1500
    for context, items in rows:
        other_context, other_items = of_query[context["query_id"]]
        assert context["query_text"].encode() == other_context["query_text"]
        for name in ML4IR["items"]:
            ours, theirs = ([np.float32(row[name]) for row in each] for each in (items, other_items))
            np.testing.assert_array_equal(ours, theirs, err_msg=name)
