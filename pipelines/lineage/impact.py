"""Answers which models some data or a run contributed to, and which of these models serve now.

Input: a store and a span, a file or a run.  Output: an immutable `Impact`.  The events are followed downstream from the
data; artifacts that only judge (anomalies, evaluations, blessings) do not pass the contribution on.
"""

from collections.abc import Mapping, Sequence

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import origin, served
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import AffectedModel, Artifact, Execution, Impact

TRAINED, BEGAN, EVALUATED = "trained", "began", "evaluated"
JUDGEMENTS = ("ExampleAnomalies", "ModelEvaluation", "ModelBlessing", "InfraBlessing")


def of_span(store: Store, span: int) -> Impact:
    """Every model that was trained or evaluated on the data of a span, or started from a model that was.

    Raises RankingError if the store has no examples of this span.
    """
    examples = [each for each in store.of_type("Examples") if span in each.spans]
    if not examples:
        known = sorted({each for artifact in store.of_type("Examples") for each in artifact.spans})
        raise RankingError(
            f"span {span}: {store.name} has no examples of this span; it has spans: {spans.text(known) or 'none'}."
        )
    return _impact(store, f"span {span}", examples, span)


def of_file(store: Store, file: str) -> Impact:
    """`of_span` for a file that examples were read from.  file: its path, the end of its path or its digest.

    Raises RankingError if no examples were read from this file.
    """
    readers = store.readers_of(file)
    if not readers:
        raise RankingError(f"{file}: {store.name} has no examples that were read from this file.")
    outputs = {link.artifact for each in readers for link in each.outputs}
    examples = [each for each in store.artifacts(outputs).values() if each.type == "Examples"]
    return _impact(store, f"file {file}", examples)


def of_run(store: Store, run: str) -> Impact:
    """Every model that was made or evaluated with a run's own outputs; outputs from the cache are another run's.

    Raises RankingError if the store has no run of this id.
    """
    context = store.run(run)
    if context is None:
        raise RankingError(f"{run}: {store.name} has no run with this id; `tfx-ranking runs` lists the runs.")
    outputs = {link.artifact for each in store.steps([context])[0] if each.state != "cached" for link in each.outputs}
    artifacts = store.artifacts(outputs).values()
    return _impact(store, f"run {run}", [each for each in artifacts if not each.copied and each.type not in JUDGEMENTS])


def _impact(store: Store, query: str, sources: Sequence[Artifact], span: int | None = None) -> Impact:
    executions, artifacts = origin.walk_down(store, sources)
    reached, evaluated = _contributions(sources, executions, artifacts)
    later_evaluated = _evaluated_later(store, sources, span)
    artifacts, evaluated = artifacts | later_evaluated, evaluated | later_evaluated.keys()
    models = {i: how for i, how in reached.items() if artifacts[i].type == "Model" and not artifacts[i].copied}
    intermediate = {
        link.artifact
        for each in executions.values()
        if any(artifacts[output.artifact].type == "Model" for output in each.outputs)
        for link in each.inputs
    }
    affected = {i: how for i, how in models.items() if i not in intermediate or artifacts[i].digest}
    affected = {i: EVALUATED for i in evaluated if i not in models} | affected
    records = served.model_records(store, (artifacts[i] for i in affected))
    same = store.with_digests({each.digest for each in records} - {""})
    pushes = {digest: served.push_events(artifacts_of) for digest, artifacts_of in same.items()}
    live = served.live(store, {event.base for each in pushes.values() for event in each})
    touched = [
        AffectedModel(
            each,
            affected[each.id],
            tuple(pushes.get(each.digest, ())),
            tuple(version.base for version in live if version.digest and version.digest == each.digest),
        )
        for each in sorted(records, key=lambda each: each.id, reverse=True)
    ]
    return Impact(query, tuple(sources), tuple(touched), live)


def _evaluated_later(store: Store, sources: Sequence[Artifact], span: int | None) -> dict[int, Artifact]:
    """The models of later runs that were also evaluated on lists of the sources."""
    evaluations = store.evaluations_on({each.uri for each in sources if each.type == "Examples"})
    of_span = [each.id for each in evaluations if span is None or span in each.properties.get("previous_spans", ())]
    steps = store.executions(store.producers(of_span)).values()
    inputs = {link.artifact for each in steps for link in each.inputs if link.name not in origin.COMPARISON_INPUTS}
    return {i: each for i, each in store.artifacts(inputs).items() if each.type == "Model" and not each.copied}


def _contributions(
    sources: Sequence[Artifact], executions: Mapping[int, Execution], artifacts: Mapping[int, Artifact]
) -> tuple[dict[int, str], set[int]]:
    """How the sources contributed to each artifact, and the ids of the models that were evaluated on one of these."""
    reached = {each.id: TRAINED for each in sources}
    digests = {each.digest for each in sources} - {""}
    evaluated: set[int] = set()
    for each in sorted(executions.values(), key=lambda each: each.id):  # inputs have lower ids than their consumers
        outputs = [artifacts[link.artifact] for link in each.outputs]
        makes_model = any(output.type == "Model" for output in outputs)
        starts_from_digest = each.properties.get("initial_model") in digests
        contributions: set[str] = set()
        for link in each.inputs:
            source = artifacts[link.artifact]
            if link.name in origin.COMPARISON_INPUTS or not (source.id in reached or source.digest in digests):
                continue
            # An exported model, or its copy, as an input of a new model is what the training started from.
            warm_start = bool(source.digest) and makes_model
            contributions.add(BEGAN if warm_start else reached.get(source.id, BEGAN))
        if not contributions and not starts_from_digest:
            continue
        if any(output.type == "ModelEvaluation" for output in outputs):
            evaluated |= {link.artifact for link in each.inputs if link.name not in origin.COMPARISON_INPUTS}
        for output in outputs:
            if output.type not in JUDGEMENTS:
                reached[output.id] = TRAINED if TRAINED in contributions else BEGAN
                digests |= {output.digest} - {""}
    return reached, {i for i in evaluated if artifacts[i].type == "Model" and not artifacts[i].copied}
