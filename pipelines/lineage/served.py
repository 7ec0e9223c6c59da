"""Answers which version served when, and from which data it was made.

Input: a store, a destination and a time.  Output: immutable values.  A push, a rollback and a move of the label
`stable` are all `PushEvent`s; at any moment the version of the last event before it serves.
"""

import datetime
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from tfx_ranking.components.errors import RankingError, UsageError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.pipelines.lineage import origin
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import (
    Artifact,
    Execution,
    File,
    LiveVersion,
    ModelRecord,
    PushEvent,
    ServingPeriod,
    deciding_metric,
)
from tfx_ranking.pipelines.text_layout import clock

STABLE = "stable"  # for a destination with labels, the version with this label serves
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def pushes(store: Store, base: str | None = None) -> tuple[PushEvent, ...]:
    """The changes below a destination, or below all of them, oldest first; () if nothing was ever pushed to `base`.

    A push whose bytes served already changed nothing and is left out.
    """
    wanted = () if base is None else (as_recorded(base), os.path.realpath(base))
    return tuple(each for each in push_events(store.of_type("PushedModel")) if base is None or each.base in wanted)


def push_events(artifacts: Iterable[Artifact]) -> list[PushEvent]:
    """The changes that PushedModel artifacts record, oldest first; pass all artifacts of each version."""
    events: list[PushEvent] = []
    existing: set[tuple[str, str]] = set()
    for each in sorted(artifacts, key=lambda each: each.id):
        if each.type == "PushedModel" and each.properties.get("pushed") and not each.properties.get("unchanged"):
            events.append(_push_event(each, existing))
            existing.add((events[-1].base, events[-1].version))
    return events


def served(store: Store, base: str, since: datetime.datetime, until: datetime.datetime) -> tuple[ServingPeriod, ...]:
    """What served below `base` from `since` to `until`, oldest first; one period if both are the same moment.

    Raises RankingError if nothing was ever pushed to `base`, or nothing before `until`.
    """
    events = _pushed_to(store, base)
    if events[0].at > until:
        raise RankingError(
            f"{base}: nothing served before {clock(until)}; the first push was at {clock(events[0].at)}."
        )
    periods = [each for each in _periods(events) if each[0] <= until and (each[1] is None or each[1] > since)]
    records = models_of(store, {event.digest for _, _, event in periods})
    return tuple(
        ServingPeriod(since=started, until=ended, push=event, model=model, files=_files(store, model))
        for started, ended, event in periods
        for model in [records.get(event.digest)]
    )


def moment(text: str, now: datetime.datetime | None = None) -> tuple[datetime.datetime, datetime.datetime]:
    """Reads a time as people write it; gives its first and its last moment: for a day, its beginning and end.

    text: an ISO date or date-time (local unless it names a zone), `now`, `today`, `yesterday`, or a day of the week,
    which is the last such day before today.  Raises UsageError for anything else and for a time in the future.
    """
    now = (now or datetime.datetime.now()).astimezone()
    word = text.strip().lower()
    if word == "now":
        return now, now
    days_ago = {"today": 0, "yesterday": 1}
    days_ago |= {day: (now.weekday() - i - 1) % 7 + 1 for i, day in enumerate(DAYS)}
    try:
        if word in days_ago:
            date = now.date() - datetime.timedelta(days_ago[word])
            parsed, whole_day = datetime.datetime.combine(date, datetime.time()), True
        else:
            parsed = datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
            whole_day = len(text.strip()) == 10
    except ValueError:
        raise UsageError(
            f"{text!r}: not a time; expected a date or date-time (2026-11-17, 2026-11-17T14:00, "
            "2026-11-17T14:00:00+01:00), now, today, yesterday or a day of the week."
        ) from None
    since = parsed.astimezone()
    if since > now:
        raise UsageError(f"{text!r}: {clock(since)} is in the future; now it is {clock(now)}.")
    end = (parsed + datetime.timedelta(days=1, microseconds=-1)).astimezone()
    return since, min(end, now) if whole_day else since


def live(store: Store, bases: Iterable[str]) -> tuple[LiveVersion, ...]:
    """What serves below some destinations now: read from the destination, or from the last record if it is out of
    reach."""
    return tuple(_live(store, base) for base in sorted(set(bases)))


def models(
    store: Store, base: str | None = None, limit: int | None = None
) -> tuple[tuple[PushEvent, ModelRecord | None], ...]:
    """Every push with its model, oldest first: the metric over the versions.  limit: only the newest so many.

    Raises RankingError if nothing was ever pushed to `base`.
    """
    events = (pushes(store) if base is None else _pushed_to(store, base))[-(limit or 0) :]
    records = models_of(store, {each.digest for each in events})
    return tuple((each, records.get(each.digest)) for each in events)


def models_of(store: Store, digests: Iterable[str]) -> dict[str, ModelRecord]:
    """The models of some digests, by digest; a model that no step exported is left out."""
    exported = {}
    for same in store.with_digests(digests).values():
        made = [each for each in same if each.type == "Model" and not each.copied]
        exported.update({each.digest: each for each in made[:1]})
    return {each.digest: each for each in model_records(store, exported.values())}


def model_records(store: Store, artifacts: Iterable[Artifact]) -> tuple[ModelRecord, ...]:
    """The records of some Model artifacts, in a few calls for all of them."""
    wanted = {each.id: each for each in artifacts}
    makers = store.executions(store.producers(wanted))
    users = store.executions(store.consumers(wanted, except_as=origin.COMPARISON_INPUTS))
    linked = {link.artifact for each in makers.values() for link in each.inputs}
    linked |= {link.artifact for each in users.values() for link in each.outputs}
    known = store.artifacts(linked)
    known |= _raw_examples(store, makers.values(), known)
    maker_of = {link.artifact: each for each in makers.values() for link in each.outputs}
    users_of: dict[int, list[Execution]] = {each: [] for each in wanted}
    for each in users.values():
        for link in each.inputs:
            if link.artifact in users_of and link.name not in origin.COMPARISON_INPUTS:
                users_of[link.artifact].append(each)
    return tuple(_model_record(each, maker_of.get(each.id), users_of[each.id], known) for each in wanted.values())


def as_recorded(base: str) -> str:
    """A destination as pushes record it; reads nothing from an object store, whose package may not be installed."""
    return base.rstrip("/") if "://" in base else os.path.abspath(base)


def _pushed_to(store: Store, base: str) -> tuple[PushEvent, ...]:
    events = pushes(store, base)
    if not events:
        bases = ", ".join(sorted({each.base for each in pushes(store)})) or "none"
        raise RankingError(f"{base}: {store.name} has no push to this destination; it has pushes to: {bases}.")
    return events


def _push_event(artifact: Artifact, existing: Collection[tuple[str, str]]) -> PushEvent:
    """existing: base and version of the directories that earlier pushes wrote."""
    properties = {name: str(value) for name, value in artifact.properties.items()}
    directory = properties.get("pushed_destination", "")
    base, _, name = directory.rpartition("/")
    base, version = as_recorded(base) if base else "", properties.get("pushed_version") or name
    kind = "rollback" if properties.get("rollback_of") else "label" if (base, version) in existing else "push"
    return PushEvent(
        id=artifact.id,
        kind=kind,
        at=artifact.made,
        base=base,
        version=version,
        directory=directory,
        digest=artifact.digest,
        label=properties.get("label", ""),
        rollback_of=properties.get("rollback_of", ""),
        restores=properties.get("restores", ""),
        reason=properties.get("reason", ""),
    )


def _periods(
    events: Sequence[PushEvent],
) -> list[tuple[datetime.datetime, datetime.datetime | None, PushEvent]]:
    """Start, end and event of each period in which a version served; the end is None for the last one."""
    starts: list[tuple[datetime.datetime, PushEvent]] = []
    labelled = False
    for each in events:
        if each.label == STABLE or (each.kind != "label" and not labelled):
            starts.append((each.at, each))
        labelled |= each.label == STABLE
    ends = [at for at, _ in starts[1:]]
    return [(at, end, each) for (at, each), end in zip(starts, [*ends, None])]


def _live(store: Store, base: str) -> LiveVersion:
    try:
        destination = ServingBase(base)
        reached = destination.folder.is_dir()
        version = destination.live_version() if reached else None
    except (OSError, ImportError, ValueError):  # an object store that cannot be read from here
        reached, version = False, None
    if not reached:
        last = [event for _, _, event in _periods(pushes(store, base))][-1:]
        return LiveVersion(base, last[0].version if last else "", last[0].digest if last else "", seen=False)
    if version is None:
        return LiveVersion(base, "", "", seen=True)
    # Not the digest that was recorded for this version: somebody may have put another model's folder there.
    digest = model_files.digest(destination.directory(version))
    return LiveVersion(base, str(version), digest, seen=True)


def _files(store: Store, model: ModelRecord | None) -> tuple[File, ...]:
    if model is None or model.examples is None:
        return ()
    return tuple(file for each in store.executions(store.producers([model.examples])).values() for file in each.files)


def _raw_examples(store: Store, makers: Iterable[Execution], known: Mapping[int, Artifact]) -> dict[int, Artifact]:
    """The raw examples behind transformed ones, by the transformed id, for steps that had only these as input."""
    inputs = [[known[link.artifact] for link in each.inputs if link.artifact in known] for each in makers]
    examples = [[each for each in of_step if each.type == "Examples"] for of_step in inputs]
    transformed = [each.id for of_step in examples if not any(one.spans for one in of_step) for each in of_step]
    transforms = store.executions(store.producers(transformed)).values()
    raw = store.artifacts({link.artifact for each in transforms for link in each.inputs})
    return {
        output.artifact: raw[source.artifact]
        for each in transforms
        for output in each.outputs
        for source in each.inputs
        if raw[source.artifact].spans
    }


def _model_record(
    artifact: Artifact, maker: Execution | None, users: Sequence[Execution], known: Mapping[int, Artifact]
) -> ModelRecord:
    inputs = [known[link.artifact] for link in maker.inputs if link.artifact in known] if maker else []
    examples = [each for each in inputs if each.type == "Examples"]
    raw = next((each for each in examples if each.spans), examples[0] if examples else None)
    outputs = [known[link.artifact] for each in users for link in each.outputs if link.artifact in known]
    evaluations = [each.properties for each in outputs if each.type == "ModelEvaluation"]
    blessings = [each.properties.get("blessed") for each in outputs if each.type == "ModelBlessing"]
    metric, value = deciding_metric(evaluations[-1] if evaluations else {})
    return ModelRecord(
        id=artifact.id,
        digest=artifact.digest,
        uri=artifact.uri,
        pipeline=maker.pipeline if maker else "",
        run=maker.run if maker else "",
        made=artifact.made,
        examples=raw.id if raw else None,
        spans=raw.spans if raw else (),
        metric=metric,
        value=value,
        blessed=bool(blessings[-1]) if blessings else None,
    )
