"""Sends every kind of special request to every signature, with clients that know only TensorFlow.

The answers are compared with training: the same lists as training reads them, through Transform's graph and the Keras
model.  A client sends the requests of all cells in one process.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import serving_client
import small_rankers
import tensorflow as tf

from tfx_ranking.components.choices.signatures import COMPATIBILITY, SIGNATURES, Signature, tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, columns
from tfx_ranking.components.serving import answers, client_requests, parity

TABLE = {**SIGNATURES, **COMPATIBILITY["tf_ranking"], **COMPATIBILITY["ml4ir"]}


@dataclasses.dataclass(frozen=True, eq=False)
class Ranker:
    """An exported model, and training's scores.

    complete: list examples without missing values, the last with one item.  number: name of a float feature of items.
    string: name of a feature with a vocabulary.
    """

    config: RankingConfig
    served: pathlib.Path
    trained: Callable[[list[bytes]], tuple[dict[str, Any], list[np.ndarray]]]
    complete: list[bytes]
    number: str
    string: str | None

    @functools.cached_property
    def answers(self) -> dict[str, dict[tuple[str, str], serving_client.Answer]]:
        """Client → (signature, case) → its answer."""
        cells = {(name, case): make(self, row) for name, row in TABLE.items() for case, make in CASES.items()}
        calls = {cell: request for cell, request in cells.items() if request}
        named = [(name, request.feed) for (name, _), request in calls.items()]
        return {
            client: dict(zip(calls, send(self.served, named), strict=True))
            for client, send in serving_client.CLIENTS.items()
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """A call, and what is expected: training's scores of `lists`, or an error whose message matches `error`."""

    feed: dict[str, np.ndarray]
    lists: list[bytes] = dataclasses.field(default_factory=list)
    error: str | None = None


@pytest.fixture(
    scope="module",
    params=["shop", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tfr-numeric", "ml4ir-se"))],
)
def ranker(request) -> Ranker:
    """A small shop, and rankers that whole pipelines trained on real files."""
    if request.param == "shop":
        shop = request.getfixturevalue("shop")
        complete = small_rankers.random_lists(small_rankers.SHOP, [4, 7, 2, 1], seed=5, missing=0)
        return Ranker(small_rankers.SHOP, shop.served, shop.trained, complete, "price", "country")
    run = request.getfixturevalue("real_run")(request.param)
    trained = small_rankers.training_path(
        str(run.uri("Transform", "transform_graph")),
        str(run.uri("RankingTrainer", "model") / "Format-Keras" / "ranker.keras"),
    )
    lists = run.records("RankingExampleGen", "examples", "test")[:3]
    number, string = ("text_match_score", "domain_name") if request.param == "ml4ir-se" else ("custom_features_1", None)
    complete = [_whole(one, number) for one in lists]
    complete.append(client_requests.reordered(complete[0], np.array([0]), run.config))
    return Ranker(run.config, run.served, trained, complete, number, string)


def _whole(list_example: bytes, name: str) -> bytes:
    """The list with a value for every item."""
    return _edited(list_example, lambda features: _replace(features, name, lambda value: np.nan_to_num(value, nan=1.5)))


# The requests.  None: the signature has no request of that kind.


def _lists(ranker: Ranker, row: Signature) -> Request:
    return Request(client_requests.feed(row, ranker.complete, ranker.config), ranker.complete)


def _one(ranker: Ranker, row: Signature) -> Request:
    return Request(client_requests.feed(row, ranker.complete[:1], ranker.config), ranker.complete[:1])


def _empty_list(ranker: Ranker, row: Signature) -> Request:
    """An empty list between two others; it is `b""` if a request has lists."""
    a, b = ranker.complete[:2]
    blank = _no_items(a, ranker.config)
    return Request(client_requests.feed(row, [b"", a, b"", b], ranker.config), [blank, a, blank, b])


def _empty_batch(ranker: Ranker, row: Signature) -> Request:
    return Request(client_requests.feed(row, [], ranker.config))


def _missing(ranker: Ranker, row: Signature) -> Request:
    """Each feature is missing once: training has its missing value, the request does not have it."""
    names = list(ranker.config.features)[:12]
    blank = [_blank(ranker.complete[0], name, ranker.config) for name in names]
    if row.request != "list_example":
        return Request(client_requests.feed(row, blank, ranker.config), blank)
    return Request({row.input: serving_client.protos([_without(ranker.complete[0], name) for name in names])}, blank)


def _all_missing(ranker: Ranker, row: Signature) -> Request | None:
    """The only item has no values."""
    if row.request == "sequence_example":  # it would not show that there is an item
        return None
    blank = ranker.complete[-1]
    for name in ranker.config.features:
        blank = _blank(blank, name, ranker.config)
    return Request(client_requests.feed(row, [blank], ranker.config), [blank])


def _extra(ranker: Ranker, row: Signature) -> Request | None:
    if row.request == "tensors":  # TensorFlow Serving itself refuses an unknown input
        return None
    request = _lists(ranker, row)
    return dataclasses.replace(request, feed=_changed(request.feed, row, _surprise))


def _unknown(ranker: Ranker, row: Signature) -> Request | None:
    if not ranker.string:
        return None

    def never_seen(features: Any) -> None:
        _replace(features, ranker.string, lambda value: b"never seen")

    lists = [_edited(one, never_seen) for one in ranker.complete]
    return Request(client_requests.feed(row, lists, ranker.config), lists)


def _nan(ranker: Ranker, row: Signature) -> Request:
    """NaN is sent, not left out."""
    *others, last = ranker.complete
    lists = [*others, _edited(last, lambda features: _replace(features, ranker.number, lambda value: np.nan))]
    if row.request in ("list_example", "tensors"):
        return Request(client_requests.feed(row, lists, ranker.config), lists)

    def nan(request: str, proto: Any) -> None:
        for feature in _features(request, proto, _served(ranker, row, ranker.number)):
            feature.float_list.value[:] = [np.nan] * len(feature.float_list.value)

    return Request(_changed(client_requests.feed(row, ranker.complete, ranker.config), row, nan), lists)


def _too_long(ranker: Ranker, row: Signature) -> Request:
    name = _served(ranker, row, ranker.number)
    feed = client_requests.feed(row, ranker.complete, ranker.config)
    if row.request == "tensors":
        key = tensor_name(name)
        longer = np.concatenate([feed[key], feed[key][:, :1]], axis=1)
        first = key == next(key for key, value in feed.items() if key != "sizes" and value.ndim == 2)
        return Request({**feed, key: longer}, error="feature .* has the shape" if first else f"feature {name} has the")

    def one_more(request: str, proto: Any) -> None:
        _features(request, proto, name)[0].float_list.value.append(1)

    return Request(_changed(feed, row, one_more), error=name)


def _corrupt(ranker: Ranker, row: Signature) -> Request | None:
    if row.request == "tensors":
        return None
    good = client_requests.feed(row, ranker.complete[:1], ranker.config)[row.input]
    return Request({row.input: serving_client.protos([*good, b"not a proto"])}, error="")


def _wrong_type(ranker: Ranker, row: Signature) -> Request | None:
    if row.request == "tensors":  # the runtime compares dtypes before the graph runs
        return None
    name = _served(ranker, row, ranker.number)

    def words(request: str, proto: Any) -> None:
        for feature in _features(request, proto, name):
            feature.bytes_list.value[:] = [b"x"] * len(feature.float_list.value)

    return Request(_changed(client_requests.feed(row, ranker.complete, ranker.config), row, words), error=name)


CASES: dict[str, Callable[[Ranker, Signature], Request | None]] = {
    "one list": _one,
    "many lists": _lists,
    "empty list": _empty_list,
    "empty batch": _empty_batch,
    "missing feature": _missing,
    "all features missing": _all_missing,
    "extra feature": _extra,
    "unknown value": _unknown,
    "nan": _nan,
    "features of different length": _too_long,
    "corrupt bytes": _corrupt,
    "wrong type": _wrong_type,
}


@pytest.mark.parametrize("client", serving_client.CLIENTS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("signature", TABLE)
def test_the_answer_has_the_scores_of_training(ranker, signature, case, client):
    row = TABLE[signature]
    request = CASES[case](ranker, row)
    if request is None:
        pytest.skip("the signature has no request of that kind")
    answer = ranker.answers[client][signature, case]
    if request.error is not None:
        assert isinstance(answer, serving_client.ClientError), answer
        assert str(answer).startswith(("INVALID_ARGUMENT: ", "DATA_LOSS: "))
        assert re.search(request.error, str(answer)), answer
        return
    if isinstance(answer, serving_client.ClientError):
        raise answer
    transformed, scores = ranker.trained(request.lists)
    if row.answer == "transformed":
        _assert_transformed(answer, transformed, scores)
        return
    for expected, served in row.answer_kind.load_pairs()(answer, answers.TrainedLists(scores=scores)):
        assert parity.compare(expected, served).agrees, (expected, served)


def _assert_transformed(answer: dict[str, np.ndarray], expected: dict[str, Any], scores: list[np.ndarray]) -> None:
    assert answer["sizes"].tolist() == [len(each) for each in scores]
    for name, value in expected.items():
        blank = 0 if value.dtype.is_floating else -1
        if isinstance(value, tf.SparseTensor):
            value = tf.RaggedTensor.from_sparse(value)
        dense = value.to_tensor(tf.constant(blank, value.dtype)) if isinstance(value, tf.RaggedTensor) else value
        np.testing.assert_allclose(answer[name], dense, rtol=1e-5, atol=1e-5, err_msg=name)


# Changes of list examples and of protos.


def _served(ranker: Ranker, row: Signature, name: str) -> str:
    return name if row.request_kind.training_names else ranker.config.serving.rename.get(name, name)


def _changed(feed: dict[str, np.ndarray], row: Signature, change: Callable[[str, Any], None]) -> dict[str, np.ndarray]:
    """The call with its last proto changed."""
    from tensorflow_serving.apis import input_pb2

    kinds = {"elwc": input_pb2.ExampleListWithContext, "sequence_example": tf.train.SequenceExample}
    protos = list(feed[row.input])
    proto = kinds.get(row.request, tf.train.Example).FromString(protos[-1])
    change(row.request, proto)
    return {row.input: serving_client.protos([*protos[:-1], proto.SerializeToString()])}


def _features(request: str, proto: Any, name: str) -> list[Any]:
    """The Features with the values of an item feature."""
    if request == "elwc":
        return [example.features.feature[name] for example in proto.examples]
    if request == "sequence_example":
        return list(proto.feature_lists.feature_list[name].feature)
    return [proto.features.feature[name]]


def _surprise(request: str, proto: Any) -> None:
    """Adds features that are not in the config, of different lengths."""
    maps = {
        "elwc": lambda: [each.features.feature for each in (proto.context, *proto.examples)],
        "sequence_example": lambda: [proto.context.feature],
    }.get(request, lambda: [proto.features.feature])()
    for features in maps:
        features["surprise"].float_list.value.extend([1, 2])
        features["another"].bytes_list.value.append(b"x")
    if request == "sequence_example":
        proto.feature_lists.feature_list["surprise"].feature.add().float_list.value.extend([1, 2])


def _edited(list_example: bytes, change: Callable[[Any], None]) -> bytes:
    example = tf.train.Example.FromString(list_example)
    change(example.features.feature)
    return example.SerializeToString()


def _replace(features: Any, name: str, change: Callable[[Any], Any]) -> None:
    values = getattr(features[name], features[name].WhichOneof("kind")).value
    values[:] = [change(value) for value in values]


def _blank(list_example: bytes, name: str, config: RankingConfig) -> bytes:
    """The list as it is ingested from a source without the feature."""
    column = columns(config)[name]

    def change(features: Any) -> None:
        if column.tokens:
            features[name].bytes_list.value[:] = []
            if column.level == "items":
                _replace(features, name + ROW_LENGTHS, lambda value: 0)
        else:
            _replace(features, name, lambda value: column.missing)

    return _edited(list_example, change)


def _without(list_example: bytes, name: str) -> bytes:
    def change(features: Any) -> None:
        for key in (name, name + ROW_LENGTHS):
            features.pop(key, None)

    return _edited(list_example, change)


def _no_items(list_example: bytes, config: RankingConfig) -> bytes:
    """The list without items and without values of its context."""

    def change(features: Any) -> None:
        for name, column in columns(config).items():
            if column.level == "items":
                getattr(features[name], features[name].WhichOneof("kind") or "float_list").ClearField("value")
                features[name + ROW_LENGTHS].int64_list.ClearField("value")

    context = [name for name in config.context if columns(config)[name].level == "context"]
    return _edited(functools.reduce(lambda one, name: _blank(one, name, config), context, list_example), change)
