"""The demo: trains on a shop's simulated search logs, and compares the ranker with the known truth.

`prepare` writes the logs and `ranking.yaml`; `tfx-ranking demo` then runs the pipeline as for any other config.
`compare` measures what a real log cannot show: the ranker's quality by true relevance, beside the logged order and
beside the same ranker trained without correction of the position bias.  Only this comparison reads the truth from the
logs, by (query_id, sku); no component does.
"""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.pipelines import search_logs

SIMULATION = search_logs.Simulation(queries=6000, days=6, power=1.0, popularity_pull=2.0)
METRIC = "ndcg@10"

RANKING_YAML = """\
# The ranker of a shop's product search: what a list is and what to do with it, in one place for all components.
# `tfx-ranking run ranking.yaml` runs it; paths are relative to this file; `tfx-ranking config-schema` prints every key.
name: shop-search

data:
  input: logs/*.csv        # one row for each item that was shown
  format: csv
  group_id: query_id       # the rows of one query_id are one list
  item_id: sku
  label: clicked           # what the ranker learns to predict
  label_range: [0, 1]      # any other label is refused
  position: position       # where the item was shown, from 1; it corrects training and is never an input
  splits: {by: group_id, train: 0.8, validation: 0.1, test: 0.1}
  # The logs have a column `relevance` as well, the simulator's truth. It is not named here, so nothing reads it.

context:                   # of the query: one value a list
  query_text: {dtype: string, tokens: {top_k: 5000}, embedding: 16}
  query_category: {dtype: string, vocabulary: {}, embedding: 8}
  country: {dtype: string, vocabulary: {}, embedding: 8}

items:                     # one value an item
  title: {dtype: string, tokens: {top_k: 5000}, embedding: 16}
  brand: {dtype: string, vocabulary: {num_oov_buckets: 2}, embedding: 8}
  category: {dtype: string, vocabulary: {}, embedding: 8}
  price: {dtype: float, transform: [log1p, z_score]}
  rating: {dtype: float, default: 3.5, indicator: true, transform: [z_score]}  # empty until somebody has rated it
  reviews: {dtype: float, transform: [log1p, z_score]}
  popularity: {dtype: float, transform: [log1p, z_score]}
  in_stock: {dtype: float}
  text_match: {dtype: float, transform: [z_score]}

model: {scorer: dnn, hidden: [64, 32], loss: softmax}

training:
  epochs: 6
  batch_lists: 32
  learning_rate: 0.001
  # The shop's visitors look at position k with probability 1/k, so a click at k counts k times.
  propensity: {power: 1.0}
  # The clicks of the validation split are as biased as those of the train split: they are no judge of when to stop.
  early_stopping: null
  seed: 1

serving:
  # What clients may call; `tfx-ranking inspect serving/shop-search` shows inputs and outputs of each.
  signatures: [predict, sequence_example, list_example, regress, features, rank, rank_list_example, probabilities,
               transform]
  default: predict
  compatibility: [tf_ranking, ml4ir]   # under the names that clients of these systems call

evaluation:
  metrics: [ndcg@5, ndcg@10, mrr]
  slices: [country]
  bless: {metric: ndcg@10, min_improvement: 0.0}   # over the version that serves; the first has nothing to beat

push: {base: serving/shop-search, version: next}   # 1, 2, 3, …; by default a version is the time of its push
metadata: {sqlite: metadata.sqlite}
"""


def prepare(root: pathlib.Path, simulation: search_logs.Simulation = SIMULATION) -> pathlib.Path:
    """Writes `root/logs/*.csv` and `root/ranking.yaml` where they are missing; returns the config's path.

    Existing files stay as they are, so an edited config is run as edited.
    """
    logs, config = root / "logs", root / "ranking.yaml"
    if not all((logs / f"{day}.csv").exists() for day in search_logs.days(simulation)):
        search_logs.write_csv(simulation, logs)
    if not config.exists():
        config.write_text(RANKING_YAML, encoding="utf-8")
    return config


@dataclasses.dataclass(frozen=True)
class Order:
    """How good one order of the test split's items is."""

    name: str
    by_relevance: float  # METRIC against the true relevance
    by_clicks: float  # METRIC against the clicks, which were made under the logged order


@dataclasses.dataclass(frozen=True)
class OrderComparison:
    """The logged order, the ranker without propensities and the trained one, on the same lists."""

    orders: tuple[Order, ...]
    convention: str  # of METRIC
    lists: int  # of the test split
    gain: float  # of the trained ranker over the one without propensities, by true relevance
    half_width: float  # of the gain's paired 95 % interval


def summarise(root: pathlib.Path) -> str:
    """Runs `compare` in a process of its own, with its output in a log file, and renders the result.

    Raises RankingError when the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, log = pathlib.Path(folder, "comparison.json"), root / "comparison.log"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3")}
        command = [sys.executable, "-m", "tfx_ranking.pipelines.demo", str(root), str(answer)]
        with log.open("w") as output:
            code = subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode
        if code:
            last = (log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise RankingError(f"the comparison with the true relevance failed: {last} Log: {log}")
        log.unlink()
        read = json.loads(answer.read_text())
    return render(OrderComparison(**{**read, "orders": tuple(Order(**each) for each in read["orders"])}))


def render(comparison: OrderComparison) -> str:
    """The comparison as a table, with its conclusion.

    >>> orders = (Order("logged order", 0.58, 0.81), Order("without", 0.84, 0.7), Order("with", 0.92, 0.58))
    >>> print(render(OrderComparison(orders, "ndcg@10(gain=exponential)", 790, gain=0.08, half_width=0.01)))
    On the 790 lists of the test split, ndcg@10(gain=exponential):
    <BLANKLINE>
                     true relevance   clicks
      logged order           0.5800   0.8100
      without                0.8400   0.7000
      with                   0.9200   0.5800
    <BLANKLINE>
    By true relevance the propensities bring +0.0800 ± 0.0100 (95 %, paired by list).
    The clicks were made under the logged order and side with what stood high: they do not see it.
    """
    width = max(len(order.name) for order in comparison.orders)
    rows = [
        f"  {order.name:{width}}  {order.by_relevance:>15.4f}  {order.by_clicks:>7.4f}" for order in comparison.orders
    ]
    return "\n".join(
        [
            f"On the {comparison.lists:,} lists of the test split, {comparison.convention}:",
            "",
            f"  {'':{width}}  {'true relevance':>15}  {'clicks':>7}",
            *rows,
            "",
            f"By true relevance the propensities bring {comparison.gain:+.4f} ± {comparison.half_width:.4f} "
            "(95 %, paired by list).",
            "The clicks were made under the logged order and side with what stood high: they do not see it.",
        ]
    )


class ScoredLists(NamedTuple):
    """The lists of the test split; all arrays but row_splits are [item]."""

    scores: dict[str, npt.NDArray[Any]]  # by order: logged, without propensities, with
    relevance: npt.NDArray[np.float64]  # true grades
    clicks: npt.NDArray[Any]
    row_splits: npt.NDArray[Any]  # [list + 1]


def compare(root: pathlib.Path) -> OrderComparison:
    """Measures the newest run under `root`; takes half a minute, as it trains the ranker without propensities."""
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.components.metrics.convention import Convention

    config = ranking_config.load(root / "ranking.yaml")
    return measure(score_lists(config, root), Convention.of(config.evaluation))


def score_lists(config: Any, root: pathlib.Path) -> ScoredLists:
    """The test split's examples, scored by the exported `list_example` signature and by the orders to compare with.

    Raises RankingError when no run has exported a model.
    """
    from tfx_ranking.components.lists import list_examples

    artifacts = newest_export(config, root)
    data = config.data
    columns = list_examples.columns(config)
    wanted = {name: columns[name] for name in (data.group_id, data.label, "sku", "position")}
    records = list(list_examples.read_records(list_examples.split_files(artifacts["examples"], "test")))
    lists = list_examples.decode(records, wanted)
    queries = lists.context[data.group_id]
    truth = true_relevance(root / "logs", np.repeat(queries, np.diff(lists.row_splits)), lists.items["sku"])
    scores = {
        "logged order": -lists.items["position"].astype(np.float64),
        "trained without propensities": _scores_without_propensities(config, artifacts, queries),
        "trained with propensities": _served_scores(artifacts["model"], records, lists.row_splits),
    }
    return ScoredLists(scores, truth, lists.items[data.label], lists.row_splits)


def measure(lists: ScoredLists, convention: Any) -> OrderComparison:
    """METRIC of every order, and the gain of the last one over the one before it by true relevance."""
    from tfx_ranking.components.metrics import ranking_metrics

    def values(labels: npt.NDArray[Any]) -> list[npt.NDArray[np.float64]]:
        return [
            ranking_metrics.per_list([METRIC], scores, labels, lists.row_splits, convention)[METRIC]
            for scores in lists.scores.values()
        ]

    by_relevance, by_clicks = values(lists.relevance), values(lists.clicks)
    difference = by_relevance[-1] - by_relevance[-2]
    kept = difference[~np.isnan(difference)]
    means = zip(lists.scores, map(ranking_metrics.mean, by_relevance), map(ranking_metrics.mean, by_clicks))
    return OrderComparison(
        orders=tuple(Order(*row) for row in means),
        convention=ranking_metrics.describe(METRIC, convention),
        lists=len(lists.row_splits) - 1,
        gain=float(kept.mean()),
        half_width=float(1.96 * kept.std(ddof=1) / np.sqrt(len(kept))),
    )


def true_relevance(logs: pathlib.Path, queries: npt.NDArray[Any], skus: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """The simulator's grade of each (query, sku), float64 [item].  Raises RankingError for an unknown pair."""
    kept = pyarrow.csv.ConvertOptions(include_columns=["query_id", "sku", "relevance"])
    files = sorted(logs.glob("*.csv"))
    log = pa.concat_tables([pyarrow.csv.read_csv(str(file), convert_options=kept) for file in files])
    grades = dict(zip(zip(*(log[name].to_pylist() for name in ("query_id", "sku"))), log["relevance"].to_pylist()))
    pairs = [(query.decode(), sku.decode()) for query, sku in zip(queries, skus)]
    absent = next((pair for pair in pairs if pair not in grades), None)
    if absent:
        raise RankingError(f"{logs}: no row shows {absent[1]} for query {absent[0]}; the logs changed after the run.")
    return np.array([grades[pair] for pair in pairs], np.float64)


def newest_export(config: Any, root: pathlib.Path) -> dict[str, str]:
    """The newest exported model and the inputs of its export: channel to folder."""
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    from tfx_ranking.pipelines.metadata.connection import config_connection

    store = metadata_store.MetadataStore(config_connection(config, root))
    node = store.get_context_by_type_and_name("node", f"{config.name}.SignatureExporter")
    whole = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)
    executions = store.get_executions_by_context(node.id) if node else []
    exports = [execution.id for execution in executions if execution.last_known_state in whole]
    if not exports:
        raise RankingError(f"{root}: no run has exported a model yet; run `tfx-ranking demo --root {root}`.")
    events = store.get_events_by_execution_ids([max(exports)])
    folders = {artifact.id: artifact.uri for artifact in store.get_artifacts_by_id([e.artifact_id for e in events])}
    return {event.path.steps[0].key: folders[event.artifact_id] for event in events}


def _served_scores(model: str, records: list[bytes], row_splits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    import tensorflow as tf

    from tfx_ranking.components.evaluation import scores

    loaded = tf.saved_model.load(f"{model}/{model_files.FORMAT_SERVING}")
    return scores.score_lists(loaded.signatures[scores.SIGNATURE], records, row_splits)


def _scores_without_propensities(config: Any, artifacts: dict[str, str], queries: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Scores of the test split's items, the lists in the order of `queries`, from a ranker trained on plain clicks."""
    import tensorflow as tf

    from tfx_ranking.components import trainer
    from tfx_ranking.components.training import training_data

    layout = training_data.read_layout(artifacts["transform_graph"])
    train, validation, test = (
        training_data.read_split(artifacts["transformed_examples"], split, layout)[0]
        for split in ("train", "validation", "test")
    )
    plain = dataclasses.replace(config, training=dataclasses.replace(config.training, propensity=None))
    ranker, _ = trainer.train(train, validation, plain, sizes=layout.sizes)
    place = {query: i for i, query in enumerate(test.context["group_id"])}
    ordered = training_data.take(test, np.array([place[query] for query in queries], np.int64))
    batches = training_data.batches(ordered, tf.data.Dataset.range(len(queries)), 256)
    return np.concatenate([np.asarray(ranker(inputs, training=False)) for inputs, _ in batches])


if __name__ == "__main__":
    pathlib.Path(sys.argv[2]).write_text(json.dumps(dataclasses.asdict(compare(pathlib.Path(sys.argv[1])))))
