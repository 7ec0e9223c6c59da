"""Where a model came from and what came of it: the questions.

Enters: a store, and what is asked for.  Leaves: immutable values.  The one idea: artifacts of one digest are one model,
wherever it was copied to; from there the events are walked, a whole generation in a few calls.
"""

import datetime
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfx_ranking.components import places
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import receipt as model_receipt
from tfx_ranking.components.exported.model_files import FORMAT_SERVING, digest
from tfx_ranking.components.push.versions import model_directory
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Lineage, Run, judged_by
from tfx_ranking.pipelines.metadata.run_records import NODES

CHECK = "RankingDataCheck"  # the last component of a run that looks at new data alone
COMPARED = ("baseline_model",)  # inputs that a step compares with: what it gives is not made of them
TELLING = ("Examples", "ModelEvaluation", "ModelBlessing", "PushedModel")  # what a run's line is made of


def runs(store: Store, limit: int | None = None) -> tuple[Run, ...]:
    """The pipeline runs, newest first, at most `limit`; () in a store without any."""
    contexts = store.runs()[:limit]
    steps = store.steps(contexts)
    given = store.among({link.artifact for of_run in steps for each in of_run for link in each.outputs}, TELLING)
    found = []
    for context, of_run in zip(contexts, steps):
        pipeline = of_run[0].pipeline if of_run else ""
        outputs = [given[link.artifact] for each in of_run for link in each.outputs if link.artifact in given]
        near = next((each.uri for each in outputs), "")
        under_way = store.runs_now(context, pipeline, near)  # between two of its steps a run has none that runs
        found.append(_run(context, pipeline, of_run, outputs, under_way))
    return tuple(found)


def upstream(store: Store, asked: str, alone: bool = False) -> Lineage:
    """What led to `asked`, back to the files; through copies of a model to the run that made it.

    asked: a directory, version, digest, artifact id, uri or run id; of a run also the steps that gave nothing.
    alone: not through the models that it began from.
    Raises RankingError when the store has no such.
    """
    subject = find(store, asked)
    executions: dict[int, Execution] = {}
    artifacts = {each.id: each for each in subject}
    ahead = {each.id for each in _originals(subject)}
    steps = {each.id for each in _steps_of(store, asked)}
    seen: set[int] = set()
    while ahead or steps:
        seen |= ahead
        new = store.made((steps | store.makers(ahead)) - executions.keys())
        executions |= new
        steps = set()
        artifacts |= store.artifacts(_linked(new.values()) - artifacts.keys())
        taken = {link.artifact for each in new.values() for link in each.inputs if link.name not in COMPARED}
        copied = {artifacts[i].digest for i in taken if artifacts[i].copied}
        named = {str(each.properties.get("initial_model", "")) for each in new.values()}
        before = set() if alone else (copied | named) - {""}
        originals = [each for same in store.models(before).values() for each in _originals(same)]
        artifacts |= {each.id: each for each in originals}
        ahead = (taken | {each.id for each in originals}) - seen
    return _lineage(asked, False, subject, executions, artifacts)


def downstream(store: Store, asked: str) -> Lineage:
    """What came of `asked`: every step that used it or what was made of it.  Asks as `upstream` does."""
    subject = find(store, asked)
    return _lineage(asked, True, subject, *walk_down(store, subject))


def walk_down(store: Store, start: Iterable[Artifact]) -> tuple[dict[int, Execution], dict[int, Artifact]]:
    """Every step that used some artifacts or what was made of them, and all that these steps took and gave."""
    executions: dict[int, Execution] = {}
    artifacts = {each.id: each for each in start}
    ahead, users = set(artifacts), set[int]()
    seen: set[int] = set()
    followed: set[str] = set()
    while ahead or users:
        seen |= ahead
        users |= store.users(ahead, but_as=COMPARED)
        new = store.made(users - executions.keys())
        executions |= new
        artifacts |= store.artifacts(_linked(new.values()) - artifacts.keys())
        ahead, users = {link.artifact for each in new.values() for link in each.outputs} - seen, set()
        if not ahead:  # the events end here: on through the copies of the models, for all of them at once
            models = {artifacts[i].digest for i in seen} - followed - {""}
            followed |= models
            copies = {each.id: each for same in store.models(models).values() for each in same if each.copied}
            artifacts |= copies
            ahead, users = copies.keys() - seen, store.begun_from(models)
    return executions, artifacts


def config_of(steps: Sequence[Execution]) -> dict[str, Any]:
    """What the steps of a run, latest first, were called with, put together again; {} where none read a config."""
    whole: dict[str, Any] = {}
    for each in reversed(steps):
        whole = _merged(whole, each.config)
    return {name: value for name, value in whole.items() if value not in ({}, "", None)}


def receipts(lineage: Lineage) -> list[dict[str, Any]]:
    """`run` and `packages` as the models' own receipts say, as far as the models are still there."""
    found: list[dict[str, Any]] = []
    models = [each for each in (*lineage.subject, *lineage.artifacts.values()) if each.digest]
    folders = [lineage.asked]
    folders += [str(each.properties.get("pushed_destination") or f"{each.uri}/{FORMAT_SERVING}") for each in models]
    for folder in dict.fromkeys(folders):
        recorded = _receipt(folder)
        receipt = {"run": recorded.get("run") or "?", "packages": recorded.get("packages")}
        if receipt["packages"] and receipt not in found:
            found.append(receipt)
    return found


def find(store: Store, asked: str) -> tuple[Artifact, ...]:
    """The artifacts that `asked` means; of a model's directory, version or digest every artifact that is these bytes,
    of a run all that its steps gave.

    Raises RankingError when the store knows none, or when a number is both a version and an artifact's id.
    """
    if "://" in asked and (known := store.at_uri(asked) or store.pushed_to(asked)):
        return known  # by the record: the bytes may be many, and far away
    directory = places.found(asked)
    model = model_directory(directory) if directory and directory.is_dir() else None
    bytes_of = digest(model) if model else ""
    if bytes_of and (same := store.model(bytes_of)):
        return same
    kind, _, rest = asked.partition(":")
    number = rest if kind in ("version", "artifact") else asked
    if number.isdecimal() and not store.run(asked):  # a cluster may number its runs
        return _numbered(store, number, kind if number is rest else "")
    if of_uri := store.at_uri(asked) or store.at_uri(os.path.abspath(asked)):
        return of_uri
    if model:
        raise RankingError(
            f"{model}: {store.name} knows no model of these bytes (digest {bytes_of[:12]}). Its files were changed, or "
            f"it was made with another store: name that with --metadata.{_said_by(model)}"
        )
    if store.run(asked):
        steps = _steps_of(store, asked)
        return tuple(store.artifacts({link.artifact for each in steps for link in each.outputs}).values())
    alike = store.digests(asked) if len(asked) >= 8 else []
    if len(alike) == 1:
        return store.model(alike[0])
    raise RankingError(
        f"{asked}: {store.name} knows no such thing; expected a model's directory, a version, a digest, an artifact's "
        "id, a run's id or a uri. `tfx-ranking runs` lists the runs."
    )


def _steps_of(store: Store, run_id: str) -> tuple[Execution, ...]:
    """What a run did; () where the store knows no such run."""
    run = store.run(run_id)
    return store.steps([run])[0] if run else ()


def _numbered(store: Store, number: str, kind: str) -> tuple[Artifact, ...]:
    versions = [] if kind == "artifact" else [store.model(each) for each in store.pushed_as(number)]
    of_id = () if kind == "version" else tuple(store.artifacts([int(number)]).values())
    if len(versions) > 1:
        pushed = (each.properties.get("pushed_destination") for same in versions for each in same)
        places = ", ".join(sorted({str(place) for place in pushed if place}))
        raise RankingError(f"{number}: more than one model was pushed as this version; name its directory: {places}.")
    if versions and of_id:
        raise RankingError(
            f"{number}: a version and the id of an artifact ({of_id[0].type}); say version:{number} or "
            f"artifact:{number}."
        )
    if not versions and not of_id:
        raise RankingError(f"{number}: {store.name} knows no {kind or 'version and no artifact'} of this number.")
    return versions[0] if versions else of_id


def _receipt(model: str | pathlib.Path) -> Mapping[str, Any]:
    """A model's receipt; {} when the model has none or cannot be reached.  Raises RankingError for a damaged one."""
    directory = places.found(model)
    return (model_receipt.read(directory) if directory else None) or {}


def _said_by(model: pathlib.Path) -> str:
    recorded = _receipt(model)
    if not recorded.get("run"):
        return ""
    return f" Its receipt names pipeline {recorded['pipeline']}, run {recorded['run']}."


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: _merged(one[name], other[name]) for name in one if _are_mappings(one[name], other.get(name))}
    return {**one, **other, **both}


def _are_mappings(*values: Any) -> bool:
    return all(isinstance(each, Mapping) for each in values)


def _originals(same: Sequence[Artifact]) -> Sequence[Artifact]:
    """Without the copies of what served, and without the pushes that found bytes serving which another one pushed."""
    pushed = {each.digest for each in same if each.type == "PushedModel" and not each.properties.get("unchanged")}
    made = [each for each in same if not each.copied]
    made = [each for each in made if not (each.properties.get("unchanged") and each.digest in pushed)]
    return made or same


def _linked(executions: Iterable[Execution]) -> set[int]:
    return {link.artifact for each in executions for link in (*each.inputs, *each.outputs)}


def _lineage(
    asked: str,
    down: bool,
    subject: Sequence[Artifact],
    executions: Mapping[int, Execution],
    artifacts: Mapping[int, Artifact],
) -> Lineage:
    ordered = sorted(executions.values(), key=lambda each: each.id, reverse=True)
    return Lineage(asked, down, tuple(subject), tuple(ordered), dict(sorted(artifacts.items())))


def last_tries(steps: Iterable[Execution]) -> tuple[Execution, ...]:
    """Of a run's steps, oldest first, those that count: a step that failed may have been tried again."""
    return tuple({step.node: step for step in steps}.values())


def _nodes(run: Any) -> Sequence[str]:
    """The components that a run said it is to have; () of one that said nothing."""
    said = run.custom_properties[NODES].string_value if NODES in run.custom_properties else ""
    return said.split(", ") if said else ()


def _state(steps: Sequence[Execution], nodes: Sequence[str]) -> tuple[str, str]:
    """A run's state by its steps', and why it is that."""
    for state in ("running", "dead", "failed"):
        if found := next((step for step in steps if step.state == state), None):
            return state, f"{found.node}: {found.reason}".removesuffix(": ") * (state != "running")
    missing = [each for each in nodes if each not in {step.node for step in steps}]
    if missing:
        return "unfinished", f"not begun: {', '.join(missing)}"
    return "checked" if any(step.node == CHECK for step in steps) else "done", ""


def _run(context: Any, pipeline: str, steps: Sequence[Execution], given: Sequence[Artifact], under_way: bool) -> Run:
    def last(kind: str) -> Mapping[str, Any]:
        return next((each.properties for each in reversed(given) if each.type == kind), {})

    steps = last_tries(steps)
    state, reason = ("running", "") if under_way else _state(steps, _nodes(context))
    started = datetime.datetime.fromtimestamp(context.create_time_since_epoch / 1000, datetime.timezone.utc)
    ended = max((step.ended for step in steps), default=started)
    ended = datetime.datetime.now(datetime.timezone.utc) if state == "running" else ended
    examples = [each for each in given if each.spans]
    metric, value = judged_by(last("ModelEvaluation"))
    pushed = last("PushedModel")
    judged = last("ModelBlessing").get("blessed")
    return Run(
        context.name,
        pipeline,
        state,
        reason,
        started,
        round((ended - started).total_seconds(), 1),
        len(steps),
        sum(step.state == "cached" for step in steps),
        max(examples[0].spans) if examples else None,
        examples[0].spans if examples else (),
        metric,
        value,
        None if judged is None else bool(judged),
        str(pushed.get("pushed_version", "")) if pushed.get("pushed") else "",
        bool(pushed.get("unchanged")),
    )
