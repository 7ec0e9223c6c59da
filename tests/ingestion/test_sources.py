"""The files that an input matches; every change of a file is a change of the source."""

import json
import re

import pytest
from ingested import ROWS, config, run, write_csv

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.ingestion import sources


def test_one_byte_or_one_file_more_is_another_source(tmp_path):
    path = write_csv(tmp_path / "1.csv", ROWS)
    cfg = config(tmp_path / "*.csv")
    before = sources.resolve(cfg.data)
    assert sources.resolve(cfg.data) == before
    path.write_bytes(path.read_bytes().replace(b"q0,0,", b"q0,1,", 1))
    changed = sources.resolve(cfg.data)
    assert changed != before
    write_csv(tmp_path / "2.csv", ROWS)
    assert sources.resolve(cfg.data) != changed
    assert json.loads(json.dumps(changed)) == changed


def test_a_pattern_that_matches_nothing_shows_the_folder(tmp_path):
    (tmp_path / "logs.csv").write_text("x")
    message = (
        rf"data\.input\.test: no file matches .*\*\.tsv'\. The folder {re.escape(str(tmp_path))} contains: logs\.csv\."
    )
    with pytest.raises(DataError, match=message):
        sources.resolve(config({"train": tmp_path / "*.csv", "test": tmp_path / "*.tsv"}).data)
    with pytest.raises(DataError, match=r"data\.input: no file matches .* The folder .*absent does not exist"):
        sources.resolve(config(tmp_path / "absent" / "x.csv").data)


def test_an_empty_input_fails_at_once(tmp_path):
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match=r"data\.input: every file that matches is empty .*t\.csv"):
        sources.resolve(config(tmp_path / "t.csv").data)
    (tmp_path / "t.csv").write_text("group_id,x,label\n")
    with pytest.raises(DataError, match="the files have no records"):
        run(config(tmp_path / "t.csv"), tmp_path / "out")


def test_side_files(tmp_path):
    (tmp_path / "a.txt").write_text("1 1:2\n")
    cfg = config(tmp_path / "a*", format="letor", items={"f1": {}}, group_sizes=".query")
    with pytest.raises(DataError, match=r"a\.txt has no file of list sizes beside it; looked for .*a\.txt\.query"):
        sources.resolve(cfg.data)
    (tmp_path / "a.txt.query").write_text("1\n")
    (entry,) = sources.resolve(cfg.data)["files"]["all"]
    assert entry["side"] == str(tmp_path / "a.txt.query")
    before = sources.resolve(cfg.data)
    (tmp_path / "a.txt.query").write_text("2\n")
    assert sources.resolve(cfg.data) != before


def test_spans_and_versions(tmp_path):
    for span, version in ((1, 1), (2, 1), (2, 3), (10, 1)):
        folder = tmp_path / f"span{span}" / f"v{version}"
        folder.mkdir(parents=True)
        write_csv(folder / "a.csv", ROWS[: 3 * span])
    pattern = tmp_path / "span{SPAN}" / "v{VERSION}" / "*.csv"
    newest = sources.resolve(config(pattern).data)
    assert (newest["span"], newest["version"]) == (10, 1)
    second = sources.resolve(config(pattern, span=2).data)
    assert (second["span"], second["version"]) == (2, 3)
    assert [entry["path"] for entry in second["files"]["all"]] == [str(tmp_path / "span2" / "v3" / "a.csv")]
    with pytest.raises(DataError, match=r"data\.input: no span 5 for .* The spans are 1-2, 10\."):
        sources.resolve(config(pattern, span=5).data)


def test_names_are_paths_below_the_common_folder(tmp_path):
    for name in ("a/x.csv", "ab/x.csv"):
        (tmp_path / name).parent.mkdir()
        write_csv(tmp_path / name, ROWS)
    entries = sources.resolve(config(tmp_path / "*" / "x.csv").data)["files"]["all"]
    assert [entry["name"] for entry in entries] == ["a/x.csv", "ab/x.csv"]
