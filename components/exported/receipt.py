"""Makes and reads the lineage receipt: the inputs, the data and the packages that an exported model comes from.

Input: a component's input artifacts and its run.  Output: a receipt that is stored as JSON in the model.  Only ML
Metadata records what is known later, for example the metrics.
"""

import contextvars
import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.exported.model_files import LINEAGE_IN_MODEL
from tfx_ranking.components.storage import PathLike, to_path

PACKAGES = (
    *("tfx-ranking", "tfx", "tensorflow", "keras", "tensorflow-transform", "tensorflow-data-validation", "tfx-bsl"),
    *("ml-metadata", "apache-beam", "numpy", "pyarrow", "protobuf"),
)
DATA = ("span", "spans", "version", "fingerprint", "lists_out", "items_out", "records_in", "quarantined")


class PipelineRun(NamedTuple):
    """The pipeline run that a component runs in; empty outside of a run."""

    pipeline: str = ""
    run: str = ""
    execution: str = ""


current_run: contextvars.ContextVar[PipelineRun] = contextvars.ContextVar("current_run")
# Where an artifact is stored, by the path that the component sees, if the two differ.
stored: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("stored")


def receipt(artifacts: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a receipt: `pipeline`, `run`, `execution`, `exported_at`, `artifacts` by input name, `data`, `packages`.

    artifacts: TFX artifacts by the name of their input; `data` comes from the input `examples`.
    """
    described: dict[str, Any] = {**current_run.get(PipelineRun())._asdict()}
    described["exported_at"] = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    uris = stored.get({})
    described["artifacts"] = {
        name: [{"id": artifact.id, "type": artifact.type_name, "uri": uris.get(artifact.uri, artifact.uri)}]
        for name, artifact in artifacts.items()
    }
    if "examples" in artifacts:
        described["data"] = _data(artifacts["examples"])
    described["packages"] = {"python": platform.python_version(), **_versions()}
    return described


def read(model: PathLike) -> dict[str, Any] | None:
    """The receipt in a model's directory; None when the model has none.

    Raises RankingError when the file is not a JSON object.
    """
    file = to_path(model) / LINEAGE_IN_MODEL
    if not file.is_file():
        return None
    try:
        recorded = json.loads(file.read_bytes())
        if not isinstance(recorded, dict):
            raise ValueError(f"got {type(recorded).__name__}")
    except ValueError as error:
        raise RankingError(
            f"{file}: expected a lineage receipt, a JSON object; it cannot be read ({error}). Restore the file from "
            "another copy of the model, or export the model again."
        ) from error
    return dict(recorded)


def live_spans(model: PathLike | None) -> list[int]:
    """The spans that the live model was trained on, by its receipt; [] when no model is live.

    Raises DataError when the receipt does not list them, RankingError when it cannot be read.
    """
    if model is None:
        return []
    spans = (read(model) or {}).get("data", {}).get("spans")
    if not spans:
        raise DataError(
            f"data.window.since: {model} does not say on which spans it was trained ({LINEAGE_IN_MODEL}). Use "
            "data.window.spans until a model of this pipeline serves."
        )
    return [int(span) for span in json.loads(spans)]


def _data(examples: Any) -> dict[str, Any]:
    """The example generator's record of its input: spans, fingerprints, counts."""
    artifact = examples.mlmd_artifact
    properties = {**artifact.properties, **artifact.custom_properties}
    return {
        name: getattr(properties[name], properties[name].WhichOneof("value")) for name in DATA if name in properties
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a component may be used with less than all of TFX
            continue
    return versions
