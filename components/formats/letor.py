"""Reads LETOR (SVMlight) text, for example `2 qid:10 1:0.03 2:0.66 # docid = GX008`.

Input: a text file; lines without `qid` need a second file with the list sizes.  Output: chunks of rows; feature n is
column `f<n>`, and an absent feature is 0.0.  Array operations on the bytes split many lines into words at once, and one
cast converts all words to numbers, so a value takes a few nanoseconds.  The index of a bad word leads to its line.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.formats import chunks, column_types

CHUNK_BYTES = 4 << 20
_NEWLINE, _COLON, _HASH, _SPACE = 10, 58, 35, 32


def read(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The rows in the file's order.  Raises DataError when the sum of the list sizes is not the number of rows."""
    columns = _feature_ids(request)
    sizes = read_sizes(request.side) if request.side else None
    ends = np.cumsum(sizes) if sizes is not None else None
    line, row = 1, 0
    with chunks.open_file(request.path) as opened:
        for text in chunks.whole_lines(opened, CHUNK_BYTES):
            chunk, lines = parse(text, columns, request, first_line=line, qid=sizes is None)
            at = row + chunk.counts.pop("_rows")
            if ends is not None:
                order = chunk.columns.pop("_order").to_numpy() + row
                lists = np.searchsorted(ends, order, side="right")
                total = ends[-1] if len(ends) else 0
                if at > total:
                    raise DataError(_sizes_differ(request, int(total), f"more than {total}"))
                numbers = pa.array(lists + 1).cast(pa.string())
                group = pc.binary_join_element_wise(request.name, numbers, ":")
                chunk.columns[request.data.group_id] = group.cast(pa.binary())
            line, row = line + lines, at
            yield chunk
    if ends is not None and row != (ends[-1] if len(ends) else 0):
        raise DataError(_sizes_differ(request, int(ends[-1]) if len(ends) else 0, str(row)))


def read_sizes(path: str) -> np.ndarray:
    """int64 [list]: the list sizes in a file that has one per line."""
    with chunks.open_file(path) as opened:
        words = opened.read().split()
    try:
        sizes = np.array([int(word) for word in words], np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected one list size per line; {error}.") from None
    if np.any(sizes < 1):
        raise DataError(f"{path}: line {int(np.flatnonzero(sizes < 1)[0]) + 1}: expected a list size of at least 1.")
    return sizes


def parse(
    text: bytes, columns: dict[int, str], request: chunks.FileRequest, *, first_line: int, qid: bool
) -> tuple[chunks.Chunk, int]:
    """The chunk of a text that ends with a newline, and the text's number of lines.

    columns: feature id → column name.  qid: whether lines have `qid:`; without it, column `_order` numbers the rows.
    `counts["_rows"]` is the number of rows, bad ones included; blank lines and bare comments are not rows.
    """
    rows = _split(text, first_line)
    reasons: dict[int, str] = {}  # row → why it is bad
    good = _check_shape(rows, reasons)
    group = _group_ids(rows, good, reasons, request.data.group_id) if qid else None
    words_kept = rows.words
    skip = 3 if qid else 1  # words before the first feature id
    if not good.all() or qid:
        position = words_kept.position
        words_kept = words_kept.select(good[words_kept.row] & ((position == 0) | (position >= skip)))
    words_kept, numbers = _to_numbers(text, rows, words_kept, reasons)
    label, matrix, duplicates = _columns(rows, words_kept, numbers, columns, request, reasons)

    bad = [chunks.BadRecord(int(rows.lines[row]), reasons[row]) for row in sorted(reasons)]
    keep = np.ones(rows.number, bool)
    keep[list(reasons)] = False
    kept = np.flatnonzero(keep)
    if bad:
        matrix = matrix[:, kept]
    arrays = {name: pa.array(matrix[i]) for i, name in enumerate(columns.values())}
    arrays[request.data.label] = pa.array(label[kept].astype(np.float32))
    if group is not None:
        arrays[request.data.group_id] = group.take(pa.array(kept)) if bad else group
    else:
        arrays["_order"] = pa.array(kept)
    if request.data.item_id:
        comments = words(buffer_of(text), rows.code_ends[kept], rows.line_ends[kept])
        arrays[request.data.item_id] = _from_comment(comments, request.data.item_id)
    counts = {"_rows": rows.number, **duplicates}
    return chunks.Chunk(arrays, rows.lines[kept], rows.number, bad, counts), rows.text_lines


class _Words(NamedTuple):
    """The words of all rows, in order; all arrays are [word]."""

    starts: np.ndarray  # byte offsets in the buffer
    ends: np.ndarray
    row: np.ndarray
    position: np.ndarray  # within the row: 0 is the label, then a feature id and its value in turn

    def select(self, keep: np.ndarray) -> "_Words":
        return _Words(*(values[keep] for values in self))


class _Rows(NamedTuple):
    """The rows of a text: the lines that have words outside of comments; arrays are [row] unless noted."""

    buffer: np.ndarray  # uint8 [byte], comments replaced by spaces
    words: _Words
    colon: np.ndarray  # bool [byte]
    length: np.ndarray  # words of the row
    first: np.ndarray  # index in `words` of the row's first word
    lines: np.ndarray  # number of the row's line in the file
    line_ends: np.ndarray  # byte offset of the newline
    code_ends: np.ndarray  # byte offset where the comment begins, else the newline
    text_lines: int  # all lines of the text, also those that are not rows

    @property
    def number(self) -> int:
        return len(self.lines)


def _split(text: bytes, first_line: int) -> _Rows:
    """Splits a text into words at white space and colons."""
    buffer = np.frombuffer(text, np.uint8).copy()
    line_ends = np.flatnonzero(buffer == _NEWLINE)
    code_ends = _blank_comments(buffer, line_ends)
    colon = buffer == _COLON
    between_words = (buffer <= _SPACE) | colon
    edges = np.flatnonzero(np.diff(between_words.view(np.int8), prepend=1))
    starts, ends = edges[::2], edges[1::2]  # the last byte is a newline, so every word ends
    last = np.searchsorted(starts, line_ends)
    words_in = np.diff(last, prepend=0)
    present = np.flatnonzero(words_in)  # lines that are rows
    length, first = words_in[present], (last - words_in)[present]
    row = np.repeat(np.arange(len(present)), length)
    position = np.arange(len(starts)) - np.repeat(first, length)
    return _Rows(
        buffer=buffer,
        words=_Words(starts, ends, row, position),
        colon=colon,
        length=length,
        first=first,
        lines=first_line + present,
        line_ends=line_ends[present],
        code_ends=code_ends[present],
        text_lines=len(line_ends),
    )


def _refuse(rows: np.ndarray, reason: str, reasons: dict[int, str]) -> None:
    """Records a reason for each row that has none yet."""
    for row in rows:
        reasons.setdefault(int(row), reason)


def _check_shape(rows: _Rows, reasons: dict[int, str]) -> np.ndarray:
    """bool [row]: whether the row is a label and then `id:value` pairs, which makes an odd number of words."""
    words_of, colon = rows.words, rows.colon
    starts, ends, position = words_of.starts, words_of.ends, words_of.position
    colons = np.diff(np.searchsorted(np.flatnonzero(colon), rows.line_ends, side="left"), prepend=0)
    key_expected = (position & 1).astype(bool)
    before = colon[starts - 1] if len(starts) and starts[0] > 0 else np.append(False, colon[starts[1:] - 1])
    wrong = colon[ends] != key_expected
    wrong |= before != (~key_expected & (position > 0))
    broken = np.zeros(rows.number, bool)
    broken[words_of.row[wrong]] = True
    broken |= (rows.length % 2 == 0) | (colons != rows.length // 2)
    _refuse(np.flatnonzero(broken), "malformed line: expected `label qid:id feature:value …`", reasons)
    return ~broken


def _group_ids(rows: _Rows, good: np.ndarray, reasons: dict[int, str], column: str) -> pa.Array:
    """The text after `qid:`, binary [row].  Rows without it get a reason and become False in `good`."""
    starts, ends = rows.words.starts, rows.words.ends
    second = np.where(rows.length > 2, rows.first + 1, rows.first)
    at = starts[second]
    is_qid = (rows.length > 2) & (ends[second] - at == 3)
    for offset, letter in enumerate(b"qid"):
        is_qid &= rows.buffer[np.minimum(at + offset, len(rows.buffer) - 1)] == letter
    _refuse(np.flatnonzero(~is_qid & good), f"{column}: the line has no qid", reasons)
    good &= is_qid
    values = np.where(good, second + 1, rows.first)
    return words(rows.buffer, starts[values], np.where(good, ends[values], starts[values]))


def _to_numbers(text: bytes, rows: _Rows, kept: _Words, reasons: dict[int, str]) -> tuple[_Words, np.ndarray]:
    """The words of good rows, and float64 [word] their numbers.  A row with a word that is not a number is bad."""
    numbers, odd = _numbers(rows.buffer, kept.starts, kept.ends)
    if not odd.any():
        return kept, numbers
    for word in np.flatnonzero(odd):
        shown = text[kept.starts[word] : kept.ends[word]].decode("utf-8", "replace")
        what = "label" if kept.position[word] == 0 else "a feature id" if kept.position[word] % 2 else "a value"
        reasons.setdefault(int(kept.row[word]), f"malformed line: {what} is {shown!r}, expected a number")
    bad_rows = np.zeros(rows.number, bool)
    bad_rows[list(reasons)] = True
    sound = ~bad_rows[kept.row]
    return kept.select(sound), numbers[sound]


def _columns(
    rows: _Rows,
    kept: _Words,
    numbers: np.ndarray,
    columns: dict[int, str],
    request: chunks.FileRequest,
    reasons: dict[int, str],
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Labels float64 [row], features float32 [column, row], and `{"duplicates": count}` where ids are not in order."""
    is_label, is_id = kept.position == 0, (kept.position & 1).astype(bool)
    ids, values, id_rows = numbers[is_id], numbers[~is_id & ~is_label], kept.row[is_id]
    fractional = (ids != np.floor(ids)) | (ids < 0) | (ids > 1 << 30)
    if fractional.any():
        _refuse(id_rows[fractional], "malformed line: expected feature ids that are whole numbers from 0", reasons)
    duplicates = {}
    key = id_rows * float(1 << 31) + ids
    if np.any(np.diff(key) <= 0):  # ids out of order somewhere: look for duplicates
        order = np.argsort(key, kind="stable")
        again = order[1:][np.diff(key[order]) == 0]
        if request.data.duplicates == "refuse":
            for at in again:
                reason = f"feature id {int(ids[at])} appears twice (data.duplicates: refuse)"
                reasons.setdefault(int(id_rows[at]), reason)
        duplicates["duplicates"] = int(again.size) if request.data.duplicates == "last" else 0
    matrix = _dense(ids, values, id_rows, rows.number, columns)
    _refuse(np.flatnonzero(np.isinf(matrix).any(axis=0)), "a feature is infinite, expected finite numbers", reasons)
    label = np.full(rows.number, np.nan)
    label[kept.row[is_label]] = numbers[is_label]
    return label, matrix, duplicates


def words(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> pa.Array:
    """The byte ranges [start, end) of a buffer as one binary array.

    >>> words(np.frombuffer(b"one two", np.uint8), np.array([4, 0]), np.array([7, 3])).to_pylist()
    [b'two', b'one']
    """
    lengths = ends - starts
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    at = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return pa.Array.from_buffers(
        pa.binary(), len(starts), [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(buffer[at])]
    )


def buffer_of(text: bytes) -> np.ndarray:
    """A text's bytes as an array of uint8, without a copy."""
    return np.frombuffer(text, np.uint8)


def _numbers(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 [word], and bool [word]: whether a word is not a number."""
    text = words(buffer, starts, ends).view(pa.string())
    try:
        return text.cast(pa.float64()).to_numpy(), np.zeros(len(starts), bool)
    except pa.ArrowInvalid:
        pass
    array, faults = column_types.numbers(text)
    odd = np.zeros(len(starts), bool)
    odd[list(faults)] = True
    return array.to_numpy(zero_copy_only=False).astype(np.float64), odd


def _blank_comments(buffer: np.ndarray, line_ends: np.ndarray) -> np.ndarray:
    """Overwrites comments with spaces; int64 [line]: the byte offset where the line's comment begins, or its end."""
    hashes = np.flatnonzero(buffer == _HASH)
    if not hashes.size:
        return line_ends
    line = np.searchsorted(line_ends, hashes)
    line, at = np.unique(line, return_index=True)
    code_ends = line_ends.copy()
    code_ends[line] = hashes[at]
    lengths = line_ends[line] - hashes[at]
    offsets = np.cumsum(lengths) - lengths
    buffer[np.repeat(hashes[at] - offsets, lengths) + np.arange(int(lengths.sum()))] = _SPACE
    return code_ends


def _dense(
    ids: np.ndarray, values: np.ndarray, feature_row: np.ndarray, rows: int, columns: dict[int, str]
) -> np.ndarray:
    """float32 [column, row]: 0 for an absent feature; the last value of a feature that appears twice."""
    matrix = np.zeros((len(columns), rows), np.float32)
    if not ids.size:
        return matrix
    width = len(ids) // rows if rows else 0
    wanted = np.array(list(columns), np.int64)
    if width and len(ids) == width * rows:
        block = ids.reshape(rows, width)
        if np.array_equal(feature_row[::width], np.arange(rows)) and np.all(block == block[0]):
            where = {int(each): i for i, each in enumerate(block[0])}  # the last of two equal ids counts
            table = values.reshape(rows, width)
            for i, each in enumerate(wanted):
                if int(each) in where:
                    matrix[i] = table[:, where[int(each)]]
            return matrix
    lookup = np.full(int(max(ids.max(), wanted.max(initial=0))) + 2, -1, np.int64)
    lookup[wanted] = np.arange(len(wanted))
    column = lookup[ids.astype(np.int64)]
    known = column >= 0
    matrix[column[known], feature_row[known]] = values[known]  # NumPy keeps the last of equal indices
    return matrix


def _from_comment(comment: pa.Array, key: str) -> pa.Array:
    """The word after `key =` or `key:` in each comment; null where the comment has no such key."""
    text = pa.array([value.decode("utf-8", "replace") for value in comment.to_pylist()], pa.string())
    matches = pc.extract_regex(text, rf"(?:^|[#\s]){re.escape(key)}\s*[=:]?\s*(?P<id>\S+)")
    return pc.struct_field(matches, [0]).cast(pa.binary())


def _feature_ids(request: chunks.FileRequest) -> dict[int, str]:
    """Feature id → column name, for every feature in the config."""
    data = request.data
    ids = {}
    for name in (*request.table, *([request.time] if request.time else [])):
        if name in (data.group_id, data.label, data.item_id):
            continue
        match = re.fullmatch(r"f(\d+)", name)
        if not match:
            raise ConfigError(f"{name}: format letor has numbered features; feature n is named f<n>, for example f1.")
        ids[int(match[1])] = name
    return ids


def _sizes_differ(request: chunks.FileRequest, expected: int, received: str) -> str:
    return (
        f"{request.side}: the list sizes add up to {expected} rows, but {request.path} has {received}. "
        "The two files do not belong together, or one of them is incomplete."
    )
