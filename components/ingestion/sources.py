"""Lists the files that `data.input` matches now, with their digests, span and version.

Input: the config's data section.  Output: plain values that go into the execution's properties, so that a changed byte
or a new file runs the ingestion again, and nothing else does.
"""

import glob
import hashlib
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.config.data_section import SPLIT_NAMES, Data
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.ingestion import spans

LiveSpans = Callable[[], Sequence[int]]
ALL = "all"  # the key of files that belong to no split yet


def resolve(data: Data, live_spans: LiveSpans | None = None) -> dict[str, Any]:
    """The input's files: `files` is `{split or "all": [{path, name, size, digest, side, side_digest, span}]}`, `span`
    the newest's number, `version` its version or None.

    live_spans: returns the spans that the live model was trained on, for `data.window.since: live`.  Of an input with
    spans also the lists `spans`, `missing_spans` (of the window, that nobody delivered) and `repeated` (paths whose
    bytes came before, left out).
    Files are sorted by path, those of several spans by span; `name` is the path below the folder they all share.
    Raises DataError when a pattern matches nothing or every file is empty.
    """
    by_split = _by_split(data)
    if any(spans.has_marks(each) for split in by_split.values() for each in split):
        return _of_spans(by_split, data, live_spans)
    files = {split: _matching(by_split[split], split, data) for split in (ALL, *SPLIT_NAMES) if split in by_split}
    entries = [entry for split in files.values() for entry in split]
    _refuse_empty(entries)
    for entry, name in zip(entries, names_below([entry["path"] for entry in entries])):
        entry["name"] = name
    return {"files": files, "span": 0, "version": None}


def refuse_absent(data: Data) -> None:
    """Raises the DataError of `resolve` for local patterns that match nothing; reads no file, and no object store."""
    by_split = _by_split(data)
    patterns = [each for split in by_split.values() for each in split]
    if any("://" in each for each in patterns):
        return
    if any(map(spans.has_marks, patterns)):
        _newest(by_split, data)
        return
    for split, of_split in by_split.items():
        matching(of_split, _key(split), data)


def only(source: dict[str, Any], keep: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """A source with the files that `keep` says, and the spans that still have one; version and the rest stay."""
    files = {split: [each for each in entries if keep(each)] for split, entries in source["files"].items()}
    left = {**source, "files": {split: entries for split, entries in files.items() if entries}}
    if "spans" in source:
        kept = sorted({entry["span"] for entries in files.values() for entry in entries})
        left.update(spans=kept, span=max(kept, default=source["span"]))
    return left


def _by_split(data: Data) -> dict[str, list[str]]:
    patterns = data.input if isinstance(data.input, dict) else {ALL: data.input}
    return {split: [each] if isinstance(each, str) else list(each) for split, each in patterns.items()}


def _key(split: str) -> str:
    return "data.input" if split == ALL else f"data.input.{split}"


def _newest(by_split: spans.Patterns, data: Data) -> tuple[dict[int, Any], int]:
    """(the available spans by number, the newest span's number, or `data.span`)"""
    patterns = [each for several in by_split.values() for each in several]
    there = spans.available(by_split, storage.matching_files)
    newest = max(there, default=None) if data.span is None else data.span
    if newest is None or newest not in there:
        wanted = "no span" if data.span is None else f"no span {data.span}"
        whole = " and ".join(repr(each) for each in patterns)
        but = f"There are {spans.text(list(there))}." if there else _folder_content(patterns[0].split("{")[0])
        raise DataError(f"data.input: {wanted} for {whole}. {but}")
    return there, newest


def _of_spans(by_split: spans.Patterns, data: Data, live_spans: LiveSpans | None) -> dict[str, Any]:
    patterns = [each for several in by_split.values() for each in several]
    there, newest = _newest(by_split, data)
    since = None
    if data.window and data.window.since:
        if live_spans is None:
            raise DataError("data.window.since: live needs the push destination; give RankingExampleGen its source.")
        since = live_spans()
    chosen = spans.window(list(there), newest, data.window.spans if data.window else None, since)
    files: dict[str, list[dict[str, Any]]] = {split: [] for split in (ALL, *SPLIT_NAMES) if split in by_split}
    repeated, folder = [], spans.above(patterns)
    for split, entries in files.items():
        seen: set[str] = set()
        for number in chosen.spans:
            for entry in _matching(there[number].patterns[split], split, data):
                if entry["digest"] in seen:  # delivered twice: under another name, or as another span
                    repeated.append(entry["path"])
                    continue
                seen.add(entry["digest"])
                # Below a folder that does not depend on which spans are taken: names may be part of group ids.
                entries.append({**entry, "name": entry["path"][len(folder) :].lstrip("/"), "span": number})
    _refuse_empty([entry for entries in files.values() for entry in entries])
    source: dict[str, Any] = {"files": files, "span": newest, "version": there[newest].version}
    taken = sorted({entry["span"] for entries in files.values() for entry in entries})
    source |= {"spans": taken, "missing_spans": list(chosen.missing)}
    return {**source, "repeated": repeated} if repeated else source


def _refuse_empty(entries: Collection[dict[str, Any]]) -> None:
    if not any(entry["size"] for entry in entries):
        names = ", ".join(entry["path"] for entry in list(entries)[:3])
        raise DataError(f"data.input: every file that matches is empty ({names}); there is nothing to learn from.")


def names_below(paths: list[str]) -> list[str]:
    """Each path below the folder that all share.

    >>> names_below(["logs/may/1.csv", "logs/june/1.csv"])
    ['may/1.csv', 'june/1.csv']
    """
    # Not commonpath, which makes gs:/ of gs://; dirname cuts a half name off.
    folder = os.path.dirname(os.path.commonprefix(paths))  # noqa: RUF071
    return [path[len(folder) :].lstrip("/") for path in paths]


def digest(path: str) -> str:
    """blake2b of a file's bytes, 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    with storage.open_file(path) as opened:
        while block := opened.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _matching(patterns: list[str], split: str, data: Data) -> list[dict[str, Any]]:
    entries = []
    for path, side in matching(patterns, _key(split), data):
        entry = {"path": path, "size": storage.file_size(path), "digest": digest(path)}
        if side is not None:
            entry.update(side=side, side_digest=digest(side))
        entries.append(entry)
    return entries


def matching(patterns: list[str], key: str, data: Data) -> list[tuple[str, str | None]]:
    """The files of some patterns, sorted, each with its file of list sizes, if there are such files.

    key: the config's key, for the message.  Raises DataError when a pattern matches nothing.
    """
    paths: set[str] = set()
    for pattern in patterns:
        paths_of_pattern = storage.matching_files(pattern)
        if data.group_sizes:
            paths_of_pattern = [path for path in paths_of_pattern if not _unpacked(path).endswith(data.group_sizes)]
        if not paths_of_pattern:
            raise DataError(f"{key}: no file matches {pattern!r}. {_folder_content(pattern)}")
        paths.update(paths_of_pattern)
    suffix = data.group_sizes
    return [(path, _side_file(path, suffix) if suffix else None) for path in sorted(paths)]


def _side_file(path: str, suffix: str) -> str:
    candidates = [path + suffix, _unpacked(path) + suffix, _unpacked(path) + suffix + ".gz"]
    for candidate in candidates:
        if storage.matching_files(glob.escape(candidate)):
            return candidate
    tried = " nor ".join(dict.fromkeys(candidates))
    raise DataError(f"data.group_sizes: {path} has no file of list sizes beside it; there is neither {tried}.")


def _unpacked(path: str) -> str:
    return path[:-3] if path.endswith(".gz") else path


def _folder_content(pattern: str) -> str:
    folder = os.path.dirname(pattern) or "."
    if "://" in folder:
        return "Look at the bucket's content and correct the pattern."
    while glob.has_magic(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        return f"There is no folder {folder}."
    names = sorted(os.listdir(folder))
    shown = ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
    return f"The folder {folder} holds: {shown or 'nothing'}."
