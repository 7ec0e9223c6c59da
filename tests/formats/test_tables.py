"""CSV and Parquet: bad rows keep their numbers, absent columns and unreadable files are named."""

import pyarrow as pa
import pyarrow.parquet
import pytest
from format_files import bad, chunks, column, config

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.formats import column_types
from tfx_ranking.components.lists.list_examples import Column


def test_csv_bad_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('q,x,label\na,1,0\na,cheap,1\na,2\na,3,1,9\nb,+4e1,1\n"b\nc",,0\n')
    cfg = config("csv", items={"x": {}})
    actual = chunks(path, cfg)
    assert bad(actual) == [
        (4, "malformed row: expected 3 cells; got 2", 1),
        (5, "malformed row: expected 3 cells; got 4", 1),
    ]
    assert [chunk.positions.tolist() for chunk in actual] == [[2, 3, 6, 7]]
    assert sum(chunk.records for chunk in actual) == 6
    values, faults = column_types.conform("x", actual[0].columns["x"], Column("items", "float"))
    assert values.to_pylist() == [1.0, None, 40.0, None]
    assert faults == {1: "x: expected a number; got 'cheap'"}
    assert column(actual, "q") == [b"a", b"a", b"b", b"b\nc"]


def test_csv_blocks_are_cut_between_rows(tmp_path, monkeypatch):
    from tfx_ranking.components.formats import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    groups = [f"group {i}\nwith a newline" for i in range(40)]
    path.write_text("q,x,label\n" + "".join(f'"{group}",{i},1\n' for i, group in enumerate(groups)))
    actual = chunks(path, config("csv", items={"x": {}}))
    assert len(actual) > 10
    assert column(actual, "q") == [group.encode() for group in groups]
    assert column(actual, "x") == list(range(40))
    assert [p for chunk in actual for p in chunk.positions] == list(range(2, 42))


@pytest.mark.parametrize("size", [40, 100, 1000, 1 << 20])
def test_csv_bad_rows_after_many_good_blocks(tmp_path, monkeypatch, size):
    """Rows keep their numbers when the reader starts to read cells as text."""
    from tfx_ranking.components.formats import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", size)
    path = tmp_path / "t.csv"
    rows = [f'"g\n{i}",{i},1' for i in range(60)]
    for at, row in ((20, "short,1"), (30, "g,cheap,1"), (31, "long,1,1,1"), (50, "short"), (59, "short")):
        rows[at] = row
    path.write_text("q,x,label\n" + "\n".join(rows[:5]) + "\n\n" + "\n".join(rows[5:]) + "\n")
    actual = chunks(path, config("csv", items={"x": {}}))
    assert [(position, reason[:13]) for position, reason, _ in bad(actual)] == [
        (22, "malformed row"), (33, "malformed row"), (52, "malformed row"), (61, "malformed row")
    ]  # fmt: skip
    kept = [i for i in range(60) if i not in (20, 31, 50, 59)]
    assert [int(p) for chunk in actual for p in chunk.positions] == [i + 2 for i in kept]
    assert sum(chunk.records for chunk in actual) == 60
    x = Column("items", "float")
    numbers = [v for chunk in actual for v in column_types.conform("x", chunk.columns["x"], x)[0].to_pylist()]
    assert numbers == [None if i == 30 else float(i) for i in kept]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_an_absent_column_is_named(tmp_path, format):
    path = tmp_path / "t"
    table = pa.table({"q": ["a"], "price_eur": [1.0], "label": [1]})
    if format == "csv":
        path.write_text("q,price_eur,label\na,1.0,1\n")
    else:
        pyarrow.parquet.write_table(table, str(path))
    with pytest.raises(DataError, match=r"column 'price_eu' is not in the file; did you mean 'price_eur'\?"):
        chunks(path, config(format, items={"price_eu": {}}))


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"PAR1 no parquet")
    with pytest.raises(DataError, match="t: not a readable Parquet file"):
        chunks(path, config("parquet", items={"x": {}}))
    path.write_text("q,x,x,label\n")
    with pytest.raises(DataError, match="column 'x' twice"):
        chunks(path, config("csv", items={"x": {}}))
    path.write_text("")
    assert chunks(path, config("csv", items={"x": {}})) == []
