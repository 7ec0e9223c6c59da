"""Lists the versions under a base directory, for `tfx-ranking versions`.

Input: a base directory.  Output: one value per version, or a text table.  The directories show which versions exist;
the ledger adds what is known about them.  A version that was copied there by hand is listed too.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfx_ranking.components import storage
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push.labels import STABLE
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.pipelines.text_layout import columns

if TYPE_CHECKING:
    from ml_metadata.metadata_store import metadata_store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Version:
    """One version.  "" and None for unknown facts."""

    version: int
    directory: str
    live: bool
    labels: tuple[str, ...]  # in models.config
    pushed_at: str  # UTC, ISO 8601; without a ledger entry, the last change of the directory's files
    pipeline: str
    run: str  # the run that made the model
    blessing: str
    metric: str
    digest: str  # when it was pushed
    rollback_of: int | None
    restores: int | None
    rolled_back_at: str
    size: int  # bytes
    problem: str  # why TensorFlow Serving could not serve it; ""


def versions(base: storage.PathLike, store: "metadata_store.MetadataStore | None" = None) -> tuple[Version, ...]:
    """The versions under a base, newest first; () without any.

    store: ML Metadata; it gives the evaluation of a version whose ledger entry has none.
    """
    destination = ServingBase(base)
    ledger, live, labels = destination.ledger(), destination.live_version(), destination.labels()
    listed = []
    for number, directory in reversed(destination.directories().items()):
        entry = ledger.entry(number)
        if not entry.run:
            entry = push_ledger.made_by(entry, directory)
        if store is not None and not entry.blessing:
            from tfx_ranking.pipelines.metadata import push_records

            digest = entry.digest or model_files.digest(directory)
            judged = push_records.last_evaluation(store, digest)
            entry = dataclasses.replace(entry, digest=digest, blessing=judged.blessing, metric=judged.metric)
        files = [file.stat() for file in storage.files_in(directory).values()]
        changed = max((file.st_mtime for file in files), default=0.0)
        changed_at = datetime.datetime.fromtimestamp(changed, datetime.timezone.utc).isoformat(timespec="seconds")
        listed.append(
            Version(
                version=number,
                directory=str(directory),
                live=number == live,
                labels=tuple(sorted(label for label, version in labels.items() if version == number)),
                pushed_at=entry.pushed_at or changed_at,
                pipeline=entry.pipeline,
                run=entry.run,
                blessing=entry.blessing,
                metric=entry.metric,
                digest=entry.digest,
                rollback_of=entry.rollback_of,
                restores=entry.restores,
                rolled_back_at=entry.rolled_back_at,
                size=sum(file.st_size for file in files),
                problem=_problem(directory),
            )
        )
    return tuple(listed)


def text(listed: Sequence[Version]) -> str:
    """A table, the newest version first, without the columns that are empty for every version."""
    heading = ["version", "pushed at (UTC)", "run", "blessing", "metric", "label", "size", ""]
    rows = [heading] + [
        [
            str(each.version),
            each.pushed_at[:19].replace("T", " "),
            each.run[:19],
            each.blessing,
            each.metric,
            ", ".join((*each.labels, *(["live"] if each.live and STABLE not in each.labels else []))),
            size_text(each.size),
            "; ".join(_notes(each)),
        ]
        for each in listed
    ]
    used = [column for column in range(len(heading)) if any(row[column] for row in rows[1:])]
    return "\n".join(columns([[row[column] for column in used] for row in rows]))


def as_json(listed: Sequence[Version]) -> list[dict[str, Any]]:
    """The versions as plain values."""
    return [dataclasses.asdict(each) for each in listed]


def size_text(size: int) -> str:
    """A number of bytes as text.

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


def _problem(directory: pathlib.Path) -> str:
    if model_files.is_loadable(directory):
        return ""
    if not any((directory / name).is_file() for name in model_files.GRAPHS):
        return "broken: no saved_model.pb"
    return "broken: no variables/variables.index"
