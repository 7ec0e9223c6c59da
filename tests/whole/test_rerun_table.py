"""What runs again when a key of the config changes: every key is placed, a new one must be.

No pipeline runs here: TFX's cache compares execution properties and input artifacts, so the first steps that run again
are those whose execution properties change, and everything downstream follows.
"""

import copy
import dataclasses
import json
import pathlib
import typing
from typing import Any

import pytest

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import refusals
from tfx_ranking.components.config.ranking_config import _absolute
from tfx_ranking.components.exported.model_files import WEIGHTS_IN_MODEL

BASE: dict[str, Any] = {
    "name": "shop",
    "data": {"input": "a.csv", "format": "csv", "position": "rank", "group_id": "query"},
    "context": {"country": {"dtype": "string", "vocabulary": {}}, "text": {"dtype": "string", "tokens": {}}},
    "items": {
        "price": {"transform": [{"clip": [0, 9]}, "z_score"]},
        "grade": {"transform": [{"bucketize": 4}], "embedding": 2},
        "stock": {"dtype": "int"},
        "brand": {"dtype": "string", "vocabulary": {}, "embedding": 2},
        "shop": {"dtype": "string", "hash": {"num_buckets": 8}, "embedding": 2},
        "title": {"dtype": "string", "tokens": {}, "embedding": 2},
        "image": {"shape": [4]},
    },
    "training": {"propensity": {"power": 1.0}, "initialize_from": {"model": "start"}},
    "push": {"base": "serving", "models_config": "models.config", "keep": 5},
}
INGEST, SCHEMA, TRANSFORM, TRAIN = "RankingExampleGen", "RankingSchemaGen", "Transform", "RankingTrainer"
EXPORT, LIVE, EVALUATE, PUSH, NOTHING = "SignatureExporter", "LiveModel", "RankingEvaluator", "RankingPusher", ""

# Where in BASE, the new value, the first steps that run again.
CHANGES: list[tuple[str, Any, str]] = [
    ("name", "other", f"{INGEST} {LIVE}"),
    ("data.input", "b.csv", INGEST),
    ("data.format", "parquet", INGEST),
    ("data.group_id", "rank2", INGEST),
    ("data.group_from", "record", INGEST),
    ("data.item_id", "sku", INGEST),
    ("data.label", "clicked", INGEST),
    ("data.label_range", [0, 4], INGEST),
    ("data.weight", "w", INGEST),
    ("data.position", "rank2", INGEST),
    ("data.group_sizes", ".query", INGEST),
    ("data.order", "grouped", INGEST),
    ("data.duplicates", "refuse", INGEST),
    ("data.max_bad_fraction", 0.5, INGEST),
    ("data.max_items", 10, INGEST),
    ("data.keep", "label", INGEST),
    ("data.no_relevant", "drop", INGEST),
    ("data.on_anomaly", "warn", TRAIN),
    ("data.schema", "schema.pbtxt", "ImportSchemaGen"),
    ("data.span", 3, INGEST),
    ("data.window.spans", 3, INGEST),
    ("data.window.since", "live", INGEST),
    ("data.splits.by", "time", INGEST),
    ("data.splits.train", 0.8, INGEST),
    ("data.splits.validation", 0.2, INGEST),
    ("data.splits.test", 0.2, INGEST),
    ("items.stock.dtype", "float", INGEST),
    ("items.image.shape", [2], INGEST),
    ("items.stock.default", 1, INGEST),
    ("items.price.indicator", True, TRANSFORM),
    ("items.price.transform", ["z_score"], TRANSFORM),
    ("items.price.transform.0.clip", [0, 8], TRANSFORM),
    ("items.grade.transform.0.bucketize", 5, TRANSFORM),
    ("items.brand.vocabulary.top_k", 9, TRANSFORM),
    ("items.brand.vocabulary.frequency_threshold", 9, TRANSFORM),
    ("items.brand.vocabulary.num_oov_buckets", 2, TRANSFORM),
    ("items.shop.hash.num_buckets", 9, TRANSFORM),
    ("items.title.tokens.top_k", 9, TRANSFORM),
    ("items.title.tokens.frequency_threshold", 9, TRANSFORM),
    ("items.title.tokens.num_oov_buckets", 2, TRANSFORM),
    ("items.title.tokens.lower", False, TRANSFORM),
    ("items.brand.embedding", 3, TRAIN),
    ("context.country.dtype", "int", INGEST),
    ("context.country.default", "DE", INGEST),
    ("context.country.vocabulary.top_k", 9, TRANSFORM),
    ("context.text.tokens.lower", False, TRANSFORM),
    ("context.country.embedding", 3, TRAIN),
    ("transform.preprocessing_fn", "tfx_ranking.components.preprocessing.preprocessing_fn", TRANSFORM),
    ("model.scorer", "linear", TRAIN),
    ("model.hidden", [8], TRAIN),
    ("model.activation", "selu", TRAIN),
    ("model.dropout", 0.1, TRAIN),
    ("model.normalisation", "batch", TRAIN),
    ("model.loss", "approx_ndcg", TRAIN),
    ("training.epochs", 2, TRAIN),
    ("training.batch_lists", 2, TRAIN),
    ("training.optimizer", "sgd", TRAIN),
    ("training.learning_rate", 0.1, TRAIN),
    ("training.clip_norm", 1.0, TRAIN),
    ("training.early_stopping", None, TRAIN),
    ("training.early_stopping.metric", "mrr", TRAIN),
    ("training.early_stopping.patience", 2, TRAIN),
    ("training.propensity", [1.0, 0.5], TRAIN),
    ("training.propensity.power", 0.5, TRAIN),
    ("training.initialize_from", None, TRAIN),
    ("training.initialize_from.model", "other_start", TRAIN),
    ("training.initialize_from.layers", ["score"], TRAIN),
    ("training.initialize_from.freeze", ["score"], TRAIN),
    ("training.warm_start", True, TRAIN),
    ("training.seed", 2, TRAIN),
    ("serving.signatures", ["predict"], EXPORT),
    ("serving.default", "list_example", EXPORT),
    ("serving.compatibility", ["ml4ir"], EXPORT),
    ("serving.postprocessing", "tfx_ranking.components.metrics.ranking_metrics.mean", EXPORT),
    ("serving.top_k", 3, EXPORT),
    ("serving.required_only", True, EXPORT),
    ("serving.rename", {"price": "price_eur"}, EXPORT),
    ("serving.tflite", True, EXPORT),
    ("serving.parity_lists", 9, EXPORT),
    ("evaluation.metrics", ["mrr"], EVALUATE),
    ("evaluation.slices", ["country"], EVALUATE),
    ("evaluation.relevant_from", 2.0, INGEST),  # data.no_relevant and keep: label go by it
    ("evaluation.gain", "linear", TRAIN),  # of the metric that chooses the best epoch
    ("evaluation.no_relevant", "zero", TRAIN),
    ("evaluation.bless.metric", "mrr", EVALUATE),
    ("evaluation.bless.min_improvement", 0.1, EVALUATE),
    ("evaluation.bless.min_value", 0.1, EVALUATE),
    ("evaluation.bless.allow_breaking", True, EVALUATE),
    ("evaluation.bless.previous_spans", 3, EVALUATE),
    ("push.base", "elsewhere", LIVE),
    ("push.version", "next", PUSH),
    ("push.keep", 3, PUSH),
    ("push.models_config", "others.config", PUSH),
    ("push.label", "canary", PUSH),
    ("retrain.min_lists", 9, NOTHING),  # the steps that look at new data alone: test_retraining.py
    ("retrain.max_age", 9.0, NOTHING),
    ("retrain.drift.label", 0.1, NOTHING),
    ("retrain.drift.features", {"price": 0.1}, NOTHING),
    ("retrain.refuse.label", 0.1, NOTHING),
    ("retrain.refuse.features", {"price": 0.1}, NOTHING),
    ("metadata.sqlite", "m.sqlite", NOTHING),
    ("metadata.connection", {"fake_database": {}}, NOTHING),
    ("kubeflow.containers.Transform.cpu", 2.0, NOTHING),  # what runs elsewhere: test_kubeflow_compile.py
    ("kubeflow.containers.Transform.memory", 2.0, NOTHING),
    ("kubeflow.containers.Transform.gpu", 1, NOTHING),
    ("kubeflow.containers.Transform.gpu_type", "amd.com/gpu", NOTHING),
    ("kubeflow.containers.Transform.retries", 1, NOTHING),
    ("kubeflow.beam_args", ["--direct_num_workers=2"], NOTHING),
    ("kubeflow.env", {"AWS_ENDPOINT_URL": "http://minio"}, NOTHING),
    ("kubeflow.secrets", {"MLMD_PASSWORD": "mlmd/password"}, NOTHING),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    made = tmp_path_factory.mktemp("table")
    for name in ("a.csv", "b.csv", "a.csv.query", "schema.pbtxt"):
        (made / name).write_text("query,label\n1,1\n")
    for model in ("start", "other_start"):
        for name in ("saved_model.pb", "variables/variables.index", WEIGHTS_IN_MODEL):
            (made / model / name).parent.mkdir(parents=True, exist_ok=True)
            (made / model / name).write_text("bytes")
    return made


@pytest.mark.parametrize(("path", "value", "expected"), CHANGES, ids=[path for path, _, _ in CHANGES])
def test_a_changed_key_runs_again_what_reads_it_and_nothing_before(path, value, expected, folder):
    before, after = properties(BASE, folder), properties(changed(BASE, path, value), folder)
    differ = {node for node in after if before.get(node) != after[node]}
    first = {node for node in differ if not differ & upstream(changed(BASE, path, value), folder)[node]}
    assert sorted(first) == sorted(expected.split())


def test_every_key_is_in_the_table():
    placed = {key_of(path) for path, _, _ in CHANGES}
    assert set(leaves(ranking_config.RankingConfig)) - placed == set()


def test_a_curated_schema_that_was_edited_is_imported_again(folder):
    raw = changed(BASE, "data.schema", "schema.pbtxt")
    before = properties(raw, folder)
    (folder / "schema.pbtxt").write_text('feature { name: "price" }')
    after = properties(raw, folder)
    assert [node for node in after if before[node] != after[node]] == ["ImportSchemaGen"]


def test_another_model_to_start_from_trains_again(folder):
    before = properties(BASE, folder)
    (folder / "start" / WEIGHTS_IN_MODEL).write_text("other bytes")
    after = properties(BASE, folder)
    assert [node for node in after if before[node] != after[node]] == ["RankingTrainer"]


def test_the_live_model_is_the_trainers_input_only_where_it_begins_from_it(folder):
    assert LIVE not in upstream(BASE, folder)[TRAIN]
    warm = changed(BASE, "training", {"warm_start": True})
    assert LIVE in upstream(warm, folder)[TRAIN]


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `raw` with the value at `path`, where numbers are places in a list."""
    new = copy.deepcopy(raw)
    *way, last = path.split(".")
    at: Any = new
    for part in way:
        at = at[int(part)] if part.isdigit() else at.setdefault(part, {})
    at[int(last) if last.isdigit() else last] = value
    return new


def pipeline(raw: dict[str, Any], folder: pathlib.Path) -> Any:
    from tfx_ranking.pipelines.ranking_pipeline import ranking_pipeline

    # Without its checks: a key is changed alone here, whatever another then contradicts.
    token = refusals.reading_selection.set(True)
    try:
        config = _absolute(ranking_config.parse(raw), folder)
    finally:
        refusals.reading_selection.reset(token)
    return ranking_pipeline(config, folder)


def properties(raw: dict[str, Any], folder: pathlib.Path) -> dict[str, str]:
    """Step to its execution properties as text, but for the time of asking."""
    components = pipeline(raw, folder).components
    all_properties = {step.id: {"pipeline": raw["name"], **step.exec_properties} for step in components}
    all_properties.get("RankingPusher", {}).get("destination", {}).pop("asked", None)
    return {step: json.dumps(each, sort_keys=True, default=str) for step, each in all_properties.items()}


def upstream(raw: dict[str, Any], folder: pathlib.Path) -> dict[str, set[str]]:
    """Step to every step before it."""
    before: dict[str, set[str]] = {}
    for step in pipeline(raw, folder).components:  # in an order in which they can run
        parents = {parent.id for parent in step.upstream_nodes}
        before[step.id] = parents.union(*(before[parent] for parent in parents))
    return before


def key_of(path: str) -> str:
    """A path in BASE as a key of the dataclasses: no places in lists, the user's own names as *."""
    parts = [part for part in path.split(".") if not part.isdigit()]
    if parts[0] in ("items", "context"):
        parts[:2] = ["*"]
    if parts[:2] == ["kubeflow", "containers"]:
        del parts[2]
    return ".".join(parts)


def leaves(kind: Any, path: str = "") -> set[str]:
    """Every key below a dataclass that holds a plain value; a feature's begin with `*`, as both levels have them."""
    keys: set[str] = set()
    for field in dataclasses.fields(kind):
        here = "*" if field.name in ("items", "context") else f"{path}.{field.name}".lstrip(".")
        inside = dataclasses_in(field.type)
        keys |= set().union(*(leaves(each, here) for each in inside)) if inside else {here}
    return keys


def dataclasses_in(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is typing.Annotated:  # a name of a table of choices, or a transform step: one value
        return []
    if dataclasses.is_dataclass(kind):
        return [kind]
    return [inner for argument in typing.get_args(kind) for inner in dataclasses_in(argument)]


@pytest.mark.parametrize("change", [{"window": {"spans": 2}}, {"span": 2}, {"splits": {"test": 0.2}}])
def test_a_check_of_new_files_does_not_run_again_for_another_window(folder, change):
    from tfx_ranking.components.ingestion import sources
    from tfx_ranking.pipelines.data_check_pipeline import data_check_pipeline

    for span in (1, 2):
        (folder / f"day-{span}.csv").write_text(f"query,label\n{span},1\n")
    properties = []
    for data in ({"window": {"spans": 3}}, {"window": {"spans": 3}, **change}):
        raw = {"name": "shop", "data": {"input": str(folder / "day-{SPAN}.csv"), "format": "csv", **data}}
        config = ranking_config.parse({**raw, "items": {"price": {}}})
        source = sources.keep_files(sources.resolve(config.data), lambda entry: entry["span"] == 1)
        steps = data_check_pipeline(config, folder, source, {"statistics": "a", "schema": "b"}).components
        properties.append([step.exec_properties for step in steps])
    assert properties[0] == properties[1]
