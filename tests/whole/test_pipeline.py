"""The whole chain on each real data set: raw files to a version that serving loads and that scores as training does."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import numpy_ranker
import pytest
import real_sets
import serving_client
from pipeline_runs import PipelineRun, run_set

from tfx_ranking.components.lists.list_examples import columns, decode
from tfx_ranking.components.serving import client_requests

# Lists and items of all splits together, from the sets' own notes; the other sets are whole when cut to 60 lists.
WHOLE = {"clueweb": (61, 26_646), "ml4ir-csv": (4_500, 17_045), "ml4ir-se": (4_500, 17_045)}


# Our own readers read the text formats of these sets, the same on both lines; test_ingested_real_files.py reads them on
# both. tfr-numeric has the format of tfr-tokens.
ONE_LINE = {"lightgbm", "clueweb", "tfr-numeric"}


def _sets(names):
    return [pytest.param(name, marks=[pytest.mark.one_line] * (name in ONE_LINE)) for name in names]


@pytest.fixture(scope="module", params=_sets(real_sets.SETS))
def run(request, real_run) -> PipelineRun:
    return real_run(request.param)


def _ids(records: list[bytes], run: PipelineRun) -> list[bytes]:
    name = run.config.data.group_id
    return decode(records, {name: columns(run.config)[name]}).context[name].tolist()


def test_it_ends_in_a_version_that_scores_as_training_does(run):
    _scores_as_training_does(run)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_so_does_the_whole_set(name, data_dir, tmp_path):
    run = run_set(name, data_dir, tmp_path / name, lists=None)
    counts = run.properties("RankingExampleGen", "examples")
    assert (counts["lists_out"], counts["items_out"]) == WHOLE[name]
    _scores_as_training_does(run)


def _scores_as_training_does(run):
    records = run.records("RankingExampleGen", "examples", "test")
    expected = [run.training_scores()[group_id] for group_id in _ids(records, run)]
    protos = {"list_example": records, "predict": [client_requests.to_elwc(record, run.config) for record in records]}
    for signature, requests in protos.items():
        for client in (serving_client.fresh_process_score, serving_client.score):  # Python's loader and C++'s
            scores, sizes = client(run.served, signature, requests)
            assert sizes.tolist() == [len(each) for each in expected]
            spread = max(np.ptp(each) for each in expected)
            tolerance = 1e-5 * max(1.0, spread, max(np.abs(each).max() for each in expected))
            np.testing.assert_allclose(scores, np.concatenate(expected), rtol=0, atol=tolerance)


def test_nothing_is_lost(run):
    counts = run.properties("RankingExampleGen", "examples")
    out = [
        decode(run.records("RankingExampleGen", "examples", split), columns(run.config)) for split in real_sets.SPLITS
    ]
    assert sum(len(batch.row_splits) - 1 for batch in out) == counts["lists_out"]
    assert sum(int(batch.row_splits[-1]) for batch in out) == counts["items_out"]
    assert counts["records_in"] == counts["items_out"] + counts["quarantined"] + counts["capped"] + counts["dropped"]


def test_every_step_tells_its_figure(run):
    steps = {step.node: step for step in run.steps()}
    assert {step.state for step in steps.values()} == {"done"}
    assert re.fullmatch(r"ndcg@10 [01]\.\d{4} \(first model\): blessed", steps["RankingEvaluator"].figure)
    assert re.search(r"\d+ lists, [\d,]+ items, 0 quarantined", steps["RankingExampleGen"].figure)
    assert run.served.name in steps["RankingPusher"].figure


def test_one_list_in_csv_and_in_sequence_examples_is_one_list_example(real_run):
    from_csv, from_protos = real_run("ml4ir-csv"), real_run("ml4ir-se")
    for split in real_sets.SPLITS:
        assert from_csv.records("RankingExampleGen", "examples", split) == from_protos.records(
            "RankingExampleGen", "examples", split
        )
    assert from_csv.training_scores().keys() == from_protos.training_scores().keys()
    for group_id, scores in from_csv.training_scores().items():
        # Transform shuffles its input, so a z-score's sum may differ in its last bit between two runs.
        np.testing.assert_allclose(scores, from_protos.training_scores()[group_id], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", _sets(["tfr-numeric", "tfr-tokens"]))
def test_the_files_own_bytes_score_as_numpy_says(name, real_run):
    run = real_run(name)
    patterns = run.config.data.input
    raw = {split: _tfrecords(pathlib.Path(patterns[split])) for split in ("train", "test")}
    train = _of_split(run, raw["train"], pathlib.Path(patterns["train"]).name, "train")
    _scores_are_numpys(run, "predict", raw["test"], numpy_ranker.read_elwc(raw["test"]), numpy_ranker.read_elwc(train))


@pytest.mark.parametrize("client", serving_client.CLIENTS)
def test_ml4irs_own_bytes_score_as_numpy_says(client, real_run):
    """As SequenceExamples, as ml4ir's clients call it, and the same values as ELWC."""
    run = real_run("ml4ir-se")
    raw = {split: _tfrecords(pathlib.Path(run.config.data.input[split])) for split in ("train", "test")}
    lists = {split: numpy_ranker.read_sequence_examples(records) for split, records in raw.items()}
    expected = _numpys_scores(run, lists["test"], lists["train"])
    elwc = serving_client.protos([_elwc(context, items) for context, items in lists["test"]])
    own = serving_client.protos(raw["test"])
    calls = [
        ("predict", {"inputs": elwc}),
        ("sequence_example", {"inputs": own}),
        ("serving_tfrecord", {"protos": own}),
    ]
    as_elwc, as_sequence_examples, as_ml4ir = serving_client.CLIENTS[client](run.served, calls)
    for at, scores in enumerate(expected):
        for answer in (as_elwc, as_sequence_examples):
            np.testing.assert_allclose(answer["scores"][at, : len(scores)], scores, rtol=1e-4, atol=1e-4)
        share = np.exp(scores - scores.max())
        shares = as_ml4ir["ranking_score"][at]
        np.testing.assert_allclose(shares[: len(scores)], share / share.sum(), rtol=1e-3, atol=1e-4)
        assert not shares[len(scores) :].any()


def test_saved_model_cli_shows_and_runs_it(real_run):
    run = real_run("lightgbm")
    cli = [str(pathlib.Path(sys.executable).with_name("saved_model_cli"))]
    shown = subprocess.run([*cli, "show", "--all", "--dir", run.served], capture_output=True, text=True, check=True)
    for name in ("list_example", "predict", "serving_default"):
        assert f"signature_def['{name}']" in shown.stdout
    ask = ["run", "--dir", run.served, "--tag_set", "serve", "--signature_def", "predict"]
    answered = subprocess.run([*cli, *ask, "--input_exprs", 'inputs=[b""]'], capture_output=True, text=True, check=True)
    assert "Result for output key sizes:\n[0]" in answered.stdout


def _scores_are_numpys(run, signature, requests, test, train):
    expected = np.concatenate(_numpys_scores(run, test, train))
    scores, _ = serving_client.score(run.served, signature, requests)
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def _numpys_scores(run, test, train):
    keras_model = str(run.uri("RankingTrainer", "model") / "Format-Keras" / "ranker.keras")
    return numpy_ranker.score(test, train, run.config, keras_model, run.served / "assets")


def _tfrecords(file: pathlib.Path) -> list[bytes]:
    import tensorflow as tf

    return list(tf.data.TFRecordDataset(str(file)).as_numpy_iterator())


def _of_split(run, records, file, split):
    """The records of `file` whose lists went to `split`; a list without an id is called by its file and number."""
    ids = set(_ids(run.records("RankingExampleGen", "examples", split), run))
    return [record for number, record in enumerate(records, 1) if any(f"{file}:{number}".encode() == i for i in ids)]


def _elwc(context, items) -> bytes:
    """A list as TensorFlow Serving's own proto."""
    from tensorflow_serving.apis import input_pb2

    proto = input_pb2.ExampleListWithContext()
    for example, row in [(proto.context, context), *((proto.examples.add(), item) for item in items)]:
        for name, value in row.items():
            feature = example.features.feature[name]
            if isinstance(value, bytes):
                feature.bytes_list.value.append(value)
            elif isinstance(value, int):
                feature.int64_list.value.append(value)
            else:
                feature.float_list.value.append(value)
    return proto.SerializeToString()
