"""The ledger of a base directory: which versions were pushed there, when, from which run, and which were rolled back.

Enters: a base.  Leaves: immutable entries, and the ledger file anew.  The one idea: a version's number is used once,
so what was given must be remembered after the version itself is gone.  The file's name is no version, so TensorFlow
Serving never sees it.
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
    """One version that was given out.  Empty where it is not known."""

    version: int
    digest: str = ""
    pushed_at: str = ""  # UTC, ISO 8601
    pipeline: str = ""
    run: str = ""  # that made the model
    blessing: str = ""  # "blessed", "not blessed"
    metric: str = ""  # e.g. "ndcg@10 0.6021"
    rollback_of: int | None = None  # the version that was to serve no longer
    restores: int | None = None  # the version whose bytes these are
    rolled_back_at: str = ""  # since when it is not to serve; UTC
    pruned_at: str = ""  # UTC


@dataclasses.dataclass(frozen=True)
class Ledger:
    """What is remembered of a base."""

    entries: tuple[Entry, ...] = ()  # lowest version first
    highest: int = 0  # the highest version that was ever given out
    models_config: str = ""  # TensorFlow Serving's models.config in which labels are kept; "" where none are
    model: str = ""  # its name there

    def entry(self, version: int) -> Entry:
        """What is remembered of a version; an empty entry where nothing is."""
        return next((each for each in self.entries if each.version == version), Entry(version))

    def rolled_back(self, digest: str) -> Entry | None:
        """The entry of a model that was rolled back and has not been pushed since; None for any other."""
        same = [each for each in self.entries if digest and each.digest == digest]
        return same[-1] if same and same[-1].rolled_back_at else None

    def having(self, entry: Entry) -> "Ledger":
        """The ledger with an entry added or replaced."""
        others = [each for each in self.entries if each.version != entry.version]
        entries = tuple(sorted([*others, entry], key=lambda each: each.version))
        return dataclasses.replace(self, entries=entries, highest=max(self.highest, entry.version))


def read(base: storage.PathLike) -> Ledger:
    """The ledger of a base; an empty one where there is none.  Raises PushError for one that cannot be read."""
    file = storage.to_path(base) / LEDGER
    try:
        held = json.loads(file.read_bytes())
        entries = tuple(Entry(**each) for each in held["versions"])
        return Ledger(entries, int(held["highest"]), held.get("models_config", ""), held.get("model", ""))
    except (FileNotFoundError, NotADirectoryError):
        return Ledger()
    except (ValueError, TypeError, KeyError) as error:
        raise PushError(
            f"{file}: not the ledger of pushed versions ({error}). Restore it, or delete it: numbers then go on "
            "above the versions that are there."
        ) from error


def write(base: storage.PathLike, ledger: Ledger) -> None:
    """Replaces the ledger in one step."""
    held: dict[str, Any] = {"highest": ledger.highest}
    if ledger.models_config:
        held |= {"models_config": ledger.models_config, "model": ledger.model}
    held["versions"] = [
        {name: value for name, value in dataclasses.asdict(each).items() if value not in ("", None)}
        for each in ledger.entries
    ]
    storage.replace_file(storage.to_path(base) / LEDGER, (json.dumps(held, indent=1) + "\n").encode())


def now() -> str:
    """This moment as the ledger writes it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def made_by(entry: Entry, model: pathlib.Path) -> Entry:
    """The entry with the pipeline and the run that made a model, by the receipt that travels with it."""
    try:
        recorded = receipt.read(model) or {}
    except RankingError:  # a push does not depend on the receipt
        recorded = {}
    return dataclasses.replace(entry, pipeline=str(recorded.get("pipeline") or ""), run=str(recorded.get("run") or ""))
