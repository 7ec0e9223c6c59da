"""What the workers of one ingestion need to know, and what they report.

Input: the config and the files that `sources.resolve` found.  Output: a `Plan`, which every worker gets, and the
`Report` that each of them writes.
"""

import collections
import dataclasses
from typing import Any

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import splits
from tfx_ranking.components.lists.list_examples import columns

BYTES_PER_BUCKET = 64 << 20  # of input; a bucket is grouped in memory and becomes one shard


@dataclasses.dataclass(frozen=True, kw_only=True)
class InputFile:
    """One input file."""

    number: int
    path: str
    name: str  # in generated group ids
    origin: str  # the split that the config lists the file under, or "all"
    size: int = 0  # bytes
    side: str | None = None  # path of the file of list sizes
    span: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a worker needs to know; `folder` is where shards and reports are written."""

    config: RankingConfig
    files: tuple[InputFile, ...]
    folder: str

    @property
    def streamed(self) -> bool:
        """Whether each file is written directly to its shards, without a shuffle."""
        data = self.config.data
        grouped = FORMATS[data.format].lists or data.order == "grouped" or data.group_sizes is not None
        return grouped and self.time is None

    @property
    def time(self) -> str | None:
        """The column with the time of a list; None where time does not decide the split."""
        by = self.config.data.splits.by
        return by if by not in ("group_id", self.config.data.group_id) and self.cut else None

    @property
    def origins(self) -> set[str]:
        return {file.origin for file in self.files}

    @property
    def cut(self) -> dict[str, float]:
        """The splits that take a share of the training files: name → share."""
        return splits.shares(self.config.data.splits, self.origins)

    @property
    def split_names(self) -> list[str]:
        return splits.names(self.config.data.splits, self.origins)

    @property
    def buckets(self) -> int:
        return max(1, sum(file.size for file in self.files) // BYTES_PER_BUCKET)

    def request(self, file: InputFile) -> chunks.FileRequest:
        """The request to read one of the files."""
        return chunks.FileRequest(
            file.path, file.name, self.config.data, columns(self.config), time=self.time, side=file.side
        )


@dataclasses.dataclass
class Report:
    """What happened to the records of one file or bucket.

    counts: records_in, quarantined, capped, dropped, …, `missing/<feature>`, and for each split
    `lists/…`, `items/…`, `one_item/…` (lists), `labels_differ/…` (lists with at least two different labels).
    bad: (file number, BadRecord).  groups: origin → (group id, file number, first row) of each list.
    error: the error that ended the work.  It is reported here, because Beam would hide it in a long stack trace.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bad: list[tuple[int, chunks.BadRecord]] = dataclasses.field(default_factory=list)
    groups: dict[str, list[tuple[bytes, int, int]]] = dataclasses.field(default_factory=dict)
    error: RankingError | None = None

    def add_chunk(self, chunk: chunks.Chunk, file: int) -> None:
        self.counts["records_in"] += chunk.records
        self.counts["quarantined"] += sum(bad.items for bad in chunk.bad)
        self.counts["quarantined_records"] += len(chunk.bad)
        self.counts.update(chunk.counts)
        self.bad.extend((file, bad) for bad in chunk.bad)

    def merge(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.bad.extend(other.bad)
        self.error = self.error or other.error
        for split, groups in other.groups.items():
            self.groups.setdefault(split, []).extend(groups)


def make_plan(config: RankingConfig, source: dict[str, Any], folder: str) -> Plan:
    """The plan for a source, which `sources.resolve` returns."""
    files: list[InputFile] = []
    for origin, entries in source["files"].items():
        for entry in entries:
            file = InputFile(
                number=len(files),
                path=entry["path"],
                name=entry["name"],
                origin=origin,
                size=int(entry["size"]),
                side=entry.get("side"),
                span=entry.get("span"),
            )
            files.append(file)
    return Plan(config, tuple(files), folder)
