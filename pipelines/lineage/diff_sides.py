"""Collects what a diff compares: everything recorded about one run or one model.

Input: a store and a query.  Output: an immutable `SideRecords`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.lineage import origin, served
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, File, Lineage, ModelRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two runs or models of a diff."""

    query: str
    run: str
    pipeline: str
    model: ModelRecord | None  # None: the run exported no model
    examples: Artifact | None  # None: the run made no examples
    files: tuple[File, ...]
    problem: str = ""  # the step of the run that failed, and why


@dataclasses.dataclass(frozen=True, kw_only=True)
class SideRecords:
    """One side with all that the comparisons read; "" and {} for what is not recorded."""

    side: Side
    lineage: Lineage
    evaluation: Mapping[str, Any]  # the properties of the newest evaluation
    evaluated_on: int | None  # the id of the examples that it was evaluated on
    baseline: str  # the digest of the model that it was compared with in this evaluation; ""
    statistics: str  # uri
    graph: str  # uri of the transform graph
    anomalies: tuple[str, ...]  # uris of the anomalies, if the validator found some
    packages: Mapping[str, str]
    config: Mapping[str, Any]


def side_records(store: Store, query: str) -> SideRecords:
    """Collects the records of a run or a model.

    Raises RankingError if the store does not have it, or if it is neither a run nor a model.
    """
    lineage = origin.upstream(store, query, alone=True)
    is_run = store.run(query) is not None and not pathlib.Path(query).is_dir()
    model = _model(store, lineage, is_run)
    run = query if is_run or model is None else model.run
    steps = [(each, _outputs(each, lineage)) for each in lineage.executions]
    examples = lineage.artifacts.get(model.examples) if model and model.examples else None
    if examples is None:
        examples = next((a for _, outputs in steps for a in outputs if a.type == "Examples" and a.spans), None)
    examples_id = examples.id if examples else -1
    consumers = [outputs for each, outputs in steps if examples_id in {link.artifact for link in each.inputs}]
    evaluations = [
        (each, artifact)
        for each, outputs in steps
        for artifact in outputs
        if artifact.type == "ModelEvaluation" and (model is None or model.id in {link.artifact for link in each.inputs})
    ]
    evaluator, evaluation = evaluations[0] if evaluations else (None, None)
    validations = [a for _, outputs in steps for a in outputs if a.type == "ExampleAnomalies"]
    receipts = [each["packages"] for each in origin.receipts(lineage) if each["run"] == run]
    return SideRecords(
        side=Side(
            query=query,
            run=run,
            pipeline=next((each.pipeline for each, _ in steps if each.run == run), ""),
            model=model,
            examples=examples,
            files=tuple(f for each, outputs in steps if examples_id in {a.id for a in outputs} for f in each.files),
            problem=_problem(lineage, run),
        ),
        lineage=lineage,
        evaluation=evaluation.properties if evaluation else {},
        evaluated_on=_input(evaluator, ("examples",)) if evaluator else None,
        baseline=_baseline(evaluator, lineage) if evaluator else "",
        statistics=next((a.uri for outputs in consumers for a in outputs if a.type == "ExampleStatistics"), ""),
        graph=next((a.uri for _, outputs in steps for a in outputs if a.type == "TransformGraph"), ""),
        anomalies=tuple(each.uri for each in validations if _has_anomalies(each.properties.get("blessed"))),
        packages=receipts[0] if receipts else {},
        config=origin.config_of(lineage.executions),
    )


def _model(store: Store, lineage: Lineage, is_run: bool) -> ModelRecord | None:
    """The model of a side; None for a run that exported none."""
    digests = {each.digest for each in lineage.subject} - {""}
    # A push or a copy stands for the model that was exported.
    same = store.with_digests(digests).values() if len(digests) == 1 and not is_run else ()
    subject = {each.id: each for each in (*lineage.subject, *(each for several in same for each in several))}
    models = [each for each in subject.values() if each.type == "Model" and not each.copied]
    if not is_run and not models:
        types = ", ".join(sorted({each.type for each in lineage.subject}))
        raise RankingError(f"{lineage.query}: a diff compares two runs or two models; this is of type {types}.")
    # A run has a trained and an exported model: the exported one has a digest.
    newest = sorted(models, key=lambda each: (not each.digest, -each.id))[:1]
    return next(iter(served.model_records(store, newest)), None)


def _problem(lineage: Lineage, run: str) -> str:
    tries = origin.last_tries(each for each in reversed(lineage.executions) if each.run == run)
    failed = next((each for each in tries if each.state in ("failed", "dead")), None)
    return f"{failed.node}: {failed.reason}".removesuffix(": ") if failed else ""


def _has_anomalies(blessed: Any) -> bool:
    """blessed: by split, as ExampleValidator writes it."""
    return isinstance(blessed, Mapping) and not all(blessed.values())


def _baseline(evaluator: Execution, lineage: Lineage) -> str:
    baseline = _input(evaluator, origin.COMPARISON_INPUTS, among=lineage.artifacts)
    return lineage.artifacts[baseline].digest if baseline is not None else ""


def _input(step: Execution, names: Sequence[str], among: Mapping[int, Artifact] | None = None) -> int | None:
    links = [link for link in step.inputs if link.name in names]
    return next((link.artifact for link in links if among is None or link.artifact in among), None)


def _outputs(step: Execution, lineage: Lineage) -> Sequence[Artifact]:
    return [lineage.artifacts[link.artifact] for link in step.outputs if link.artifact in lineage.artifacts]
