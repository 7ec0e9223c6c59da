"""Answers what ran, where an artifact comes from, and which steps used it.

Input: a store and a query.  Output: immutable values.  All artifacts with the same digest are one model, wherever it
was copied to.  The events are followed one generation of steps at a time, with a few calls per generation.
"""

import datetime
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import receipt as model_receipt
from tfx_ranking.components.exported.model_files import FORMAT_SERVING, digest
from tfx_ranking.components.push.versions import model_directory
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Lineage, Run, deciding_metric
from tfx_ranking.pipelines.metadata.run_records import NODES

CHECK = "RankingDataCheck"  # the last component of a run that only checks new data
COMPARISON_INPUTS = ("baseline_model",)  # inputs that a step only compares with: its outputs are not made from them
SUMMARY_TYPES = ("Examples", "ModelEvaluation", "ModelBlessing", "PushedModel")  # what the fields of a `Run` come from


def runs(store: Store, limit: int | None = None) -> tuple[Run, ...]:
    """The pipeline runs, newest first, at most `limit`; () for an empty store."""
    contexts = store.runs()[:limit]
    steps = store.steps(contexts)
    output_ids = {link.artifact for of_run in steps for each in of_run for link in each.outputs}
    artifacts = store.artifacts_of_types(output_ids, SUMMARY_TYPES)
    listed = []
    for context, of_run in zip(contexts, steps):
        pipeline = of_run[0].pipeline if of_run else ""
        outputs = [artifacts[link.artifact] for each in of_run for link in each.outputs if link.artifact in artifacts]
        uri = next((each.uri for each in outputs), "")
        in_progress = store.in_progress(context, pipeline, uri)  # between two steps, no step of the run is running
        listed.append(_run(context, pipeline, of_run, outputs, in_progress))
    return tuple(listed)


def upstream(store: Store, query: str, alone: bool = False) -> Lineage:
    """The steps that led to the artifacts of a query, back to the files, and through copies of a model to its run.

    query: a directory, version, digest, artifact id, uri or run id; for a run, steps without outputs are included.
    alone: do not follow the models that a training started from.
    Raises RankingError if the store does not have it.
    """
    subject = find(store, query)
    executions: dict[int, Execution] = {}
    artifacts = {each.id: each for each in subject}
    ahead = {each.id for each in _originals(subject)}
    steps = {each.id for each in _steps_of(store, query)}
    seen: set[int] = set()
    while ahead or steps:
        seen |= ahead
        new = store.executions((steps | store.producers(ahead)) - executions.keys())
        executions |= new
        steps = set()
        artifacts |= store.artifacts(_linked(new.values()) - artifacts.keys())
        inputs = {link.artifact for each in new.values() for link in each.inputs if link.name not in COMPARISON_INPUTS}
        copied = {artifacts[i].digest for i in inputs if artifacts[i].copied}
        by_digest = {str(each.properties.get("initial_model", "")) for each in new.values()}
        earlier_models = set() if alone else (copied | by_digest) - {""}
        originals = [each for same in store.with_digests(earlier_models).values() for each in _originals(same)]
        artifacts |= {each.id: each for each in originals}
        ahead = (inputs | {each.id for each in originals}) - seen
    return _lineage(query, False, subject, executions, artifacts)


def downstream(store: Store, query: str) -> Lineage:
    """Every step that used the artifacts of a query, or anything made from them.  query: as for `upstream`."""
    subject = find(store, query)
    return _lineage(query, True, subject, *walk_down(store, subject))


def walk_down(store: Store, start: Iterable[Artifact]) -> tuple[dict[int, Execution], dict[int, Artifact]]:
    """Every step that used some artifacts or anything made from them, and all inputs and outputs of these steps."""
    executions: dict[int, Execution] = {}
    artifacts = {each.id: each for each in start}
    ahead, consumers = set(artifacts), set[int]()
    seen: set[int] = set()
    followed: set[str] = set()
    while ahead or consumers:
        seen |= ahead
        consumers |= store.consumers(ahead, except_as=COMPARISON_INPUTS)
        new = store.executions(consumers - executions.keys())
        executions |= new
        artifacts |= store.artifacts(_linked(new.values()) - artifacts.keys())
        ahead, consumers = {link.artifact for each in new.values() for link in each.outputs} - seen, set()
        if not ahead:  # the events end here: continue through the copies of the models, for all of them at once
            models = {artifacts[i].digest for i in seen} - followed - {""}
            followed |= models
            copies = {each.id: each for same in store.with_digests(models).values() for each in same if each.copied}
            artifacts |= copies
            ahead, consumers = copies.keys() - seen, store.trainings_from(models)
    return executions, artifacts


def newest_export(store: Store, pipeline: str) -> dict[str, str]:
    """The uris of the inputs and outputs of a pipeline's newest export, by name; {} if no run exported a model."""
    exports = [each for each in store.steps_of_node(pipeline, "SignatureExporter") if each.state in ("done", "cached")]
    links = [link for each in exports[-1:] for link in (*each.inputs, *each.outputs)]
    artifacts = store.artifacts({link.artifact for link in links})
    return {link.name: artifacts[link.artifact].uri for link in links}


def config_of(steps: Sequence[Execution]) -> dict[str, Any]:
    """The config that a run's steps read, merged from their parameters; {} if none of them read a config.

    steps: the latest first.
    """
    merged: dict[str, Any] = {}
    for each in reversed(steps):
        merged = _merged(merged, each.config)
    return {name: value for name, value in merged.items() if value not in ({}, "", None)}


def receipts(lineage: Lineage) -> list[dict[str, Any]]:
    """`run` and `packages` from the receipts of the lineage's models, as far as their files still exist."""
    listed: list[dict[str, Any]] = []
    models = [each for each in (*lineage.subject, *lineage.artifacts.values()) if each.digest]
    folders = [lineage.query]
    folders += [str(each.properties.get("pushed_destination") or f"{each.uri}/{FORMAT_SERVING}") for each in models]
    for folder in dict.fromkeys(folders):
        receipt = _receipt(folder)
        packages = {"run": receipt.get("run") or "?", "packages": receipt.get("packages")}
        if packages["packages"] and packages not in listed:
            listed.append(packages)
    return listed


def find(store: Store, query: str) -> tuple[Artifact, ...]:
    """The artifacts of a query: of a model's directory, version or digest every artifact with the same bytes, of a run
    all outputs of its steps.

    Raises RankingError if the store has none, or if a number is both a version and an artifact's id.
    """
    if "://" in query and (recorded := store.at_uri(query) or store.pushed_to(query)):
        return recorded  # the digest of a remote directory would mean to read all of it
    directory = storage.existing_path(query)
    model = model_directory(directory) if directory and directory.is_dir() else None
    model_digest = digest(model) if model else ""
    if model_digest and (same := store.with_digest(model_digest)):
        return same
    kind, _, rest = query.partition(":")
    number = rest if kind in ("version", "artifact") else query
    if number.isdecimal() and not store.run(query):  # a cluster may number its runs
        return _numbered(store, number, kind if number is rest else "")
    if of_uri := store.at_uri(query) or store.at_uri(os.path.abspath(query)):
        return of_uri
    if model:
        raise RankingError(
            f"{model}: {store.name} has no model with these bytes (digest {model_digest[:12]}). Either its files were "
            f"changed, or another store recorded it: name that store with --metadata.{_receipt_hint(model)}"
        )
    if store.run(query):
        steps = _steps_of(store, query)
        return tuple(store.artifacts({link.artifact for each in steps for link in each.outputs}).values())
    digests = store.digests_starting_with(query) if len(query) >= 8 else []
    if len(digests) == 1:
        return store.with_digest(digests[0])
    raise RankingError(
        f"{query}: not in {store.name}; expected a model's directory, a version, a digest, an artifact's id, a run's "
        "id or a uri. `tfx-ranking runs` lists the runs."
    )


def last_tries(steps: Iterable[Execution]) -> tuple[Execution, ...]:
    """The last try of each step.  steps: of one run, oldest first; a step that failed may have been tried again."""
    return tuple({step.node: step for step in steps}.values())


def _steps_of(store: Store, run_id: str) -> tuple[Execution, ...]:
    """The steps of a run; () if the store has no run of this id."""
    run = store.run(run_id)
    return store.steps([run])[0] if run else ()


def _numbered(store: Store, number: str, kind: str) -> tuple[Artifact, ...]:
    """kind: version or artifact; "" to try both."""
    versions = [] if kind == "artifact" else [store.with_digest(each) for each in store.digests_pushed_as(number)]
    by_id = () if kind == "version" else tuple(store.artifacts([int(number)]).values())
    if len(versions) > 1:
        pushed = (each.properties.get("pushed_destination") for same in versions for each in same)
        directories = ", ".join(sorted({str(directory) for directory in pushed if directory}))
        raise RankingError(f"{number}: several models were pushed as this version; name its directory: {directories}.")
    if versions and by_id:
        raise RankingError(
            f"{number}: both a version and the id of an artifact ({by_id[0].type}); write version:{number} or "
            f"artifact:{number}."
        )
    if not versions and not by_id:
        wanted = kind or "version and no artifact"
        raise RankingError(f"{number}: {store.name} has no {wanted} with this number.")
    return versions[0] if versions else by_id


def _receipt(model: str | pathlib.Path) -> Mapping[str, Any]:
    """A model's receipt; {} if it has none, or is out of reach.  Raises RankingError for a damaged one."""
    directory = storage.existing_path(model)
    return (model_receipt.read(directory) if directory else None) or {}


def _receipt_hint(model: pathlib.Path) -> str:
    receipt = _receipt(model)
    return f" Its receipt names pipeline {receipt['pipeline']}, run {receipt['run']}." if receipt.get("run") else ""


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(one[name], other[name]) for name in one if _are_mappings(one[name], other.get(name))}
    return {**one, **other, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(each, Mapping) for each in values)


def _originals(same: Sequence[Artifact]) -> Sequence[Artifact]:
    """Without copies of live models, and without repeated pushes of bytes that served already."""
    pushed = {each.digest for each in same if each.type == "PushedModel" and not each.properties.get("unchanged")}
    made = [each for each in same if not each.copied]
    made = [each for each in made if not (each.properties.get("unchanged") and each.digest in pushed)]
    return made or same


def _linked(executions: Iterable[Execution]) -> set[int]:
    return {link.artifact for each in executions for link in (*each.inputs, *each.outputs)}


def _lineage(
    query: str,
    down: bool,
    subject: Sequence[Artifact],
    executions: Mapping[int, Execution],
    artifacts: Mapping[int, Artifact],
) -> Lineage:
    ordered = sorted(executions.values(), key=lambda each: each.id, reverse=True)
    return Lineage(query, down, tuple(subject), tuple(ordered), dict(sorted(artifacts.items())))


def _nodes(run: Any) -> Sequence[str]:
    """The components that a run recorded at its start; () if it recorded none."""
    nodes = run.custom_properties[NODES].string_value if NODES in run.custom_properties else ""
    return nodes.split(", ") if nodes else ()


def _state(steps: Sequence[Execution], nodes: Sequence[str]) -> tuple[str, str]:
    """A run's state, and the reason for it, from the states of its steps."""
    for state in ("running", "dead", "failed"):
        if step := next((step for step in steps if step.state == state), None):
            return state, f"{step.node}: {step.reason}".removesuffix(": ") * (state != "running")
    missing = [each for each in nodes if each not in {step.node for step in steps}]
    if missing:
        return "unfinished", f"not started: {', '.join(missing)}"
    return "checked" if any(step.node == CHECK for step in steps) else "done", ""


def _run(context: Any, pipeline: str, steps: Sequence[Execution], outputs: Sequence[Artifact], active: bool) -> Run:
    def newest(kind: str) -> Mapping[str, Any]:
        return next((each.properties for each in reversed(outputs) if each.type == kind), {})

    steps = last_tries(steps)
    state, reason = ("running", "") if active else _state(steps, _nodes(context))
    started = datetime.datetime.fromtimestamp(context.create_time_since_epoch / 1000, datetime.timezone.utc)
    ended = max((step.ended for step in steps), default=started)
    ended = datetime.datetime.now(datetime.timezone.utc) if state == "running" else ended
    spans = next((each.spans for each in outputs if each.spans), ())
    metric, value = deciding_metric(newest("ModelEvaluation"))
    pushed = newest("PushedModel")
    blessed = newest("ModelBlessing").get("blessed")
    return Run(
        id=context.name,
        pipeline=pipeline,
        state=state,
        reason=reason,
        started=started,
        seconds=round((ended - started).total_seconds(), 1),
        steps=len(steps),
        cached=sum(step.state == "cached" for step in steps),
        span=max(spans, default=None),
        spans=spans,
        metric=metric,
        value=value,
        blessed=None if blessed is None else bool(blessed),
        pushed=str(pushed.get("pushed_version", "")) if pushed.get("pushed") else "",
        unchanged=bool(pushed.get("unchanged")),
    )
