"""Writes the trainer's input as TFX's Transform writes it, and runs the component on it without a pipeline."""

from tfx.types.standard_artifacts import ExampleAnomalies, Examples, Model, ModelRun, TransformGraph

from tfx_ranking.components import trainer
from tfx_ranking.components.lists.list_examples import Column, encode, write_records

SCHEMA = """
feature { name: "group_id" type: BYTES presence { min_fraction: 1 } shape {} }
feature { name: "context/wish" type: INT int_domain { min: 0 max: 1 } presence { min_fraction: 1 } shape {} }
feature { name: "context/numeric" type: FLOAT presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "items/numeric$ragged_values" type: FLOAT }
feature { name: "items/brand$ragged_values" type: INT int_domain { min: 0 max: 6 } }
feature { name: "items/tags$ragged_values" type: INT }
feature { name: "items/tags$ragged_values/row_lengths" type: INT }
feature { name: "label$ragged_values" type: FLOAT }
feature { name: "position$ragged_values" type: INT }
tensor_representation_group { key: "" value { REPRESENTATIONS } }
"""
PARTITIONS = {
    "items/numeric": "partition { uniform_row_length: 3 }",
    "items/brand": "",
    "items/tags": 'partition { row_length: "items/tags$ragged_values/row_lengths" }',
    "label": "",
    "position": "",
}


def write_transformed(folder, extra="", **splits):
    """Writes a transform graph's metadata and materialised splits, as TFX's Transform does."""
    table = {
        "group_id": Column("context", "string"),
        "context/wish": Column("context", "int"),
        "context/numeric": Column("context", "float", 1),
        "items/numeric": Column("items", "float", 3),
        "items/brand": Column("items", "int"),
        "items/tags": Column("items", "int", tokens=True),
        "label": Column("items", "float"),
        "position": Column("items", "int"),
    }
    representations = "".join(
        f'tensor_representation {{ key: "{name}" value {{ ragged_tensor {{ '
        f'feature_path {{ step: "{name}$ragged_values" }} {partition} }} }} }}'
        for name, partition in PARTITIONS.items()
    )
    metadata = folder / "graph" / "transformed_metadata"
    metadata.mkdir(parents=True)
    (metadata / "schema.pbtxt").write_text(SCHEMA.replace("REPRESENTATIONS", representations) + extra)
    stored = {name + ("$ragged_values" if name in PARTITIONS else ""): column for name, column in table.items()}
    for split, data in splits.items():
        (folder / "examples" / f"Split-{split}").mkdir(parents=True)
        items = {name + "$ragged_values": data.items[name] for name in PARTITIONS}
        records = encode(data._replace(items=items), stored)
        half = len(records) // 2
        for part, some in enumerate((records[half:], records[:half])):
            write_records(str(folder / "examples" / f"Split-{split}" / f"part-{part}.gz"), some)


def run_component(folder, config, anomalies=None, base_model=None, **parameters):
    """Runs the component's executor on artifacts in `folder`; returns the Model and ModelRun artifacts."""
    inputs = {"transformed_examples": [Examples()], "transform_graph": [TransformGraph()]}
    inputs["transformed_examples"][0].uri = str(folder / "examples")
    inputs["transform_graph"][0].uri = str(folder / "graph")
    if anomalies is not None:
        inputs["anomalies"] = [ExampleAnomalies()]
        inputs["anomalies"][0].uri = str(anomalies)
    if base_model is not None:
        inputs["base_model"] = [base_model]
    outputs = {"model": [Model()], "model_run": [ModelRun()]}
    for name, (artifact,) in outputs.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir(exist_ok=True)
    defaults = {"train_split": "train", "validation_split": "validation", "code_digest": "", "initial_model": ""}
    properties = {"config": config.select(*trainer.READS), **defaults, **parameters}
    trainer.RankingTrainer.EXECUTOR_SPEC.executor_class().Do(inputs, outputs, properties)
    return outputs["model"][0], outputs["model_run"][0]
