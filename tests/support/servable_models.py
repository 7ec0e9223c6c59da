"""Makes SavedModels that TensorFlow can load, without TensorFlow: `scores = x * weight`, with a sample request."""

import json
import pathlib

import saved_models
from tensorboard.compat.proto import meta_graph_pb2, types_pb2

from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL, LINEAGE_IN_MODEL, SAMPLES_IN_MODEL


def save(directory: pathlib.Path, weight: float, answer: float | None = None, size: int = 0, **receipt) -> pathlib.Path:
    """Writes a model of one weight and returns its directory.

    answer: the answer that its sample records for x = 2; None for the right one.  size: the size of its variables file,
    in bytes.  receipt: the fields of its lineage receipt.
    """
    graph = meta_graph_pb2.MetaGraphDef()
    graph.meta_info_def.tags.append("serve")
    graph.graph_def.versions.producer = 1286
    x = graph.graph_def.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = types_pb2.DT_FLOAT
    w = graph.graph_def.node.add(name="w", op="Const")
    w.attr["dtype"].type = w.attr["value"].tensor.dtype = types_pb2.DT_FLOAT
    w.attr["value"].tensor.float_val.append(weight)
    w.attr["value"].tensor.tensor_shape.SetInParent()
    scores = graph.graph_def.node.add(name="scores", op="Mul", input=["x", "w"])
    scores.attr["T"].type = types_pb2.DT_FLOAT
    definition = graph.signature_def["predict"]
    definition.method_name = "tensorflow/serving/predict"
    for side, name in ((definition.inputs, "x"), (definition.outputs, "scores")):
        side[name].name, side[name].dtype = f"{name}:0", types_pb2.DT_FLOAT
        side[name].tensor_shape.dim.add(size=-1)
    (directory / "variables").mkdir(parents=True)
    content = saved_models.field(1, 1) + saved_models.field(2, graph.SerializeToString())
    (directory / "saved_model.pb").write_bytes(content)
    (directory / "variables" / "variables.index").write_bytes(b"")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(b"\1" * size)
    outputs = [2 * weight if answer is None else answer]
    sample = {"request": {"signature_name": "predict", "inputs": {"x": [2.0]}}, "response": {"outputs": outputs}}
    _write(directory / SAMPLES_IN_MODEL / "predict.json", sample)
    if receipt:
        _write(directory / LINEAGE_IN_MODEL, receipt)
    return directory


def promise(directory: pathlib.Path, *features: str) -> pathlib.Path:
    """Writes a contract with these features into a model, and returns the model's directory."""
    read = {"level": "items", "dtype": "float", "shape": [], "tokens": False, "default": 0.0}
    _write(directory / CONTRACT_IN_MODEL, {"signatures": {}, "features": dict.fromkeys(features, read)})
    return directory


def _write(file: pathlib.Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
