"""What the input is right now: the files behind `data.input`, with their digests, span and version.

Enters: the config's data section.  Leaves: plain values that go into the execution's properties, so that one changed
byte or one more file runs the ingestion again, and nothing else does.
"""

import glob
import hashlib
import json
import os
import re
from collections.abc import Callable
from typing import Any

from tfx_ranking.components.config import SPLIT_NAMES, Data
from tfx_ranking.components.errors import DataError

ALL = "all"  # the key of files that belong to no split yet
_SPAN = re.compile(r"\{(SPAN|VERSION|YYYY|MM|DD)(:\d+)?\}")


def resolve(data: Data) -> dict[str, str]:
    """The input's files as texts, so that TFX takes them for a parameter: `files` is the JSON of
    `{split or "all": [{path, name, size, digest, side, side_digest}]}`, `span` a number, `version` one or "".

    Files are sorted by path; `name` is the path below the folder they all share.  Raises DataError when a pattern
    matches nothing or every file is empty.
    """
    patterns = data.input if isinstance(data.input, dict) else {ALL: data.input}
    by_split = {split: [each] if isinstance(each, str) else list(each) for split, each in patterns.items()}
    span, version = 0, None
    if any(_SPAN.search(each) for split in by_split.values() for each in split):
        by_split, span, version = _resolve_span(by_split, data.span)
    files = {split: _matching(by_split[split], split, data) for split in (ALL, *SPLIT_NAMES) if split in by_split}
    entries = [entry for split in files.values() for entry in split]
    if not any(entry["size"] for entry in entries):
        names = ", ".join(entry["path"] for entry in entries[:3])
        raise DataError(f"data.input: every file that matches is empty ({names}); there is nothing to learn from.")
    for entry, name in zip(entries, names_below([entry["path"] for entry in entries])):
        entry["name"] = name
    return {"files": json.dumps(files), "span": str(span), "version": "" if version is None else str(version)}


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
    with _filesystem(path)[1](path) as opened:
        while block := opened.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def _matching(patterns: list[str], split: str, data: Data) -> list[dict[str, Any]]:
    entries = []
    for path, side in matching(patterns, "data.input" if split == ALL else f"data.input.{split}", data):
        entry = {"path": path, "size": _filesystem(path)[2](path), "digest": digest(path)}
        if side is not None:
            entry.update(side=side, side_digest=digest(side))
        entries.append(entry)
    return entries


def matching(patterns: list[str], said: str, data: Data) -> list[tuple[str, str | None]]:
    """The files of some patterns, sorted, each with its file of list sizes, if there are such files.

    said: who asks, for the message.  Raises DataError when a pattern matches nothing.
    """
    paths: set[str] = set()
    for pattern in patterns:
        list_files = _filesystem(pattern)[0]
        found = [path for path in list_files(pattern) if not os.path.isdir(path)]
        if data.group_sizes:
            found = [path for path in found if not _unpacked(path).endswith(data.group_sizes)]
        if not found:
            raise DataError(f"{said}: no file matches {pattern!r}. {_folder_content(pattern)}")
        paths.update(found)
    suffix = data.group_sizes
    return [(path, _side_file(path, suffix, _filesystem(path)[0]) if suffix else None) for path in sorted(paths)]


def _side_file(path: str, suffix: str, list_files: Callable[[str], list[str]]) -> str:
    candidates = [path + suffix, _unpacked(path) + suffix, _unpacked(path) + suffix + ".gz"]
    for candidate in candidates:
        if list_files(glob.escape(candidate)):
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


def _filesystem(path: str) -> tuple[Callable[[str], list[str]], Callable[[str], Any], Callable[[str], int]]:
    """List, open and size; TFX's file systems only where the path names one, since importing TFX takes seconds."""
    if "://" not in path:
        return (lambda pattern: glob.glob(pattern, recursive=True)), (lambda each: open(each, "rb")), os.path.getsize
    import tensorflow as tf
    from tfx.dsl.io import fileio

    return fileio.glob, (lambda each: fileio.open(each, "rb")), (lambda each: int(tf.io.gfile.stat(each).length))


def _resolve_span(by_split: dict[str, list[str]], span: int | None) -> tuple[dict[str, list[str]], int, int | None]:
    """The patterns with {SPAN}, {VERSION} and the date marks filled in, as TFX's own ExampleGen does it."""
    from tfx.components.example_gen import utils
    from tfx.proto import example_gen_pb2, range_config_pb2

    splits = []
    for split, patterns in by_split.items():
        for i, pattern in enumerate(patterns):
            if not _SPAN.search(pattern):
                raise DataError(
                    f"data.input: {pattern!r} has no {{SPAN}}, but other patterns have; all take part or none."
                )
            splits.append(example_gen_pb2.Input.Split(name=f"{split}/{i}", pattern=pattern))
    chosen = None
    if span is not None:
        chosen = range_config_pb2.RangeConfig(
            static_range=range_config_pb2.StaticRange(start_span_number=span, end_span_number=span)
        )
    try:
        _, found, version = utils.calculate_splits_fingerprint_span_and_version("", splits, chosen)
    except ValueError as error:
        pattern = splits[0].pattern
        raise DataError(
            f"data.input: no span for {pattern!r}: {error}. {_folder_content(pattern.split('{')[0])}"
        ) from None
    filled: dict[str, list[str]] = {split: [] for split in by_split}
    for each in splits:
        filled[each.name.split("/")[0]].append(each.pattern)
    return filled, int(found), None if version is None else int(version)
