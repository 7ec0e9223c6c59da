"""`tfx-ranking request`: bytes, curl body and program carry the chosen list, and a server takes them."""

import base64
import concurrent.futures
import json
import re
import shutil
import subprocess
import sys

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import small_rankers
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices import signatures
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import write_records
from tfx_ranking.pipelines.asking import scoring
from tfx_ranking.pipelines.cli import command_tree

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "q", "item_id": "sku"},
    "context": {"country": {"dtype": "string", "vocabulary": {}, "embedding": 3}},
    "items": {
        "price": {"transform": ["sign_log1p"], "default": 9.0},
        "stock": {"dtype": "int", "default": 7},
        "image": {"shape": [2]},
        "tags": {"dtype": "string", "tokens": {}, "embedding": 4},
    },
    "model": {"hidden": [8]},
    "serving": {
        "signatures": list(signatures.SIGNATURES),
        "compatibility": ["tf_ranking", "ml4ir"],
        "parity_lists": 12,
    },
})  # fmt: skip
# Lists a (rows 1, 3), b (2), c (4, 5): a's rows stand apart; b has no price.
CSV = """q,sku,country,price,stock,image,tags
a,a1,NL,1.5,3,0.25 0.5,red
b,b1,,,1,1.0 2.0,
a,a2,NL,2.0,,0.1 0.3,blue
c,c1,BE,7.25,2,0.5 0.5,red
c,c2,BE,0.0,2,0.5 0.25,green
"""
# Whose answers are scores as `rank` writes them, padded, and under which name.
SCORES = {"predict": "scores", "sequence_example": "scores", "list_example": "scores", "features": "scores"}
SCORES |= {signatures.PREDICT: "outputs"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_rankers.export(tmp_path_factory.mktemp("model"), CONFIG)


@pytest.fixture(scope="module")
def loaded(model):
    return tf.saved_model.load(str(model / "Format-Serving"))


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    file.write_text(CSV)
    return file


@pytest.fixture(scope="module")
def ranked(model, rows, tmp_path_factory):
    """Group id → item ids and scores, as `tfx-ranking rank` has them."""
    out = tmp_path_factory.mktemp("ranked") / "out.csv"
    scoring.rank(model, [str(rows)], out)
    by_group: dict[str, list[tuple[str, float]]] = {}
    for row in pa.csv.read_csv(out).to_pylist():
        by_group.setdefault(row["group_id"], []).append((row["item_id"], row["score"]))
    return by_group


def run(model, *arguments):
    assert command_tree.main(["request", str(model), *map(str, arguments)]) == 0


def from_rest(body, loaded):
    """What a server makes of a REST body: each input as the signature declares it."""
    specs = loaded.signatures[body["signature_name"]].structured_input_signature[1]

    def value(part):
        if isinstance(part, dict):
            return base64.b64decode(part["b64"])
        return [value(each) for each in part] if isinstance(part, list) else part

    return {name: tf.constant(value(body["inputs"][name]), spec.dtype) for name, spec in specs.items()}


def of_curl(text):
    command, body, end = text.splitlines()
    assert end == "JSON"
    return command, json.loads(body)


def scores_of(answer, name, size):
    return answer[SCORES[name]].numpy()[0, :size]


@pytest.mark.parametrize("name", [*CONFIG.serving.rows, "serving_default"])
def test_every_form_of_every_signature_is_one_request(name, model, rows, loaded, tmp_path):
    run(model, "--signature", name, "--from", rows, "--group", "a", "--output", "all", "--to", tmp_path)
    request = predict_pb2.PredictRequest.FromString((tmp_path / "request.pb").read_bytes())
    assert (request.model_spec.name, request.model_spec.signature_name) == ("shop", name)
    signature = loaded.signatures[name]
    sent = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
    assert set(sent) == set(signature.structured_input_signature[1])
    answer = signature(**{key: tf.constant(value) for key, value in sent.items()})
    _, body = of_curl((tmp_path / "request.sh").read_text())
    again = signature(**from_rest(body, loaded))
    shown: dict[str, object] = {}
    program = (tmp_path / "request.py").read_text()
    exec(program[: program.index("request = ")], shown)
    once_more = signature(**{key: tf.constant(value) for key, value in shown["inputs"].items()})
    for output in answer:
        np.testing.assert_array_equal(answer[output].numpy(), again[output].numpy())
        np.testing.assert_array_equal(answer[output].numpy(), once_more[output].numpy())


@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("group", ["a", "b", "c"])
def test_a_request_scores_as_rank_does(name, group, model, rows, loaded, ranked, capsys):
    run(model, "--signature", name, "--from", rows, "--group", group)
    command, body = of_curl(capsys.readouterr().out)
    assert command.startswith("curl -sS -X POST 'http://localhost:8501/v1/models/shop:predict'")
    answer = loaded.signatures[name](**from_rest(body, loaded))
    expected = [score for _, score in ranked[group]]
    np.testing.assert_allclose(scores_of(answer, name, len(expected)), expected, rtol=1e-5, atol=1e-6)


def test_rank_is_sent_the_item_ids(model, rows, loaded, ranked, capsys):
    run(model, "--signature", "rank", "--from", rows, "--row", 5)
    answer = loaded.signatures["rank"](**from_rest(of_curl(capsys.readouterr().out)[1], loaded))
    best_first = sorted(ranked["c"], key=lambda pair: -pair[1])
    assert answer["item_ids"].numpy()[0].tolist() == [name.encode() for name, _ in best_first]


@pytest.mark.parametrize(("choice", "groups"), [
    ([], "a"), (["--row", 2], "b"), (["--row", 3], "a"), (["--row", 5], "c"), (["--lists", 3], "abc"),
    (["--row", 2, "--lists", 2], "ba"), (["--group", "c"], "c"), (["--group", "b", "--lists", 3], "bac"),
])  # fmt: skip
def test_a_row_stands_for_its_list(choice, groups, model, rows, capsys):
    run(model, "--signature", "list_example", "--from", rows, *choice)
    sent = of_curl(capsys.readouterr().out)[1]["inputs"]["inputs"]
    examples = [tf.train.Example.FromString(base64.b64decode(each["b64"])).features.feature for each in sent]
    assert [one["q"].bytes_list.value[0].decode() for one in examples] == list(groups)
    counts = {"a": 2, "b": 1, "c": 2}
    assert [len(one["sku"].bytes_list.value) for one in examples] == [counts[group] for group in groups]


def test_a_record_of_a_tfrecord(model, loaded, tmp_path, capsys):
    lists = small_rankers.random_lists(CONFIG, [2, 3, 1], seed=5)
    write_records(str(tmp_path / "list_example.tfrecord.gz"), lists)
    expected = loaded.signatures["list_example"](inputs=tf.constant(lists))
    for record, size in ((1, 2), (2, 3), (3, 1)):
        run(model, "--signature", "predict", "--from", tmp_path / "list_example.tfrecord.gz", "--row", record)
        answer = loaded.signatures["predict"](**from_rest(of_curl(capsys.readouterr().out)[1], loaded))
        assert answer["sizes"].numpy().tolist() == [size]
        wanted = expected["scores"].numpy()[record - 1, :size]
        np.testing.assert_allclose(answer["scores"].numpy()[0], wanted, rtol=1e-5, atol=1e-6)
    assert (
        command_tree.main(["request", str(model), "--from", str(tmp_path / "list_example.tfrecord.gz"), "--row", "4"])
        == 1
    )
    assert "has no such record; it has records 1 to 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--signature", "predct"], 1, "--signature: there is no signature 'predct'; did you mean 'predict'?"),
        (["--row", "6"], 1, "has no such row; it has rows 1 to 5."),
        (["--row", "0"], 1, "has no such row; it has rows 1 to 5."),
        (["--group", "z"], 1, "has this value in 'q'"),
        (["--group", "c", "--lists", "2"], 1, "--lists 2: from there on there are only 1."),
        (["--group", "c", "--row", "1"], 2, "give one of them"),
        (["--output", "all"], 2, "name a folder for them with --to"),
    ],
)
def test_what_cannot_be_made(arguments, code, reason, model, rows, capsys):
    assert command_tree.main(["request", str(model), "--from", str(rows), *arguments]) == code
    shown = capsys.readouterr()
    assert reason in shown.err
    assert not shown.out


def test_a_bad_row_cannot_be_sent(model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text(CSV + "d,d1,NL,cheap,1,0 0,\n")
    assert command_tree.main(["request", str(model), "--from", str(tmp_path / "a.csv"), "--row", "6"]) == 1
    assert "--row 6: it cannot be used: price: expected a number; got 'cheap'" in capsys.readouterr().err
    run(model, "--signature", "predict", "--from", tmp_path / "a.csv", "--row", 1)  # bad rows elsewhere are reported
    assert f"bad: {tmp_path}/a.csv: 7: price: expected a number; got 'cheap'" in capsys.readouterr().err


@pytest.mark.parametrize("name", CONFIG.serving.rows)
def test_without_a_file_the_sample_that_travels_with_the_model(name, model, tmp_path):
    run(model, "--signature", name, "--output", "bytes", "--to", tmp_path / "request.pb")
    samples = model / "Format-Serving" / model_files.SAMPLES_IN_MODEL
    assert (tmp_path / "request.pb").read_bytes() == (samples / f"{name.replace('/', '_')}.pb").read_bytes()


def test_a_model_without_samples_and_a_row_of_nothing(model, tmp_path, capsys):
    copy = shutil.copytree(model / "Format-Serving", tmp_path / "copy")
    shutil.rmtree(copy / model_files.SAMPLES_IN_MODEL)
    assert command_tree.main(["request", str(copy), "--signature", "probabilities"]) == 1
    assert "the model has no sample request for 'probabilities'" in capsys.readouterr().err
    assert command_tree.main(["request", str(copy), "--row", "1"]) == 2
    assert "name it with --from" in capsys.readouterr().err


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """TensorFlow Serving's Predict, out of a loaded model."""

    def __init__(self, loaded):
        self.loaded = loaded

    def Predict(self, request, context):
        inputs = {name: tf.constant(tf.make_ndarray(tensor)) for name, tensor in request.inputs.items()}
        answer = self.loaded.signatures[request.model_spec.signature_name](**inputs)
        outputs = {name: tf.make_tensor_proto(value.numpy()) for name, value in answer.items()}
        return predict_pb2.PredictResponse(outputs=outputs)


@pytest.mark.parametrize("name", ["predict", "features"])
def test_the_program_runs_as_it_stands(name, model, rows, loaded, ranked, tmp_path):
    run(model, "--signature", name, "--from", rows, "--group", "b", "--output", "grpc", "--to", tmp_path / "ask.py")
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Server(loaded), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        command = [sys.executable, str(tmp_path / "ask.py"), f"localhost:{port}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        server.stop(None)
    scores = json.loads(re.search(r"^scores (.*)$", done.stdout, re.MULTILINE)[1])
    np.testing.assert_allclose(scores[0], [score for _, score in ranked["b"]], rtol=1e-5, atol=1e-6)


def test_a_curl_line_is_one_for_the_shell(model, rows, tmp_path):
    run(model, "--signature", "predict", "--from", rows, "--output", "curl", "--to", tmp_path / "ask.sh")
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\ncat\n')
    curl.chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "ask.sh")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    *arguments, body = done.stdout.splitlines()
    assert "http://localhost:8501/v1/models/shop:predict" in arguments
    assert json.loads(body)["signature_name"] == "predict"
