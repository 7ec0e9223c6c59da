"""The versions under a base directory, as `tfx-ranking versions` shows them.

Enters: a base.  Leaves: immutable values, and their table.  The one idea: the directories say what is there, the ledger
what is known of them; a version that was put there by hand is shown as well.
"""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfx_ranking.components import storage
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import versions as serving_versions

if TYPE_CHECKING:
    from ml_metadata.metadata_store import metadata_store


@dataclasses.dataclass(frozen=True)
class Version:
    """One version.  "" and None for what is not known."""

    version: int
    directory: str
    live: bool
    labels: tuple[str, ...]  # in models.config
    pushed_at: str  # UTC, ISO 8601; of one that was not pushed, when its directory changed last
    pipeline: str
    run: str  # that made the model
    blessing: str
    metric: str
    digest: str  # when it was pushed
    rollback_of: int | None
    restores: int | None
    rolled_back_at: str
    size: int  # bytes
    problem: str  # why TensorFlow Serving could not serve it; ""


def versions(base: storage.PathLike, store: "metadata_store.MetadataStore | None" = None) -> tuple[Version, ...]:
    """What stands under a base, newest version first; () where nothing does.

    store: is asked how a model was judged of which the ledger does not say.
    """
    ledger, live = push_ledger.read(base), serving_versions.live_version(base)
    labels = serving_versions.labels(base)
    found = []
    for number, directory in reversed(serving_versions.version_directories(base).items()):
        entry = ledger.entry(number)
        if not entry.run:
            entry = push_ledger.made_by(entry, directory)
        if store is not None and not entry.blessing:
            from tfx_ranking.pipelines.metadata import push_records

            digest = entry.digest or model_files.digest(directory)
            judged = push_records.judged(store, digest)
            entry = dataclasses.replace(entry, digest=digest, blessing=judged.blessing, metric=judged.metric)
        files = [file.stat() for file in storage.files_in(directory).values()]
        changed = max((each.st_mtime for each in files), default=0.0)
        since = datetime.datetime.fromtimestamp(changed, datetime.timezone.utc).isoformat(timespec="seconds")
        found.append(
            Version(
                number,
                str(directory),
                number == live,
                tuple(sorted(label for label, version in labels.items() if version == number)),
                entry.pushed_at or since,
                *(entry.pipeline, entry.run, entry.blessing, entry.metric, entry.digest),
                *(entry.rollback_of, entry.restores, entry.rolled_back_at),
                sum(each.st_size for each in files),
                _problem(directory),
            )
        )
    return tuple(found)


def text(found: Sequence[Version]) -> str:
    """A table, the newest version first."""
    heading = ["version", "pushed at (UTC)", "run", "blessing", "metric", "label", "size", ""]
    rows = [heading] + [
        [
            str(each.version),
            each.pushed_at[:19].replace("T", " "),
            each.run[:19],
            each.blessing,
            each.metric,
            ", ".join((*each.labels, *(["live"] if each.live and "stable" not in each.labels else []))),
            size_text(each.size),
            "; ".join(_notes(each)),
        ]
        for each in found
    ]
    used = [column for column in range(len(heading)) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in used}
    return "\n".join("  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in rows)


def as_json(found: Sequence[Version]) -> list[dict[str, Any]]:
    """The same as plain values."""
    return [dataclasses.asdict(each) for each in found]


def size_text(size: int) -> str:
    """
    >>> size_text(999), size_text(3_140_000), size_text(25_000_000_000)
    ('999 B', '3.1 MB', '25.0 GB')
    """
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"


def _notes(each: Version) -> list[str]:
    notes = [each.problem] if each.problem else []
    if each.restores is not None:
        notes.append(f"rollback of {each.rollback_of}, bytes of {each.restores}")
    if each.rolled_back_at:
        notes.append(f"rolled back {each.rolled_back_at[:16].replace('T', ' ')}")
    return notes


def _problem(directory: Any) -> str:
    if model_files.is_loadable(directory):
        return ""
    if not any((directory / name).is_file() for name in model_files.GRAPHS):
        return "broken: no saved_model.pb"
    return "broken: no variables/variables.index"
