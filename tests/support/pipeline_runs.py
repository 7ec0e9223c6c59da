"""Whole pipelines on the real data sets, run once a test session and looked at by many tests."""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np
import real_sets
import yaml

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.metadata import run_records
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection
from tfx_ranking.pipelines.running import process


@dataclasses.dataclass(frozen=True, eq=False)
class PipelineRun:
    """One finished run of a set's pipeline."""

    folder: pathlib.Path
    config: ranking_config.RankingConfig
    run_id: str

    def uri(self, node: str, channel: str) -> pathlib.Path:
        """Where the newest artifact of a component's output lies."""
        folder = artifacts_root(self.config, self.folder) / node / channel
        return max(folder.iterdir(), key=lambda each: int(each.name))

    def properties(self, node: str, channel: str) -> dict[str, Any]:
        """That artifact's custom properties in ML Metadata."""
        store = self.store()
        (artifact,) = store.get_artifacts_by_uri(str(self.uri(node, channel)))
        return {key: getattr(value, value.WhichOneof("value")) for key, value in artifact.custom_properties.items()}

    def steps(self) -> list[run_records.Step]:
        """The components as the live table shows them at the end."""
        store = self.store()
        context = store.get_context_by_type_and_name("pipeline_run", self.run_id)
        nodes = [execution.type.rsplit(".", 1)[-1] for execution in store.get_executions_by_context(context.id)]
        return run_records.read_steps(store, self.run_id, nodes)

    def store(self) -> Any:
        from ml_metadata import metadata_store

        return metadata_store.MetadataStore(config_connection(self.config, self.folder))

    @property
    def served(self) -> pathlib.Path:
        """The version that TensorFlow Serving would load."""
        base = pathlib.Path(self.config.push.base)
        return base / str(versions.ServingBase(base).live_version())

    def records(self, node: str, channel: str, split: str) -> list[bytes]:
        """The records of one split of an Examples artifact."""
        from tfx_ranking.components.lists.list_examples import read_records, split_files

        return list(read_records(split_files(str(self.uri(node, channel)), split)))

    @functools.cache  # noqa: B019, a run lives as long as the test session
    def training_scores(self) -> dict[bytes, np.ndarray]:
        """The training path on the test split: materialised features through `ranker.keras`; group id to scores."""
        import keras
        import tensorflow as tf
        import tensorflow_transform as tft

        from tfx_ranking.components.scorers.inputs import network_inputs

        spec = tft.TFTransformOutput(str(self.uri("Transform", "transform_graph"))).transformed_feature_spec()
        network = keras.saving.load_model(self.uri("RankingTrainer", "model") / "Format-Keras" / "ranker.keras")
        scores = {}
        for record in self.records("Transform", "transformed_examples", "test"):
            parsed = tf.io.parse_example([record], spec)
            fed = {name: value for name, value in parsed.items() if name.startswith(("items/", "context/"))}
            scores[parsed["group_id"].numpy()[0]] = network(network_inputs(fed), training=False).numpy()
        return scores


def run_set(name: str, data: pathlib.Path, folder: pathlib.Path, lists: int | None) -> PipelineRun:
    """Runs the pipeline of one of `real_sets.SETS`, cut to `lists` lists a file or whole."""
    folder.mkdir(parents=True)
    raw = real_sets.SETS[name](data, folder, lists)
    raw["model"] = {**real_sets.SMALL_MODEL, **raw.get("model", {})}
    raw["training"] = {**real_sets.SHORT_TRAINING, **raw.get("training", {})}
    raw["push"] = {"base": f"serving/{raw['name']}"}
    (folder / "ranking.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return finished(folder, process.run_here(folder / "ranking.yaml", folder))


def finished(folder: pathlib.Path, run_id: str) -> PipelineRun:
    """A run that is over, by its folder."""
    return PipelineRun(folder, ranking_config.load(folder / "ranking.yaml"), run_id)
