"""RankingExampleGen, the component around the ingestion."""

import gzip
import pathlib

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
    artifacts, kind = execute()  # without a source, the component resolves the input itself
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
def test_beam_writes_the_same_as_the_plain_functions(tmp_path, order):
    """Splits by time use every Beam step, grouped rows only one."""
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
        f"{path}: the file is not UTF-8: it has the byte 0x{ord(wrong):02x}. Convert it, for example with iconv."
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
