"""Runs an ingestion without Beam, writes small inputs, and checks the counts of the result."""

import json
import pathlib

from tfx_ranking.components.config import parse
from tfx_ranking.components.ingestion import accounts, shuffle, sources, workers
from tfx_ranking.components.ingestion.plan import make_plan
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files


def config(pattern, format="csv", items=None, context=None, **data):
    data = {"input": pattern, "format": format, "max_bad_fraction": 0.5, **data}
    if isinstance(pattern, dict):
        data["input"] = {split: str(each) for split, each in pattern.items()}
    elif isinstance(pattern, pathlib.Path):
        data["input"] = str(pattern)
    return parse({"name": "t", "data": data, "items": items or {"x": {}}, "context": context or {}})


def run(cfg, folder):
    """Does what `example_gen.ingest` does, but without Beam, which takes a second to start."""
    source = sources.resolve(cfg.data)
    plan = make_plan(cfg, source, str(folder))
    if plan.streamed:
        for file in plan.files:
            workers.ingest_file(plan, file)
    else:
        buckets = {}
        for file in plan.files:
            for bucket, part in shuffle.scatter(plan, file):
                buckets.setdefault(bucket, []).append(part)
        # In reverse, because Beam does not promise an order.
        unordered = [(bucket, parts[::-1]) for bucket, parts in sorted(buckets.items(), reverse=True)]
        if plan.time is None:
            for bucket, parts in unordered:
                shuffle.write_bucket(plan, bucket, parts)
        else:
            encoded = [shuffle.encode_bucket(plan, bucket, parts) for bucket, parts in unordered]
            times = [shuffle.times_of(bucket) for bucket in encoded]
            for bucket in encoded:
                shuffle.write_by_time(plan, bucket, times)
    return accounts.finish(plan, source)


def read(cfg, folder, split):
    return decode(list(read_records(split_files(str(folder), split))), columns(cfg))


def by_group(cfg, folder, names=("train", "validation", "test")):
    """Group id → (split, values of x), for every list; fails where a group id appears twice."""
    lists = {}
    for split in names:
        batch = read(cfg, folder, split)
        for i, group in enumerate(batch.context[cfg.data.group_id]):
            assert group not in lists
            lists[group.decode()] = (split, batch.items["x"][batch.row_splits[i] : batch.row_splits[i + 1]].tolist())
    return lists


def write_csv(path, rows, names=("group_id", "x", "label")):
    path.write_text("".join(",".join(str(cell) for cell in row) + "\n" for row in [names, *rows]))
    return path


def quarantine(folder):
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def equation(cfg, properties):
    """Asserts that records in = items out + quarantined + capped + dropped; returns the items out."""
    out = sum(properties[f"items_{split}"] for split in properties["split_names"])
    assert out == properties["items_out"]
    lost = properties["quarantined"] + properties["capped"] + properties["dropped"]
    assert properties["records_in"] == out + lost
    return out


ROWS = [(f"q{i // 3}", i, i % 3) for i in range(300)]
