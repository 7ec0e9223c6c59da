"""One side of a diff: a run or a model, with all that is known of how it came to be.

Enters: a store, a name.  Leaves: an immutable `Known`.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.lineage import origin, served
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, File, Lineage, Model


@dataclasses.dataclass(frozen=True)
class Side:
    """One of the two."""

    asked: str
    run: str
    pipeline: str
    model: Model | None  # None: the run exported none
    examples: Artifact | None  # None: the run made none
    files: tuple[File, ...]
    problem: str = ""  # the step of the run that failed, and why


@dataclasses.dataclass(frozen=True)
class Known:
    """What the comparisons ask of a side; "" and {} for what it has not."""

    side: Side
    found: Lineage
    evaluation: Mapping[str, Any]  # the properties of the newest
    lists: int | None  # the examples that it was evaluated on
    compared: str  # the digest of the model that it was compared with over these; ""
    statistics: str  # uri
    graph: str  # uri of the transform graph
    anomalies: tuple[str, ...]  # of the data: the uris of what was found
    packages: Mapping[str, str]
    config: Mapping[str, Any]


def known(store: Store, asked: str) -> Known:
    """Looks a run or a model up.  Raises RankingError when the store does not know it, or it is neither."""
    found = origin.upstream(store, asked, alone=True)
    is_run = store.run(asked) is not None and not pathlib.Path(asked).is_dir()
    digests = {each.digest for each in found.subject} - {""}
    same = (
        store.models(digests).values() if len(digests) == 1 and not is_run else ()
    )  # a push is of the model that was exported
    subject = {each.id: each for each in (*found.subject, *(each for several in same for each in several))}
    exported = [each for each in subject.values() if each.type == "Model" and not each.copied]
    if not is_run and not exported:
        kinds = ", ".join(sorted({each.type for each in found.subject}))
        raise RankingError(f"{asked}: a diff is of two runs or two models, and this is of type {kinds}.")
    best = sorted(exported, key=lambda each: (not each.digest, -each.id))[:1]  # of a run: exported before only trained
    model = next(iter(served.describe(store, best)), None)
    run = asked if is_run or model is None else model.run
    steps = [(each, _given(each, found)) for each in found.executions]
    examples = found.artifacts.get(model.examples) if model and model.examples else None
    if examples is None:
        examples = next((a for _, given in steps for a in given if a.type == "Examples" and a.spans), None)
    made_of = examples.id if examples else -1
    about = [(each, given) for each, given in steps if made_of in {link.artifact for link in each.inputs}]
    judged = [
        (each, a)
        for each, given in steps
        for a in given
        if a.type == "ModelEvaluation" and (model is None or model.id in {link.artifact for link in each.inputs})
    ]
    checked = [a for _, given in steps for a in given if a.type == "ExampleAnomalies"]
    tries = origin.last_tries(each for each in reversed(found.executions) if each.run == run)
    ill = next((each for each in tries if each.state in ("failed", "dead")), None)
    own = [each["packages"] for each in origin.receipts(found) if each["run"] == run]
    return Known(
        Side(
            asked,
            run,
            next((each.pipeline for each, _ in steps if each.run == run), ""),
            model,
            examples,
            tuple(f for each, given in steps if made_of in {a.id for a in given} for f in each.files),
            f"{ill.node}: {ill.reason}".removesuffix(": ") if ill else "",
        ),
        found,
        judged[0][1].properties if judged else {},
        next((link.artifact for each, _ in judged[:1] for link in each.inputs if link.name == "examples"), None),
        _compared(judged[0][0], found) if judged else "",
        next((a.uri for _, given in about for a in given if a.type == "ExampleStatistics"), ""),
        next((a.uri for _, given in steps for a in given if a.type == "TransformGraph"), ""),
        tuple(each.uri for each in checked if _complains(each.properties.get("blessed"))),
        own[0] if own else {},
        origin.config_of(found.executions),
    )


def _complains(blessed: Any) -> bool:
    """blessed: by split, as ExampleValidator writes it."""
    return isinstance(blessed, Mapping) and not all(blessed.values())


def _compared(evaluator: Execution, found: Lineage) -> str:
    baselines = [link.artifact for link in evaluator.inputs if link.name in origin.COMPARED]
    return next((found.artifacts[i].digest for i in baselines if i in found.artifacts), "")


def _given(step: Execution, found: Lineage) -> Sequence[Artifact]:
    return [found.artifacts[link.artifact] for link in step.outputs if link.artifact in found.artifacts]
