"""Converts a file's columns to the config's types: text to numbers, numbers to text, lists to vectors.

Input: an Arrow column with the file's type.  Output: float32, int64 or binary (or lists of them), null where a value
is missing, and the rows whose value cannot be converted.  A whole column is cast at once; only if that fails, the
code looks for the bad rows.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import Column

Faults = dict[int, str]  # row → why its value is bad
MISSING_WORDS = pa.array(["", "NA", "N/A", "#N/A", "n/a", "NaN", "nan", "-nan", "-NaN", "NULL", "null", "None"])
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?|\.[0-9]+([eE][+-]?[0-9]+)?|(?i:inf|infinity|nan))\s*$"


def conform(name: str, array: pa.Array, column: Column) -> tuple[pa.Array, Faults]:
    """Converts a column to its type in the config: float32, int64 or binary, or lists of them; null where missing.

    Returns the column and the bad rows, each with the reason.

    >>> array, faults = conform("price", pa.array(["1.5", "", "cheap"]), Column("items", "float"))
    >>> array.to_pylist(), faults
    ([1.5, None, None], {2: "price: expected a number; got 'cheap'"})
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # older Arrow versions return an empty ChunkedArray
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
    nested = pa.types.is_list(array.type) or pa.types.is_large_list(array.type)
    if pa.types.is_null(array.type):
        inner = column.arrow
        return pa.nulls(len(array), pa.list_(inner) if column.tokens or column.width > 1 else inner), {}
    if column.tokens:
        return _tokens(name, array, nested)
    if column.width > 1:
        return _vectors(name, array, nested, column)
    faults: Faults = {}
    if nested:
        array, faults = _single(name, array)
    array, more = _scalars(name, array, column.dtype)
    return array, {**more, **faults}


def _single(name: str, array: pa.Array) -> tuple[pa.Array, Faults]:
    """Converts lists of at most one value to plain values; a longer list is a fault."""
    lengths = list_lengths(array)
    faults = {int(row): f"{name}: expected one value; got {lengths[row]}" for row in np.flatnonzero(lengths > 1)}
    values = array.flatten()
    if len(values) == len(array) and np.all(lengths == 1):
        return values, faults
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return values.take(pa.array(starts, mask=lengths == 0)), faults


def list_lengths(array: pa.Array) -> np.ndarray:
    """int64 [row]: the number of values in each row of a list column; 0 for a null."""
    lengths = pc.fill_null(pc.list_value_length(array), 0)
    return np.asarray(lengths, np.int64)


def _scalars(name: str, array: pa.Array, dtype: str) -> tuple[pa.Array, Faults]:
    kind = array.type
    text = pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind)
    text = text or pa.types.is_large_binary(kind)
    if dtype == "string":
        return _strings(array, text), {}
    faults: Faults = {}
    if text:
        array, faults = _numbers(name, array, dtype)
    elif not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"column {name!r}: expected numbers; the file has {kind}. Change its dtype in the config.")
    if dtype == "float":
        if array.type != pa.float32():
            array = (array.cast(pa.int8()) if pa.types.is_boolean(kind) else array).cast(pa.float32(), safe=False)
        if len(array):
            flat = array.to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(np.isinf(flat)):
                faults.setdefault(int(row), f"{name}: {flat[row]} is not a finite number")
        return array, faults
    if pa.types.is_floating(array.type):
        flat = array.to_numpy(zero_copy_only=False).astype(np.float64)
        nothing = np.isnan(flat)
        odd = ~nothing & ((flat != np.floor(flat)) | (np.abs(flat) >= 2.0**63))
        for row in np.flatnonzero(odd):
            faults[int(row)] = f"{name}: expected a whole number; got {flat[row]:g}"
        array = pa.array(np.where(nothing | odd, 0, flat).astype(np.int64), mask=nothing | odd)
    return array.cast(pa.int64()), faults


def _strings(array: pa.Array, text: bool) -> pa.Array:
    """Converts a column to binary; null where the text is empty."""
    if not text:
        array = array.cast(pa.string())
    array = array.cast(pa.binary())
    empty = pc.equal(pc.binary_length(array), 0)
    return pc.if_else(empty, pa.scalar(None, pa.binary()), array) if pc.any(empty).as_py() else array


def _numbers(name: str, array: pa.Array, dtype: str) -> tuple[pa.Array, Faults]:
    """Converts text to numbers; looks at single rows only if the whole column cannot be cast."""
    target = pa.float64() if dtype == "float" else pa.int64()
    try:
        array = array.cast(pa.string())
    except pa.ArrowInvalid:  # not UTF-8, so not a number; the regular expression below needs valid text
        array = pa.array([value.decode("utf-8", "backslashreplace") for value in array.to_pylist()], pa.string())
    try:
        return array.cast(target), {}
    except pa.ArrowInvalid:
        pass
    trimmed = pc.utf8_trim_whitespace(array)
    nothing = pc.is_in(trimmed, value_set=MISSING_WORDS)
    trimmed = pc.if_else(nothing, pa.scalar(None, pa.string()), trimmed)
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(trimmed, _NUMBER)), False)
    faults: Faults = {}
    if pc.any(odd).as_py():
        shown = array.filter(odd).to_pylist()
        faults = {
            int(row): f"{name}: expected a number; got {value!r}" for row, value in zip(np.flatnonzero(odd), shown)
        }
        trimmed = pc.if_else(odd, pa.scalar(None, pa.string()), trimmed)
    trimmed = pc.utf8_ltrim(trimmed, "+")  # Arrow cannot parse a leading plus
    try:
        return trimmed.cast(target), faults
    except pa.ArrowInvalid:  # whole numbers that are written as 3.0
        return trimmed.cast(pa.float64()), faults


def numbers(text: pa.Array) -> tuple[pa.Array, Faults]:
    """Converts text to float64; returns the column and the bad rows, as `conform` does."""
    return _numbers("", text, "float")


def _vectors(name: str, array: pa.Array, nested: bool, column: Column) -> tuple[pa.Array, Faults]:
    """Converts a column to lists of float32, all of the column's width; null where missing.

    A text cell is split at spaces and commas.
    """
    if not nested:
        if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
            raise DataError(f"column {name!r}: expected {column.width} numbers per value; the file has single numbers.")
        words = pc.replace_substring_regex(array.cast(pa.string()), r"[\[\](),;\s]+", " ")
        array = pc.split_pattern(pc.utf8_trim_whitespace(words), " ")
    lengths = list_lengths(array)
    values = array.flatten()
    if not nested:  # splitting an empty cell gives one empty word
        alone = np.flatnonzero(lengths == 1)
        at = np.cumsum(lengths)[alone] - 1
        empty = (
            np.asarray(pc.equal(pc.binary_length(values.take(pa.array(at))), 0)) if alone.size else np.zeros(0, bool)
        )
        keep = np.ones(len(values), bool)
        keep[at[empty]] = False
        lengths[alone[empty]] = 0
        values = values.filter(pa.array(keep))
    values, inner = _scalars(name, values, "float")
    faults: Faults = {}
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for at, reason in inner.items():
        faults.setdefault(int(owner[at]), reason)
    for row in np.flatnonzero((lengths != 0) & (lengths != column.width)):
        faults.setdefault(int(row), f"{name}: expected {column.width} numbers; got {lengths[row]}")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return _nullable_lists(offsets, values, lengths == 0), faults


def _tokens(name: str, array: pa.Array, nested: bool) -> tuple[pa.Array, Faults]:
    """Converts a column to lists of binary; a plain text is one token, an empty text no token."""
    if nested:
        lengths = list_lengths(array)
        values, _ = _scalars(name, array.flatten(), "string")
        values = pc.fill_null(values, b"")
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values), {}
    values, _ = _scalars(name, array, "string")
    lengths = np.asarray(values.is_valid(), np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values.drop_null()), {}


def _nullable_lists(offsets: np.ndarray, values: pa.Array, nulls: np.ndarray) -> pa.Array:
    if not nulls.any():
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    # A null offset makes its list null; the last offset only ends the last list.
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32(), mask=np.append(nulls, False)), values)


def times(name: str, array: pa.Array) -> tuple[pa.Array, Faults]:
    """Converts a time column to float64: numbers stay as they are; dates and ISO 8601 text become seconds since 1970.

    >>> times("day", pa.array(["1970-01-02", "soon"]))[0].to_pylist()
    [86400.0, nan]
    """
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    if pa.types.is_list(array.type):
        array, _ = _single(name, array)
    if pa.types.is_temporal(array.type):
        flat = array.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        seconds = flat.astype("datetime64[us]").astype(np.int64) / 1e6
        seconds = np.where(np.isnat(flat.astype("datetime64[us]")), np.nan, seconds)
    elif pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        seconds = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    else:
        seconds = _text_times(array.cast(pa.string()))
    lost = np.flatnonzero(~np.isfinite(seconds))
    faults: Faults = {}
    for row, value in zip(lost, array.take(pa.array(lost)).to_pylist()):
        shown = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        faults[int(row)] = f"{name}: expected a number or an ISO 8601 time to split by; got {shown!r}"
    return pa.array(seconds, from_pandas=False), faults


def _text_times(array: pa.Array) -> np.ndarray:
    import pandas as pd

    coded = array.dictionary_encode()  # all rows of a list have the same time, so each text is parsed once
    text = pd.Series(coded.dictionary.to_pylist(), dtype="object")
    seconds = pd.to_numeric(text, errors="coerce").to_numpy(np.float64, copy=True)
    for i in np.flatnonzero(np.isnan(seconds)):
        stamp = pd.to_datetime(text[i], utc=True, errors="coerce")
        seconds[i] = np.nan if pd.isna(stamp) else stamp.timestamp()
    indices = coded.indices
    rows: np.ndarray = np.append(seconds, np.nan)[np.asarray(pc.fill_null(indices, len(seconds)))]
    return rows
