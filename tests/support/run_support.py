"""A small shop to run the pipeline on again and again: logs, ranking.yaml and a preprocessing_fn of its own.

`Shop.run` runs in this process and tells what each component did; `Shop.command` is the command line for another.
"""

import dataclasses
import json
import pathlib
import sys
from typing import Any

from ml_metadata import metadata_store

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.pipelines import search_logs
from tfx_ranking.pipelines.metadata import run_records
from tfx_ranking.pipelines.metadata.connection import config_connection

COMPONENTS = (
    *("RankingExampleGen", "StatisticsGen", "RankingSchemaGen", "ExampleValidator", "Transform", "RankingTrainer"),
    *("SignatureExporter", "LiveModel", "RankingEvaluator", "RankingPusher"),
)
PREPROCESSING = """
from tfx_ranking.components import preprocessing

def preprocessing_fn(inputs, custom_config):
    outputs = preprocessing.preprocessing_fn(inputs, custom_config)
    outputs["items/numeric"] = outputs["items/numeric"] * 1.0
    return outputs
"""
CONFIG: dict[str, Any] = {
    "name": "shop",
    "data": {
        "input": "logs/*.csv",
        "format": "csv",
        "group_id": "query_id",
        "label": "relevance",
        "splits": {"validation": 0.2, "test": 0.2},
    },
    "context": {"country": {"dtype": "string", "hash": {"num_buckets": 8}, "embedding": 2}},
    "items": {"price": {"transform": ["log1p"]}, "text_match": {"transform": ["z_score"]}},
    "transform": {"preprocessing_fn": "shop_features.preprocessing_fn"},
    "model": {"scorer": "linear"},
    "training": {"epochs": 2, "batch_lists": 16},
    "serving": {"signatures": ["list_example"], "default": "list_example", "parity_lists": 16},
    "push": {"base": "serving/shop"},
}


@dataclasses.dataclass(frozen=True)
class Shop:
    """A folder with a config to run, and what its runs left behind."""

    folder: pathlib.Path

    @property
    def config_file(self) -> pathlib.Path:
        return self.folder / "ranking.yaml"

    @property
    def features(self) -> pathlib.Path:
        return self.folder / "shop_features.py"

    @property
    def base(self) -> pathlib.Path:
        return self.folder / "serving" / "shop"

    @property
    def store(self) -> metadata_store.MetadataStore:
        config = ranking_config.load(self.config_file)
        return metadata_store.MetadataStore(config_connection(config, self.folder))

    def set(self, path: str, value: Any) -> None:
        """Changes one key of ranking.yaml."""
        raw = json.loads(self.config_file.read_text())
        *way, last = path.split(".")
        at = raw
        for part in way:
            at = at.setdefault(part, {})
        at[last] = value
        self.config_file.write_text(json.dumps(raw))

    def run(self, orchestrator: str = "beam") -> dict[str, str]:
        """Runs in this process; component to what became of it."""
        from tfx_ranking.pipelines.running import process

        return self.states(process.run_here(self.config_file, self.folder, orchestrator))

    def states(self, run_id: str | None = None) -> dict[str, str]:
        """Component to state, of one run or of the newest."""
        store = self.store
        newest = run_id or max(context.name for context in store.get_contexts_by_type("pipeline_run"))
        return {step.node: step.state for step in run_records.read_steps(store, newest, COMPONENTS)}

    def versions(self) -> list[int]:
        """The versions that TensorFlow Serving sees."""
        return list(serving_versions.ServingBase(self.base).directories())

    def running(self) -> list[str]:
        """The components that ML Metadata says are running, one for each execution."""
        executions = self.store.get_executions()
        return [each.type.rpartition(".")[2] for each in executions if each.last_known_state == each.RUNNING]

    def command(self, *extra: str) -> list[str]:
        """The command line of `tfx-ranking run`."""
        return [sys.executable, "-m", "tfx_ranking.pipelines.cli", "run", str(self.config_file), *extra]


def open_shop(folder: pathlib.Path) -> Shop:
    """Writes the shop's files: 120 searches in two days, 5 to 8 items each."""
    simulation = search_logs.Simulation(queries=120, days=2, products=100, min_items=5, max_items=8)
    search_logs.write_csv(simulation, folder / "logs")
    shop = Shop(folder)
    shop.config_file.write_text(json.dumps(CONFIG))
    shop.features.write_text(PREPROCESSING)
    return shop


def ran(states: dict[str, str]) -> list[str]:
    """The components that did their work again; every other must have been answered from the cache."""
    assert set(states.values()) <= {"done", "cached"}, states
    return [node for node, state in states.items() if state == "done"]
