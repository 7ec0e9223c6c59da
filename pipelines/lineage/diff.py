"""What differs between two runs or two models, and what of it could explain the change of the metric.

Enters: a store and two names.  Leaves: an immutable `Diff`.  The one idea: each kind of thing is compared for itself,
and what differs is ordered by what is most often the reason: data that was refused before the label, the label before
the features, these before vocabularies, config, code and packages.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL
from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import files, origin
from tfx_ranking.pipelines.lineage.files import Feature
from tfx_ranking.pipelines.lineage.sides import Known, Side, known
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Execution, judged_by

if TYPE_CHECKING:  # brings the config's classes along, which a diff without two contracts need not wait for
    from tfx_ranking.components.exported.contract import Comparison

LEAST = 0.02  # a distance between two spreads below this is no move, however many lists there are
REFUSED = ("quarantined", "dropped", "dropped_lists", "capped", "duplicates", "shared_group_ids")
LISTED = {"missing_spans": "missing spans", "repeated": "repeated files"}  # which a window leaves out
COUNTS = ("lists_train", "lists_validation", "lists_test", "items_out", *REFUSED)
Found = TypeVar("Found")


class Change(NamedTuple):
    """One thing that is another on the second side; None: not there."""

    name: str
    before: Any
    after: Any


class Moved(NamedTuple):
    """How far a feature's train split is from what it was."""

    name: str
    role: str  # label, position, feature
    distance: float  # as `lineage_files.distance`
    moved: bool  # more than lists of these numbers differ by chance
    value: str  # of texts, the value that `before` and `after` are shares of; "": they are means
    before: float
    after: float
    missing_before: float  # share of the items
    missing_after: float


class Words(NamedTuple):
    """One feature's vocabulary: how many values, and how many of them only one side has."""

    name: str
    before: int
    after: int
    gone: int
    new: int


@dataclasses.dataclass(frozen=True)
class Diff:
    """What differs from `before` to `after`; () where nothing does."""

    before: Side
    after: Side
    metrics: tuple[Change, ...]  # all that both or one of them has, equal ones included
    same_lists: tuple[Change, ...]  # the same over the second's lists, where it was compared with the first on them
    causes: tuple[str, ...]  # what could explain the metric's change, the likeliest first
    data: tuple[Change, ...]  # spans, counts, files by path (their digests)
    features: tuple[Moved, ...]  # all, the farthest first
    vocabularies: tuple[Words, ...]
    config: tuple[Change, ...]  # by key path; None: not said, its default
    code: tuple[Change, ...]  # digests of the user's own code, by step
    packages: tuple[Change, ...]
    contract: "Comparison | None"  # what the clients of the first find changed
    unknown: tuple[str, ...]  # what could not be compared, and why


def diff(store: Store, before: str, after: str) -> Diff:
    """Compares two runs or two models, each named as `lineage.upstream` takes it.

    Raises RankingError when the store does not know one of them or it is neither a run nor a model.
    """
    one, other = known(store, before), known(store, after)
    unknown: list[str] = []
    metrics = tuple(_all(_metrics(one.evaluation), _metrics(other.evaluation)))
    same_data = bool(one.side.examples and other.side.examples and one.side.examples.id == other.side.examples.id)
    found = Diff(
        one.side,
        other.side,
        metrics,
        _same_lists(one, other),
        (),
        () if same_data else tuple(_changes(_data(one.side), _data(other.side))),
        () if same_data else _features(one, other, unknown),
        () if one.graph and one.graph == other.graph else _vocabularies(one, other, unknown),
        tuple(_config(one, other)),
        tuple(_changes(_code(one.found.executions), _code(other.found.executions))),
        _packages(one, other, unknown),
        _contract(store, one, other, unknown),
        (),
    )
    return dataclasses.replace(found, causes=tuple(_causes(found, one, other)), unknown=tuple(unknown))


def _metrics(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """The one that decided first."""
    names = [name.removeprefix("convention ") for name in evaluation if name.startswith("convention ")]
    decided, _ = judged_by(evaluation)
    return {
        name: evaluation[name] for name in sorted(names, key=lambda name: (name != decided, name)) if name in evaluation
    }


def _same_lists(one: Known, other: Known) -> tuple[Change, ...]:
    if one.side.model is None or not one.side.model.digest or other.compared != one.side.model.digest:
        return ()
    of_first = {name: other.evaluation.get(f"baseline {name}") for name in _metrics(other.evaluation)}
    found = _all({name: value for name, value in of_first.items() if value is not None}, _metrics(other.evaluation))
    return tuple(each for each in found if each.before is not None)


def _data(side: Side) -> dict[str, Any]:
    examples = side.examples
    if examples is None:
        return {}
    held: dict[str, Any] = {"spans": spans.said(examples.spans)} if examples.spans else {}
    held |= {f"missing {name}": n for name, n in (examples.properties.get("missing") or {}).items()}
    held |= {name: examples.properties[name] for name in COUNTS if name in examples.properties}
    held |= {name: len(examples.properties.get(key) or ()) for key, name in LISTED.items() if examples.spans}
    return held | {f"file {file.path}": file.digest for file in side.files}


def _features(one: Known, other: Known, unknown: list[str]) -> tuple[Moved, ...]:
    about = "feature statistics", "no statistics were made", unknown
    before = _read(one, one.statistics, files.feature_statistics, *about)
    after = _read(other, other.statistics, files.feature_statistics, *about)
    if before is None or after is None:
        return ()
    said = [each.config.get("data") or {} for each in (one, other)]
    ids = {name for each in said for name in (each.get("group_id"), each.get("item_id"))}
    roles = {each.get("label", "label"): "label" for each in said}
    roles |= {each["position"]: "position" for each in said if each.get("position")}
    moved = [
        _moved(before[name], after[name], roles.get(name, "feature"), _missing(one, name), _missing(other, name))
        for name in before
        if name in after and name not in ids and "/" not in name
    ]
    return tuple(sorted(moved, key=lambda each: (not each.moved, each.role == "feature", -each.distance)))


def _moved(one: Feature, other: Feature, role: str, missing: float, missing_after: float) -> Moved:
    apart, value = files.distance(one, other)
    apart = max(apart, abs(missing - missing_after))
    # What two samples of one spread stay below 99 times of 100 (Kolmogorov-Smirnov); lists, since a list's items are
    # no independent draws.
    chance = 1.63 * math.sqrt(1 / max(one.lists, 1) + 1 / max(other.lists, 1))
    ends = (one.shares.get(value, 0.0), other.shares.get(value, 0.0)) if value else (one.mean or 0.0, other.mean or 0.0)
    return Moved(one.name, role, apart, apart > max(LEAST, chance), value, *ends, missing, missing_after)


def _missing(known: Known, feature: str) -> float:
    said = known.side.examples.properties if known.side.examples else {}
    return float((said.get("missing") or {}).get(feature, 0)) / max(float(said.get("items_out") or 0), 1)


def _vocabularies(one: Known, other: Known, unknown: list[str]) -> tuple[Words, ...]:
    about = "vocabularies", "nothing was transformed", unknown
    before = _read(one, one.graph, files.vocabularies, *about)
    after = _read(other, other.graph, files.vocabularies, *about)
    if before is None or after is None:
        return ()
    pairs = [(name, set(before.get(name, ())), set(after.get(name, ()))) for name in sorted({**before, **after})]
    return tuple(Words(name, len(a), len(b), len(a - b), len(b - a)) for name, a, b in pairs if a != b)


def _config(one: Known, other: Known) -> Iterable[Change]:
    """Of the steps that both have: what a run that ended early never read is no difference."""
    both = {each.node for each in one.found.executions} & {each.node for each in other.found.executions}
    before, after = (
        origin.config_of([each for each in side.found.executions if each.node in both]) for side in (one, other)
    )
    return _changes(_flat(before), _flat(after))


def _read(
    side: Known, uri: str, read: Callable[[str], Found | None], what: str, not_made: str, unknown: list[str]
) -> Found | None:
    found = read(uri) if uri else None
    if found is None:
        unknown.append(f"{what} of {side.side.asked}: {f'{uri} is gone' if uri else not_made}")
    return found


def _code(executions: Iterable[Execution]) -> dict[str, str]:
    held: dict[str, str] = {}
    for each in executions:
        custom = each.properties.get("custom_config")
        digest = each.properties.get("code_digest") or (custom.get("code") if isinstance(custom, Mapping) else "")
        if digest:
            held.setdefault(each.node, str(digest))
    return held


def _packages(one: Known, other: Known, unknown: list[str]) -> tuple[Change, ...]:
    for each in (one, other):
        if not each.packages:
            unknown.append(f"packages of {each.side.asked}: no receipt of its run lies on the disk")
    return tuple(_changes(one.packages, other.packages)) if one.packages and other.packages else ()


def _contract(store: Store, one: Known, other: Known, unknown: list[str]) -> "Comparison | None":
    folders = []
    for each in (one, other):
        digest = each.side.model.digest if each.side.model else ""
        folder = files.model_folder(store.model(digest)) if digest else None
        if folder is None:
            at = f"the files of {digest[:12]} are gone" if digest else "no model was exported"
            unknown.append(f"contract of {each.side.asked}: {at}")
        elif not (folder / CONTRACT_IN_MODEL).is_file():
            unknown.append(f"contract of {each.side.asked}: its model has none")
        else:
            folders.append(folder)
    if len(folders) < 2:
        return None
    from tfx_ranking.components.exported import contract

    return contract.compare_models(*folders)


def _causes(found: Diff, one: Known, other: Known) -> Iterable[str]:
    """What differs, ordered; the caller says of which metric."""
    if (
        one.side.model
        and other.side.model
        and one.side.model.digest
        and one.side.model.digest == other.side.model.digest
    ):
        yield "it is the same model, byte by byte"
        return
    for name in sorted({*_metrics(one.evaluation)} & {*_metrics(other.evaluation)}):
        conventions = [each.evaluation.get(f"convention {name}") for each in (one, other)]
        if conventions[0] != conventions[1]:
            yield f"{name} is computed otherwise: {conventions[0]} before, {conventions[1]} now"
    if one.lists and other.lists and one.lists != other.lists:
        same = [f"; on the latter {each.name} is {each.before:.4f} → {each.after:.4f}" for each in found.same_lists]
        yield f"they were measured on other lists, of examples #{one.lists} and #{other.lists}{''.join(same[:1])}"
    for each, when in ((one, "before"), (other, "now")):
        for complaint in [said for uri in each.anomalies for said in files.anomalies(uri) or ("anomalies",)]:
            yield f"the data {when}: {complaint}"
    data = {change.name: change for change in found.data}
    for name in (*REFUSED, *LISTED.values()):
        if name in data and (data[name].before or 0) != (data[name].after or 0):
            yield f"{name.replace('_', ' ')}: {data[name].before or 0:,} → {data[name].after or 0:,}"
    if "spans" in data:
        yield f"trained on spans {data['spans'].after or 'none'}, before on {data['spans'].before or 'none'}"
    elif any(name.startswith("file ") for name in data):
        yield "trained on other files"
    for moved in found.features:
        if moved.moved:
            yield f"{'the ' if moved.role == 'label' else ''}{moved.role} {moved.name} moved by {moved.distance:.3f}"
    for words in found.vocabularies:
        yield f"vocabulary of {words.name}: {words.new:,} new and {words.gone:,} gone of {words.before:,} values"
    for title, changes in (("config", found.config), ("code of", found.code), ("package", found.packages)):
        for change in changes:
            yield f"{title} {change.name}: {told(change.before)} → {told(change.after)}"


def told(value: Any) -> str:
    """A value of a change as text; None is what was not said."""
    text = "not said" if value is None else f"{value:,}" if isinstance(value, int) and value > 9999 else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Change]:
    return (each for each in _all(before, after) if each.before != each.after)


def _all(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Change]:
    return (Change(name, before.get(name), after.get(name)) for name in {**before, **after})


def _flat(held: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """
    >>> _flat({"model": {"hidden": [64], "loss": "softmax"}, "name": "shop"})
    {'model.hidden': [64], 'model.loss': 'softmax', 'name': 'shop'}
    """
    flat: dict[str, Any] = {}
    for name, value in held.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, Mapping) and value else {f"{above}{name}": value}
    return flat
