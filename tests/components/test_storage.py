"""Input in an object store is read as from a local folder."""

import pathlib

import ingested
import pytest

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.ingestion import sources
from tfx_ranking.components.lists import list_examples


def config(pattern, **data):
    pattern = {split: str(each) for split, each in pattern.items()} if isinstance(pattern, dict) else str(pattern)
    raw = {"name": "shop", "data": {"input": pattern, "format": "csv", "group_id": "query", **data}}
    return ranking_config.parse({**raw, "items": {"price": {}}, "push": {"base": "serving"}})


def write_span(folder: pathlib.Path, span: int, groups=range(40), price=1.0) -> pathlib.Path:
    """Two items a group, with a price that depends on the span, in one file."""
    file = folder / f"day-{span:02d}.csv"
    folder.mkdir(exist_ok=True)
    rows = [f"q{group},{(group + item) % 2},{price + span}" for group in groups for item in range(2)]
    file.write_text("\n".join(["query,label,price", *rows, ""]))
    return file


@pytest.mark.parametrize("kind", ["csv", "letor", "parquet"])
def test_input_in_an_object_store_is_read_as_from_a_folder(tmp_path, kind):
    """Read with fsspec: patterns, spans, gzip files and files of list sizes."""
    import gzip

    import buckets  # noqa: F401  registers bucket://
    import pyarrow as pa
    import pyarrow.parquet as pq

    options = {"format": kind, "label": "label", "group_id": "query"}
    items = {"price": {}}
    for span in (1, 2):
        if kind == "parquet":
            groups = [f"q{i}" for i in range(40) for _ in range(2)]
            table = pa.table({"query": groups, "label": [0.0, 1.0] * 40, "price": [float(span)] * 80})
            (tmp_path / "logs").mkdir(exist_ok=True)
            pq.write_table(table, tmp_path / "logs" / f"day-{span:02d}.parquet")
        elif kind == "csv":
            file = write_span(tmp_path / "logs", span)
            file.with_suffix(".csv.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        else:
            (tmp_path / "logs").mkdir(exist_ok=True)
            rows = "".join(f"{i % 2} 1:{span}\n" for i in range(80))
            (tmp_path / "logs" / f"day-{span:02d}.letor").write_text(rows)
            (tmp_path / "logs" / f"day-{span:02d}.letor.query").write_text("2\n" * 40)
            options |= {"group_sizes": ".query", "order": "grouped"}
            items = {"f1": {}}
    written = {}
    for place in ("", "bucket://"):
        data = {**options, "input": f"{place}{tmp_path}/logs/day-{{SPAN}}.*", "window": {"spans": 2}}
        if kind == "letor":
            data["input"] = f"{place}{tmp_path}/logs/day-{{SPAN}}.letor"
            data.pop("group_id")
        cfg = ranking_config.parse({"name": "shop", "data": data, "items": items})
        source = sources.resolve(cfg.data)
        assert all(entry["path"].startswith(place) for entry in source["files"]["all"])
        folder = tmp_path / f"out{len(written)}"
        properties = ingested.run(cfg, folder)
        assert (properties["lists_out"], properties["items_out"], properties["quarantined"]) == (80, 160, 0)
        written[place] = {
            split: list(list_examples.read_records(list_examples.split_files(str(folder), split)))
            for split in ("train", "validation", "test")
        }
    assert written[""] == written["bucket://"]


def test_a_pattern_that_matches_nothing_in_an_object_store(tmp_path):
    import buckets  # noqa: F401

    with pytest.raises(DataError, match=r"no file matches 'bucket://.*List the bucket's content"):
        sources.resolve(config(f"bucket://{tmp_path}/none-*.csv").data)
    with pytest.raises(RankingError, match=r"nosuch://a/b.csv: cannot be reached: Unsupported filesystem"):
        sources.resolve(config("nosuch://a/b.csv").data)
