"""What served when, and from what data: the questions to the record of pushes.

Enters: a store, a destination, a time.  Leaves: immutable values.  The one idea: a push, a rollback and a move of the
label `stable` are one kind of event, and what served is what the last of them before a moment said.
"""

import datetime
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from tfx_ranking.components import places
from tfx_ranking.components.errors import RankingError, UsageError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.lineage import origin
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, File, Live, Model, Push, Served, judged_by
from tfx_ranking.pipelines.text_layout import clock

STABLE = "stable"  # whoever keeps labels serves the version that this one stands at
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def pushes(store: Store, base: str | None = None) -> tuple[Push, ...]:
    """What changed below a destination, or below all of them, oldest first; () for a base that was never pushed to.

    A push that found its bytes serving changed nothing and is none.
    """
    wanted = () if base is None else (as_recorded(base), os.path.realpath(base))
    return tuple(each for each in changes(store.of_type("PushedModel")) if base is None or each.base in wanted)


def changes(artifacts: Iterable[Artifact]) -> list[Push]:
    """The pushes that some artifacts tell of, oldest first; all of a version's have to be among them."""
    found: list[Push] = []
    there: set[tuple[str, str]] = set()
    for each in sorted(artifacts, key=lambda each: each.id):
        if each.type == "PushedModel" and each.properties.get("pushed") and not each.properties.get("unchanged"):
            found.append(_push(each, there))
            there.add((found[-1].base, found[-1].version))
    return found


def served(store: Store, base: str, since: datetime.datetime, until: datetime.datetime) -> tuple[Served, ...]:
    """What served below `base` at some moment from `since` to `until`, oldest first; one value where both are the same.

    Raises RankingError when nothing was ever pushed there, or nothing until then.
    """
    known = _pushed_to(store, base)
    if known[0].at > until:
        raise RankingError(f"{base}: nothing served by then; the first push was at {clock(known[0].at)}.")
    periods = [each for each in _periods(known) if each[0] <= until and (each[1] is None or each[1] > since)]
    models = described(store, {each[2].digest for each in periods})
    return tuple(
        Served(began, ended, change, model, _files(store, model))
        for began, ended, change in periods
        for model in [models.get(change.digest)]
    )


def moment(said: str, now: datetime.datetime | None = None) -> tuple[datetime.datetime, datetime.datetime]:
    """A time as people write it, as its first and its last moment: a day is all of it.

    said: an ISO date or date-time (of the local zone where it names none), `now`, `today`, `yesterday`, or a day of the
    week, which is the last such day before today.  Raises UsageError for anything else and for the future.
    """
    now = (now or datetime.datetime.now()).astimezone()
    word = said.strip().lower()
    if word == "now":
        return now, now
    ago = {"today": 0, "yesterday": 1}
    ago |= {day: (now.weekday() - i - 1) % 7 + 1 for i, day in enumerate(DAYS)}
    try:
        if word in ago:
            found, whole_day = (
                datetime.datetime.combine(now.date() - datetime.timedelta(ago[word]), datetime.time()),
                True,
            )
        else:
            found = datetime.datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", said.strip()))
            whole_day = len(said.strip()) == 10
    except ValueError:
        raise UsageError(
            f"{said!r}: no time; expected a date or date-time (2026-11-17, 2026-11-17T14:00, "
            "2026-11-17T14:00:00+01:00), now, today, yesterday or a day of the week."
        ) from None
    since = found.astimezone()
    if since > now:
        raise UsageError(f"{said!r}: {clock(since)} is still to come; it is {clock(now)} now.")
    end = (found + datetime.timedelta(days=1, microseconds=-1)).astimezone()
    return since, min(end, now) if whole_day else since


def live(store: Store, bases: Iterable[str]) -> tuple[Live, ...]:
    """What serves below some destinations now: as they stand on the disk; one that is not there as it was recorded."""
    return tuple(_live(store, base) for base in sorted(set(bases)))


def models(store: Store, base: str | None = None, limit: int | None = None) -> tuple[tuple[Push, Model | None], ...]:
    """Every push with the model that was pushed, oldest first: the metric over versions.  limit: the last so many.

    Raises RankingError when nothing was ever pushed to `base`.
    """
    known = (pushes(store) if base is None else _pushed_to(store, base))[-(limit or 0) :]
    of = described(store, {each.digest for each in known})
    return tuple((each, of.get(each.digest)) for each in known)


def _pushed_to(store: Store, base: str) -> tuple[Push, ...]:
    known = pushes(store, base)
    if not known:
        bases = ", ".join(sorted({each.base for each in pushes(store)})) or "none at all"
        raise RankingError(f"{base}: {store.name} knows no push to it; it knows pushes to {bases}.")
    return known


def described(store: Store, digests: Iterable[str]) -> dict[str, Model]:
    """Where the models of some digests come from, by digest; one that no step exported is left out."""
    exported = {}
    for same in store.models(digests).values():
        made = [each for each in same if each.type == "Model" and not each.copied]
        exported.update({each.digest: each for each in made[:1]})
    return {each.digest: each for each in describe(store, exported.values())}


def describe(store: Store, artifacts: Iterable[Artifact]) -> tuple[Model, ...]:
    """What their runs said of some Model artifacts, in a few calls for all of them."""
    wanted = {each.id: each for each in artifacts}
    makers = store.made(store.makers(wanted))
    users = store.made(store.users(wanted, but_as=origin.COMPARED))
    linked = {link.artifact for each in makers.values() for link in each.inputs}
    linked |= {link.artifact for each in users.values() for link in each.outputs}
    known = store.artifacts(linked)
    known |= _raw_of(store, makers.values(), known)
    given_by = {link.artifact: each for each in makers.values() for link in each.outputs}
    taken_by: dict[int, list[Execution]] = {each: [] for each in wanted}
    for each in users.values():
        for link in each.inputs:
            if link.artifact in taken_by and link.name not in origin.COMPARED:
                taken_by[link.artifact].append(each)
    return tuple(_model(each, given_by.get(each.id), taken_by[each.id], known) for each in wanted.values())


def as_recorded(base: str) -> str:
    """A destination as pushes name it; asks nothing of an object store, whose package may not be here."""
    return base.rstrip("/") if "://" in base else os.path.abspath(base)


def _push(artifact: Artifact, there: Collection[tuple[str, str]]) -> Push:
    """there: base and version of the directories that had been written before."""
    said = {name: str(value) for name, value in artifact.properties.items()}
    directory = said.get("pushed_destination", "")
    base, _, name = directory.rpartition("/")
    base, version = as_recorded(base) if base else "", said.get("pushed_version") or name
    kind = "rollback" if said.get("rollback_of") else "label" if (base, version) in there else "push"
    about = (said.get(each, "") for each in ("label", "rollback_of", "restores", "reason"))
    return Push(artifact.id, kind, artifact.made, base, version, directory, artifact.digest, *about)


def _periods(changes: Sequence[Push]) -> list[tuple[datetime.datetime, datetime.datetime | None, Push]]:
    """From when until when the version of which change served."""
    serving: list[tuple[datetime.datetime, Push]] = []
    labelled = False
    for each in changes:
        if each.label == STABLE or (each.kind != "label" and not labelled):
            serving.append((each.at, each))
        labelled |= each.label == STABLE
    ends = [at for at, _ in serving[1:]]
    return [(at, end, each) for (at, each), end in zip(serving, [*ends, None])]


def _live(store: Store, base: str) -> Live:
    try:
        reached = places.place(base).is_dir()
        version = versions.live_version(base) if reached else None
    except (OSError, ImportError, ValueError):  # an object store that cannot be asked from here
        reached, version = False, None
    if not reached:
        last = [each for _, _, each in _periods(pushes(store, base))][-1:]
        return Live(base, last[0].version if last else "", last[0].digest if last else "", seen=False)
    if version is None:
        return Live(base, "", "", seen=True)
    # Not the digest that was recorded for this number: whoever moves folders about makes that another model's.
    digest = model_files.digest(versions.version_directories(base)[version])
    return Live(base, str(version), digest, seen=True)


def _files(store: Store, model: Model | None) -> tuple[File, ...]:
    if model is None or model.examples is None:
        return ()
    return tuple(file for each in store.made(store.makers([model.examples])).values() for file in each.files)


def _raw_of(store: Store, makers: Iterable[Execution], known: Mapping[int, Artifact]) -> dict[int, Artifact]:
    """Under the ids of transformed examples what they were made of, for steps that took no others."""
    of_steps = [[known[link.artifact] for link in each.inputs if link.artifact in known] for each in makers]
    examples = [[each for each in taken if each.type == "Examples"] for taken in of_steps]
    transformed = [each.id for taken in examples if not any(one.spans for one in taken) for each in taken]
    earlier = store.made(store.makers(transformed)).values()
    raw = store.artifacts({link.artifact for each in earlier for link in each.inputs})
    return {
        given.artifact: raw[taken.artifact]
        for each in earlier
        for given in each.outputs
        for taken in each.inputs
        if raw[taken.artifact].spans
    }


def _model(
    artifact: Artifact, maker: Execution | None, users: Sequence[Execution], known: Mapping[int, Artifact]
) -> Model:
    taken = [known[link.artifact] for link in maker.inputs if link.artifact in known] if maker else []
    examples = [each for each in taken if each.type == "Examples"]
    raw = next((each for each in examples if each.spans), examples[0] if examples else None)
    given = [known[link.artifact] for each in users for link in each.outputs if link.artifact in known]
    evaluations = [each.properties for each in given if each.type == "ModelEvaluation"]
    blessings = [each.properties.get("blessed") for each in given if each.type == "ModelBlessing"]
    metric, value = judged_by(evaluations[-1] if evaluations else {})
    return Model(
        artifact.id,
        artifact.digest,
        artifact.uri,
        maker.pipeline if maker else "",
        maker.run if maker else "",
        artifact.made,
        raw.id if raw else None,
        raw.spans if raw else (),
        metric,
        value,
        bool(blessings[-1]) if blessings else None,
    )
