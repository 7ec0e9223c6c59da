"""RankingEvaluator: figures that scikit-learn agrees with, thresholds, the blessing as TFX reads it."""

import json
import pathlib
import shutil

import apache_beam as beam
import numpy as np
import object_server
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.metrics import ndcg_score
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import evaluator, live_model, storage
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.lists.list_examples import ListBatch
from tfx_ranking.components.push import versions


class LinearRanker(tf.Module):
    """Scores an item by `weight` times its `quality`; signed as the exporter signs."""

    def __init__(self, weight):
        super().__init__()
        self.weight = tf.Variable(weight, dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "inputs")])
    def list_example(self, inputs):
        spec = {"quality": tf.io.RaggedFeature(tf.float32)}
        quality = tf.io.parse_example(inputs, spec)["quality"]
        scores = (quality * self.weight).to_tensor(default_value=tf.float32.min)
        return {"scores": scores, "sizes": quality.row_lengths()}


def save(folder, weight, signature="list_example"):
    model = LinearRanker(weight)
    tf.saved_model.save(model, str(folder / "Format-Serving"), {signature: model.list_example})
    return folder


@pytest.fixture(scope="session")
def rankers(tmp_path_factory):
    """SavedModels: by quality, the other way round, one with another signature, one that gives NaN."""
    folder = tmp_path_factory.mktemp("rankers")
    return {
        "good": save(folder / "good", 1.0),
        "bad": save(folder / "bad", -1.0),
        "unsigned": save(folder / "unsigned", 1.0, "predict"),
        "nan": save(folder / "nan", float("nan")),
    }


CONFIG = {
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "query_id"},
    "context": {"country": {"dtype": "string", "vocabulary": {}}, "page": {"dtype": "int"}},
    "items": {"quality": {}},
    "evaluation": {
        "metrics": ["ndcg@5", "mrr", "map@5"],
        "slices": ["country", "page"],
        "bless": {"metric": "ndcg@10"},
    },
}


def make_lists(count=150, seed=1):
    """Lists of 1 to 12 items whose quality tells something of their label; every tenth list has no relevant item."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 13, count)
    row_splits = np.append(0, np.cumsum(sizes))
    label = random.integers(0, 5, row_splits[-1]).astype(np.float32)
    label[np.repeat(np.arange(count) % 10 == 0, sizes)] = 0
    quality = (label + random.normal(0, 2, len(label))).astype(np.float32)
    context = {
        "query_id": np.array([f"q{i}".encode() for i in range(count)], object),
        "country": np.array([[b"de", b"fr", b""][i % 3] for i in range(count)], object),
        "page": np.arange(count) % 2,
    }
    return ListBatch(context, {"quality": quality, "label": label}, row_splits)


def write_examples(folder, batch, files=3, split="test"):
    records = list_examples.encode(batch, list_examples.columns(ranking_config.parse(CONFIG)))
    target = folder / f"Split-{split}"
    target.mkdir(parents=True)
    for i in range(files):
        list_examples.write_records(str(target / f"data_tfrecord-{i:05d}-of-{files:05d}.gz"), records[i::files])
    return folder


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("examples"), make_lists())


def artifact(kind, uri, number=0):
    made = kind()
    made.uri, made.id = str(uri), number
    return made


def evaluate(tmp_path, examples, model, baseline=None, config=CONFIG, **more):
    selection = ranking_config.parse(config).select(*evaluator.READS)
    outputs = artifact(ModelEvaluation, tmp_path / "evaluation"), artifact(ModelBlessing, tmp_path / "blessing")
    if baseline:
        more["baseline_model"] = artifact(Model, baseline, 12)
    evaluator.RankingEvaluator.test_call(
        examples=artifact(Examples, examples),
        model=artifact(Model, model, 11),
        config=selection,
        evaluation=outputs[0],
        blessing=outputs[1],
        beam_pipeline=beam.Pipeline(),
        **more,
    )
    report = json.loads(pathlib.Path(outputs[0].uri, "metrics.json").read_text())
    return report, *outputs


def expected_ndcg(batch, sign, k, lists=None):
    """scikit-learn's, over the lists with a relevant item; it leaves lists of one item to us: a perfect order."""
    values = []
    for i in range(len(batch.row_splits) - 1):
        part = slice(batch.row_splits[i], batch.row_splits[i + 1])
        label, quality = batch.items["label"][part].astype(float), batch.items["quality"][part].astype(float)
        if label.max() > 0 and (lists is None or lists[i]):
            values.append(ndcg_score([2**label - 1], [sign * quality], k=k) if len(label) > 1 else 1.0)
    return np.mean(values)


@pytest.fixture(scope="module")
def compared(tmp_path_factory, examples, rankers):
    return evaluate(tmp_path_factory.mktemp("compared"), examples, rankers["good"], rankers["bad"])


def test_every_figure_is_scikit_learns(compared):
    report, _, _ = compared
    batch = make_lists()
    for k in (5, 10):
        figures = report["metrics"][f"ndcg@{k}"]
        good, bad = expected_ndcg(batch, 1, k), expected_ndcg(batch, -1, k)
        np.testing.assert_allclose([figures["value"], figures["baseline"]], [good, bad], rtol=1e-12)
        np.testing.assert_allclose(figures["difference"], good - bad, rtol=1e-12)
        assert figures["convention"] == report["conventions"][f"ndcg@{k}"]
        assert figures["convention"] == f"ndcg@{k}(gain=exponential, no_relevant=drop, ties=averaged)"
    for country in ("de", "fr", ""):
        here = batch.context["country"] == country.encode()
        part = report["slices"]["country"][country]
        assert part["lists"] == here.sum() == 50
        assert part["items"] == np.diff(batch.row_splits)[here].sum()
        np.testing.assert_allclose(part["metrics"]["ndcg@10"]["value"], expected_ndcg(batch, 1, 10, here), rtol=1e-12)
    assert sorted(report["slices"]["page"]) == ["0", "1"]
    relevant = np.add.reduceat(batch.items["label"], batch.row_splits[:-1]) > 0
    assert (report["lists"], report["items"]) == (150, batch.row_splits[-1])
    assert report["metrics"]["mrr"]["lists"] == relevant.sum()
    assert report["metrics"]["mrr"]["dropped"] == (~relevant).sum()


def test_values_list_by_list_give_the_figures_again(compared):
    report, evaluation, _ = compared
    table = pq.read_table(pathlib.Path(evaluation.uri, "per_list.parquet"))
    assert table.num_rows == 150
    assert table["group_id"].to_pylist() == sorted(table["group_id"].to_pylist())
    for model, figure in {"model": "value", "baseline": "baseline"}.items():
        values = np.asarray(table[f"{model}.map@5"])
        np.testing.assert_allclose(np.nanmean(values), report["metrics"]["map@5"][figure], rtol=1e-12)
    assert sorted(path.name for path in pathlib.Path(evaluation.uri).iterdir()) == ["metrics.json", "per_list.parquet"]


def test_properties_for_people_and_for_lineage(compared, rankers):
    report, evaluation, _ = compared
    value, live = report["metrics"]["ndcg@10"]["value"], report["metrics"]["ndcg@10"]["baseline"]
    summary = f"ndcg@10 {value:.4f} (live {live:.4f}, {value - live:+.4f}), no contract: blessed"
    assert evaluation.get_string_custom_property("summary") == summary == report["bless"]["summary"]
    assert evaluation.get_float_custom_property("ndcg@10") == value
    assert evaluation.get_float_custom_property("baseline ndcg@10") == live
    assert report["digests"]["model"] == model_files.digest(rankers["good"] / "Format-Serving")


def test_the_blessing_is_read_by_tfx(compared, tmp_path, rankers):
    from tfx.components.pusher import executor
    from tfx.components.util import model_utils
    from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
    from tfx.proto import pusher_pb2
    from tfx.types.standard_artifacts import PushedModel
    from tfx.utils import proto_utils

    _, _, blessing = compared
    assert model_utils.is_model_blessed(blessing)
    assert fileio.exists(f"{blessing.uri}/BLESSED")
    assert blessing.get_string_custom_property("current_model") == str(rankers["good"])
    assert blessing.get_string_custom_property("baseline_model") == str(rankers["bad"])
    assert blessing.get_int_custom_property("baseline_model_id") == 12
    models = [artifact(Model, rankers[name], number) for name, number in (("bad", 10), ("good", 11), ("nan", 13))]
    latest = LatestBlessedModelStrategy().resolve_artifacts(None, {"model": models, "model_blessing": [blessing]})
    assert [model.id for model in latest["model"]] == [11]

    destination = pusher_pb2.PushDestination(filesystem={"base_directory": str(tmp_path / "serving")})
    pushed = artifact(PushedModel, tmp_path / "pushed")
    executor.Executor().Do(
        {"model": [models[1]], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"push_destination": proto_utils.proto_to_json(destination)},
    )
    assert pushed.get_int_custom_property("pushed") == 1


def contract_of(*signatures, **features):
    """As `contract.describe` gives it; features: name to default."""
    row = {"method": "predict", "inputs": {}, "outputs": {"scores": {"dtype": "float", "shape": [-1, -1]}}}
    feature = {"level": "items", "dtype": "float", "shape": [], "tokens": False}
    return {
        "signatures": dict.fromkeys(signatures, row),
        "features": {name: {**feature, "default": default} for name, default in features.items()},
    }


@pytest.fixture(scope="module")
def contracts(tmp_path_factory, rankers):
    """A good and a bad ranker for each contract: what serves, the same and more, less than that."""
    folder = tmp_path_factory.mktemp("contracts")
    for name, promised in {
        "live": contract_of("list_example", "rank", quality=0.0, price=0.0),
        "more": contract_of("list_example", "rank", "predict", quality=0.0, price=0.5),
        "less": contract_of("list_example", quality=0.0),
    }.items():
        for ranker in ("good", "bad"):
            file = folder / f"{ranker}-{name}" / "Format-Serving" / model_files.CONTRACT_IN_MODEL
            shutil.copytree(rankers[ranker], folder / f"{ranker}-{name}")
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(promised))
    return folder


BROKEN = (
    "it breaks the live model's clients: signature rank is gone; feature price is not read any more "
    "(evaluation.bless.allow_breaking: true lets it pass)"
)
WORSE = "from the live model's, expected at least +0"


@pytest.mark.parametrize(
    ("model", "live", "allowed", "blessed", "verdict", "says", "summary"),
    [
        ("good-live", "bad-live", False, 1, "same", ["from the live model's"], "): blessed"),
        (
            "good-more",
            "bad-live",
            False,
            1,
            "compatible",
            [],
            "), contract compatible (+1 signature, 1 default changed)",
        ),
        (
            "good-less",
            "bad-live",
            False,
            0,
            "breaking",
            [BROKEN],
            "), contract breaking (-1 signature, -1 feature)",
        ),
        ("bad-less", "good-live", False, 0, "breaking", [WORSE, BROKEN], "): not blessed"),
        (
            "good-less",
            "bad-live",
            True,
            1,
            "breaking",
            ["; allowed to break the live model's clients: sig"],
            "): blessed",
        ),
        ("bad-less", "good-live", True, 0, "breaking", [WORSE], "): not blessed"),
        ("good-live", "", False, 1, "first model", ["no baseline: first model"], " (first model): blessed"),
    ],
)
def test_the_live_models_clients(tmp_path, examples, contracts, model, live, allowed, blessed, verdict, says, summary):
    config = {**CONFIG, "evaluation": {"bless": {"allow_breaking": allowed}}}
    baseline = contracts / live if live else None
    report, evaluation, blessing = evaluate(tmp_path, examples, contracts / model, baseline, config)
    assert blessing.get_int_custom_property("blessed") == blessed
    reason = blessing.get_string_custom_property("reason")
    assert [part for part in says if part not in reason] == []
    assert summary in report["bless"]["summary"]
    for artifact in (evaluation, blessing):
        assert artifact.get_string_custom_property("contract") == verdict == report["contract"]["verdict"]
        differences = json.loads(artifact.get_string_custom_property("contract_differences"))
        assert differences == report["contract"]["differences"]


def test_a_worse_model_is_not_blessed(tmp_path, examples, rankers):
    report, _, blessing = evaluate(tmp_path, examples, rankers["bad"], rankers["good"])
    assert blessing.get_int_custom_property("blessed") == 0
    assert fileio.exists(f"{blessing.uri}/NOT_BLESSED")
    assert not fileio.exists(f"{blessing.uri}/BLESSED")
    assert "from the live model's, expected at least +0" in blessing.get_string_custom_property("reason")
    assert report["bless"]["summary"].endswith("not blessed")


def test_the_live_model_itself_improves_by_exactly_nothing_and_passes(tmp_path, examples, rankers):
    report, _, blessing = evaluate(tmp_path, examples, rankers["good"], rankers["good"])
    assert blessing.get_int_custom_property("blessed") == 1
    assert report["digests"]["model"] == report["digests"]["baseline"]
    assert "the same model" in blessing.get_string_custom_property("reason")
    assert report["metrics"]["ndcg@10"]["difference"] == 0


@pytest.mark.parametrize("baseline", ["nothing", "unsigned", "nan"])
def test_a_live_model_that_cannot_be_compared_is_not_a_baseline(tmp_path, examples, rankers, baseline):
    if baseline == "nothing":
        nothing = artifact(Model, tmp_path / "live")
        live_model.LiveModel.test_call(destination=versions.ServingBase(tmp_path / "serving").state(), model=nothing)
    report, _, blessing = evaluate(tmp_path, examples, rankers["bad"], rankers.get(baseline, tmp_path / "live"))
    expected = {
        "nothing": "no baseline: first model",
        "unsigned": "no baseline: the live model has no signature list_example",
        "nan": "no baseline: the live model's scores are not numbers in 150 of 150 lists, the first 'q0'",
    }
    assert blessing.get_string_custom_property("reason") == expected[baseline]
    assert blessing.get_int_custom_property("blessed") == 1
    assert not report["baseline"]
    assert "baseline" not in report["metrics"]["ndcg@10"]
    assert not blessing.has_custom_property("baseline_model_id")


def test_a_first_model_must_pass_min_value(tmp_path, examples, rankers):
    demanding = {**CONFIG, "evaluation": {"bless": {"metric": "ndcg@10", "min_value": 0.99}}}
    _, _, blessing = evaluate(tmp_path, examples, rankers["good"], config=demanding)
    assert blessing.get_int_custom_property("blessed") == 0
    assert "below min_value 0.99" in blessing.get_string_custom_property("reason")


def test_scores_that_are_no_numbers_are_not_blessed(tmp_path, examples, rankers):
    report, _, blessing = evaluate(tmp_path, examples, rankers["nan"], rankers["bad"])
    assert blessing.get_int_custom_property("blessed") == 0
    expected = "its scores are not numbers in 150 of 150 lists, the first 'q0'"
    assert blessing.get_string_custom_property("reason") == expected
    assert report["metrics"]["mrr"]["value"] is None


@pytest.fixture(scope="module")
def bad_labels(tmp_path_factory):
    """The same lists with their labels the wrong way round: the worst ranker looks best."""
    batch = make_lists(100, seed=2)
    inverted = batch._replace(items={**batch.items, "label": 4 - batch.items["label"]})
    return write_examples(tmp_path_factory.mktemp("inverted"), inverted)


def test_shuffled_labels_tell_nothing_of_a_worse_model(tmp_path, rankers):
    """They have the distribution of good ones, and every model is as good as any on them."""
    batch = make_lists(300, seed=2)
    shuffled = np.random.default_rng(3).permutation(batch.items["label"])
    lists = write_examples(tmp_path / "new", batch._replace(items={**batch.items, "label": shuffled}))
    live = blessed_on(tmp_path, rankers["good"], range(1, 41))
    for spans, blessed in ((0, 1), (10, 0)):
        config = asking_back(spans)
        config["evaluation"]["bless"]["min_improvement"] = -0.1
        report, _, blessing = evaluate(tmp_path / str(spans), lists, rankers["bad"], live, config)
        assert abs(report["metrics"]["ndcg@10"]["difference"]) < 0.1
        assert blessing.get_int_custom_property("blessed") == blessed
    assert blessing.get_string_custom_property("reason").startswith(
        "on spans 31-40, which the live model was blessed on"
    )


def blessed_on(folder, ranker, spans, **data):
    """The live model, whose receipt names examples of some spans, one list a span and file."""
    examples = write_examples(folder / "examples", make_lists(len(spans)), files=len(spans))
    shards = [path.name for path in sorted((examples / "Split-test").iterdir())]
    (examples / "spans.json").write_text(json.dumps({"test": dict(zip(shards, spans))}))
    live = folder / "live"
    shutil.copytree(ranker, live)
    recorded = {
        model_files.LINEAGE_IN_MODEL: {"artifacts": {"examples": [{"uri": str(examples)}]}},
        model_files.CONFIG_IN_MODEL: {"data": data},
    }
    for name, content in recorded.items():
        file = live / "Format-Serving" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    return live


def asking_back(spans):
    return {**CONFIG, "evaluation": {"slices": ["page"], "bless": {"previous_spans": spans}}}


def test_bad_labels_do_not_bless_a_worse_model(tmp_path, bad_labels, rankers):
    live = blessed_on(tmp_path, rankers["good"], range(1, 41))
    report, _, blessing = evaluate(tmp_path / "0", bad_labels, rankers["bad"], live)
    assert blessing.get_int_custom_property("blessed") == 1  # the new lists alone talk it into the worse one
    assert "previous" not in report

    report, evaluation, blessing = evaluate(tmp_path / "1", bad_labels, rankers["bad"], live, asking_back(30))
    assert blessing.get_int_custom_property("blessed") == 0
    # One list a span: the last 30 of the 40.
    batch = make_lists(40)
    late = np.arange(40) >= 10
    bad, good = expected_ndcg(batch, -1, 10, late), expected_ndcg(batch, 1, 10, late)
    figures = report["previous"]["metrics"]["ndcg@10"]
    np.testing.assert_allclose([figures["value"], figures["baseline"]], [bad, good], rtol=1e-12)
    assert report["previous"]["lists"] == 30
    assert report["previous"]["spans"] == list(range(11, 41))
    reason = f"on spans 11-40, which the live model was blessed on, its ndcg@10 of {bad:.6f} is {bad - good:+.6f} from"
    assert blessing.get_string_custom_property("reason").startswith(reason)
    assert report["bless"]["summary"].endswith(f", on spans 11-40 {bad - good:+.4f}, no contract: not blessed")
    assert evaluation.get_float_custom_property("previous ndcg@10") == figures["value"]
    assert evaluation.get_float_custom_property("previous baseline ndcg@10") == figures["baseline"]
    assert evaluation.get_string_custom_property("previous_examples") == str(tmp_path / "examples")
    table = pq.read_table(pathlib.Path(evaluation.uri, "per_list_previous.parquet"))
    assert (table.num_rows, set(table["slice.page"].to_pylist())) == (30, {""})
    assert report["lists"] == 100  # the figures of the new lists are theirs alone


def test_a_model_that_holds_on_the_previous_lists_is_blessed(tmp_path, examples, rankers):
    live = blessed_on(tmp_path, rankers["bad"], range(1, 41))
    report, _, blessing = evaluate(tmp_path / "out", examples, rankers["good"], live, asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 1
    assert report["previous"]["spans"] == [36, 37, 38, 39, 40]
    assert ", on spans 36-40 +" in report["bless"]["summary"]
    same, _, blessing = evaluate(tmp_path / "same", examples, live, live, asking_back(5))
    assert same["previous"]["metrics"]["ndcg@10"]["difference"] == 0
    assert blessing.get_int_custom_property("blessed") == 1


def test_previous_lists_that_cannot_be_had(tmp_path, examples, rankers):
    """A live model without a record of its lists does not block a candidate; one whose lists are gone does."""
    _, _, blessing = evaluate(tmp_path / "1", examples, rankers["good"], rankers["bad"], asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("reason").endswith(
        "; the live model does not say what it was evaluated on"
    )
    relabelled = blessed_on(tmp_path / "relabelled", rankers["bad"], [1, 2], label="clicked")
    _, _, blessing = evaluate(tmp_path / "2", examples, rankers["good"], relabelled, asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 0
    assert "the live model's label was 'clicked', this one's is 'label'" in blessing.get_string_custom_property(
        "reason"
    )
    live = blessed_on(tmp_path, rankers["bad"], [1, 2])
    shutil.rmtree(tmp_path / "examples")
    report, _, blessing = evaluate(tmp_path / "3", examples, rankers["good"], live, asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 0
    reason = f"the lists that the live model was blessed on are gone ({tmp_path / 'examples'}, split test) (evaluation."
    assert blessing.get_string_custom_property("reason").startswith(reason)
    assert report["bless"]["summary"].endswith(", no previous lists, no contract: not blessed")


def test_previous_lists_in_an_object_store(tmp_path, examples, rankers):
    """Where TensorFlow cannot read."""
    live = blessed_on(tmp_path, rankers["bad"], range(1, 41))
    here, _, _ = evaluate(tmp_path / "here", examples, rankers["good"], live, asking_back(5))
    receipt_file = live / "Format-Serving" / model_files.LINEAGE_IN_MODEL
    with object_server.serving("artifacts"):
        bucket = "minio://artifacts/examples"
        for name, file in storage.files_in(tmp_path / "examples").items():
            storage.to_path(f"{bucket}/{name}").write_bytes(file.read_bytes())
        shutil.rmtree(tmp_path / "examples")
        receipt_file.write_text(json.dumps({"artifacts": {"examples": [{"uri": bucket}]}}))
        there, evaluation, blessing = evaluate(tmp_path / "there", examples, rankers["good"], live, asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 1
    assert there["previous"] == {**here["previous"], "examples": bucket}
    assert evaluation.get_string_custom_property("previous_examples") == bucket
    receipt_file.write_text(json.dumps({"artifacts": {"examples": [{"uri": "nowhere://bucket/examples"}]}}))
    _, _, blessing = evaluate(tmp_path / "nowhere", examples, rankers["good"], live, asking_back(5))
    assert blessing.get_int_custom_property("blessed") == 0
    reason = "the lists that the live model was blessed on are out of reach (nowhere://bucket/examples/"
    assert blessing.get_string_custom_property("reason").startswith(reason)


def test_no_list_left_is_not_blessed(tmp_path, rankers):
    batch = make_lists(20)
    nothing = batch._replace(items={**batch.items, "label": np.zeros_like(batch.items["label"])})
    _, _, blessing = evaluate(tmp_path, write_examples(tmp_path / "examples", nothing), rankers["good"])
    assert blessing.get_int_custom_property("blessed") == 0
    assert blessing.get_string_custom_property("reason") == "no list of the split has a value of ndcg@10"


def test_the_order_of_the_files_changes_no_byte(tmp_path, examples, rankers, compared):
    again = evaluate(tmp_path, examples, rankers["good"], rankers["bad"])
    for name in ("metrics.json", "per_list.parquet"):
        first, second = (pathlib.Path(evaluation.uri, name).read_bytes() for _, evaluation, _ in (compared, again))
        assert first == second
    seven = write_examples(tmp_path / "examples", make_lists(), files=7)
    shuffled = evaluate(tmp_path / "other", seven, rankers["good"], rankers["bad"])
    assert shuffled[0] == compared[0]  # this scorer's digits do not depend on the batch


def test_an_empty_or_unlabelled_split_is_refused(tmp_path, examples, rankers):
    with pytest.raises(DataError, match="split 'eval' has no list"):
        evaluate(tmp_path, examples, rankers["good"], split="eval")
    batch = make_lists(5)
    batch.items["label"][-1] = np.nan
    with pytest.raises(Exception, match="list 'q4': an item has no label"):
        evaluate(tmp_path, write_examples(tmp_path / "examples", batch), rankers["good"])
    vectors = {**CONFIG, "context": {"v": {"shape": [3]}}, "evaluation": {"slices": ["v"]}}
    with pytest.raises(ConfigError, match=r"evaluation.slices\[0\]: expected .* 'v' is a vector"):
        evaluate(tmp_path, examples, rankers["good"], config=vectors)


def test_a_real_set_gives_scikit_learns_figure(tmp_path, data_dir, rankers):
    """The test file of `lightgbm-lambdarank`, ranked by one of its columns as it is."""
    from sklearn.datasets import load_svmlight_file

    folder = data_dir / "lightgbm-lambdarank"
    features, label = load_svmlight_file(str(folder / "rank.test"))
    row_splits = np.append(0, np.cumsum(np.loadtxt(folder / "rank.test.query", dtype=int)))
    column = int(np.argmax(features.getnnz(axis=0)))
    count = len(row_splits) - 1
    context = {
        "query_id": np.array([f"{i}".encode() for i in range(count)], object),
        "country": np.array([b""] * count, object),
        "page": np.zeros(count, np.int64),
    }
    quality = np.asarray(features[:, column].todense(), np.float32).ravel()
    batch = ListBatch(context, {"quality": quality, "label": label.astype(np.float32)}, row_splits)
    report, _, _ = evaluate(tmp_path, write_examples(tmp_path / "examples", batch), rankers["good"], rankers["bad"])
    for sign, figure in ((1, "value"), (-1, "baseline")):
        np.testing.assert_allclose(report["metrics"]["ndcg@10"][figure], expected_ndcg(batch, sign, 10), rtol=1e-9)


def test_in_a_pipeline_the_destination_decides_what_runs_again(tmp_path, examples, rankers):
    """LiveModel → RankingEvaluator → RankingPusher under TFX's own runner, with its cache and ML Metadata."""
    from ml_metadata import errors
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2
    from tfx.dsl.components.common.importer import Importer
    from tfx.orchestration import metadata, pipeline
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner

    from tfx_ranking.components import pusher

    base = tmp_path / "serving"
    config = ranking_config.parse(
        {
            **CONFIG,
            "push": {"base": str(base), "version": "next"},
            "evaluation": {**CONFIG["evaluation"], "bless": {"min_improvement": 0.01}},
        }
    )
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    times = iter("abcdefgh")

    def run(ranker):
        destination = versions.ServingBase(base).state()
        lists = Importer(source_uri=str(examples), artifact_type=Examples).with_id("lists")
        model = Importer(source_uri=str(rankers[ranker]), artifact_type=Model).with_id("model")
        live = live_model.LiveModel(destination=destination)
        evaluation = evaluator.RankingEvaluator(
            examples=lists.outputs["result"],
            model=model.outputs["result"],
            baseline_model=live.outputs["model"],
            config=config.select(*evaluator.READS),
        )
        pushed = pusher.RankingPusher(
            model=model.outputs["result"],
            model_blessing=evaluation.outputs["blessing"],
            config=config.select(*pusher.READS),
            destination={**destination, "asked": next(times)},
        )
        LocalDagRunner().run(
            pipeline.Pipeline(
                pipeline_name="shop",
                pipeline_root=str(tmp_path / "artifacts"),
                components=[lists, model, live, evaluation, pushed],
                enable_cache=True,
                metadata_connection_config=connection,
            )
        )
        return seen(store())

    def store():
        return metadata_store.MetadataStore(connection)

    def seen(opened):
        states = {}
        for name in ("LiveModel", "RankingEvaluator", "RankingPusher"):
            try:
                executions = opened.get_executions_by_type(f"tfx_ranking.components.{MODULES[name]}.{name}")
            except errors.NotFoundError:
                executions = opened.get_executions_by_type(name)
            last = max(executions, key=lambda execution: execution.id)
            states[name] = metadata_store_pb2.Execution.State.Name(last.last_known_state)
        last_pushed = max(opened.get_artifacts_by_type("PushedModel"), key=lambda artifact: artifact.id)
        return states, last_pushed.custom_properties["summary"].string_value

    again = {"LiveModel": "COMPLETE", "RankingEvaluator": "COMPLETE", "RankingPusher": "COMPLETE"}
    cached = {"LiveModel": "CACHED", "RankingEvaluator": "CACHED", "RankingPusher": "COMPLETE"}
    assert run("bad") == (again, "pushed version 1")
    assert run("bad") == (again, "nothing changed, version 1 serves")  # the baseline is new: the model itself
    assert run("bad") == (cached, "nothing changed, version 1 serves")
    assert run("good") == ({**again, "LiveModel": "CACHED"}, "pushed version 2")
    states, summary = run("bad")
    assert states == again
    assert summary.startswith("not pushed, version 2 still serves: its ndcg@10 of")
    for version in ("1", "2"):
        (base / version).rename(tmp_path / f"gone{version}")
    assert run("bad") == ({**again, "LiveModel": "CACHED", "RankingEvaluator": "CACHED"}, "pushed version 3")
    assert model_files.digest(base / "3") == model_files.digest(rankers["bad"] / "Format-Serving")
    blessings = store().get_artifacts_by_type("ModelBlessing")
    models = {artifact.id: artifact.uri for artifact in store().get_artifacts_by_type("Model")}
    for blessing in blessings:
        properties = blessing.custom_properties
        assert models[properties["current_model_id"].int_value] == properties["current_model"].string_value


MODULES = {"LiveModel": "live_model", "RankingEvaluator": "evaluator", "RankingPusher": "pusher"}
