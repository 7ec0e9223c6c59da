"""RankingExampleGen: what its input is, and the component around the ingestion."""

import gzip
import json
import pathlib
import re

import pytest
from ingested import ROWS, by_group, config, run, write_csv
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import artifact_utils, standard_artifacts

from tfx_ranking.components import example_gen
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import from_selection, parse
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.ingestion import sources
from tfx_ranking.components.lists.list_examples import columns

# What the input is


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
        rf"data\.input\.test: no file matches .*\*\.tsv'\. The folder {re.escape(str(tmp_path))} holds: logs\.csv\."
    )
    with pytest.raises(DataError, match=message):
        sources.resolve(config({"train": tmp_path / "*.csv", "test": tmp_path / "*.tsv"}).data)
    with pytest.raises(DataError, match=r"data\.input: no file matches .* There is no folder .*absent"):
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
    with pytest.raises(
        DataError, match=r"a\.txt has no file of list sizes beside it; there is neither .*a\.txt\.query"
    ):
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
    with pytest.raises(DataError, match=r"data\.input: no span 5 for .* There are 1-2, 10\."):
        sources.resolve(config(pattern, span=5).data)


def test_names_are_paths_below_the_common_folder(tmp_path):
    for name in ("a/x.csv", "ab/x.csv"):
        (tmp_path / name).parent.mkdir()
        write_csv(tmp_path / name, ROWS)
    entries = sources.resolve(config(tmp_path / "*" / "x.csv").data)["files"]["all"]
    assert [entry["name"] for entry in entries] == ["a/x.csv", "ab/x.csv"]


# The component


def test_the_component_writes_a_stock_artifact(tmp_path):
    write_csv(tmp_path / "t.csv", [*ROWS, ("", 1, 1)])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    cfg = config(tmp_path / "t.csv.gz")
    selected = cfg.select(*example_gen.READS)
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "m.sqlite"))

    def execute(**source):
        step = example_gen.RankingExampleGen(config=selected, **source)
        LocalDagRunner().run(
            pipeline.Pipeline("t", str(tmp_path / "root"), components=[step], metadata_connection_config=connection,
                              enable_cache=True)
        )  # fmt: skip
        with metadata.Metadata(connection) as store:
            return store.store.get_artifacts_by_type("Examples"), store.store.get_artifact_type("Examples")

    execute(source=example_gen.resolve(cfg.data))
    artifacts, kind = execute(source=example_gen.resolve(cfg.data))
    assert len(artifacts) == 1  # the second run was cached
    artifacts, kind = execute()  # without a source the executor looks for itself
    assert len(artifacts) == 2
    for proto in artifacts:
        artifact = artifact_utils.deserialize_artifact(kind, proto)
        assert isinstance(artifact, standard_artifacts.Examples)
        assert artifact_utils.decode_split_names(artifact.split_names) == ["train", "validation", "test"]
        assert artifact.span == 0
        assert artifact.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
        assert artifact.get_string_custom_property("file_format") == "tfrecords_gzip"
        assert artifact.get_int_custom_property("quarantined") == 1
        assert artifact.get_string_custom_property("summary") == "100 lists, 300 items, 1 quarantined"
        assert artifact_utils.get_split_uris([artifact], "train")
        folder = pathlib.Path(artifact.uri)
        assert sorted(path.name for path in folder.iterdir()) == [
            "Split-test", "Split-train", "Split-validation", "quarantine.jsonl",
        ]  # fmt: skip
        assert len(by_group(cfg, folder)) == 100
    first, second = (pathlib.Path(proto.uri) for proto in artifacts)
    for file in first.rglob("*.gz"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_beam_gives_what_the_plain_functions_give(tmp_path, order):
    """Splits by time go through every Beam step; grouped rows through none but one."""
    rows = [(group, x, label, x // 3) for group, x, label in ROWS]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "t"))
    cfg = config(path, order=order, **({"splits": {"by": "t"}} if order == "any" else {}))
    expected = run(cfg, tmp_path / "plain")
    assert example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "beam")) == expected
    assert by_group(cfg, tmp_path / "beam") == by_group(cfg, tmp_path / "plain")


def test_error_of_a_worker_is_raised_without_beams_stack(tmp_path):
    path = write_csv(tmp_path / "t.csv", [(1, 2)], ("group_id", "y"))
    cfg = config(path)
    with pytest.raises(DataError) as error:
        example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "out"))
    assert str(error.value) == f"{path}: column 'x' is not in the file. It has: group_id, y."


@pytest.mark.parametrize("separator", [";", "\t"])
def test_error_names_another_separator(separator, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(f"group_id{separator}x\n1{separator}2\n")
    cfg = config(path)
    with pytest.raises(DataError) as error:
        example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "out"))
    assert str(error.value) == (
        f"{path}: column 'group_id' is not in the file. It has: group_id{separator}x. "
        f"The header looks separated by {separator!r}; expected ','."
    )


@pytest.mark.parametrize("rows", ["group_id,x\nzürich,2\n", "group_id,größe\n1,2\n"])
def test_error_names_a_file_that_is_not_utf_8(rows, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(rows.encode("latin-1"))
    cfg = config(path)
    with pytest.raises(DataError) as error:
        example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "out"))
    wrong = "ü" if "ü" in rows else "ö"
    assert str(error.value) == (
        f"{path}: the file is not UTF-8: it has the byte 0x{ord(wrong):02x}. Re-encode it, as iconv does."
    )


def test_the_component_reads_what_it_depends_on_and_no_more():
    cfg = config("x.csv", items={"x": {"default": 1.0, "transform": ["log1p"], "indicator": True}})
    other = parse({
        "name": "t", "data": {"input": "x.csv", "format": "csv", "max_bad_fraction": 0.5, "on_anomaly": "warn"},
        "items": {"x": {"default": 1.0, "transform": ["z_score"]}}, "training": {"learning_rate": 0.5},
    })  # fmt: skip
    assert cfg.select(*example_gen.READS) == other.select(*example_gen.READS)
    capped = config("x.csv", items={"x": {"default": 1.0}}, max_items=3, keep="label")
    assert capped.select(*example_gen.READS) != cfg.select(*example_gen.READS)
    tokens = config("x.csv", items={"x": {"dtype": "string", "tokens": {"top_k": 5}}, "v": {"shape": [3]}})
    again = from_selection(tokens.select(*example_gen.READS))
    assert str(columns(again)) == str(columns(tokens))  # as text, where NaN equals NaN


def test_every_format_of_the_config_has_a_reader():
    for name in FORMATS:
        assert config("x", format=name, items={"f1": {}}).data.format == name
