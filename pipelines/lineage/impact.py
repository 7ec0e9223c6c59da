"""What some data or a run had a part in: which models, and which of them serve now.

Enters: a store, a span, a file or a run.  Leaves: an immutable `Impact`.  The one idea: the events are walked down from
the data; what only judges (statistics' anomalies, evaluations, blessings) hands nothing on.
"""

from collections.abc import Mapping, Sequence

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import origin, served
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Impact, Touched

TRAINED, BEGAN, EVALUATED = "trained", "began", "evaluated"
JUDGEMENTS = ("ExampleAnomalies", "ModelEvaluation", "ModelBlessing", "InfraBlessing")


def of_span(store: Store, span: int) -> Impact:
    """Every model trained on, begun from a model trained on, or evaluated on the data of a span.

    Raises RankingError when no examples of this span are known.
    """
    examples = [each for each in store.of_type("Examples") if span in each.spans]
    if not examples:
        known = sorted({each for artifact in store.of_type("Examples") for each in artifact.spans})
        raise RankingError(
            f"span {span}: {store.name} knows no examples of it; it knows {spans.said(known) or 'none'}."
        )
    return _impact(store, f"span {span}", examples, span)


def of_file(store: Store, file: str) -> Impact:
    """The same of a file that examples were read from, by its path, the end of its path or its digest.

    Raises RankingError when no examples were read from such a file.
    """
    read = store.read_from(file)
    if not read:
        raise RankingError(f"{file}: {store.name} knows no examples that were read from it.")
    given = {link.artifact for each in read for link in each.outputs}
    examples = [each for each in store.artifacts(given).values() if each.type == "Examples"]
    return _impact(store, f"file {file}", examples)


def of_run(store: Store, run: str) -> Impact:
    """Every model made or evaluated by means of what a run made itself; what it took from the cache is another run's.

    Raises RankingError when the store does not know the run.
    """
    context = store.run(run)
    if context is None:
        raise RankingError(f"{run}: {store.name} knows no such run; `tfx-ranking runs` lists them.")
    made = {link.artifact for each in store.steps([context])[0] if each.state != "cached" for link in each.outputs}
    artifacts = store.artifacts(made).values()
    return _impact(store, f"run {run}", [each for each in artifacts if not each.copied and each.type not in JUDGEMENTS])


def _impact(store: Store, asked: str, sources: Sequence[Artifact], span: int | None = None) -> Impact:
    executions, artifacts = origin.walk_down(store, sources)
    reached, evaluated = _parts(sources, executions, artifacts)
    judged = _judged_on(store, sources, span)
    artifacts, evaluated = artifacts | judged, evaluated | judged.keys()
    of_models = {i: how for i, how in reached.items() if artifacts[i].type == "Model" and not artifacts[i].copied}
    made_into = {
        link.artifact
        for each in executions.values()
        if any(artifacts[given.artifact].type == "Model" for given in each.outputs)
        for link in each.inputs
    }
    leaves = {i: how for i, how in of_models.items() if i not in made_into or artifacts[i].digest}
    leaves = {i: EVALUATED for i in evaluated if i not in of_models} | leaves
    found = served.describe(store, (artifacts[i] for i in leaves))
    same = store.models({each.digest for each in found} - {""})
    pushed = {digest: served.changes(artifacts_of) for digest, artifacts_of in same.items()}
    now = served.live(store, {change.base for each in pushed.values() for change in each})
    touched = [
        Touched(
            each,
            leaves[each.id],
            tuple(pushed.get(each.digest, ())),
            tuple(at.base for at in now if at.digest and at.digest == each.digest),
        )
        for each in sorted(found, key=lambda each: each.id, reverse=True)
    ]
    return Impact(asked, tuple(sources), tuple(touched), now)


def _judged_on(store: Store, sources: Sequence[Artifact], span: int | None) -> dict[int, Artifact]:
    """The models that also had to hold on lists of the sources, when the data of their own runs were newer."""
    evaluations = store.judged_on({each.uri for each in sources if each.type == "Examples"})
    of_span = [each.id for each in evaluations if span is None or span in each.properties.get("previous_spans", ())]
    steps = store.made(store.makers(of_span)).values()
    taken = {link.artifact for each in steps for link in each.inputs if link.name not in origin.COMPARED}
    return {i: each for i, each in store.artifacts(taken).items() if each.type == "Model" and not each.copied}


def _parts(
    sources: Sequence[Artifact], executions: Mapping[int, Execution], artifacts: Mapping[int, Artifact]
) -> tuple[dict[int, str], set[int]]:
    """How each artifact came of the sources, and the models that were evaluated on what did."""
    reached = {each.id: TRAINED for each in sources}
    digests = {each.digest for each in sources} - {""}
    evaluated: set[int] = set()
    for each in sorted(executions.values(), key=lambda each: each.id):  # what an execution took was made before it
        outputs = [artifacts[link.artifact] for link in each.outputs]
        makes_model = any(given.type == "Model" for given in outputs)
        begun = each.properties.get("initial_model") in digests
        parts: set[str] = set()
        for link in each.inputs:
            taken = artifacts[link.artifact]
            if link.name in origin.COMPARED or not (taken.id in reached or taken.digest in digests):
                continue
            # An exported model, or its copy, that goes into a new model is what that one began from.
            begins = bool(taken.digest) and makes_model
            parts.add(BEGAN if begins else reached.get(taken.id, BEGAN))
        if not parts and not begun:
            continue
        if any(given.type == "ModelEvaluation" for given in outputs):
            evaluated |= {link.artifact for link in each.inputs if link.name not in origin.COMPARED}
        for given in outputs:
            if given.type not in JUDGEMENTS:
                reached[given.id] = TRAINED if TRAINED in parts else BEGAN
                digests |= {given.digest} - {""}
    return reached, {i for i in evaluated if artifacts[i].type == "Model" and not artifacts[i].copied}
