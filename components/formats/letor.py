"""LETOR / SVMlight text: `2 qid:10 1:0.03 2:0.66 # docid = GX008`, or without `qid` and list sizes in a side file.

Input: a text file.  Output: chunks of rows, feature n as column `f<n>`, an absent feature as 0.0.  Array operations on
the bytes split a chunk of lines into words, and one cast converts all words to numbers: a value costs a few
nanoseconds, and a word's index leads to its line when it is bad.
"""

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.formats import chunks, column_types

CHUNK_BYTES = 4 << 20
_NEWLINE, _COLON, _HASH, _SPACE = 10, 58, 35, 32


def read(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """Rows in the file's order.  Raises DataError when the side file's sizes do not add up to the rows."""
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
    """int64 [list]: one list size a line."""
    with chunks.open_file(path) as opened:
        words = opened.read().split()
    try:
        sizes = np.array([int(word) for word in words], np.int64)
    except ValueError as error:
        raise DataError(f"{path}: expected one list size a line; {error}.") from None
    if np.any(sizes < 1):
        raise DataError(f"{path}: line {int(np.flatnonzero(sizes < 1)[0]) + 1}: expected a list size of at least 1.")
    return sizes


def parse(
    text: bytes, columns: dict[int, str], request: chunks.FileRequest, *, first_line: int, qid: bool
) -> tuple[chunks.Chunk, int]:
    """The chunk in `text`, which ends with a newline, and how many lines it has.

    columns: feature id → column name.  qid: lines hold `qid:`; else the column `_order` counts the rows.
    `counts["_rows"]` is the number of rows, bad ones included; blank lines and bare comments are no rows.
    """
    data = request.data
    buffer = np.frombuffer(text, np.uint8).copy()
    line_ends = np.flatnonzero(buffer == _NEWLINE)
    code_ends = _blank_comments(buffer, line_ends)
    colon = buffer == _COLON
    outside = (buffer <= _SPACE) | colon
    edges = np.flatnonzero(np.diff(outside.view(np.int8), prepend=1))
    starts, ends = edges[::2], edges[1::2]  # the last byte is a newline, so every word ends
    last = np.searchsorted(starts, line_ends)
    words_in = np.diff(last, prepend=0)
    first_word = last - words_in
    present = np.flatnonzero(words_in)  # lines that are rows
    rows = len(present)
    lines = first_line + present
    reasons: dict[int, str] = {}  # row → why it is bad

    def refuse(at: np.ndarray, reason: str) -> None:
        for row in at:
            reasons.setdefault(int(row), reason)

    # Word 0 is the label; then `id` `:` `value` in turn, so a sound line has an odd number of words.
    count, first = words_in[present], first_word[present]
    colons = np.diff(np.searchsorted(np.flatnonzero(colon), line_ends[present], side="left"), prepend=0)
    row_of = np.repeat(np.arange(rows), count)
    place = np.arange(len(starts)) - np.repeat(first, count)
    key_expected = (place & 1).astype(bool)
    before = colon[starts - 1] if len(starts) and starts[0] > 0 else np.append(False, colon[starts[1:] - 1])
    wrong = colon[ends] != key_expected
    wrong |= before != (~key_expected & (place > 0))
    broken = np.zeros(rows, bool)
    broken[row_of[wrong]] = True
    broken |= (count % 2 == 0) | (colons != count // 2)
    refuse(np.flatnonzero(broken), "malformed line: expected `label qid:id feature:value …`")

    group: pa.Array | None = None
    if qid:
        second = np.where(count > 2, first + 1, first)
        at = starts[second]
        is_qid = (count > 2) & (ends[second] - at == 3)
        for offset, letter in enumerate(b"qid"):
            is_qid &= buffer[np.minimum(at + offset, len(buffer) - 1)] == letter
        refuse(np.flatnonzero(~is_qid & ~broken), f"{data.group_id}: the line has no qid")
        good = is_qid & ~broken
        values = np.where(good, second + 1, first)
        group = words(buffer, starts[values], np.where(good, ends[values], starts[values]))
    else:
        good = ~broken
    skip = 3 if qid else 1  # words before the first feature id
    if not good.all() or qid:
        keep = good[row_of] & ((place == 0) | (place >= skip))
        starts, ends, row_of, place = starts[keep], ends[keep], row_of[keep], place[keep]
    numbers, odd = _numbers(buffer, starts, ends)
    if odd.any():
        for word in np.flatnonzero(odd):
            shown = text[starts[word] : ends[word]].decode("utf-8", "replace")
            what = "label" if place[word] == 0 else "a feature id" if place[word] % 2 else "a value"
            reasons.setdefault(int(row_of[word]), f"malformed line: {what} is {shown!r}, expected a number")
        bad_rows = np.zeros(rows, bool)
        bad_rows[list(reasons)] = True
        keep = ~bad_rows[row_of]
        numbers, row_of, place = numbers[keep], row_of[keep], place[keep]
        good &= ~bad_rows
    label_at = place == 0
    is_id = (place & 1).astype(bool)
    ids, values = numbers[is_id], numbers[~is_id & ~label_at]
    feature_row = row_of[is_id]
    counts = {"_rows": rows}
    fractional = (ids != np.floor(ids)) | (ids < 0) | (ids > 1 << 30)
    if fractional.any():
        refuse(feature_row[fractional], "malformed line: a feature id is no whole number")
    key = feature_row * float(1 << 31) + ids
    if np.any(np.diff(key) <= 0):  # ids out of order somewhere: look for duplicates
        order = np.argsort(key, kind="stable")
        again = order[1:][np.diff(key[order]) == 0]
        if again.size and data.duplicates == "refuse":
            for at in again:
                reasons.setdefault(
                    int(feature_row[at]), f"feature id {int(ids[at])} stands twice (data.duplicates: refuse)"
                )
        counts["duplicates"] = int(again.size) if data.duplicates == "last" else 0

    matrix = _dense(ids, values, feature_row, rows, columns)
    label = np.full(rows, np.nan)
    label[row_of[label_at]] = numbers[label_at]
    refuse(np.flatnonzero(np.isinf(matrix).any(axis=0)), "a feature is infinite, expected finite numbers")

    bad = [chunks.Bad(int(lines[row]), reasons[row]) for row in sorted(reasons)]
    keep = np.ones(rows, bool)
    keep[list(reasons)] = False
    rows_kept = np.flatnonzero(keep)
    if bad:
        matrix = matrix[:, rows_kept]
    arrays = {name: pa.array(matrix[i]) for i, name in enumerate(columns.values())}
    arrays[data.label] = pa.array(label[rows_kept].astype(np.float32))
    if group is not None:
        arrays[data.group_id] = group.take(pa.array(rows_kept)) if bad else group
    else:
        arrays["_order"] = pa.array(rows_kept)
    if data.item_id:
        comment = words(buffer_of(text), code_ends[present][rows_kept], line_ends[present][rows_kept])
        arrays[data.item_id] = _from_comment(comment, data.item_id)
    chunk = chunks.Chunk(arrays, lines[rows_kept], rows, bad, counts)
    return chunk, len(line_ends)


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
    """A text's bytes as uint8, without a copy."""
    return np.frombuffer(text, np.uint8)


def _numbers(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float64 of each word, and which words are no numbers."""
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
    """Overwrites comments with spaces; returns where each line's code ends."""
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
    """float32 [column, row]; what a line does not hold is 0, of what it holds twice the last counts."""
    matrix = np.zeros((len(columns), rows), np.float32)
    if not ids.size:
        return matrix
    width = len(ids) // rows if rows else 0
    wanted = np.array(list(columns), np.int64)
    if width and len(ids) == width * rows:
        block = ids.reshape(rows, width)
        if np.array_equal(feature_row[::width], np.arange(rows)) and np.all(block == block[0]):
            where = {int(each): i for i, each in enumerate(block[0])}  # the last of two wins
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
    """The word after `key =` or `key:` in each comment; null where there is none."""
    text = pa.array([value.decode("utf-8", "replace") for value in comment.to_pylist()], pa.string())
    matches = pc.extract_regex(text, rf"(?:^|[#\s]){re.escape(key)}\s*[=:]?\s*(?P<id>\S+)")
    return pc.struct_field(matches, [0]).cast(pa.binary())


def _feature_ids(request: chunks.FileRequest) -> dict[int, str]:
    """Feature id → column name, of every feature that the config names."""
    data = request.data
    ids = {}
    for name in (*request.table, *([request.time] if request.time else [])):
        if name in (data.group_id, data.label, data.item_id):
            continue
        match = re.fullmatch(r"f(\d+)", name)
        if not match:
            raise ConfigError(f"{name}: format letor has numbered features; feature n is called f<n>, e.g. f1.")
        ids[int(match[1])] = name
    return ids


def _sizes_differ(request: chunks.FileRequest, expected: int, received: str) -> str:
    return (
        f"{request.side}: the list sizes add up to {expected} rows, but {request.path} has {received}. "
        "The two files do not belong together, or one of them is cut short."
    )
