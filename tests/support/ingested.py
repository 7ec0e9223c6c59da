"""Ingestion without Beam, small inputs, and what must hold of every outcome."""

import json
import pathlib

from tfx_ranking.components.config import parse
from tfx_ranking.components.ingestion import accounts, shuffle, sources, workers
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files


def config(pattern, format="csv", items=None, context=None, **data):
    data = {"input": pattern, "format": format, "max_bad_fraction": 0.5, **data}
    if isinstance(pattern, dict):
        data["input"] = {split: str(each) for split, each in pattern.items()}
    elif isinstance(pattern, pathlib.Path):
        data["input"] = str(pattern)
    return parse({"name": "t", "data": data, "items": items or {"x": {}}, "context": context or {}})


def run(cfg, folder):
    """What `example_gen.ingest` does, without Beam, whose start takes a second."""
    source = sources.resolve(cfg.data)
    task = workers.plan(cfg, source, str(folder))
    if task.streamed:
        for unit in task.units:
            workers.ingest_file(task, unit)
    else:
        buckets = {}
        for unit in task.units:
            for bucket, part in shuffle.scatter(task, unit):
                buckets.setdefault(bucket, []).append(part)
        ordered = [
            (bucket, parts[::-1]) for bucket, parts in sorted(buckets.items(), reverse=True)
        ]  # Beam promises none
        if task.time is None:
            for bucket, parts in ordered:
                shuffle.write_bucket(task, bucket, parts)
        else:
            gathered = [shuffle.gather(task, bucket, parts) for bucket, parts in ordered]
            for each in gathered:
                shuffle.settle(task, each, [shuffle.times_of(each) for each in gathered])
    return accounts.finish(task, source)


def read(cfg, folder, split):
    return decode(list(read_records(split_files(str(folder), split))), columns(cfg))


def by_group(cfg, folder, names=("train", "validation", "test")):
    """Group id → (split, values of x) of every list."""
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
    """Records in = items out + quarantined + capped + dropped."""
    out = sum(properties[f"items_{split}"] for split in properties["split_names"])
    assert out == properties["items_out"]
    lost = properties["quarantined"] + properties["capped"] + properties["dropped"]
    assert properties["records_in"] == out + lost
    return out


ROWS = [(f"q{i // 3}", i, i % 3) for i in range(300)]
