"""Spans and windows: the files of a window, missing spans, and a query in two spans."""

import json
import pathlib
import shutil

import ingested
import pytest

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.ingestion import sources, spans
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.push import versions


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


def lists(cfg, files) -> dict[bytes, list[list[float]]]:
    """Group id to the prices of each of its lists."""
    batch = list_examples.decode(list(list_examples.read_records(files)), list_examples.columns(cfg))
    actual = {}
    for i, group in enumerate(batch.context["query"]):
        of_list = batch.items["price"][batch.row_splits[i] : batch.row_splits[i + 1]].tolist()
        actual.setdefault(group, []).append(of_list)
    return actual


def taken(source) -> list[tuple[int, str]]:
    return [(each["span"], each["name"]) for entries in source["files"].values() for each in entries]


def test_the_last_spans_and_the_missing_ones(tmp_path):
    for span in (3, 5, 6, 7):
        write_span(tmp_path, span)
    cfg = config(tmp_path / "day-{SPAN}.csv", window={"spans": 4})
    source = sources.resolve(cfg.data)
    assert taken(source) == [(5, "day-05.csv"), (6, "day-06.csv"), (7, "day-07.csv")]
    assert source["spans"] == [5, 6, 7]
    assert source["missing_spans"] == [4]
    assert source["span"] == 7
    earlier = sources.resolve(config(tmp_path / "day-{SPAN}.csv", window={"spans": 4}, span=5).data)
    assert (earlier["spans"], earlier["missing_spans"]) == (
        [3, 5],
        [4],
    )  # none before the first
    assert earlier != sources.resolve(config(tmp_path / "day-{SPAN}.csv", window={"spans": 1}, span=5).data)


def test_dates_are_days_since_1970_and_other_names_are_not_spans(tmp_path):
    for name in ("1970-01-03", "1970-01-05", "1970-13-01", "latest"):
        (tmp_path / f"{name}.csv").write_text(f"query,label,price\n{name},1,1\n")
    source = sources.resolve(config(tmp_path / "{YYYY}-{MM}-{DD}.csv", window={"spans": 7}).data)
    assert (source["spans"], source["missing_spans"]) == ([2, 4], [3])


def test_a_span_is_available_when_all_patterns_match_in_one_version(tmp_path):
    for path in ("1/v1/train.csv", "1/v1/test.csv", "1/v2/train.csv", "2/v1/train.csv", "10/v1/test.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"query,label,price\n{path},1,1\n")
    pattern = {split: tmp_path / "{SPAN}" / "v{VERSION}" / f"{split}.csv" for split in ("train", "test")}
    source = sources.resolve(config(pattern).data)
    assert taken(source) == [(1, "1/v1/train.csv"), (1, "1/v1/test.csv")]
    assert source["version"] == 1


@pytest.mark.parametrize("pattern", ["{SPAN}/{YYYY}.csv", "{YYYY}-{MM}.csv", "{SPAN}{SPAN}.csv", "{VERSION}.csv"])
def test_wrong_combinations_of_marks(tmp_path, pattern):
    with pytest.raises(DataError, match=r"needs \{SPAN\}, or \{YYYY\}"):
        sources.resolve(config(tmp_path / pattern).data)


def test_a_repeated_file_is_read_once(tmp_path):
    first = write_span(tmp_path, 1)
    shutil.copy(first, tmp_path / "day-01-again.csv")
    shutil.copy(first, tmp_path / "day-02.csv")
    source = sources.resolve(config(tmp_path / "day-{SPAN:2}*.csv", window={"spans": 2}).data)
    assert taken(source) == [(1, "day-01-again.csv")]
    assert source["spans"] == [1]
    repeated = [pathlib.Path(each).name for each in source["repeated"]]
    assert repeated == ["day-01.csv", "day-02.csv"]


def test_since_the_live_model(tmp_path):
    logs, base = tmp_path / "logs", tmp_path / "serving"
    for span in range(1, 5):
        write_span(logs, span)
    cfg = config(logs / "day-{SPAN}.csv", window={"since": "live"})
    of = lambda: sources.resolve(cfg.data, lambda: versions.ServingBase(base).live_spans())["spans"]  # noqa: E731
    assert of() == [1, 2, 3, 4]  # no model is served
    model = base / "1"
    for name in ("saved_model.pb", "variables/variables.index", model_files.LINEAGE_IN_MODEL):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text(json.dumps({"data": {"span": 3, "spans": "[1, 3]"}}))
    assert of() == [4]
    (logs / "day-04.csv").unlink()
    assert of() == [1, 3]  # no later span: the same spans again
    (model / model_files.LINEAGE_IN_MODEL).write_text("{}")
    with pytest.raises(DataError, match="does not say on which spans it was trained"):
        of()


def test_a_window_needs_spans_and_since_live_a_destination():
    with pytest.raises(ConfigError, match=r"data\.window: spans need \{SPAN\}, or \{YYYY\}"):
        config("logs/*.csv", window={"spans": 2})
    with pytest.raises(ConfigError, match=r"data\.window\.spans: expected spans or since, and not both"):
        config("{SPAN}.csv", window={})
    with pytest.raises(ConfigError, match=r"data\.window\.spans: expected at least 1; got 0"):
        config("{SPAN}.csv", window={"spans": 0})
    raw = {"name": "a", "data": {"input": "{SPAN}", "format": "csv", "window": {"since": "live"}}, "items": {"f": {}}}
    with pytest.raises(ConfigError, match=r"data\.window\.since: the live model is the one that push\.base serves"):
        ranking_config.parse(raw)


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_a_query_in_two_spans_is_two_lists_of_one_split(tmp_path, order):
    logs = tmp_path / "logs"
    for span in (1, 2):
        write_span(logs, span)
    cfg = config(logs / "day-{SPAN}.csv", window={"spans": 2}, order=order, splits={"validation": 0.2, "test": 0.3})
    out = tmp_path / "out"
    properties = ingested.run(cfg, out)
    assert properties["lists_out"] == 80
    assert json.loads(properties["spans"]) == [1, 2]
    assert properties["summary"].endswith("spans 1-2")
    splits = ("train", "validation", "test")
    actual = {split: lists(cfg, list_examples.split_files(str(out), split)) for split in splits}
    assert sum(map(len, actual.values())) == 40  # no query is in two splits
    for of_split in actual.values():
        assert all(sorted(each) == [[2.0, 2.0], [3.0, 3.0]] for each in of_split.values())  # one list a span
    by_shard = json.loads((out / list_examples.SPANS_OF_SHARDS).read_text())
    assert {span for of_split in by_shard.values() for span in of_split.values()} == {1, 2}
    for shard, span in by_shard["test"].items():
        of_shard = lists(cfg, [str(out / "Split-test" / shard)])
        assert of_shard
        assert all(each == [[1.0 + span] * 2] for each in of_shard.values())


def test_the_split_of_a_query_does_not_depend_on_the_window(tmp_path):
    logs = tmp_path / "logs"
    for span in (1, 2, 3):
        write_span(logs, span)
    actual = []
    for count in (1, 3):
        cfg = config(logs / "day-{SPAN}.csv", window={"spans": count}, splits={"validation": 0.2, "test": 0.3})
        out = tmp_path / str(count)
        ingested.run(cfg, out)
        actual.append(set(lists(cfg, list_examples.split_files(str(out), "test"))))
    assert actual[0] == actual[1]


def test_keep_files(tmp_path):
    for span in (1, 2, 3):
        write_span(tmp_path, span)
    source = sources.resolve(config(tmp_path / "day-{SPAN}.csv", window={"spans": 3}).data)
    left = sources.keep_files(source, lambda entry: entry["span"] != 3)
    assert taken(left) == [(1, "day-01.csv"), (2, "day-02.csv")]
    assert (left["span"], left["spans"]) == (2, [1, 2])


def test_span_numbers_as_text():
    assert spans.text([]) == ""
    assert spans.text([9, 3, 4, 5]) == "3-5, 9"
