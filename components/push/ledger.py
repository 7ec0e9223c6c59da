"""Reads and writes the ledger of a base directory: which versions were pushed, when, by which run, and rolled back.

Input: a base directory.  Output: immutable entries, or a new ledger file.  A version number is used only once, so the
ledger keeps the numbers of deleted versions.  TensorFlow Serving ignores the file, because its name is not a number.
"""

import dataclasses
import datetime
import json
import pathlib
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, RankingError
from tfx_ranking.components.exported import receipt

LEDGER = ".push.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One version that was pushed.  Fields are empty when unknown."""

    version: int
    digest: str = ""
    _: dataclasses.KW_ONLY
    pushed_at: str = ""  # UTC, ISO 8601
    pipeline: str = ""
    run: str = ""  # the run that made the model
    blessing: str = ""  # "blessed", "not blessed"
    metric: str = ""  # e.g. "ndcg@10 0.6021"
    rollback_of: int | None = None  # the version that this one replaced
    restores: int | None = None  # the version that has the same bytes
    rolled_back_at: str = ""  # when it was taken out of service; UTC
    pruned_at: str = ""  # UTC


@dataclasses.dataclass(frozen=True)
class Ledger:
    """The pushes of a base."""

    entries: tuple[Entry, ...] = ()  # lowest version first
    highest: int = 0  # the highest version number ever used
    models_config: str = ""  # TensorFlow Serving's models.config with the labels; "" without labels
    model: str = ""  # the model's name in models.config

    def entry(self, version: int) -> Entry:
        """The entry of a version; an empty one for an unknown version."""
        return next((each for each in self.entries if each.version == version), Entry(version))

    def rolled_back(self, digest: str) -> Entry | None:
        """The entry of a model that was rolled back and not pushed again since; None for any other model."""
        same = [each for each in self.entries if digest and each.digest == digest]
        return same[-1] if same and same[-1].rolled_back_at else None

    def having(self, entry: Entry) -> "Ledger":
        """A copy of the ledger with an entry added or replaced."""
        others = [each for each in self.entries if each.version != entry.version]
        entries = tuple(sorted([*others, entry], key=lambda each: each.version))
        return dataclasses.replace(self, entries=entries, highest=max(self.highest, entry.version))


def read(folder: pathlib.Path) -> Ledger:
    """Reads the ledger of a `ServingBase`'s folder; an empty one if there is no file.

    Raises PushError when the file cannot be read.
    """
    file = folder / LEDGER
    try:
        stored = json.loads(file.read_bytes())
        entries = tuple(Entry(**each) for each in stored["versions"])
        return Ledger(entries, int(stored["highest"]), stored.get("models_config", ""), stored.get("model", ""))
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    except (ValueError, TypeError, KeyError) as error:
        raise PushError(
            f"{file}: not the ledger of pushed versions ({error}). Restore it, or delete it: new versions then get "
            "numbers above the existing ones."
        ) from error


def write(folder: pathlib.Path, ledger: Ledger) -> None:
    """Replaces the ledger in a `ServingBase`'s folder in one step."""
    stored: dict[str, Any] = {"highest": ledger.highest}
    if ledger.models_config:
        stored |= {"models_config": ledger.models_config, "model": ledger.model}
    stored["versions"] = [
        {name: value for name, value in dataclasses.asdict(each).items() if value not in ("", None)}
        for each in ledger.entries
    ]
    storage.replace_file(folder / LEDGER, (json.dumps(stored, indent=1) + "\n").encode())


def now() -> str:
    """The current time in the ledger's format."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def made_by(entry: Entry, model: pathlib.Path) -> Entry:
    """A copy of the entry with the pipeline and the run from the model's lineage receipt; "" without a receipt."""
    try:
        recorded = receipt.read(model) or {}
    except RankingError:  # a push does not depend on the receipt
        recorded = {}
    return dataclasses.replace(entry, pipeline=str(recorded.get("pipeline") or ""), run=str(recorded.get("run") or ""))
