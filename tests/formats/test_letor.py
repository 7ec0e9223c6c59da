"""LETOR text: words, comments, bad lines, duplicate features and the file of list sizes."""

import numpy as np
import pytest
from format_files import bad, chunks, column, config
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.formats import letor

LETOR = b"""# comments and blank lines are not rows

2 qid:10 3:0.5 1:1.5 # docid = D1
0 qid:10 1:2 1:4 # docid = D2
x qid:10 1:2
1 1:2
1 qid:10 1:2:3
1 qid:10 1: 2
1 qid:10 1:inf
1 qid:10 2:two
1 qid:10 -1:2
1\tqid:q-7   2:1e-1\r
1 qid:10 1
3 qid:10
"""


def test_letor(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(LETOR)
    actual = chunks(path, config("letor", items={"f[1-3]": {}}, item_id="docid"))
    assert column(actual, "q") == [b"10", b"10", b"q-7", b"10"]
    assert column(actual, "label") == [2, 0, 1, 3]
    assert column(actual, "f1") == [1.5, 4, 0, 0]  # 1:2 1:4, the last one wins
    assert column(actual, "f2") == np.float32([0, 0, 0.1, 0]).tolist()
    assert column(actual, "f3") == [0.5, 0, 0, 0]
    assert column(actual, "docid") == [b"D1", b"D2", None, None]
    shape = "malformed line: expected `label qid:id feature:value …`"
    assert bad(actual) == [
        (5, "malformed line: label is 'x', expected a number", 1),
        (6, "q: the line has no qid", 1),
        (7, shape, 1),
        (8, shape, 1),
        (9, "a feature is infinite, expected finite numbers", 1),
        (10, "malformed line: a value is 'two', expected a number", 1),
        (11, "malformed line: expected feature ids that are whole numbers from 0", 1),
        (13, shape, 1),
    ]
    assert np.concatenate([chunk.positions for chunk in actual]).tolist() == [3, 4, 12, 14]
    assert sum(chunk.counts["duplicates"] for chunk in actual) == 1
    assert sum(chunk.records for chunk in actual) == 12


def test_letor_duplicates_refused(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(LETOR)
    actual = chunks(path, config("letor", items={"f[1-3]": {}}, duplicates="refuse"))
    assert (4, "feature id 1 appears twice (data.duplicates: refuse)", 1) in bad(actual)
    assert column(actual, "label") == [2, 1, 3]


def test_letor_feature_names(tmp_path):
    with pytest.raises(ConfigError, match="price: format letor has numbered features; feature n is named f<n>"):
        chunks(tmp_path / "t", config("letor", items={"price": {}}))


def test_letor_side_file(tmp_path):
    path, side = tmp_path / "t", tmp_path / "t.query"
    path.write_text("1 1:1\nbroken\n0 1:3\n1 1:4\n")
    side.write_text("3\n1\n")
    cfg = config("letor", items={"f1": {}}, group_sizes=".query")
    actual = chunks(path, cfg, side=side)
    assert column(actual, "q") == [b"t:1", b"t:1", b"t:2"]  # the bad line keeps its place in list 1
    assert [each[0] for each in bad(actual)] == [2]
    for sizes, actual in (("3\n", "more than 3"), ("3\n2\n", "has 4")):
        side.write_text(sizes)
        with pytest.raises(DataError, match=rf"the list sizes add up to \d rows, but .*{actual}"):
            chunks(path, cfg, side=side)
    side.write_text("3\none\n")
    with pytest.raises(DataError, match="expected one list size per line"):
        chunks(path, cfg, side=side)


@given(
    lines=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.integers(0, 99),
            st.lists(st.tuples(st.integers(0, 9), st.floats(-1e6, 1e6, width=32)), max_size=12),
        ),
        max_size=12,
    ),
    size=st.integers(1, 300),
)
@settings(max_examples=60)
def test_letor_reads_what_a_loop_reads(tmp_path_factory, lines, size):
    """Any ids, in any order, also repeated ones, in chunks of any size."""
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text("".join(f"{y} qid:{q} " + " ".join(f"{i}:{v!r}" for i, v in f) + "\n" for y, q, f in lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(letor, "CHUNK_BYTES", size)
        actual = chunks(path, config("letor", items={"f[0-9]": {}}))
    assert not bad(actual)
    assert column(actual, "label") == [y for y, _, _ in lines]
    assert column(actual, "q") == [str(q).encode() for _, q, _ in lines]
    for i in range(10):
        assert column(actual, f"f{i}") == [dict(f).get(i, 0.0) for _, _, f in lines]  # dict: the last one wins
    repeated = sum(len(f) - len(dict(f)) for _, _, f in lines)
    assert sum(chunk.counts.get("duplicates", 0) for chunk in actual) == repeated
