"""Every format can hold the same lists, and all readers return the same chunks.

Of: components/formats/chunks.py and the readers of choices/formats.py.
"""

import pytest
from format_files import CONTEXT, ITEMS, ROWS, bad, chunks, column, config, write

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.formats import chunks as file_chunks
from tfx_ranking.components.lists.list_examples import columns


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("format", ["csv", "parquet", "tf_example", "elwc", "sequence_example"])
def test_every_format_reads_the_same_rows(tmp_path, format, packed):
    from tfx_ranking.components.ingestion import grouping

    path = tmp_path / "rows"  # no suffix: gzip shows from the bytes
    write(path, format, packed)
    items = {name: ITEMS[name] for name in ITEMS if not (format == "csv" and name == "tags")}
    cfg = config(format, items=items, context=CONTEXT)
    request = file_chunks.FileRequest(str(path), "rows", cfg.data, columns(cfg))
    actual = [grouping.check(chunk, request) for chunk in chunks(path, cfg)]
    for name in items:
        expected = [row[name] for row in ROWS]
        if name == "tags":
            expected = [[tag.encode() for tag in tags] for tags in expected]
        assert str(column(actual, name)) == str(expected)  # as text, where NaN equals NaN
    assert column(actual, "label") == [1.0, 0.0, 2.0]
    by_list = FORMATS[format].lists
    assert column(actual, "q") == ([b"a", b"b"] if by_list else [b"a", b"a", b"b"])
    assert column(actual, "country") == ([b"NL", None] if by_list else [b"NL", b"NL", None])
    if by_list:
        assert [chunk.row_splits.tolist() for chunk in actual] == [[0, 2, 3]]
    assert sum(chunk.records for chunk in actual) == 3
    assert not bad(actual)
