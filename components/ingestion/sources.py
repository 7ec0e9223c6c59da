"""Lists the files that `data.input` matches now, with their digests, span and version.

Input: the config's `data` section.  Output: plain values, which become properties of the execution.  So the ingestion
runs again when a byte changes or a file is new, and only then.
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
ALL = "all"  # the key of files that the config does not list under a split


def resolve(data: Data, live_spans: LiveSpans | None = None) -> dict[str, Any]:
    """The input's files, as a dict with these keys:

    files: `{split or "all": [{path, name, size, digest, side, side_digest, span}]}`, sorted by span and path; `name` is
    the path below the folder that contains all files.  span: the newest span's number.  version: its version, or None.
    An input with spans also has these lists: spans; missing_spans, the numbers in the window without files; and, if it
    is not empty, repeated, the paths of files that are not read because an earlier file has the same bytes.

    live_spans: returns the spans that the live model was trained on, for `data.window.since: live`.
    Raises DataError when a pattern matches nothing, or when every file is empty.
    """
    by_split = _by_split(data)
    if any(spans.has_marks(each) for split in by_split.values() for each in split):
        return _resolve_spans(by_split, data, live_spans)
    files = {split: _entries_of(by_split[split], split, data) for split in (ALL, *SPLIT_NAMES) if split in by_split}
    entries = [entry for split in files.values() for entry in split]
    _refuse_empty(entries)
    for entry, name in zip(entries, names_below([entry["path"] for entry in entries])):
        entry["name"] = name
    return {"files": files, "span": 0, "version": None}


def check_patterns(data: Data) -> None:
    """Raises DataError, as `resolve` does, when a local pattern matches nothing.  Reads no file and no object store."""
    by_split = _by_split(data)
    patterns = [each for split in by_split.values() for each in split]
    if any("://" in each for each in patterns):
        return
    if any(map(spans.has_marks, patterns)):
        _newest(by_split, data)
        return
    for split, of_split in by_split.items():
        files_matching(of_split, _config_key(split), data)


def keep_files(source: dict[str, Any], keep: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The source with only the files for which `keep` returns True, and the spans of these files."""
    files = {split: [each for each in entries if keep(each)] for split, entries in source["files"].items()}
    left = {**source, "files": {split: entries for split, entries in files.items() if entries}}
    if "spans" in source:
        kept = sorted({entry["span"] for entries in files.values() for entry in entries})
        left.update(spans=kept, span=max(kept, default=source["span"]))
    return left


def _by_split(data: Data) -> dict[str, list[str]]:
    patterns = data.input if isinstance(data.input, dict) else {ALL: data.input}
    return {split: [each] if isinstance(each, str) else list(each) for split, each in patterns.items()}


def _config_key(split: str) -> str:
    return "data.input" if split == ALL else f"data.input.{split}"


def _newest(by_split: spans.Patterns, data: Data) -> tuple[dict[int, Any], int]:
    """The available spans by number, and the number of the newest one, or `data.span`."""
    patterns = [each for several in by_split.values() for each in several]
    spans_by_number = spans.available(by_split, storage.matching_files)
    newest = max(spans_by_number, default=None) if data.span is None else data.span
    if newest is None or newest not in spans_by_number:
        wanted = "no span" if data.span is None else f"no span {data.span}"
        whole = " and ".join(repr(each) for each in patterns)
        if spans_by_number:
            content = f"The spans are {spans.text(list(spans_by_number))}."
        else:
            content = _folder_content(patterns[0].split("{")[0])
        raise DataError(f"data.input: {wanted} for {whole}. {content}")
    return spans_by_number, newest


def _resolve_spans(by_split: spans.Patterns, data: Data, live_spans: LiveSpans | None) -> dict[str, Any]:
    patterns = [each for several in by_split.values() for each in several]
    spans_by_number, newest = _newest(by_split, data)
    since = None
    if data.window and data.window.since:
        if live_spans is None:
            raise DataError(
                "data.window.since: live needs the push destination. Pass RankingExampleGen a `source` from "
                "`example_gen.resolve(data, base)`."
            )
        since = live_spans()
    chosen = spans.window(list(spans_by_number), newest, data.window.spans if data.window else None, since)
    files: dict[str, list[dict[str, Any]]] = {split: [] for split in (ALL, *SPLIT_NAMES) if split in by_split}
    repeated, folder = [], spans.common_folder(patterns)
    for split, entries in files.items():
        seen: set[str] = set()
        for number in chosen.spans:
            for entry in _entries_of(spans_by_number[number].patterns[split], split, data):
                if entry["digest"] in seen:  # the same bytes under another name, or in another span
                    repeated.append(entry["path"])
                    continue
                seen.add(entry["digest"])
                # The folder does not depend on the window, because names may be part of group ids.
                entries.append({**entry, "name": entry["path"][len(folder) :].lstrip("/"), "span": number})
    _refuse_empty([entry for entries in files.values() for entry in entries])
    source: dict[str, Any] = {"files": files, "span": newest, "version": spans_by_number[newest].version}
    taken = sorted({entry["span"] for entries in files.values() for entry in entries})
    source |= {"spans": taken, "missing_spans": list(chosen.missing)}
    return {**source, "repeated": repeated} if repeated else source


def _refuse_empty(entries: Collection[dict[str, Any]]) -> None:
    if not any(entry["size"] for entry in entries):
        names = ", ".join(entry["path"] for entry in list(entries)[:3])
        raise DataError(f"data.input: every file that matches is empty ({names}); there is nothing to learn from.")


def names_below(paths: list[str]) -> list[str]:
    """Each path, relative to the folder that contains all of them.

    >>> names_below(["logs/may/1.csv", "logs/june/1.csv"])
    ['may/1.csv', 'june/1.csv']
    """
    # Not commonpath, which changes gs:// to gs:/.  dirname removes a part of a name at the end.
    folder = os.path.dirname(os.path.commonprefix(paths))  # noqa: RUF071
    return [path[len(folder) :].lstrip("/") for path in paths]


def digest(path: str) -> str:
    """blake2b of a file's bytes, 32 hex digits."""
    state = hashlib.blake2b(digest_size=16)
    with storage.open_file(path) as opened:
        while block := opened.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _entries_of(patterns: list[str], split: str, data: Data) -> list[dict[str, Any]]:
    entries = []
    for path, side in files_matching(patterns, _config_key(split), data):
        entry = {"path": path, "size": storage.file_size(path), "digest": digest(path)}
        if side is not None:
            entry.update(side=side, side_digest=digest(side))
        entries.append(entry)
    return entries


def files_matching(patterns: list[str], key: str, data: Data) -> list[tuple[str, str | None]]:
    """The files that match some patterns, sorted, each with its file of list sizes, or None without such files.

    key: the config's key, for error messages.  Raises DataError when a pattern matches nothing.
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
    tried = ", ".join(dict.fromkeys(candidates))
    raise DataError(f"data.group_sizes: {path} has no file of list sizes beside it; looked for {tried}.")


def _unpacked(path: str) -> str:
    return path[:-3] if path.endswith(".gz") else path


def _folder_content(pattern: str) -> str:
    folder = os.path.dirname(pattern) or "."
    if "://" in folder:
        return "List the bucket's content, and correct the pattern."
    while glob.has_magic(folder):
        folder = os.path.dirname(folder) or "."
    if not os.path.isdir(folder):
        return f"The folder {folder} does not exist."
    names = sorted(os.listdir(folder))
    shown = ", ".join(names[:10]) + (f", … ({len(names)} in all)" if len(names) > 10 else "")
    return f"The folder {folder} contains: {shown or 'nothing'}."
