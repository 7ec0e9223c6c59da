"""Compares two runs or two models, and lists what could explain the change of the metric.

Input: a store and two queries.  Output: an immutable `Diff`.  Each kind of thing is compared by itself, and the
differences are ordered by how often they are the reason: refused data before the label, the label before the features,
these before vocabularies, config, code and packages.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL
from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import files, origin
from tfx_ranking.pipelines.lineage.diff_sides import Side, SideRecords, side_records
from tfx_ranking.pipelines.lineage.files import FeatureStatistics
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Execution, deciding_metric

if TYPE_CHECKING:  # it imports the config's classes, which a diff without two contracts does not need
    from tfx_ranking.components.exported.contract import ContractComparison

LEAST = 0.02  # a smaller distance between two distributions is no shift, however many lists there are
REFUSED = ("quarantined", "dropped", "dropped_lists", "capped", "duplicates", "shared_group_ids")
LISTED = {"missing_spans": "missing spans", "repeated": "repeated files"}  # what a window leaves out
COUNTS = ("lists_train", "lists_validation", "lists_test", "items_out", *REFUSED)
Content = TypeVar("Content")


class ChangedValue(NamedTuple):
    """A value on both sides; None if a side does not have it."""

    name: str
    before: Any
    after: Any


class FeatureShift(NamedTuple):
    """How far the distribution of a feature in the train split shifted."""

    name: str
    role: str  # label, position, feature
    distance: float  # of `files.distance`
    moved: bool  # whether it is more than chance explains for so many lists
    value: str  # for texts: `before` and `after` are its shares; "" for numbers: they are means
    before: float
    after: float
    missing_before: float  # share of the items
    missing_after: float


class VocabularyChange(NamedTuple):
    """How one feature's vocabulary changed, in numbers of values."""

    name: str
    before: int
    after: int
    gone: int
    new: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diff:
    """The differences from `before` to `after`; () for a kind without differences."""

    before: Side
    after: Side
    metrics: tuple[ChangedValue, ...]  # every metric of either side, equal ones included
    same_lists: tuple[ChangedValue, ...] = ()  # both models on the second's lists, if it was compared with the first
    causes: tuple[str, ...] = ()  # what could explain the metric's change, the likeliest first
    data: tuple[ChangedValue, ...] = ()  # spans, counts, files by path (their digests)
    features: tuple[FeatureShift, ...] = ()  # all features, the largest shift first
    vocabularies: tuple[VocabularyChange, ...] = ()
    config: tuple[ChangedValue, ...] = ()  # by key path; None: not set, its default applies
    code: tuple[ChangedValue, ...] = ()  # digests of the user's own code, by step
    packages: tuple[ChangedValue, ...] = ()
    contract: "ContractComparison | None" = None  # what changed for the clients of the first
    unknown: tuple[str, ...] = ()  # what could not be compared, and why


@dataclasses.dataclass(frozen=True)
class _FileKind(Generic[Content]):
    """A kind of artifact whose files are compared."""

    name: str
    not_made: str  # the reason if there is no artifact
    read: Callable[[str], Content | None]


def diff(store: Store, before: str, after: str) -> Diff:
    """Compares two runs or two models.  before, after: queries as for `origin.upstream`.

    Raises RankingError if the store does not have one of them, or if it is neither a run nor a model.
    """
    one, other = side_records(store, before), side_records(store, after)
    unknown: list[str] = []
    same_data = bool(one.side.examples and other.side.examples and one.side.examples.id == other.side.examples.id)
    same_graph = bool(one.graph and one.graph == other.graph)
    differences = Diff(
        before=one.side,
        after=other.side,
        metrics=tuple(_all(_metrics(one.evaluation), _metrics(other.evaluation))),
        same_lists=_same_lists(one, other),
        data=() if same_data else tuple(_changes(_data(one.side), _data(other.side))),
        features=() if same_data else _features(one, other, unknown),
        vocabularies=() if same_graph else _vocabularies(one, other, unknown),
        config=tuple(_config(one, other)),
        code=tuple(_changes(_code(one.lineage.executions), _code(other.lineage.executions))),
        packages=_packages(one, other, unknown),
        contract=_contract(store, one, other, unknown),
        unknown=tuple(unknown),  # the comparisons above add to it
    )
    return dataclasses.replace(differences, causes=tuple(_causes(differences, one, other)))


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of an evaluation, the deciding one first."""
    names = [name.removeprefix("convention ") for name in evaluation if name.startswith("convention ")]
    deciding, _ = deciding_metric(evaluation)
    ordered = sorted(names, key=lambda name: (name != deciding, name))
    return {name: evaluation[name] for name in ordered if name in evaluation}


def _same_lists(one: SideRecords, other: SideRecords) -> tuple[ChangedValue, ...]:
    if one.side.model is None or not one.side.model.digest or other.baseline != one.side.model.digest:
        return ()
    metrics = _metrics(other.evaluation)
    of_baseline = {name: other.evaluation.get(f"baseline {name}") for name in metrics}
    values = {name: value for name, value in of_baseline.items() if value is not None}
    return tuple(each for each in _all(values, metrics) if each.before is not None)


def _data(side: Side) -> dict[str, Any]:
    examples = side.examples
    if examples is None:
        return {}
    properties = examples.properties
    facts: dict[str, Any] = {"spans": spans.text(examples.spans)} if examples.spans else {}
    facts |= {f"missing {name}": n for name, n in (properties.get("missing") or {}).items()}
    facts |= {name: properties[name] for name in COUNTS if name in properties}
    facts |= {name: len(properties.get(key) or ()) for key, name in LISTED.items() if examples.spans}
    return facts | {f"file {file.path}": file.digest for file in side.files}


def _features(one: SideRecords, other: SideRecords, unknown: list[str]) -> tuple[FeatureShift, ...]:
    kind = _FileKind("feature statistics", "there are no statistics", files.feature_statistics)
    before, after = _read(one, one.statistics, kind, unknown), _read(other, other.statistics, kind, unknown)
    if before is None or after is None:
        return ()
    sections = [each.config.get("data") or {} for each in (one, other)]
    ids = {name for each in sections for name in (each.get("group_id"), each.get("item_id"))}
    roles = {each.get("label", "label"): "label" for each in sections}
    roles |= {each["position"]: "position" for each in sections if each.get("position")}
    shifts = [
        _shift(before[name], after[name], roles.get(name, "feature"), (_missing(one, name), _missing(other, name)))
        for name in before
        if name in after and name not in ids and "/" not in name
    ]
    return tuple(sorted(shifts, key=lambda each: (not each.moved, each.role == "feature", -each.distance)))


def _shift(one: FeatureStatistics, other: FeatureStatistics, role: str, missing: tuple[float, float]) -> FeatureShift:
    distance, value = files.distance(one, other)
    distance = max(distance, abs(missing[0] - missing[1]))
    # Two samples of one distribution stay below it 99 times in 100 (Kolmogorov-Smirnov).  Counted in lists, since the
    # items of a list are not independent.
    chance = 1.63 * math.sqrt(1 / max(one.lists, 1) + 1 / max(other.lists, 1))
    return FeatureShift(
        name=one.name,
        role=role,
        distance=distance,
        moved=distance > max(LEAST, chance),
        value=value,
        before=one.shares.get(value, 0.0) if value else one.mean or 0.0,
        after=other.shares.get(value, 0.0) if value else other.mean or 0.0,
        missing_before=missing[0],
        missing_after=missing[1],
    )


def _missing(records: SideRecords, feature: str) -> float:
    properties = records.side.examples.properties if records.side.examples else {}
    return float((properties.get("missing") or {}).get(feature, 0)) / max(float(properties.get("items_out") or 0), 1)


def _vocabularies(one: SideRecords, other: SideRecords, unknown: list[str]) -> tuple[VocabularyChange, ...]:
    kind = _FileKind("vocabularies", "there is no transform graph", files.vocabularies)
    before, after = _read(one, one.graph, kind, unknown), _read(other, other.graph, kind, unknown)
    if before is None or after is None:
        return ()
    pairs = [(name, set(before.get(name, ())), set(after.get(name, ()))) for name in sorted({**before, **after})]
    return tuple(
        VocabularyChange(name=name, before=len(a), after=len(b), gone=len(a - b), new=len(b - a))
        for name, a, b in pairs
        if a != b
    )


def _read(records: SideRecords, uri: str, kind: _FileKind[Content], unknown: list[str]) -> Content | None:
    """The content of an artifact's files; notes in `unknown` what cannot be read."""
    content = kind.read(uri) if uri else None
    if content is None:
        unknown.append(f"{kind.name} of {records.side.query}: {f'{uri} is gone' if uri else kind.not_made}")
    return content


def _config(one: SideRecords, other: SideRecords) -> Iterable[ChangedValue]:
    """Compares the config of the steps that both have: a run that ended early did not read all of it."""
    both = {each.node for each in one.lineage.executions} & {each.node for each in other.lineage.executions}
    before, after = (
        origin.config_of([each for each in records.lineage.executions if each.node in both]) for records in (one, other)
    )
    return _changes(_flat(before), _flat(after))


def _code(executions: Iterable[Execution]) -> dict[str, str]:
    digests: dict[str, str] = {}
    for each in executions:
        custom = each.properties.get("custom_config")
        digest = each.properties.get("code_digest") or (custom.get("code") if isinstance(custom, Mapping) else "")
        if digest:
            digests.setdefault(each.node, str(digest))
    return digests


def _packages(one: SideRecords, other: SideRecords, unknown: list[str]) -> tuple[ChangedValue, ...]:
    for each in (one, other):
        if not each.packages:
            unknown.append(f"packages of {each.side.query}: its run has no receipt, or its files are gone")
    return tuple(_changes(one.packages, other.packages)) if one.packages and other.packages else ()


def _contract(store: Store, one: SideRecords, other: SideRecords, unknown: list[str]) -> "ContractComparison | None":
    folders = []
    for each in (one, other):
        digest = each.side.model.digest if each.side.model else ""
        folder = files.model_folder(store.with_digest(digest)) if digest else None
        if folder is None:
            reason = f"the files of {digest[:12]} are gone" if digest else "no model was exported"
            unknown.append(f"contract of {each.side.query}: {reason}")
        elif not (folder / CONTRACT_IN_MODEL).is_file():
            unknown.append(f"contract of {each.side.query}: its model has none")
        else:
            folders.append(folder)
    if len(folders) < 2:
        return None
    from tfx_ranking.components.exported import contract

    return contract.compare_models(*folders)


def _causes(diff: Diff, one: SideRecords, other: SideRecords) -> Iterable[str]:
    """The differences as sentences, the likeliest reason first."""
    models = one.side.model, other.side.model
    if models[0] and models[1] and models[0].digest and models[0].digest == models[1].digest:
        yield "it is the same model, byte by byte"
        return
    yield from _measuring_causes(diff, one, other)
    yield from _data_causes(diff, one, other)
    for shift in diff.features:
        if shift.moved:
            yield f"{'the ' if shift.role == 'label' else ''}{shift.role} {shift.name} shifted by {shift.distance:.3f}"
    for each in diff.vocabularies:
        yield f"vocabulary of {each.name}: {each.new:,} new and {each.gone:,} gone of {each.before:,} values"
    for title, changes in (("config", diff.config), ("code of", diff.code), ("package", diff.packages)):
        for change in changes:
            yield f"{title} {change.name}: {value_text(change.before)} → {value_text(change.after)}"


def _measuring_causes(diff: Diff, one: SideRecords, other: SideRecords) -> Iterable[str]:
    """Reasons that are not in the models: the metric was computed in another way, or on other lists."""
    for name in sorted({*_metrics(one.evaluation)} & {*_metrics(other.evaluation)}):
        before, now = (each.evaluation.get(f"convention {name}") for each in (one, other))
        if before != now:
            yield f"{name} is computed in another way: {before} before, {now} now"
    if one.evaluated_on and other.evaluated_on and one.evaluated_on != other.evaluated_on:
        same = [f"; on the latter {each.name} is {each.before:.4f} → {each.after:.4f}" for each in diff.same_lists]
        examples = f"examples #{one.evaluated_on} and #{other.evaluated_on}"
        yield f"they were evaluated on different lists, of {examples}{''.join(same[:1])}"


def _data_causes(diff: Diff, one: SideRecords, other: SideRecords) -> Iterable[str]:
    for each, when in ((one, "before"), (other, "now")):
        for anomaly in [text for uri in each.anomalies for text in files.anomalies(uri) or ("anomalies",)]:
            yield f"the data {when}: {anomaly}"
    data = {change.name: change for change in diff.data}
    for name in (*REFUSED, *LISTED.values()):
        if name in data and (data[name].before or 0) != (data[name].after or 0):
            yield f"{name.replace('_', ' ')}: {data[name].before or 0:,} → {data[name].after or 0:,}"
    if "spans" in data:
        yield f"trained on spans {data['spans'].after or 'none'}, before on {data['spans'].before or 'none'}"
    elif any(name.startswith("file ") for name in data):
        yield "trained on other files"


def value_text(value: Any) -> str:
    """A value of a change as text, at most 60 characters; None is "not set"."""
    text = "not set" if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[ChangedValue]:
    return (each for each in _all(before, after) if each.before != each.after)


def _all(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[ChangedValue]:
    return (ChangedValue(name, before.get(name), after.get(name)) for name in {**before, **after})


def _flat(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """
    >>> _flat({"model": {"hidden": [64], "loss": "softmax"}, "name": "shop"})
    {'model.hidden': [64], 'model.loss': 'softmax', 'name': 'shop'}
    """
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, f"{path}.") if isinstance(value, Mapping) and value else {path: value}
    return flat
